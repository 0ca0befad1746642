//! What a place has been through: lost, back, drained. It is what tells a recovery from any other change, and what
//! makes each flap cost more than the one before.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ramp::Ramp;
use crate::names::Locality;
use crate::policy::{ActiveDrain, Failback};

/// The hold-down doubles with each flap, this often at most: eight times.
const MAX_FLAPS: u32 = 3;

/// A lost place is remembered for this long.
const FORGET: Duration = Duration::from_secs(600);

/// One place's past, as far as it still matters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct History {
    pub(super) locality: Locality,
    /// `None`: never lost.
    recovery: Option<Recovery>,
    /// How often it was lost again before it had been well for as long as its hold-down.
    flaps: u32,
    /// The drain that is taking it out, or has.
    drain: Option<Draining>,
}

/// Where a recovery stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Recovery {
    /// It lost endpoints that it needs, and has got none back.
    Down { since: Duration },
    /// Better since then, and not trusted yet.
    Held { since: Duration },
    /// Taking its share back.
    Ramping(Ramp),
    /// As it was before, since then.
    Done { since: Duration },
}

/// A drain on its way out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Draining {
    percent: u32,
    ramp: Ramp,
    restore_over: Duration,
}

/// What is seen of a place at one moment.
#[derive(Debug)]
pub(super) struct Sight<'a> {
    /// The share that is served now.
    pub(super) served: f64,
    /// Whether anything there takes traffic.
    pub(super) ready: bool,
    /// Whether it lost endpoints that cost it share.
    pub(super) worse: bool,
    /// Whether more of its endpoints are ready than when it was seen last.
    pub(super) better: bool,
    /// For how long it has been back, if its own cluster says that it is recovering.
    pub(super) recovering: Option<Duration>,
    pub(super) drain: Option<&'a ActiveDrain>,
    /// Whether a drain that is new here counts as complete: in a first plan, and after a restart.
    pub(super) drained_already: bool,
}

impl History {
    pub(super) fn new(locality: Locality) -> Self {
        Self { locality, recovery: None, flaps: 0, drain: None }
    }

    /// Whether there is anything left to remember.
    pub(super) fn matters(&self, failback: Failback, now: Duration) -> bool {
        let recovery = match self.recovery {
            None => false,
            Some(Recovery::Down { since }) => now < since.saturating_add(FORGET),
            Some(Recovery::Held { .. } | Recovery::Ramping(_)) => true,
            Some(Recovery::Done { since }) => now < since.saturating_add(self.hold(failback)),
        };
        recovery || self.drain.is_some()
    }

    /// The hold-down, as long as the flaps have made it.
    fn hold(&self, failback: Failback) -> Duration {
        failback.hold_down.saturating_mul(1 << self.flaps.min(MAX_FLAPS))
    }

    /// Takes in what is seen now.
    pub(super) fn see(&mut self, sight: &Sight<'_>, failback: Failback, now: Duration) {
        if sight.ready && !sight.worse {
            self.see_well(sight, failback, now);
        } else {
            self.see_lost(now);
        }
        self.see_drain(sight, now);
    }

    fn see_lost(&mut self, now: Duration) {
        // Only a loss that undoes a recovery is a flap: one within the hold-down moved nothing.
        if matches!(self.recovery, Some(Recovery::Ramping(_) | Recovery::Done { .. })) {
            self.flaps = (self.flaps + 1).min(MAX_FLAPS);
        }
        if !matches!(self.recovery, Some(Recovery::Down { .. })) {
            self.recovery = Some(Recovery::Down { since: now });
        }
        if let Some(drain) = &mut self.drain {
            drain.ramp.over = Duration::ZERO;
        }
    }

    fn see_well(&mut self, sight: &Sight<'_>, failback: Failback, now: Duration) {
        let back = now.saturating_sub(sight.recovering.unwrap_or_default());
        self.recovery = match self.recovery {
            Some(Recovery::Down { .. }) if sight.better => Some(Recovery::Held { since: back }),
            None if sight.recovering.is_some() => Some(Recovery::Held { since: back }),
            // What its own cluster says of it beats when the news reached us.
            Some(Recovery::Held { since }) if sight.recovering.is_some() => {
                Some(Recovery::Held { since: since.min(back) })
            }
            // While its cluster calls it recovering, it is not forgotten: it would begin again.
            Some(Recovery::Done { .. }) if sight.recovering.is_some() => Some(Recovery::Done { since: now }),
            other => other,
        };
        if let Some(Recovery::Held { since }) = self.recovery {
            let since = since.saturating_add(self.hold(failback));
            if now >= since {
                self.recovery = Some(Recovery::Ramping(Ramp { since, over: failback.ramp, from: sight.served }));
            }
        }
        if let Some(Recovery::Ramping(ramp)) = self.recovery
            && ramp.is_done(now)
        {
            self.recovery = Some(Recovery::Done { since: now });
        }
    }

    fn see_drain(&mut self, sight: &Sight<'_>, now: Duration) {
        let before = self.drain.as_ref().map_or(0, |drain| drain.percent);
        let percent = sight.drain.map_or(0, |drain| drain.percent);
        if percent < before
            && sight.ready
            && let Some(drain) = &self.drain
        {
            let ramp = Ramp { since: now, over: drain.restore_over, from: sight.served };
            self.recovery = Some(Recovery::Ramping(ramp));
        }
        if percent > before && matches!(self.recovery, Some(Recovery::Ramping(_))) {
            self.recovery = None;
        }
        self.drain = sight.drain.map(|drain| {
            let ramp = match &self.drain {
                Some(old) if percent == before => old.ramp,
                _ => {
                    let instant = percent < before || sight.drained_already || !sight.ready;
                    Ramp { since: now, over: if instant { Duration::ZERO } else { drain.over }, from: sight.served }
                }
            };
            Draining { percent, ramp, restore_over: drain.restore_over }
        });
    }

    /// The most that it may be served now on its way up to `to`, given what it is served.
    pub(super) fn ceiling(&self, served: f64, to: f64, now: Duration) -> Option<f64> {
        match self.recovery? {
            Recovery::Held { .. } => Some(served),
            Recovery::Ramping(ramp) if ramp.from < to => Some(ramp.share(to, now)),
            _ => None,
        }
    }

    /// The least that it is served now on its way down to `to`.
    pub(super) fn floor(&self, to: f64, now: Duration) -> Option<f64> {
        let ramp = self.drain.as_ref()?.ramp;
        (ramp.from > to && !ramp.is_done(now)).then(|| ramp.share(to, now))
    }

    /// The share that its ramp began at; `None` while it is on none.
    pub(super) fn ramping_from(&self, now: Duration) -> Option<f64> {
        match (self.recovery, &self.drain) {
            (Some(Recovery::Ramping(ramp)), _) => Some(ramp.from),
            (_, Some(drain)) if !drain.ramp.is_done(now) => Some(drain.ramp.from),
            _ => None,
        }
    }

    /// How long until time alone changes what this place may be served.
    pub(super) fn next(&self, failback: Failback, now: Duration) -> Option<Duration> {
        let recovery = match self.recovery {
            Some(Recovery::Held { since }) => Some(since.saturating_add(self.hold(failback)).saturating_sub(now)),
            Some(Recovery::Ramping(ramp)) => ramp.next(now),
            _ => None,
        };
        let drain = self.drain.as_ref().and_then(|drain| drain.ramp.next(now));
        recovery.into_iter().chain(drain).min()
    }

    /// After a restart the clock is another: drains that were on their way count as complete, a hold-down begins
    /// again, and a ramp starts at its floor.
    pub(super) fn after_restart(&mut self, now: Duration) {
        self.recovery = self.recovery.map(|recovery| match recovery {
            Recovery::Down { .. } => Recovery::Down { since: now },
            Recovery::Held { .. } => Recovery::Held { since: now },
            Recovery::Ramping(ramp) => Recovery::Ramping(Ramp { since: now, from: 0.0, ..ramp }),
            Recovery::Done { .. } => Recovery::Done { since: now },
        });
        if let Some(drain) = &mut self.drain {
            drain.ramp = Ramp { since: now, over: Duration::ZERO, from: drain.ramp.from };
        }
    }
}
