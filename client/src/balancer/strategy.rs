//! Which endpoint of the drawn locality takes the request.

use std::fmt;

use super::{Candidates, Rng};

/// The choice among the usable endpoints of a locality. It runs for every request: no locks, no allocation.
pub trait Strategy: fmt::Debug + Send + Sync + 'static {
    /// The index of the one chosen, below `candidates.len()`.
    fn choose(&self, candidates: &Candidates, rng: &Rng) -> usize;
}

/// Power of two choices by least requests: the default.
///
/// Two distinct candidates are drawn by weight; the one with less `in flight / weight` takes the request. A tie goes to
/// the one drawn first, which is random: so an idle locality is shared exactly by weight (comparing `(in flight + 1) /
/// weight` instead would give the lighter of two idle endpoints nothing), and under load utilisations even out.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeastRequest;

impl Strategy for LeastRequest {
    #[inline]
    fn choose(&self, candidates: &Candidates, rng: &Rng) -> usize {
        let first = candidates.draw(rng);
        let other = candidates.draw_other(first, rng);
        // a/v < b/w as a·w < b·v: no division, and exact.
        let load =
            |at: usize, against: usize| u64::from(candidates.in_flight(at)) * u64::from(candidates.weight(against));
        if load(other, first) < load(first, other) { other } else { first }
    }
}
