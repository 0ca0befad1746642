//! Resources for tests, as a control plane would serve them.

use envoy_types::pb::envoy::config::cluster::v3::{
    CircuitBreakers, Cluster, LoadBalancingPolicy, circuit_breakers::Thresholds, cluster::ClusterDiscoveryType,
    cluster::CustomClusterType, cluster::DiscoveryType, cluster::EdsClusterConfig, cluster::LbPolicy,
    load_balancing_policy::Policy,
};
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ConfigSource, Locality, SelfConfigSource, SocketAddress, TypedExtensionConfig,
    address::Address as AddressKind, config_source::ConfigSourceSpecifier, socket_address::PortSpecifier,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use envoy_types::pb::envoy::config::listener::v3::{ApiListener, Listener};
use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route::Action, route_action::ClusterSpecifier,
    route_match::PathSpecifier,
};
use envoy_types::pb::envoy::extensions::clusters::aggregate::v3::ClusterConfig as AggregateConfig;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_connection_manager::RouteSpecifier, http_filter::ConfigType,
};
use envoy_types::pb::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;
use envoy_types::pb::google::protobuf::{Any, UInt32Value};
use prost::Message;

use super::resources::Kind;

pub(crate) fn any_of(type_url: &str, message: &impl Message) -> Any {
    Any { type_url: type_url.to_owned(), value: message.encode_to_vec() }
}

pub(crate) fn pack(kind: Kind, message: &impl Message) -> Any {
    any_of(kind.type_url(), message)
}

pub(crate) fn ads() -> Option<ConfigSource> {
    let source = ConfigSourceSpecifier::Ads(AggregatedConfigSource::default());
    Some(ConfigSource { config_source_specifier: Some(source), ..ConfigSource::default() })
}

pub(crate) fn this_server() -> Option<ConfigSource> {
    let source = ConfigSourceSpecifier::Self_(SelfConfigSource::default());
    Some(ConfigSource { config_source_specifier: Some(source), ..ConfigSource::default() })
}

pub(crate) fn manager(routes: RouteSpecifier) -> HttpConnectionManager {
    let router = Any {
        type_url: "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router".to_owned(),
        value: Vec::new(),
    };
    let router = HttpFilter {
        name: "router".to_owned(),
        config_type: Some(ConfigType::TypedConfig(router)),
        ..HttpFilter::default()
    };
    HttpConnectionManager {
        http_filters: vec![router],
        route_specifier: Some(routes),
        ..HttpConnectionManager::default()
    }
}

pub(crate) fn listener_of(name: &str, manager: &HttpConnectionManager) -> Any {
    let manager = any_of(
        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        manager,
    );
    let listener = Listener {
        name: name.to_owned(),
        api_listener: Some(ApiListener { api_listener: Some(manager) }),
        ..Listener::default()
    };
    pack(Kind::Listener, &listener)
}

/// A Listener whose routes are in the RouteConfiguration `routes`.
pub(crate) fn listener(name: &str, routes: &str) -> Any {
    let rds = Rds { config_source: ads(), route_config_name: routes.to_owned() };
    listener_of(name, &manager(RouteSpecifier::Rds(rds)))
}

/// A Listener that says that there is no such service.
pub(crate) fn absent_listener(name: &str) -> Any {
    listener_of(name, &manager(RouteSpecifier::RouteConfig(RouteConfiguration::default())))
}

pub(crate) fn everything() -> Option<RouteMatch> {
    Some(RouteMatch { path_specifier: Some(PathSpecifier::Prefix(String::new())), ..RouteMatch::default() })
}

pub(crate) fn to_cluster(cluster: &str) -> Route {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..RouteAction::default()
    };
    Route { r#match: everything(), action: Some(Action::Route(action)), ..Route::default() }
}

pub(crate) fn host(domain: &str, routes: Vec<Route>) -> VirtualHost {
    VirtualHost { name: domain.to_owned(), domains: vec![domain.to_owned()], routes, ..VirtualHost::default() }
}

/// A RouteConfiguration that sends everything to `cluster`.
pub(crate) fn routes(name: &str, cluster: &str) -> Any {
    let hosts = vec![host("*", vec![to_cluster(cluster)])];
    let routes = RouteConfiguration { name: name.to_owned(), virtual_hosts: hosts, ..RouteConfiguration::default() };
    pack(Kind::RouteConfiguration, &routes)
}

pub(crate) fn policies(configs: Vec<Any>) -> LoadBalancingPolicy {
    let policy = |config| Policy {
        typed_extension_config: Some(TypedExtensionConfig { name: "policy".to_owned(), typed_config: Some(config) }),
    };
    LoadBalancingPolicy { policies: configs.into_iter().map(policy).collect() }
}

pub(crate) fn policy(name: &str, value: Vec<u8>) -> Any {
    Any { type_url: format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{name}"), value }
}

/// What Portolan serves to gRPC's clients: `wrr_locality` over least request, else round robin.
pub(crate) fn portolan_policy() -> LoadBalancingPolicy {
    let child = policies(vec![
        policy("least_request.v3.LeastRequest", Vec::new()),
        policy("round_robin.v3.RoundRobin", Vec::new()),
    ]);
    let wrr = WrrLocality { endpoint_picking_policy: Some(child) };
    policies(vec![
        policy("wrr_locality.v3.WrrLocality", wrr.encode_to_vec()),
        policy("round_robin.v3.RoundRobin", Vec::new()),
    ])
}

pub(crate) fn cluster_of(name: &str, service: &str) -> Cluster {
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: ads(), service_name: service.to_owned() }),
        load_balancing_policy: Some(portolan_policy()),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![Thresholds { max_requests: Some(UInt32Value { value: 500 }), ..Thresholds::default() }],
            ..CircuitBreakers::default()
        }),
        ..Cluster::default()
    }
}

/// An EDS cluster with endpoints under `service` (empty: its own name).
pub(crate) fn cluster(name: &str, service: &str) -> Any {
    pack(Kind::Cluster, &cluster_of(name, service))
}

/// An aggregate of clusters.
pub(crate) fn aggregate(name: &str, of: &[&str]) -> Any {
    let config = AggregateConfig { clusters: of.iter().map(|name| (*name).to_owned()).collect() };
    let config = any_of("type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig", &config);
    let custom = CustomClusterType { name: "envoy.clusters.aggregate".to_owned(), typed_config: Some(config) };
    let cluster = Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(custom)),
        lb_policy: LbPolicy::ClusterProvided.into(),
        ..Cluster::default()
    };
    pack(Kind::Cluster, &cluster)
}

/// An EDS cluster that wants load reports.
pub(crate) fn reporting_cluster(name: &str) -> Any {
    pack(Kind::Cluster, &Cluster { lrs_server: this_server(), ..cluster_of(name, "") })
}

pub(crate) fn endpoint(address: &str) -> LbEndpoint {
    let (ip, port) = address.rsplit_once(':').expect("IP:PORT");
    let socket = SocketAddress {
        address: ip.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port.parse().expect("a port"))),
        ..SocketAddress::default()
    };
    let address = Address { address: Some(AddressKind::SocketAddress(socket)) };
    let endpoint = Endpoint { address: Some(address), ..Endpoint::default() };
    LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() }
}

pub(crate) fn zone(priority: u32, zone: &str, weight: u32, addresses: &[&str]) -> LocalityLbEndpoints {
    let locality = Locality { region: "us".to_owned(), zone: zone.to_owned(), sub_zone: "one".to_owned() };
    LocalityLbEndpoints {
        locality: Some(locality),
        lb_endpoints: addresses.iter().map(|address| endpoint(address)).collect(),
        load_balancing_weight: Some(UInt32Value { value: weight }),
        priority,
        ..LocalityLbEndpoints::default()
    }
}

pub(crate) fn assignment_of(service: &str, zones: Vec<LocalityLbEndpoints>) -> Any {
    let assignment = ClusterLoadAssignment {
        cluster_name: service.to_owned(),
        endpoints: zones,
        ..ClusterLoadAssignment::default()
    };
    pack(Kind::ClusterLoadAssignment, &assignment)
}

/// An assignment of one zone.
pub(crate) fn assignment(service: &str, addresses: &[&str]) -> Any {
    assignment_of(service, vec![zone(0, "a", 1, addresses)])
}
