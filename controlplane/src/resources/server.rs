//! The Listener of a gRPC server in xDS mode: what lets it serve. Its calls go to its own handlers, so that nothing of a
//! service is in it.

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress};
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::{NonForwardingAction, RouteConfiguration};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::util::pack_any;

use super::class::ClientClass;
use super::{listener, route};

/// What such a server asks for, before its own address: gRPC's usual `server_listener_resource_name_template`.
const PREFIX: &str = "grpc/server?xds.resource.listening_address=";
pub(super) const MANAGER: &str = "envoy.filters.network.http_connection_manager";

/// The Listener `name` if that is a server's, and the one who asks is a library that has such servers. Nobody else ever
/// gets it: grpc-js dies of its route.
pub(super) fn listener(name: &str, class: ClientClass) -> Option<Listener> {
    let has_servers = matches!(class, ClientClass::GrpcCore | ClientClass::GrpcGo | ClientClass::GrpcJava);
    let address: SocketAddr = name.strip_prefix(PREFIX).filter(|_| has_servers)?.parse().ok()?;
    let routes = RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![route::all_domains(name, vec![route::every_request(own_handlers())])],
        ..RouteConfiguration::default()
    };
    let manager = Filter {
        name: MANAGER.to_owned(),
        config_type: Some(ConfigType::TypedConfig(pack_any(listener::manager(
            name,
            RouteSpecifier::RouteConfig(routes),
        )))),
    };
    Some(Listener {
        name: name.to_owned(),
        // The very address that it asked with, or it does not serve and does not say why.
        address: Some(socket_address(address)),
        default_filter_chain: Some(FilterChain { filters: vec![manager], ..FilterChain::default() }),
        ..Listener::default()
    })
}

fn own_handlers() -> Action {
    Action::NonForwardingAction(NonForwardingAction {})
}

/// An address as xDS says it.
pub(super) fn socket_address(address: SocketAddr) -> Address {
    Address {
        address: Some(AddressKind::SocketAddress(SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
            ..SocketAddress::default()
        })),
    }
}
