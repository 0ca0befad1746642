//! What a drain would leave nothing: services whose every ready endpoint stands in a drained scope. Pure.
//!
//! Such a service's drained endpoints serve on, so the drain would not do what it is for. Clients reach what is on
//! their own network, and other networks through gateways: a service may be left nothing on one network alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use portolan_topology::names::{Locality, NetworkName, ServiceId};
use portolan_topology::policy::{Drain, DrainSpec, LocalityPolicy, PolicyObject, PolicySet};
use portolan_topology::service::Health;
use portolan_topology::topology::Topology;
use portolan_topology::view::Liveness;

use crate::catalog::Inputs;

/// A service that would be left nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stranded {
    pub(super) service: ServiceId,
    /// The clients' networks; empty: all.
    pub(super) networks: Vec<NetworkName>,
}

impl fmt::Display for Stranded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.service)?;
        if self.networks.is_empty() {
            return Ok(());
        }
        let networks: Vec<&str> = self.networks.iter().map(NetworkName::as_str).collect();
        write!(f, " (for clients on network {})", networks.join(", "))
    }
}

/// The services that `drains`, which are in `after`, would leave nothing, though without them they have something.
pub(super) fn stranded(inputs: &Inputs, after: &PolicySet, drains: &[&Drain], now: Timestamp) -> Vec<Stranded> {
    let mut stranded = Vec::new();
    if drains.is_empty() {
        return stranded;
    }
    let networks: BTreeSet<&NetworkName> = inputs.topology.clusters().map(|cluster| &cluster.network).collect();
    let replaced = |old: &Drain| drains.iter().any(|new| new.name == old.name);
    let old: Vec<&DrainSpec> = all_drains(after).filter(|old| !replaced(old)).map(|drain| &drain.spec).collect();
    let new: Vec<&DrainSpec> = drains.iter().map(|drain| &drain.spec).collect();
    for (service, ready) in ready_places(inputs) {
        let locality = after.effective(&service, now).locality;
        let drained = |place: &Locality, by: &[&DrainSpec]| by.iter().any(|drain| takes(drain, &service, place, now));
        let left_nothing = |network: &&NetworkName| {
            let mut before = ready
                .iter()
                .filter(|place| usable(&inputs.topology, network, place, &locality) && !drained(place, &old))
                .peekable();
            before.peek().is_some() && before.all(|place| drained(place, &new))
        };
        let without: Vec<NetworkName> = networks.iter().copied().filter(left_nothing).cloned().collect();
        if !without.is_empty() {
            let networks = if without.len() == networks.len() { Vec::new() } else { without };
            stranded.push(Stranded { service, networks });
        }
    }
    stranded
}

/// The services that a drain names and that nobody tells of.
pub(super) fn unknown_services<'a>(inputs: &Inputs, drain: &'a DrainSpec) -> Vec<&'a ServiceId> {
    let told = |service: &ServiceId| {
        inputs.local.services.contains_key(service)
            || inputs.remote.clusters.values().any(|cluster| cluster.services.contains_key(service))
    };
    drain.services.iter().flatten().filter(|service| !told(service)).collect()
}

/// Where each service that anybody tells of has ready endpoints.
fn ready_places(inputs: &Inputs) -> BTreeMap<ServiceId, BTreeSet<Locality>> {
    let mut places: BTreeMap<ServiceId, BTreeSet<Locality>> = BTreeMap::new();
    let mut add = |service: &ServiceId, place: Option<Locality>| {
        if let Some(place) = place {
            places.entry(service.clone()).or_default().insert(place);
        }
    };
    for service in inputs.local.services.values() {
        for (zone, endpoints) in service.endpoints.values().flatten() {
            if endpoints.iter().any(|endpoint| endpoint.health == Health::Ready) {
                add(&service.id, inputs.topology.locality(&inputs.cluster, zone.as_ref()));
            }
        }
    }
    let others = inputs.remote.clusters.values().filter(|cluster| cluster.name != inputs.cluster);
    for cluster in others.filter(|cluster| cluster.liveness != Liveness::Failed) {
        for (id, service) in &cluster.services {
            for (zone, _) in service.zones.iter().filter(|(_, fact)| fact.endpoints.ready > 0) {
                add(id, inputs.topology.locality(&cluster.name, zone.as_ref()));
            }
        }
    }
    places
}

fn all_drains(set: &PolicySet) -> impl Iterator<Item = &Drain> {
    set.objects.values().filter_map(|stored| match &stored.object {
        PolicyObject::Drain(drain) => Some(drain),
        PolicyObject::TrafficPolicy(_) => None,
    })
}

/// Whether the drain takes the place away from the service altogether, now or later.
fn takes(drain: &DrainSpec, service: &ServiceId, place: &Locality, now: Timestamp) -> bool {
    drain.percent == 100
        && drain.end_time.is_none_or(|end| now < end)
        && drain.services.as_ref().is_none_or(|services| services.contains(service))
        && drain.scope.contains(place)
}

/// Whether clients on `network` may be sent to `place`.
fn usable(topology: &Topology, network: &NetworkName, place: &Locality, policy: &LocalityPolicy) -> bool {
    let Some(cluster) = topology.cluster(&place.cluster) else { return false };
    let allowed = policy.allowed_regions.as_ref().is_none_or(|allowed| allowed.contains(&place.region));
    let weights = policy.cluster_weights.as_ref();
    let weighted = weights
        .is_none_or(|weights| weights.iter().any(|weighted| weighted.cluster == place.cluster && weighted.weight > 0));
    allowed && weighted && (cluster.network == *network || !cluster.gateways.is_empty())
}
