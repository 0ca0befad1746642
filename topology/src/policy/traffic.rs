//! `TrafficPolicy`, checked: how a service's traffic is placed, balanced and protected.
//!
//! Every field of [`TrafficPolicySpec`] is optional: a Service's policy beats its Namespace's top-level field by
//! top-level field, and what neither gives has the default that the type here documents.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::{ClusterName, RegionName};
use crate::topology::WeightedRegion;

/// A TrafficPolicy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// Its namespace; what it targets is in the same.
    pub namespace: String,
    /// Its name, unique in the namespace.
    pub name: String,
    /// What it says.
    pub spec: TrafficPolicySpec,
}

/// What a TrafficPolicy says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicySpec {
    /// What it is for; at least one.
    pub target_refs: Vec<TargetRef>,
    /// Where traffic goes.
    pub locality: Option<LocalityPolicy>,
    /// What one ready endpoint of weight 1 can serve.
    pub capacity: Option<Capacity>,
    /// The whole time that a request may take, retries included.
    pub timeout: Option<Duration>,
    /// What is tried again.
    pub retry: Option<Retry>,
    /// Limits of what is open at once.
    pub connection: Option<Connection>,
    /// How endpoints are picked.
    pub load_balancer: Option<LoadBalancer>,
    /// When an endpoint is taken for broken.
    pub outlier_detection: Option<OutlierDetection>,
}

/// What a policy is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum TargetRef {
    /// One service; `section_name` (a port's name) narrows it to that port.
    Service {
        /// The Service's name.
        name: String,
        /// A port's name; all ports without it.
        section_name: Option<String>,
    },
    /// All services of the policy's namespace.
    Namespace {
        /// The namespace's name.
        name: String,
    },
}

/// How far traffic stays near.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Preference {
    /// Own zone, then region, then failover.
    #[default]
    Zone,
    /// The region's zones alike, then failover.
    Region,
    /// Everything that may be used, by capacity.
    None,
}

/// `spec.locality`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityPolicy {
    /// `Zone` by default.
    pub preference: Preference,
    /// A tier spills above this utilisation; 80 by default.
    pub target_utilization_percent: u32,
    /// Used where demand is unknown; 140 by default: a tier carries its whole load down to 1/1.4 of its endpoints.
    pub overprovisioning_percent: u32,
    /// Instead of the topology's failover for every region.
    pub failover: Option<Vec<WeightedRegion>>,
    /// Never beyond these, even when all are down. `None`: all regions.
    pub allowed_regions: Option<Vec<RegionName>>,
    /// Instead of tiers; excludes `failover`.
    pub cluster_weights: Option<Vec<WeightedCluster>>,
    /// How traffic comes back.
    pub failback: Failback,
}

impl Default for LocalityPolicy {
    fn default() -> Self {
        Self {
            preference: Preference::default(),
            target_utilization_percent: 80,
            overprovisioning_percent: 140,
            failover: None,
            allowed_regions: None,
            cluster_weights: None,
            failback: Failback::default(),
        }
    }
}

/// A cluster's part of a service's traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightedCluster {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its weight against the others; 0 takes its traffic away.
    pub weight: u32,
}

/// How traffic comes back to what was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Failback {
    /// From nothing to all in this time; 60 s by default.
    pub ramp: Duration,
    /// Not before the place has been well for this long; 30 s by default, doubled for each flap.
    pub hold_down: Duration,
}

impl Default for Failback {
    fn default() -> Self {
        Self { ramp: Duration::from_secs(60), hold_down: Duration::from_secs(30) }
    }
}

/// `spec.capacity`: exactly one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Capacity {
    /// Requests per second.
    RequestsPerSecond(f64),
    /// Requests at once.
    ConcurrentRequests(f64),
}

/// `spec.retry`: what is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Retry {
    /// How many times a request is tried again after the first; 2 by default.
    pub attempts: u32,
    /// After which gRPC statuses; UNAVAILABLE by default.
    pub on: Vec<RetryOn>,
    /// The pauses between tries.
    pub backoff: Backoff,
    /// The longest that one try may take; `None`: as long as the request.
    pub per_try_timeout: Option<Duration>,
    /// At most so many retries for a hundred requests; 20 by default.
    pub budget_percent: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 2,
            on: vec![RetryOn::Unavailable],
            backoff: Backoff::default(),
            per_try_timeout: None,
            budget_percent: 20,
        }
    }
}

/// A gRPC status after which a request may be tried again: those that xDS can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RetryOn {
    /// CANCELLED.
    Cancelled,
    /// DEADLINE_EXCEEDED.
    DeadlineExceeded,
    /// INTERNAL.
    Internal,
    /// RESOURCE_EXHAUSTED.
    ResourceExhausted,
    /// UNAVAILABLE.
    Unavailable,
}

/// The pauses between tries: each twice as long as the one before, with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Backoff {
    /// Before the first retry; 25 ms by default.
    pub base: Duration,
    /// The longest; 250 ms by default.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

/// `spec.connection`: limits of what is open at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Connection {
    /// How long a connection may take to open; 1 s by default.
    pub connect_timeout: Duration,
    /// Requests in flight of one client to the service; 100,000 by default.
    pub max_requests: u32,
    /// Requests of one client that wait for a connection; 1,024 by default.
    pub max_pending_requests: u32,
}

impl Default for Connection {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(1), max_requests: 100_000, max_pending_requests: 1024 }
    }
}

/// `spec.loadBalancer`: how endpoints are picked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    /// By what an endpoint is picked.
    #[serde(rename = "type")]
    pub strategy: Strategy,
    /// The request header whose value is a call's key, in lower case: of a [`Strategy`] that goes by keys.
    pub hash_header: Option<String>,
    /// How a new endpoint comes to its share; `None`: as each client does it by itself.
    pub warmup: Option<Warmup>,
}

/// `spec.loadBalancer.type`: by what an endpoint is picked. A client that has no such strategy does as by the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Strategy {
    /// By the requests in flight.
    #[default]
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// By the utilisation that servers report.
    WeightedRoundRobin,
    /// By the latency lately, times the requests in flight.
    PeakEwma,
    /// By what servers report to have in flight.
    HotCold,
    /// By a call's key, on a ring: equal keys go to one endpoint.
    RingHash,
    /// The same by Maglev's table.
    Maglev,
    /// By what the requests in flight cost.
    RequestCost,
    /// By the beginnings of prompts that a server has cached.
    PrefixAffinity,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::LeastRequest,
        Self::RoundRobin,
        Self::WeightedRoundRobin,
        Self::PeakEwma,
        Self::RingHash,
        Self::Maglev,
        Self::HotCold,
        Self::RequestCost,
        Self::PrefixAffinity,
    ];

    /// The name, as in a policy.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeastRequest => "LeastRequest",
            Self::RoundRobin => "RoundRobin",
            Self::WeightedRoundRobin => "WeightedRoundRobin",
            Self::PeakEwma => "PeakEwma",
            Self::RingHash => "RingHash",
            Self::Maglev => "Maglev",
            Self::HotCold => "HotCold",
            Self::RequestCost => "RequestCost",
            Self::PrefixAffinity => "PrefixAffinity",
        }
    }

    /// The block of its settings that names the key's header, if it goes by keys.
    #[must_use]
    pub fn keyed_by(self) -> Option<&'static str> {
        match self {
            Self::RingHash => Some("ringHash"),
            Self::Maglev => Some("maglev"),
            _ => None,
        }
    }

    /// Whether the share of a new endpoint can grow slowly under it.
    #[must_use]
    pub fn warms_up(self) -> bool {
        matches!(self, Self::LeastRequest | Self::RoundRobin)
    }
}

/// `spec.loadBalancer.warmup`: a new endpoint is left out for `hold`; at a time `t` after that its share is
/// `max(minPercent / 100, (t / window)^(1 / aggression))` of its whole one, as in Envoy's slow start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Warmup {
    /// For how long a new endpoint takes nothing, while it is not among most of its locality; not at all by default.
    pub hold: Duration,
    /// How long it takes then; 60 s by default.
    pub window: Duration,
    /// The shape of the way: 1, the default, is a straight line, more is faster at first.
    pub aggression: f64,
    /// The least share, in percent; 10 by default.
    pub min_percent: u32,
}

impl Default for Warmup {
    fn default() -> Self {
        Self { hold: Duration::ZERO, window: Duration::from_secs(60), aggression: 1.0, min_percent: 10 }
    }
}

impl Warmup {
    /// The part of its whole share (0 to 1) that an endpoint bears which became ready so long ago; `None` while it is held.
    #[must_use]
    pub fn fraction(&self, age: Duration) -> Option<f64> {
        let warming = age.checked_sub(self.hold)?;
        if warming >= self.window {
            return Some(1.0);
        }
        let passed = warming.as_secs_f64() / self.window.as_secs_f64();
        Some(passed.powf(1.0 / self.aggression).max(f64::from(self.min_percent) / 100.0))
    }

    /// How long it takes in all.
    #[must_use]
    pub fn whole(&self) -> Duration {
        self.hold.saturating_add(self.window)
    }
}

/// `spec.outlierDetection`: when an endpoint is taken for broken, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// After so many errors in a row; 5 by default.
    pub consecutive_errors: u32,
    /// How often it is looked at; 1 s by default.
    pub interval: Duration,
    /// For how long the first time; 10 s by default.
    pub base_ejection_time: Duration,
    /// At most so many of the endpoints, in percent; 50 by default.
    pub max_ejection_percent: u32,
    /// Whether a locality that fails as a whole is ejected as a whole, whatever the percentage; so by default.
    pub eject_whole_locality: bool,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_errors: 5,
            interval: Duration::from_secs(1),
            base_ejection_time: Duration::from_secs(10),
            max_ejection_percent: 50,
            eject_whole_locality: true,
        }
    }
}
