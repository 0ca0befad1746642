//! What is counted of an endpoint's requests between two looks at it. Any thread may count.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How requests went since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(in crate::balancer) struct Interval {
    pub(in crate::balancer) succeeded: u32,
    pub(in crate::balancer) failed: u32,
    /// Failures in a row, up to now.
    pub(in crate::balancer) consecutive: u32,
    /// The mean latency of the successes, in seconds.
    pub(in crate::balancer) latency: Option<f32>,
    /// How warm the server says it is, 0 to 1.
    pub(in crate::balancer) warmth: Option<f64>,
    /// Requests are in flight.
    pub(in crate::balancer) busy: bool,
}

/// The counters.
#[derive(Debug)]
pub(in crate::balancer) struct Vitals {
    succeeded: AtomicU32,
    failed: AtomicU32,
    consecutive: AtomicU32,
    /// Of the measured successes.
    measured: AtomicU32,
    microseconds: AtomicU64,
    /// In millionths; `UNSAID`: it says nothing.
    warmth: AtomicU32,
}

const UNSAID: u32 = u32::MAX;

impl Default for Vitals {
    fn default() -> Self {
        Self {
            succeeded: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            consecutive: AtomicU32::new(0),
            measured: AtomicU32::new(0),
            microseconds: AtomicU64::new(0),
            warmth: AtomicU32::new(UNSAID),
        }
    }
}

impl Vitals {
    pub(in crate::balancer) fn success(&self, latency: Option<Duration>) {
        self.succeeded.fetch_add(1, Relaxed);
        if self.consecutive.load(Relaxed) != 0 {
            self.consecutive.store(0, Relaxed);
        }
        if let Some(latency) = latency {
            self.measured.fetch_add(1, Relaxed);
            self.microseconds.fetch_add(latency.as_micros() as u64, Relaxed);
        }
    }

    pub(in crate::balancer) fn failure(&self) {
        self.failed.fetch_add(1, Relaxed);
        self.consecutive.fetch_add(1, Relaxed);
    }

    pub(in crate::balancer) fn says_warmth(&self, warmth: f64) {
        self.warmth.store((warmth.clamp(0.0, 1.0) * 1e6) as u32, Relaxed);
    }

    /// What was counted since the last time. What is counted meanwhile falls into this interval or the next.
    pub(in crate::balancer) fn take(&self, busy: bool) -> Interval {
        let (measured, microseconds) = (self.measured.swap(0, Relaxed), self.microseconds.swap(0, Relaxed));
        let warmth = self.warmth.load(Relaxed);
        Interval {
            succeeded: self.succeeded.swap(0, Relaxed),
            failed: self.failed.swap(0, Relaxed),
            consecutive: self.consecutive.load(Relaxed),
            latency: (measured > 0).then(|| microseconds as f32 / measured as f32 / 1e6),
            warmth: (warmth != UNSAID).then(|| f64::from(warmth) / 1e6),
            busy,
        }
    }

    /// Another process, of which nothing is known.
    pub(in crate::balancer) fn forget(&self) {
        self.take(false);
        self.consecutive.store(0, Relaxed);
        self.warmth.store(UNSAID, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_taken_once_and_a_row_lasts_until_a_success() {
        let vitals = Vitals::default();
        vitals.success(Some(Duration::from_millis(10)));
        vitals.success(Some(Duration::from_millis(30)));
        vitals.success(None);
        vitals.failure();
        vitals.failure();
        let first = vitals.take(false);
        assert_eq!((first.succeeded, first.failed, first.consecutive), (3, 2, 2));
        assert!((first.latency.unwrap() - 0.02).abs() < 1e-6);
        assert_eq!(vitals.take(false), Interval { consecutive: 2, ..Interval::default() });
        vitals.success(None);
        assert_eq!(vitals.take(false), Interval { succeeded: 1, ..Interval::default() });
        vitals.says_warmth(0.25);
        assert_eq!(vitals.take(false).warmth, Some(0.25));
        vitals.forget();
        assert_eq!(vitals.take(false), Interval::default());
    }
}
