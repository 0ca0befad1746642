//! What the channel keeps with each endpoint: the connections that take new requests, and who waits for room on one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, Notify};

use super::growth::{MOST, Seen, is_near};
use super::http2::{Connection, Owed};
use crate::channel::Tally;

/// The connections of one endpoint; usually one, more where the peer's limit of streams asks for it.
#[derive(Debug, Default)]
pub struct Slot {
    /// A request takes the first that has room, so that the last ones get idle when there is less to do.
    connections: ArcSwap<Vec<Arc<Connection>>>,
    crowd: Arc<Crowd>,
    /// Requests that wait for room take turns.
    turn: Mutex<()>,
    /// Held by the keeper: one that is to stop must be gone before the next one begins, or its last words would come
    /// after the other's first.
    pub(super) kept: Mutex<()>,
    pub(crate) tally: Tally,
}

/// Who waits for room at an endpoint, and who looks after it.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    /// Requests that wait. Ordered against the counts of open streams: who begins to wait raises this and then looks for
    /// room, who ends makes room and then looks here.
    waiting: AtomicUsize,
    freed: Notify,
    /// The keeper looks again only when `pressed` tells it.
    resting: AtomicBool,
    pressed: Notify,
}

impl Crowd {
    /// A stream has ended, or may now be opened.
    pub(crate) fn freed(&self) {
        if self.waiting.load(SeqCst) > 0 {
            self.freed.notify_one();
        }
    }

    /// There is little room.
    fn press(&self) {
        if self.resting.swap(false, SeqCst) {
            self.pressed.notify_one();
        }
    }
}

/// A request that waits, until this is dropped.
struct Waiting<'a>(&'a Crowd);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
        // What it was told was perhaps meant for the next one.
        self.0.freed();
    }
}

enum Claim {
    Room(Arc<Connection>, Owed),
    Full,
    NotConnected,
}

impl Slot {
    /// Whether requests can be sent to it now.
    pub fn is_connected(&self) -> bool {
        !self.connections.load().is_empty()
    }

    /// How many connections it has.
    pub fn connections(&self) -> usize {
        self.connections.load().len()
    }

    /// A connection with room for one more request, and that room. Waits while there is none; `None`: it is not connected.
    pub(crate) async fn claim(&self) -> Option<(Arc<Connection>, Owed)> {
        if self.crowd.waiting.load(SeqCst) == 0 {
            match self.look() {
                Claim::Room(connection, owed) => return Some((connection, owed)),
                Claim::NotConnected => return None,
                Claim::Full => {}
            }
        }
        self.wait().await
    }

    #[cold]
    async fn wait(&self) -> Option<(Arc<Connection>, Owed)> {
        self.crowd.waiting.fetch_add(1, SeqCst);
        let waiting = Waiting(&self.crowd);
        self.crowd.pressed.notify_one();
        let _turn = self.turn.lock().await;
        loop {
            match self.look() {
                Claim::Room(connection, owed) => {
                    drop(waiting);
                    return Some((connection, owed));
                }
                Claim::NotConnected => return None,
                Claim::Full => self.crowd.freed.notified().await,
            }
        }
    }

    fn look(&self) -> Claim {
        let connections = self.connections.load();
        let last = connections.len().wrapping_sub(1);
        for (at, connection) in connections.iter().enumerate() {
            let Some(owed) = connection.claim() else { continue };
            let (open, limit) = connection.load();
            if at == last && at + 1 < MOST && is_near(open, limit) {
                self.crowd.press();
            }
            return Claim::Room(Arc::clone(connection), owed);
        }
        if connections.is_empty() { Claim::NotConnected } else { Claim::Full }
    }

    /// What the connections tell of their streams.
    pub(crate) fn crowd(&self) -> &Arc<Crowd> {
        &self.crowd
    }

    /// Forgets a connection that turned out to be dead, or takes no more requests.
    pub(crate) fn forget(&self, gone: &Arc<Connection>) {
        self.connections.rcu(|connections| {
            let others = connections.iter().filter(|connection| !Arc::ptr_eq(connection, gone));
            others.cloned().collect::<Vec<_>>()
        });
        // Who waits may wait in vain now.
        self.crowd.freed();
    }

    /// One more takes requests.
    pub(super) fn add(&self, new: &Arc<Connection>) {
        self.connections.rcu(|connections| connections.iter().chain([new]).cloned().collect::<Vec<_>>());
        self.crowd.freed();
    }

    /// The one that the others could do without.
    pub(super) fn last(&self) -> Option<Arc<Connection>> {
        self.connections.load().last().cloned()
    }

    /// What its keeper must know, while so many more connections are being opened.
    pub(super) fn seen(&self, opening: usize) -> Seen {
        let connections = self.connections.load();
        let loads = || connections.iter().map(|connection| connection.load());
        Seen {
            open: loads().map(|(open, _)| open).sum(),
            waiting: self.crowd.waiting.load(SeqCst),
            connections: connections.len() + opening,
            limit: loads().map(|(_, limit)| limit).min().unwrap_or(usize::MAX),
        }
    }

    /// The keeper rests: it is told when there is little room.
    pub(super) fn rest(&self) {
        self.crowd.resting.store(true, SeqCst);
    }

    pub(super) async fn pressed(&self) {
        self.crowd.pressed.notified().await;
    }
}
