//! How many calls of a cluster wait for an endpoint. It only counts: who waits for what is the balancer's.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The calls that wait.
#[derive(Debug, Default)]
pub(crate) struct Waiting(AtomicU32);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Waits<'a>(&'a Waiting);

impl Waiting {
    /// One more, unless as many as `limit` wait already.
    pub(crate) fn enter(&self, limit: u32) -> Option<Waits<'_>> {
        let more = |waiting: u32| (waiting < limit).then(|| waiting + 1);
        self.0.fetch_update(Relaxed, Relaxed, more).ok().map(|_| Waits(self))
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_wait_at_once() {
        let waiting = Waiting::default();
        let first = waiting.enter(2).unwrap();
        let _second = waiting.enter(2).unwrap();
        assert!(waiting.enter(2).is_none());
        drop(first);
        assert!(waiting.enter(2).is_some());
    }
}
