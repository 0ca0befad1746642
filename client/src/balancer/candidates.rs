//! The endpoints of one locality, laid out for picking: drawing by weight takes the same time for 2 and for 10,000.
//!
//! The layout is immutable. With unequal weights it is an alias table (Walker, in Vose's form): a draw is one random
//! number and at most one look aside. What may change between two layouts, an endpoint's [`Admission`], is in its cell:
//! a draw that falls on an endpoint that may take no request, or less than its part, is made again.

use std::sync::Arc;

use super::Rng;
use super::cell::{Admission, Cell, Chunks, cell};
use super::strategy::Choice;

/// A draw is made again at most so often; then any endpoint that admits a request will do.
const DRAWS: usize = 16;
/// The default strategy takes the best of so many, if the first is busy or slow. More find its better peers more surely.
const CHOICES: usize = 16;
/// No [`Candidates::cost`] is less.
const LEAST: f32 = 1.0;
/// How often a second candidate is drawn again because it is the first.
const REDRAWS: usize = 4;

/// The layout of at least one endpoint.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Box<[Slot]>,
    weights: Box<[u32]>,
    /// All weights are the same, so that no alias is needed.
    even: bool,
    chunks: Arc<Chunks>,
}

/// What every draw reads.
#[derive(Debug)]
struct Slot {
    /// What one request weighs here: the mean weight over the endpoint's.
    request: f32,
    /// A draw that falls here stays here if its low half is at most this.
    keep: u32,
    /// Where it goes otherwise.
    alias: u32,
    /// The number of the endpoint's cell.
    cell: u32,
}

impl Slots {
    /// The layout of endpoints by (number of the cell, weight); weights are at least 1. `None` without endpoints.
    pub(super) fn new(chunks: Arc<Chunks>, endpoints: impl Iterator<Item = (u32, u32)>) -> Option<Self> {
        let (cells, weights): (Vec<u32>, Vec<u32>) = endpoints.unzip();
        let first = *weights.first()?;
        let mean = weights.iter().map(|weight| f64::from(*weight)).sum::<f64>() / weights.len() as f64;
        let slot = |(cell, weight): (u32, &u32)| Slot {
            request: (mean / f64::from(*weight)) as f32,
            keep: u32::MAX,
            alias: 0,
            cell,
        };
        let mut slots: Box<[Slot]> = cells.into_iter().zip(&weights).map(slot).collect();
        let even = weights.iter().all(|weight| *weight == first);
        if !even {
            alias(&mut slots, &weights, mean);
        }
        Some(Self { slots, weights: weights.into(), even, chunks })
    }

    #[inline]
    fn draw(&self, random: u64) -> usize {
        let at = (((random >> 32) * self.slots.len() as u64) >> 32) as usize;
        if self.even {
            return at;
        }
        let slot = &self.slots[at];
        if random as u32 <= slot.keep { at } else { slot.alias as usize }
    }

    /// The number of an endpoint's cell.
    #[inline]
    pub(super) fn cell(&self, at: usize) -> u32 {
        self.slots[at].cell
    }
}

/// What a pick draws with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draws<'a> {
    pub(super) rng: &'a Rng,
    pub(super) stripe: usize,
    /// The cell of this thread's last pick plus one, which that cell does not know of; or 0.
    pub(super) pending: u32,
}

/// The endpoints that a [`Strategy`](super::Strategy) chooses from: at least one, by index. `N` is what the strategy keeps
/// for each.
#[derive(Debug)]
pub struct Candidates<'a, N> {
    slots: &'a Slots,
    nodes: &'a [N],
    draws: Draws<'a>,
}

impl<'a, N> Candidates<'a, N> {
    #[inline]
    pub(super) fn new(slots: &'a Slots, nodes: &'a [N], draws: Draws<'a>) -> Self {
        Self { slots, nodes, draws }
    }

    /// How many there are; never 0.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.slots.slots.len()
    }

    /// What the strategy keeps for one of them.
    pub fn node(&self, at: usize) -> &'a N {
        &self.nodes[at]
    }

    /// Requests in flight at one of them, from this balancer.
    #[inline]
    pub fn in_flight(&self, at: usize) -> u32 {
        let number = self.slots.cell(at);
        cell(&self.slots.chunks, number).in_flight() + u32::from(self.draws.pending == number + 1)
    }

    /// The weight of one of them that counts now: less than what was assigned while it starts slowly. Above 0, unless it
    /// may take nothing.
    #[inline]
    pub fn weight(&self, at: usize) -> f64 {
        let weight = f64::from(self.slots.weights[at]);
        match self.cell(at).admission() {
            Admission::OPEN => weight,
            other => weight * other.factor(),
        }
    }

    /// Whether one of them may take a request now.
    #[inline]
    pub fn admits(&self, at: usize) -> bool {
        self.cell(at).admission().admits(self.in_flight(at))
    }

    /// 64 random bits.
    #[inline]
    pub fn random(&self) -> u64 {
        self.draws.rng.next_of(self.draws.stripe)
    }

    /// One at random that may take a request, by weight; any one if none may.
    #[inline(always)]
    pub fn draw(&self) -> usize {
        let at = self.slots.draw(self.random());
        if self.cell(at).admission() == Admission::OPEN { at } else { self.draw_on(at) }
    }

    /// Another one than `first` at random that may take a request, by weight; `first` if there is no other.
    ///
    /// Where one endpoint has nearly all the weight, after a few vain draws it is any of the others.
    #[inline(always)]
    pub fn draw_other(&self, first: usize) -> usize {
        let n = self.len();
        match n {
            1 => first,
            2 if self.admits(1 - first) => 1 - first,
            2 => first,
            _ if self.slots.even => {
                // Any of the others, in one draw.
                let step = 1 + self.below(n - 1);
                let other = if first + step < n { first + step } else { first + step - n };
                if self.cell(other).admission() == Admission::OPEN { other } else { self.draw_other_on(first) }
            }
            _ => {
                let other = self.slots.draw(self.random());
                if other != first && self.cell(other).admission() == Admission::OPEN {
                    other
                } else {
                    self.draw_other_on(first)
                }
            }
        }
    }

    /// The better of two that are drawn at random: the one with less `load / weight`. A tie goes to the first, which is
    /// random.
    #[inline(always)]
    pub fn two_choices(&self, load: impl Fn(usize) -> f64) -> Choice {
        let first = self.draw();
        let other = self.draw_other(first);
        if other == first {
            return Choice { at: first, over: None };
        }
        // a/v < b/w as a·w < b·v, without a division.
        if load(other) * self.weight(first) < load(first) * self.weight(other) {
            Choice { at: other, over: Some(first) }
        } else {
            Choice { at: first, over: Some(other) }
        }
    }

    /// The best of a few that are drawn at random, or of all if there are no more, by [`Candidates::cost`]. A tie goes to
    /// the first, which is random.
    #[inline(always)]
    pub fn least_loaded(&self) -> Choice {
        let first = self.draw();
        let cost = self.cost(first);
        // Most often it is idle and not slow: others can but be as good, and the first of those is chosen.
        if cost <= LEAST { Choice { at: first, over: None } } else { self.best_against(first, cost) }
    }

    #[inline(never)]
    fn best_against(&self, first: usize, cost: f32) -> Choice {
        let n = self.len();
        let (mut best, mut last) = ((first, cost), None);
        let mut compare = |at: usize| {
            // Of one that has yet to answer nothing is known, which would make it the best of sixteen: it is tried as often
            // as it is drawn first, and no more.
            if self.cell(at).admission().is_probing() {
                return false;
            }
            let cost = self.cost(at);
            if at != first {
                last = Some(at);
            }
            if cost < best.1 {
                best = (at, cost);
            }
            best.1 <= LEAST
        };
        if n <= CHOICES {
            (0..n).filter(|at| *at != first && self.accepts(*at)).any(&mut compare);
        } else {
            (1..CHOICES).any(|_| compare(self.draw()));
        }
        Choice { at: best.0, over: if best.0 == first { last } else { Some(first) } }
    }

    /// How long a request would take at one of them, by what is known here: `(in flight / weight + 1) × slowness`, with the
    /// weight in multiples of the mean one. The one more is the request itself; it is not divided by the weight, so that
    /// idle endpoints are shared by weight alone.
    #[inline(always)]
    fn cost(&self, at: usize) -> f32 {
        let (slot, cell) = (&self.slots.slots[at], self.cell(at));
        let queue = self.in_flight(at) as f32 * slot.request;
        let queue = match cell.admission() {
            Admission::OPEN => queue,
            other => queue / (other.factor() as f32).max(f32::MIN_POSITIVE),
        };
        (queue + 1.0) * cell.slowness()
    }

    /// A draw that fell on one that is not wholly open.
    #[cold]
    #[inline(never)]
    fn draw_on(&self, mut at: usize) -> usize {
        for _ in 0..DRAWS {
            if self.accepts(at) {
                return at;
            }
            at = self.slots.draw(self.random());
        }
        self.any(at)
    }

    #[cold]
    #[inline(never)]
    fn draw_other_on(&self, first: usize) -> usize {
        for _ in 0..REDRAWS {
            let other = self.slots.draw(self.random());
            if other != first && self.accepts(other) {
                return other;
            }
        }
        for _ in 0..DRAWS {
            let other = self.below(self.len());
            if other != first && self.accepts(other) {
                return other;
            }
        }
        first
    }

    /// One that may take a request, if there is any, looked for from here on.
    fn any(&self, from: usize) -> usize {
        let n = self.len();
        (0..n).map(|i| (from + i) % n).find(|at| self.admits(*at)).unwrap_or(from)
    }

    fn accepts(&self, at: usize) -> bool {
        let admission = self.cell(at).admission();
        admission == Admission::OPEN || admission.accepts((self.random() >> 32) as u32, self.in_flight(at))
    }

    #[inline]
    fn below(&self, n: usize) -> usize {
        (((self.random() >> 32) * n as u64) >> 32) as usize
    }

    #[inline]
    fn cell(&self, at: usize) -> &'a Cell {
        cell(&self.slots.chunks, self.slots.cell(at))
    }
}

/// Fills in `keep` and `alias`: each slot gives what it has too little to one that has too much.
fn alias(slots: &mut [Slot], weights: &[u32], mean: f64) {
    let mut fill: Vec<f64> = weights.iter().map(|weight| f64::from(*weight) / mean).collect();
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

    use super::super::cell::{Cells, Seat};
    use super::*;
    use crate::balancer::Rng;

    struct Locality {
        slots: Slots,
        seats: Vec<Seat>,
        rng: Rng,
    }

    impl Locality {
        fn new(weights: &[u32], seed: u64) -> Self {
            let cells = Cells::default();
            let seats: Vec<_> = weights.iter().map(|_| cells.seat()).collect();
            seats.iter().for_each(|seat| seat.cell().admit(Admission::OPEN));
            let endpoints = seats.iter().map(Seat::number).zip(weights.iter().copied());
            Self { slots: Slots::new(cells.chunks(), endpoints).unwrap(), seats, rng: Rng::new(seed) }
        }

        fn candidates(&self) -> Candidates<'_, ()> {
            Candidates::new(&self.slots, &[], Draws { rng: &self.rng, stripe: 0, pending: 0 })
        }

        /// The share of each in so many draws.
        fn shares(&self, draws: u32, draw: impl Fn(&Candidates<'_, ()>) -> usize) -> Vec<f64> {
            let mut seen = vec![0u32; self.seats.len()];
            (0..draws).for_each(|_| seen[draw(&self.candidates())] += 1);
            seen.into_iter().map(|n| f64::from(n) / f64::from(draws)).collect()
        }
    }

    fn check_shares(got: &[f64], weights: &[f64], draws: u32) -> Result<(), TestCaseError> {
        let total: f64 = weights.iter().sum();
        for (weight, got) in weights.iter().zip(got) {
            let wanted = weight / total;
            // Six standard deviations.
            let slack = 6.0 * (wanted * (1.0 - wanted) / f64::from(draws)).sqrt() + 1e-4;
            prop_assert!((got - wanted).abs() <= slack, "{:?} {:?}", weights, got);
        }
        Ok(())
    }

    #[test]
    fn none_of_nothing() {
        assert!(Slots::new(Arc::default(), std::iter::empty()).is_none());
    }

    #[test]
    fn one_is_drawn_twice() {
        let one = Locality::new(&[7], 1);
        assert_eq!((one.candidates().draw(), one.candidates().draw_other(0)), (0, 0));
        assert_eq!(one.candidates().two_choices(|_| 1.0), Choice { at: 0, over: None });
    }

    #[test]
    fn a_giant_does_not_keep_the_second_candidate_from_being_another() {
        let shares = Locality::new(&[1_000_000, 1, 1], 1).shares(3000, |candidates| candidates.draw_other(0));
        assert_eq!(shares[0], 0.0);
        assert!(shares[1] > 0.43 && shares[2] > 0.43, "{shares:?}");
    }

    #[test]
    fn one_at_a_time_is_passed_over_while_it_is_busy() {
        let locality = Locality::new(&[1, 1, 1], 1);
        locality.seats[0].cell().admit(Admission::ONE_AT_A_TIME);
        let drawn = |l: &Locality| l.shares(3000, |candidates| candidates.two_choices(|_| 0.0).at)[0];
        assert!(drawn(&locality) > 0.2);
        locality.seats[0].cell().add(1);
        assert_eq!(drawn(&locality), 0.0);
        assert!(locality.shares(1000, |candidates| candidates.draw_other(1))[0] == 0.0);
    }

    #[test]
    fn one_that_has_not_answered_yet_is_tried_as_often_as_it_is_drawn_however_busy_the_others_are() {
        let locality = Locality::new(&[1; 40], 1);
        locality.seats[1..].iter().for_each(|seat| seat.cell().add(3));
        let share = |admission| {
            locality.seats[0].cell().admit(admission);
            locality.shares(20_000, |candidates| candidates.least_loaded().at)[0]
        };
        let (probing, open) = (share(Admission::probing(0.2)), share(Admission::OPEN));
        assert!((0.003..0.007).contains(&probing), "a fifth of a fortieth: {probing}");
        assert!(open > 0.2, "the least busy of sixteen: {open}");
        // Of a few, all are looked at.
        let few = Locality::new(&[1; 4], 1);
        few.seats[0].cell().admit(Admission::probing(0.2));
        few.seats[1..].iter().for_each(|seat| seat.cell().add(3));
        let share = few.shares(20_000, |candidates| candidates.least_loaded().at)[0];
        assert!((0.05..0.08).contains(&share), "{share}");
    }

    #[test]
    fn who_is_closed_takes_nothing_unless_all_are() {
        let locality = Locality::new(&[1; 40], 1);
        locality.seats[1..].iter().for_each(|seat| seat.cell().admit(Admission::CLOSED));
        assert_eq!(locality.shares(500, |candidates| candidates.two_choices(|_| 9.0).at)[0], 1.0);
        locality.seats[0].cell().admit(Admission::CLOSED);
        assert!(locality.candidates().draw() < 40);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn draws_follow_the_weights_and_admissions(
            endpoints in proptest::collection::vec((1u32..1000, prop_oneof![Just(1.0), 0.05f64..1.0]), 1..20), seed: u64,
        ) {
            let weights: Vec<_> = endpoints.iter().map(|(weight, _)| *weight).collect();
            let locality = Locality::new(&weights, seed);
            for (seat, (_, factor)) in locality.seats.iter().zip(&endpoints) {
                seat.cell().admit(Admission::fraction(*factor));
            }
            // Draws that end vainly, after sixteen refusals, are too rare to be seen where most are open.
            let open: f64 = endpoints.iter().map(|(w, f)| f64::from(*w) * f).sum::<f64>()
                / weights.iter().map(|w| f64::from(*w)).sum::<f64>();
            prop_assume!(open > 0.5);
            let wanted: Vec<f64> = endpoints.iter().map(|(weight, factor)| f64::from(*weight) * factor).collect();
            check_shares(&locality.shares(40_000, |candidates| candidates.draw()), &wanted, 40_000)?;
        }

        #[test]
        fn the_second_candidate_is_another(weights in proptest::collection::vec(1u32..5, 2..6), seed: u64) {
            let locality = Locality::new(&weights, seed);
            let candidates = locality.candidates();
            for _ in 0..200 {
                let first = candidates.draw();
                prop_assert_ne!(candidates.draw_other(first), first);
            }
        }

        #[test]
        fn the_less_loaded_for_its_weight_is_chosen(w in 1u32..9, v in 1u32..9, a in 0u32..9, b in 0u32..9, seed: u64) {
            let locality = Locality::new(&[w, v], seed);
            let choice = locality.candidates().two_choices(|at| f64::from([a, b][at]));
            let other = choice.over.unwrap();
            let ([w, a], [v, b]) = ([[w, a], [v, b]][choice.at], [[w, a], [v, b]][other]);
            prop_assert!(a * v <= b * w);
        }
    }
}
