//! Weighted round robin over what servers report of their utilisation, as gRPC computes it (proposal A58).
//!
//! `weight = rps / (utilization + eps / rps × penalty)`, over an endpoint's assigned weight. It counts once it has been known
//! for the blackout period, until it expires; who has none gets the mean of the others. Endpoints are passed in turn, each
//! taken as often as its weight against the largest ("static stride"). It evens out utilisation, not waiting: above what
//! servers are promised it collapses (`docs/performance.md`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

use super::super::{Candidates, Choice, End, Member, RequestInfo, Strategy};

/// In seconds.
const BLACKOUT: u32 = 10;
const EXPIRY: u32 = 180;
/// A turn in which an endpoint is not taken is followed by the next one's, at most so often for each endpoint.
const TURNS: usize = 8;

/// The strategy.
#[derive(Debug, Clone, Copy)]
pub struct WeightedRoundRobin {
    /// How much errors weigh; gRPC's default is 1.
    pub error_penalty: f64,
    start: Instant,
}

impl Default for WeightedRoundRobin {
    fn default() -> Self {
        Self { error_penalty: 1.0, start: Instant::now() }
    }
}

/// What a server said of itself.
#[derive(Debug, Default)]
pub struct Reported {
    /// `f32` bits.
    weight: AtomicU32,
    /// Seconds since the strategy's start, plus one; 0: never.
    first: AtomicU32,
    last: AtomicU32,
}

/// Whose turn it is, and the weights that turns are measured by; `f32` bits.
#[derive(Debug)]
pub struct Turns {
    next: AtomicU64,
    largest: AtomicU32,
    mean: AtomicU32,
}

impl WeightedRoundRobin {
    fn seconds(&self) -> u32 {
        u32::try_from(self.start.elapsed().as_secs()).unwrap_or(u32::MAX - 1) + 1
    }

    fn usable(reported: &Reported, now: u32) -> Option<f32> {
        let (first, last) = (reported.first.load(Relaxed), reported.last.load(Relaxed));
        let counts = first > 0 && now.saturating_sub(first) >= BLACKOUT && now.saturating_sub(last) < EXPIRY;
        counts.then(|| f32::from_bits(reported.weight.load(Relaxed)))
    }

    /// Weights are taken up once a round.
    fn update(&self, candidates: &Candidates<'_, Arc<Reported>>, turns: &Turns) {
        let now = self.seconds();
        let known = || (0..candidates.len()).filter_map(|at| Self::usable(candidates.node(at), now));
        let n = known().count();
        // With fewer than two weights it is plain round robin.
        let (largest, mean) =
            if n < 2 { (0.0, 0.0) } else { (known().fold(0.0, f32::max), known().sum::<f32>() / n as f32) };
        turns.largest.store(largest.to_bits(), Relaxed);
        turns.mean.store(mean.to_bits(), Relaxed);
    }
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
        Turns { next: AtomicU64::new(start), largest: AtomicU32::new(0), mean: AtomicU32::new(0) }
    }

    fn choose(&self, candidates: &Candidates<'_, Self::Node>, turns: &Turns, _: &RequestInfo<'_>) -> Choice {
        let (n, now) = (candidates.len() as u64, self.seconds());
        for _ in 0..candidates.len() * TURNS {
            let turn = turns.next.fetch_add(1, Relaxed);
            let (at, round) = ((turn % n) as usize, turn / n);
            if at == 0 {
                self.update(candidates, turns);
            }
            if !candidates.admits(at) {
                continue;
            }
            let largest = f32::from_bits(turns.largest.load(Relaxed));
            let mean = f32::from_bits(turns.mean.load(Relaxed));
            let weight =
                if largest > 0.0 { Self::usable(candidates.node(at), now).unwrap_or(mean) / largest } else { 1.0 };
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
        let weight = rps / (utilization + report.eps / rps * self.error_penalty);
        let now = self.seconds();
        reported.weight.store((weight as f32).to_bits(), Relaxed);
        if reported.first.load(Relaxed) == 0 || now.saturating_sub(reported.last.load(Relaxed)) >= EXPIRY {
            reported.first.store(now, Relaxed);
        }
        reported.last.store(now, Relaxed);
    }
}
