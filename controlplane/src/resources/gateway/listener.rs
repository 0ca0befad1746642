//! The Listener of a port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use envoy_types::pb::envoy::config::core::v3::TransportSocket;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType as SocketConfig;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::listener_filter::ConfigType as ListenerFilterConfig;
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter};
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    RouteSpecifier, UpgradeConfig,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpConnectionManager, Rds};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
};
use envoy_types::pb::google::protobuf::BoolValue;
use envoy_types::util::pack_any;

use super::super::listener::{manager, over_ads};
use super::super::server::{MANAGER, socket_address};
use super::super::shard;
use super::{secret_name, tls_routes_name};
use crate::gateway::hostname::Hostname;
use crate::gateway::plan::{GatewayPlan, PortPlan, TlsSite};

/// The Listener `name`.
pub(super) fn listener(name: &str, plan: &GatewayPlan, port: u16, served: &PortPlan) -> Listener {
    let address = plan.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let (filter_chains, listener_filters) = match served {
        PortPlan::Http(_) => (vec![chain(name, None)], Vec::new()),
        PortPlan::Https(sites) => (sites.iter().map(|site| tls_chain(name, site)).collect(), vec![tls_inspector()]),
    };
    Listener {
        name: name.to_owned(),
        address: Some(socket_address(SocketAddr::new(address, port))),
        filter_chains,
        listener_filters,
        ..Listener::default()
    }
}

fn chain(routes: &str, transport_socket: Option<TransportSocket>) -> FilterChain {
    let rds = Rds { config_source: Some(over_ads()), route_config_name: routes.to_owned() };
    let yes = Some(BoolValue { value: true });
    let mut manager = manager(routes, RouteSpecifier::Rds(rds));
    // Before the router, which ends them.
    manager.http_filters.insert(0, shard::filter());
    let manager = HttpConnectionManager {
        // The client is who connects, not who a header says.
        use_remote_address: yes,
        // A path is matched as the backend will read it.
        normalize_path: yes,
        merge_slashes: true,
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), ..UpgradeConfig::default() }],
        ..manager
    };
    let filter = Filter { name: MANAGER.to_owned(), config_type: Some(ConfigType::TypedConfig(pack_any(manager))) };
    FilterChain { name: routes.to_owned(), filters: vec![filter], transport_socket, ..FilterChain::default() }
}

fn tls_chain(listener: &str, site: &TlsSite) -> FilterChain {
    let secret = |secret| SdsSecretConfig { name: secret_name(secret), sds_config: Some(over_ads()) };
    let context = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: site.certificates.iter().map(secret).collect(),
            alpn_protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
            ..CommonTlsContext::default()
        }),
        ..DownstreamTlsContext::default()
    };
    let socket = TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(SocketConfig::TypedConfig(pack_any(context))),
    };
    let server_names = match &site.hostname {
        Hostname::Any => Vec::new(),
        name => vec![name.to_string()],
    };
    FilterChain {
        filter_chain_match: Some(FilterChainMatch {
            server_names,
            transport_protocol: "tls".to_owned(),
            ..FilterChainMatch::default()
        }),
        ..chain(&tls_routes_name(listener, &site.listener), Some(socket))
    }
}

/// Reads the name that a client asks for, before TLS.
fn tls_inspector() -> ListenerFilter {
    ListenerFilter {
        name: "envoy.filters.listener.tls_inspector".to_owned(),
        config_type: Some(ListenerFilterConfig::TypedConfig(pack_any(TlsInspector::default()))),
        ..ListenerFilter::default()
    }
}
