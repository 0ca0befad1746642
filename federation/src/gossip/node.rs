//! Our member of the gossip: one run of chitchat, with one publisher's epoch. A new epoch is a new run.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, ListenerHandle, spawn_chitchat};
use portolan_topology::names::ClusterName;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::facts::Incoming;
use super::publish::Outgoing;
use super::transport::{PeerTransport, address_of};
use super::value::{self, ValueError};
use crate::peers::Shared;
use crate::proto;
use crate::proto::value::Body;

/// The time between two rounds.
pub(crate) const ROUND: Duration = Duration::from_millis(500);
/// How long chitchat remembers the dead and the deleted. Its day by default would fill every round's digest with dead
/// generations.
const GRACE: Duration = Duration::from_secs(15 * 60);

/// A value that reached us, as text.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) cluster: ClusterName,
    key: String,
    text: String,
}

impl Change {
    /// Reads it. `None`: not for us, since a newer peer may know more kinds of keys and formats.
    pub(crate) fn read(&self) -> Option<Incoming> {
        let read = || -> Result<Incoming, ValueError> {
            let raw = value::bytes(&self.text)?;
            let key = self.key.parse().map_err(|error| ValueError::Malformed(format!("{error}")))?;
            Ok(Incoming { key, value: value::decode(&raw)?, raw: raw.into() })
        };
        match read() {
            Ok(incoming) => Some(incoming),
            Err(error) => {
                tracing::debug!(cluster = %self.cluster, key = self.key, %error, "a gossiped value is left alone");
                None
            }
        }
    }
}

/// What gossip knows of one life of a cluster's publisher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) cluster: ClusterName,
    pub(crate) publisher: proto::Publisher,
    pub(crate) heartbeat: u64,
}

/// What outlives a run: the way to the peers, and the way of changes to the hub.
pub(crate) struct Ground {
    transport: PeerTransport,
    changes: mpsc::UnboundedSender<Change>,
}

impl Ground {
    /// Over `messages`, as the peers' streams deliver them. Changes come out of the returned receiver.
    pub(crate) fn new(
        shared: Arc<Shared>,
        messages: mpsc::Receiver<(ClusterName, Bytes)>,
    ) -> (Self, mpsc::UnboundedReceiver<Change>) {
        let (changes, receiver) = mpsc::unbounded_channel();
        let transport = PeerTransport { shared, inbox: Arc::new(Mutex::new(messages)) };
        (Self { transport, changes }, receiver)
    }
}

/// A run of chitchat.
pub(crate) struct Node {
    handle: ChitchatHandle,
    /// Removed keys, until they can be deleted: a listener is not told of a deletion, so a value says it first.
    removed: VecDeque<(Instant, String)>,
    _listener: ListenerHandle,
}

impl Node {
    /// Starts a run that speaks as `publisher`.
    pub(crate) async fn start(ground: &Ground, publisher: proto::Publisher) -> anyhow::Result<Self> {
        let shared = &ground.transport.shared;
        let address = address_of(&shared.cluster);
        let seeds = {
            let topology = shared.topology.borrow();
            let others = topology.clusters().filter(|cluster| cluster.name != shared.cluster);
            others.map(|cluster| address_of(&cluster.name).to_string()).collect()
        };
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(id_of(shared, publisher), publisher.epoch, address),
            cluster_id: shared.topology.borrow().name.clone(),
            gossip_interval: ROUND,
            listen_addr: address,
            seed_nodes: seeds,
            failure_detector_config: FailureDetectorConfig {
                initial_interval: 2 * ROUND,
                dead_node_grace_period: GRACE,
                ..FailureDetectorConfig::default()
            },
            marked_for_deletion_grace_period: GRACE,
            catchup_callback: None,
            extra_liveness_predicate: None,
        };
        let handle = spawn_chitchat(config, Vec::new(), &ground.transport).await?;
        let changes = ground.changes.clone();
        let listener = handle
            .with_chitchat(|chitchat| {
                let changes = changes.clone();
                chitchat.subscribe_event("", move |event| {
                    let Some((cluster, _)) = parse_id(&event.node.node_id) else { return };
                    // The hub is gone only at the end.
                    let _ = changes.send(Change { cluster, key: event.key.to_owned(), text: event.value.to_owned() });
                })
            })
            .await;
        Ok(Self { handle, removed: VecDeque::new(), _listener: listener })
    }

    /// Sets values, in order. One that is too long is left out and logged.
    pub(crate) async fn set(&mut self, outgoing: &[Outgoing]) {
        let mut texts = Vec::with_capacity(outgoing.len());
        for Outgoing { key, value } in outgoing {
            match value::encode(key, value) {
                Ok(text) => texts.push((key.to_string(), text)),
                Err(error) => tracing::error!(%error, "a fact cannot be gossiped"),
            }
            if matches!(value.body, Some(Body::Removed(_))) {
                self.removed.push_back((Instant::now(), key.to_string()));
            }
        }
        self.handle
            .with_chitchat(|chitchat| {
                let state = chitchat.self_node_state();
                for (key, text) in &texts {
                    state.set(key, text);
                }
            })
            .await;
    }

    /// Gossips with `cluster` now: it has just come.
    pub(crate) fn greet(&self, cluster: &ClusterName) {
        // An error says that the run has ended, which is watched elsewhere.
        let _ = self.handle.gossip(address_of(cluster));
    }

    /// Deletes what was removed so long ago that everyone has heard.
    pub(crate) async fn forget_removed(&mut self) {
        let mut due = Vec::new();
        while self.removed.front().is_some_and(|(at, _)| at.elapsed() >= GRACE) {
            due.extend(self.removed.pop_front());
        }
        if due.is_empty() {
            return;
        }
        self.handle
            .with_chitchat(|chitchat| {
                let state = chitchat.self_node_state();
                for (_, key) in &due {
                    let removed = state.get(key).and_then(|text| value::bytes(text).ok());
                    // It may have been said again since.
                    let removed = removed.and_then(|bytes| value::decode(&bytes).ok());
                    if removed.is_some_and(|value| matches!(value.body, Some(Body::Removed(_)))) {
                        state.delete(key);
                    }
                }
            })
            .await;
    }

    /// Everyone that gossip knows, us and the dead included.
    pub(crate) async fn look(&self) -> Vec<Seen> {
        self.handle
            .with_chitchat(|chitchat| {
                let nodes = chitchat.node_states().iter();
                nodes
                    .filter_map(|(id, state)| {
                        let (cluster, incarnation) = parse_id(&id.node_id)?;
                        let publisher = proto::Publisher { epoch: id.generation_id, incarnation };
                        Some(Seen { cluster, publisher, heartbeat: state.heartbeat().into() })
                    })
                    .collect()
            })
            .await
    }

    /// The whole state of a publisher, as gossip has it.
    pub(crate) async fn state(&self, cluster: &ClusterName, publisher: proto::Publisher) -> Vec<Incoming> {
        let changes = self
            .handle
            .with_chitchat(|chitchat| {
                let is_it = |id: &ChitchatId| {
                    id.generation_id == publisher.epoch
                        && parse_id(&id.node_id)
                            .is_some_and(|(name, incarnation)| name == *cluster && incarnation == publisher.incarnation)
                };
                let states = chitchat.node_states().iter().filter(|(id, _)| is_it(id));
                let values = states.flat_map(|(_, state)| state.key_values());
                values
                    .map(|(key, text)| Change { cluster: cluster.clone(), key: key.to_owned(), text: text.to_owned() })
                    .collect::<Vec<_>>()
            })
            .await;
        changes.iter().filter_map(Change::read).collect()
    }

    /// Returns when chitchat has ended by itself: it panics on some malformed messages.
    pub(crate) fn ended(&self) -> impl Future<Output = anyhow::Result<()>> + use<> {
        self.handle.termination_watcher()
    }

    /// Ends the run.
    pub(crate) fn stop(&self) {
        self.handle.abort();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// `CLUSTER/NODE/INCARNATION`: two lives of a publisher never share an id, even if a wiped disk gave them one epoch.
fn id_of(shared: &Shared, publisher: proto::Publisher) -> String {
    format!("{}/{}/{:016x}", shared.cluster, shared.node, publisher.incarnation)
}

fn parse_id(id: &str) -> Option<(ClusterName, u64)> {
    let mut parts = id.split('/');
    let cluster = ClusterName::new(parts.next()?).ok()?;
    let _node = parts.next()?;
    let incarnation = u64::from_str_radix(parts.next()?, 16).ok()?;
    parts.next().is_none().then_some((cluster, incarnation))
}
