//! The lists that are held: what is wanted, what came, what is on disk, and what the rest of the control plane sees.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::Resource;
use portolan_topology::names::{ClusterName, RegionName, ServicePort};
use portolan_topology::service::Health;
use prost::Message;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tokio::time::Instant;

use super::held::{Gossiped, HeldList};
use super::resource::{self, List, Place};
use super::subscribe::{ListEvent, Subscriptions};
use crate::federation::StartError;
use crate::gossip::facts::Facts;
use crate::gossip::key::Key;
use crate::model::RemoteList;
use crate::proto;
use crate::proto::value::Body;
use crate::store::{Record, Records};

const FORMAT: u32 = 1;
const RECORDS: &str = "lists/";
/// A list that nobody wants is kept for this long: after a restart its clients come back one by one.
const UNWANTED: Duration = Duration::from_secs(600);

/// A list's cluster and service port.
pub(crate) type ListKey = (ClusterName, ServicePort);

/// All lists of other clusters.
pub(crate) struct Lists {
    held: BTreeMap<ListKey, Entry>,
    wanted: BTreeSet<ServicePort>,
    subscriptions: Subscriptions,
    /// Whether the other clusters are asked: they are by the node that publishes.
    asks: bool,
    snapshot: BTreeMap<ListKey, Arc<RemoteList>>,
    unsaved: BTreeSet<ListKey>,
    changed: bool,
}

struct Entry {
    list: HeldList,
    /// The version of the publisher's resource that was taken last.
    version: String,
    /// Since when nobody wants it.
    unwanted: Option<Instant>,
}

impl Lists {
    /// Reads the records. What was held is seen at once.
    pub(crate) fn load(records: &Records, subscriptions: Subscriptions, now: Instant) -> Result<Self, StartError> {
        let mut lists = Self {
            held: BTreeMap::new(),
            wanted: BTreeSet::new(),
            subscriptions,
            asks: false,
            snapshot: BTreeMap::new(),
            unsaved: BTreeSet::new(),
            changed: true,
        };
        for (record, bytes) in records.all(RECORDS)? {
            let cluster = record.strip_prefix(RECORDS).and_then(|rest| ClusterName::new(rest.split_once('/')?.0).ok());
            match (cluster, read(&bytes)) {
                (Some(cluster), Ok((port, list, version))) => {
                    let entry = Entry { list: HeldList::stored(list), version, unwanted: Some(now) };
                    lists.put(&(cluster, port), entry);
                }
                (None, _) => {}
                (_, Err(error)) => tracing::warn!(record, error, "a record is left alone"),
            }
        }
        lists.unsaved.clear();
        Ok(lists)
    }

    /// Wants these and no others.
    pub(crate) fn want(&mut self, wanted: BTreeSet<ServicePort>, now: Instant) {
        for ((_, port), entry) in &mut self.held {
            entry.unwanted = if wanted.contains(port) { None } else { entry.unwanted.or(Some(now)) };
        }
        self.wanted = wanted;
    }

    /// From now on the other clusters are asked, or not.
    pub(crate) fn ask(&mut self, asks: bool) {
        self.asks = asks;
    }

    /// What was said of these lists last, everywhere.
    pub(crate) fn said(&self, lists: &BTreeSet<ServicePort>) -> Vec<ListEvent> {
        let said = |((cluster, port), entry): (&ListKey, &Entry)| {
            let list = entry.list.said().map(|list| (list.clone(), entry.version.clone()));
            ListEvent { cluster: cluster.clone(), port: port.clone(), list }
        };
        self.held.iter().filter(|((_, port), _)| lists.contains(port)).map(said).collect()
    }

    /// Asks `cluster` for what is wanted and stands in its facts. A list that is held is asked for too: its end must be
    /// heard of.
    pub(crate) fn subscribe(&mut self, cluster: &ClusterName, facts: Option<&Facts>) {
        let has = |port: &&ServicePort| {
            facts.is_some_and(|facts| has_port(facts, port))
                || self.held.contains_key(&(cluster.clone(), (*port).clone()))
        };
        let names = self.wanted.iter().filter(|_| self.asks).filter(has).map(ToString::to_string).collect();
        let held = &self.held;
        self.subscriptions.want(cluster, names, || {
            let of_cluster = held.iter().filter(|((of, _), entry)| of == cluster && !entry.version.is_empty());
            of_cluster.map(|((_, port), entry)| (port.to_string(), entry.version.clone())).collect()
        });
    }

    /// Forgets the clusters of which `known` is false. Their records stay: a topology may be put right.
    pub(crate) fn retain(&mut self, known: impl Fn(&ClusterName) -> bool) {
        self.held.retain(|(cluster, _), _| known(cluster));
        self.snapshot.retain(|(cluster, _), _| known(cluster));
        self.subscriptions.retain(known);
        self.changed = true;
    }

    /// A cluster said something of a list.
    pub(crate) fn receive(&mut self, event: ListEvent, facts: Option<&Facts>, now: Instant) {
        let ListEvent { cluster, port, list } = event;
        let wanted = self.wanted.contains(&port);
        let gossiped = gossiped(facts, &port);
        let key = (cluster, port);
        let mut entry = self.held.remove(&key).unwrap_or_else(|| Entry {
            list: HeldList::new(),
            version: String::new(),
            unwanted: (!wanted).then_some(now),
        });
        match list {
            Some((list, version)) => {
                entry.list.receive(list);
                entry.version = version;
            }
            None => {
                entry.list.absent();
                entry.version.clear();
            }
        }
        entry.list.judge(gossiped, now);
        self.put(&key, entry);
    }

    /// The facts of `cluster` changed: what was not believed may be now.
    pub(crate) fn facts_changed(&mut self, cluster: &ClusterName, facts: Option<&Facts>, now: Instant) {
        let keys: Vec<_> = self.held.keys().filter(|(of, _)| of == cluster).cloned().collect();
        for key in keys {
            self.judge(&key, facts, now);
        }
    }

    /// What only the time changes: last resorts that end, and lists that nobody wanted for long.
    pub(crate) fn tick(&mut self, clusters: &BTreeMap<ClusterName, Facts>, now: Instant) {
        let due = self.held.iter().filter(|(_, entry)| entry.list.next().is_some_and(|at| at <= now));
        for key in due.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.judge(&key, clusters.get(&key.0), now);
        }
        let old = |entry: &Entry| entry.unwanted.is_some_and(|since| now.duration_since(since) >= UNWANTED);
        for key in self.held.iter().filter(|(_, entry)| old(entry)).map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.held.remove(&key);
            self.snapshot.remove(&key);
            self.unsaved.insert(key);
            self.changed = true;
        }
    }

    /// Whether the snapshot changed since it was handed out last.
    pub(crate) fn has_changed(&self) -> bool {
        self.changed
    }

    /// What the rest of the control plane sees, to be handed out.
    pub(crate) fn hand_out(&mut self) -> BTreeMap<ListKey, Arc<RemoteList>> {
        self.changed = false;
        self.snapshot.clone()
    }

    /// The records that are out of date, as they are to be written. `region` is where a cluster is.
    pub(crate) fn unsaved(
        &mut self,
        region: impl Fn(&ClusterName) -> Option<RegionName>,
    ) -> (BTreeSet<ListKey>, Vec<Record>) {
        let unsaved = std::mem::take(&mut self.unsaved);
        let record = |(cluster, port): &ListKey| format!("{RECORDS}{cluster}/{}-{}", port.service, port.port);
        let bytes = |key: &ListKey| {
            let entry = self.held.get(key)?;
            let place = Place { region: region(&key.0), cluster: key.0.clone() };
            let mut resource = resource::encode(&key.1, entry.list.list(), &place);
            // Only what is exactly as said need not be said again.
            resource.version = if entry.list.is_as_said() { entry.version.clone() } else { String::new() };
            Some(proto::StoredList { format: FORMAT, resource: resource.encode_to_vec().into() }.encode_to_vec())
        };
        let records = unsaved.iter().map(|key| (record(key), bytes(key))).collect();
        (unsaved, records)
    }

    /// Their records could not be written.
    pub(crate) fn save_again(&mut self, lists: BTreeSet<ListKey>) {
        self.unsaved.extend(lists);
    }

    /// Up to `count` of a cluster's endpoints, at random; ready ones if there are any.
    pub(crate) fn sample(&self, cluster: &ClusterName, count: usize, rng: &mut StdRng) -> Vec<SocketAddr> {
        let lists = self.held.iter().filter(|((of, _), _)| of == cluster).map(|(_, entry)| entry.list.list());
        let all: Vec<_> = lists.flat_map(|list| list.endpoints.values().flatten()).collect();
        let ready = all.iter().filter(|endpoint| endpoint.health == Health::Ready);
        let mut ready: BTreeSet<_> = ready.map(|endpoint| endpoint.address).collect();
        if ready.is_empty() {
            ready = all.iter().map(|endpoint| endpoint.address).collect();
        }
        let addresses: Vec<_> = ready.into_iter().collect();
        addresses.sample(rng, count).copied().collect()
    }

    fn judge(&mut self, key: &ListKey, facts: Option<&Facts>, now: Instant) {
        if let Some(mut entry) = self.held.remove(key) {
            if entry.list.judge(gossiped(facts, &key.1), now) {
                self.put(key, entry);
            } else {
                self.held.insert(key.clone(), entry);
            }
        }
    }

    fn put(&mut self, key: &ListKey, entry: Entry) {
        self.changed = true;
        self.unsaved.insert(key.clone());
        if entry.list.is_gone() {
            self.snapshot.remove(key);
        } else {
            self.snapshot.insert(key.clone(), Arc::new(entry.list.snapshot()));
            self.held.insert(key.clone(), entry);
        }
    }
}

fn gossiped(facts: Option<&Facts>, port: &ServicePort) -> Gossiped {
    Gossiped { stamp: facts.and_then(|facts| facts.stamp(&port.service)), complete: facts.is_some_and(Facts::complete) }
}

fn has_port(facts: &Facts, port: &ServicePort) -> bool {
    let Some(Body::Ports(ports)) = facts.get(&Key::Ports(port.service.clone())) else { return false };
    ports.ports.iter().any(|there| there.number == u32::from(port.port))
}

fn read(bytes: &[u8]) -> Result<(ServicePort, List, String), String> {
    let stored = proto::StoredList::decode(bytes).map_err(|error| error.to_string())?;
    if stored.format != FORMAT {
        return Err(format!("it has format {}; this version reads {FORMAT}", stored.format));
    }
    let resource = Resource::decode(stored.resource).map_err(|error| error.to_string())?;
    let (port, list) = resource::decode(&resource).map_err(|error| error.to_string())?;
    Ok((port, list, resource.version))
}
