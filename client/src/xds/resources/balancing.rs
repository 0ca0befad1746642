//! `Cluster.load_balancing_policy`: how endpoints share requests, as the first policies of the list that are known say.
//!
//! A policy of a name that is nobody's here may be one that the application registered: it is kept, and those behind it as
//! well, since only the channel knows.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::{
    Cluster as Proto, LoadBalancingPolicy, cluster::LbConfig, cluster::LbPolicy,
    cluster::ring_hash_lb_config::HashFunction as LegacyFunction,
};
use envoy_types::pb::envoy::extensions::load_balancing_policies::{
    client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin, common::v3::ConsistentHashingLbConfig,
    common::v3::SlowStartConfig, least_request::v3::LeastRequest, maglev::v3::Maglev, ring_hash::v3::RingHash,
    ring_hash::v3::ring_hash::HashFunction, wrr_locality::v3::WrrLocality,
};
use envoy_types::pb::google::protobuf::{Any, Struct, UInt64Value};

use super::{Invalid, duration, parse};
use crate::xds::balancing::{Lookup, Ring, TableSize, Weighting};
use crate::xds::model::{Balancing, Warmup};

const POLICIES: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies.";
/// Policies that stand in no package of Envoy's come in one of these, by their name.
const STRUCTS: [&str; 2] =
    ["type.googleapis.com/xds.type.v3.TypedStruct", "type.googleapis.com/udpa.type.v1.TypedStruct"];
/// The package of our own.
const OURS: &str = "portolan.";

/// Policies nest no deeper.
const DEEPEST: u32 = 16;

/// A policy by name.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TypedStruct {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<Struct>,
}

/// What a list comes to.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Policy {
    /// The most preferred first; the last one is always ours, unless none is.
    pub(super) balancing: Vec<Balancing>,
    pub(super) warmup: Warmup,
}

impl Policy {
    fn of(balancing: Balancing) -> Self {
        Self { balancing: vec![balancing], warmup: Warmup::default() }
    }
}

/// A policy that ours does the work of.
enum Known {
    One(Balancing, Warmup),
    Several(Policy),
    /// Whether it is known depends on what is registered.
    Perhaps(Arc<str>),
}

/// How a cluster wants its requests shared. Where nothing is said, round robin is meant, as in Envoy: even load, which the
/// default gives.
pub(super) fn validate(proto: &Proto) -> Result<Policy, Invalid> {
    match &proto.load_balancing_policy {
        Some(list) => first_known(list, 0).map_err(|invalid| invalid.below("load_balancing_policy")),
        None => match LbPolicy::try_from(proto.lb_policy) {
            Ok(LbPolicy::RoundRobin | LbPolicy::LeastRequest) => Ok(Policy::default()),
            Ok(LbPolicy::RingHash) => {
                let config = match &proto.lb_config {
                    Some(LbConfig::RingHashLbConfig(config)) => *config,
                    _ => Default::default(),
                };
                let known = config.hash_function == i32::from(LegacyFunction::XxHash);
                let ring = ring(known, config.minimum_ring_size, config.maximum_ring_size);
                Ok(Policy::of(Balancing::RingHash(ring.map_err(|invalid| invalid.below("ring_hash_lb_config"))?)))
            }
            Ok(LbPolicy::Maglev) => {
                let size = match &proto.lb_config {
                    Some(LbConfig::MaglevLbConfig(config)) => config.table_size,
                    _ => None,
                };
                let size = table_size(size).map_err(|invalid| invalid.below("maglev_lb_config"))?;
                Ok(Policy::of(Balancing::Maglev(Lookup { size, ..Lookup::default() })))
            }
            _ => Err(Invalid::new("lb_policy", "LB policy is not supported")),
        },
    }
}

fn first_known(list: &LoadBalancingPolicy, depth: u32) -> Result<Policy, Invalid> {
    if depth >= DEEPEST {
        return Err(Invalid::new("policies", "nested too deep"));
    }
    let mut perhaps = Vec::new();
    for (i, policy) in list.policies.iter().enumerate() {
        let config = policy.typed_extension_config.as_ref().and_then(|config| config.typed_config.as_ref());
        let field = format!("policies[{i}].typed_extension_config.typed_config");
        let config = config.ok_or_else(|| Invalid::new(&*field, "must be set"))?;
        let Some(known) = take(config, depth) else { continue };
        match known.map_err(|invalid| invalid.below(field))? {
            Known::Perhaps(name) => perhaps.push(Balancing::Custom(name)),
            Known::One(balancing, warmup) => {
                perhaps.push(balancing);
                return Ok(Policy { balancing: perhaps, warmup });
            }
            Known::Several(policy) => {
                perhaps.extend(policy.balancing);
                return Ok(Policy { balancing: perhaps, warmup: policy.warmup });
            }
        }
    }
    match perhaps.is_empty() {
        true => Err(Invalid::new("policies", "no supported load balancing policy in the list")),
        false => Ok(Policy { balancing: perhaps, warmup: Warmup::default() }),
    }
}

/// `None` if the policy is unknown.
fn take(config: &Any, depth: u32) -> Option<Result<Known, Invalid>> {
    let one = |balancing| Ok(Known::One(balancing, Warmup::default()));
    if STRUCTS.contains(&config.type_url.as_str()) {
        return Some(parse("", &config.value).and_then(|it| named(&it)));
    }
    Some(match config.type_url.strip_prefix(POLICIES)? {
        "round_robin.v3.RoundRobin" => one(Balancing::LeastRequest),
        "least_request.v3.LeastRequest" => parse("", &config.value).and_then(|it: LeastRequest| {
            choices(&it)?;
            let warmup = it.slow_start_config.as_ref().map_or(Ok(Warmup::default()), slow_start)?;
            Ok(Known::One(Balancing::LeastRequest, warmup))
        }),
        "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin" => {
            let config = parse("", &config.value);
            config.and_then(|it| weighting(&it)).map(Balancing::WeightedRoundRobin).and_then(one)
        }
        "ring_hash.v3.RingHash" => {
            parse("", &config.value).and_then(|it| hash_ring(&it)).map(Balancing::RingHash).and_then(one)
        }
        "maglev.v3.Maglev" => parse("", &config.value).and_then(|it| lookup(&it)).map(Balancing::Maglev).and_then(one),
        "wrr_locality.v3.WrrLocality" => parse("", &config.value).and_then(|it: WrrLocality| {
            let field = "endpoint_picking_policy";
            let child = it.endpoint_picking_policy.ok_or_else(|| Invalid::new(field, "must be set"))?;
            first_known(&child, depth + 1).map(Known::Several).map_err(|invalid| invalid.below(field))
        }),
        _ => return None,
    })
}

/// The name is what stands behind the type URL's last slash. Ours have no settings: any is refused.
fn named(proto: &TypedStruct) -> Result<Known, Invalid> {
    let name = proto.type_url.rsplit('/').next().unwrap_or_default();
    if name.is_empty() {
        return Err(Invalid::new("type_url", "names no policy"));
    }
    let Some(ours) = name.strip_prefix(OURS) else { return Ok(Known::Perhaps(name.into())) };
    let balancing = match ours {
        "LeastRequest" => Balancing::LeastRequest,
        "WeightedRoundRobin" => Balancing::WeightedRoundRobin(Weighting::default()),
        "PeakEwma" => Balancing::PeakEwma,
        "RingHash" => Balancing::RingHash(Ring::default()),
        "Maglev" => Balancing::Maglev(Lookup::default()),
        "HotCold" => Balancing::HotCold,
        "RequestCost" => Balancing::RequestCost,
        "PrefixAffinity" => Balancing::PrefixAffinity,
        // Of a later version, say.
        _ => return Ok(Known::Perhaps(name.into())),
    };
    match proto.value.as_ref().and_then(|value| value.fields.keys().next()) {
        Some(field) => Err(Invalid::new(format!("value.{field}"), format!("{name} has no settings"))),
        None => Ok(Known::One(balancing, Warmup::default())),
    }
}

/// Any number of choices from two on is taken: the default looks at up to sixteen endpoints, and stops at the first that is
/// idle and not slow.
fn choices(policy: &LeastRequest) -> Result<(), Invalid> {
    match policy.choice_count.as_ref().map_or(2, |count| count.value) {
        0 | 1 => Err(Invalid::new("choice_count", "must be at least 2")),
        _ => Ok(()),
    }
}

fn weighting(proto: &ClientSideWeightedRoundRobin) -> Result<Weighting, Invalid> {
    /// gRPC takes less for this.
    const SHORTEST_UPDATE: Duration = Duration::from_millis(100);
    if proto.enable_oob_load_report.as_ref().is_some_and(|enabled| enabled.value) {
        return Err(Invalid::new("enable_oob_load_report", "not supported yet"));
    }
    let default = Weighting::default();
    let period = |field, given: Option<&_>, default| given.map_or(Ok(default), |given| duration(field, given));
    let error_penalty = match &proto.error_utilization_penalty {
        Some(penalty) if penalty.value >= 0.0 && penalty.value.is_finite() => f64::from(penalty.value),
        Some(_) => return Err(Invalid::new("error_utilization_penalty", "must be greater than or equal to 0")),
        None => default.error_penalty,
    };
    let update = period("weight_update_period", proto.weight_update_period.as_ref(), default.update)?;
    Ok(Weighting {
        blackout: period("blackout_period", proto.blackout_period.as_ref(), default.blackout)?,
        expiry: period("weight_expiration_period", proto.weight_expiration_period.as_ref(), default.expiry)?,
        update: update.max(SHORTEST_UPDATE),
        error_penalty,
    })
}

fn hash_ring(proto: &RingHash) -> Result<Ring, Invalid> {
    let function = HashFunction::try_from(proto.hash_function);
    let known = matches!(function, Ok(HashFunction::DefaultHash | HashFunction::XxHash));
    let ring = ring(known, proto.minimum_ring_size, proto.maximum_ring_size)?;
    Ok(Ring {
        bound_percent: bound(proto.consistent_hashing_lb_config.as_ref())?.unwrap_or(ring.bound_percent),
        ..ring
    })
}

/// A ring's least size to gRPC where nothing is said.
const GRPCS_RING: u32 = 1024;

/// A ring of what may be given; `known`: by a hash function that we have.
fn ring(known: bool, least: Option<UInt64Value>, most: Option<UInt64Value>) -> Result<Ring, Invalid> {
    if !known {
        return Err(Invalid::new("hash_function", "unsupported value (must be XX_HASH)"));
    }
    let size = |field, given: Option<UInt64Value>, default| match given {
        None => Ok(default),
        Some(given) => match u32::try_from(given.value) {
            Ok(size @ 0..=Ring::LARGEST) => Ok(size),
            _ => Err(Invalid::new(field, format!("must be in the range of 0 to {}", Ring::LARGEST))),
        },
    };
    let default = Ring::default();
    let smallest = size("minimum_ring_size", least, GRPCS_RING)?;
    let most = size("maximum_ring_size", most, default.most)?;
    match smallest > most {
        true => Err(Invalid::new("minimum_ring_size", "cannot be greater than maximum_ring_size")),
        false => Ok(Ring { least: least.map_or(default.least, |_| smallest), most, ..default }),
    }
}

fn lookup(proto: &Maglev) -> Result<Lookup, Invalid> {
    let default = Lookup::default();
    let bound_percent = bound(proto.consistent_hashing_lb_config.as_ref())?.unwrap_or(default.bound_percent);
    Ok(Lookup { size: table_size(proto.table_size)?, bound_percent })
}

fn table_size(given: Option<UInt64Value>) -> Result<Option<TableSize>, Invalid> {
    let Some(given) = given else { return Ok(None) };
    let problem = || format!("must be a prime number, at most {}", TableSize::LARGEST);
    TableSize::new(given.value).map(Some).ok_or_else(|| Invalid::new("table_size", problem()))
}

/// How much an endpoint may have in flight, in percent of the mean.
fn bound(proto: Option<&ConsistentHashingLbConfig>) -> Result<Option<u32>, Invalid> {
    match proto.and_then(|config| config.hash_balance_factor).map(|factor| factor.value) {
        Some(0..=99) => Err(Invalid::new("consistent_hashing_lb_config.hash_balance_factor", "must be at least 100")),
        factor => Ok(factor),
    }
}

fn slow_start(proto: &SlowStartConfig) -> Result<Warmup, Invalid> {
    let bad = |field: &str, problem| Err(Invalid::new(format!("slow_start_config.{field}"), problem));
    let mut warmup = Warmup::default();
    if let Some(window) = &proto.slow_start_window {
        warmup.window = duration("slow_start_config.slow_start_window", window)?;
    }
    if let Some(aggression) = &proto.aggression {
        warmup.aggression = aggression.default_value;
        if !warmup.aggression.is_finite() || warmup.aggression <= 0.0 {
            return bad("aggression", "must be greater than 0");
        }
    }
    if let Some(percent) = &proto.min_weight_percent {
        if !(0.0..=100.0).contains(&percent.value) {
            return bad("min_weight_percent", "must be from 0 to 100");
        }
        warmup.least = percent.value / 100.0;
    }
    Ok(warmup)
}
