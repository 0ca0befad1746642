//! Makes a plan to serve from a target and the shares that hold now: priorities without a gap, weights that stay where
//! they are until they must move.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use super::target::weight;
use super::{Plan, PlannedLocality, Reason, Tier, spoilt};
use crate::names::Locality;

/// Weights of a lower priority that would change by less than this fraction of it stay.
const DEAD_BAND: f64 = 0.02;

/// Below this a place has no share.
const NO_SHARE: f64 = 1e-6;

/// `target` with `shares` in its first priority; without `shares`, with those that `previous` has.
pub(super) fn compose(
    previous: Option<&Plan>,
    target: &Plan,
    shares: Option<&BTreeMap<&Locality, f64>>,
    because: impl Fn(&PlannedLocality, f64) -> Reason,
) -> Plan {
    let weights = first_weights(previous, shares);
    let sum: f64 = weights.values().map(|weight| f64::from(weight.get())).sum();
    let placed = |place: &PlannedLocality| {
        let weight = weights.get(&place.locality);
        let share = weight.map_or(0.0, |weight| f64::from(weight.get()) / sum);
        PlannedLocality {
            weight: weight.copied().unwrap_or(place.weight),
            share,
            because: because(place, share),
            ..place.clone()
        }
    };
    let all = target.priorities.iter().flatten();
    let mut first: Vec<_> = all.filter(|place| weights.contains_key(&place.locality)).map(placed).collect();
    first.sort_by_key(|place| (nearness(&place.tier), place.locality.clone()));
    // What must wait for its share is next: nothing is nearer, should everything that has one die at once.
    let rest = target.priorities.iter().map(|priority| -> Vec<_> {
        priority.iter().filter(|place| !weights.contains_key(&place.locality)).map(placed).collect()
    });
    let mut priorities: Vec<_> = std::iter::once(first).chain(rest).filter(|priority| !priority.is_empty()).collect();
    if let Some(previous) = previous {
        priorities.iter_mut().skip(usize::from(!weights.is_empty())).for_each(|priority| damp(priority, previous));
    }
    spoilt(Plan { priorities, ..target.clone() })
}

fn first_weights(previous: Option<&Plan>, shares: Option<&BTreeMap<&Locality, f64>>) -> BTreeMap<Locality, NonZeroU32> {
    match shares {
        Some(shares) => {
            let taken = shares.iter().filter(|(_, share)| **share > NO_SHARE);
            taken.map(|(locality, share)| ((*locality).clone(), weight(*share))).collect()
        }
        None => {
            let first = previous.and_then(|previous| previous.priorities.first()).into_iter().flatten();
            first.filter(|place| place.share > 0.0).map(|place| (place.locality.clone(), place.weight)).collect()
        }
    }
}

/// Keeps the weights of the same places in a priority of `previous`, if they are nearly the same.
fn damp(priority: &mut [PlannedLocality], previous: &Plan) {
    let names: BTreeSet<_> = priority.iter().map(|place| &place.locality).collect();
    let same = |other: &&Vec<PlannedLocality>| {
        other.len() == names.len() && other.iter().all(|place| names.contains(&place.locality) && place.share == 0.0)
    };
    let Some(before) = previous.priorities.iter().find(same) else { return };
    let weights: BTreeMap<_, _> = before.iter().map(|place| (place.locality.clone(), place.weight)).collect();
    let sum = |all: &[PlannedLocality]| -> f64 { all.iter().map(|place| f64::from(place.weight.get())).sum() };
    let (new, old) = (sum(priority), sum(before));
    let near = priority.iter().all(|place| {
        let before = weights.get(&place.locality).map_or(0.0, |weight| f64::from(weight.get()) / old);
        (f64::from(place.weight.get()) / new - before).abs() < DEAD_BAND
    });
    if near {
        for place in priority {
            place.weight = weights.get(&place.locality).copied().unwrap_or(place.weight);
        }
    }
}

/// The order of tiers in a table: nearest first, a heavier failover region before a lighter one.
fn nearness(tier: &Tier) -> (u32, u32) {
    match tier {
        Tier::Zone => (0, 0),
        Tier::ZoneElsewhere => (1, 0),
        Tier::Region => (2, 0),
        Tier::Failover { percent } => (3, 100 - percent.min(&100)),
        Tier::Weighted { percent } => (4, 100 - percent.min(&100)),
        Tier::Distant => (5, 0),
    }
}

impl Plan {
    /// All localities in the order in which `explain` prints them: nearest tier first, within a tier by name.
    #[must_use]
    pub fn by_tier(&self) -> Vec<&PlannedLocality> {
        let all = self.priorities.iter().enumerate();
        let mut all: Vec<_> = all.flat_map(|(priority, all)| all.iter().map(move |place| (priority, place))).collect();
        all.sort_by_key(|(priority, place)| {
            // Distant regions differ only by the priority that their distance gave them.
            let distance = if place.tier == Tier::Distant && place.share == 0.0 { *priority } else { 0 };
            (nearness(&place.tier), distance, &place.locality)
        });
        all.into_iter().map(|(_, place)| place).collect()
    }
}
