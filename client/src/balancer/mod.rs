//! Picks an endpoint for each request: priority, locality by weight, then the strategy's choice among its endpoints.
//!
//! A pick takes no lock and allocates nothing: it reads a snapshot that every change replaces whole. The balancer does
//! no I/O and reads no clock: the transport tells it who is connected, and hands in the time. It never picks an endpoint
//! that is not ready.

mod area;
mod candidates;
mod cell;
mod chosen;
mod endpoint;
mod error;
mod explain;
mod health;
mod latency;
mod pick;
mod ramp;
mod rng;
mod shares;
mod snapshot;
mod state;
pub mod strategies;
mod strategy;
mod stripe;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::candidates::Candidates;
pub use self::cell::Admission;
pub use self::chosen::Chosen;
pub use self::endpoint::{Endpoint, Place, Status};
pub use self::error::PickError;
pub use self::explain::{EndpointState, LocalityShare};
pub use self::pick::Pick;
pub use self::rng::Rng;
pub use self::strategy::{Choice, Cost, End, LeastRequest, Member, Outcome, RequestInfo, Strategy};

use self::candidates::Draws;
use self::cell::Cells;
use self::snapshot::Snapshot;
use self::state::State;
use self::stripe::{Ledger, stripe};
use crate::load::LoadRecorder;
use crate::xds::model::Assignment;

/// A balancer over the endpoints of one assignment at a time. `T` is what the transport keeps with each endpoint.
///
/// ```
/// # use std::sync::Arc;
/// # use portolan_client::balancer::{Balancer, LeastRequest, Outcome, RequestInfo, Status};
/// # use portolan_client::xds::model::{AssignedEndpoint, Assignment, EndpointHealth, LocalityEndpoints};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let endpoint = AssignedEndpoint { address: ([127, 0, 0, 1], 80).into(), weight: 1, health: EndpointHealth::Healthy };
/// # let locality = LocalityEndpoints { locality: Default::default(), weight: 1, endpoints: vec![endpoint] };
/// # let assignment = Arc::new(Assignment {
/// #     cluster: "checkout".into(), priorities: vec![vec![locality]], ..Assignment::default()
/// # });
/// # let now = tokio::time::Instant::now();
/// let balancer: Balancer = Balancer::new(LeastRequest, 42);
/// balancer.assign(assignment, now);
/// for endpoint in balancer.wanted() {
///     balancer.report(&endpoint, Status::Ready, now); // when your transport can send to it
/// }
/// let pick = balancer.pick(&RequestInfo::default()).expect("one is ready").hold();
/// // … send the request to pick.endpoint().address() …
/// pick.finish(Outcome::Success, None, None);
/// # }
/// ```
#[derive(Debug)]
pub struct Balancer<T = ()> {
    snapshot: ArcSwap<Snapshot<T>>,
    rng: Rng,
    ledger: Arc<Ledger>,
    cells: Arc<Cells>,
    state: Mutex<State<T>>,
    changed: watch::Sender<()>,
}

impl<T: Default> Balancer<T> {
    /// A balancer without endpoints. The same seed, changes and single-threaded picks give the same choices.
    pub fn new(strategy: impl Into<Chosen>, seed: u64) -> Self {
        Self::with_load(strategy, seed, LoadRecorder::new())
    }

    /// The same, for a transport that counts requests for load reports: each endpoint's [`Place`] has its counters.
    pub fn with_load(strategy: impl Into<Chosen>, seed: u64, load: LoadRecorder) -> Self {
        let (ledger, cells) = (Arc::<Ledger>::default(), Arc::<Cells>::default());
        let state = State::new(strategy.into(), Arc::clone(&ledger), Arc::clone(&cells), load);
        Self {
            snapshot: ArcSwap::from_pointee(state.nothing()),
            rng: Rng::new(seed),
            ledger,
            cells,
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
        }
    }

    /// Takes a new assignment. Endpoints that stay keep their state and their requests in flight; those that left take
    /// no new request.
    pub fn assign(&self, assignment: Arc<Assignment>, now: Instant) {
        self.change(now, |state| state.assign(assignment));
    }

    /// The same, and shares requests by `strategy` from now on. Nothing else changes: connections, counts, warmth and what is
    /// known of an endpoint's latency stay.
    pub fn assign_by(&self, assignment: Arc<Assignment>, strategy: impl Into<Chosen>, now: Instant) {
        let chosen = strategy.into();
        self.change(now, |state| {
            state.choose(chosen);
            state.assign(assignment);
        });
    }

    /// The name comes to nothing, and it is known why: calls fail until an assignment comes.
    pub fn not_found(&self, resource: Arc<str>, reason: Arc<str>, now: Instant) {
        self.change(now, |state| state.clear(PickError::NotFound { resource, reason }));
    }
}

impl<T> Balancer<T> {
    /// Picks the endpoint of a request.
    ///
    /// # Errors
    /// Nothing is ready, or too many requests are open.
    // Inlined whole, or the guard is copied through memory at each of its stages: that takes longer than the choice itself.
    #[inline(always)]
    pub fn pick(&self, request: &RequestInfo<'_>) -> Result<Pick<T>, PickError> {
        let snapshot = self.snapshot.load();
        let stripe = stripe();
        let draws = Draws { rng: &self.rng, stripe, pending: self.ledger.pending(stripe) };
        let Some(drawn) = snapshot.choose(draws, request) else { return Err(snapshot.nothing()) };
        match self.ledger.enter(stripe, drawn.cell, snapshot.limit) {
            Ok(None) => {}
            Ok(Some(last)) => self.cells.publish(last),
            Err(_) => return Err(snapshot.too_much()),
        }
        Ok(Pick::new(snapshot, drawn, stripe, request))
    }

    /// As [`Balancer::pick`], but waits while nothing is ready and something may yet be. Give it a deadline.
    ///
    /// # Errors
    /// Waiting would not help: no endpoint is healthy, all connections fail, or too many requests are open.
    pub async fn ready(&self, request: &RequestInfo<'_>) -> Result<Pick<T>, PickError> {
        match self.pick(request) {
            Err(error) if error.may_pass() => {}
            done => return done,
        }
        let mut changed = self.changed.subscribe();
        loop {
            match self.pick(request) {
                Err(error) if error.may_pass() => {}
                done => return done,
            }
            if changed.changed().await.is_err() {
                return self.pick(request);
            }
        }
    }

    /// Tells what has become of an endpoint. Of one that left the assignment it is ignored.
    pub fn report(&self, endpoint: &Arc<Endpoint<T>>, status: Status, now: Instant) {
        self.change(now, |state| state.report(endpoint, status));
    }

    /// Sets how much of its part an endpoint may take while it is ready: less while it starts slowly, nothing while it is
    /// ejected. Of one that left the assignment it is ignored.
    pub fn admit(&self, endpoint: &Arc<Endpoint<T>>, admission: Admission, now: Instant) {
        self.change(now, |state| state.admit(endpoint, admission));
    }

    /// Takes a ready endpoint out until its transport reports on it, unless `connected` says that it is ready again: for a
    /// caller that finds a connection dead before its keeper does.
    pub(crate) fn withdraw(&self, endpoint: &Arc<Endpoint<T>>, now: Instant, connected: impl FnOnce(&T) -> bool) {
        // Asked under the lock, so that a report of a new connection comes either before and is seen, or after.
        self.change(now, |state| {
            if state.is_ready(endpoint) && !connected(endpoint.transport()) {
                state.report(endpoint, Status::Connecting);
            }
        });
    }

    /// Looks at what became of requests and moves ramps on, and returns when to call this again; `None`: there are no
    /// endpoints.
    pub fn tick(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        let looked = state.look(now);
        let due = state.due();
        drop(state);
        if looked || due.is_some_and(|due| due <= now) {
            self.change(now, |_| ());
            return self.state().due();
        }
        due
    }

    /// The endpoints that the transport should keep connected.
    ///
    /// All that may take requests, if they are at most 200; else those of the priorities down to the one below the first
    /// that has a connected endpoint or may soon have one.
    pub fn wanted(&self) -> Vec<Arc<Endpoint<T>>> {
        self.state().wanted()
    }

    /// A number that changes whenever [`Balancer::wanted`] may: to look there only then.
    pub fn wanted_version(&self) -> u64 {
        self.state().wanted_version()
    }

    /// How long the assignment lets a connection take to open.
    pub fn connect_timeout(&self) -> Duration {
        self.state().connect_timeout()
    }

    /// What each locality takes now, and why.
    pub fn explain(&self, now: Instant) -> Vec<LocalityShare> {
        self.state().explain(now)
    }

    /// How each endpoint stands, in the order of their addresses.
    pub fn endpoints(&self) -> Vec<EndpointState<T>> {
        self.state().endpoints()
    }

    /// Told at every change of assignment, statuses or ramps.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn change(&self, now: Instant, change: impl FnOnce(&mut State<T>)) {
        let mut state = self.state();
        change(&mut state);
        // Stored under the lock, so that an older snapshot never replaces a newer one.
        if let Some(snapshot) = state.snapshot(now) {
            self.snapshot.store(Arc::new(snapshot));
        }
        drop(state);
        self.changed.send_replace(());
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // The state is whole between its methods, none of which panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws for whoever needs chance beside a pick: jitter, say.
    pub fn rng(&self) -> &Rng {
        &self.rng
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_health;
