//! What a service's Listener, RouteConfiguration, Cluster and ClusterLoadAssignment come to for a balancer: one immutable
//! snapshot, made whole or not at all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a name comes to, as of now. `ads::XdsClient::watch` hands out a slot that always holds the newest.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolution {
    /// Nothing is known yet: calls wait.
    Pending,
    /// The service, as it was last served whole. It stays while the control plane is away.
    Assignment(Arc<Assignment>),
    /// There is nothing to send calls to, and it is known why: calls fail UNAVAILABLE. A later resource mends it.
    NotFound {
        /// The resource at fault, such as ``Listener `checkout.shop` ``.
        resource: Arc<str>,
        /// What is wrong with it, as a sentence without a full stop.
        reason: Arc<str>,
    },
}

/// Everything that a balancer must know about the cluster that it sends to.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The xDS cluster's name.
    pub cluster: Arc<str>,
    /// Its EDS service name, as load reports name it; empty if it has none.
    pub eds_service: Arc<str>,
    /// Localities by priority, highest first; never an empty priority. No priority at all: the service has no endpoint.
    pub priorities: Vec<Vec<LocalityEndpoints>>,
    /// How many requests may be open at once (`circuit_breakers`); `None`: no limit.
    pub max_requests: Option<u32>,
    /// How a locality that was dead takes its share back.
    pub failback: Failback,
    /// The route's timeout; `None`: the caller's alone.
    pub timeout: Option<Duration>,
    /// The route's retries; `None`: none beyond calls of which no byte reached a living connection.
    pub retry: Option<Retry>,
    /// Whether load is reported to the management server (`lrs_server: self`).
    pub report_load: bool,
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
}
