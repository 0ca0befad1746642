//! RouteConfiguration: every request of the name to its one cluster.

use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost};
use envoy_types::pb::google::protobuf::Duration;

use super::class::ClientClass;

/// The RouteConfiguration `name` to `cluster`.
///
/// Its one virtual host takes every domain: only Listeners of this service lead here, and a channel may carry an
/// authority that is none of the service's names.
pub(super) fn present(name: &str, cluster: String, class: ClientClass) -> RouteConfiguration {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
        // Envoy ends requests after 15 s unless it is told not to; in gRPC the caller's deadline holds anyway.
        timeout: class.may_be_envoy().then(Duration::default),
        ..RouteAction::default()
    };
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix(String::new())),
            ..RouteMatch::default()
        }),
        action: Some(Action::Route(action)),
        ..Route::default()
    };
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![all_domains(name, vec![route])],
        ..Default::default()
    }
}

/// The RouteConfiguration of what does not exist. Calls fail UNAVAILABLE at once: in grpc-js for want of a route, in
/// the others for want of a virtual host (grpc-java would say INTERNAL for want of a route).
pub(super) fn absent(name: &str, class: ClientClass) -> RouteConfiguration {
    let virtual_hosts = if class == ClientClass::GrpcJs { vec![all_domains(name, Vec::new())] } else { Vec::new() };
    RouteConfiguration { name: name.to_owned(), virtual_hosts, ..Default::default() }
}

fn all_domains(name: &str, routes: Vec<Route>) -> VirtualHost {
    VirtualHost { name: name.to_owned(), domains: vec!["*".to_owned()], routes, ..VirtualHost::default() }
}
