//! RDS: which cluster a service's calls go to, for how long, and when they are retried.
//!
//! One cluster takes all calls of a name for now: routes that part them by path, header or weight are refused as not
//! supported yet.

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::{
    Route as ProtoRoute, RouteAction, RouteConfiguration, RouteMatch, VirtualHost as ProtoHost, WeightedCluster,
    route::Action, route_action::ClusterSpecifier, route_match::PathSpecifier,
};

use super::{Invalid, duration, parse};
use crate::xds::model::Retry;

/// A RouteConfiguration.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteConfig {
    /// Its virtual hosts.
    pub virtual_hosts: Vec<VirtualHost>,
}

/// A virtual host.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualHost {
    /// Whom it is for.
    pub domains: Vec<Domain>,
    /// Where its calls go; `None`: nowhere, as it has no route that forwards.
    pub route: Option<Route>,
}

/// Where calls go.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The cluster's name.
    pub cluster: String,
    /// The timeout, if the route says something about it. Zero: none.
    pub timeout: Option<Duration>,
    /// The retries.
    pub retry: Option<Retry>,
}

/// A pattern for hosts, in lower case. Better ones are greater: the exact host, then the longest suffix, then the longest
/// prefix, then everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Domain {
    /// `*`
    Everything,
    /// `checkout.*`
    Prefix(String),
    /// `*.shop`
    Suffix(String),
    /// `checkout.shop`
    Exact(String),
}

impl Domain {
    fn parse(pattern: &str) -> Option<Self> {
        let pattern = pattern.to_ascii_lowercase();
        let domain = if pattern == "*" {
            Self::Everything
        } else if let Some(suffix) = pattern.strip_prefix('*') {
            Self::Suffix(suffix.to_owned())
        } else if let Some(prefix) = pattern.strip_suffix('*') {
            Self::Prefix(prefix.to_owned())
        } else {
            Self::Exact(pattern)
        };
        match &domain {
            Self::Everything => Some(domain),
            Self::Prefix(text) | Self::Suffix(text) | Self::Exact(text) => {
                (!text.is_empty() && !text.contains('*')).then_some(domain)
            }
        }
    }

    /// How well it fits a host in lower case: its kind, then its length. A `*` stands for at least one character.
    fn fit(&self, host: &str) -> Option<(u8, usize)> {
        match self {
            Self::Everything => Some((0, 0)),
            Self::Prefix(text) => (host.len() > text.len() && host.starts_with(text)).then_some((1, text.len())),
            Self::Suffix(text) => (host.len() > text.len() && host.ends_with(text)).then_some((2, text.len())),
            Self::Exact(text) => (host == text).then_some((3, text.len())),
        }
    }
}

impl RouteConfig {
    /// The virtual host with the best pattern for `host`; of equals the first.
    #[must_use]
    pub fn find(&self, host: &str) -> Option<&VirtualHost> {
        let host = host.to_ascii_lowercase();
        let mut best: Option<((u8, usize), &VirtualHost)> = None;
        for candidate in &self.virtual_hosts {
            for fit in candidate.domains.iter().filter_map(|domain| domain.fit(&host)) {
                if best.is_none_or(|(held, _)| fit > held) {
                    best = Some((fit, candidate));
                }
            }
        }
        best.map(|(_, host)| host)
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<(String, Result<RouteConfig, Invalid>), Invalid> {
    let mut proto: RouteConfiguration = parse("", bytes)?;
    Ok((std::mem::take(&mut proto.name), validate(&proto)))
}

pub(super) fn validate(proto: &RouteConfiguration) -> Result<RouteConfig, Invalid> {
    let hosts = proto.virtual_hosts.iter().enumerate();
    let virtual_hosts = hosts
        .map(|(i, host)| virtual_host(host).map_err(|invalid| invalid.below(format_args!("virtual_hosts[{i}]"))))
        .collect::<Result<_, _>>()?;
    Ok(RouteConfig { virtual_hosts })
}

fn virtual_host(proto: &ProtoHost) -> Result<VirtualHost, Invalid> {
    if proto.domains.is_empty() {
        return Err(Invalid::new("domains", "must not be empty"));
    }
    let domains = proto
        .domains
        .iter()
        .enumerate()
        .map(|(i, text)| {
            Domain::parse(text)
                .ok_or_else(|| Invalid::new(format!("domains[{i}]"), format!("invalid domain pattern `{text}`")))
        })
        .collect::<Result<_, _>>()?;
    let mut chosen: Option<Option<Route>> = None;
    for (i, proto_route) in proto.routes.iter().enumerate() {
        let at = |invalid: Invalid| invalid.below(format_args!("routes[{i}]"));
        let Some(scope) = matcher(proto_route.r#match.as_ref()).map_err(at)? else { continue };
        let Some(action) = action(proto_route, proto).map_err(at)? else { continue };
        if chosen.as_ref().is_some_and(|chosen| *chosen != action) {
            return Err(at(Invalid::new("", "routes to different places by path are not supported yet")));
        }
        chosen = Some(action);
        if scope == Scope::Everything {
            return Ok(VirtualHost { domains, route: chosen.flatten() });
        }
    }
    match chosen {
        None => Ok(VirtualHost { domains, route: None }),
        Some(_) => Err(Invalid::new("routes", "a virtual host without a route for every path is not supported yet")),
    }
}

/// Which calls a route is for.
#[derive(PartialEq)]
enum Scope {
    Everything,
    Some,
}

/// What a route matches; `None`: nothing of gRPC's, so that it is passed over.
fn matcher(proto: Option<&RouteMatch>) -> Result<Option<Scope>, Invalid> {
    let proto = proto.ok_or_else(|| Invalid::new("match", "must be set"))?;
    if !proto.query_parameters.is_empty() {
        return Ok(None);
    }
    if !proto.headers.is_empty() {
        return Err(Invalid::new("match.headers", "not supported yet"));
    }
    if proto.runtime_fraction.is_some() {
        return Err(Invalid::new("match.runtime_fraction", "not supported yet"));
    }
    match &proto.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) if prefix.is_empty() || prefix == "/" => Ok(Some(Scope::Everything)),
        Some(PathSpecifier::Prefix(prefix)) => {
            // gRPC's paths are /SERVICE/METHOD: other prefixes match nothing.
            let mut parts = prefix.strip_prefix('/').map(|rest| rest.splitn(3, '/'));
            let fits = parts.as_mut().is_some_and(|parts| parts.next().is_some_and(|service| !service.is_empty()))
                && parts.is_some_and(|mut parts| parts.nth(1).is_none());
            Ok(fits.then_some(Scope::Some))
        }
        Some(PathSpecifier::Path(path)) => {
            let mut parts = path.strip_prefix('/').unwrap_or_default().split('/');
            let fits = matches!((parts.next(), parts.next(), parts.next()), (Some(s), Some(m), None) if !s.is_empty() && !m.is_empty());
            Ok(fits.then_some(Scope::Some))
        }
        Some(PathSpecifier::SafeRegex(_)) => Err(Invalid::new("match.safe_regex", "not supported yet")),
        Some(_) | None => Err(Invalid::new("match", "invalid path specifier")),
    }
}

/// Where a route leads: `None`: it is passed over, `Some(None)`: nowhere.
fn action(route: &ProtoRoute, host: &ProtoHost) -> Result<Option<Option<Route>>, Invalid> {
    let Some(Action::Route(action)) = &route.action else { return Ok(Some(None)) };
    let cluster = match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) if !name.is_empty() => name.clone(),
        Some(ClusterSpecifier::Cluster(_)) => return Err(Invalid::new("route.cluster", "must not be empty")),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => the_one_with_weight(weighted)?,
        Some(ClusterSpecifier::ClusterHeader(_)) => return Ok(None),
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_) | ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            return Err(Invalid::new("route.cluster_specifier_plugin", "not supported yet"));
        }
        None => return Err(Invalid::new("route.cluster_specifier", "must be set")),
    };
    let retry = action.retry_policy.as_ref().or(host.retry_policy.as_ref());
    let retry = retry.map(retries).transpose().map_err(|invalid| invalid.below("retry_policy"))?.flatten();
    Ok(Some(Some(Route { cluster, timeout: timeout(action)?, retry })))
}

fn the_one_with_weight(weighted: &WeightedCluster) -> Result<String, Invalid> {
    let field = "route.weighted_clusters";
    let mut found = None;
    for cluster in &weighted.clusters {
        if cluster.weight.as_ref().is_none_or(|weight| weight.value == 0) {
            continue;
        }
        if cluster.name.is_empty() {
            return Err(Invalid::new(field, "a cluster has no name"));
        }
        if found.is_some() {
            return Err(Invalid::new(field, "more than one cluster with weight is not supported yet"));
        }
        found = Some(cluster.name.clone());
    }
    found.ok_or_else(|| Invalid::new(field, "no cluster has weight"))
}

/// gRPC's `max_stream_duration` before Envoy's `timeout`.
fn timeout(action: &RouteAction) -> Result<Option<Duration>, Invalid> {
    if let Some(stream) = &action.max_stream_duration {
        if let Some(header) = &stream.grpc_timeout_header_max {
            return duration("route.max_stream_duration.grpc_timeout_header_max", header).map(Some);
        }
        if let Some(limit) = &stream.max_stream_duration {
            return duration("route.max_stream_duration.max_stream_duration", limit).map(Some);
        }
    }
    action.timeout.as_ref().map(|timeout| duration("route.timeout", timeout)).transpose()
}

/// gRPC's retries: by status alone. `None`: there is no status of gRPC's to retry on.
fn retries(proto: &envoy_types::pb::envoy::config::route::v3::RetryPolicy) -> Result<Option<Retry>, Invalid> {
    let statuses = proto.retry_on.split(',').filter_map(|word| match word.trim() {
        "cancelled" => Some(1),
        "deadline-exceeded" => Some(4),
        "resource-exhausted" => Some(8),
        "internal" => Some(13),
        "unavailable" => Some(14),
        _ => None,
    });
    let mut on: Vec<i32> = statuses.collect();
    on.sort_unstable();
    on.dedup();
    let attempts = proto.num_retries.as_ref().map_or(1, |retries| retries.value);
    if attempts == 0 {
        return Err(Invalid::new("num_retries", "must be greater than 0"));
    }
    let (mut base, mut max) = (Duration::from_millis(25), Duration::from_millis(250));
    if let Some(back_off) = &proto.retry_back_off {
        let interval = back_off.base_interval.as_ref();
        let interval = interval.ok_or_else(|| Invalid::new("retry_back_off.base_interval", "must be set"))?;
        base = duration("retry_back_off.base_interval", interval)?;
        if base.is_zero() {
            return Err(Invalid::new("retry_back_off.base_interval", "must be greater than 0"));
        }
        max = match &back_off.max_interval {
            Some(interval) => duration("retry_back_off.max_interval", interval)?,
            None => base * 10,
        };
        if max < base {
            return Err(Invalid::new("retry_back_off.max_interval", "must not be less than base_interval"));
        }
    }
    // Zero means none, as in Envoy.
    let per_try_timeout = proto.per_try_timeout.as_ref().map(|limit| duration("per_try_timeout", limit)).transpose()?;
    let per_try_timeout = per_try_timeout.filter(|limit| !limit.is_zero());
    let budget_percent = Retry::BUDGET_PERCENT;
    Ok((!on.is_empty()).then_some(Retry { attempts, on, base, max, per_try_timeout, budget_percent }))
}
