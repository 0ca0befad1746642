//! CDS: a cluster whose endpoints come over EDS, or an aggregate of others in the order of preference.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::{
    Cluster as Proto,
    cluster::{ClusterDiscoveryType, DiscoveryType},
};
use envoy_types::pb::envoy::config::core::v3::{RoutingPriority, config_source::ConfigSourceSpecifier};
use envoy_types::pb::envoy::extensions::clusters::aggregate::v3::ClusterConfig as AggregateConfig;
use envoy_types::pb::google::protobuf::{UInt32Value, value::Kind as ValueKind};

use super::balancing::{self, Policy};
use super::{Invalid, duration, must_be_this_stream, outliers, parse, parse_any};
use crate::xds::model::{Assignment, Balancing, Failback, OutlierDetection, Warmup};

const AGGREGATE: &str = "envoy.clusters.aggregate";
const AGGREGATE_CONFIG: &str = "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig";

/// Retries for a hundred calls where nothing is said.
const RETRY_PERCENT: u32 = 20;

/// The filter whose metadata is Portolan's.
pub const METADATA_FILTER: &str = "portolan.dev";

/// Where a Cluster's endpoints come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// From the ClusterLoadAssignment of this name; empty: the cluster's own name.
    Eds(String),
    /// From these clusters, the most preferred first (`envoy.clusters.aggregate`). What else such a cluster says does not
    /// count, but what they say.
    Aggregate(Vec<Arc<str>>),
}

/// A Cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// The limit of open requests; `None`: none.
    pub max_requests: Option<u32>,
    /// The limit of requests that wait; `None`: none.
    pub max_pending_requests: Option<u32>,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// When an endpoint is taken for broken.
    pub outlier_detection: OutlierDetection,
    /// How endpoints share requests, the most preferred way first; empty: by the client's default.
    pub balancing: Vec<Balancing>,
    /// How a new endpoint gets its share.
    pub warmup: Warmup,
    /// The limit of calls that are tried again at once; `None`: none.
    pub max_retries: Option<u32>,
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
    let discovery = discovery(proto)?;
    let report_load = match proto.lrs_server.as_ref().map(|source| &source.config_source_specifier) {
        None => false,
        Some(Some(ConfigSourceSpecifier::Self_(_))) => true,
        Some(_) => return Err(Invalid::new("lrs_server", "must be self")),
    };
    if proto.transport_socket.is_some() {
        return Err(Invalid::new("transport_socket", "not supported yet"));
    }
    let Policy { balancing, warmup } = match &discovery {
        Discovery::Eds(_) => balancing::validate(proto)?,
        Discovery::Aggregate(_) => Policy::default(),
    };
    let detection = outliers::validate(proto.outlier_detection.as_ref(), flag(proto, "ejectWholeLocality")?);
    let outlier_detection = detection.map_err(|invalid| invalid.below("outlier_detection"))?;
    let thresholds = proto.circuit_breakers.as_ref().map_or(&[][..], |breakers| &breakers.thresholds);
    let default = thresholds.iter().find(|thresholds| thresholds.priority == i32::from(RoutingPriority::Default));
    let limit = |of: fn(&Thresholds) -> Option<UInt32Value>| default.and_then(of).map(|limit| limit.value);
    Ok(Cluster {
        discovery,
        retry_percent: default.map_or(Ok(RETRY_PERCENT), retry_percent)?,
        max_requests: limit(|thresholds| thresholds.max_requests),
        max_pending_requests: limit(|thresholds| thresholds.max_pending_requests),
        // A budget stands in its place, as in Envoy.
        max_retries: limit(|it| it.max_retries.filter(|_| it.retry_budget.is_none())),
        connect_timeout: connect_timeout(proto)?,
        outlier_detection,
        balancing,
        warmup,
        failback: failback(proto)?,
        report_load,
    })
}

fn discovery(proto: &Proto) -> Result<Discovery, Invalid> {
    match &proto.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) if *kind == i32::from(DiscoveryType::Eds) => {
            let eds = proto.eds_cluster_config.as_ref();
            let eds = eds.ok_or_else(|| Invalid::new("eds_cluster_config", "must be set"))?;
            must_be_this_stream("eds_cluster_config.eds_config", eds.eds_config.as_ref())?;
            Ok(Discovery::Eds(eds.service_name.clone()))
        }
        Some(ClusterDiscoveryType::ClusterType(custom)) if custom.name == AGGREGATE => {
            let field = "cluster_type.typed_config";
            let config = custom.typed_config.as_ref().ok_or_else(|| Invalid::new(field, "must be set"))?;
            let config: AggregateConfig = parse_any(field, config, AGGREGATE_CONFIG)?;
            if config.clusters.is_empty() {
                return Err(Invalid::new(format!("{field}.clusters"), "must not be empty"));
            }
            Ok(Discovery::Aggregate(config.clusters.iter().map(|name| name.as_str().into()).collect()))
        }
        _ => Err(Invalid::new("type", "only EDS clusters and aggregates of them are supported yet")),
    }
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
