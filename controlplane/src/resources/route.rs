//! RouteConfiguration of a service without routes: every request of the name to its one cluster.

use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::hash_policy::{Header, PolicySpecifier};
use envoy_types::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, HashPolicy, MaxStreamDuration};
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
};
use envoy_types::pb::google::protobuf::Duration;
use portolan_topology::policy::EffectivePolicy;

use super::class::ClientClass;
use super::retry;

/// The RouteConfiguration `name` to `cluster`.
pub(super) fn present(name: &str, cluster: String, policy: &EffectivePolicy, class: ClientClass) -> RouteConfiguration {
    let to = ClusterSpecifier::Cluster(cluster);
    let action = forwarding(to, policy.timeout, retry::policy(policy.retry.as_ref(), class), class);
    let action = RouteAction { hash_policy: hash_policy(policy), ..action };
    configuration(name, vec![every_request(Action::Route(action))])
}

/// The RouteConfiguration `name` with these routes.
///
/// Its one virtual host takes every domain: only Listeners of this service lead here, and a channel may carry an
/// authority that is none of the service's names.
pub(super) fn configuration(name: &str, routes: Vec<Route>) -> RouteConfiguration {
    RouteConfiguration { name: name.to_owned(), virtual_hosts: vec![all_domains(name, routes)], ..Default::default() }
}

/// Calls go `to` there, for no longer than `timeout` in all.
pub(super) fn forwarding(
    to: ClusterSpecifier,
    timeout: Option<std::time::Duration>,
    retry_policy: Option<RetryPolicy>,
    class: ClientClass,
) -> RouteAction {
    let timeout = timeout.map(duration);
    RouteAction {
        cluster_specifier: Some(to),
        // gRPC reads nothing but `max_stream_duration`; the caller's deadline holds beside it. In Envoy that would be
        // the limit of a whole stream.
        max_stream_duration: timeout
            .filter(|_| class != ClientClass::Envoy)
            .map(|limit| MaxStreamDuration { max_stream_duration: Some(limit), ..MaxStreamDuration::default() }),
        // Envoy ends requests after 15 s unless it is told not to.
        timeout: class.may_be_envoy().then(|| timeout.unwrap_or_default()),
        retry_policy,
        ..RouteAction::default()
    }
}

/// What a call's key is, for the clusters that go by keys.
pub(super) fn hash_policy(policy: &EffectivePolicy) -> Vec<HashPolicy> {
    let header = |name: &String| HashPolicy {
        policy_specifier: Some(PolicySpecifier::Header(Header { header_name: name.clone(), regex_rewrite: None })),
        terminal: false,
    };
    policy.hash_header.iter().map(header).collect()
}

/// The route that every request takes.
pub(super) fn every_request(action: Action) -> Route {
    Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix(String::new())),
            ..RouteMatch::default()
        }),
        action: Some(action),
        ..Route::default()
    }
}

pub(super) fn duration(duration: std::time::Duration) -> Duration {
    Duration {
        // Policies hold at most a century.
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos().cast_signed(),
    }
}

/// The RouteConfiguration of what does not exist. Calls fail UNAVAILABLE at once: in grpc-js for want of a route, in
/// the others for want of a virtual host (grpc-java would say INTERNAL for want of a route).
pub(super) fn absent(name: &str, class: ClientClass) -> RouteConfiguration {
    let virtual_hosts = if class == ClientClass::GrpcJs { vec![all_domains(name, Vec::new())] } else { Vec::new() };
    RouteConfiguration { name: name.to_owned(), virtual_hosts, ..Default::default() }
}

/// The virtual host that takes every authority.
pub(super) fn all_domains(name: &str, routes: Vec<Route>) -> VirtualHost {
    VirtualHost { name: name.to_owned(), domains: vec!["*".to_owned()], routes, ..VirtualHost::default() }
}
