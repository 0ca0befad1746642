//! The join: one service port everywhere, as the planner's view, with the endpoints that can be served. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use portolan_federation::model::{Fact, RemoteCluster, RemoteList};
use portolan_topology::names::{ClusterName, Locality, ServicePort, ZoneName};
use portolan_topology::service::{Endpoint, EndpointCounts, EndpointsByZone, Health};
use portolan_topology::topology::Cluster;
use portolan_topology::view::{LocalityFacts, ServiceView};

use super::core::PlanKey;
use super::inputs::Inputs;
use super::resolve::others;
use super::served::NameScope;

/// A service port as a client somewhere may see it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Assembled {
    /// The planner's input.
    pub(super) view: ServiceView,
    /// What can be served, by the locality under which the client sees it; sorted by address, never empty.
    pub(super) endpoints: BTreeMap<Locality, Vec<Endpoint>>,
    /// Localities that facts tell of and whose endpoints are not here yet.
    pub(super) waiting: BTreeSet<Locality>,
}

/// Whether localities whose endpoints are not here yet stand in the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// They are left out: they cannot be served.
    LeftOut,
    /// They stand in it: somebody asks what would be served.
    Counted,
}

/// Joins everything that is known of `key`.
pub(super) fn assemble(inputs: &Inputs, key: &PlanKey, waiting: Waiting) -> Assembled {
    let view = ServiceView {
        service: key.service.clone(),
        localities: BTreeMap::new(),
        demand: demand(inputs, key),
        liveness: others(inputs).map(|cluster| (cluster.name.clone(), cluster.liveness)).collect(),
    };
    let mut join = Join {
        inputs,
        key,
        keep_waiting: waiting == Waiting::Counted,
        made: Assembled { view, endpoints: BTreeMap::new(), waiting: BTreeSet::new() },
    };
    let in_scope = |cluster: &ClusterName| key.scope == NameScope::Federation || *cluster == key.client.cluster;
    if in_scope(&inputs.cluster)
        && let Some(service) = inputs.local.services.get(&key.service)
        && let Some(endpoints) = service.endpoints.get(&key.port)
    {
        // Our own part counts as others are told of it.
        let told = |(zone, endpoints): (_, &Vec<Endpoint>)| {
            let counts = EndpointCounts::of(endpoints);
            (zone, Fact { endpoints: counts, capacity: service.capacity_of(counts), ..Fact::default() })
        };
        let told: BTreeMap<_, _> = endpoints.iter().map(told).collect();
        join.zones(&inputs.cluster, endpoints, |zone| told.get(zone));
    }
    let port = ServicePort { service: key.service.clone(), port: key.port };
    // Facts may be missing of a cluster that has not been heard since a restart: lists on disk still tell of it.
    let told = others(inputs).map(|cluster| &cluster.name);
    let clusters: BTreeSet<&ClusterName> =
        told.chain(inputs.topology.clusters().map(|cluster| &cluster.name)).collect();
    for cluster in clusters.into_iter().filter(|cluster| **cluster != inputs.cluster && in_scope(cluster)) {
        let list = inputs.remote.lists.get(&(cluster.clone(), port.clone()));
        join.remote(cluster, inputs.remote.clusters.get(cluster).map(AsRef::as_ref), list.map(AsRef::as_ref));
    }
    join.finish()
}

fn demand(inputs: &Inputs, key: &PlanKey) -> BTreeMap<Locality, f64> {
    let mut demand = BTreeMap::new();
    let sources = others(inputs).map(|cluster| (&cluster.name, &cluster.demand));
    for (cluster, rates) in sources.chain([(&inputs.cluster, inputs.demand.as_ref())]) {
        let first = (key.service.clone(), None);
        for ((_, zone), rate) in rates.range(first..).take_while(|((service, _), _)| *service == key.service) {
            if let Some(locality) = inputs.topology.locality(cluster, zone.as_ref()) {
                *demand.entry(locality).or_insert(0.0) += rate;
            }
        }
    }
    demand
}

struct Join<'a> {
    inputs: &'a Inputs,
    key: &'a PlanKey,
    keep_waiting: bool,
    made: Assembled,
}

impl Join<'_> {
    /// Adds endpoints that are here. Those of a cluster that the topology does not know have no locality.
    fn zones<'f>(
        &mut self,
        cluster: &ClusterName,
        endpoints: &EndpointsByZone,
        fact: impl Fn(&Option<ZoneName>) -> Option<&'f Fact>,
    ) {
        for (zone, endpoints) in endpoints.iter().filter(|(_, endpoints)| !endpoints.is_empty()) {
            let Some(locality) = self.inputs.topology.locality(cluster, zone.as_ref()) else { continue };
            self.count(&locality, EndpointCounts::of(endpoints), fact(zone));
            self.made.endpoints.entry(locality).or_default().extend(endpoints.iter().cloned());
        }
    }

    /// Adds to what the view knows of a locality. Facts and lists travel apart, and the one that knows of fewer counts:
    /// a fact tells of a failure before the list arrives, and nothing can be served before it is listed. Endpoints that
    /// are listed only as a last resort are not in the facts, and must not make the place look half dead.
    fn count(&mut self, locality: &Locality, listed: EndpointCounts, fact: Option<&Fact>) {
        let counts = match fact.map(|fact| fact.endpoints) {
            Some(told) => {
                let fewer = if told.ready < listed.ready { told } else { listed };
                EndpointCounts { total: told.total.min(listed.total).max(fewer.ready), ..fewer }
            }
            None => listed,
        };
        let facts = self.made.view.localities.entry(locality.clone()).or_default();
        add(&mut facts.endpoints, counts);
        if let Some(fact) = fact {
            merge_fact(facts, fact);
        }
    }

    fn remote(&mut self, name: &ClusterName, told: Option<&RemoteCluster>, list: Option<&RemoteList>) {
        let Some(cluster) = self.inputs.topology.cluster(name) else { return };
        let service = told.and_then(|told| told.services.get(&self.key.service));
        let facts = service.filter(|service| service.ports.iter().any(|port| port.number == self.key.port));
        if self.through_gateways(cluster) {
            if let Some(facts) = facts {
                self.gateways(cluster, facts.zones.values());
            }
            return;
        }
        if let Some(list) = list {
            self.zones(name, &list.endpoints, |zone| facts.and_then(|facts| facts.zones.get(zone)));
        }
        for (zone, fact) in
            facts.into_iter().flat_map(|facts| &facts.zones).filter(|(_, fact)| fact.endpoints.total > 0)
        {
            let Some(locality) = self.inputs.topology.locality(name, zone.as_ref()) else { continue };
            if !self.made.endpoints.contains_key(&locality) {
                if self.keep_waiting {
                    self.count(&locality, fact.endpoints, Some(fact));
                }
                self.made.waiting.insert(locality);
            }
        }
    }

    fn through_gateways(&self, cluster: &Cluster) -> bool {
        let client = self.inputs.topology.cluster(&self.key.client.cluster);
        client.is_some_and(|client| client.network != cluster.network)
    }

    /// Adds a cluster of another network: its zones are planned by their facts, and served as its gateways.
    fn gateways<'f>(&mut self, cluster: &Cluster, zones: impl Iterator<Item = &'f Fact>) {
        let mut counts = EndpointCounts::default();
        let mut facts = LocalityFacts::default();
        for fact in zones.filter(|fact| fact.endpoints.total > 0) {
            add(&mut counts, fact.endpoints);
            merge_fact(&mut facts, fact);
        }
        if counts.total == 0 {
            return;
        }
        let locality = Locality { region: cluster.region.clone(), zone: None, cluster: cluster.name.clone() };
        let resolved = cluster.gateways.iter().filter_map(|gateway| self.inputs.gateways.get(gateway)).flatten();
        let health = if counts.ready > 0 { Health::Ready } else { Health::NotReady };
        let endpoints: Vec<_> = resolved
            .map(|address| Endpoint { address: *address, weight: NonZeroU32::MIN, health, shard: None })
            .collect();
        // Without a gateway in the file the planner says that there is no route; with one that does not resolve yet
        // we wait.
        let cannot_be_served = endpoints.is_empty() && !cluster.gateways.is_empty();
        if !cannot_be_served || self.keep_waiting {
            facts.endpoints = counts;
            self.made.view.localities.insert(locality.clone(), facts);
        }
        if cannot_be_served {
            self.made.waiting.insert(locality);
        } else if !endpoints.is_empty() {
            self.made.endpoints.insert(locality, endpoints);
        }
    }

    fn finish(mut self) -> Assembled {
        for endpoints in self.made.endpoints.values_mut() {
            // Ready sorts before the others, so that of one address twice in a cluster the ready one stays.
            endpoints.sort_by_key(|endpoint| (endpoint.address, endpoint.health));
            endpoints.dedup_by_key(|endpoint| endpoint.address);
        }
        self.made
    }
}

fn add(sum: &mut EndpointCounts, more: EndpointCounts) {
    sum.total = sum.total.saturating_add(more.total);
    sum.ready = sum.ready.saturating_add(more.ready);
    sum.draining = sum.draining.saturating_add(more.draining);
    sum.ready_weight = sum.ready_weight.saturating_add(more.ready_weight);
}

/// Adds a fact's capacity and age. The younger recovery counts: a locality ramps as its last part does.
fn merge_fact(facts: &mut LocalityFacts, fact: &Fact) {
    if let Some(capacity) = fact.capacity {
        facts.capacity = Some(facts.capacity.unwrap_or(0.0) + capacity);
    }
    facts.recovering = match (facts.recovering, fact.recovering) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
}
