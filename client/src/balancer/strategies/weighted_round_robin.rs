//! Weighted round robin over what servers report of their utilisation, as gRPC computes it (proposal A58).
//!
//! `weight = rps / (utilization + eps / rps × penalty)`, over an endpoint's assigned weight. It counts once it has been known
//! for the blackout period, until it expires; who has none gets the mean of the others. Endpoints are passed in turn, each
//! taken as often as its weight against the largest ("static stride"); weights are taken up once an update period. It evens out utilisation, not waiting: above what
//! servers are promised it collapses (`docs/performance.md`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::super::{Candidates, Choice, End, Member, RequestInfo, Strategy};
use crate::xds::balancing::Weighting;

/// A turn in which an endpoint is not taken is followed by the next one's, at most so often for each endpoint.
const TURNS: usize = 8;

/// The strategy.
#[derive(Debug, Clone, Copy)]
pub struct WeightedRoundRobin {
    /// Its settings.
    pub weighting: Weighting,
    start: Instant,
}

impl Default for WeightedRoundRobin {
    /// gRPC's settings.
    fn default() -> Self {
        Weighting::default().into()
    }
}

impl From<Weighting> for WeightedRoundRobin {
    fn from(weighting: Weighting) -> Self {
        Self { weighting, start: Instant::now() }
    }
}

/// What a server said of itself.
#[derive(Debug, Default)]
pub struct Reported {
    /// `f32` bits.
    weight: AtomicU32,
    /// Milliseconds since the strategy's start, plus one; 0: never.
    first: AtomicU64,
    last: AtomicU64,
}

/// Whose turn it is, and the weights that turns are measured by.
#[derive(Debug)]
pub struct Turns {
    next: AtomicU64,
    /// When weights were taken up, as [`Reported`] says when; 0: never.
    updated: AtomicU64,
    /// Against the largest, in the candidates' order; `f32` bits.
    weights: Box<[AtomicU32]>,
}

impl WeightedRoundRobin {
    fn now(&self) -> u64 {
        milliseconds(self.start.elapsed()).saturating_add(1)
    }

    fn usable(&self, reported: &Reported, now: u64) -> Option<f32> {
        let (first, last) = (reported.first.load(Relaxed), reported.last.load(Relaxed));
        let counts =
            first > 0 && now.saturating_sub(first) >= milliseconds(self.weighting.blackout) && !self.is_over(last, now);
        counts.then(|| f32::from_bits(reported.weight.load(Relaxed)))
    }

    fn is_over(&self, last: u64, now: u64) -> bool {
        now.saturating_sub(last) >= milliseconds(self.weighting.expiry)
    }

    fn update(&self, candidates: &Candidates<'_, Arc<Reported>>, turns: &Turns, now: u64) {
        let usable = |at| self.usable(candidates.node(at), now);
        let known = || (0..candidates.len()).filter_map(usable);
        let n = known().count();
        let (largest, mean) = (known().fold(0.0, f32::max), known().sum::<f32>() / n.max(1) as f32);
        for (at, weight) in turns.weights.iter().enumerate() {
            // With fewer than two weights it is plain round robin.
            let part = if n < 2 || largest <= 0.0 { 1.0 } else { usable(at).unwrap_or(mean) / largest };
            weight.store(part.to_bits(), Relaxed);
        }
    }
}

/// More than there ever were, if it is longer.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Strategy for WeightedRoundRobin {
    type Node = Arc<Reported>;
    type Table = Turns;

    fn node(&self, _: SocketAddr) -> Self::Node {
        Arc::default()
    }

    fn table(&self, members: &[Member<Self::Node>]) -> Turns {
        // Clients that start together shall not stay in step: each begins somewhere else.
        let start = members.first().map_or(0, |member| Arc::as_ptr(&member.node) as usize as u64 / 64);
        let weights = members.iter().map(|_| AtomicU32::new(1f32.to_bits())).collect();
        Turns { next: AtomicU64::new(start), updated: AtomicU64::new(0), weights }
    }

    fn choose(&self, candidates: &Candidates<'_, Self::Node>, turns: &Turns, _: &RequestInfo<'_>) -> Choice {
        let (n, now) = (candidates.len() as u64, self.now());
        let updated = turns.updated.load(Relaxed);
        let due = updated == 0 || now.saturating_sub(updated) >= milliseconds(self.weighting.update);
        // One of those that find it due does it.
        if due && turns.updated.compare_exchange(updated, now, Relaxed, Relaxed).is_ok() {
            self.update(candidates, turns, now);
        }
        for _ in 0..candidates.len() * TURNS {
            let turn = turns.next.fetch_add(1, Relaxed);
            let (at, round) = ((turn % n) as usize, turn / n);
            if !candidates.admits(at) {
                continue;
            }
            let weight = f32::from_bits(turns.weights[at].load(Relaxed));
            // Taken in a round when the whole part of round × weight steps on; each is offset, so that the heavy do not
            // all come in the same round.
            let offset = f64::from(at as u32) * 0.5;
            let steps = |round: u64| (round as f64 * f64::from(weight.min(1.0)) + offset).floor();
            if weight >= 1.0 || steps(round + 1) > steps(round) {
                return Choice { at, over: None };
            }
        }
        candidates.least_loaded()
    }

    fn ended(&self, reported: &Self::Node, end: &End<'_>) {
        let Some(report) = end.report else { return };
        let Some(utilization) = report.utilization().filter(|_| report.rps_fractional > 0.0) else { return };
        let rps = report.rps_fractional;
        let weight = rps / (utilization + report.eps / rps * self.weighting.error_penalty);
        let now = self.now();
        reported.weight.store((weight as f32).to_bits(), Relaxed);
        if reported.first.load(Relaxed) == 0 || self.is_over(reported.last.load(Relaxed), now) {
            reported.first.store(now, Relaxed);
        }
        reported.last.store(now, Relaxed);
    }
}
