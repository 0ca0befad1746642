//! An endpoint as the balancer keeps it, and where it stands in the current assignment.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::Outcome;
use super::cell::Seat;
use super::health::Vitals;
use super::latency::{Latency, Peers};
use super::stripe::Ledger;
use crate::load::LocalityLoad;
use crate::orca::OrcaReport;
use crate::xds::model::LocalityName;

/// The ORCA metric in which a server says how warm it is, from 0 to 1.
const WARMTH: &str = "warmth";

/// An endpoint. `T` is what the transport keeps with it: a connection, say.
#[derive(Debug)]
pub struct Endpoint<T> {
    address: SocketAddr,
    pub(super) seat: Seat,
    pub(super) ledger: Arc<Ledger>,
    pub(super) place: ArcSwap<Place>,
    succeeded: AtomicU64,
    failed: AtomicU64,
    pub(super) vitals: Vitals,
    latency: Latency,
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
        transport: T,
    ) -> Self {
        let place = ArcSwap::new(place);
        let (succeeded, failed, vitals, latency) = Default::default();
        Self { address, seat, ledger, place, succeeded, failed, vitals, latency, transport }
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

    /// How many times slower than its good peers it has been lately, to this balancer: 1 or more.
    pub fn slowness(&self) -> f32 {
        self.seat.cell().slowness()
    }

    /// How many requests ended well and badly, of those whose outcome was told.
    pub fn outcomes(&self) -> (u64, u64) {
        (self.succeeded.load(Relaxed), self.failed.load(Relaxed))
    }

    /// Counts a request that ended after `latency`, to the first byte of its answer if there was one.
    pub(super) fn count(&self, outcome: Outcome, latency: Option<Duration>, report: Option<&OrcaReport>) {
        match outcome {
            Outcome::Success => {
                self.succeeded.fetch_add(1, Relaxed);
                self.vitals.success(latency);
                if let Some(latency) = latency {
                    self.change_latency(|it| it.answered(latency));
                }
            }
            Outcome::Failure => {
                self.failed.fetch_add(1, Relaxed);
                self.vitals.failure();
                self.change_latency(|it| it.failed(latency));
            }
            Outcome::Cancelled => {}
        }
        if let Some(warmth) = report.and_then(|report| report.named_metrics.get(WARMTH)) {
            self.vitals.says_warmth(*warmth);
        }
    }

    /// A request to it that was cancelled had no answer after so long: a bound for its latency, and nothing else.
    pub(crate) fn unanswered(&self, after: Duration) {
        self.change_latency(|it| it.at_least(after));
    }

    /// Its latency in seconds by samples of late, `seen` being the mean of those of the last second.
    pub(super) fn latency(&self, seen: Option<f32>) -> Option<f32> {
        self.latency.fresh(seen)
    }

    /// A second has passed, in which its requests took `seen` seconds on average.
    pub(super) fn settle_latency(&self, seen: Option<f32>, peers: &Peers) {
        self.change_latency(|it| it.settle(seen, peers));
    }

    /// What was seen of it does not count any more.
    pub(super) fn forget_latency(&self, typical: Option<f32>) {
        self.change_latency(|it| it.forget(typical));
    }

    /// Changes what is known, and tells picks.
    fn change_latency(&self, change: impl FnOnce(&Latency)) {
        change(&self.latency);
        self.seat.cell().slow(self.latency.slowness());
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
    /// The last attempt failed, or whoever was connected fell silent, for this reason. It stays so until an attempt
    /// succeeds.
    Down(Arc<str>),
}
