//! What the hub knows, to the disk: facts, lists and the epoch. At most one write at a time: a slow disk holds up nobody.

use std::collections::BTreeSet;
use std::io;

use portolan_topology::names::ClusterName;

use super::Hub;
use crate::lists::keep::ListKey;
use crate::store::Records;

/// What was written, and how that went.
pub(super) struct Saved {
    facts: BTreeSet<ClusterName>,
    lists: BTreeSet<ListKey>,
    outcome: io::Result<()>,
}

impl Hub {
    pub(super) fn save(&mut self) {
        if !self.saving.is_empty() {
            return;
        }
        let unsaved = std::mem::take(&mut self.unsaved);
        let mut records: Vec<_> = unsaved
            .iter()
            .filter_map(|cluster| Some(Records::facts_record(cluster, self.facts.get(cluster)?)))
            .collect();
        let topology = self.shared.topology.borrow().clone();
        let (lists, list_records) = self.lists.unsaved(|cluster| Some(topology.cluster(cluster)?.region.clone()));
        records.extend(list_records);
        // A publisher's own epoch is on disk before it says anything.
        if std::mem::take(&mut self.epoch_unsaved) && self.publisher.is_none() {
            records.push(Records::epoch_record(self.tenure.newest().epoch));
        }
        if records.is_empty() {
            return;
        }
        let store = self.records.clone();
        self.saving.spawn(async move { Saved { outcome: store.write(records).await, facts: unsaved, lists } });
    }

    pub(super) fn saved(&mut self, saved: Saved) {
        if let Err(error) = saved.outcome {
            tracing::warn!(%error, "what is known of other clusters cannot be written; it is served from memory");
            self.unsaved.extend(saved.facts);
            self.lists.save_again(saved.lists);
        }
    }
}
