//! How a locality that was dead takes its share back: not before it has been well for a while, then step by step. Pure:
//! time is handed in.
//!
//! Without this, the moment a lost zone or region is back all its traffic falls on cold processes. A locality that has
//! never been dead is not ramped: at the first start everything is cold, and somebody must serve.

use std::time::Duration;

use tokio::time::Instant;

use crate::xds::model::Failback;

/// The share climbs in so many steps.
pub(crate) const STEPS: u32 = 20;
/// The share at the ramp's foot: enough to warm the first connections and caches.
pub(super) const FLOOR: f64 = 0.02;
/// A flap doubles the hold-down, at most so many times.
const MOST_DOUBLINGS: u32 = 3;

/// What a locality has been through.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) enum Presence {
    /// It has never been usable.
    #[default]
    New,
    /// It takes its whole share.
    Whole,
    /// It was usable and is not; it has died so many times while it came back.
    Dead { flaps: u32 },
    /// It is well again since then.
    Returning { since: Instant, flaps: u32 },
}

impl Presence {
    /// What it is after a look at it.
    ///
    /// `usable`: an endpoint of it could take a request. `dead`: none can, and none is about to. Between the two (its
    /// connections are being replaced, say) nothing changes.
    pub(crate) fn observe(self, usable: bool, dead: bool, now: Instant, failback: Failback) -> Self {
        match self {
            Self::New if usable => Self::Whole,
            Self::Whole if dead => Self::Dead { flaps: 0 },
            Self::Dead { flaps } if usable => Self::Returning { since: now, flaps },
            Self::Returning { flaps, .. } if dead => Self::Dead { flaps: flaps + 1 },
            Self::Returning { since, flaps } if now >= since + hold_down(failback, flaps) + failback.ramp => {
                Self::Whole
            }
            as_it_was => as_it_was,
        }
    }

    /// How much of its share it may take: 0 while it is held down, then `max(2%, k/20)` in 20 steps over the ramp.
    pub(crate) fn fraction(self, now: Instant, failback: Failback) -> f64 {
        let Self::Returning { since, flaps } = self else { return 1.0 };
        let Some(climbed) = now.checked_duration_since(since + hold_down(failback, flaps)) else { return 0.0 };
        if climbed >= failback.ramp {
            return 1.0;
        }
        let step = (climbed.as_secs_f64() / failback.ramp.as_secs_f64() * f64::from(STEPS)).floor();
        (step / f64::from(STEPS)).max(FLOOR)
    }

    /// An interval of `passed` has gone by in which it was slow or failed: three quarters of it do not count, so that the
    /// ramp is up to four times as long, and ends.
    pub(crate) fn hold_up(self, now: Instant, passed: Duration, failback: Failback) -> Self {
        match self {
            // Not while it is held down, nor for what it did before its foot.
            Self::Returning { since, flaps } if now >= since + hold_down(failback, flaps) + passed => {
                Self::Returning { since: since + passed * 3 / 4, flaps }
            }
            as_it_was => as_it_was,
        }
    }

    /// When [`Presence::fraction`] changes next; `None`: not by itself.
    pub(crate) fn next_change(self, now: Instant, failback: Failback) -> Option<Instant> {
        let Self::Returning { since, flaps } = self else { return None };
        let foot = since + hold_down(failback, flaps);
        let Some(climbed) = now.checked_duration_since(foot) else { return Some(foot) };
        // At least a tick of the timer later, or a ramp of nothing would spin.
        let step = (failback.ramp / STEPS).max(Duration::from_millis(1));
        let steps = climbed.as_nanos() / step.as_nanos() + 1;
        Some(foot + step * u32::try_from(steps).unwrap_or(u32::MAX))
    }
}

fn hold_down(failback: Failback, flaps: u32) -> Duration {
    failback.hold_down * (1 << flaps.min(MOST_DOUBLINGS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILBACK: Failback = Failback { ramp: Duration::from_secs(10), hold_down: Duration::from_secs(3) };

    fn returning(now: Instant) -> Presence {
        let whole = Presence::New.observe(true, false, now, FAILBACK);
        whole.observe(false, true, now, FAILBACK).observe(true, false, now, FAILBACK)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_start_is_not_ramped() {
        let now = Instant::now();
        let presence = Presence::New.observe(false, true, now, FAILBACK).observe(true, false, now, FAILBACK);
        assert_eq!(presence, Presence::Whole);
        assert_eq!(presence.fraction(now, FAILBACK), 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_are_replaced_are_no_death() {
        let now = Instant::now();
        assert_eq!(Presence::Whole.observe(false, false, now, FAILBACK), Presence::Whole);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_held_then_climbs_and_ends_whole() {
        let start = Instant::now();
        let mut presence = returning(start);
        let (mut now, mut seen) = (start, Vec::new());
        while presence != Presence::Whole {
            let fraction = presence.fraction(now, FAILBACK);
            assert!(seen.last().is_none_or(|last| fraction >= *last), "it never falls");
            assert_eq!(fraction == 0.0, now < start + FAILBACK.hold_down);
            seen.push(fraction);
            let next = presence.next_change(now, FAILBACK).unwrap();
            assert!(next > now);
            now = next;
            presence = presence.observe(true, false, now, FAILBACK);
        }
        assert_eq!(now, start + FAILBACK.hold_down + FAILBACK.ramp);
        assert_eq!(seen.len() as u32, 1 + STEPS);
        assert_eq!(seen[1], FLOOR);
        assert_eq!(*seen.last().unwrap(), 0.95);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_answers_make_the_ramp_four_times_as_long() {
        let start = Instant::now();
        let (mut presence, mut now) = (returning(start), start);
        while presence != Presence::Whole {
            now += Duration::from_secs(1);
            presence = presence.hold_up(now, Duration::from_secs(1), FAILBACK).observe(true, false, now, FAILBACK);
        }
        let took = (now - start - FAILBACK.hold_down).as_secs();
        assert!((35..=41).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flap_doubles_the_hold_down_up_to_eight_times() {
        let now = Instant::now();
        let mut presence = returning(now);
        for expected in [3, 6, 12, 24, 24, 24] {
            assert_eq!(presence.next_change(now, FAILBACK), Some(now + Duration::from_secs(expected)));
            presence = presence.observe(false, true, now, FAILBACK).observe(true, false, now, FAILBACK);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_ramp_and_no_hold_down_is_whole_at_once() {
        let none = Failback { ramp: Duration::ZERO, hold_down: Duration::ZERO };
        let now = Instant::now();
        let presence = returning(now);
        assert_eq!(presence.fraction(now, none), 1.0);
        assert!(presence.next_change(now, none).unwrap() > now);
        assert_eq!(presence.observe(true, false, now, none), Presence::Whole);
    }
}
