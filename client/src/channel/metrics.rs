//! What a channel has done and how its endpoints stand, to be exported as whatever a program exports. A look costs the
//! channel's calls nothing: all of it is counted anyway or where an attempt begins.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::reason::Cause;
use crate::balancer::{EndpointState, LocalityShare, Status};
use crate::connection::Slot;
use crate::routing::Cluster;
use crate::xds::model::LocalityName;

/// A channel at one moment. Counts begin with the channel, or when an endpoint came, and only rise.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// The service.
    pub service: Arc<str>,
    /// Its clusters, by name; none before the control plane has answered.
    pub clusters: Vec<ClusterMetrics>,
}

/// One cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterMetrics {
    /// Its name.
    pub cluster: Arc<str>,
    /// What each locality takes, and why.
    pub localities: Vec<LocalityShare>,
    /// Each of its endpoints.
    pub endpoints: Vec<EndpointMetrics>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointMetrics {
    /// Its address.
    pub address: SocketAddr,
    /// Its locality.
    pub locality: LocalityName,
    /// The priority of that locality, 0 the highest.
    pub priority: u32,
    /// It is connected, and not ejected.
    pub ready: bool,
    /// It is left out for what became of its calls.
    pub ejected: bool,
    /// Connections that take calls.
    pub connections: usize,
    /// Attempts in flight.
    pub in_flight: u32,
    /// To the first byte of an answer, a moving mean of the last seconds; `None`: none of late.
    pub latency: Option<Duration>,
    /// How many times slower than its good peers it has been lately: 1 or more.
    pub slowness: f32,
    /// Attempts that were sent to it: its picks.
    pub picks: u64,
    /// Attempts that it answered, also with a status that is the caller's fault.
    pub succeeded: u64,
    /// Attempts that failed by its fault.
    pub failed: u64,
    /// Of its picks, those that repeated a call which had failed elsewhere.
    pub retries: u64,
    /// Of its picks, those beside an attempt that was slow elsewhere.
    pub hedges: u64,
}

/// What the channel counts at an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    picks: AtomicU64,
    retries: AtomicU64,
    hedges: AtomicU64,
}

impl Tally {
    pub(super) fn count(&self, cause: Cause) {
        self.picks.fetch_add(1, Relaxed);
        match cause {
            Cause::First => {}
            Cause::Retry | Cause::Untouched => _ = self.retries.fetch_add(1, Relaxed),
            Cause::Hedge => _ = self.hedges.fetch_add(1, Relaxed),
        }
    }
}

impl ClusterMetrics {
    pub(super) fn of(cluster: &Cluster<Slot>, now: Instant) -> Self {
        let localities = cluster.balancer.explain(now);
        let endpoints = cluster.balancer.endpoints().into_iter().map(EndpointMetrics::of).collect();
        Self { cluster: Arc::clone(&cluster.name), localities, endpoints }
    }
}

impl EndpointMetrics {
    fn of(state: EndpointState<Slot>) -> Self {
        let EndpointState { endpoint, status, ejected, latency } = state;
        let (place, slot) = (endpoint.place(), endpoint.transport());
        let (succeeded, failed) = endpoint.outcomes();
        Self {
            address: endpoint.address(),
            locality: place.locality.clone(),
            priority: place.priority,
            ready: status == Status::Ready && !ejected,
            ejected,
            connections: slot.connections(),
            in_flight: endpoint.in_flight(),
            latency,
            slowness: endpoint.slowness(),
            picks: slot.tally.picks.load(Relaxed),
            succeeded,
            failed,
            retries: slot.tally.retries.load(Relaxed),
            hedges: slot.tally.hedges.load(Relaxed),
        }
    }
}
