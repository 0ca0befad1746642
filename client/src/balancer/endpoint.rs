//! An endpoint as the balancer keeps it, and where it stands in the current assignment.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::breaker::Breaker;
use super::load::Load;
use crate::load::LocalityLoad;
use crate::xds::model::LocalityName;

/// An endpoint. `T` is what the transport keeps with it: a connection, say.
#[derive(Debug)]
pub struct Endpoint<T> {
    pub(super) load: Arc<Load>,
    pub(super) breaker: Arc<Breaker>,
    pub(super) place: ArcSwap<Place>,
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
    pub(super) fn new(address: SocketAddr, place: Arc<Place>, breaker: Arc<Breaker>, transport: T) -> Self {
        Self { load: Arc::new(Load::new(address)), breaker, place: ArcSwap::new(place), transport }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.load.address()
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
        self.load.in_flight()
    }

    /// How many requests ended well and badly, of those whose outcome was told.
    pub fn outcomes(&self) -> (u64, u64) {
        self.load.outcomes()
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
