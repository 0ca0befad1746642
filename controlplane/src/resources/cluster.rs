//! Cluster: how a client balances over a service's endpoints and what bounds it.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::thresholds::RetryBudget;
use envoy_types::pb::envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig,
};
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig,
};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster, OutlierDetection};
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    ApiVersion, ConfigSource, Http1ProtocolOptions, Http2ProtocolOptions, SelfConfigSource,
};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use envoy_types::pb::google::protobuf::{Any, UInt32Value, Value};
use envoy_types::util::pack_any;
use portolan_topology::policy::{EffectivePolicy, OutlierDetection as Detection};
use prost::Message;

use super::balancing;
use super::class::ClientClass;
use super::listener::over_ads;
use super::route::duration;

/// What servers say of their load (ORCA) that clients are to report: nothing, unless this names it. A server that says
/// nothing costs nothing, and what is kept of one that names a thousand metrics is bounded.
const REPORTED_METRICS: [&str; 4] =
    ["cpu_utilization", "mem_utilization", "application_utilization", "named_metrics.*"];
/// The part of its calls that an endpoint may fail before a gRPC client takes it for broken, as in Envoy's own defaults.
const FAILURE_PERCENT: u32 = 85;
/// The key of our own metadata.
const METADATA_FILTER: &str = "portolan.dev";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The encoded Cluster `name`, whose endpoints are the ClusterLoadAssignment `assignment`, and speak HTTP/1.1 or HTTP/2; some
/// of them may have shards.
pub(super) fn present(
    name: &str,
    assignment: String,
    http1: bool,
    sharded: bool,
    policy: &EffectivePolicy,
    class: ClientClass,
) -> Vec<u8> {
    let (lb_policy, load_balancing_policy) =
        balancing::present(class, policy.strategy, policy.warmup.as_ref(), sharded);
    let connection = &policy.connection;
    let retries = policy.retry.as_ref().filter(|_| !class.is_stock_grpc());
    let cluster = Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(over_ads()), service_name: assignment }),
        connect_timeout: Some(duration(connection.connect_timeout)),
        lb_policy: lb_policy.into(),
        load_balancing_policy,
        common_lb_config: class.may_be_envoy().then(|| common_lb_config(class)),
        outlier_detection: outlier_detection(policy.outlier_detection, class),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![Thresholds {
                // Said outright, because gRPC enforces 1024 where nothing is said.
                max_requests: u32_value(connection.max_requests),
                max_pending_requests: u32_value(connection.max_pending_requests),
                retry_budget: retries.map(|retry| RetryBudget {
                    budget_percent: Some(Percent { value: retry.budget_percent.into() }),
                    ..RetryBudget::default()
                }),
                // Envoy's default of 3 would leave most requests to the dead where everything near is dead.
                max_retries: (class == ClientClass::Envoy && retries.is_none())
                    .then_some(UInt32Value { value: connection.max_requests }),
                ..Thresholds::default()
            }],
            ..CircuitBreakers::default()
        }),
        // gRPC speaks nothing else; Envoy fails gRPC calls without it.
        typed_extension_protocol_options: [(HTTP_OPTIONS.to_owned(), http_options(http1))].into(),
        // gRPC refuses any other source; Envoy has its own in its bootstrap.
        lrs_server: Some(ConfigSource {
            resource_api_version: ApiVersion::V3.into(),
            config_source_specifier: Some(ConfigSourceSpecifier::Self_(SelfConfigSource::default())),
            ..ConfigSource::default()
        }),
        lrs_report_endpoint_metrics: REPORTED_METRICS.map(str::to_owned).to_vec(),
        ..Cluster::default()
    };
    let mut bytes = cluster.encode_to_vec();
    // The fields of a message may follow each other in any order, so this continues the Cluster.
    bytes.extend(ClusterMetadata::new(policy).encode_to_vec());
    bytes
}

/// The planner alone spills: no panic mode. Locality weights stand here only beside the legacy enumeration; Envoy
/// refuses them beside `load_balancing_policy`, which has its own.
fn common_lb_config(class: ClientClass) -> CommonLbConfig {
    let weighted = LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {});
    CommonLbConfig {
        healthy_panic_threshold: Some(Percent { value: 0.0 }),
        locality_config_specifier: (class == ClientClass::Unknown).then_some(weighted),
        ..CommonLbConfig::default()
    }
}

/// Envoy always has it: without, it stays with dead endpoints that are marked healthy. gRPC has it where a policy asks.
fn outlier_detection(given: Option<Detection>, class: ClientClass) -> Option<OutlierDetection> {
    let given = if class.may_be_envoy() { Some(given.unwrap_or_default()) } else { given }?;
    let common = OutlierDetection {
        interval: Some(duration(given.interval)),
        base_ejection_time: Some(duration(given.base_ejection_time)),
        max_ejection_percent: u32_value(given.max_ejection_percent),
        // Only what is wrong by itself is promised, not what is worse than the others.
        enforcing_success_rate: u32_value(0),
        ..OutlierDetection::default()
    };
    if class.is_stock_grpc() {
        // It does not count errors in a row: what failed most of as many calls within an interval is out. Never the
        // only endpoint, which nobody could stand in for.
        return Some(OutlierDetection {
            enforcing_failure_percentage: u32_value(100),
            failure_percentage_threshold: u32_value(FAILURE_PERCENT),
            failure_percentage_request_volume: u32_value(given.consecutive_errors),
            failure_percentage_minimum_hosts: u32_value(2),
            ..common
        });
    }
    Some(OutlierDetection { consecutive_5xx: u32_value(given.consecutive_errors), ..common })
}

fn http_options(http1: bool) -> Any {
    let protocol = if http1 {
        ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())
    } else {
        ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())
    };
    let explicit = ExplicitHttpConfig { protocol_config: Some(protocol) };
    pack_any(HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..HttpProtocolOptions::default()
    })
}

pub(super) fn u32_value(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

/// `Cluster.metadata` with its keys in order. The generated type holds them in a hash map, which encodes differently
/// each time, and a version is a hash of the bytes.
#[derive(Clone, PartialEq, Message)]
struct ClusterMetadata {
    #[prost(message, optional, tag = "25")]
    metadata: Option<OrderedMetadata>,
}

#[derive(Clone, PartialEq, Message)]
struct OrderedMetadata {
    #[prost(btree_map = "string, message", tag = "1")]
    filter_metadata: BTreeMap<String, OrderedStruct>,
}

#[derive(Clone, PartialEq, Message)]
struct OrderedStruct {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: BTreeMap<String, Value>,
}

impl ClusterMetadata {
    fn new(policy: &EffectivePolicy) -> Self {
        let failback = policy.locality.failback;
        let milliseconds = |duration: std::time::Duration| {
            // Exact up to 2^53 ms; nothing in a policy is as long.
            #[expect(clippy::cast_precision_loss, reason = "see above")]
            let value = duration.as_millis() as f64;
            Value { kind: Some(ValueKind::NumberValue(value)) }
        };
        let mut fields = BTreeMap::from([
            ("failbackRampMs".to_owned(), milliseconds(failback.ramp)),
            ("failbackHoldDownMs".to_owned(), milliseconds(failback.hold_down)),
        ]);
        if let Some(detection) = policy.outlier_detection {
            let whole = Value { kind: Some(ValueKind::BoolValue(detection.eject_whole_locality)) };
            fields.insert("ejectWholeLocality".to_owned(), whole);
        }
        let ours = OrderedStruct { fields };
        Self { metadata: Some(OrderedMetadata { filter_metadata: [(METADATA_FILTER.to_owned(), ours)].into() }) }
    }
}
