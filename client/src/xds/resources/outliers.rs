//! `Cluster.outlier_detection`: when an endpoint is taken for broken. What is not said is as TrafficPolicy's defaults.
//!
//! Only what [`OutlierDetection`] can hold is read: what compares endpoints with each other is the balancer's own.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::OutlierDetection as Proto;
use envoy_types::pb::google::protobuf::{Duration as ProtoDuration, UInt32Value};

use super::{Invalid, duration};
use crate::xds::model::OutlierDetection;

/// `whole_locality`: the metadata's word, which has no field of its own.
pub(super) fn validate(proto: Option<&Proto>, whole_locality: Option<bool>) -> Result<OutlierDetection, Invalid> {
    let default = OutlierDetection::default();
    let eject_whole_locality = whole_locality.unwrap_or(default.eject_whole_locality);
    let Some(proto) = proto else { return Ok(OutlierDetection { eject_whole_locality, ..default }) };
    let number = |given: &Option<UInt32Value>, default| given.as_ref().map_or(default, |given| given.value);
    let read = OutlierDetection {
        consecutive_errors: match number(&proto.enforcing_consecutive_5xx, 100) {
            0 => u32::MAX,
            _ => number(&proto.consecutive_5xx, default.consecutive_errors),
        },
        interval: time("interval", proto.interval.as_ref(), default.interval)?,
        base_ejection_time: time("base_ejection_time", proto.base_ejection_time.as_ref(), default.base_ejection_time)?,
        max_ejection_percent: number(&proto.max_ejection_percent, default.max_ejection_percent),
        eject_whole_locality,
    };
    if read.max_ejection_percent > 100 {
        return Err(Invalid::new("max_ejection_percent", "must be at most 100"));
    }
    Ok(read)
}

fn time(field: &str, given: Option<&ProtoDuration>, default: Duration) -> Result<Duration, Invalid> {
    match given.map(|given| duration(field, given)).transpose()? {
        Some(Duration::ZERO) => Err(Invalid::new(field, "must be greater than 0")),
        given => Ok(given.unwrap_or(default)),
    }
}
