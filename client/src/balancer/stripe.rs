//! What threads count apart, so that they do not wait for each other's cache lines: open requests, and each thread's last
//! pick until somebody else has to know of it.
//!
//! A pick that ends before its thread picks again is never seen by another thread, and costs none of them anything. One
//! that lives on is published (added to its endpoint's [`Cell`](super::cell::Cell)) when it is held, or at its thread's
//! next pick.

use std::cell::Cell as ThreadCell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

pub(super) const STRIPES: usize = 16;

thread_local! {
    static STRIPE: ThreadCell<usize> = const { ThreadCell::new(usize::MAX) };
}

/// This thread's stripe: threads are numbered as they come.
#[inline]
pub(super) fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    STRIPE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Relaxed));
        }
        mine.get() % STRIPES
    })
}

/// Open requests above, and below them the cell of the last pick plus one, or 0 if it is published or has ended. On cache
/// lines of its own (two: processors fetch them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

const OPEN: u64 = 1 << 32;

fn open(word: u64) -> u64 {
    word / OPEN
}

fn pending(word: u64) -> u32 {
    word as u32
}

/// As many requests are open as may be.
#[derive(Debug, PartialEq)]
pub(super) struct Full;

/// The open requests of a balancer.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    stripes: [Stripe; STRIPES],
    /// A stripe has its part of the limit or more. While none has, their sum is within it, and nobody looks at the others.
    crowded: Crowded,
}

/// Written seldom, so that all threads may read it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Crowded(AtomicBool);

impl Ledger {
    #[inline(always)]
    fn is_full(&self, mine: u64, limit: u64) -> bool {
        let part = limit / STRIPES as u64;
        if mine >= part && !self.crowded.0.load(Relaxed) {
            self.crowded.0.store(true, Relaxed);
        }
        self.crowded.0.load(Relaxed) && self.is_full_in_sum(part, limit)
    }

    #[cold]
    #[inline(never)]
    fn is_full_in_sum(&self, part: u64, limit: u64) -> bool {
        let (mut sum, mut most) = (0, 0);
        for stripe in &self.stripes {
            let open = open(stripe.0.load(Relaxed));
            (sum, most) = (sum + open, most.max(open));
        }
        if most < part {
            self.crowded.0.store(false, Relaxed);
        }
        sum >= limit
    }

    /// Counts one more open request, unless `limit` are open; threads that come at the same moment may exceed it by one
    /// each. Returns the cell of the stripe's last pick if that is still to be published.
    #[inline(always)]
    pub(super) fn enter(&self, stripe: usize, cell: u32, limit: u32) -> Result<Option<u32>, Full> {
        let word = &self.stripes[stripe].0;
        let mut seen = word.load(Relaxed);
        loop {
            if self.is_full(open(seen), u64::from(limit)) {
                return Err(Full);
            }
            let next = (open(seen) + 1) * OPEN + u64::from(cell + 1);
            match word.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => return Ok(pending(seen).checked_sub(1)),
                Err(now) => seen = now,
            }
        }
    }

    /// Counts one less. Returns whether the pick's cell knows of it: then it must be told of the end as well.
    ///
    /// A stripe's pending pick is as good as any other of the same cell: whichever ends first takes it back.
    #[inline]
    pub(super) fn leave(&self, stripe: usize, cell: u32) -> bool {
        let word = &self.stripes[stripe].0;
        let mut seen = word.load(Relaxed);
        loop {
            let mine = pending(seen) == cell + 1;
            let next = seen - OPEN - if mine { u64::from(cell + 1) } else { 0 };
            match word.compare_exchange_weak(seen, next, Relaxed, Relaxed) {
                Ok(_) => return !mine,
                Err(now) => seen = now,
            }
        }
    }

    /// Takes the stripe's last pick to publish it, if it is one of this cell.
    pub(super) fn take_pending(&self, stripe: usize, cell: u32) -> bool {
        let word = &self.stripes[stripe].0;
        word.fetch_update(Relaxed, Relaxed, |seen| (pending(seen) == cell + 1).then(|| seen - u64::from(cell + 1)))
            .is_ok()
    }

    /// The cell of the stripe's pending pick plus one; 0 if there is none.
    #[inline]
    pub(super) fn pending(&self, stripe: usize) -> u32 {
        pending(self.stripes[stripe].0.load(Relaxed))
    }

    /// How many pending picks there are of a cell, over all threads.
    pub(super) fn pending_of(&self, cell: u32) -> u32 {
        (0..STRIPES).filter(|stripe| self.pending(*stripe) == cell + 1).count() as u32
    }

    /// How many requests are open.
    #[cfg(test)]
    pub(super) fn open(&self) -> u64 {
        self.stripes.iter().map(|stripe| open(stripe.0.load(Relaxed))).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_limit_holds_over_all_stripes() {
        let ledger = Ledger::default();
        for i in 0..20 {
            assert!(ledger.enter(i % 3, 7, 20).is_ok());
        }
        assert_eq!(ledger.enter(5, 7, 20), Err(Full));
        ledger.leave(0, 7);
        assert!(ledger.enter(5, 7, 20).is_ok());
        assert_eq!(ledger.open(), 20);
        ledger.leave(5, 7);
        for i in 0..18 {
            ledger.leave(i % 3, 7);
        }
        assert!(ledger.enter(4, 7, 64).is_ok());
        assert!(!ledger.crowded.0.load(Relaxed), "and nobody looks at the others any more");
    }

    proptest! {
        /// Whatever begins, is held and ends where and in whatever order: cells and pending picks sum to what is open.
        #[test]
        fn nothing_is_lost(steps in proptest::collection::vec((0usize..3, 0u32..3, 0usize..3, any::<prop::sample::Index>()), 1..200)) {
            let ledger = Ledger::default();
            let mut cells = [0i32; 3];
            let mut open: Vec<(usize, u32)> = Vec::new();
            for (stripe, cell, what, which) in steps {
                match what {
                    0 => {
                        if let Some(last) = ledger.enter(stripe, cell, u32::MAX).unwrap() {
                            cells[last as usize] += 1;
                        }
                        open.push((stripe, cell));
                    }
                    1 if !open.is_empty() => {
                        let (stripe, cell) = open[which.index(open.len())];
                        cells[cell as usize] += i32::from(ledger.take_pending(stripe, cell));
                    }
                    _ if !open.is_empty() => {
                        let (stripe, cell) = open.swap_remove(which.index(open.len()));
                        cells[cell as usize] -= i32::from(ledger.leave(stripe, cell));
                    }
                    _ => {}
                }
                prop_assert_eq!(ledger.open(), open.len() as u64);
                for cell in 0..3u32 {
                    let expected = open.iter().filter(|(_, at)| *at == cell).count() as i32;
                    prop_assert_eq!(cells[cell as usize] + ledger.pending_of(cell) as i32, expected);
                }
            }
        }
    }
}
