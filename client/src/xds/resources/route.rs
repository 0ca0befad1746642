//! RDS: whose calls go where, for how long, and when they are retried.
//!
//! A route that matches or acts in a way that no gRPC client has is passed over or refused as gRPC does it.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use envoy_types::pb::envoy::config::route::v3::{
    HeaderMatcher, Route as ProtoRoute, RouteAction, RouteConfiguration, RouteMatch as ProtoMatch,
    VirtualHost as ProtoHost, WeightedCluster, header_matcher::HeaderMatchSpecifier, route::Action,
    route_action::ClusterSpecifier, route_action::HashPolicy as ProtoHash, route_action::hash_policy::PolicySpecifier,
    route_match::PathSpecifier,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern};
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;

use super::{Invalid, duration, parse};
use crate::xds::hashing::{HashOn, HashPolicy, Rewrite};
use crate::xds::matching::{FullRegex, HeaderMatch, HeaderValueMatch, Pattern, RouteMatch, TextMatch};
use crate::xds::model::Retry;
use crate::xds::routing::{Forward, Route, Share};

/// The filter state that stands for the channel, as gRPC calls it.
const CHANNEL_ID: &str = "io.grpc.channel_id";

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
    /// Where its calls go: the first route that fits takes a call.
    pub routes: Arc<[Route]>,
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
    let mut routes = Vec::with_capacity(proto.routes.len());
    for (i, proto_route) in proto.routes.iter().enumerate() {
        let read = route(proto_route, proto).map_err(|invalid| invalid.below(format_args!("routes[{i}]")))?;
        routes.extend(read);
    }
    Ok(VirtualHost { domains, routes: routes.into() })
}

/// A route; `None`: gRPC passes it over.
fn route(proto: &ProtoRoute, host: &ProtoHost) -> Result<Option<Route>, Invalid> {
    let matcher = proto.r#match.as_ref().ok_or_else(|| Invalid::new("match", "must be set"))?;
    if !matcher.query_parameters.is_empty() {
        return Ok(None);
    }
    let matches = route_match(matcher).map_err(|invalid| invalid.below("match"))?;
    let forward = match &proto.action {
        Some(Action::Route(action)) => match forward(action, host)? {
            Some(forward) => Some(forward),
            None => return Ok(None),
        },
        _ => None,
    };
    Ok(Some(Route { matches, forward }))
}

/// Paths that no gRPC method has are kept as well: they fit none, and HTTP has them.
fn route_match(proto: &ProtoMatch) -> Result<RouteMatch, Invalid> {
    let ignore_case = proto.case_sensitive.as_ref().is_some_and(|sensitive| !sensitive.value);
    let path = match &proto.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => TextMatch { pattern: Pattern::Prefix(prefix.clone()), ignore_case },
        Some(PathSpecifier::Path(path)) => TextMatch { pattern: Pattern::Exact(path.clone()), ignore_case },
        // A regular expression says itself which case it wants.
        Some(PathSpecifier::SafeRegex(it)) => TextMatch { pattern: regex("safe_regex", it)?, ignore_case: false },
        Some(_) | None => return Err(Invalid::new("", "invalid path specifier")),
    };
    let headers = proto.headers.iter().enumerate();
    let headers = headers
        .map(|(i, header)| header_match(header).map_err(|invalid| invalid.below(format_args!("headers[{i}]"))))
        .collect::<Result<_, _>>()?;
    let per_million = proto.runtime_fraction.as_ref().map(per_million).transpose()?;
    Ok(RouteMatch { path, headers, per_million })
}

fn header_match(proto: &HeaderMatcher) -> Result<HeaderMatch, Invalid> {
    use HeaderMatchSpecifier as Specifier;
    if proto.name.is_empty() {
        return Err(Invalid::new("name", "must not be empty"));
    }
    let text = |pattern| HeaderValueMatch::Text(TextMatch { pattern, ignore_case: false });
    #[expect(deprecated, reason = "control planes still write the older forms, and gRPC reads them")]
    let value = match &proto.header_match_specifier {
        Some(Specifier::ExactMatch(value)) => text(Pattern::Exact(value.clone())),
        Some(Specifier::PrefixMatch(value)) => text(Pattern::Prefix(value.clone())),
        Some(Specifier::SuffixMatch(value)) => text(Pattern::Suffix(value.clone())),
        Some(Specifier::ContainsMatch(value)) => text(Pattern::Contains(value.clone())),
        Some(Specifier::SafeRegexMatch(it)) => text(regex("safe_regex_match", it)?),
        Some(Specifier::StringMatch(it)) => {
            HeaderValueMatch::Text(string_match(it).map_err(|invalid| invalid.below("string_match"))?)
        }
        Some(Specifier::RangeMatch(range)) if range.end >= range.start => {
            HeaderValueMatch::Range(range.start, range.end)
        }
        Some(Specifier::RangeMatch(_)) => return Err(Invalid::new("range_match", "ends before it begins")),
        Some(Specifier::PresentMatch(present)) => HeaderValueMatch::Present(*present),
        None => return Err(Invalid::new("", "invalid header matcher: it says nothing of the value")),
    };
    Ok(HeaderMatch { name: proto.name.to_ascii_lowercase(), value, invert: proto.invert_match })
}

fn string_match(proto: &StringMatcher) -> Result<TextMatch, Invalid> {
    let pattern = match &proto.match_pattern {
        Some(MatchPattern::Exact(text)) => Pattern::Exact(text.clone()),
        Some(MatchPattern::Prefix(text)) => Pattern::Prefix(text.clone()),
        Some(MatchPattern::Suffix(text)) => Pattern::Suffix(text.clone()),
        Some(MatchPattern::Contains(text)) => Pattern::Contains(text.clone()),
        Some(MatchPattern::SafeRegex(_)) if proto.ignore_case => {
            return Err(Invalid::new("ignore_case", "has no effect on safe_regex"));
        }
        Some(MatchPattern::SafeRegex(it)) => regex("safe_regex", it)?,
        _ => return Err(Invalid::new("", "invalid string matcher")),
    };
    Ok(TextMatch { pattern, ignore_case: proto.ignore_case })
}

fn regex(field: &str, proto: &RegexMatcher) -> Result<Pattern, Invalid> {
    let invalid = |problem| Invalid::new(format!("{field}.regex"), format!("invalid regular expression: {problem}"));
    FullRegex::new(&proto.regex).map(Pattern::Regex).map_err(invalid)
}

/// Its default; there is no runtime here that could say otherwise.
fn per_million(proto: &RuntimeFractionalPercent) -> Result<u32, Invalid> {
    let field = "runtime_fraction.default_value";
    let fraction = proto.default_value.as_ref().ok_or_else(|| Invalid::new(field, "must be set"))?;
    let one = match DenominatorType::try_from(fraction.denominator) {
        Ok(DenominatorType::Hundred) => 10_000,
        Ok(DenominatorType::TenThousand) => 100,
        Ok(DenominatorType::Million) => 1,
        Err(_) => return Err(Invalid::new(format!("{field}.denominator"), "is not known")),
    };
    Ok(fraction.numerator.saturating_mul(one).min(1_000_000))
}

/// Where a route leads; `None`: it is passed over.
fn forward(action: &RouteAction, host: &ProtoHost) -> Result<Option<Forward>, Invalid> {
    let clusters = match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) if !name.is_empty() => {
            vec![Share { cluster: name.as_str().into(), weight: 1 }]
        }
        Some(ClusterSpecifier::Cluster(_)) => return Err(Invalid::new("route.cluster", "must not be empty")),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            shares(weighted).map_err(|invalid| invalid.below("route.weighted_clusters"))?
        }
        Some(ClusterSpecifier::ClusterHeader(_)) => return Ok(None),
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_) | ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            return Err(Invalid::new("route.cluster_specifier_plugin", "not supported yet"));
        }
        None => return Err(Invalid::new("route.cluster_specifier", "must be set")),
    };
    let retry = action.retry_policy.as_ref().or(host.retry_policy.as_ref());
    let retry = retry.map(retries).transpose().map_err(|invalid| invalid.below("retry_policy"))?.flatten();
    let policies = action.hash_policy.iter().enumerate();
    let hash = policies
        .map(|(i, policy)| hash_policy(policy).map_err(|it| it.below(format_args!("route.hash_policy[{i}]"))))
        .filter_map(Result::transpose)
        .collect::<Result<_, _>>()?;
    Ok(Some(Forward { clusters, timeout: timeout(action)?, retry, hash }))
}

/// `None`: gRPC passes it over.
fn hash_policy(proto: &ProtoHash) -> Result<Option<HashPolicy>, Invalid> {
    let on = match &proto.policy_specifier {
        Some(PolicySpecifier::Header(header)) if header.header_name.is_empty() => {
            return Err(Invalid::new("header.header_name", "must not be empty"));
        }
        Some(PolicySpecifier::Header(header)) => {
            let rewrite = header.regex_rewrite.as_ref().map(|it| {
                let regex = it.pattern.as_ref().map(|pattern| pattern.regex.as_str()).unwrap_or_default();
                Rewrite::new(regex, &it.substitution).map_err(|why| Invalid::new("header.regex_rewrite", why))
            });
            HashOn::Header { name: header.header_name.to_ascii_lowercase(), rewrite: rewrite.transpose()? }
        }
        Some(PolicySpecifier::FilterState(state)) if state.key == CHANNEL_ID => HashOn::Channel,
        _ => return Ok(None),
    };
    Ok(Some(HashPolicy { on, terminal: proto.terminal }))
}

/// The clusters with weight.
fn shares(weighted: &WeightedCluster) -> Result<Vec<Share>, Invalid> {
    let mut shares = Vec::with_capacity(weighted.clusters.len());
    let mut sum = 0u64;
    for (i, cluster) in weighted.clusters.iter().enumerate() {
        let weight = cluster.weight.as_ref().map_or(0, |weight| weight.value);
        if weight == 0 {
            continue;
        }
        if cluster.name.is_empty() {
            return Err(Invalid::new(format!("clusters[{i}].name"), "must not be empty"));
        }
        sum += u64::from(weight);
        shares.push(Share { cluster: cluster.name.as_str().into(), weight });
    }
    match sum {
        0 => Err(Invalid::new("", "no cluster has weight")),
        sum if sum > u64::from(u32::MAX) => Err(Invalid::new("", "sum of cluster weights exceeds uint32 max")),
        _ => Ok(shares),
    }
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
    Ok((!on.is_empty()).then_some(Retry { attempts, on, base, max, per_try_timeout }))
}
