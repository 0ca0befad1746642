//! What this cluster says of itself: local state in, numbered values out. Pure.
//!
//! Nothing is said of services before the source has been read completely: an inventory of a half-read source would
//! make the others forget the rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use portolan_topology::names::ServiceId;
use portolan_topology::service::{EndpointCounts, Export, ExportedPort, LocalServices};

use super::key::Key;
use super::value::{FORMAT, ServiceStamp, Sum, Version};
use crate::model::{Local, PolicyStanding, Role};
use crate::proto;
use crate::proto::value::Body;

/// A value to set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outgoing {
    pub(crate) key: Key,
    pub(crate) value: proto::Value,
}

/// The newest state as published: what endpoint lists are made from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Published {
    pub(crate) services: Arc<LocalServices>,
    /// What the facts of each service come to.
    stamps: BTreeMap<ServiceId, ServiceStamp>,
    /// The epoch in which it was said.
    epoch: u64,
}

impl Published {
    /// What the facts of `service` come to. Without any, the epoch alone tells how new that is.
    pub(crate) fn stamp(&self, service: &ServiceId) -> ServiceStamp {
        let none = || ServiceStamp { version: Version { epoch: self.epoch, sequence: 0 }, count: 0 };
        self.stamps.get(service).copied().unwrap_or_else(none)
    }
}

/// The publisher of one epoch.
#[derive(Debug)]
pub(crate) struct Publisher {
    publisher: proto::Publisher,
    sequence: u64,
    said: BTreeMap<Key, (u64, Body)>,
    sum: Sum,
}

impl Publisher {
    /// One that has said nothing yet.
    pub(crate) fn new(publisher: proto::Publisher) -> Self {
        Self { publisher, sequence: 0, said: BTreeMap::new(), sum: Sum::default() }
    }

    /// The epoch and incarnation that it speaks with.
    pub(crate) fn publisher(&self) -> proto::Publisher {
        self.publisher
    }

    /// Brings what was said up to `local`: the values to set, the inventory last. Nothing changed, nothing to set.
    pub(crate) fn update(&mut self, local: &Local) -> Vec<Outgoing> {
        let mut now = BTreeMap::from([(Key::About, about(local))]);
        if local.services.synced {
            facts(local, &mut now);
            for ((service, zone), rate) in &local.demand {
                let demand = proto::Demand { requests_per_second: *rate };
                now.insert(Key::Demand(service.clone(), zone.clone()), Body::Demand(demand));
            }
        } else {
            // Not read completely: what was said of services stands.
            let stands = self.said.iter().filter(|(key, _)| **key != Key::About);
            now.extend(stands.map(|(key, (_, body))| (key.clone(), body.clone())));
        }
        let mut outgoing = Vec::new();
        let gone: Vec<_> = self.said.keys().filter(|key| !now.contains_key(key)).cloned().collect();
        for key in gone {
            self.unsay(&key);
            let value = self.value(Body::Removed(proto::Removed {}));
            outgoing.push(Outgoing { key, value });
        }
        for (key, body) in now {
            if self.said.get(&key).is_some_and(|(_, said)| *said == body) {
                continue;
            }
            self.unsay(&key);
            let value = self.value(body.clone());
            self.sum.add(&key, self.sequence);
            self.said.insert(key.clone(), (self.sequence, body));
            outgoing.push(Outgoing { key, value });
        }
        if local.services.synced && !outgoing.is_empty() {
            let value = self.value(self.sum.to_inventory());
            outgoing.push(Outgoing { key: Key::Inventory, value });
        }
        outgoing
    }

    /// What was said of each service's endpoints.
    pub(crate) fn published(&self, local: &Local) -> Published {
        let mut stamps: BTreeMap<ServiceId, ServiceStamp> = BTreeMap::new();
        for (key, (sequence, body)) in &self.said {
            if let (Key::Fact(service, _), Body::Counts(counts)) = (key, body) {
                let version = Version { epoch: self.publisher.epoch, sequence: *sequence };
                stamps.entry(service.clone()).or_default().add(version, counts.total);
            }
        }
        Published { services: local.services.clone(), stamps, epoch: self.publisher.epoch }
    }

    fn unsay(&mut self, key: &Key) {
        if let Some((sequence, _)) = self.said.remove(key) {
            self.sum.remove(key, sequence);
        }
    }

    fn value(&mut self, body: Body) -> proto::Value {
        self.sequence += 1;
        proto::Value {
            format: FORMAT,
            publisher: Some(self.publisher),
            sequence: self.sequence,
            body: Some(body),
            signature: bytes::Bytes::new(),
        }
    }
}

fn about(local: &Local) -> Body {
    let role = |role| match role {
        Role::Leader => proto::Role::Leader,
        Role::Voter => proto::Role::Voter,
        Role::Learner => proto::Role::Learner,
    };
    let policy =
        local.policy.map(|PolicyStanding { revision, role: is }| proto::Policy { revision, role: role(is).into() });
    Body::About(proto::About {
        topology_hash: local.topology_hash,
        policy,
        failed: local.failed,
        nacked: Some(local.nacked),
    })
}

fn export(export: &Export) -> proto::Export {
    let port = |port: &ExportedPort| proto::ExportedPort {
        number: port.number.into(),
        name: port.name.clone(),
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    };
    proto::Export {
        since_seconds: export.since,
        headless: export.headless,
        affinity_seconds: export.affinity,
        ports: export.ports.iter().map(port).collect(),
    }
}

/// A service's facts count its first port's endpoints: the pods behind its other ports are the same.
fn facts(local: &Local, now: &mut BTreeMap<Key, Body>) {
    for (id, service) in &local.services.services {
        let ports = service.ports.iter();
        let ports = ports.map(|port| proto::Port { number: port.number.into(), name: port.name.clone() }).collect();
        now.insert(
            Key::Ports(id.clone()),
            Body::Ports(proto::Ports { ports, export: local.exports.get(id).map(export) }),
        );
        let first = service.ports.first().and_then(|port| service.endpoints.get(&port.number));
        for (zone, endpoints) in first.into_iter().flatten() {
            let counts = EndpointCounts::of(endpoints);
            let capacity = service.capacity_of(counts);
            let EndpointCounts { total, ready, draining, ready_weight } = counts;
            let counts = proto::Counts { total, ready, draining, ready_weight, capacity, recovering_millis: None };
            now.insert(Key::Fact(id.clone(), zone.clone()), Body::Counts(counts));
        }
    }
}
