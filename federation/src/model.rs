//! What a federation hands to the rest of its control plane and takes from it: immutable snapshots, nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portolan_topology::names::{ClusterName, NodeName, ServiceId, ServicePort, ZoneName};
use portolan_topology::service::{EndpointCounts, EndpointsByZone, Export, LocalServices, Port};
use portolan_topology::view::Liveness;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// What this cluster tells the others.
#[derive(Debug, Clone, Default)]
pub struct Local {
    /// Its services, as its source shows them.
    pub services: Arc<LocalServices>,
    /// What is to be said of those of them that its Kubernetes exports.
    pub exports: Arc<BTreeMap<ServiceId, Export>>,
    /// First attempts per second of its clients, by service and source zone, quantised by the one who measures.
    pub demand: BTreeMap<(ServiceId, Option<ZoneName>), f64>,
    /// How many of its clients refuse what they were sent.
    pub nacked: u32,
    /// The content hash of the topology it runs.
    pub topology_hash: u64,
    /// Where it stands in the Raft group, once that is known.
    pub policy: Option<PolicyStanding>,
    /// Whether the cluster says itself that it cannot serve: the others give it no share.
    pub failed: bool,
}

/// What the other clusters tell, as far as it reached us.
#[derive(Debug, Clone, Default)]
pub struct Remote {
    /// Every other cluster of the topology, and each whose facts are still known.
    pub clusters: BTreeMap<ClusterName, Arc<RemoteCluster>>,
    /// The endpoint lists that were asked for and came, or were on disk.
    pub lists: BTreeMap<(ClusterName, ServicePort), Arc<RemoteList>>,
}

/// Another cluster.
#[derive(Debug, Clone)]
pub struct RemoteCluster {
    /// Which.
    pub name: ClusterName,
    /// How much its state is trusted.
    pub liveness: Liveness,
    /// When its heartbeat last advanced; `None`: never since this process started.
    pub heard: Option<Instant>,
    /// Whether its inventory agrees with the facts we hold: then, and only then, what is not here does not exist there.
    pub complete: bool,
    /// Its publisher's epoch and the sequence of its last change.
    pub version: (u64, u64),
    /// The topology it runs.
    pub topology_hash: Option<u64>,
    /// The policy revision it has applied, and whether it leads, votes or learns.
    pub policy: Option<PolicyStanding>,
    /// Its services.
    pub services: BTreeMap<ServiceId, RemoteService>,
    /// Its clients' demand, by service and source zone.
    pub demand: BTreeMap<(ServiceId, Option<ZoneName>), f64>,
    /// How many of its control plane's clients refuse what they were sent; `None`: it does not say.
    pub nacked: Option<u32>,
}

/// Where a cluster stands in the Raft group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyStanding {
    /// The last applied revision.
    pub revision: u64,
    /// Its role.
    pub role: Role,
}

/// A Raft role, as `status` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Leads.
    Leader,
    /// Votes.
    Voter,
    /// Follows without a vote.
    Learner,
}

/// A service of another cluster, from its gossiped facts.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteService {
    /// Its ports.
    pub ports: Vec<Port>,
    /// Facts by zone.
    pub zones: BTreeMap<Option<ZoneName>, Fact>,
    /// What its cluster's Kubernetes says of it, if it exports it.
    pub export: Option<Export>,
}

/// The gossiped fact of one service in one zone of one cluster.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fact {
    /// Endpoints by health.
    pub endpoints: EndpointCounts,
    /// Requests per second that the ready ones can serve, if the source says.
    pub capacity: Option<f64>,
    /// For how long it had been back when the fact was made, if it is recovering.
    pub recovering: Option<Duration>,
}

/// An endpoint list of another cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteList {
    /// Whether its publisher's source was synced when it was made.
    pub synced: bool,
    /// The publisher's epoch and sequence when it was made.
    pub version: (u64, u64),
    /// The endpoints by zone.
    pub endpoints: EndpointsByZone,
}

/// A node of our own cluster, as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeShown {
    /// Its name.
    pub name: NodeName,
    /// Where its peer port is; empty: this is the only node.
    pub address: String,
    /// Whether it is this one.
    pub own: bool,
    /// Whether it answers us.
    pub reachable: bool,
    /// Whether it says that it publishes for the cluster.
    pub publisher: bool,
    /// Whether the cluster's seat in the policy group is on it.
    pub seat: bool,
}
