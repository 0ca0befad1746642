//! Everything that the catalog joins, as immutable snapshots, and what a new snapshot changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use portolan_federation::model::{Remote, RemoteCluster};
use portolan_topology::names::{ClusterName, ServiceId, ZoneName};
use portolan_topology::policy::PolicySet;
use portolan_topology::service::LocalServices;
use portolan_topology::topology::Topology;

/// First attempts per second of a cluster's clients, by service and source zone.
pub type Demand = BTreeMap<(ServiceId, Option<ZoneName>), f64>;

/// The catalog's inputs at one moment.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// Our own cluster.
    pub cluster: ClusterName,
    /// The topology in force.
    pub topology: Arc<Topology>,
    /// What our own source shows.
    pub local: Arc<LocalServices>,
    /// What the other clusters tell.
    pub remote: Arc<Remote>,
    /// The policy objects; `None` until they are loaded.
    pub policy: Option<Arc<PolicySet>>,
    /// What our own clients ask for.
    pub demand: Arc<Demand>,
    /// What the gateways' names resolve to, by `HOST:PORT`.
    pub gateways: Arc<BTreeMap<String, Vec<SocketAddr>>>,
}

/// Which services a change concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Affected {
    All,
    Services(BTreeSet<ServiceId>),
}

impl Affected {
    pub(super) fn nothing() -> Self {
        Self::Services(BTreeSet::new())
    }

    pub(super) fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Services(services), Self::Services(more)) => services.extend(more),
        }
    }
}

/// The services that `new` shows otherwise than `old`.
pub(super) fn local_changes(old: &LocalServices, new: &LocalServices) -> Affected {
    if old.synced != new.synced {
        return Affected::All;
    }
    Affected::Services(changed_keys(&old.services, &new.services, |a, b| Arc::ptr_eq(a, b) || a == b))
}

/// The services whose demand differs.
pub(super) fn demand_changes(old: &Demand, new: &Demand) -> Affected {
    let keys = changed_keys(old, new, |a, b| a.to_bits() == b.to_bits());
    Affected::Services(keys.into_iter().map(|(service, _)| service).collect())
}

/// The services of which other clusters tell something new. A cluster that comes, goes or is trusted differently
/// concerns everything: it decides what is known to be absent.
pub(super) fn remote_changes(old: &Remote, new: &Remote) -> Affected {
    let mut services = BTreeSet::new();
    for name in changed_keys(&old.clusters, &new.clusters, Arc::ptr_eq) {
        match (old.clusters.get(&name), new.clusters.get(&name)) {
            (Some(old), Some(new)) if old.liveness == new.liveness && old.complete == new.complete => {
                services.extend(cluster_changes(old, new));
            }
            _ => return Affected::All,
        }
    }
    services.extend(changed_keys(&old.lists, &new.lists, Arc::ptr_eq).into_iter().map(|(_, port)| port.service));
    Affected::Services(services)
}

fn cluster_changes(old: &RemoteCluster, new: &RemoteCluster) -> BTreeSet<ServiceId> {
    let mut services = changed_keys(&old.services, &new.services, |a, b| a == b);
    let demand = changed_keys(&old.demand, &new.demand, |a, b| a.to_bits() == b.to_bits());
    services.extend(demand.into_iter().map(|(service, _)| service));
    services
}

/// The keys that stand in one map alone, or whose values differ.
fn changed_keys<K: Ord + Clone, V>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    same: impl Fn(&V, &V) -> bool,
) -> BTreeSet<K> {
    let came_or_changed =
        new.iter().filter(|(key, value)| !old.get(key).is_some_and(|old| same(old, value))).map(|(key, _)| key.clone());
    let gone = old.keys().filter(|key| !new.contains_key(key)).cloned();
    came_or_changed.chain(gone).collect()
}
