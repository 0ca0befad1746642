//! The retry budget: retries are at most so many of a hundred calls, so that an overloaded service is not given more load.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// A retry costs this: hundredths of one.
const RETRY: i64 = 100;
/// Saved at the start, so that the first calls of a quiet client may be retried.
const START: i64 = 10 * RETRY;
/// Saved at most: what bursts of failures may spend.
const MOST: i64 = 1000 * RETRY;

/// What a cluster has saved for retries.
#[derive(Debug)]
pub(crate) struct Budget {
    saved: AtomicI64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { saved: AtomicI64::new(START) }
    }
}

impl Budget {
    /// A call was made. Each earns so many hundredths of a retry.
    pub(crate) fn earn(&self, percent: u32) {
        // Exceeding the most by a few calls at once does no harm.
        if self.saved.load(Relaxed) < MOST {
            self.saved.fetch_add(percent.into(), Relaxed);
        }
    }

    /// Pays for a retry, if there is enough.
    pub(crate) fn spend(&self) -> bool {
        let spend = |saved| (saved >= RETRY).then_some(saved - RETRY);
        self.saved.fetch_update(Relaxed, Relaxed, spend).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_calls_earn_a_retry() {
        let budget = Budget::default();
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
        for _ in 0..500 {
            budget.earn(20);
        }
        assert_eq!((0..200).filter(|_| budget.spend()).count(), 100);
    }

    #[test]
    fn savings_end_somewhere() {
        let budget = Budget::default();
        for _ in 0..10_000 {
            budget.earn(20);
        }
        assert_eq!((0..2000).filter(|_| budget.spend()).count(), 1000);
    }
}
