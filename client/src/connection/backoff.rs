//! How long to wait before the next attempt to connect.

use std::time::Duration;

use crate::balancer::Rng;

const FIRST: Duration = Duration::from_millis(100);
const FACTOR: f64 = 1.6;
/// Short, so that a process that was restarted is back within 2 s; an attempt costs one packet.
const MOST: Duration = Duration::from_millis(1600);
/// Waits differ by so much either way, so that clients do not come all at once.
const JITTER: f64 = 0.2;

/// The waits of one endpoint.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The next wait: 0.1 s, then 1.6 times the last up to 1.6 s; each ±20%.
    pub(crate) fn next(&mut self, rng: &Rng) -> Duration {
        let wait = self.next;
        self.next = wait.mul_f64(FACTOR).min(MOST);
        wait.mul_f64(1.0 - JITTER + 2.0 * JITTER * rng.fraction())
    }

    /// A connection was made.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_again() {
        let (mut backoff, rng) = (Backoff::new(), Rng::new(1));
        let waits: Vec<_> = (0..20).map(|_| backoff.next(&rng)).collect();
        assert!(waits[0] >= Duration::from_millis(80) && waits[0] <= Duration::from_millis(120));
        assert!(waits.iter().all(|wait| *wait < Duration::from_secs(2)));
        assert!(waits[19] > Duration::from_secs(1));
        assert!(waits[10..].windows(2).any(|pair| pair[0] != pair[1]), "jitter");
        backoff.reset();
        assert!(backoff.next(&rng) <= Duration::from_millis(120));
    }
}
