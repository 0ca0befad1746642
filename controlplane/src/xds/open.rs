//! The streams that are open, for the little that concerns all of them: a new topology, and clients that do not read.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use portolan_topology::topology::Topology;
use tokio::sync::watch;

use super::counters::count;
use super::protocol::holding::Holding;
use super::server::Shared;
use crate::resources::Kind;

/// How often clients that do not read are looked for.
const CHECK: Duration = Duration::from_secs(5);

/// What all streams have in common.
pub(super) trait OpenStream: Send + Sync {
    /// The topology is another.
    fn topology_moved(&self);
    /// What its client has of each resource; `None` once it was cut off.
    fn holdings(&self) -> Option<Vec<(Kind, Vec<Holding>)>>;
    /// Lets go of everything if the client has not taken what waits for it for too long. Says whether it did.
    fn cut_if_stalled(&self) -> bool;
}

/// The streams that are open, by number.
#[derive(Default)]
pub(super) struct OpenStreams {
    streams: Arc<Mutex<Streams>>,
}

type Streams = HashMap<u64, Weak<dyn OpenStream>>;

/// A stream that is among the open ones while this lives.
pub(super) struct Opened<S> {
    streams: Arc<Mutex<Streams>>,
    number: u64,
    stream: Arc<S>,
}

impl OpenStreams {
    pub(super) fn enter<S: OpenStream + 'static>(&self, number: u64, stream: Arc<S>) -> Opened<S> {
        let weak: Weak<S> = Arc::downgrade(&stream);
        self.streams.lock().insert(number, weak);
        Opened { streams: self.streams.clone(), number, stream }
    }

    pub(super) fn get(&self, number: u64) -> Option<Arc<dyn OpenStream>> {
        self.streams.lock().get(&number)?.upgrade()
    }

    fn all(&self) -> Vec<Arc<dyn OpenStream>> {
        self.streams.lock().values().filter_map(Weak::upgrade).collect()
    }
}

impl<S> Deref for Opened<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.stream
    }
}

impl<S> Drop for Opened<S> {
    fn drop(&mut self) {
        self.streams.lock().remove(&self.number);
    }
}

/// Tells the open streams of each new topology, and cuts off clients that do not read, as long as the server is there.
pub(super) async fn tend(server: Weak<Shared>, mut topology: watch::Receiver<Arc<Topology>>) {
    let mut checks = tokio::time::interval(CHECK);
    let mut topology_lives = true;
    loop {
        let moved = tokio::select! {
            changed = topology.changed(), if topology_lives => {
                topology_lives = changed.is_ok();
                topology_lives
            }
            _ = checks.tick() => false,
        };
        let Some(server) = server.upgrade() else { return };
        for stream in server.open.all() {
            if moved {
                stream.topology_moved();
            } else if stream.cut_if_stalled() {
                count(&server.counters.stalled_streams);
            }
        }
    }
}
