//! The hub among the nodes of its cluster: whether it publishes, what it tells those that follow it, and what it takes from
//! the one that it follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use portolan_topology::names::{ClusterName, NodeName, ServicePort};
use portolan_topology::view::Liveness;
use rand::RngExt;
use tokio::time::Instant;

use super::{Hub, RAISE_EVERY};
use crate::gossip::publish::Publisher;
use crate::lists::subscribe::ListEvent;
use crate::nodes::frames::{self, FactsOf, Needs, StateOf};
use crate::nodes::{Election, NodeEvent, OfClients, Told, place_of};
use crate::proto;
use crate::proto::follow_response::Frame;

/// What a publisher said of the other clusters stands for this long once it is silent: longer than another node takes to
/// follow it.
const STANDS: Duration = Duration::from_secs(20);

/// What the publisher that is followed said last.
#[derive(Default)]
pub(super) struct Followed {
    states: BTreeMap<ClusterName, Liveness>,
    at: Option<Instant>,
    /// What the clients of the whole cluster come to.
    clients: Option<OfClients>,
}

impl Followed {
    /// What it said of the other clusters, while that stands.
    pub(super) fn states(&self, now: Instant) -> Option<&BTreeMap<ClusterName, Liveness>> {
        self.at.filter(|at| now.duration_since(*at) < STANDS).map(|_| &self.states)
    }
}

impl Hub {
    pub(super) fn elected(&mut self, election: Election) {
        self.tenure.elected(election, Instant::now(), self.rng.random());
        self.turn();
    }

    /// Somebody knows of this publisher of our cluster.
    pub(super) fn remembered(&mut self, publisher: proto::Publisher) {
        let before = self.tenure.newest();
        self.tenure.heard(publisher, Instant::now(), self.rng.random());
        if self.tenure.newest() != before {
            tracing::info!(epoch = publisher.epoch, "a newer publisher of our own cluster is known");
            self.epoch_unsaved = true;
            self.turn();
        }
    }

    /// Gossip ended by itself.
    pub(super) fn gossip_ended(&mut self) {
        self.tenure.ended(self.rng.random());
        self.turn();
    }

    /// Becomes what the tenure says.
    fn turn(&mut self) {
        let ours = self.tenure.speaks();
        let before = self.publisher.as_ref().map(Publisher::publisher);
        self.shared.nodes.stand(self.tenure.newest(), ours.is_some());
        if ours == before {
            return;
        }
        self.publisher = ours.map(Publisher::new);
        let now = Instant::now();
        match (before, ours) {
            (_, None) => {
                tracing::info!(epoch = self.tenure.newest().epoch, "another node publishes; this one follows");
                self.raised = None;
                self.followers.forget_news();
            }
            (None, Some(ours)) => {
                tracing::info!(epoch = ours.epoch, "this node publishes for its cluster");
                self.raised = Some(now);
                self.monitor.resume(now);
                self.followed = Followed::default();
                for node in self.followers.names() {
                    self.tell_everything(&node, now);
                }
            }
            (Some(_), Some(ours)) => {
                tracing::info!(epoch = ours.epoch, "a newer epoch begins");
                self.raised.get_or_insert(now + RAISE_EVERY);
            }
        }
        self.lists.ask(ours.is_some());
        self.want();
        self.clients_changed();
    }

    pub(super) fn node_event(&mut self, event: NodeEvent) {
        let now = Instant::now();
        match event {
            NodeEvent::Standing { newest } => self.remembered(newest),
            NodeEvent::Told { node, told } => {
                // An older publisher may not know yet that it is.
                if self.publisher.is_none() && self.shared.nodes.follows(&node, self.tenure.newest()) {
                    self.take(told, now);
                }
            }
            NodeEvent::Follows { node, id, outbox } => {
                self.followers.add(node.clone(), id, outbox);
                if self.publisher.is_some() {
                    self.tell_everything(&node, now);
                }
            }
            NodeEvent::Needs { node, id, needs } => {
                let Some(new) = self.followers.needs(&node, id, needs) else { return };
                if self.publisher.is_some() {
                    let lists = self.list_frames(&new);
                    self.followers.tell(&node, lists);
                    self.want();
                    self.clients_changed();
                }
            }
            NodeEvent::Left { node, id } => {
                if self.followers.remove(&node, id) && self.publisher.is_some() {
                    self.want();
                    self.clients_changed();
                }
            }
        }
    }

    /// Takes over what the publisher says.
    fn take(&mut self, told: Told, now: Instant) {
        match told {
            Told::Facts(FactsOf { cluster, facts, whole }) => {
                if !self.states.contains_key(&cluster) {
                    return;
                }
                let held = self.facts.entry(cluster.clone()).or_default();
                let changed = if whole {
                    held.reconcile(facts)
                } else {
                    let mut changed = false;
                    for fact in facts {
                        changed |= held.apply(fact);
                    }
                    changed
                };
                if changed {
                    self.facts_changed(&cluster);
                }
            }
            Told::States(states) => {
                for StateOf { cluster, liveness, quiet, heard } in &states {
                    self.monitor.adopt(cluster, *liveness, *quiet, *heard, now);
                }
                self.followed.states = states.into_iter().map(|state| (state.cluster, state.liveness)).collect();
                self.followed.at = Some(now);
                self.judge(now);
            }
            Told::List(event) => {
                if self.states.contains_key(&event.cluster) {
                    let facts = self.facts.get(&event.cluster);
                    self.lists.receive(*event, facts, now);
                }
            }
            Told::Clients(clients) => {
                self.followed.clients = Some(clients);
                self.clients_changed();
            }
        }
    }

    /// Everything that a node which follows us from now on must know.
    fn tell_everything(&mut self, node: &NodeName, now: Instant) {
        let facts = self.facts.iter().filter(|(cluster, _)| self.states.contains_key(*cluster));
        let mut batch: Vec<Frame> = facts.map(|(cluster, facts)| frames::all_facts(cluster, facts)).collect();
        batch.push(self.states_frame(now));
        batch.extend(self.list_frames(&self.followers.lists_of(node)));
        batch.push(frames::clients(&self.total()));
        self.followers.tell(node, batch);
    }

    /// Tells everyone how far the other clusters are trusted, at every look.
    pub(super) fn tell_states(&mut self, now: Instant) {
        if self.publisher.is_some() && !self.followers.names().is_empty() {
            let frame = self.states_frame(now);
            self.followers.tell_all(&[frame]);
        }
    }

    /// Tells the facts that are new.
    pub(super) fn tell_news(&mut self) {
        if self.publisher.is_some() {
            let news = self.followers.take_news(&self.facts);
            self.followers.tell_all(&news);
        }
    }

    /// Another cluster said something of a list.
    pub(super) fn tell_list(&mut self, event: &ListEvent) {
        if !self.followers.names().is_empty() {
            let frame = frames::list(event, &place_of(&self.shared.topology.borrow(), &event.cluster));
            self.followers.tell_list(event, &frame);
        }
    }

    fn states_frame(&self, now: Instant) -> Frame {
        let states = self.states.iter().map(|(cluster, liveness)| StateOf {
            cluster: cluster.clone(),
            liveness: *liveness,
            quiet: self.monitor.quiet_for(cluster, now),
            heard: self.monitor.last_heard(cluster).is_some(),
        });
        frames::states(&states.collect::<Vec<_>>())
    }

    fn list_frames(&self, lists: &BTreeSet<ServicePort>) -> Vec<Frame> {
        let topology = self.shared.topology.borrow().clone();
        let said = self.lists.said(lists);
        said.iter().map(|event| frames::list(event, &place_of(&topology, &event.cluster))).collect()
    }

    /// Wants the lists of our own clients, and as the publisher those of all nodes'.
    pub(super) fn want(&mut self) {
        let mut wanted = self.own_wanted.clone();
        if self.publisher.is_some() {
            wanted.extend(self.followers.lists().cloned());
        }
        self.lists.want(wanted, Instant::now());
        for cluster in self.states.keys() {
            self.lists.subscribe(cluster, self.facts.get(cluster));
        }
        self.need();
    }

    /// What the clients of the whole cluster come to has changed, or who counts it.
    pub(super) fn clients_changed(&mut self) {
        let mut total = self.own_clients();
        match (&self.publisher, &self.followed.clients) {
            (Some(_), _) => self.followers.add_clients(&mut total),
            (None, Some(followed)) => total.clone_from(followed),
            (None, None) => {}
        }
        self.need();
        let OfClients { demand: asked, nacked: refusing } = total;
        let demand = self.demand.send_if_modified(|demand| {
            let differs = **demand != asked;
            if differs {
                *demand = Arc::new(asked);
            }
            differs
        });
        let nacked = self.nacked.send_if_modified(|nacked| std::mem::replace(nacked, refusing) != refusing);
        if (demand || nacked) && self.publisher.is_some() {
            self.republish = true;
            let frame = frames::clients(&self.total());
            self.followers.tell_all(&[frame]);
        }
    }

    /// Tells the other nodes what our own clients need.
    fn need(&self) {
        self.needs.send_if_modified(|needs| {
            let now = Needs { lists: self.own_wanted.clone(), clients: self.own_clients() };
            let differs = **needs != now;
            if differs {
                *needs = Arc::new(now);
            }
            differs
        });
    }

    /// What the clients of this node come to.
    fn own_clients(&self) -> OfClients {
        OfClients { demand: self.local.demand.clone(), nacked: self.local.nacked }
    }

    /// What the clients of the whole cluster come to.
    pub(super) fn total(&self) -> OfClients {
        OfClients { demand: self.demand.borrow().as_ref().clone(), nacked: *self.nacked.borrow() }
    }
}
