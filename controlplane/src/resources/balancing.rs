//! `Cluster.load_balancing_policy`: a policy's strategy in the words of each client, and what comes nearest where it has none.
//! Never what a client is known to refuse.

use envoy_types::pb::envoy::config::cluster::v3::LoadBalancingPolicy;
use envoy_types::pb::envoy::config::cluster::v3::cluster::LbPolicy;
use envoy_types::pb::envoy::config::cluster::v3::load_balancing_policy::Policy;
use envoy_types::pb::envoy::config::core::v3::{RuntimeDouble, TypedExtensionConfig};
use envoy_types::pb::envoy::extensions::load_balancing_policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3::locality_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig,
};
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3::{
    ConsistentHashingLbConfig, LocalityLbConfig, SlowStartConfig,
};
use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use envoy_types::pb::envoy::extensions::load_balancing_policies::maglev::v3::Maglev;
use envoy_types::pb::envoy::extensions::load_balancing_policies::ring_hash::v3::{RingHash, ring_hash::HashFunction};
use envoy_types::pb::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use envoy_types::pb::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;
use portolan_topology::policy::{Strategy, Warmup};
use prost::Message;

use super::class::ClientClass;
use super::cluster::u32_value;
use super::route::duration;
use super::shard;

/// Envoy looks the factor's key up in its runtime, where nothing is set.
const AGGRESSION_KEY: &str = "portolan.warmup.aggression";
const TYPED_STRUCT: &str = "type.googleapis.com/xds.type.v3.TypedStruct";

/// `xds.type.v3.TypedStruct` without a value: a policy by its name alone.
#[derive(Clone, PartialEq, Message)]
struct TypedStruct {
    #[prost(string, tag = "1")]
    type_url: String,
}

/// `lb_policy` and `load_balancing_policy`. Locality weights count in each form of it: without them the plan would not.
/// Of a service with shards Envoy gets one that heeds them; gRPC has none.
pub(super) fn present(
    class: ClientClass,
    strategy: Strategy,
    warmup: Option<&Warmup>,
    sharded: bool,
) -> (LbPolicy, Option<LoadBalancingPolicy>) {
    match class {
        ClientClass::Envoy => {
            let policies = list(envoy(strategy, warmup));
            let policies = if sharded { list(vec![shard::subsets(policies)]) } else { policies };
            (LbPolicy::LoadBalancingPolicyConfig, Some(policies))
        }
        // The legacy enumeration is what all take, and in gRPC it keeps locality weights.
        ClientClass::Unknown => (LbPolicy::RoundRobin, None),
        // gRPC has no slow start and does not read it.
        // It has one way to go by keys.
        _ if class.is_stock_grpc() && strategy.keyed_by().is_some() => hashed(vec![ring_hash(None)]),
        ClientClass::GrpcCore | ClientClass::GrpcJs | ClientClass::GrpcGo | ClientClass::GrpcJava => {
            within_localities(match strategy {
                Strategy::RoundRobin => vec![],
                Strategy::WeightedRoundRobin => vec![weighted_round_robin()],
                _ => vec![least_request(None, None)],
            })
        }
        ClientClass::Portolan if strategy == Strategy::RingHash => hashed(vec![ring_hash(None)]),
        ClientClass::Portolan if strategy == Strategy::Maglev => hashed(vec![maglev(None)]),
        ClientClass::Portolan => within_localities(match strategy {
            // In turn is what it never does: its default shares as evenly.
            Strategy::LeastRequest | Strategy::RoundRobin => vec![least_request(warmup, None)],
            Strategy::WeightedRoundRobin => vec![weighted_round_robin()],
            // One of a version before that strategy takes the default.
            named => vec![ours(named), least_request(None, None)],
        }),
    }
}

/// It refuses wrr_locality over anything but client-side weighted round robin; one that has neither takes the next.
fn envoy(strategy: Strategy, warmup: Option<&Warmup>) -> Vec<Policy> {
    let weighted = LocalityLbConfig {
        locality_config_specifier: Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})),
    };
    match strategy {
        Strategy::RingHash => vec![ring_hash(Some(LocalityWeightedLbConfig {}))],
        Strategy::Maglev => vec![maglev(Some(LocalityWeightedLbConfig {}))],
        Strategy::RoundRobin => vec![round_robin(warmup, Some(weighted))],
        Strategy::WeightedRoundRobin => {
            vec![wrr_locality(vec![weighted_round_robin()]), least_request(None, Some(weighted))]
        }
        // It has none of the others.
        _ => vec![least_request(warmup, Some(weighted))],
    }
}

/// At the top level the policies would lose the locality weights. Round robin is what each client has.
fn within_localities(mut policies: Vec<Policy>) -> (LbPolicy, Option<LoadBalancingPolicy>) {
    policies.push(round_robin(None, None));
    (LbPolicy::RoundRobin, Some(list(vec![wrr_locality(policies), round_robin(None, None)])))
}

/// One ring or table over all localities, in which each endpoint has its part of its locality's weight: within localities equal
/// keys would go to one endpoint of each.
fn hashed(mut policies: Vec<Policy>) -> (LbPolicy, Option<LoadBalancingPolicy>) {
    policies.push(round_robin(None, None));
    (LbPolicy::RoundRobin, Some(list(policies)))
}

fn list(policies: Vec<Policy>) -> LoadBalancingPolicy {
    LoadBalancingPolicy { policies }
}

fn wrr_locality(policies: Vec<Policy>) -> Policy {
    let config = WrrLocality { endpoint_picking_policy: Some(list(policies)) };
    policy("envoy.load_balancing_policies.wrr_locality", pack_any(config))
}

fn least_request(warmup: Option<&Warmup>, locality_lb_config: Option<LocalityLbConfig>) -> Policy {
    let config = LeastRequest {
        choice_count: u32_value(2),
        slow_start_config: warmup.map(slow_start),
        locality_lb_config,
        ..LeastRequest::default()
    };
    policy("envoy.load_balancing_policies.least_request", pack_any(config))
}

fn round_robin(warmup: Option<&Warmup>, locality_lb_config: Option<LocalityLbConfig>) -> Policy {
    let config = RoundRobin { slow_start_config: warmup.map(slow_start), locality_lb_config };
    policy("envoy.load_balancing_policies.round_robin", pack_any(config))
}

/// Envoy needs to be told that locality weights count.
fn ring_hash(locality_weighted_lb_config: Option<LocalityWeightedLbConfig>) -> Policy {
    let config = RingHash {
        hash_function: HashFunction::XxHash.into(),
        consistent_hashing_lb_config: Some(bounded()),
        locality_weighted_lb_config,
        ..RingHash::default()
    };
    policy("envoy.load_balancing_policies.ring_hash", pack_any(config))
}

fn maglev(locality_weighted_lb_config: Option<LocalityWeightedLbConfig>) -> Policy {
    let config =
        Maglev { consistent_hashing_lb_config: Some(bounded()), locality_weighted_lb_config, ..Maglev::default() };
    policy("envoy.load_balancing_policies.maglev", pack_any(config))
}

/// No endpoint has more than a quarter above the mean; gRPC does not read it.
fn bounded() -> ConsistentHashingLbConfig {
    ConsistentHashingLbConfig { hash_balance_factor: u32_value(125), ..ConsistentHashingLbConfig::default() }
}

/// By what servers say in their answers.
fn weighted_round_robin() -> Policy {
    policy(
        "envoy.load_balancing_policies.client_side_weighted_round_robin",
        pack_any(ClientSideWeightedRoundRobin::default()),
    )
}

/// One of our own client's.
fn ours(strategy: Strategy) -> Policy {
    let name = format!("portolan.{}", strategy.as_str());
    let named = TypedStruct { type_url: format!("type.googleapis.com/{name}") };
    policy(&name, Any { type_url: TYPED_STRUCT.to_owned(), value: named.encode_to_vec() })
}

fn policy(name: &str, config: Any) -> Policy {
    let config = TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) };
    Policy { typed_extension_config: Some(config) }
}

fn slow_start(warmup: &Warmup) -> SlowStartConfig {
    SlowStartConfig {
        slow_start_window: Some(duration(warmup.window)),
        aggression: Some(RuntimeDouble { default_value: warmup.aggression, runtime_key: AGGRESSION_KEY.to_owned() }),
        min_weight_percent: Some(Percent { value: warmup.min_percent.into() }),
    }
}
