//! Listener: what a name comes to first.

use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::{AggregatedConfigSource, ApiVersion, ConfigSource};
use envoy_types::pb::envoy::config::listener::v3::{ApiListener, Listener};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds,
};
use envoy_types::util::pack_any;

use super::class::ClientClass;
use super::route;

/// The Listener `name`, whose routes are the RouteConfiguration `route_config`.
pub(super) fn present(name: &str, route_config: String) -> Listener {
    listener(name, RouteSpecifier::Rds(Rds { config_source: Some(over_ads()), route_config_name: route_config }))
}

/// The Listener `name` of a service known not to exist: its calls fail at once, where leaving the name out would cost a
/// gRPC client 15 seconds.
pub(super) fn absent(name: &str, class: ClientClass) -> Listener {
    listener(name, RouteSpecifier::RouteConfig(route::absent(name, class)))
}

fn listener(name: &str, routes: RouteSpecifier) -> Listener {
    Listener {
        name: name.to_owned(),
        api_listener: Some(ApiListener { api_listener: Some(pack_any(manager(name, routes))) }),
        ..Listener::default()
    }
}

/// The connection manager of the Listener `name`.
pub(super) fn manager(name: &str, routes: RouteSpecifier) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: name.to_owned(),
        route_specifier: Some(routes),
        // Without it gRPC refuses the Listener, and Envoy's calls hang.
        http_filters: vec![HttpFilter {
            name: "envoy.filters.http.router".to_owned(),
            config_type: Some(ConfigType::TypedConfig(pack_any(Router::default()))),
            ..HttpFilter::default()
        }],
        ..HttpConnectionManager::default()
    }
}

/// The stream that the resource itself came on. Envoy refuses `self` here; every gRPC client takes `ads`.
pub(super) fn over_ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}
