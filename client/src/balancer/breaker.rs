//! The circuit breaker: how many requests may be open at once over all endpoints (`max_requests`).

use std::sync::atomic::{AtomicU32, Ordering};

/// The open requests of a balancer, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Breaker {
    open: AtomicU32,
}

impl Breaker {
    /// Counts one more, unless `limit` are open.
    #[inline]
    pub(super) fn enter(&self, limit: u32) -> bool {
        let within = self.open.fetch_add(1, Ordering::Relaxed) < limit;
        if !within {
            self.leave();
        }
        within
    }

    #[inline]
    pub(super) fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }
}
