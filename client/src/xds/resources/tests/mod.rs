//! What is taken and what is refused, by table: one resource, and either what it comes to or the error's text.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::{
    CircuitBreakers, Cluster as ProtoCluster, OutlierDetection as Detection, circuit_breakers::Thresholds,
    circuit_breakers::thresholds::RetryBudget, cluster::ClusterDiscoveryType, cluster::CustomClusterType,
    cluster::LbPolicy,
};
use envoy_types::pb::envoy::config::core::v3::{
    HealthStatus, Metadata, RuntimeDouble, RuntimeFractionalPercent, TransportSocket,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, cluster_load_assignment, lb_endpoint::HostIdentifier,
};
use envoy_types::pb::envoy::config::listener::v3::Listener as ProtoListener;
use envoy_types::pb::envoy::config::route::v3::{
    HeaderMatcher, NonForwardingAction, RetryPolicy, Route as ProtoRoute, RouteAction, RouteConfiguration, RouteMatch,
    VirtualHost as ProtoHost, WeightedCluster, header_matcher::HeaderMatchSpecifier, retry_policy::RetryBackOff,
    route::Action, route_action::ClusterSpecifier, route_action::MaxStreamDuration, route_match::PathSpecifier,
    weighted_cluster::ClusterWeight,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, Rds, http_connection_manager::RouteSpecifier, http_filter::ConfigType,
};
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3::SlowStartConfig;
use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use envoy_types::pb::envoy::service::discovery::v3::Resource;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern};
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, Int64Range, Percent};
use envoy_types::pb::google::protobuf::{BoolValue, Struct, UInt32Value, Value, value::Kind as ValueKind};
use proptest::prelude::*;

use super::*;
use crate::xds::fixtures::*;
use crate::xds::matching::RequestHead;
use crate::xds::model::{Balancing, EndpointHealth, Failback, OutlierDetection, Retry, Warmup};
use crate::xds::routing::{Forward, NoRoute, Route};

mod clusters;
mod endpoints;
mod routes;
mod strategies;

fn seconds(seconds: i64) -> Option<ProtoDuration> {
    Some(ProtoDuration { seconds, nanos: 0 })
}

fn content(kind: Kind, any: &Any) -> Result<Decoded, String> {
    let (_, content) = decode(kind, any).map_err(|invalid| invalid.to_string())?;
    content.map_err(|invalid| invalid.to_string())
}

#[track_caller]
fn refused(kind: Kind, any: &Any, expected: &str) {
    let error = content(kind, any).expect_err(expected);
    assert!(error.contains(expected), "expected `{expected}`, got `{error}`");
}

fn listener_with(change: impl FnOnce(&mut HttpFilters)) -> Any {
    let mut filters = manager(RouteSpecifier::RouteConfig(RouteConfiguration::default()));
    change(&mut filters);
    listener_of("checkout.shop", &filters)
}
type HttpFilters =
    envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;

fn filter(name: &str, type_url: &str, is_optional: bool) -> HttpFilter {
    let config = Any { type_url: type_url.to_owned(), value: Vec::new() };
    HttpFilter {
        name: name.to_owned(),
        is_optional,
        config_type: Some(ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    }
}

#[test]
fn a_listener_needs_an_api_listener_and_a_router() {
    let socket = pack(Kind::Listener, &ProtoListener { name: "checkout.shop".to_owned(), ..ProtoListener::default() });
    refused(Kind::Listener, &socket, "field:api_listener.api_listener error:must be set");
    let none = listener_with(|manager| manager.http_filters.clear());
    refused(Kind::Listener, &none, "must end in the router");
    let unknown =
        listener_with(|manager| manager.http_filters.insert(0, filter("fault", "type.googleapis.com/x.Fault", false)));
    refused(Kind::Listener, &unknown, "`type.googleapis.com/x.Fault` is not supported yet");
    let optional =
        listener_with(|manager| manager.http_filters.insert(0, filter("fault", "type.googleapis.com/x.Fault", true)));
    assert!(content(Kind::Listener, &optional).is_ok());
    let first = listener_with(|manager| manager.http_filters.push(filter("other", "type.googleapis.com/x.Y", true)));
    refused(Kind::Listener, &first, "must be the last of the chain");
    let twice =
        listener_with(|manager| manager.http_filters.insert(0, filter("router", "type.googleapis.com/x.Y", true)));
    refused(Kind::Listener, &twice, "duplicate HTTP filter name");
    let hops = listener_with(|manager| manager.xff_num_trusted_hops = 1);
    refused(Kind::Listener, &hops, "xff_num_trusted_hops error:must be zero");
    let no_routes = listener_with(|manager| manager.route_specifier = None);
    refused(Kind::Listener, &no_routes, "neither route_config nor rds");
    let elsewhere = listener_with(|manager| {
        manager.route_specifier =
            Some(RouteSpecifier::Rds(Rds { config_source: None, route_config_name: "r".to_owned() }));
    });
    refused(Kind::Listener, &elsewhere, "rds.config_source error:must be ads or self");
}

#[test]
fn a_resource_may_come_in_its_wrapper() {
    let inner = cluster("c", "");
    let wrapper = |resource| any_of(WRAPPER, &Resource { name: "c".to_owned(), resource, ..Resource::default() });
    assert_eq!(unwrap(wrapper(Some(inner.clone()))).unwrap(), inner);
    assert!(unwrap(wrapper(None)).unwrap_err().to_string().contains("is empty"));
    assert_eq!(unwrap(inner.clone()).unwrap(), inner);
    let nested = unwrap(wrapper(Some(wrapper(Some(inner))))).unwrap();
    assert!(content(Kind::Cluster, &nested).unwrap_err().contains("among resources of Cluster"));
}

fn good() -> Vec<(Kind, Any)> {
    vec![
        (Kind::Listener, listener("l", "r")),
        (Kind::Listener, absent_listener("l")),
        (Kind::RouteConfiguration, routes("r", "c")),
        (Kind::Cluster, reporting_cluster("c")),
        (Kind::ClusterLoadAssignment, assignment("s", &["10.0.0.1:80", "10.0.0.2:80"])),
    ]
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for kind in Kind::ALL {
            let _ = content(kind, &Any { type_url: kind.type_url().to_owned(), value: bytes.clone() });
        }
    }

    /// Good resources with some bytes changed come further in than noise.
    #[test]
    fn broken_resources_never_panic(which in 0usize..5, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let (kind, mut any) = good().swap_remove(which);
        for (at, byte) in changes {
            let at = at.index(any.value.len());
            any.value[at] = byte;
        }
        let _ = content(kind, &any);
    }
}
