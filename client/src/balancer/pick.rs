//! The guard of one request.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;

use super::cell::Cell;
use super::chosen::Seated;
use super::snapshot::{Drawn, Snapshot};
use super::stripe::Ledger;
use super::{Cost, End, Endpoint, Outcome, RequestInfo};
use crate::orca::OrcaReport;

/// A request at its endpoint: it counts as in flight while this lives.
///
/// End it with [`Pick::finish`]; dropped, it was cancelled, which says nothing about the endpoint. [`Pick::hold`] one that
/// lives longer than it takes to pick the next.
#[derive(Debug)]
#[must_use = "the request counts as in flight while the pick lives"]
pub struct Pick<T> {
    from: From<T>,
    drawn: Drawn,
    stripe: usize,
    /// When the first byte of the answer came, after the request began.
    first: Option<Duration>,
    /// What else must be told of the request.
    told: Option<Told>,
}

#[derive(Debug)]
enum From<T> {
    /// The endpoint is found in the snapshot: no count that threads share is touched.
    Snapshot(Guard<Arc<Snapshot<T>>>),
    Held(Arc<Endpoint<T>>),
}

#[derive(Debug)]
struct Told {
    seated: Arc<dyn Seated>,
    cost: Cost,
    answered: bool,
}

impl<T> Pick<T> {
    /// The ledger has counted it already.
    #[inline(always)]
    pub(super) fn new(
        snapshot: Guard<Arc<Snapshot<T>>>,
        drawn: Drawn,
        stripe: usize,
        request: &RequestInfo<'_>,
    ) -> Self {
        let told = snapshot.seated(drawn).map(|seated| {
            seated.started(request);
            Told { seated: Arc::clone(seated), cost: request.cost, answered: false }
        });
        Self { from: From::Snapshot(snapshot), drawn, stripe, first: None, told }
    }

    /// The endpoint that was chosen.
    #[inline]
    pub fn endpoint(&self) -> &Arc<Endpoint<T>> {
        match &self.from {
            From::Snapshot(snapshot) => snapshot.endpoint(self.drawn),
            From::Held(endpoint) => endpoint,
        }
    }

    /// The priority it was chosen from.
    pub fn priority(&self) -> u32 {
        self.drawn.priority
    }

    /// The endpoint that it was compared with and preferred to, if there was one; not known any more once it is held.
    pub fn preferred_to(&self) -> Option<&Arc<Endpoint<T>>> {
        match &self.from {
            From::Snapshot(snapshot) => snapshot.passed_over(self.drawn),
            From::Held(_) => None,
        }
    }

    /// Makes this pick last: other threads count it from now on (before, they do from this thread's next pick), and it
    /// keeps its endpoint alone in memory, not all that it was chosen from.
    pub fn hold(mut self) -> Self {
        if let From::Snapshot(snapshot) = &self.from {
            let endpoint = Arc::clone(snapshot.endpoint(self.drawn));
            if endpoint.ledger.take_pending(self.stripe, self.drawn.cell) {
                endpoint.seat.cell().add(1);
            }
            self.from = From::Held(endpoint);
        }
        self
    }

    /// The first byte of the answer has come, this long after the request began.
    pub fn answered(&mut self, after: Duration) {
        self.first.get_or_insert(after);
        if let Some(told) = self.told.as_mut().filter(|told| !told.answered) {
            told.answered = true;
            told.seated.answered(after, told.cost);
        }
    }

    /// The request has ended, after this long if it was measured, with what the server said of its load.
    pub fn finish(mut self, outcome: Outcome, latency: Option<Duration>, report: Option<&OrcaReport>) {
        // A stream may be long because there is much to say: how fast the endpoint is shows in its first byte.
        self.endpoint().count(outcome, self.first.or(latency), report);
        self.tell(outcome, latency, report);
    }

    fn tell(&mut self, outcome: Outcome, latency: Option<Duration>, report: Option<&OrcaReport>) {
        if let Some(Told { seated, cost, answered }) = self.told.take() {
            seated.ended(&End { outcome, latency, report, cost, answered });
        }
    }

    #[inline]
    fn counted(&self) -> (&Ledger, &Cell) {
        match &self.from {
            From::Snapshot(snapshot) => (&snapshot.ledger, snapshot.cell(self.drawn)),
            From::Held(endpoint) => (&endpoint.ledger, endpoint.seat.cell()),
        }
    }
}

impl<T> Drop for Pick<T> {
    #[inline]
    fn drop(&mut self) {
        if self.told.is_some() {
            self.tell(Outcome::Cancelled, None, None);
        }
        let (ledger, cell) = self.counted();
        if ledger.leave(self.stripe, self.drawn.cell) {
            cell.add(-1);
        }
    }
}
