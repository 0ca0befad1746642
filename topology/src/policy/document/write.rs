//! Policy objects in the shape in which people write them; what is written reads back equal.

use jiff::Timestamp;
use serde::Serialize;

use crate::duration::DurationText;
use crate::names::{RegionName, ServiceId};
use crate::policy::{
    self, Capacity, Drain, LocalityPolicy, PolicyObject, Preference, Retry, RetryOn, Scope, TargetRef, TrafficPolicy,
    WeightedCluster,
};
use crate::topology::{API_VERSION, WeightedRegion};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a, S> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    spec: S,
}

#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Written<'a> {
    TrafficPolicy(Box<Object<'a, TrafficSpec<'a>>>),
    Drain(Object<'a, DrainSpec<'a>>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TrafficSpec<'a> {
    target_refs: Vec<Target<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locality: Option<Locality<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<Capacity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<Connection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_balancer: Option<LoadBalancer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outlier_detection: Option<OutlierDetection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<DurationText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<RetrySpec<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Target<'a> {
    group: &'static str,
    kind: &'static str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    section_name: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Locality<'a> {
    preference: Preference,
    target_utilization_percent: u32,
    overprovisioning_percent: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    failover: Option<&'a [WeightedRegion]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_regions: Option<&'a [RegionName]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_weights: Option<&'a [WeightedCluster]>,
    failback: Failback,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failback {
    ramp: DurationText,
    hold_down: DurationText,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection {
    connect_timeout: DurationText,
    max_requests: u32,
    max_pending_requests: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoadBalancer<'a> {
    #[serde(rename = "type")]
    strategy: policy::Strategy,
    #[serde(skip_serializing_if = "Option::is_none")]
    ring_hash: Option<Hashing<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maglev: Option<Hashing<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warmup: Option<Warmup>,
}

#[derive(Serialize)]
struct Hashing<'a> {
    header: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Warmup {
    hold: DurationText,
    window: DurationText,
    aggression: f64,
    min_percent: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OutlierDetection {
    consecutive_errors: u32,
    interval: DurationText,
    base_ejection_time: DurationText,
    max_ejection_percent: u32,
    eject_whole_locality: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RetrySpec<'a> {
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    per_try_timeout: Option<DurationText>,
    on: &'a [RetryOn],
    backoff: Backoff,
    budget_percent: u32,
}

#[derive(Serialize)]
struct Backoff {
    base: DurationText,
    max: DurationText,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DrainSpec<'a> {
    scope: &'a Scope,
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<&'a [ServiceId]>,
    percent: u32,
    over: DurationText,
    restore_over: DurationText,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time: Option<Timestamp>,
    force: bool,
    reason: &'a str,
}

impl<'a> Target<'a> {
    fn of(target: &'a TargetRef) -> Self {
        match target {
            TargetRef::Service { name, section_name } => {
                Self { group: "", kind: "Service", name, section_name: section_name.as_deref() }
            }
            TargetRef::Namespace { name } => Self { group: "", kind: "Namespace", name, section_name: None },
        }
    }
}

impl<'a> Locality<'a> {
    fn of(locality: &'a LocalityPolicy) -> Self {
        Self {
            preference: locality.preference,
            target_utilization_percent: locality.target_utilization_percent,
            overprovisioning_percent: locality.overprovisioning_percent,
            failover: locality.failover.as_deref(),
            allowed_regions: locality.allowed_regions.as_deref(),
            cluster_weights: locality.cluster_weights.as_deref(),
            failback: Failback {
                ramp: DurationText(locality.failback.ramp),
                hold_down: DurationText(locality.failback.hold_down),
            },
        }
    }
}

impl<'a> RetrySpec<'a> {
    fn of(retry: &'a Retry) -> Self {
        let backoff = Backoff { base: DurationText(retry.backoff.base), max: DurationText(retry.backoff.max) };
        Self {
            attempts: retry.attempts,
            per_try_timeout: retry.per_try_timeout.map(DurationText),
            on: &retry.on,
            backoff,
            budget_percent: retry.budget_percent,
        }
    }
}

impl Connection {
    fn of(limits: policy::Connection) -> Self {
        Self {
            connect_timeout: DurationText(limits.connect_timeout),
            max_requests: limits.max_requests,
            max_pending_requests: limits.max_pending_requests,
        }
    }
}

impl<'a> LoadBalancer<'a> {
    fn of(balancer: &'a policy::LoadBalancer) -> Self {
        let warmup = balancer.warmup.map(|warmup| Warmup {
            hold: DurationText(warmup.hold),
            window: DurationText(warmup.window),
            aggression: warmup.aggression,
            min_percent: warmup.min_percent,
        });
        let header = balancer.hash_header.as_deref();
        let of = |strategy| header.filter(|_| balancer.strategy == strategy).map(|header| Hashing { header });
        let (ring_hash, maglev) = (of(policy::Strategy::RingHash), of(policy::Strategy::Maglev));
        Self { strategy: balancer.strategy, ring_hash, maglev, warmup }
    }
}

impl OutlierDetection {
    fn of(detection: policy::OutlierDetection) -> Self {
        Self {
            consecutive_errors: detection.consecutive_errors,
            interval: DurationText(detection.interval),
            base_ejection_time: DurationText(detection.base_ejection_time),
            max_ejection_percent: detection.max_ejection_percent,
            eject_whole_locality: detection.eject_whole_locality,
        }
    }
}

impl<'a> TrafficSpec<'a> {
    fn of(policy: &'a TrafficPolicy) -> Self {
        let spec = &policy.spec;
        Self {
            target_refs: spec.target_refs.iter().map(Target::of).collect(),
            locality: spec.locality.as_ref().map(Locality::of),
            capacity: spec.capacity,
            connection: spec.connection.map(Connection::of),
            load_balancer: spec.load_balancer.as_ref().map(LoadBalancer::of),
            outlier_detection: spec.outlier_detection.map(OutlierDetection::of),
            timeout: spec.timeout.map(DurationText),
            retry: spec.retry.as_ref().map(RetrySpec::of),
        }
    }
}

impl<'a> DrainSpec<'a> {
    fn of(drain: &'a Drain) -> Self {
        let spec = &drain.spec;
        Self {
            scope: &spec.scope,
            services: spec.services.as_deref(),
            percent: spec.percent,
            over: DurationText(spec.over),
            restore_over: DurationText(spec.restore_over),
            start_time: spec.start_time,
            end_time: spec.end_time,
            force: spec.force,
            reason: &spec.reason,
        }
    }
}

impl<'a> Written<'a> {
    fn of(object: &'a PolicyObject) -> Self {
        let api_version = API_VERSION;
        match object {
            PolicyObject::TrafficPolicy(policy) => Self::TrafficPolicy(Box::new(Object {
                api_version,
                kind: "TrafficPolicy",
                metadata: Metadata { name: &policy.name, namespace: Some(&policy.namespace) },
                spec: TrafficSpec::of(policy),
            })),
            PolicyObject::Drain(drain) => Self::Drain(Object {
                api_version,
                kind: "Drain",
                metadata: Metadata { name: &drain.name, namespace: None },
                spec: DrainSpec::of(drain),
            }),
        }
    }
}

impl PolicyObject {
    /// The object as YAML; [`super::parse`] reads an equal object from it.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        // Writing plain structs to a string has no way to fail; an empty text is no object.
        serde_saphyr::to_string(&Written::of(self)).unwrap_or_default()
    }

    /// The object as JSON, in the same shape.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(Written::of(self)).unwrap_or_default()
    }
}
