//! What a balancer counts for one endpoint. It belongs to the address and outlives every snapshot.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Counters on cache lines of their own, so that two endpoints' never share one.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Load {
    in_flight: AtomicU32,
    succeeded: AtomicU64,
    failed: AtomicU64,
    address: SocketAddr,
}

impl Load {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { in_flight: AtomicU32::new(0), succeeded: AtomicU64::new(0), failed: AtomicU64::new(0), address }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    #[inline]
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn start(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self, success: bool) {
        if success { &self.succeeded } else { &self.failed }.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests ended well and badly.
    pub(super) fn outcomes(&self) -> (u64, u64) {
        (self.succeeded.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}
