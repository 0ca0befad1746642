//! What is known of one service everywhere: the planner's input, assembled by the catalog from the cluster's own source
//! and the facts that other clusters gossip.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::{ClusterName, Locality, ServiceId};
use crate::service::EndpointCounts;

/// How much a remote cluster's state is trusted. A silent control plane is not a dead cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Liveness {
    /// Its heartbeat advances (our own cluster always is).
    #[default]
    Fresh,
    /// Nothing for a few rounds: used as it is, probes begin.
    Suspect,
    /// Nothing for `staleAfter` and no evidence of death: used as it is, takes no more share than it had.
    Stale,
    /// Known dead first-hand: no share.
    Failed,
    /// It is probably we who are cut off: used as it is, nothing expires.
    Isolated,
}

/// What is known of one service in one locality.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LocalityFacts {
    /// Endpoints there, by health.
    pub endpoints: EndpointCounts,
    /// Requests per second that the ready endpoints can serve, where the source says so; the policy's figure for one
    /// endpoint, times the ready weight, stands in for it.
    pub capacity: Option<f64>,
    /// Of the ready endpoints' weight, what they do not bear yet because they are warming up.
    pub cold_weight: f64,
    /// For how long the place has been back after it was lost, while it still ramps.
    pub recovering: Option<Duration>,
}

/// One service, everywhere.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceView {
    /// Which service.
    pub service: ServiceId,
    /// What each locality has. A locality without a listed endpoint is left out.
    pub localities: BTreeMap<Locality, LocalityFacts>,
    /// First attempts per second by source locality; a source that is not in it has an unknown demand.
    pub demand: BTreeMap<Locality, f64>,
    /// The state of each cluster; one that is not in it is fresh.
    pub liveness: BTreeMap<ClusterName, Liveness>,
}

impl ServiceView {
    /// The state of `cluster`.
    #[must_use]
    pub fn liveness_of(&self, cluster: &ClusterName) -> Liveness {
        self.liveness.get(cluster).copied().unwrap_or_default()
    }
}
