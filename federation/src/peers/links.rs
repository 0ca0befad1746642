//! Which streams and channels are up, by cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use portolan_topology::names::ClusterName;
use tokio::sync::{Notify, mpsc, watch};
use tonic::transport::Channel;

/// How many gossip messages may wait for a stream. More are lost, as in a network; gossip repeats itself.
const OUTBOX: usize = 64;

/// Which end opened a stream. Our own dialled one is preferred: we know best when it does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Dialled,
    Accepted,
}

/// The streams with one cluster, the best first.
type Streams = BTreeMap<(End, u64), mpsc::Sender<Bytes>>;

/// A dialled connection that is up.
#[derive(Debug, Clone)]
pub(crate) struct Dialled {
    pub(crate) channel: Channel,
    /// Another for each connection.
    pub(crate) id: u64,
}

/// The registry of live streams and channels.
#[derive(Default)]
pub(crate) struct Links {
    outboxes: Mutex<BTreeMap<ClusterName, Streams>>,
    next: AtomicU64,
    /// Told when a cluster has come to us: what waits to dial it need not wait any more.
    arrivals: Mutex<BTreeMap<ClusterName, Arc<Notify>>>,
    channels: watch::Sender<BTreeMap<ClusterName, Dialled>>,
}

impl Links {
    /// Registers a stream, until the returned entry is dropped.
    pub(super) fn add(&self, cluster: &ClusterName, end: End) -> Link<'_> {
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let id = (end, self.next.fetch_add(1, Ordering::Relaxed));
        self.outboxes.lock().entry(cluster.clone()).or_default().insert(id, outbox);
        if end == End::Accepted {
            self.arrival(cluster).notify_one();
        }
        Link { links: self, cluster: cluster.clone(), id, messages }
    }

    /// Told when `cluster` comes to us.
    pub(super) fn arrival(&self, cluster: &ClusterName) -> Arc<Notify> {
        self.arrivals.lock().entry(cluster.clone()).or_default().clone()
    }

    /// Sends a gossip message to `cluster` over one of its streams, and says whether it found room on one.
    pub(crate) fn send(&self, cluster: &ClusterName, message: &Bytes) -> bool {
        let outboxes = self.outboxes.lock();
        let Some(streams) = outboxes.get(cluster) else { return false };
        streams.values().any(|outbox| outbox.try_send(message.clone()).is_ok())
    }

    /// The channels that are up, as they come and go.
    pub(crate) fn channels(&self) -> watch::Receiver<BTreeMap<ClusterName, Dialled>> {
        self.channels.subscribe()
    }

    pub(super) fn set_channel(&self, cluster: &ClusterName, channel: Option<Channel>) {
        self.channels.send_modify(|channels| {
            match channel {
                Some(channel) => {
                    let id = self.next.fetch_add(1, Ordering::Relaxed);
                    channels.insert(cluster.clone(), Dialled { channel, id })
                }
                None => channels.remove(cluster),
            };
        });
    }
}

/// A registered stream.
pub(super) struct Link<'a> {
    links: &'a Links,
    cluster: ClusterName,
    id: (End, u64),
    /// What is to be sent on it.
    pub(super) messages: mpsc::Receiver<Bytes>,
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        let mut outboxes = self.links.outboxes.lock();
        if let Some(streams) = outboxes.get_mut(&self.cluster) {
            streams.remove(&self.id);
            if streams.is_empty() {
                outboxes.remove(&self.cluster);
            }
        }
    }
}
