//! How long to leave a server alone after a failure: exponential, with full jitter, so that a fleet does not come back at once.

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);

/// One server's failures in a row.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    not_before: Instant,
}

impl Backoff {
    pub(super) fn new(now: Instant) -> Self {
        Self { failures: 0, not_before: now }
    }

    /// The server answered.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// A connection that had worked ended: it may come back at once, so a short wait.
    pub(super) fn broke(&mut self, now: Instant, random: &mut impl Rng) {
        self.not_before = now + random.random_range(Duration::ZERO..=FIRST);
    }

    /// It could not be reached, or did not answer: somewhere between nothing and 0.2 s, 0.4 s, 0.8 s … 30 s.
    pub(super) fn failed(&mut self, now: Instant, random: &mut impl Rng) {
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(20)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + random.random_range(Duration::ZERO..=ceiling);
    }

    /// Whether it failed since it last answered.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    pub(super) fn not_before(&self) -> Instant {
        self.not_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[tokio::test(start_paused = true)]
    async fn waits_grow_to_a_limit_and_start_again_after_an_answer() {
        let mut random = StdRng::seed_from_u64(7);
        let now = Instant::now();
        let mut backoff = Backoff::new(now);
        let mut longest = Duration::ZERO;
        for failure in 0..200u32 {
            backoff.failed(now, &mut random);
            let wait = backoff.not_before() - now;
            assert!(wait <= LONGEST.min(FIRST * 2u32.saturating_pow(failure.min(10))));
            longest = longest.max(wait);
        }
        assert!(longest > LONGEST / 2, "{longest:?}");
        assert!(backoff.is_failing());
        backoff.succeeded();
        backoff.failed(now, &mut random);
        assert!(backoff.not_before() - now <= FIRST);
    }
}
