//! From gossiped facts to what the rest of the control plane sees of a cluster. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use portolan_topology::names::ClusterName;
use portolan_topology::service::{EndpointCounts, Export, ExportedPort, Port};
use portolan_topology::view::Liveness;
use tokio::time::Instant;

use crate::gossip::facts::Facts;
use crate::gossip::key::Key;
use crate::model::{Fact, PolicyStanding, RemoteCluster, RemoteService, Role};
use crate::proto;
use crate::proto::value::Body;

/// A cluster as its facts, its liveness and its last heartbeat make it.
pub(crate) fn cluster(name: &ClusterName, facts: &Facts, liveness: Liveness, heard: Option<Instant>) -> RemoteCluster {
    let version = facts.version();
    let mut cluster = RemoteCluster {
        name: name.clone(),
        liveness,
        heard,
        complete: facts.complete(),
        version: (version.epoch, version.sequence),
        topology_hash: None,
        policy: None,
        services: BTreeMap::new(),
        demand: BTreeMap::new(),
        nacked: None,
    };
    let none = || RemoteService { ports: Vec::new(), zones: BTreeMap::new(), export: None };
    for (key, body) in facts.live() {
        match (key, body) {
            (Key::Fact(service, zone), Body::Counts(counts)) => {
                let service = cluster.services.entry(service.clone()).or_insert_with(none);
                service.zones.insert(zone.clone(), fact(counts));
            }
            (Key::Ports(service), Body::Ports(ports)) => {
                let service = cluster.services.entry(service.clone()).or_insert_with(none);
                service.ports = self::ports(ports);
                service.export = ports.export.as_ref().map(export);
            }
            (Key::Demand(service, zone), Body::Demand(demand)) if demand.requests_per_second.is_finite() => {
                cluster.demand.insert((service.clone(), zone.clone()), demand.requests_per_second.max(0.0));
            }
            (Key::About, Body::About(about)) => {
                cluster.topology_hash = Some(about.topology_hash);
                cluster.policy = about.policy.as_ref().and_then(policy);
                cluster.nacked = about.nacked;
            }
            _ => {}
        }
    }
    // Facts without ports are the half of a service whose other half is on its way.
    cluster.services.retain(|_, service| !service.ports.is_empty());
    cluster
}

/// Whether the cluster says itself that it cannot serve.
pub(crate) fn says_failed(facts: &Facts) -> bool {
    facts.live().any(|(_, body)| matches!(body, Body::About(about) if about.failed))
}

fn fact(counts: &proto::Counts) -> Fact {
    let proto::Counts { total, ready, draining, ready_weight, capacity, recovering_millis } = *counts;
    // What cannot be is cut to what can: no more ready or draining than there are.
    let ready = ready.min(total);
    Fact {
        endpoints: EndpointCounts { total, ready, draining: draining.min(total - ready), ready_weight },
        capacity: capacity.filter(|capacity| capacity.is_finite() && *capacity >= 0.0),
        recovering: recovering_millis.map(Duration::from_millis),
    }
}

fn ports(ports: &proto::Ports) -> Vec<Port> {
    let port = |port: &proto::Port| Some(Port { number: u16::try_from(port.number).ok()?, name: port.name.clone() });
    ports.ports.iter().filter_map(port).collect()
}

fn export(export: &proto::Export) -> Export {
    let port = |port: &proto::ExportedPort| {
        let number = u16::try_from(port.number).ok()?;
        let (name, protocol, app_protocol) = (port.name.clone(), port.protocol.clone(), port.app_protocol.clone());
        Some(ExportedPort { number, name, protocol, app_protocol })
    };
    Export {
        since: export.since_seconds,
        headless: export.headless,
        affinity: export.affinity_seconds,
        ports: export.ports.iter().filter_map(port).collect(),
    }
}

fn policy(policy: &proto::Policy) -> Option<PolicyStanding> {
    let role = match policy.role() {
        proto::Role::Leader => Role::Leader,
        proto::Role::Voter => Role::Voter,
        proto::Role::Learner => Role::Learner,
        // Of a newer peer.
        proto::Role::Unspecified => return None,
    };
    Some(PolicyStanding { revision: policy.revision, role })
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::gossip::facts::Incoming;
    use crate::gossip::publish::Publisher;
    use crate::model::Local;

    /// What the others see of a cluster whose `about` passed through `on_the_way`.
    fn seen(local: &Local, on_the_way: impl Fn(&mut proto::About)) -> RemoteCluster {
        let mut facts = Facts::default();
        for said in Publisher::new(proto::Publisher { epoch: 1, incarnation: 1 }).update(local) {
            let mut value = said.value;
            if let Some(Body::About(about)) = &mut value.body {
                on_the_way(about);
            }
            let raw = value.encode_to_vec();
            let value = proto::Value::decode(raw.as_slice()).unwrap();
            facts.apply(Incoming { key: said.key, value, raw: raw.into() });
        }
        cluster(&"a".parse().unwrap(), &facts, Liveness::Fresh, None)
    }

    #[test]
    fn what_a_cluster_says_of_itself_arrives() {
        let policy = PolicyStanding { revision: 42, role: Role::Voter };
        let local = Local { topology_hash: 7, policy: Some(policy), nacked: 3, ..Local::default() };
        let seen = seen(&local, |_| {});
        assert_eq!((seen.topology_hash, seen.policy, seen.nacked), (Some(7), Some(policy), Some(3)));
    }

    #[test]
    fn of_an_older_peer_it_is_not_known_how_many_clients_refuse() {
        let local = Local { topology_hash: 7, nacked: 3, ..Local::default() };
        let seen = seen(&local, |about| about.nacked = None);
        assert_eq!((seen.topology_hash, seen.nacked), (Some(7), None));
    }
}
