//! A circuit breaker: how many of a cluster's calls do something at once, up to a limit. It only counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Counts calls up to a limit, which may change while they run; no limit at first.
#[derive(Debug)]
pub(super) struct Breaker {
    limit: AtomicU32,
    /// Shared with those that it counts, so that they may outlive the cluster.
    inside: Arc<AtomicU32>,
}

/// A call that is counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Passed(Arc<AtomicU32>);

impl Default for Breaker {
    fn default() -> Self {
        Self { limit: AtomicU32::new(u32::MAX), inside: Arc::default() }
    }
}

impl Breaker {
    /// So many from now on; `None`: no limit.
    pub(super) fn limit(&self, limit: Option<u32>) {
        self.limit.store(limit.unwrap_or(u32::MAX), Relaxed);
    }

    /// One more.
    ///
    /// # Errors
    /// There are as many as may be: the limit.
    pub(super) fn pass(&self) -> Result<Passed, u32> {
        let limit = self.limit.load(Relaxed);
        let more = |inside: u32| (inside < limit).then(|| inside + 1);
        self.inside.fetch_update(Relaxed, Relaxed, more).map(|_| Passed(Arc::clone(&self.inside))).map_err(|_| limit)
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_pass_at_once_and_the_limit_may_change() {
        let breaker = Breaker::default();
        breaker.limit(Some(2));
        let (first, _second) = (breaker.pass().unwrap(), breaker.pass().unwrap());
        assert_eq!(breaker.pass().unwrap_err(), 2);
        drop(first);
        let _third = breaker.pass().unwrap();
        assert!(breaker.pass().is_err());
        breaker.limit(None);
        assert!(breaker.pass().is_ok());
    }
}
