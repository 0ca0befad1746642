//! A share on its way: linear, in steps that are few enough to be cheap and many enough to be smooth.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A ramp is at once at this fraction of its way: something must be sent for anything to be learnt.
const FLOOR: f64 = 0.01;

/// Steps of a ramp, if [`MIN_STEP`] and [`MAX_STEP`] allow as many.
const STEPS: u32 = 20;
const MIN_STEP: Duration = Duration::from_millis(200);
const MAX_STEP: Duration = Duration::from_secs(5);

/// From one share to another, over a time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ramp {
    /// When it began.
    pub(super) since: Duration,
    /// How long it takes.
    pub(super) over: Duration,
    /// The share at its beginning.
    pub(super) from: f64,
}

impl Ramp {
    pub(super) fn is_done(&self, now: Duration) -> bool {
        self.elapsed(now) >= self.over
    }

    /// The fraction of its way that it has gone, by whole steps.
    fn progress(&self, now: Duration) -> f64 {
        if self.is_done(now) {
            return 1.0;
        }
        let steps = self.elapsed(now).as_nanos() / self.step().as_nanos();
        let gone = steps as f64 * self.step().as_secs_f64() / self.over.as_secs_f64();
        gone.clamp(FLOOR, 1.0)
    }

    /// The share now, on the way to `to`.
    pub(super) fn share(&self, to: f64, now: Duration) -> f64 {
        self.from + (to - self.from) * self.progress(now)
    }

    /// How long until its next step; `None` once it is done.
    pub(super) fn next(&self, now: Duration) -> Option<Duration> {
        let elapsed = self.elapsed(now);
        let left = self.over.checked_sub(elapsed).filter(|left| !left.is_zero())?;
        let into = Duration::from_nanos((elapsed.as_nanos() % self.step().as_nanos()) as u64);
        Some(left.min(self.step() - into))
    }

    fn elapsed(&self, now: Duration) -> Duration {
        now.saturating_sub(self.since)
    }

    fn step(&self) -> Duration {
        (self.over / STEPS).clamp(MIN_STEP, MAX_STEP)
    }
}
