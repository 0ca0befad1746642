//! The one task that owns what is known of the other clusters and what is told to them, and hands it out as snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use portolan_topology::names::{ClusterName, ServicePort};
use portolan_topology::view::Liveness;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::federation::StartError;
use crate::gossip::facts::Facts;
use crate::gossip::node::{Change, Ground, Node};
use crate::gossip::publish::{Published, Publisher};
use crate::lists::keep::{ListKey, Lists};
use crate::lists::subscribe::{ListEvent, Subscriptions};
use crate::liveness::{Monitor, Round};
use crate::model::{Local, Remote, RemoteCluster};
use crate::net::Net;
use crate::peers::{PeerEvent, Remembered, Shared};
use crate::store::Records;
use crate::{probe, proto, remote};

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
    publisher: Publisher,
    raised: Option<Instant>,
    published: watch::Sender<Arc<Published>>,
    lists: Lists,
    list_events: mpsc::Receiver<ListEvent>,
    probes: JoinSet<(ClusterName, Round)>,
    /// At most one write at a time: a slow disk holds up nobody.
    saving: JoinSet<Saved>,
}

/// What was written, and how that went.
struct Saved {
    facts: BTreeSet<ClusterName>,
    lists: BTreeSet<ListKey>,
    outcome: io::Result<()>,
}

impl Hub {
    /// Reads what is on disk: it is handed out at once.
    pub(crate) fn new(
        shared: Arc<Shared>,
        net: Arc<dyn Net>,
        records: Records,
        memory: Memory,
        mut rng: StdRng,
    ) -> Result<(Self, watch::Receiver<Arc<Remote>>), StartError> {
        let epoch = records.epoch()?.saturating_add(1);
        let facts = records.facts()?;
        let (events, list_events) = mpsc::channel(64);
        let lists = Lists::load(&records, Subscriptions::new(shared.clone(), events), Instant::now())?;
        let (remote, receiver) = watch::channel(Arc::default());
        let publisher = Publisher::new(proto::Publisher { epoch, incarnation: rng.random() });
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
            publisher,
            raised: None,
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
        let Inputs { mut commands, mut peers, gossip } = inputs;
        let mut topology = self.shared.topology.clone();
        let (ground, mut changes) = Ground::new(self.shared.clone(), gossip);
        let mut local: Option<watch::Receiver<Arc<Local>>> = None;
        let mut wanted: Option<watch::Receiver<BTreeSet<ServicePort>>> = None;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut save = interval(SAVE_EVERY);
        save.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut node = self.join(&ground).await;
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
                () = next(&mut local) => self.publish(node.as_mut(), &mut local).await,
                () = next(&mut wanted) => if let Some(wanted) = &mut wanted {
                    let wanted = wanted.borrow_and_update().clone();
                    self.lists.want(wanted, Instant::now());
                    for cluster in self.states.keys() {
                        self.lists.subscribe(cluster, self.facts.get(cluster));
                    }
                },
                Some(event) = self.list_events.recv() => {
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
                    self.probe(now);
                    self.lists.tick(&self.facts, now);
                }
                _ = save.tick() => self.save(),
                Some(Ok(saved)) = self.saving.join_next() => self.saved(saved),
                () = ended(node.as_ref()) => {
                    tracing::error!("gossip ended by itself; it begins again with a new epoch");
                    node = None;
                    self.go_above(self.publisher.publisher());
                }
                () = at(hand_out_at) => self.hand_out(),
            }
            if self.raised.is_some_and(|at| at <= Instant::now()) {
                self.raised = None;
                node = self.join(&ground).await;
                self.publish(node.as_mut(), &mut local).await;
            }
        }
    }

    /// Begins to gossip as the current publisher, once its epoch is on disk.
    async fn join(&mut self, ground: &Ground) -> Option<Node> {
        let publisher = self.publisher.publisher();
        if let Err(error) = self.records.raise_epoch(publisher.epoch).await {
            // Silent is better than taken for an old one after the next start.
            tracing::error!(%error, "the epoch cannot be written; nothing is gossiped until it can");
            self.raised = Some(Instant::now() + RAISE_EVERY);
            return None;
        }
        match Node::start(ground, publisher).await {
            Ok(node) => Some(node),
            Err(error) => {
                tracing::error!(%error, "gossip cannot start");
                self.raised = Some(Instant::now() + RAISE_EVERY);
                None
            }
        }
    }

    /// Speaks with a higher epoch than `remembered`, soon.
    fn go_above(&mut self, remembered: proto::Publisher) {
        let epoch = remembered.epoch.max(self.publisher.publisher().epoch).saturating_add(1);
        self.publisher = Publisher::new(proto::Publisher { epoch, incarnation: self.rng.random() });
        self.raised.get_or_insert_with(|| Instant::now() + RAISE_EVERY);
    }

    /// Somebody remembers this publisher of our cluster.
    fn remembered(&mut self, remembered: proto::Publisher) {
        let ours = self.publisher.publisher();
        if remembered.epoch >= ours.epoch && remembered != ours {
            tracing::info!(
                epoch = remembered.epoch,
                "a newer publisher of our own cluster is remembered; going above it"
            );
            self.go_above(remembered);
        }
    }

    async fn publish(&mut self, node: Option<&mut Node>, local: &mut Option<watch::Receiver<Arc<Local>>>) {
        let (Some(node), Some(local)) = (node, local) else { return };
        // The run at hand speaks for the last epoch; all is said again once that of the next has begun.
        if self.raised.is_some() {
            return;
        }
        let local = local.borrow_and_update().clone();
        let outgoing = self.publisher.update(&local);
        if !outgoing.is_empty() {
            node.set(&outgoing).await;
        }
        self.published.send_replace(Arc::new(self.publisher.published(&local)));
    }

    fn peer_event(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Hello { cluster, hello } => {
                self.heard(&cluster);
                if let Some(remembered) = hello.remembered {
                    self.remembered(remembered);
                }
            }
            PeerEvent::Heard { cluster } => self.heard(&cluster),
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
        if self.facts.entry(change.cluster.clone()).or_default().apply(incoming) {
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
                self.facts_changed(&cluster);
            }
        }
    }

    /// Judges every cluster's state anew.
    fn judge(&mut self, now: Instant) {
        let states = self.monitor.states(now);
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
        let lists = self.lists.hand_out();
        self.remote.send_replace(Arc::new(Remote { clusters: self.clusters.clone(), lists }));
    }

    fn save(&mut self) {
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
        if records.is_empty() {
            return;
        }
        let store = self.records.clone();
        self.saving.spawn(async move { Saved { outcome: store.write(records).await, facts: unsaved, lists } });
    }

    fn saved(&mut self, saved: Saved) {
        if let Err(error) = saved.outcome {
            tracing::warn!(%error, "what is known of other clusters cannot be written; it is served from memory");
            self.unsaved.extend(saved.facts);
            self.lists.save_again(saved.lists);
        }
    }

    /// Begins the rounds of probes that are due.
    fn probe(&mut self, now: Instant) {
        for cluster in self.monitor.due(now) {
            let addresses = self.addresses_of(&cluster);
            let net = self.net.clone();
            self.probes.spawn(async move { (cluster, probe::round(net, addresses).await) });
        }
    }

    /// Where a cluster's endpoints can be tried from here: at a sample of them, or at its gateways from another network.
    fn addresses_of(&mut self, cluster: &ClusterName) -> Vec<String> {
        let topology = self.shared.topology.borrow().clone();
        let network = |cluster| topology.cluster(cluster).map(|cluster| &cluster.network);
        if network(cluster) == network(&self.shared.cluster) {
            let sample = self.lists.sample(cluster, probe::SAMPLE, &mut self.rng);
            sample.iter().map(ToString::to_string).collect()
        } else {
            topology.cluster(cluster).map(|cluster| cluster.gateways.clone()).unwrap_or_default()
        }
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
