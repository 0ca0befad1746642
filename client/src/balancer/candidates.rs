//! The usable endpoints of one locality, laid out for picking: drawing by weight takes the same time for 2 and for 10,000.
//!
//! Immutable. With unequal weights it is an alias table (Walker, in Vose's form): a draw is one random number and at
//! most one look aside.

use std::net::SocketAddr;
use std::sync::Arc;

use super::load::Load;
use super::rng::Rng;

/// How often a second candidate is drawn again because it is the first.
const REDRAWS: usize = 4;

/// The endpoints that a [`Strategy`](super::Strategy) chooses from: at least one.
#[derive(Debug)]
pub struct Candidates {
    slots: Box<[Slot]>,
    /// All weights are the same, so that no alias is needed.
    even: bool,
}

#[derive(Debug)]
struct Slot {
    load: Arc<Load>,
    weight: u32,
    /// A draw that falls here stays here if its low half is below this.
    keep: u32,
    /// Where it goes otherwise.
    alias: u32,
}

impl Candidates {
    /// The table of endpoints with their weights, which are at least 1. `None` without endpoints.
    pub(super) fn new(endpoints: Vec<(Arc<Load>, u32)>) -> Option<Self> {
        let first = endpoints.first()?.1;
        let even = endpoints.iter().all(|(_, weight)| *weight == first);
        let slot = |(load, weight)| Slot { load, weight, keep: u32::MAX, alias: 0 };
        let mut slots: Box<[Slot]> = endpoints.into_iter().map(slot).collect();
        if !even {
            alias(&mut slots);
        }
        Some(Self { slots, even })
    }

    /// How many there are; never 0.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// One at random, by weight.
    #[inline]
    pub fn draw(&self, rng: &Rng) -> usize {
        let random = rng.next();
        let at = (((random >> 32) * self.slots.len() as u64) >> 32) as usize;
        let slot = &self.slots[at];
        if self.even || random as u32 <= slot.keep { at } else { slot.alias as usize }
    }

    /// Another one than `first` at random, by weight; `first` if there is no other.
    ///
    /// Where one endpoint has nearly all the weight, after a few vain draws it is any of the others.
    #[inline]
    pub fn draw_other(&self, first: usize, rng: &Rng) -> usize {
        let n = self.slots.len();
        if n > 2 && !self.even {
            for _ in 0..REDRAWS {
                let other = self.draw(rng);
                if other != first {
                    return other;
                }
            }
        }
        match n {
            1 => first,
            2 => 1 - first,
            _ => (first + 1 + rng.below(n as u32 - 1) as usize) % n,
        }
    }

    /// Requests in flight at one of them, from this balancer.
    #[inline]
    pub fn in_flight(&self, at: usize) -> u32 {
        self.slots[at].load.in_flight()
    }

    /// The weight of one of them; at least 1.
    #[inline]
    pub fn weight(&self, at: usize) -> u32 {
        self.slots[at].weight
    }

    /// The address of one of them.
    pub fn address(&self, at: usize) -> SocketAddr {
        self.slots[at].load.address()
    }
}

/// Fills in `keep` and `alias`: each slot gives what it has too little to one that has too much.
fn alias(slots: &mut [Slot]) {
    let total: f64 = slots.iter().map(|s| f64::from(s.weight)).sum();
    let mean = total / slots.len() as f64;
    let mut fill: Vec<f64> = slots.iter().map(|s| f64::from(s.weight) / mean).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..slots.len()).partition(|at| fill[*at] < 1.0);
    while let (Some(&giver), Some(taker)) = (large.last(), small.pop()) {
        slots[taker].keep = (fill[taker] * f64::from(u32::MAX)) as u32;
        slots[taker].alias = giver as u32;
        fill[giver] -= 1.0 - fill[taker];
        if fill[giver] < 1.0 {
            large.pop();
            small.push(giver);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balancer::Rng;

    fn candidates(weights: &[u32]) -> Candidates {
        let load = |i: usize| Arc::new(Load::new(SocketAddr::from(([127, 0, 0, 1], i as u16 + 1))));
        Candidates::new(weights.iter().enumerate().map(|(i, w)| (load(i), *w)).collect()).unwrap()
    }

    #[test]
    fn none_of_nothing() {
        assert!(Candidates::new(Vec::new()).is_none());
    }

    #[test]
    fn one_is_drawn_twice() {
        let (one, rng) = (candidates(&[7]), Rng::new(1));
        assert_eq!((one.draw(&rng), one.draw_other(0, &rng)), (0, 0));
    }

    #[test]
    fn a_giant_does_not_keep_the_second_candidate_from_being_another() {
        let (table, rng) = (candidates(&[1_000_000, 1, 1]), Rng::new(1));
        let mut seen = [0; 3];
        for _ in 0..3000 {
            seen[table.draw_other(0, &rng)] += 1;
        }
        assert_eq!(seen[0], 0);
        assert!(seen[1] > 1300 && seen[2] > 1300, "{seen:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn draws_follow_the_weights(weights in proptest::collection::vec(1u32..1000, 1..20), seed: u64) {
            let (table, rng) = (candidates(&weights), Rng::new(seed));
            let draws = 40_000;
            let mut seen = vec![0u32; weights.len()];
            for _ in 0..draws {
                seen[table.draw(&rng)] += 1;
            }
            let total: u32 = weights.iter().sum();
            for (weight, seen) in weights.iter().zip(&seen) {
                let wanted = f64::from(*weight) / f64::from(total);
                // Six standard deviations.
                let slack = 6.0 * (wanted * (1.0 - wanted) / f64::from(draws)).sqrt() + 1e-6;
                prop_assert!((f64::from(*seen) / f64::from(draws) - wanted).abs() <= slack, "{weights:?} {seen:?}");
            }
        }

        #[test]
        fn the_second_candidate_is_another(weights in proptest::collection::vec(1u32..5, 2..6), seed: u64) {
            let (table, rng) = (candidates(&weights), Rng::new(seed));
            for _ in 0..200 {
                let first = table.draw(&rng);
                prop_assert_ne!(table.draw_other(first, &rng), first);
            }
        }
    }
}
