//! An endpoint as the balancer keeps it, and where it stands in the current assignment.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;

use super::cell::Seat;
use super::chosen::Seated;
use super::stripe::Ledger;
use crate::load::LocalityLoad;
use crate::xds::model::LocalityName;

/// An endpoint. `T` is what the transport keeps with it: a connection, say.
#[derive(Debug)]
pub struct Endpoint<T> {
    address: SocketAddr,
    pub(super) seat: Seat,
    pub(super) ledger: Arc<Ledger>,
    /// What the strategy keeps for it, if that keeps anything.
    pub(super) seated: Option<Arc<dyn Seated>>,
    pub(super) place: ArcSwap<Place>,
    succeeded: AtomicU64,
    failed: AtomicU64,
    transport: T,
}

/// Where an endpoint stands in the current assignment.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its locality.
    pub locality: LocalityName,
    /// The priority of that locality, 0 the highest.
    pub priority: u32,
    /// Where its requests are counted for load reports, if they are.
    pub load: Option<Arc<LocalityLoad>>,
}

impl<T> Endpoint<T> {
    pub(super) fn new(
        address: SocketAddr,
        place: Arc<Place>,
        (seat, ledger): (Seat, Arc<Ledger>),
        seated: Option<Arc<dyn Seated>>,
        transport: T,
    ) -> Self {
        let place = ArcSwap::new(place);
        let (succeeded, failed) = Default::default();
        Self { address, seat, ledger, seated, place, succeeded, failed, transport }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it stands now; it may move from one assignment to the next.
    pub fn place(&self) -> Arc<Place> {
        self.place.load_full()
    }

    /// What the transport keeps with it.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// Requests in flight, from this balancer.
    pub fn in_flight(&self) -> u32 {
        self.seat.cell().in_flight() + self.ledger.pending_of(self.seat.number())
    }

    /// How many requests ended well and badly, of those whose outcome was told.
    pub fn outcomes(&self) -> (u64, u64) {
        (self.succeeded.load(Relaxed), self.failed.load(Relaxed))
    }

    pub(super) fn count(&self, success: bool) {
        if success { &self.succeeded } else { &self.failed }.fetch_add(1, Relaxed);
    }
}

/// Whether an endpoint can take requests, as its transport says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Status {
    /// Nobody has tried yet.
    #[default]
    Idle,
    /// A connection is being made, for the first time or because the last one has just ended.
    Connecting,
    /// It takes requests.
    Ready,
    /// The last attempt failed, for this reason. It stays so until an attempt succeeds.
    Down(Arc<str>),
}
