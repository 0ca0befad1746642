//! The nodes that follow this one: what each needs, and what they are to be told next.

use std::collections::{BTreeMap, BTreeSet};

use portolan_topology::names::{ClusterName, NodeName, ServicePort};

use crate::gossip::facts::{Facts, Incoming};
use crate::lists::subscribe::ListEvent;
use crate::nodes::frames::{self, Needs};
use crate::nodes::{OfClients, Outbox};
use crate::proto;
use crate::proto::follow_response::Frame;

/// All of them.
#[derive(Default)]
pub(super) struct Followers {
    all: BTreeMap<NodeName, Follower>,
    /// New values of clusters, that have not been told yet.
    news: BTreeMap<ClusterName, Vec<proto::StoredFact>>,
    /// Clusters of which everything is to be told.
    whole: BTreeSet<ClusterName>,
}

struct Follower {
    /// Which of its streams.
    id: u64,
    outbox: Outbox,
    needs: Needs,
}

impl Followers {
    /// A node follows us by a new stream; what it needs is as before until it says otherwise.
    pub(super) fn add(&mut self, node: NodeName, id: u64, outbox: Outbox) {
        let needs = self.all.remove(&node).map(|before| before.needs).unwrap_or_default();
        self.all.insert(node, Follower { id, outbox, needs });
    }

    /// A stream has ended. Says whether it was the node's last one.
    pub(super) fn remove(&mut self, node: &NodeName, id: u64) -> bool {
        let last = self.all.get(node).is_some_and(|follower| follower.id == id);
        if last {
            self.all.remove(node);
        }
        last
    }

    /// What a node needs now; the lists that it did not need before, if the stream is its last one.
    pub(super) fn needs(&mut self, node: &NodeName, id: u64, needs: Needs) -> Option<BTreeSet<ServicePort>> {
        let follower = self.all.get_mut(node).filter(|follower| follower.id == id)?;
        let new = needs.lists.difference(&follower.needs.lists).cloned().collect();
        follower.needs = needs;
        Some(new)
    }

    /// Their names.
    pub(super) fn names(&self) -> Vec<NodeName> {
        self.all.keys().cloned().collect()
    }

    /// The lists that their clients want.
    pub(super) fn lists(&self) -> impl Iterator<Item = &ServicePort> {
        self.all.values().flat_map(|follower| &follower.needs.lists)
    }

    /// The lists that `node`'s clients want.
    pub(super) fn lists_of(&self, node: &NodeName) -> BTreeSet<ServicePort> {
        self.all.get(node).map(|follower| follower.needs.lists.clone()).unwrap_or_default()
    }

    /// Adds their clients to `total`.
    pub(super) fn add_clients(&self, total: &mut OfClients) {
        for OfClients { demand, nacked } in self.all.values().map(|follower| &follower.needs.clients) {
            for (key, rate) in demand {
                *total.demand.entry(key.clone()).or_default() += rate;
            }
            total.nacked = total.nacked.saturating_add(*nacked);
        }
    }

    /// Tells one node. Who does not read is let go of: its next stream begins anew.
    pub(super) fn tell(&mut self, node: &NodeName, batch: Vec<Frame>) {
        if batch.is_empty() {
            return;
        }
        if self.all.get(node).is_some_and(|follower| follower.outbox.try_send(batch).is_err()) {
            self.all.remove(node);
        }
    }

    /// Tells every node.
    pub(super) fn tell_all(&mut self, batch: &[Frame]) {
        if !batch.is_empty() {
            self.all.retain(|_, follower| follower.outbox.try_send(batch.to_vec()).is_ok());
        }
    }

    /// Tells those of a list who want it.
    pub(super) fn tell_list(&mut self, event: &ListEvent, frame: &Frame) {
        self.all.retain(|_, follower| {
            !follower.needs.lists.contains(&event.port) || follower.outbox.try_send(vec![frame.clone()]).is_ok()
        });
    }

    /// A value is new; it is told with the next batch.
    pub(super) fn news(&mut self, cluster: &ClusterName, incoming: &Incoming) {
        if !self.all.is_empty() {
            let stored = frames::stored(&incoming.key, &incoming.raw);
            self.news.entry(cluster.clone()).or_default().push(stored);
        }
    }

    /// Values have gone as well: everything is told with the next batch.
    pub(super) fn all_is_news(&mut self, cluster: &ClusterName) {
        if !self.all.is_empty() {
            self.whole.insert(cluster.clone());
        }
    }

    /// The batch of facts that is due.
    pub(super) fn take_news(&mut self, facts: &BTreeMap<ClusterName, Facts>) -> Vec<Frame> {
        let whole = std::mem::take(&mut self.whole);
        let mut news = std::mem::take(&mut self.news);
        news.retain(|cluster, _| !whole.contains(cluster));
        let whole = whole.iter().filter_map(|cluster| Some(frames::all_facts(cluster, facts.get(cluster)?)));
        whole.chain(news.into_iter().map(|(cluster, news)| frames::new_facts(&cluster, news))).collect()
    }

    /// Forgets what was to be told: another node publishes.
    pub(super) fn forget_news(&mut self) {
        self.news.clear();
        self.whole.clear();
    }
}
