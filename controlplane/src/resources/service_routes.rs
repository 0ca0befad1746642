//! RouteConfiguration of a service with routes: which of its clients' calls go where.

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::route::Action as RouteKind;
use envoy_types::pb::envoy::config::route::v3::route_action::{ClusterNotFoundResponseCode, ClusterSpecifier};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, RetryPolicy, Route, RouteAction, RouteConfiguration, WeightedCluster,
};
use envoy_types::pb::google::protobuf::UInt32Value;
use portolan_topology::policy::{EffectivePolicy, Retry};

use super::class::ClientClass;
use super::matching::{grpc_match, proxy_match};
use super::name::{ResourceName, nowhere};
use super::{Kind, retry, route};
use crate::gateway::plan::{Action, Forward, Limit, ServiceRoute, Share};

/// The RouteConfiguration `name` of the service `own`, with routes in the order in which they are tried. What none of them
/// matches fails: in gRPC clients for want of a route.
pub(super) fn configuration(
    name: &str,
    own: &ResourceName,
    routes: &[&ServiceRoute],
    policy: &EffectivePolicy,
    class: ClientClass,
) -> RouteConfiguration {
    let envoy = class == ClientClass::Envoy;
    let listed = routes.iter().filter_map(|route| {
        // Redirects are not for services.
        let Action::Forward(forward) = &route.plan.action else { return None };
        let matching = &route.plan.matching;
        Some(Route {
            r#match: Some(if envoy { proxy_match(matching) } else { grpc_match(matching)? }),
            action: Some(RouteKind::Route(action(forward, own, policy, class))),
            ..Route::default()
        })
    });
    let mut listed: Vec<Route> = listed.collect();
    if envoy {
        // By itself it would say 404, which a gRPC client reads as UNIMPLEMENTED.
        let refusal = DirectResponseAction { status: 503, ..DirectResponseAction::default() };
        listed.push(route::every_request(RouteKind::DirectResponse(refusal)));
    } else if listed.is_empty() {
        return route::absent(name, class);
    }
    route::configuration(name, listed)
}

fn action(forward: &Forward, own: &ResourceName, policy: &EffectivePolicy, class: ClientClass) -> RouteAction {
    let (timeout, retry) = limits(forward, policy, class);
    RouteAction {
        cluster_not_found_response_code: ClusterNotFoundResponseCode::ServiceUnavailable.into(),
        hash_policy: route::hash_policy(policy),
        ..route::forwarding(specifier(&forward.shares, own), timeout, retry, class)
    }
}

/// How long calls may take and how they are tried again: as the rule says, and as the policy where it says nothing.
pub(super) fn limits(
    forward: &Forward,
    policy: &EffectivePolicy,
    class: ClientClass,
) -> (Option<Duration>, Option<RetryPolicy>) {
    let or = |limit: Limit, policy: Option<Duration>| match limit {
        Limit::Unsaid => policy,
        Limit::Never => None,
        Limit::After(duration) => Some(duration),
    };
    let timeout = or(forward.timeout, policy.timeout);
    let asked = policy
        .retry
        .clone()
        .map(|retry| Retry { per_try_timeout: or(forward.attempt_timeout, retry.per_try_timeout), ..retry });
    let retry = retry::policy(asked.as_ref(), class);
    let attempt = match forward.attempt_timeout {
        // Of a single try this is the whole.
        Limit::After(limit) if retry.as_ref().is_none_or(|retry| retry.per_try_timeout.is_none()) => Some(limit),
        _ => None,
    };
    ([timeout, attempt].into_iter().flatten().min(), retry)
}

fn specifier(shares: &[Share], own: &ResourceName) -> ClusterSpecifier {
    if shares.is_empty() {
        return ClusterSpecifier::Cluster(own.of_kind(Kind::Cds));
    }
    let mut clusters: Vec<(String, u32)> = Vec::new();
    for share in shares.iter().filter(|share| share.weight > 0) {
        let name = cluster(share, own);
        // A gRPC client may take one that stands twice for two.
        match clusters.iter_mut().find(|(other, _)| *other == name) {
            // A rule's weights fit together.
            Some((_, weight)) => *weight = weight.saturating_add(share.weight),
            None => clusters.push((name, share.weight)),
        }
    }
    match <[_; 1]>::try_from(clusters) {
        Ok([(only, _)]) => ClusterSpecifier::Cluster(only),
        Err(none) if none.is_empty() => ClusterSpecifier::Cluster(nowhere(own.authority.as_deref())),
        Err(several) => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several.into_iter().map(weighted).collect(),
            ..WeightedCluster::default()
        }),
    }
}

fn weighted((name, weight): (String, u32)) -> ClusterWeight {
    ClusterWeight { name, weight: Some(UInt32Value { value: weight }), ..ClusterWeight::default() }
}

/// A cluster that is not there would hold up all that a gRPC client is told; one without endpoints fails its calls.
fn cluster(share: &Share, own: &ResourceName) -> String {
    let Some(upstream) = &share.upstream else { return nowhere(own.authority.as_deref()) };
    let backend = &upstream.backend;
    let name = ResourceName {
        service: backend.service.clone(),
        port: backend.port.clone(),
        scope: backend.scope,
        authority: own.authority.clone(),
        http1: false,
    };
    name.of_kind(Kind::Cds)
}
