//! Prequal's hot-cold rule over load that servers say of themselves with each response, instead of probes.
//!
//! Wydrowski et al., "Load is not what you should balance: Introducing Prequal" (NSDI 2024). A server is *hot* while the
//! requests in flight that it reports (the ORCA metric `in_flight`, from all its clients) are above the 0.84 quantile of its
//! peers'. Of the candidates drawn, the cold one with the shortest latency is taken; if all are hot, the one with the fewest
//! in flight. It needs clients that send each server many requests a second: what a server said is as old as the last
//! response. `docs/performance.md` shows what old news costs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::super::{Candidates, Choice, End, Member, Outcome, RequestInfo, Strategy};

/// The ORCA metric.
const IN_FLIGHT: &str = "in_flight";
/// 2^-0.25, the paper's.
const HOT: f64 = 0.840_9;
/// Candidates for each request.
const DRAWS: usize = 4;
/// The weight of a latency in the mean.
const WEIGHT: f32 = 0.2;

/// The strategy.
#[derive(Debug, Clone, Copy, Default)]
pub struct HotCold;

/// What a server said, and how fast it answered.
#[derive(Debug, Default)]
pub struct Said {
    in_flight: AtomicU32,
    /// `f32` bits of the mean latency in seconds; 0: not known.
    latency: AtomicU32,
}

/// From what on a server is hot, found anew once for so many picks as there are endpoints.
#[derive(Debug)]
pub struct Threshold {
    picks: AtomicU32,
    in_flight: AtomicU32,
}

impl Strategy for HotCold {
    type Node = Arc<Said>;
    type Table = Threshold;

    fn node(&self, _: SocketAddr) -> Self::Node {
        Arc::default()
    }

    fn table(&self, _: &[Member<Self::Node>]) -> Threshold {
        Threshold { picks: AtomicU32::new(0), in_flight: AtomicU32::new(u32::MAX) }
    }

    fn choose(&self, candidates: &Candidates<'_, Self::Node>, table: &Threshold, _: &RequestInfo<'_>) -> Choice {
        let hot = table.of(candidates);
        // Cold before hot; then by latency or by what is in flight, here and as it was said.
        let rank = |at: usize| {
            let (said, own) = (candidates.node(at), candidates.in_flight(at));
            let in_flight = said.in_flight.load(Relaxed).saturating_add(own);
            let latency = f32::from_bits(said.latency.load(Relaxed)) * (own as f32 + 1.0);
            if in_flight > hot { (true, in_flight as f32) } else { (false, latency) }
        };
        let first = candidates.draw();
        let mut best = (first, rank(first));
        let mut over = None;
        for _ in 1..DRAWS.min(candidates.len()) {
            let at = candidates.draw_other(best.0);
            let its = rank(at);
            if its < best.1 {
                over = Some(best.0);
                best = (at, its);
            } else if at != best.0 {
                over = over.or(Some(at));
            }
        }
        Choice { at: best.0, over }
    }

    fn ended(&self, said: &Self::Node, end: &End<'_>) {
        if let Some(in_flight) = end.report.and_then(|report| report.named_metrics.get(IN_FLIGHT)) {
            said.in_flight.store(in_flight.clamp(0.0, 1e9) as u32, Relaxed);
        }
        if let Some(sample) = end.latency.filter(|_| end.outcome == Outcome::Success) {
            let (before, sample) = (f32::from_bits(said.latency.load(Relaxed)), sample.as_secs_f32());
            let mean = if before == 0.0 { sample } else { before + WEIGHT * (sample - before) };
            said.latency.store(mean.to_bits(), Relaxed);
        }
    }
}

impl Threshold {
    fn of(&self, candidates: &Candidates<'_, Arc<Said>>) -> u32 {
        if !self.picks.fetch_add(1, Relaxed).is_multiple_of(candidates.len() as u32) {
            return self.in_flight.load(Relaxed);
        }
        // All, or a sample of fixed size: no allocation, and enough for a quantile.
        let mut sample = [0u32; 32];
        let n = candidates.len();
        let taken = n.min(sample.len());
        for (i, one) in sample[..taken].iter_mut().enumerate() {
            let at = if n <= taken { i } else { (candidates.random() % n as u64) as usize };
            *one = candidates.node(at).in_flight.load(Relaxed);
        }
        sample[..taken].sort_unstable();
        let threshold = sample[(taken as f64 * HOT) as usize];
        self.in_flight.store(threshold, Relaxed);
        threshold
    }
}
