//! The one task that owns what is known of the other clusters and what is told to them, and hands it out as snapshots.
//!
//! On the node that publishes, facts come by gossip and lists from the other clusters. On every other node both come from
//! the publisher, see [`nodes`].

mod evidence;
mod followers;
mod nodes;
mod save;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use portolan_topology::names::{ClusterName, ServicePort};
use portolan_topology::view::Liveness;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::federation::StartError;
use crate::gossip::facts::Facts;
use crate::gossip::node::{Change, Ground, Node};
use crate::gossip::publish::{Published, Publisher};
use crate::lists::keep::Lists;
use crate::lists::subscribe::{ListEvent, Subscriptions};
use crate::liveness::{Monitor, Round};
use crate::model::{Local, Remote, RemoteCluster};
use crate::net::Net;
use crate::nodes::frames::Needs;
use crate::nodes::{Demand, Election, NeedsSlot, NodeEvent, OfClients, Tenure};
use crate::peers::{PeerEvent, Remembered, Shared};
use crate::store::Records;
use crate::{proto, remote};
use followers::Followers;
use nodes::Followed;
use save::Saved;

/// How often gossip's heartbeats are read, states are judged and disagreement is looked for.
const LOOK: Duration = Duration::from_millis(250);
/// Facts may disagree with their inventory for this long before the whole state is read: they may be on their way.
const RECONCILE_AFTER: Duration = Duration::from_secs(2);
/// Facts reach the disk this often at most.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// A second process of our cluster must not make us raise epochs in a circle.
const RAISE_EVERY: Duration = Duration::from_secs(1);
/// What changes within this time is handed out together.
const BATCH: Duration = Duration::from_millis(10);

/// What the owner of a federation asks for.
pub(crate) enum Command {
    Publish(watch::Receiver<Arc<Local>>),
    Want(watch::Receiver<BTreeSet<ServicePort>>),
}

/// The newest publisher of each cluster, shared with the streams that tell it in their hello.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<BTreeMap<ClusterName, proto::Publisher>>>);

impl Memory {
    pub(crate) fn lookup(&self) -> Remembered {
        let memory = self.0.clone();
        Box::new(move |cluster| memory.lock().get(cluster).copied())
    }
}

/// The ends of the hub's pipes.
pub(crate) struct Inputs {
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) peers: mpsc::Receiver<PeerEvent>,
    pub(crate) gossip: mpsc::Receiver<(ClusterName, Bytes)>,
    pub(crate) nodes: mpsc::Receiver<NodeEvent>,
    pub(crate) election: watch::Receiver<Election>,
}

/// What is known of the other clusters, and what is told to them.
pub(crate) struct Hub {
    shared: Arc<Shared>,
    net: Arc<dyn Net>,
    records: Records,
    rng: StdRng,
    memory: Memory,
    facts: BTreeMap<ClusterName, Facts>,
    /// Since when a cluster's facts have disagreed with its inventory.
    disagree: BTreeMap<ClusterName, Instant>,
    monitor: Monitor,
    states: BTreeMap<ClusterName, Liveness>,
    /// Heartbeats as gossip showed them last.
    heartbeats: BTreeMap<ClusterName, (proto::Publisher, u64)>,
    clusters: BTreeMap<ClusterName, Arc<RemoteCluster>>,
    /// Clusters whose snapshot is out of date.
    changed: BTreeSet<ClusterName>,
    /// Clusters whose facts are newer than their record.
    unsaved: BTreeSet<ClusterName>,
    remote: watch::Sender<Arc<Remote>>,
    tenure: Tenure,
    /// What this node says of its cluster; `None`: another node publishes.
    publisher: Option<Publisher>,
    /// When the run of gossip for the current epoch begins.
    raised: Option<Instant>,
    epoch_unsaved: bool,
    /// What is to be said has changed.
    republish: bool,
    local: Arc<Local>,
    own_wanted: BTreeSet<ServicePort>,
    /// What the clients of the whole cluster ask for.
    demand: watch::Sender<Arc<Demand>>,
    /// How many of them refuse what they were sent.
    nacked: watch::Sender<u32>,
    /// What our own clients need of the publisher.
    needs: watch::Sender<Arc<Needs>>,
    followers: Followers,
    followed: Followed,
    published: watch::Sender<Arc<Published>>,
    lists: Lists,
    list_events: mpsc::Receiver<ListEvent>,
    probes: JoinSet<(ClusterName, Round)>,
    /// At most one write at a time: a slow disk holds up nobody.
    saving: JoinSet<Saved>,
}

impl Hub {
    /// Reads what is on disk: it is handed out at once.
    pub(crate) fn new(
        shared: Arc<Shared>,
        net: Arc<dyn Net>,
        records: Records,
        memory: Memory,
        rng: StdRng,
    ) -> Result<(Self, watch::Receiver<Arc<Remote>>), StartError> {
        let tenure = shared.nodes.tenure(records.epoch()?);
        let facts = records.facts()?;
        let (events, list_events) = mpsc::channel(64);
        let lists = Lists::load(&records, Subscriptions::new(shared.clone(), events), Instant::now())?;
        let (remote, receiver) = watch::channel(Arc::default());
        let mut hub = Self {
            shared,
            net,
            records,
            rng,
            memory,
            facts,
            disagree: BTreeMap::new(),
            monitor: Monitor::default(),
            states: BTreeMap::new(),
            heartbeats: BTreeMap::new(),
            clusters: BTreeMap::new(),
            changed: BTreeSet::new(),
            unsaved: BTreeSet::new(),
            remote,
            tenure,
            publisher: None,
            raised: None,
            epoch_unsaved: false,
            republish: false,
            local: Arc::default(),
            own_wanted: BTreeSet::new(),
            demand: watch::Sender::default(),
            nacked: watch::Sender::default(),
            needs: watch::Sender::default(),
            followers: Followers::default(),
            followed: Followed::default(),
            published: watch::Sender::default(),
            lists,
            list_events,
            probes: JoinSet::new(),
            saving: JoinSet::new(),
        };
        hub.follow_topology();
        hub.hand_out();
        Ok((hub, receiver))
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(mut self, inputs: Inputs) {
        let Inputs { mut commands, mut peers, gossip, mut nodes, mut election } = inputs;
        let mut topology = self.shared.topology.clone();
        let (ground, mut changes) = Ground::new(self.shared.clone(), gossip);
        let mut local: Option<watch::Receiver<Arc<Local>>> = None;
        let mut wanted: Option<watch::Receiver<BTreeSet<ServicePort>>> = None;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut save = interval(SAVE_EVERY);
        save.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut node = None;
        election.mark_changed();
        let mut hand_out_at: Option<Instant> = None;
        loop {
            if self.changed.is_empty() && !self.lists.has_changed() {
                hand_out_at = None;
            } else {
                hand_out_at.get_or_insert_with(|| Instant::now() + BATCH);
            }
            tokio::select! {
                Some(command) = commands.recv() => match command {
                    Command::Publish(mut receiver) => {
                        receiver.mark_changed();
                        local = Some(receiver);
                    }
                    Command::Want(mut receiver) => {
                        receiver.mark_changed();
                        wanted = Some(receiver);
                    }
                },
                Ok(()) = election.changed() => {
                    let election = election.borrow_and_update().clone();
                    self.elected(election);
                }
                Some(event) = nodes.recv() => self.node_event(event),
                Some(event) = peers.recv() => {
                    if let (PeerEvent::Hello { cluster, .. }, Some(node)) = (&event, &node) {
                        node.greet(cluster);
                    }
                    self.peer_event(event);
                }
                Some(change) = changes.recv() => {
                    self.apply(change);
                    // The rest of a burst, so that it makes one snapshot.
                    while let Ok(change) = changes.try_recv() {
                        self.apply(change);
                    }
                }
                () = next(&mut local) => if let Some(local) = &mut local {
                    self.local = local.borrow_and_update().clone();
                    self.republish = true;
                    self.clients_changed();
                },
                () = next(&mut wanted) => if let Some(wanted) = &mut wanted {
                    self.own_wanted = wanted.borrow_and_update().clone();
                    self.want();
                },
                Some(event) = self.list_events.recv() => {
                    self.tell_list(&event);
                    let facts = self.facts.get(&event.cluster);
                    self.lists.receive(event, facts, Instant::now());
                }
                Some(Ok((cluster, round))) = self.probes.join_next() => {
                    let now = Instant::now();
                    tracing::debug!(%cluster, ?round, "probed a silent cluster's endpoints");
                    self.monitor.probed(&cluster, round, now);
                    self.judge(now);
                }
                Ok(()) = topology.changed() => self.follow_topology(),
                _ = look.tick() => {
                    let now = Instant::now();
                    if let Some(node) = &mut node {
                        self.look(node, now).await;
                        node.forget_removed().await;
                    }
                    self.judge(now);
                    self.tell_states(now);
                    self.probe(now);
                    self.lists.tick(&self.facts, now);
                }
                _ = save.tick() => self.save(),
                Some(Ok(saved)) = self.saving.join_next() => self.saved(saved),
                () = ended(node.as_ref()) => {
                    tracing::error!("gossip ended by itself; it begins again with a new epoch");
                    node = None;
                    self.gossip_ended();
                }
                () = at(hand_out_at) => self.hand_out(),
            }
            if self.publisher.is_none() {
                node = None;
            }
            if self.raised.is_some_and(|at| at <= Instant::now()) {
                self.raised = None;
                node = self.join(&ground).await;
                self.republish = true;
            }
            if std::mem::take(&mut self.republish) {
                self.publish(node.as_mut()).await;
            }
        }
    }

    /// Begins to gossip as the current publisher, once its epoch is on disk.
    async fn join(&mut self, ground: &Ground) -> Option<Node> {
        let publisher = self.publisher.as_ref()?.publisher();
        // A write under way may bring a lower epoch to the disk.
        while let Some(saved) = self.saving.join_next().await {
            saved.into_iter().for_each(|saved| self.saved(saved));
        }
        if let Err(error) = self.records.raise_epoch(publisher.epoch).await {
            // Silent is better than taken for an old one after the next start.
            tracing::error!(%error, "the epoch cannot be written; nothing is gossiped until it can");
            self.raised = Some(Instant::now() + RAISE_EVERY);
            return None;
        }
        self.epoch_unsaved = false;
        match Node::start(ground, publisher).await {
            Ok(node) => Some(node),
            Err(error) => {
                tracing::error!(%error, "gossip cannot start");
                self.raised = Some(Instant::now() + RAISE_EVERY);
                None
            }
        }
    }

    async fn publish(&mut self, node: Option<&mut Node>) {
        let OfClients { demand, nacked } = self.total();
        let (Some(node), Some(publisher)) = (node, &mut self.publisher) else { return };
        // The run at hand speaks for the last epoch; all is said again once that of the next has begun.
        if self.raised.is_some() {
            return;
        }
        let local = Local { demand, nacked, ..Local::clone(&self.local) };
        let outgoing = publisher.update(&local);
        if !outgoing.is_empty() {
            node.set(&outgoing).await;
        }
        self.published.send_replace(Arc::new(publisher.published(&local)));
    }

    fn peer_event(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Hello { cluster, hello } => {
                self.heard(&cluster);
                if let Some(remembered) = hello.remembered {
                    self.remembered(remembered);
                }
            }
            PeerEvent::Heard { cluster, remembered } => {
                self.heard(&cluster);
                if let Some(remembered) = remembered {
                    self.remembered(remembered);
                }
            }
        }
    }

    fn heard(&mut self, cluster: &ClusterName) {
        if self.monitor.heard(cluster, Instant::now()) || self.states.get(cluster) != Some(&Liveness::Fresh) {
            self.judge(Instant::now());
        }
    }

    fn apply(&mut self, change: Change) {
        // Gossip relays: it may bring what left the topology, or ourselves.
        let known = self.states.contains_key(&change.cluster);
        let Some(incoming) = change.read().filter(|_| known) else { return };
        let facts = self.facts.entry(change.cluster.clone()).or_default();
        if facts.apply(incoming.clone()) {
            self.followers.news(&change.cluster, &incoming);
            self.facts_changed(&change.cluster);
        }
    }

    fn facts_changed(&mut self, cluster: &ClusterName) {
        let Some(facts) = self.facts.get(cluster) else { return };
        if let Some(publisher) = facts.publisher() {
            self.memory.0.lock().insert(cluster.clone(), publisher);
        }
        self.monitor.says_failed(cluster, remote::says_failed(facts));
        self.changed.insert(cluster.clone());
        self.unsaved.insert(cluster.clone());
    }

    /// Reads gossip's heartbeats, and the whole state of those whose facts went on disagreeing.
    async fn look(&mut self, node: &Node, now: Instant) {
        for seen in node.look().await {
            if seen.cluster == self.shared.cluster {
                self.remembered(seen.publisher);
                continue;
            }
            let newest = self.heartbeats.get(&seen.cluster).copied();
            let (publisher, heartbeat) = (seen.publisher, seen.heartbeat);
            if newest
                .is_some_and(|(known, beat)| publisher.epoch < known.epoch || (publisher == known && heartbeat <= beat))
            {
                continue;
            }
            self.heartbeats.insert(seen.cluster.clone(), (publisher, heartbeat));
            // The first sight of a publisher may be of a dead one that others still remember.
            if newest.is_some_and(|(known, _)| known == publisher) {
                self.heard(&seen.cluster);
            }
        }
        for cluster in self.states.keys().cloned().collect::<Vec<_>>() {
            let facts = self.facts.entry(cluster.clone()).or_default();
            let Some(publisher) = self.heartbeats.get(&cluster).map(|(publisher, _)| *publisher) else { continue };
            if facts.agrees() && facts.publisher() == Some(publisher) {
                self.disagree.remove(&cluster);
                continue;
            }
            let since = *self.disagree.entry(cluster.clone()).or_insert(now);
            if now.duration_since(since) < RECONCILE_AFTER {
                continue;
            }
            self.disagree.insert(cluster.clone(), now);
            if facts.reconcile(node.state(&cluster, publisher).await) {
                self.followers.all_is_news(&cluster);
                self.facts_changed(&cluster);
            }
        }
    }

    /// Judges every cluster's state anew. What the publisher says stands above what a node that follows it knows itself.
    fn judge(&mut self, now: Instant) {
        let mut states = self.monitor.states(now);
        if let Some(told) = self.followed.states(now) {
            for (cluster, state) in &mut states {
                *state = told.get(cluster).copied().unwrap_or(*state);
            }
        }
        for (cluster, state) in &states {
            if self.states.get(cluster) != Some(state) {
                tracing::info!(%cluster, ?state, "a cluster's state changed");
                self.changed.insert(cluster.clone());
            }
        }
        self.states = states;
    }

    fn follow_topology(&mut self) {
        let topology = self.shared.topology.borrow().clone();
        self.monitor.follow(&topology, &self.shared.cluster, Instant::now());
        self.judge(Instant::now());
        self.facts.retain(|cluster, _| self.states.contains_key(cluster));
        self.clusters.retain(|cluster, _| self.states.contains_key(cluster));
        self.lists.retain(|cluster| self.states.contains_key(cluster));
        for cluster in self.facts.keys().cloned().collect::<Vec<_>>() {
            self.facts_changed(&cluster);
        }
        // A cluster that left must leave the snapshot as well.
        self.changed.extend(self.states.keys().cloned());
    }

    /// Hands out a new snapshot; what did not change is shared with the last one.
    fn hand_out(&mut self) {
        let nothing = Facts::default();
        let changed = std::mem::take(&mut self.changed);
        for cluster in &changed {
            let facts = self.facts.get(cluster);
            self.lists.facts_changed(cluster, facts, Instant::now());
            self.lists.subscribe(cluster, facts);
        }
        for cluster in changed {
            let Some(state) = self.states.get(&cluster) else { continue };
            let facts = self.facts.get(&cluster).unwrap_or(&nothing);
            let known = remote::cluster(&cluster, facts, *state, self.monitor.last_heard(&cluster));
            self.clusters.insert(cluster, Arc::new(known));
        }
        self.tell_news();
        let lists = self.lists.hand_out();
        self.remote.send_replace(Arc::new(Remote { clusters: self.clusters.clone(), lists }));
    }

    /// What the clients of the whole cluster ask for.
    pub(crate) fn demand(&self) -> watch::Receiver<Arc<Demand>> {
        self.demand.subscribe()
    }

    /// How many clients of the whole cluster refuse what they were sent.
    pub(crate) fn nacked(&self) -> watch::Receiver<u32> {
        self.nacked.subscribe()
    }

    /// What our own clients need of the publisher, for the streams to the other nodes.
    pub(crate) fn needs(&self) -> NeedsSlot {
        self.needs.subscribe()
    }

    /// What is published, for those who serve it.
    pub(crate) fn published(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }
}

/// Waits for the next value of a pipe that may not be there.
async fn next<T>(receiver: &mut Option<watch::Receiver<T>>) {
    match receiver {
        Some(there) => {
            if there.changed().await.is_err() {
                *receiver = None;
            }
        }
        None => std::future::pending().await,
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn ended(node: Option<&Node>) {
    match node {
        Some(node) => drop(node.ended().await),
        None => std::future::pending().await,
    }
}
