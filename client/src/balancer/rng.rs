//! Random numbers for picks: fast, without locks, and from the seed that was handed in.
//!
//! The generator is wyrand (Wang Yi): a Weyl sequence whose state is hashed by one wide multiplication. Each thread steps
//! a state of its own, so that threads share no cache line; a program of one thread repeats itself exactly. Not for secrets.

use std::sync::atomic::{AtomicU64, Ordering};

use super::stripe::{STRIPES, stripe};

const STEP: u64 = 0xa076_1d64_78bd_642f;
const MIX: u64 = 0xe703_7ed1_a0b4_28db;

/// A state on cache lines of its own (two: processors fetch them in pairs).
#[derive(Debug)]
#[repr(align(128))]
struct Stripe(AtomicU64);

/// A source of random numbers that threads share without meeting.
#[derive(Debug)]
pub struct Rng {
    stripes: [Stripe; STRIPES],
}

impl Rng {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        // Every stripe starts at a point of the sequence that is as good as random against the others'.
        let start = |i: usize| Stripe(AtomicU64::new(mix(seed.wrapping_add(i as u64))));
        Self { stripes: std::array::from_fn(start) }
    }

    /// The next 64 bits. Two threads on one stripe may now and then see the same ones; nothing else can go wrong.
    #[inline]
    pub fn next(&self) -> u64 {
        self.next_of(stripe())
    }

    /// The same, for a caller that knows its thread's stripe.
    #[inline]
    pub(super) fn next_of(&self, stripe: usize) -> u64 {
        let state = &self.stripes[stripe].0;
        let at = state.load(Ordering::Relaxed).wrapping_add(STEP);
        state.store(at, Ordering::Relaxed);
        mix(at)
    }

    /// A number below `n`, which is at least 1. The bias is under n / 2³².
    #[inline]
    pub fn below(&self, n: u32) -> u32 {
        (((self.next() >> 32) * u64::from(n)) >> 32) as u32
    }

    /// A number in 0..1.
    pub fn fraction(&self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[inline]
fn mix(state: u64) -> u64 {
    let wide = u128::from(state) * u128::from(state ^ MIX);
    (wide >> 64) as u64 ^ wide as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_another_differs() {
        // In a thread of its own, so that no other test steps this stripe.
        let draw = |seed| {
            let rng = Rng::new(seed);
            (0..8).map(|_| rng.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn numbers_below_n_are_even() {
        let rng = Rng::new(3);
        let mut seen = [0u32; 7];
        for _ in 0..70_000 {
            seen[rng.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|n| (9_500..10_500).contains(n)), "{seen:?}");
        assert!((0..1000).all(|_| (0.0..1.0).contains(&rng.fraction())));
    }
}
