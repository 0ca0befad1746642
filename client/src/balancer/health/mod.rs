//! What an endpoint may take by what became of its requests: nothing while it is ejected, one at a time until it has shown
//! that it answers, part of its share while it warms up. Pure: time is handed in.
//!
//! It never looks at connections: who is not connected takes nothing anyway.

mod newcomers;
mod outlier;
mod vitals;
mod warmup;

use std::time::Duration;

use tokio::time::Instant;

pub(super) use self::newcomers::Newcomers;
pub(super) use self::outlier::{Member, judge};
pub(super) use self::vitals::{Interval, Vitals};

use super::Admission;
use crate::xds::model::{OutlierDetection, Warmup};

/// An ejection lasts twice as long as the one before, at most so many times; a healthy base time halves it again.
const MOST_DOUBLINGS: u32 = 5;

/// Where an endpoint stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Standing {
    now: State,
    /// Ejections that still count.
    ejections: u32,
    /// When the last of them is forgiven.
    forgiven: Option<Instant>,
}

/// What is known of an endpoint's peers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Around {
    /// Their latency in seconds, if known.
    pub(super) typical: Option<f32>,
    pub(super) newcomers: Newcomers,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// It takes its whole share.
    Whole,
    /// One request at a time, until the first success; it has waited for so long.
    Proving(Duration),
    /// It has been well for so long since its first success.
    Warming(Duration),
    /// It takes nothing until then.
    Ejected(Instant),
}

impl Standing {
    /// An endpoint that may begin at once: everything was cold when the balancer began, and somebody must serve.
    pub(super) const WHOLE: Self = Self { now: State::Whole, ejections: 0, forgiven: None };
    /// A new one among others that serve.
    pub(super) const NEW: Self = Self { now: State::Proving(Duration::ZERO), ..Self::WHOLE };

    /// What it may take.
    pub(super) fn admission(self, warmup: &Warmup) -> Admission {
        match self.now {
            State::Whole => Admission::OPEN,
            State::Proving(waited) => Admission::probing(probing(waited, warmup.window)),
            State::Warming(well) => Admission::fraction(warmup.fraction(well)),
            State::Ejected(_) => Admission::CLOSED,
        }
    }

    pub(super) fn is_ejected(self) -> bool {
        matches!(self.now, State::Ejected(_))
    }

    /// Ejected: for the base time at first, twice as long each time it comes to that again.
    pub(super) fn eject(self, now: Instant, limits: &OutlierDetection) -> Self {
        let time = limits.base_ejection_time * (1 << self.ejections.min(MOST_DOUBLINGS));
        let until = now + time;
        Self { now: State::Ejected(until), ejections: self.ejections + 1, forgiven: Some(until + time) }
    }

    /// It takes less than its share because it has only just begun.
    pub(super) fn is_new(self) -> bool {
        matches!(self.now, State::Proving(_) | State::Warming(_))
    }

    /// It was out of reach and is back: another process, perhaps, and cold. If it was ejected, this is its probe.
    pub(super) fn reconnected(self) -> Self {
        Self { now: State::Proving(Duration::ZERO), ..self }
    }

    /// After an interval of `passed` in which it did as `interval` says, among such peers.
    pub(super) fn after(
        self,
        interval: &Interval,
        Around { typical, newcomers }: Around,
        now: Instant,
        passed: Duration,
        (limits, warmup): (&OutlierDetection, &Warmup),
    ) -> Self {
        let forgiven = self.forgiven.is_some_and(|at| now >= at && !self.is_ejected());
        let calmed = if forgiven {
            let ejections = self.ejections.saturating_sub(1);
            let next = now + limits.base_ejection_time * (1 << ejections.min(MOST_DOUBLINGS));
            Self { ejections, forgiven: (ejections > 0).then_some(next), ..self }
        } else {
            self
        };
        let state = match self.now {
            State::Ejected(until) if now >= until => State::Proving(Duration::ZERO),
            // The probe failed: it stays out, for longer if it was ejected before.
            State::Proving(_) if interval.failed > 0 => return calmed.eject(now, limits),
            State::Proving(_) if interval.succeeded > 0 => State::Warming(Duration::ZERO),
            // Once it has a request it is its turn.
            State::Proving(waited) if !interval.busy => State::Proving(waited + newcomers.slowed(passed)),
            State::Warming(well) => {
                let well = match interval.warmth {
                    Some(warmth) => warmup.window.mul_f64(warmup.time_of(warmth)),
                    // One that errs or is slower than its peers does not get on.
                    None if interval.failed > 0 || warmup.is_slow(interval.latency, typical) => well,
                    None => well + passed,
                };
                if well >= warmup.window { State::Whole } else { State::Warming(well) }
            }
            as_it_was => as_it_was,
        };
        Self { now: state, ..calmed }
    }
}

/// The part of its share that an endpoint gets which nobody has heard of yet.
///
/// All clients learn of a cold endpoint at the same moment, and one request of each may be far more than it can answer. So
/// it begins with little, and with twice as much after each twentieth of the window: busy clients try it first. That takes
/// longer where those of them that were tried were slow ([`Newcomers`]).
fn probing(waited: Duration, window: Duration) -> f64 {
    const FIRST: f64 = 0.01;
    if window.is_zero() {
        return 1.0;
    }
    (FIRST * (waited.as_secs_f64() / window.as_secs_f64() * 20.0).exp2()).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn answered(succeeded: u32, failed: u32) -> Interval {
        Interval { succeeded, failed, latency: Some(0.01), ..Interval::default() }
    }

    fn step(standing: Standing, interval: Interval, now: Instant) -> Standing {
        let around = Around { typical: Some(0.01), newcomers: Newcomers::default() };
        standing.after(&interval, around, now, SECOND, (&OutlierDetection::default(), &Warmup::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_endpoint_proves_itself_then_ramps_then_is_whole() {
        let (now, warmup) = (Instant::now(), Warmup::default());
        let mut standing = Standing::NEW;
        assert_eq!(standing.admission(&warmup), Admission::probing(0.01));
        standing = (0..3).fold(standing, |standing, _| step(standing, answered(0, 0), now));
        assert_eq!(standing.admission(&warmup), Admission::probing(0.02), "it waits");
        assert_eq!(step(standing, Interval { busy: true, ..answered(0, 0) }, now), standing, "it was asked");
        standing = (0..17).fold(standing, |standing, _| step(standing, answered(0, 0), now));
        assert_eq!(standing.admission(&warmup), Admission::ONE_AT_A_TIME);
        standing = step(standing, answered(1, 0), now);
        let mut seen = vec![standing.admission(&warmup).factor()];
        while standing != Standing::WHOLE {
            standing = step(standing, answered(3, 0), now);
            seen.push(standing.admission(&warmup).factor());
        }
        assert!(seen.is_sorted(), "{seen:?}");
        assert!((seen[0] - 0.1).abs() < 1e-3, "{seen:?}");
        assert_eq!(seen.len(), 1 + warmup.window.as_secs() as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_errs_or_is_slow_does_not_get_on_and_one_that_says_it_is_warm_does() {
        let (now, warmup) = (Instant::now(), Warmup::default());
        let warming = step(Standing::NEW, answered(1, 0), now);
        assert_eq!(step(warming, answered(9, 1), now), warming);
        assert_eq!(step(warming, Interval { latency: Some(0.1), ..answered(9, 0) }, now), warming);
        let says = |warmth| step(warming, Interval { warmth: Some(warmth), ..answered(9, 1) }, now);
        assert!((says(0.5).admission(&warmup).factor() - 0.5).abs() < 1e-3);
        assert_eq!(says(1.0), Standing::WHOLE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ejection_ends_in_a_probe_and_its_failure_doubles_it() {
        let (start, limits, warmup) = (Instant::now(), OutlierDetection::default(), Warmup::default());
        let out = Standing::WHOLE.eject(start, &limits);
        assert_eq!(out.admission(&warmup), Admission::CLOSED);
        let before = start + limits.base_ejection_time - Duration::from_millis(1);
        assert!(step(out, answered(0, 0), before).is_ejected());
        let back = start + limits.base_ejection_time;
        let proving = step(out, answered(0, 0), back);
        assert_eq!(proving.admission(&warmup), Admission::probing(0.01));
        let again = step(proving, answered(0, 1), back);
        assert!(step(again, answered(0, 0), back + limits.base_ejection_time).is_ejected());
        assert!(!step(again, answered(0, 0), back + 2 * limits.base_ejection_time).is_ejected());
        assert!(!step(proving, answered(1, 0), back).is_ejected());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_back_while_it_is_ejected_is_probed_at_once() {
        let (now, limits, warmup) = (Instant::now(), OutlierDetection::default(), Warmup::default());
        let back = Standing::WHOLE.eject(now, &limits).reconnected();
        assert_eq!(back.admission(&warmup), Admission::probing(0.01));
        assert!(step(back, answered(0, 1), now).is_ejected());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_long_ago_is_forgiven() {
        let limits = OutlierDetection::default();
        let mut now = Instant::now();
        let mut standing = Standing::WHOLE.eject(now, &limits);
        for _ in 0..600 {
            now += SECOND;
            standing = step(standing, answered(5, 0), now);
        }
        assert_eq!(standing, Standing::WHOLE);
    }
}
