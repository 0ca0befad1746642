//! CDS: a cluster whose endpoints come over EDS.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::{
    Cluster as Proto, LoadBalancingPolicy,
    cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy},
};
use envoy_types::pb::envoy::config::core::v3::{RoutingPriority, config_source::ConfigSourceSpecifier};
use envoy_types::pb::envoy::extensions::load_balancing_policies::{
    common::v3::SlowStartConfig, least_request::v3::LeastRequest, wrr_locality::v3::WrrLocality,
};
use envoy_types::pb::google::protobuf::{Any, UInt32Value, value::Kind as ValueKind};

use super::{Invalid, duration, must_be_this_stream, outliers, parse};
use crate::xds::model::{Assignment, Failback, OutlierDetection, Warmup};

const WRR_LOCALITY: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality";
const LEAST_REQUEST: &str =
    "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest";
const ROUND_ROBIN: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin";

/// Policies nest no deeper.
const DEEPEST: u32 = 16;

/// Retries for a hundred calls where nothing is said.
const RETRY_PERCENT: u32 = 20;

/// The filter whose metadata is Portolan's.
pub const METADATA_FILTER: &str = "portolan.dev";

/// A Cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Its EDS service name; empty: its own name.
    pub eds_service: String,
    /// The limit of open requests; `None`: none.
    pub max_requests: Option<u32>,
    /// The limit of requests that wait; `None`: none.
    pub max_pending_requests: Option<u32>,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// When an endpoint is taken for broken.
    pub outlier_detection: OutlierDetection,
    /// How a new endpoint gets its share.
    pub warmup: Warmup,
    /// Retries for a hundred calls.
    pub retry_percent: u32,
    /// How a returning locality is ramped.
    pub failback: Failback,
    /// Whether its load is reported to this control plane.
    pub report_load: bool,
}

pub(super) fn decode(bytes: &[u8]) -> Result<(String, Result<Cluster, Invalid>), Invalid> {
    let mut proto: Proto = parse("", bytes)?;
    Ok((std::mem::take(&mut proto.name), validate(&proto)))
}

fn validate(proto: &Proto) -> Result<Cluster, Invalid> {
    match &proto.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) if *kind == i32::from(DiscoveryType::Eds) => {}
        _ => return Err(Invalid::new("type", "only EDS clusters are supported yet")),
    }
    let eds = proto.eds_cluster_config.as_ref();
    let eds = eds.ok_or_else(|| Invalid::new("eds_cluster_config", "must be set"))?;
    must_be_this_stream("eds_cluster_config.eds_config", eds.eds_config.as_ref())?;
    let report_load = match proto.lrs_server.as_ref().map(|source| &source.config_source_specifier) {
        None => false,
        Some(Some(ConfigSourceSpecifier::Self_(_))) => true,
        Some(_) => return Err(Invalid::new("lrs_server", "must be self")),
    };
    if proto.transport_socket.is_some() {
        return Err(Invalid::new("transport_socket", "not supported yet"));
    }
    let warmup = policy(proto)?;
    let detection = outliers::validate(proto.outlier_detection.as_ref(), flag(proto, "ejectWholeLocality")?);
    let outlier_detection = detection.map_err(|invalid| invalid.below("outlier_detection"))?;
    let thresholds = proto.circuit_breakers.as_ref().map_or(&[][..], |breakers| &breakers.thresholds);
    let default = thresholds.iter().find(|thresholds| thresholds.priority == i32::from(RoutingPriority::Default));
    let limit = |of: fn(&Thresholds) -> Option<UInt32Value>| default.and_then(of).map(|limit| limit.value);
    Ok(Cluster {
        eds_service: eds.service_name.clone(),
        retry_percent: default.map_or(Ok(RETRY_PERCENT), retry_percent)?,
        max_requests: limit(|thresholds| thresholds.max_requests),
        max_pending_requests: limit(|thresholds| thresholds.max_pending_requests),
        connect_timeout: connect_timeout(proto)?,
        outlier_detection,
        warmup,
        failback: failback(proto)?,
        report_load,
    })
}

fn connect_timeout(proto: &Proto) -> Result<Duration, Invalid> {
    let Some(given) = &proto.connect_timeout else { return Ok(Assignment::default().connect_timeout) };
    match duration("connect_timeout", given)? {
        Duration::ZERO => Err(Invalid::new("connect_timeout", "must be greater than 0")),
        given => Ok(given),
    }
}

fn retry_percent(thresholds: &Thresholds) -> Result<u32, Invalid> {
    let percent = thresholds.retry_budget.as_ref().and_then(|budget| budget.budget_percent.as_ref());
    match percent.map(|percent| percent.value) {
        None => Ok(RETRY_PERCENT),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 100")]
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(percent.round() as u32),
        Some(_) => Err(Invalid::new("circuit_breakers.retry_budget.budget_percent", "must be from 0 to 100")),
    }
}

/// Whether we balance as the cluster wants. Least request of two choices is what we do; round robin wants even load, which
/// it gives. With it comes how a new endpoint gets its share.
fn policy(proto: &Proto) -> Result<Warmup, Invalid> {
    match &proto.load_balancing_policy {
        Some(list) => first_known(list, 0).map_err(|invalid| invalid.below("load_balancing_policy")),
        None => match LbPolicy::try_from(proto.lb_policy) {
            Ok(LbPolicy::RoundRobin | LbPolicy::LeastRequest) => Ok(Warmup::default()),
            _ => Err(Invalid::new("lb_policy", "LB policy is not supported")),
        },
    }
}

fn first_known(list: &LoadBalancingPolicy, depth: u32) -> Result<Warmup, Invalid> {
    if depth >= DEEPEST {
        return Err(Invalid::new("policies", "nested too deep"));
    }
    for (i, policy) in list.policies.iter().enumerate() {
        let config = policy.typed_extension_config.as_ref().and_then(|config| config.typed_config.as_ref());
        let field = format!("policies[{i}].typed_extension_config.typed_config");
        let config = config.ok_or_else(|| Invalid::new(&*field, "must be set"))?;
        if let Some(known) = take(config, depth) {
            return known.map_err(|invalid| invalid.below(field));
        }
    }
    Err(Invalid::new("policies", "no supported load balancing policy in the list"))
}

/// `None` if the policy is unknown.
fn take(config: &Any, depth: u32) -> Option<Result<Warmup, Invalid>> {
    Some(match config.type_url.as_str() {
        ROUND_ROBIN => Ok(Warmup::default()),
        LEAST_REQUEST => parse(LEAST_REQUEST, &config.value).and_then(|it: LeastRequest| {
            two_choices(&it)?;
            it.slow_start_config.as_ref().map_or(Ok(Warmup::default()), slow_start)
        }),
        WRR_LOCALITY => parse(WRR_LOCALITY, &config.value).and_then(|it: WrrLocality| {
            let child =
                it.endpoint_picking_policy.ok_or_else(|| Invalid::new("endpoint_picking_policy", "must be set"))?;
            first_known(&child, depth + 1).map_err(|invalid| invalid.below("endpoint_picking_policy"))
        }),
        _ => return None,
    })
}

fn two_choices(policy: &LeastRequest) -> Result<(), Invalid> {
    match policy.choice_count.as_ref().map_or(2, |count| count.value) {
        2 => Ok(()),
        0 | 1 => Err(Invalid::new("choice_count", "must be at least 2")),
        _ => Err(Invalid::new("choice_count", "other than 2 is not supported yet")),
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

/// What our own metadata says by this name.
fn ours<'p>(proto: &'p Proto, name: &str) -> Option<&'p Option<ValueKind>> {
    let metadata = proto.metadata.as_ref()?.filter_metadata.get(METADATA_FILTER)?;
    metadata.fields.get(name).map(|value| &value.kind)
}

fn flag(proto: &Proto, name: &str) -> Result<Option<bool>, Invalid> {
    match ours(proto, name) {
        None => Ok(None),
        Some(Some(ValueKind::BoolValue(flag))) => Ok(Some(*flag)),
        Some(_) => Err(wrong(name, "must be true or false")),
    }
}

fn wrong(name: &str, problem: &str) -> Invalid {
    Invalid::new(format!("metadata.filter_metadata.{METADATA_FILTER}.{name}"), problem)
}

fn failback(proto: &Proto) -> Result<Failback, Invalid> {
    let mut failback = Failback::default();
    if let Some(ramp) = milliseconds(proto, "failbackRampMs")? {
        failback.ramp = ramp;
    }
    if let Some(hold_down) = milliseconds(proto, "failbackHoldDownMs")? {
        failback.hold_down = hold_down;
    }
    Ok(failback)
}

fn milliseconds(proto: &Proto, name: &str) -> Result<Option<Duration>, Invalid> {
    // A day: longer is a mistake, and larger doubles lose their milliseconds.
    const LONGEST: f64 = 86_400_000.0;
    match ours(proto, name) {
        None => Ok(None),
        Some(Some(ValueKind::NumberValue(ms))) if (0.0..=LONGEST).contains(ms) => {
            Ok(Some(Duration::from_secs_f64(ms / 1000.0)))
        }
        Some(_) => Err(wrong(name, "must be a number of milliseconds, at most a day")),
    }
}
