//! How fast to get to a target: failover at once; failback, drains and recoveries as ramps; noise not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::blend::{Part, blend};
use super::compose::compose;
use super::history::{History, Sight};
use super::{Carries, Plan, PlannedLocality, Reason, Route, spoilt};
use crate::names::Locality;
use crate::policy::{ActiveDrain, EffectivePolicy, LocalityPolicy};
use crate::view::{Liveness, ServiceView};

/// Shares that change by less than this stay where they are, unless the change lasts for a hold-down.
const DEAD_BAND: f64 = 0.02;

/// What weights cannot tell apart.
const SAME: f64 = 0.002;

/// Where demand is known, shares move towards it by this part of the gap…
const PART_OF_GAP: f64 = 0.25;

/// …and no sooner than this after the last move: three gossip delays, so that its effect is seen first.
const BETWEEN_MOVES: Duration = Duration::from_millis(1500);

/// A plan on its way to its target: what is served now, and what [`pace`] must remember to go on. Persisted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Paced {
    /// What is served.
    pub plan: Plan,
    /// What the places have been through, by locality; those without a past are not in it.
    histories: Vec<History>,
    /// The policy that the plan was made by: a change of it is no failback.
    policy: LocalityPolicy,
    /// When shares moved last.
    moved: Duration,
    /// Since when the target has been a little elsewhere.
    drifting: Option<Duration>,
    /// Whether this was read back after a restart and has not been paced since.
    restarted: bool,
}

impl Paced {
    /// What was read back from disk, on the new process's clock: drains that were on their way count as complete, and
    /// recovery ramps start at their floor.
    #[must_use]
    pub fn after_restart(mut self, now: Duration) -> Self {
        self.histories.iter_mut().for_each(|history| history.after_restart(now));
        Self { moved: now, drifting: None, restarted: true, ..self }
    }
}

/// The next step from `previous` towards `target`, and how long from `now` until the next one is due if nothing else
/// changes (`None`: never).
///
/// `view` and `policy` are what `target` was made from. `now` is since an origin of the caller's choice that is the
/// same for `previous`. A first plan (no `previous`) is served as it is, but for places that their own clusters call
/// recovering.
#[must_use]
pub fn pace(
    previous: Option<&Paced>,
    target: &Plan,
    view: &ServiceView,
    policy: &EffectivePolicy,
    now: Duration,
) -> (Paced, Option<Duration>) {
    Pacer::new(previous, target, view, policy, now).step()
}

/// One locality as it is served and as it should be.
struct Spot<'a> {
    /// In the plan that is served.
    before: Option<&'a PlannedLocality>,
    /// In the target, with the number of its priority there.
    after: Option<(usize, &'a PlannedLocality)>,
    /// For how long it has been back, if its own cluster says that it is recovering.
    recovering: Option<Duration>,
    drain: Option<&'a ActiveDrain>,
    stale: bool,
}

impl Spot<'_> {
    /// The share that is served now.
    fn share(&self) -> f64 {
        self.before.map_or(0.0, |place| place.share)
    }

    /// The share that it should have.
    fn target_share(&self) -> f64 {
        self.after.map_or(0.0, |(_, place)| place.share)
    }

    fn lost_all(&self) -> bool {
        self.after.is_none_or(|(_, place)| health(place) == 0.0)
    }

    fn lost_some(&self) -> bool {
        self.before.is_some_and(|before| self.after.is_none_or(|(_, place)| health(place) < health(before)))
    }

    /// What it could go on serving: its share, less what it cannot carry any more.
    fn keeps(&self) -> f64 {
        let (Some(before), Some((_, after))) = (self.before, self.after) else { return 0.0 };
        if health(after) == 0.0 {
            return 0.0;
        }
        let still = match (before.carries, after.carries) {
            // What a drain takes is taken by its ramp.
            _ if self.drain.is_some() => 1.0,
            (Carries::FractionOfLoad(before), Carries::FractionOfLoad(after))
            | (Carries::RequestsPerSecond(before), Carries::RequestsPerSecond(after))
                if before > 0.0 =>
            {
                (after / before).min(1.0)
            }
            _ => 1.0,
        };
        before.share * still
    }
}

struct Pacer<'a> {
    previous: Option<&'a Paced>,
    target: &'a Plan,
    policy: &'a EffectivePolicy,
    now: Duration,
    /// Every locality of either plan.
    spots: BTreeMap<&'a Locality, Spot<'a>>,
}

impl<'a> Pacer<'a> {
    fn new(
        previous: Option<&'a Paced>,
        target: &'a Plan,
        view: &'a ServiceView,
        policy: &'a EffectivePolicy,
        now: Duration,
    ) -> Self {
        let before = previous.into_iter().flat_map(|previous| previous.plan.priorities.iter().flatten());
        let mut plans: BTreeMap<_, (Option<_>, Option<_>)> =
            before.map(|place| (&place.locality, (Some(place), None))).collect();
        for (priority, all) in target.priorities.iter().enumerate() {
            for place in all {
                plans.entry(&place.locality).or_default().1 = Some((priority, place));
            }
        }
        let spot = |locality: &'a Locality, (before, after): (Option<&'a PlannedLocality>, Option<_>)| {
            let after: Option<(usize, &PlannedLocality)> = after;
            let gateway = after.is_some_and(|(_, place)| place.route == Route::Gateway);
            // Behind gateways, a cluster is one locality, whatever its zones.
            let within: Vec<_> = if gateway {
                view.localities.iter().filter(|(place, _)| place.cluster == locality.cluster).collect()
            } else {
                view.localities.get_key_value(locality).into_iter().collect()
            };
            let here = |drain: &&ActiveDrain| within.iter().any(|(place, _)| drain.scope.contains(place));
            Spot {
                before,
                after,
                recovering: within.iter().filter_map(|(_, facts)| facts.recovering).min(),
                drain: policy.drains.iter().filter(here).max_by_key(|drain| drain.percent),
                stale: view.liveness_of(&locality.cluster) == Liveness::Stale,
            }
        };
        let spots = plans.into_iter().map(|(locality, plans)| (locality, spot(locality, plans))).collect();
        Self { previous, target, policy, now, spots }
    }

    fn step(&self) -> (Paced, Option<Duration>) {
        let histories = self.histories();
        let wanted = || self.spots.iter().filter_map(|(locality, spot)| Some((*locality, spot, spot.after?)));
        let parts = wanted().map(|(locality, spot, after)| self.part(spot, after, histories.get(locality)));
        let parts: Vec<Part> = parts.collect();
        let desired = blend(&parts);
        let served: Vec<f64> = wanted().map(|(_, spot, _)| spot.share()).collect();
        let decision = spoilt(self.decide(&histories, &served, &desired));
        let gone = match decision.step {
            Step::Stay => None,
            Step::All => Some(1.0),
            Step::PartOfTheWay => Some(PART_OF_GAP),
        };
        let shares: Option<BTreeMap<&Locality, f64>> = gone.map(|gone| {
            let shares = served.iter().zip(&desired).map(|(served, desired)| served + (desired - served) * gone);
            wanted().map(|(locality, ..)| locality).zip(shares).collect()
        });
        let because = |place: &PlannedLocality, share: f64| self.because(place, share, histories.get(&place.locality));
        let plan = compose(self.previous.map(|previous| &previous.plan), self.target, shares.as_ref(), because);
        // A place without a share, now or later, may recover unwatched.
        let watched = self.spots.iter().filter(|(_, spot)| spot.share() > 0.0 || spot.target_share() > 0.0);
        let watched = watched.filter_map(|(locality, _)| histories.get(*locality));
        let ramps = watched.filter_map(|history| history.next(self.policy.locality.failback, self.now));
        let next = ramps.chain(decision.next).min();
        let moved = match (&decision.step, self.previous) {
            (Step::Stay, Some(previous)) => previous.moved,
            _ => self.now,
        };
        let paced = Paced {
            plan,
            histories: histories.into_values().collect(),
            policy: self.policy.locality.clone(),
            moved,
            drifting: decision.drifting,
            restarted: false,
        };
        // A wake of nothing at all would spin.
        (paced, next.map(|next| next.max(Duration::from_millis(1))))
    }

    /// Whether there is nothing to remember what was served by: a first plan, or one that was read back.
    fn starting(&self) -> bool {
        self.previous.is_none_or(|previous| previous.restarted)
    }

    /// The share that counts as served. What a recovering place had before a restart counts for nothing.
    fn counts_as_served(&self, spot: &Spot<'_>) -> f64 {
        if self.starting() && spot.recovering.is_some() { 0.0 } else { spot.share() }
    }

    /// The pasts that still matter, with what is seen now.
    fn histories(&self) -> BTreeMap<Locality, History> {
        let failback = self.policy.locality.failback;
        let old = self.previous.map_or(&[][..], |previous| &previous.histories);
        let old = old.iter().map(|history| (history.locality.clone(), history.clone()));
        let mut histories: BTreeMap<_, _> = old.collect();
        for (locality, spot) in &self.spots {
            let sight = spoilt(self.sight(spot));
            let history = histories.entry((*locality).clone());
            history.or_insert_with(|| History::new((*locality).clone())).see(&sight, failback, self.now);
        }
        histories.retain(|_, history| history.matters(failback, self.now));
        histories
    }

    fn sight(&self, spot: &Spot<'a>) -> Sight<'a> {
        let served = self.counts_as_served(spot);
        let now = spot.after.map_or(0.0, |(_, place)| health(place));
        Sight {
            served,
            ready: !spot.lost_all(),
            worse: spot.lost_some() && spot.after.is_some_and(|(_, place)| place.share < served - DEAD_BAND),
            better: spot.before.is_none_or(|before| health(before) < now),
            recovering: spot.recovering,
            drain: spot.drain,
            drained_already: self.starting(),
        }
    }

    fn part(&self, spot: &Spot<'_>, after: (usize, &PlannedLocality), history: Option<&History>) -> Part {
        let (priority, place) = after;
        let served = self.counts_as_served(spot);
        let recovery = history.and_then(|history| history.ceiling(served, place.share, self.now));
        // A first plan has no share that a stale place could have had.
        let stale = (self.previous.is_some() && spot.stale && place.share > served).then_some(served);
        let room = health(place) > 0.0 && has_room(place) && !spot.stale;
        Part {
            to: place.share,
            keeps: spot.keeps().min(served),
            ceiling: recovery.into_iter().chain(stale).reduce(f64::min),
            floor: history.and_then(|history| history.floor(place.share, self.now)).filter(|_| !spot.lost_all()),
            steps_in: room.then(|| (priority, f64::from(place.weight.get()))),
            others: stale.is_some() || self.starting(),
        }
    }

    fn decide(&self, histories: &BTreeMap<Locality, History>, served: &[f64], desired: &[f64]) -> Decision {
        let go = |step| Decision { step, next: None, drifting: None };
        let Some(previous) = self.previous.filter(|previous| !self.must_move(previous)) else { return go(Step::All) };
        let gaps = served.iter().zip(desired).map(|(served, desired)| (served - desired).abs());
        let gap = gaps.fold(0.0, f64::max);
        if gap < SAME {
            return go(Step::Stay);
        }
        let ramping = self.is_ramping(histories);
        if gap < DEAD_BAND && !ramping {
            let since = previous.drifting.unwrap_or(self.now);
            return match left(since.saturating_add(self.policy.locality.failback.hold_down), self.now) {
                None => go(Step::All),
                next => Decision { step: Step::Stay, next, drifting: Some(since) },
            };
        }
        let in_requests = |spot: &Spot<'_>| matches!(spot.after, Some((_, place)) if matches!(place.carries, Carries::RequestsPerSecond(_)));
        // A ramp has its own speed, and its end would wait for ever behind parts of the gap.
        let failing = self.spots.values().any(|spot| spot.share() > 0.0 && spot.lost_some());
        if ramping || failing || !self.spots.values().any(in_requests) {
            return go(Step::All);
        }
        match left(previous.moved.saturating_add(BETWEEN_MOVES), self.now) {
            None => Decision { step: Step::PartOfTheWay, next: Some(BETWEEN_MOVES), drifting: None },
            next => Decision { step: Step::Stay, next, drifting: None },
        }
    }

    /// Whether a place with a share is on a ramp, or was when the last plan was made: then the ramp's end is due.
    fn is_ramping(&self, histories: &BTreeMap<Locality, History>) -> bool {
        self.spots.iter().any(|(locality, spot)| {
            let was = spot.before.is_some_and(|before| matches!(before.because, Reason::Ramping { .. }));
            let is = || histories.get(*locality).and_then(|history| history.ramping_from(self.now)).is_some();
            was || (spot.share().max(spot.target_share()) > 0.0 && is())
        })
    }

    /// Whether the shares that are served cannot stay for a moment: a place is gone, or another policy holds.
    fn must_move(&self, previous: &Paced) -> bool {
        let serves = |spot: &&Spot<'_>| spot.share() > 0.0;
        let mut serving = self.spots.values().filter(serves).peekable();
        previous.restarted
            || previous.policy != self.policy.locality
            || serving.peek().is_none()
            || serving.any(Spot::lost_all)
    }

    fn because(&self, place: &PlannedLocality, share: f64, history: Option<&History>) -> Reason {
        let less = share < place.share - SAME;
        let more = share > place.share + SAME;
        let held = history.is_some_and(|history| history.ceiling(share, place.share, self.now).is_some());
        match history.and_then(|history| history.ramping_from(self.now)) {
            Some(from) if less || more => Reason::Ramping { from, to: place.share },
            _ if less && held => Reason::HeldDown,
            _ if less && self.spots.get(&place.locality).is_some_and(|spot| spot.stale) => Reason::ClusterStale,
            _ if more && place.share == 0.0 => Reason::TakesExcess,
            _ => place.because.clone(),
        }
    }
}

/// How long until `then`; `None` if it has come.
fn left(then: Duration, now: Duration) -> Option<Duration> {
    then.checked_sub(now).filter(|left| !left.is_zero())
}

/// The fraction of a place's endpoints that take traffic; 0 where it must not be used.
fn health(place: &PlannedLocality) -> f64 {
    if place.unhealthy || place.total == 0 { 0.0 } else { f64::from(place.ready) / f64::from(place.total) }
}

/// Whether a place could take more than its target gives it.
fn has_room(place: &PlannedLocality) -> bool {
    !matches!(
        place.because,
        Reason::Full { .. } | Reason::Overload | Reason::Drained { .. } | Reason::DrainedButLast { .. }
    )
}

/// What [`Pacer::decide`] makes of the gap between what is served and what should be.
pub(super) struct Decision {
    pub(super) step: Step,
    next: Option<Duration>,
    drifting: Option<Duration>,
}

pub(super) enum Step {
    Stay,
    PartOfTheWay,
    All,
}
