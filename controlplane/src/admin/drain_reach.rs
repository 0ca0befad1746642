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
    /// Whose clients, by network; empty: everybody's who had something.
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
        let locality = after.effective(&service, None, now).locality;
        let drained = |place: &Locality, by: &[&DrainSpec]| by.iter().any(|drain| takes(drain, &service, place, now));
        // Whether clients of each network that have something now keep some of it.
        let keeps = networks.iter().copied().filter_map(|network| {
            let has = |place: &&Locality| usable(&inputs.topology, network, place, &locality) && !drained(place, &old);
            let mut has = ready.iter().filter(has).peekable();
            has.peek()?;
            Some((network, has.any(|place| !drained(place, &new))))
        });
        let (kept, lost): (Vec<_>, Vec<_>) = keeps.partition(|(_, keeps)| *keeps);
        if !lost.is_empty() {
            let some = if kept.is_empty() { Vec::new() } else { lost };
            let networks = some.into_iter().map(|(network, _)| network.clone()).collect();
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

#[cfg(test)]
mod tests {
    use super::super::drain_fixtures::{drain, inputs, set};
    use super::*;

    /// What `new` would leave nothing beside the drains in force, as `SERVICE (…)`.
    #[track_caller]
    fn check(ready: &[&str], in_force: &[Drain], new: Drain, wanted: &[&str]) {
        let all: Vec<Drain> = in_force.iter().cloned().chain([new.clone()]).collect();
        let now = Timestamp::from_second(1_000).unwrap();
        let left = stranded(&inputs(ready, &["usw1-a"]), &set(&all), &[&new], now);
        assert_eq!(left.iter().map(ToString::to_string).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_service_with_somewhere_left_is_fine() {
        check(&["use1-a/a", "use1-a/b"], &[], drain("zone=a"), &[]);
        check(&["use1-a/a", "use1-b/a"], &[], drain("cluster=use1-a"), &[]);
    }

    #[test]
    fn a_service_whose_every_ready_place_is_drained_is_left_nothing() {
        check(&["use1-a/a"], &[], drain("zone=a"), &["checkout.shop"]);
        check(&["use1-a/a", "use1-b/a", "use1-b/b"], &[], drain("region=us-east"), &["checkout.shop"]);
        check(&["use1-a/a", "use1-b/b"], &[drain("zone=b")], drain("zone=a"), &["checkout.shop"]);
    }

    #[test]
    fn a_failed_cluster_is_nowhere_to_go() {
        check(&["use1-a/a", "usw1-a/d"], &[], drain("zone=a"), &["checkout.shop"]);
    }

    #[test]
    fn another_network_without_a_gateway_is_nowhere_to_go_for_the_clients_of_this_one() {
        check(&["use1-a/a", "euw1-a/c"], &[], drain("zone=a"), &["checkout.shop (for clients on network us)"]);
    }

    #[test]
    fn what_does_not_concern_a_service_does_not_count() {
        check(&["use1-a/a"], &[], drain("zone=b"), &[]);
        check(&["use1-a/a"], &[drain("zone=a")], drain("zone=b"), &[]);
        let other = DrainSpec { services: Some(vec!["cart.shop".parse().unwrap()]), ..drain("zone=a").spec };
        check(&["use1-a/a"], &[], Drain { name: "x".to_owned(), spec: other }, &[]);
        let half = DrainSpec { percent: 50, ..drain("zone=a").spec };
        check(&["use1-a/a"], &[], Drain { name: "x".to_owned(), spec: half }, &[]);
        let over = DrainSpec { end_time: Some(Timestamp::from_second(999).unwrap()), ..drain("zone=b").spec };
        let over = Drain { name: "over".to_owned(), spec: over };
        check(&["use1-a/a", "use1-b/b"], &[over], drain("zone=a"), &[]);
    }

    #[test]
    fn a_drain_that_says_more_of_the_same_scope_is_judged_anew() {
        check(&["use1-a/a"], &[drain("zone=a")], drain("zone=a"), &["checkout.shop"]);
    }

    #[test]
    fn services_that_nobody_tells_of_are_named() {
        let services = ["checkout.shop", "chekout.shop"].map(|name| name.parse().unwrap());
        let spec = DrainSpec { services: Some(services.into()), ..drain("zone=a").spec };
        let inputs = inputs(&["use1-a/a"], &[]);
        assert_eq!(unknown_services(&inputs, &spec), [&"chekout.shop".parse().unwrap()]);
    }
}
