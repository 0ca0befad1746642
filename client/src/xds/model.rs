//! What a service's Cluster and ClusterLoadAssignment come to for a balancer: one immutable snapshot, made whole or not
//! at all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use super::balancing::Balancing;
use super::routing::Routing;

/// What a name comes to, as of now. `ads::XdsClient::watch` hands out a slot that always holds the newest.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolution {
    /// Nothing is known yet: calls wait.
    Pending,
    /// The service, as it was last served whole. It stays while the control plane is away.
    Routing(Arc<Routing>),
    /// There is nothing to send calls to, and it is known why: calls fail UNAVAILABLE. A later resource mends it.
    NotFound {
        /// The resource at fault, such as ``Listener `checkout.shop` ``.
        resource: Arc<str>,
        /// What is wrong with it, as a sentence without a full stop.
        reason: Arc<str>,
    },
}

impl From<Assignment> for Resolution {
    /// One cluster that takes every call.
    fn from(assignment: Assignment) -> Self {
        Self::Routing(Arc::new(assignment.into()))
    }
}

/// Everything that a balancer must know about the cluster that it sends to.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The xDS cluster's name.
    pub cluster: Arc<str>,
    /// Its EDS service name, as load reports name it; empty if it has none.
    pub eds_service: Arc<str>,
    /// Of an aggregate, the clusters that it is made of, in the order of their priorities; empty: it is none.
    pub leaves: Vec<Leaf>,
    /// Localities by priority, highest first; never an empty priority. No priority at all: the service has no endpoint.
    pub priorities: Vec<Vec<LocalityEndpoints>>,
    /// How many requests may be open at once (`circuit_breakers`); `None`: no limit.
    pub max_requests: Option<u32>,
    /// How many requests may wait for a connection (`circuit_breakers`); `None`: no limit.
    pub max_pending_requests: Option<u32>,
    /// How long a connection may take to open; 1 s by default.
    pub connect_timeout: Duration,
    /// When an endpoint is taken for broken.
    pub outlier_detection: OutlierDetection,
    /// How endpoints of a locality share requests, the most preferred way first; empty: by the default.
    pub balancing: Vec<Balancing>,
    /// How a new endpoint gets its share.
    pub warmup: Warmup,
    /// How a locality that was dead takes its share back.
    pub failback: Failback,
    /// How many calls may be tried again at once (`circuit_breakers`); `None`: no limit.
    pub max_retries: Option<u32>,
    /// At most so many retries for a hundred calls (`circuit_breakers`); 20 by default, as in Envoy.
    pub retry_percent: u32,
    /// Whether load is reported to the management server (`lrs_server: self`).
    pub report_load: bool,
}

impl Default for Assignment {
    /// No endpoint and no limit.
    fn default() -> Self {
        Self {
            cluster: Arc::default(),
            eds_service: Arc::default(),
            leaves: Vec::new(),
            priorities: Vec::new(),
            max_requests: None,
            max_pending_requests: None,
            connect_timeout: Duration::from_secs(1),
            outlier_detection: OutlierDetection::default(),
            balancing: Vec::new(),
            warmup: Warmup::default(),
            failback: Failback::default(),
            max_retries: None,
            retry_percent: 20,
            report_load: false,
        }
    }
}

/// A cluster of an aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its name.
    pub cluster: Arc<str>,
    /// Its EDS service name, as load reports name it; empty if it has none.
    pub eds_service: Arc<str>,
    /// Whether its load is reported.
    pub report_load: bool,
    /// How many of the priorities are its.
    pub priorities: usize,
}

impl Assignment {
    /// The cluster and EDS service that a priority's load is reported under, if it is reported.
    #[must_use]
    pub fn reported(&self, priority: u32) -> Option<(&Arc<str>, &Arc<str>)> {
        if self.leaves.is_empty() {
            return self.report_load.then_some((&self.cluster, &self.eds_service));
        }
        let leaf = self.leaf(priority).filter(|leaf| leaf.report_load)?;
        Some((&leaf.cluster, &leaf.eds_service))
    }

    /// The clusters whose load is reported.
    pub fn reported_clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        let own = (self.leaves.is_empty() && self.report_load).then_some(&self.cluster);
        own.into_iter().chain(self.leaves.iter().filter(|leaf| leaf.report_load).map(|leaf| &leaf.cluster))
    }

    /// The cluster that a priority is of.
    #[must_use]
    pub fn cluster_of(&self, priority: u32) -> &Arc<str> {
        self.leaf(priority).map_or(&self.cluster, |leaf| &leaf.cluster)
    }

    fn leaf(&self, priority: u32) -> Option<&Leaf> {
        let mut until = 0;
        self.leaves.iter().find(|leaf| {
            until += leaf.priorities;
            (priority as usize) < until
        })
    }
}

/// A locality of an assignment.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalityEndpoints {
    /// Its name.
    pub locality: LocalityName,
    /// Its weight within its priority; at least 1 (others are dropped on the way in).
    pub weight: u32,
    /// Its endpoints. Only those that are [`EndpointHealth::Healthy`] take new requests.
    pub endpoints: Vec<AssignedEndpoint>,
}

/// A locality's name, as in xDS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LocalityName {
    /// The region.
    pub region: Arc<str>,
    /// The zone.
    pub zone: Arc<str>,
    /// The sub-zone: Portolan puts the cluster there.
    pub sub_zone: Arc<str>,
}

impl std::fmt::Display for LocalityName {
    /// `REGION/ZONE/SUB_ZONE`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.region, self.zone, self.sub_zone)
    }
}

/// An endpoint of an assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedEndpoint {
    /// Its address.
    pub address: SocketAddr,
    /// Its weight against its peers; at least 1.
    pub weight: u32,
    /// Its health as served.
    pub health: EndpointHealth,
}

/// What `health_status` comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndpointHealth {
    /// HEALTHY or UNKNOWN: takes requests.
    Healthy,
    /// DRAINING: finishes what it has.
    Draining,
    /// Everything else.
    Unhealthy,
}

/// How a returning locality is ramped: from the metadata `portolan.dev` of the Cluster (`failbackRampMs`,
/// `failbackHoldDownMs`), or the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failback {
    /// From nothing to its whole share in this time; 60 s by default.
    pub ramp: Duration,
    /// Not before it has been well for this long; 30 s by default.
    pub hold_down: Duration,
}

impl Default for Failback {
    fn default() -> Self {
        Self { ramp: Duration::from_secs(60), hold_down: Duration::from_secs(30) }
    }
}

/// When endpoints are ejected, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutlierDetection {
    /// Failures in a row.
    pub consecutive_errors: u32,
    /// How often endpoints are looked at.
    pub interval: Duration,
    /// The length of a first ejection.
    pub base_ejection_time: Duration,
    /// How much of a locality may be ejected, in percent; one endpoint always may.
    pub max_ejection_percent: u32,
    /// Whether a locality that fails as a whole is ejected as a whole, whatever the percentage.
    pub eject_whole_locality: bool,
}

impl Default for OutlierDetection {
    /// As TrafficPolicy's.
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

/// How a new endpoint gets its share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Warmup {
    /// From its first success to its whole share, if nothing holds it up.
    pub window: Duration,
    /// Above 1: more of it early; below 1: later. More than 0.
    pub aggression: f64,
    /// The least, as a part of its share: 0 to 1.
    pub least: f64,
}

impl Default for Warmup {
    /// 60 s, evenly, from a tenth: as TrafficPolicy's.
    fn default() -> Self {
        Self { window: Duration::from_secs(60), aggression: 1.0, least: 0.1 }
    }
}

/// The route's retry policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Attempts after the first.
    pub attempts: u32,
    /// The gRPC status codes on which to retry.
    pub on: Vec<i32>,
    /// First wait before a retry; doubles.
    pub base: Duration,
    /// Longest wait.
    pub max: Duration,
    /// How long one attempt may wait for its answer to begin; `None`: as long as the call.
    pub per_try_timeout: Option<Duration>,
}
