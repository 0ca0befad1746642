//! What holds for every target, each property with the bug that it catches.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::cases::{self, Knows, all, holds_and_catches, places, share, worlds};
use super::world::{World, locality};
use crate::plan::bugs::Bug;
use crate::plan::{Route, Tier};
use crate::policy::Preference;
use crate::view::Liveness;

#[test]
fn shares_sum_to_one() {
    holds_and_catches(Bug::ForgetsAShare, &worlds(Knows::Whatever), |world| cases::sums_to_one(&world.plan()));
}

#[test]
fn priorities_are_contiguous() {
    holds_and_catches(Bug::LeavesAGap, &worlds(Knows::Whatever), |world| {
        cases::priorities_are_contiguous(&world.plan())
    });
}

#[test]
fn no_locality_stands_twice() {
    holds_and_catches(Bug::PlacesTwice, &worlds(Knows::Whatever), |world| {
        cases::no_locality_stands_twice(&world.plan())
    });
}

#[test]
fn nothing_goes_to_the_unready() {
    holds_and_catches(Bug::CountsUnready, &worlds(Knows::Whatever), |world| {
        cases::nothing_goes_to_the_unready(&world.plan())
    });
}

#[test]
fn weights_fit_their_type() {
    holds_and_catches(Bug::HugeWeights, &worlds(Knows::Whatever), |world| cases::weights_fit_their_type(&world.plan()));
}

#[test]
fn the_unhealthy_come_last_and_are_marked() {
    holds_and_catches(Bug::ForgetsTheUnhealthy, &worlds(Knows::Whatever), |world| {
        cases::the_unhealthy_come_last(&world.plan())
    });
}

#[test]
fn every_place_is_planned_or_its_cluster_omitted() {
    holds_and_catches(Bug::LosesAPriority, &worlds(Knows::Whatever), |world| {
        let plan = world.plan();
        for place in world.view.localities.iter().filter(|(_, facts)| facts.endpoints.total > 0).map(|(place, _)| place)
        {
            let planned = all(&plan).any(|one| {
                one.locality == *place || (one.route == Route::Gateway && one.locality.cluster == place.cluster)
            });
            let omitted = plan.omitted.iter().any(|omitted| omitted.cluster == place.cluster);
            prop_assert!(planned != omitted, "{place} in {plan:#?}");
        }
        Ok(())
    });
}

#[test]
fn drained_places_rest_while_others_are_ready() {
    holds_and_catches(Bug::IgnoresDrains, &worlds(Knows::Whatever), |world| {
        let plan = world.plan();
        let drained = |place: &crate::names::Locality| {
            world.policy.drains.iter().any(|drain| drain.percent == 100 && drain.scope.contains(place))
        };
        let direct = || all(&plan).filter(|one| one.route == Route::Direct && !one.unhealthy);
        if direct().any(|one| !drained(&one.locality)) {
            for one in direct().filter(|one| drained(&one.locality)) {
                prop_assert_eq!(one.share, 0.0, "{:#?}", plan);
            }
        }
        Ok(())
    });
}

#[test]
fn the_same_input_gives_the_same_plan() {
    holds_and_catches(Bug::CountsItsCalls, &worlds(Knows::Whatever), |world| {
        // What came in another order, as it does at another control plane, is still the same input.
        let mut other = world.clone();
        let backwards: Vec<_> = world.view.localities.clone().into_iter().rev().collect();
        other.view.localities = backwards.into_iter().collect::<BTreeMap<_, _>>();
        prop_assert_eq!(world.plan(), other.plan());
        Ok(())
    });
}

/// A world, a place in it, and endpoints that turn ready there.
fn healing(knows: Knows) -> impl Strategy<Value = (World, Index, u32)> {
    (worlds(knows), any::<Index>(), 1..20_u32)
}

/// More health never means less load. Quantised weights may cost a place up to a hundredth of the whole.
fn more_health_is_never_less_load((mut world, place, more): (World, Index, u32)) -> Result<(), TestCaseError> {
    let place = &places()[place.index(12)];
    let wanted = locality(place);
    let Some(counts) = world.view.localities.get(&wanted).map(|facts| facts.endpoints) else { return Ok(()) };
    let before = world.plan();
    let ready = (counts.ready + more).min(counts.total);
    if let Some(capacity) = world.view.localities[&wanted].capacity.filter(|_| counts.ready > 0) {
        world.capacity(place, capacity * f64::from(ready) / f64::from(counts.ready));
    }
    world.endpoints(place, ready, counts.total);
    let after = world.plan();
    let (less, more) = (share(&before, &wanted), share(&after, &wanted));
    prop_assert!(more > less - 0.01, "{place}: {less} with {}, {more} with {ready}\n{before:#?}", counts.ready);
    Ok(())
}

#[test]
fn more_health_is_never_less_load_by_counts() {
    holds_and_catches(Bug::PrefersTheSick, &healing(Knows::Counts), more_health_is_never_less_load);
}

#[test]
fn more_health_is_never_less_load_by_demand() {
    holds_and_catches(Bug::PrefersTheSick, &healing(Knows::OwnDemand), more_health_is_never_less_load);
}

#[test]
fn at_equal_distance_the_healthier_has_no_less() {
    holds_and_catches(Bug::PrefersTheSick, &worlds(Knows::Counts), |mut world| {
        world.policy.drains.clear();
        let plan = world.plan();
        for one in all(&plan).filter(|one| !matches!(one.tier, Tier::Distant)) {
            let alike = |other: &&crate::plan::PlannedLocality| {
                other.tier == one.tier && other.locality.region == one.locality.region && !other.unhealthy
            };
            for other in all(&plan).filter(alike) {
                let weighted = matches!(one.tier, Tier::Weighted { .. });
                if other.ready > one.ready && !(weighted && other.locality.cluster != one.locality.cluster) {
                    prop_assert!(other.share >= one.share, "{one:#?} has more than {other:#?}");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn what_is_warming_up_bears_no_more_than_when_it_is_warm_and_its_peers_no_less() {
    let warming = (worlds(Knows::Counts), any::<Index>(), 0.0..1.0_f64, any::<bool>());
    holds_and_catches(Bug::OverlooksTheCold, &warming, |(mut world, place, part, ranked)| {
        // Peers of one rank are rare by chance, and only beside them is it known exactly what the cold one bears.
        let near = |place: &String| !ranked || locality(place).region == world.client.region;
        let places: Vec<String> = places().into_iter().filter(near).collect();
        let place = place.get(&places);
        if ranked {
            world.policy.drains.clear();
            let locality = &mut world.policy.locality;
            (locality.preference, locality.cluster_weights) = (Preference::Region, None);
            world.view.liveness.values_mut().for_each(|state| *state = Liveness::Fresh);
        }
        let wanted = locality(place);
        let Some(ready) = world.view.localities.get(&wanted).map(|facts| facts.endpoints.ready) else { return Ok(()) };
        let warm = world.plan();
        world.cold(place, f64::from(ready) * part);
        let cold = world.plan();
        cases::sums_to_one(&cold)?;
        let (before, now) = (share(&warm, &wanted), share(&cold, &wanted));
        prop_assert!(now < before + 0.01, "{place}: {now} cold, {before} warm");
        // Behind gateways the cold zone is a part of its cluster.
        let elsewhere = |one: &&crate::plan::PlannedLocality| {
            one.locality != wanted && (one.route == Route::Direct || one.locality.cluster != wanted.cluster)
        };
        for one in all(&warm).filter(elsewhere) {
            let now = share(&cold, &one.locality);
            prop_assert!(now > one.share - 0.01, "{}: {now} instead of {}", one.locality, one.share);
        }
        // Exactly: beside peers of its own rank, by the weight that is warm.
        let peers: Vec<_> = warm.priorities.first().into_iter().flatten().filter(|one| one.share > 0.0).collect();
        let alike = peers.iter().all(|one| one.tier == peers[0].tier && !one.unhealthy && one.ready > 0);
        let whole = peers.iter().any(|one| one.locality == wanted) && peers.len() > 1;
        if whole && alike && peers[0].tier == Tier::Region && world.policy.drains.is_empty() {
            let weight = |one: &crate::plan::PlannedLocality| f64::from(one.ready);
            let sum: f64 = peers.iter().map(|one| weight(one)).sum();
            let own = f64::from(ready) * (1.0 - part).max(0.01);
            let expected = own / (sum - f64::from(ready) + own);
            prop_assert!((now - expected).abs() < 0.01, "{place}: {now} instead of {expected}\n{cold:#?}");
        }
        Ok(())
    });
}
