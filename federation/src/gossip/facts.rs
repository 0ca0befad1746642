//! What one other cluster says of itself, put together from values that come in any order, twice, or not at all.
//!
//! Pure: no clock, no I/O. Whatever the order, who has received everything holds the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use portolan_topology::names::ServiceId;

use super::key::Key;
use super::value::{ServiceStamp, Sum, Version, service_of_fact, version};
use crate::proto;
use crate::proto::value::Body;

/// A value that is held.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub(crate) version: Version,
    /// As it was received: fields that only a newer peer knows are kept.
    pub(crate) raw: Bytes,
    /// `None`: removed.
    pub(crate) body: Option<Body>,
}

/// The facts of one cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Facts {
    /// The newest publisher that was heard of.
    publisher: proto::Publisher,
    held: BTreeMap<Key, Held>,
    /// The newest publisher's facts, summed as its inventory sums them.
    sum: Sum,
    /// The newest inventory, and what it says.
    inventory: Option<(Held, Sum)>,
    /// What an inventory agreed with last. Up to here everything is known: whatever is not held does not exist.
    floor: Version,
}

/// A value to take in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Incoming {
    pub(crate) key: Key,
    pub(crate) value: proto::Value,
    pub(crate) raw: Bytes,
}

impl Facts {
    /// Takes a value in, and says whether it changed anything.
    pub(crate) fn apply(&mut self, incoming: Incoming) -> bool {
        if version(&incoming.value) <= self.floor {
            return false;
        }
        let changed = self.take(incoming);
        if changed {
            self.settle();
        }
        changed
    }

    /// Puts what is held right against `all`, the whole state of the newest publisher: for when its inventory goes on
    /// disagreeing. Says whether that changed anything.
    pub(crate) fn reconcile(&mut self, all: Vec<Incoming>) -> bool {
        let before = self.clone();
        let newest = all.iter().map(|incoming| version(&incoming.value)).max().unwrap_or_default();
        for incoming in &all {
            self.observe(incoming.value.publisher.as_ref());
        }
        if newest.epoch == self.publisher.epoch {
            // What that state does not have any more was removed, unless it is newer than the state.
            let known: std::collections::BTreeSet<_> = all.iter().map(|incoming| incoming.key.clone()).collect();
            let gone: Vec<_> = self
                .held
                .iter()
                .filter(|(key, held)| {
                    held.version.epoch == newest.epoch && held.version <= newest && !known.contains(key)
                })
                .map(|(key, _)| key.clone())
                .collect();
            for key in gone {
                self.forget(&key);
            }
        }
        for incoming in all {
            self.take(incoming);
        }
        self.settle();
        *self != before
    }

    /// The newest publisher that was heard of, if any was.
    pub(crate) fn publisher(&self) -> Option<proto::Publisher> {
        (self.publisher != proto::Publisher::default()).then_some(self.publisher)
    }

    /// Whether what is held is what the newest inventory lists.
    pub(crate) fn agrees(&self) -> bool {
        self.inventory
            .as_ref()
            .is_some_and(|(held, sum)| held.version.epoch == self.publisher.epoch && *sum == self.sum)
    }

    /// Whether everything of the newest publisher was known at some point: since then, what is not here does not exist
    /// there or is on its way.
    pub(crate) fn complete(&self) -> bool {
        self.floor.epoch == self.publisher.epoch && self.floor != Version::default()
    }

    /// The newest version that was heard of.
    pub(crate) fn version(&self) -> Version {
        let inventory = self.inventory.as_ref().map(|(held, _)| held.version);
        self.held.values().map(|held| held.version).chain(inventory).max().unwrap_or_default()
    }

    /// What is held and not removed.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&Key, &Body)> {
        self.held.iter().filter_map(|(key, held)| Some((key, held.body.as_ref()?)))
    }

    /// What is held for a key and not removed.
    pub(crate) fn get(&self, key: &Key) -> Option<&Body> {
        self.held.get(key)?.body.as_ref()
    }

    /// What `service`'s facts come to; `None`: it has none.
    pub(crate) fn stamp(&self, service: &ServiceId) -> Option<ServiceStamp> {
        let mut stamp = None;
        let from = Key::Fact(service.clone(), None);
        for (key, held) in self.held.range(from..) {
            if service_of_fact(key) != Some(service) {
                break;
            }
            if let Some(Body::Counts(counts)) = &held.body {
                stamp.get_or_insert_with(ServiceStamp::default).add(held.version, counts.total);
            }
        }
        stamp
    }

    /// Everything as it was received, for the disk. Put back in any order it makes the same facts.
    pub(crate) fn raw(&self) -> impl Iterator<Item = (&Key, &Bytes)> {
        let inventory = self.inventory.iter().map(|(held, _)| (&Key::Inventory, &held.raw));
        self.held.iter().map(|(key, held)| (key, &held.raw)).chain(inventory)
    }

    fn observe(&mut self, publisher: Option<&proto::Publisher>) {
        if let Some(publisher) = publisher
            && publisher.epoch > self.publisher.epoch
        {
            self.publisher = *publisher;
            // Nothing of a new epoch can be held yet.
            self.sum = Sum::default();
        }
    }

    fn take(&mut self, incoming: Incoming) -> bool {
        let Incoming { key, value, raw } = incoming;
        self.observe(value.publisher.as_ref());
        let version = version(&value);
        // Two publishers with one epoch: the second must go higher before it is heard.
        if version.epoch == self.publisher.epoch && value.publisher != Some(self.publisher) {
            return false;
        }
        if key == Key::Inventory {
            let newest = self.inventory.as_ref().map(|(held, _)| held.version);
            let Some(Body::Inventory(inventory)) = &value.body else { return false };
            if Some(version) <= newest {
                return false;
            }
            let sum = Sum::of_inventory(inventory);
            self.inventory = Some((Held { version, raw, body: value.body }, sum));
            return true;
        }
        if self.held.get(&key).is_some_and(|held| held.version >= version) || !fits(&key, value.body.as_ref()) {
            return false;
        }
        self.forget(&key);
        let body = value.body.filter(|body| !matches!(body, Body::Removed(_)));
        if body.is_some() && version.epoch == self.publisher.epoch {
            self.sum.add(&key, version.sequence);
        }
        self.held.insert(key, Held { version, raw, body });
        true
    }

    fn forget(&mut self, key: &Key) {
        if let Some(held) = self.held.remove(key)
            && held.body.is_some()
            && held.version.epoch == self.publisher.epoch
        {
            self.sum.remove(key, held.version.sequence);
        }
    }

    /// Once the newest inventory agrees, what is older than its epoch goes, and removals need no memory: whatever is
    /// not newer is known.
    fn settle(&mut self) {
        if !self.agrees() {
            return;
        }
        let Some((inventory, _)) = &self.inventory else { return };
        self.floor = inventory.version;
        let floor = self.floor;
        self.held.retain(|_, held| held.version.epoch == floor.epoch && (held.body.is_some() || held.version > floor));
    }
}

/// Whether a body is of the kind that its key names.
fn fits(key: &Key, body: Option<&Body>) -> bool {
    matches!(
        (key, body),
        (_, Some(Body::Removed(_)))
            | (Key::Fact(..), Some(Body::Counts(_)))
            | (Key::Ports(_), Some(Body::Ports(_)))
            | (Key::Demand(..), Some(Body::Demand(_)))
            | (Key::About, Some(Body::About(_)))
    )
}

#[cfg(test)]
mod tests;
