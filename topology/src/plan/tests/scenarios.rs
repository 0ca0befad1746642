//! What the planner gives in the situations that the shipped scenarios make, each computed by hand.

use super::world::{World, cluster, failover, find, ladder, locality};
use crate::plan::{Carries, Omitted, OmittedBecause, Reason, Route, Tier};
use crate::policy::{Preference, WeightedCluster};
use crate::view::Liveness;

/// The plan's ladder, as `place percent` by priority.
#[track_caller]
fn check(world: &World, expected: &[&[&str]]) {
    let plan = world.plan();
    assert_eq!(ladder(&plan), expected, "{plan:#?}");
}

#[test]
fn everything_well() {
    let world = World::new();
    check(
        &world,
        &[
            &["us-east-1a/us-east-a 100%"],
            &["us-east-1b/us-east-a 100%"],
            &[
                "eu-west-1a/eu-west-a 15%",
                "eu-west-1b/eu-west-a 15%",
                "us-west-1a/us-west-a 35%",
                "us-west-1b/us-west-a 35%",
            ],
        ],
    );
    let plan = world.plan();
    assert_eq!(find(&plan, "us-east-1a/us-east-a").1.because, Reason::Nearest);
    assert_eq!(find(&plan, "us-east-1a/us-east-a").1.tier, Tier::Zone);
    assert_eq!(find(&plan, "us-west-1a/us-west-a").1.tier, Tier::Failover { percent: 70 });
    assert_eq!(find(&plan, "us-west-1a/us-west-a").1.because, Reason::NearerHasRoom { tier: "zone".to_owned() });
}

#[test]
fn the_zone_in_another_cluster_comes_before_the_region() {
    let mut world = World::new();
    world.endpoints("us-east-1a/us-east-b", 2, 2);
    let plan = world.plan();
    assert_eq!(find(&plan, "us-east-1a/us-east-b").0, 1);
    assert_eq!(find(&plan, "us-east-1a/us-east-b").1.tier, Tier::ZoneElsewhere);
    assert_eq!(find(&plan, "us-east-1b/us-east-a").0, 2);
}

#[test]
fn zone_lost() {
    let mut world = World::new();
    world.endpoints("us-east-1a/us-east-a", 0, 10);
    let plan = world.plan();
    assert_eq!(ladder(&plan)[0], ["us-east-1b/us-east-a 100%"]);
    let (priority, lost) = find(&plan, "us-east-1a/us-east-a");
    assert_eq!(priority, plan.priorities.len() - 1);
    assert!(lost.unhealthy);
    assert_eq!(lost.because, Reason::NothingReady);
}

#[test]
fn zone_degraded_keeps_overprovisioning_times_what_is_ready() {
    let mut world = World::new();
    world.endpoints("us-east-1a/us-east-a", 4, 10);
    // 1.4 × 4/10 = 0.56.
    let plan = world.plan();
    assert_eq!(ladder(&plan)[0], ["us-east-1a/us-east-a 56%", "us-east-1b/us-east-a 44%"]);
    let (_, zone) = find(&plan, "us-east-1a/us-east-a");
    let Carries::FractionOfLoad(carries) = zone.carries else { panic!("{zone:?}") };
    assert!((carries - 0.56).abs() < 1e-9 && (zone.share - 0.56).abs() < 1e-9, "{zone:?}");
    assert_eq!(zone.because, Reason::Full { demand: None, target_utilization_percent: None });
    assert_eq!(find(&plan, "us-east-1b/us-east-a").1.because, Reason::TakesExcess);
}

#[test]
fn scaling_down_is_no_loss() {
    let mut world = World::new();
    world.endpoints("us-east-1a/us-east-a", 5, 10);
    world.view.localities.get_mut(&locality("us-east-1a/us-east-a")).unwrap().endpoints.draining = 5;
    let plan = world.plan();
    let (_, zone) = find(&plan, "us-east-1a/us-east-a");
    assert_eq!((zone.share, zone.ready, zone.total), (1.0, 5, 10));
}

#[test]
fn region_lost_goes_by_the_topologys_weights_whatever_the_endpoints() {
    let mut world = World::new();
    world.endpoints("us-east-1a/us-east-a", 0, 10).endpoints("us-east-1b/us-east-a", 0, 10);
    world.endpoints("eu-west-1a/eu-west-a", 900, 900);
    let plan = world.plan();
    let share = |region: &str| -> f64 {
        plan.priorities[0].iter().filter(|one| one.locality.region.as_str() == region).map(|one| one.share).sum()
    };
    assert!((share("us-west") - 0.7).abs() < 0.002, "{plan:#?}");
    assert!((share("eu-west") - 0.3).abs() < 0.002, "{plan:#?}");
    assert_eq!(find(&plan, "us-west-1a/us-west-a").1.because, Reason::ByWeight);
}

#[test]
fn a_failover_region_that_is_short_moves_its_excess_alone() {
    let mut world = World::new();
    for place in ["us-east-1a/us-east-a", "us-east-1b/us-east-a"] {
        world.endpoints(place, 0, 10);
    }
    for place in ["us-west-1a/us-west-a", "us-west-1b/us-west-a"] {
        world.endpoints(place, 5, 10);
    }
    // us-west carries 1.4 × 10/20 = 0.7 of its 70%: 49%. The other 21% joins eu-west's 30%.
    let plan = world.plan();
    let (_, west) = find(&plan, "us-west-1a/us-west-a");
    let (_, europe) = find(&plan, "eu-west-1a/eu-west-a");
    assert!((west.share - 0.245).abs() < 0.001 && (europe.share - 0.255).abs() < 0.001, "{plan:#?}");
    assert_eq!(europe.because, Reason::TakesExcess);
}

#[test]
fn a_policys_failover_replaces_the_topologys_and_skips_the_clients_own_region() {
    let mut world = World::new();
    world.policy.locality.failover = Some(failover(&[("us-east", 50), ("eu-west", 50)]));
    let plan = world.plan();
    assert_eq!(find(&plan, "eu-west-1a/eu-west-a").1.tier, Tier::Failover { percent: 100 });
    assert_eq!(find(&plan, "eu-west-1a/eu-west-a").0, 2);
    assert_eq!(find(&plan, "us-west-1a/us-west-a").1.tier, Tier::Distant);
    assert_eq!(find(&plan, "us-west-1a/us-west-a").0, 3);
}

#[test]
fn without_failover_the_rest_is_by_distance() {
    let mut world = World::new();
    world.topology.failover.clear();
    let plan = world.plan();
    assert_eq!(find(&plan, "us-west-1a/us-west-a").0, 2);
    assert_eq!(find(&plan, "eu-west-1a/eu-west-a").0, 3);
}

#[test]
fn a_drained_region_serves_nothing_and_stays_at_hand() {
    let mut world = World::new();
    world.drain("region=us-east", 100);
    let plan = world.plan();
    assert_eq!(plan.priorities.len(), 3);
    let first: Vec<_> = plan.priorities[0].iter().map(|one| one.locality.region.as_str()).collect();
    assert_eq!(first, ["eu-west", "eu-west", "us-west", "us-west"]);
    let (priority, drained) = find(&plan, "us-east-1a/us-east-a");
    assert_eq!((priority, drained.unhealthy, drained.share), (1, false, 0.0));
    assert_eq!(drained.because, Reason::Drained { drain: "maintenance".to_owned() });
}

#[test]
fn a_drain_that_leaves_nothing_is_served_on() {
    let mut world = World::new();
    for region in super::world::REGIONS {
        world.drain(&format!("region={region}"), 100);
    }
    let plan = world.plan();
    let (priority, zone) = find(&plan, "us-east-1a/us-east-a");
    assert_eq!((priority, zone.share), (0, 1.0));
    assert_eq!(zone.because, Reason::DrainedButLast { drain: "maintenance".to_owned() });
}

#[test]
fn half_a_drain_is_half_the_capacity() {
    let mut world = World::new();
    world.drain("zone=us-east-1a", 50);
    // 1.4 × 5/10.
    let plan = world.plan();
    assert_eq!(ladder(&plan)[0], ["us-east-1a/us-east-a 70%", "us-east-1b/us-east-a 30%"]);
}

#[test]
fn cluster_weights_replace_the_tiers() {
    let mut world = World::new();
    let weight = |name, weight| WeightedCluster { cluster: cluster(name), weight };
    world.policy.locality.cluster_weights = Some(vec![weight("us-east-a", 90), weight("us-west-a", 10)]);
    check(
        &world,
        &[&[
            "us-east-1a/us-east-a 45%",
            "us-east-1b/us-east-a 45%",
            "us-west-1a/us-west-a 5%",
            "us-west-1b/us-west-a 5%",
        ]],
    );
    let plan = world.plan();
    assert_eq!(plan.priorities[0][0].because, Reason::ByWeight);
    assert_eq!(plan.priorities[0][0].tier, Tier::Weighted { percent: 90 });
    assert_eq!(plan.omitted, [Omitted { cluster: cluster("eu-west-a"), because: OmittedBecause::NotWeighted }]);
}

#[test]
fn a_weighted_cluster_with_nothing_ready_gives_its_part_to_the_others() {
    let mut world = World::new();
    let weight = |name, weight| WeightedCluster { cluster: cluster(name), weight };
    world.policy.locality.cluster_weights = Some(vec![weight("us-east-a", 90), weight("us-west-a", 10)]);
    world.endpoints("us-east-1a/us-east-a", 0, 10).endpoints("us-east-1b/us-east-a", 0, 10);
    let plan = world.plan();
    assert_eq!(ladder(&plan)[0], ["us-west-1a/us-west-a 50%", "us-west-1b/us-west-a 50%"]);
    assert!(plan.priorities[1].iter().all(|one| one.unhealthy));
}

#[test]
fn another_network_is_one_locality_behind_its_gateways() {
    let mut world = World::new();
    for region in &mut world.topology.regions {
        if region.name.as_str() != "us-east" {
            for cluster in &mut region.clusters {
                cluster.network = region.name.as_str().parse().unwrap();
            }
        }
    }
    world.topology.regions[1].clusters[0].gateways = vec!["gw.example.com:15443".to_owned()];
    let plan = world.plan();
    let (priority, west) = find(&plan, "us-west/us-west-a");
    assert_eq!((priority, west.route, west.ready, west.total), (2, Route::Gateway, 20, 20));
    assert_eq!(plan.omitted, [Omitted { cluster: cluster("eu-west-a"), because: OmittedBecause::NoRoute }]);
}

#[test]
fn never_beyond_the_allowed_regions() {
    let mut world = World::new();
    world.policy.locality.allowed_regions = Some(vec!["us-east".parse().unwrap()]);
    for place in ["us-east-1a/us-east-a", "us-east-1b/us-east-a"] {
        world.endpoints(place, 0, 10);
    }
    let plan = world.plan();
    assert!(plan.priorities.iter().flatten().all(|one| one.unhealthy && one.share == 0.0));
    let region = |name: &str| OmittedBecause::RegionNotAllowed { region: name.parse().unwrap() };
    assert_eq!(
        plan.omitted,
        [
            Omitted { cluster: cluster("eu-west-a"), because: region("eu-west") },
            Omitted { cluster: cluster("us-west-a"), because: region("us-west") }
        ]
    );
}

#[test]
fn a_failed_cluster_has_no_share_and_stays_as_a_last_resort() {
    let mut world = World::new();
    world.liveness("us-west-a", Liveness::Failed);
    let plan = world.plan();
    assert_eq!(plan.priorities.len(), 4);
    assert_eq!(find(&plan, "eu-west-1a/eu-west-a").0, 2);
    let (priority, failed) = find(&plan, "us-west-1a/us-west-a");
    assert_eq!((priority, failed.unhealthy, &failed.because), (3, true, &Reason::ClusterFailed));
}

#[test]
fn preferring_the_region_uses_its_zones_alike() {
    let mut world = World::new();
    world.policy.locality.preference = Preference::Region;
    world.endpoints("us-east-1b/us-east-a", 30, 30);
    let plan = world.plan();
    assert_eq!(ladder(&plan)[0], ["us-east-1a/us-east-a 25%", "us-east-1b/us-east-a 75%"]);
    world.policy.locality.preference = Preference::None;
    // 10 of 80 endpoints.
    assert_eq!(world.plan().priorities.len(), 1);
    assert!((find(&world.plan(), "us-east-1a/us-east-a").1.share - 0.125).abs() < 0.001);
}

#[test]
fn load_that_fits_nowhere_spreads_by_what_is_ready() {
    let mut world = World::new();
    world.view.localities.clear();
    world.endpoints("us-east-1a/us-east-a", 1, 10).endpoints("us-east-1b/us-east-a", 1, 10);
    // Each carries 14% of its load: 0.14, then 0.14 × 0.86; the other 0.7396 is shared alike.
    let plan = world.plan();
    let (_, near) = find(&plan, "us-east-1a/us-east-a");
    assert!((near.share - (0.14 + 0.3698)).abs() < 0.001, "{plan:#?}");
    assert_eq!(near.because, Reason::Overload);
}

#[test]
fn known_demand_spills_above_the_target_utilisation() {
    let mut world = World::new();
    for place in world.view.localities.keys().cloned().collect::<Vec<_>>() {
        world.capacity(&place.to_string(), 1000.0);
    }
    world.capacity("us-east-1b/us-east-a", 500.0).endpoints("us-east-1b/us-east-a", 5, 10);
    world.demand("us-east-1a/us-east-a", 1000.0);
    // The zone's 1000 rps count to 80%: 800 of the 1000 asked for.
    let plan = world.plan();
    assert_eq!(ladder(&plan)[0], ["us-east-1a/us-east-a 80%", "us-east-1b/us-east-a 20%"]);
    let (_, zone) = find(&plan, "us-east-1a/us-east-a");
    assert_eq!(zone.carries, Carries::RequestsPerSecond(800.0));
    assert_eq!(zone.because, Reason::Full { demand: Some(1000.0), target_utilization_percent: Some(80) });
    let (_, next) = find(&plan, "us-east-1b/us-east-a");
    assert_eq!((&next.carries, &next.because), (&Carries::RequestsPerSecond(400.0), &Reason::TakesExcess));
    let (_, west) = find(&plan, "us-west-1a/us-west-a");
    assert_eq!((west.share, &west.because), (0.0, &Reason::NearerHasRoom { tier: "region".to_owned() }));
}

#[test]
fn sources_that_compete_share_room_by_what_they_offer() {
    let mut world = World::new();
    for place in world.view.localities.keys().cloned().collect::<Vec<_>>() {
        world.capacity(&place.to_string(), 1000.0);
    }
    // 1a asks 1400 of its own 800, 1b 700 of its 800, and a third source in the region without endpoints 300.
    world.demand("us-east-1a/us-east-a", 1400.0);
    world.demand("us-east-1b/us-east-a", 700.0);
    world.demand("us-east/us-east-b", 300.0);
    // 1b has 100 left for 600 and 300 who ask: 66.7 and 33.3. The zone's own never leave it.
    let plan = world.plan();
    assert!((find(&plan, "us-east-1a/us-east-a").1.share - 800.0 / 1400.0).abs() < 0.001, "{plan:#?}");
    assert!((find(&plan, "us-east-1b/us-east-a").1.share - 66.7 / 1400.0).abs() < 0.001, "{plan:#?}");
    world.client = locality("us-east-1b/us-east-a");
    assert_eq!(find(&world.plan(), "us-east-1b/us-east-a").1.share, 1.0);
}

#[test]
fn known_demand_beyond_all_capacity_is_shared_by_capacity() {
    let mut world = World::new();
    world.view.localities.clear();
    world.endpoints("us-east-1a/us-east-a", 10, 10).endpoints("us-east-1b/us-east-a", 30, 30);
    world.policy.capacity = Some(crate::policy::Capacity::RequestsPerSecond(10.0));
    world.demand("us-east-1a/us-east-a", 640.0);
    // 80 and 240 find room, and the other 320 are shared 1 to 3: 160 and 480.
    let plan = world.plan();
    assert_eq!(ladder(&plan)[0], ["us-east-1a/us-east-a 25%", "us-east-1b/us-east-a 75%"]);
    assert_eq!(plan.priorities[0][0].because, Reason::Overload);
}

#[test]
fn a_table_shows_the_nearest_tier_first() {
    let mut world = World::new();
    world.topology.failover.clear();
    world.policy.locality.failover = Some(failover(&[("eu-west", 10)]));
    world.endpoints("us-east-1a/us-east-a", 0, 10).endpoints("us-east-1a/us-east-b", 1, 10);
    let plan = world.plan();
    let rows: Vec<_> = plan.by_tier().iter().map(|place| place.locality.to_string()).collect();
    assert_eq!(
        rows,
        [
            "us-east-1a/us-east-a",
            "us-east-1a/us-east-b",
            "us-east-1b/us-east-a",
            "eu-west-1a/eu-west-a",
            "eu-west-1b/eu-west-a",
            "us-west-1a/us-west-a",
            "us-west-1b/us-west-a",
        ]
    );
}

#[test]
fn weights_are_whole_steps_and_never_nothing() {
    use crate::plan::target::weight;
    for (share, expected) in [(1.0, 10_000), (0.7, 7_000), (0.23333, 2_330), (0.0042, 42), (0.000_01, 1), (0.0, 1)] {
        assert_eq!(weight(share).get(), expected, "{share}");
    }
}

#[test]
fn numbers_that_cannot_be_true_still_make_a_plan() {
    for capacity in [f64::NAN, f64::INFINITY, f64::MAX, -1.0, 0.0, f64::MIN_POSITIVE] {
        for demand in [f64::NAN, f64::INFINITY, f64::MAX, -1.0, 0.0, f64::MIN_POSITIVE] {
            let mut world = World::new();
            for region in &mut world.topology.regions {
                region.clusters[0].network = region.name.as_str().parse().unwrap();
                region.clusters[0].gateways = vec!["gw.example.com:15443".to_owned()];
            }
            world.policy.locality.target_utilization_percent = 0;
            for place in world.view.localities.keys().cloned().collect::<Vec<_>>() {
                world.endpoints(&place.to_string(), u32::MAX, u32::MAX - 1).capacity(&place.to_string(), capacity);
                world.demand(&place.to_string(), demand);
            }
            let plan = world.plan();
            let sum: f64 = plan.priorities[0].iter().map(|place| place.share).sum();
            assert!((sum - 1.0).abs() < 1e-9, "capacity {capacity}, demand {demand}: {plan:#?}");
        }
    }
}

#[test]
fn nothing_known_is_an_empty_plan() {
    let mut world = World::new();
    world.view.localities.clear();
    assert!(world.plan().priorities.is_empty());
}
