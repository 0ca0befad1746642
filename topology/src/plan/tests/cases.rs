//! Worlds that proptest makes up, and the check that a property holds in all of them and catches its seeded bug.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseResult, TestError, TestRunner};

use super::world::{REGIONS, World, cluster, failover, locality};
use crate::names::Locality;
use crate::plan::bugs::{self, Bug};
use crate::plan::{Plan, PlannedLocality};
use crate::policy::{Preference, WeightedCluster};
use crate::view::Liveness;

/// Checks that `property` holds for whatever `worlds` makes, and that it does not once `bug` is in the planner.
#[track_caller]
pub(super) fn holds_and_catches<S: Strategy>(bug: Bug, worlds: &S, property: impl Fn(S::Value) -> TestCaseResult) {
    let run = |config, bug| bugs::with(bug, || TestRunner::new(config).run(worlds, &property));
    // Half of proptest's own number unless PROPTEST_CASES asks for more: the whole suite stays within seconds.
    let config = Config { failure_persistence: None, ..Config::default() };
    let config = Config { cases: config.cases / 2, ..config };
    if let Err(error) = run(config.clone(), None) {
        panic!("the property does not hold: {error}");
    }
    match run(Config { max_shrink_iters: 0, cases: 2_000, ..config }, Some(bug)) {
        Err(TestError::Fail(..)) => {}
        Ok(()) => panic!("the property holds with {bug:?} in the planner too"),
        Err(error @ TestError::Abort(_)) => panic!("{error}"),
    }
}

/// `ZONE/CLUSTER` of all twelve places.
pub(super) fn places() -> Vec<String> {
    let place = |region: &str, zone: &str, letter: &str| format!("{region}-{zone}/{region}-{letter}");
    let zones = |region: &'static str| ["1a", "1b"].into_iter().map(move |zone| (region, zone));
    REGIONS
        .into_iter()
        .flat_map(zones)
        .flat_map(|(region, zone)| ["a", "b"].map(|letter| place(region, zone, letter)))
        .collect()
}

/// Whether the worlds have demand and capacity for everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Knows {
    /// Endpoint counts alone.
    Counts,
    /// Every capacity, and demand of the client alone.
    OwnDemand,
    /// Anything.
    Whatever,
}

/// Worlds of all kinds: places without endpoints, sick ones, dead and stale clusters, other networks, drains, and
/// policies of every shape.
pub(super) fn worlds(knows: Knows) -> impl Strategy<Value = World> {
    let endpoints = vec(option::weighted(0.7, (0..=20_u32, 0..=20_u32)), 12);
    let liveness =
        vec(select(vec![Liveness::Fresh, Liveness::Fresh, Liveness::Fresh, Liveness::Stale, Liveness::Failed]), 6);
    let capacity = vec(1..2_000_u32, 12);
    let demand = vec(option::weighted(0.5, 0..2_000_u32), 12);
    let everything = any::<bool>();
    // More than all of it, too: facts and lists travel apart.
    let cold = vec(option::weighted(0.2, 0..25_u32), 12);
    let facts = (endpoints, liveness, capacity, demand, everything, cold);
    (facts, networks(), policies(), any::<Index>()).prop_map(move |(facts, networks, policy, client)| {
        let (endpoints, liveness, capacity, demand, everything, cold) = facts;
        let mut world = World::new();
        world.view.localities.clear();
        world.client = locality(&places()[client.index(12)]);
        for (index, place) in places().iter().enumerate() {
            if let Some((ready, unready)) = endpoints[index] {
                world.endpoints(place, ready, ready + unready);
                if knows == Knows::OwnDemand || (knows == Knows::Whatever && everything) {
                    world.capacity(place, f64::from(capacity[index]));
                }
            }
            if let Some(weight) = cold[index].filter(|_| knows == Knows::Whatever && endpoints[index].is_some()) {
                world.cold(place, f64::from(weight));
            }
            if let Some(rps) = demand[index].filter(|_| knows == Knows::Whatever) {
                world.demand(place, f64::from(rps));
            }
        }
        if knows == Knows::OwnDemand {
            world.view.demand.insert(world.client.clone(), f64::from(capacity[0]) * 3.0);
        }
        for (region, states) in REGIONS.iter().zip(liveness.chunks(2)) {
            world.liveness(&format!("{region}-a"), states[0]).liveness(&format!("{region}-b"), states[1]);
        }
        networks.apply(&mut world);
        policy.apply(&mut world);
        world
    })
}

#[derive(Debug, Clone)]
struct Networks {
    apart: Vec<bool>,
    gateways: Vec<bool>,
}

fn networks() -> impl Strategy<Value = Networks> {
    (vec(proptest::bool::weighted(0.3), 3), vec(any::<bool>(), 6))
        .prop_map(|(apart, gateways)| Networks { apart, gateways })
}

impl Networks {
    fn apply(&self, world: &mut World) {
        for (region, apart) in world.topology.regions.iter_mut().zip(&self.apart) {
            for (cluster, gateway) in region.clusters.iter_mut().zip(self.gateways.chunks(2).flatten()) {
                if *apart {
                    cluster.network = region.name.as_str().parse().unwrap();
                }
                if *gateway {
                    cluster.gateways = vec![format!("gw.{}.example.com:15443", cluster.name)];
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
struct Policy {
    preference: Preference,
    failover: Option<Vec<u32>>,
    allowed: Option<Vec<&'static str>>,
    weights: Option<Vec<u32>>,
    drains: Vec<(String, u32)>,
}

fn policies() -> impl Strategy<Value = Policy> {
    let scopes = REGIONS
        .iter()
        .flat_map(|region| [format!("region={region}"), format!("cluster={region}-a"), format!("zone={region}-1b")]);
    let drain = (select(scopes.collect::<Vec<_>>()), select(vec![100_u32, 100, 50, 20]));
    (
        select(vec![Preference::Zone, Preference::Zone, Preference::Region, Preference::None]),
        option::weighted(0.3, vec(0..100_u32, 3)),
        option::weighted(0.2, proptest::sample::subsequence(REGIONS.to_vec(), 1..=3)),
        option::weighted(0.2, vec(0..100_u32, 6)),
        vec(drain, 0..3),
    )
        .prop_map(|(preference, failover, allowed, weights, drains)| Policy {
            preference,
            failover,
            allowed,
            weights,
            drains,
        })
}

impl Policy {
    fn apply(&self, world: &mut World) {
        let policy = &mut world.policy.locality;
        policy.preference = self.preference;
        policy.failover = self
            .failover
            .as_ref()
            .map(|weights| failover(&REGIONS.iter().copied().zip(weights.iter().copied()).collect::<Vec<_>>()));
        policy.allowed_regions =
            self.allowed.as_ref().map(|allowed| allowed.iter().map(|region| region.parse().unwrap()).collect());
        let clusters = REGIONS.iter().flat_map(|region| ["a", "b"].map(|letter| format!("{region}-{letter}")));
        policy.cluster_weights = self.weights.as_ref().map(|weights| {
            let weighted = clusters.zip(weights);
            weighted.map(|(name, weight)| WeightedCluster { cluster: cluster(&name), weight: *weight }).collect()
        });
        for (scope, percent) in &self.drains {
            world.drain(scope, *percent);
        }
    }
}

/// All places of a plan.
pub(super) fn all(plan: &Plan) -> impl Iterator<Item = &PlannedLocality> {
    plan.priorities.iter().flatten()
}

/// The share of a locality; 0 where it has none.
pub(super) fn share(plan: &Plan, of: &Locality) -> f64 {
    all(plan).find(|place| place.locality == *of).map_or(0.0, |place| place.share)
}

/// What every plan is, target or paced.
pub(super) fn sums_to_one(plan: &Plan) -> TestCaseResult {
    let sum: f64 = all(plan).map(|place| place.share).sum();
    let usable = all(plan).any(|place| !place.unhealthy);
    prop_assert!((sum - f64::from(u8::from(usable))).abs() < 1e-9, "the shares sum to {sum}: {plan:#?}");
    let first = plan.priorities.first().into_iter().flatten();
    let weights: f64 = first.clone().map(|place| f64::from(place.weight.get())).sum();
    for place in first.filter(|_| usable) {
        let by_weight = f64::from(place.weight.get()) / weights;
        prop_assert!((place.share - by_weight).abs() < 1e-9, "the share is not the weight's: {place:#?}");
    }
    Ok(())
}

pub(super) fn priorities_are_contiguous(plan: &Plan) -> TestCaseResult {
    prop_assert!(plan.priorities.iter().all(|priority| !priority.is_empty()), "an empty priority: {plan:#?}");
    let below = plan.priorities.iter().skip(1).flatten();
    prop_assert!(below.clone().all(|place| place.share == 0.0), "a share below the first: {plan:#?}");
    Ok(())
}

pub(super) fn no_locality_stands_twice(plan: &Plan) -> TestCaseResult {
    let mut names: Vec<_> = all(plan).map(|place| &place.locality).collect();
    let before = names.len();
    names.sort();
    names.dedup();
    prop_assert_eq!(names.len(), before, "a locality stands twice: {:#?}", plan);
    Ok(())
}

pub(super) fn nothing_goes_to_the_unready(plan: &Plan) -> TestCaseResult {
    for place in all(plan).filter(|place| place.share > 0.0) {
        prop_assert!(place.ready > 0 && !place.unhealthy, "a share for {place:#?}");
    }
    Ok(())
}

pub(super) fn weights_fit_their_type(plan: &Plan) -> TestCaseResult {
    for priority in &plan.priorities {
        let sum: u64 = priority.iter().map(|place| u64::from(place.weight.get())).sum();
        prop_assert!(sum < 1 << 32, "the weights sum to {sum}");
    }
    Ok(())
}

pub(super) fn the_unhealthy_come_last(plan: &Plan) -> TestCaseResult {
    for (number, priority) in plan.priorities.iter().enumerate() {
        for place in priority {
            let usable = place.ready > 0;
            prop_assert_eq!(place.unhealthy, !usable, "{:#?}", place);
            prop_assert!(usable || number + 1 == plan.priorities.len(), "not last: {place:#?}");
        }
    }
    Ok(())
}
