//! How fast plans follow their targets: a clock that the tests move, and shares read off what is served.

use std::time::Duration;

use super::world::{World, cluster, failover, find};
use crate::plan::{Paced, Plan, Reason, pace};
use crate::policy::{Failback, WeightedCluster};
use crate::view::Liveness;

const ZONE: &str = "us-east-1a/us-east-a";
const NEXT: &str = "us-east-1b/us-east-a";
const WEST: &str = "us-west-1a/us-west-a";
const EUROPE: &str = "eu-west-1a/eu-west-a";

/// A world, what is served in it, and its clock. Failback: held for 10 s, ramped over 20 s.
pub(super) struct Run {
    pub(super) world: World,
    pub(super) paced: Option<Paced>,
    pub(super) now: Duration,
    pub(super) next: Option<Duration>,
}

impl Run {
    pub(super) fn new(world: World) -> Self {
        let mut run = Self { world, paced: None, now: Duration::from_secs(1000), next: None };
        run.world.policy.locality.failback =
            Failback { ramp: Duration::from_secs(20), hold_down: Duration::from_secs(10) };
        run.pace();
        run
    }

    pub(super) fn pace(&mut self) {
        let target = self.world.plan();
        let (paced, next) = pace(self.paced.as_ref(), &target, &self.world.view, &self.world.policy, self.now);
        self.paced = Some(paced);
        self.next = next;
    }

    /// Lets `seconds` pass, asking again whenever the last answer said so, and once at the end.
    pub(super) fn wait(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while let Some(next) = self.next.filter(|next| self.now + *next < end) {
            self.now += next;
            self.pace();
        }
        self.now = end;
        self.pace();
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.paced.as_ref().unwrap().plan
    }

    pub(super) fn share(&self, place: &str) -> f64 {
        find(self.plan(), place).1.share
    }

    #[track_caller]
    fn check(&self, expected: &[(&str, f64)]) {
        for (place, share) in expected {
            assert!((self.share(place) - share).abs() < 0.006, "{place} not {share}: {:#?}", self.plan());
        }
    }
}

#[test]
fn a_first_plan_is_served_at_once() {
    let run = Run::new(World::new());
    assert_eq!(*run.plan(), run.world.plan());
    assert_eq!(run.next, None);
}

#[test]
fn failover_is_at_once_and_failback_waits_and_ramps() {
    let mut run = Run::new(World::new());
    run.world.endpoints(ZONE, 0, 10);
    run.pace();
    run.check(&[(NEXT, 1.0)]);
    run.wait(30.0);
    run.world.endpoints(ZONE, 10, 10);
    run.pace();
    run.check(&[(ZONE, 0.0), (NEXT, 1.0)]);
    let (priority, zone) = find(run.plan(), ZONE);
    assert_eq!((priority, &zone.because, zone.unhealthy), (1, &Reason::HeldDown, false));
    assert_eq!(run.next, Some(Duration::from_secs(10)));
    run.wait(10.0);
    run.check(&[(ZONE, 0.01), (NEXT, 0.99)]);
    assert!(matches!(find(run.plan(), ZONE).1.because, Reason::Ramping { .. }));
    run.wait(10.0);
    run.check(&[(ZONE, 0.5), (NEXT, 0.5)]);
    run.wait(10.0);
    run.check(&[(ZONE, 1.0), (NEXT, 0.0)]);
    assert_eq!(run.plan().priorities, run.world.plan().priorities);
    assert_eq!(run.next, None);
}

#[test]
fn a_ramp_has_many_steps_and_says_when_the_next_is_due() {
    let mut run = Run::new(World::new());
    run.world.endpoints(ZONE, 0, 10);
    run.pace();
    run.world.endpoints(ZONE, 10, 10);
    run.pace();
    let mut shares = vec![];
    while let Some(next) = run.next {
        run.now += next;
        run.pace();
        shares.push(run.share(ZONE));
    }
    assert_eq!(shares.len(), 21, "{shares:?}");
    assert!(shares.windows(2).all(|pair| pair[1] > pair[0] && pair[1] - pair[0] < 0.06), "{shares:?}");
}

#[test]
fn a_failover_in_the_middle_of_a_ramp_is_at_once() {
    let mut run = Run::new(World::new());
    run.world.endpoints(ZONE, 0, 10);
    run.pace();
    run.world.endpoints(ZONE, 10, 10);
    run.pace();
    run.wait(20.0);
    run.check(&[(ZONE, 0.5), (NEXT, 0.5)]);
    // Who holds the rest dies: the ramp has nobody to wait behind.
    run.world.endpoints(NEXT, 0, 10);
    run.pace();
    run.check(&[(ZONE, 1.0), (NEXT, 0.0)]);
}

#[test]
fn a_holder_that_is_worse_off_keeps_only_what_it_carries() {
    let mut run = Run::new(World::new());
    run.world.endpoints(ZONE, 0, 10);
    run.pace();
    run.world.endpoints(ZONE, 10, 10);
    run.pace();
    run.world.endpoints(NEXT, 4, 10);
    run.pace();
    run.check(&[(NEXT, 0.56), (ZONE, 0.44)]);
}

#[test]
fn each_flap_costs_more_than_the_one_before() {
    let mut run = Run::new(World::new());
    let mut moves = vec![];
    let mut last = run.share(ZONE);
    // Ten seconds down, fifteen up, again and again.
    let start = run.now;
    for _ in 0..20 {
        for (ready, seconds) in [(0, 10.0), (10, 15.0)] {
            run.world.endpoints(ZONE, ready, 10);
            run.pace();
            for _ in 0..(seconds as u32 * 2) {
                run.wait(0.5);
                let share = run.share(ZONE);
                if (share == 0.0) != (last == 0.0) {
                    moves.push((run.now - start).as_secs());
                }
                last = share;
            }
        }
    }
    // Out, back after 10 s of hold-down, out; then the hold-down is 20 s and the place is never trusted again.
    assert_eq!(moves.len(), 3, "{moves:?}");
}

#[test]
fn noise_moves_nothing_and_what_lasts_does() {
    let mut run = Run::new(World::new());
    run.world.policy.locality.preference = crate::policy::Preference::Region;
    run.world.endpoints(ZONE, 100, 100).endpoints(NEXT, 100, 100);
    run.pace();
    let before = run.plan().priorities.clone();
    run.world.endpoints(NEXT, 97, 100);
    run.pace();
    assert_eq!(run.plan().priorities[0][0].weight, before[0][0].weight);
    assert_eq!(run.next, Some(Duration::from_secs(10)));
    run.wait(10.0);
    assert!((run.share(NEXT) - 97.0 / 197.0).abs() < 0.001);
}

#[test]
fn a_drain_ramps_out_and_back() {
    let mut run = Run::new(World::new());
    run.world.drain("zone=us-east-1a", 100);
    run.pace();
    run.check(&[(ZONE, 0.99), (NEXT, 0.01)]);
    assert!(matches!(find(run.plan(), ZONE).1.because, Reason::Ramping { .. }));
    run.wait(30.0);
    run.check(&[(ZONE, 0.5), (NEXT, 0.5)]);
    run.wait(30.0);
    run.check(&[(ZONE, 0.0), (NEXT, 1.0)]);
    assert_eq!(find(run.plan(), ZONE).1.because, Reason::Drained { drain: "maintenance".to_owned() });
    run.world.policy.drains.clear();
    run.pace();
    run.check(&[(ZONE, 0.01)]);
    run.wait(60.0);
    run.check(&[(ZONE, 0.5), (NEXT, 0.5)]);
    run.wait(60.0);
    run.check(&[(ZONE, 1.0), (NEXT, 0.0)]);
    assert_eq!(run.next, None);
}

#[test]
fn a_drained_place_that_dies_is_left_at_once() {
    let mut run = Run::new(World::new());
    run.world.drain("zone=us-east-1a", 100);
    run.pace();
    run.world.endpoints(ZONE, 0, 10);
    run.pace();
    run.check(&[(ZONE, 0.0), (NEXT, 1.0)]);
}

#[test]
fn a_restart_finds_drains_complete_and_ramps_at_their_floor() {
    let mut run = Run::new(World::new());
    run.world.drain("zone=us-east-1a", 100);
    run.pace();
    run.wait(30.0);
    let json = serde_json::to_string(run.paced.as_ref().unwrap()).unwrap();
    let read: Paced = serde_json::from_str(&json).unwrap();
    run.now = Duration::from_secs(1);
    run.paced = Some(read.after_restart(run.now));
    run.pace();
    run.check(&[(ZONE, 0.0), (NEXT, 1.0)]);

    let mut run = Run::new(World::new());
    run.world.endpoints(ZONE, 0, 10);
    run.pace();
    run.world.endpoints(ZONE, 10, 10);
    run.pace();
    run.wait(20.0);
    run.check(&[(ZONE, 0.5)]);
    run.now = Duration::from_secs(1);
    run.paced = run.paced.map(|paced| paced.after_restart(run.now));
    run.pace();
    run.check(&[(ZONE, 0.01), (NEXT, 0.99)]);
    run.wait(10.0);
    run.check(&[(ZONE, 0.5), (NEXT, 0.5)]);
}

#[test]
fn a_recovery_that_others_saw_ramps_alike_on_a_first_plan() {
    let mut world = World::new();
    let facts = world.view.localities.get_mut(&super::world::locality(ZONE)).unwrap();
    facts.recovering = Some(Duration::from_secs(20));
    // Ten seconds of hold-down and half of the ramp are behind it.
    let run = Run::new(world);
    run.check(&[(ZONE, 0.5), (NEXT, 0.5)]);
}

#[test]
fn a_policy_shift_is_no_failback() {
    let mut run = Run::new(World::new());
    let weigh = |run: &mut Run, east, west| {
        let weight = |name, weight| WeightedCluster { cluster: cluster(name), weight };
        run.world.policy.locality.cluster_weights = Some(vec![weight("us-east-a", east), weight("us-west-a", west)]);
        run.pace();
    };
    weigh(&mut run, 90, 10);
    run.check(&[(ZONE, 0.45), (WEST, 0.05)]);
    weigh(&mut run, 10, 90);
    run.check(&[(ZONE, 0.05), (WEST, 0.45)]);
    assert_eq!(run.next, None);
}

#[test]
fn a_region_comes_back_from_its_failover_by_weight() {
    let mut run = Run::new(World::new());
    run.world.liveness("us-east-a", Liveness::Failed);
    run.pace();
    run.check(&[(WEST, 0.35), (EUROPE, 0.15)]);
    run.world.liveness("us-east-a", Liveness::Fresh);
    run.pace();
    run.wait(20.0);
    // Half of the ramp: what is left in the other regions still splits 70 to 30.
    run.check(&[(ZONE, 0.5), (WEST, 0.175), (EUROPE, 0.075)]);
}

#[test]
fn a_failover_target_that_was_lost_once_takes_its_weight_at_once() {
    let mut run = Run::new(World::new());
    run.world.liveness("us-west-a", Liveness::Failed);
    run.pace();
    run.world.liveness("us-west-a", Liveness::Fresh);
    run.pace();
    run.world.liveness("us-east-a", Liveness::Failed);
    run.pace();
    run.check(&[(WEST, 0.35), (EUROPE, 0.15)]);
}

#[test]
fn a_stale_cluster_takes_no_more_than_it_had() {
    let mut run = Run::new(World::new());
    run.world.policy.locality.failover = Some(failover(&[("us-west", 100)]));
    run.world.liveness("us-west-a", Liveness::Stale);
    run.pace();
    run.world.liveness("us-east-a", Liveness::Failed);
    run.pace();
    run.check(&[(WEST, 0.0), (EUROPE, 0.5)]);
    assert_eq!(find(run.plan(), WEST).1.because, Reason::ClusterStale);
    // Nobody else is left: stale is not dead.
    run.world.liveness("eu-west-a", Liveness::Failed);
    run.pace();
    run.check(&[(WEST, 0.5)]);
}

#[test]
fn known_demand_moves_by_a_quarter_of_the_gap() {
    let mut world = World::new();
    for place in world.view.localities.keys().cloned().collect::<Vec<_>>() {
        world.capacity(&place.to_string(), 1000.0);
    }
    world.demand(ZONE, 800.0);
    let mut run = Run::new(world);
    run.check(&[(ZONE, 1.0)]);
    run.wait(10.0);
    run.world.demand(ZONE, 1600.0);
    run.pace();
    run.check(&[(ZONE, 0.875), (NEXT, 0.125)]);
    run.now += Duration::from_secs(1);
    run.pace();
    run.check(&[(ZONE, 0.875)]);
    run.wait(0.5);
    run.check(&[(ZONE, 0.875 - 0.375 / 4.0)]);
    run.wait(60.0);
    run.check(&[(ZONE, 0.5), (NEXT, 0.5)]);
    // A failure does not wait.
    run.world.endpoints(NEXT, 0, 10);
    run.pace();
    run.check(&[(NEXT, 0.0), (ZONE, 0.5)]);
}

#[test]
fn a_drain_ends_in_time_where_demand_is_known() {
    let mut world = World::new();
    for place in world.view.localities.keys().cloned().collect::<Vec<_>>() {
        world.capacity(&place.to_string(), 1000.0);
    }
    world.demand(ZONE, 500.0);
    let mut run = Run::new(world);
    run.world.drain("zone=us-east-1a", 100);
    run.pace();
    run.wait(30.0);
    run.check(&[(ZONE, 0.5), (NEXT, 0.5)]);
    run.wait(30.0);
    run.check(&[(ZONE, 0.0), (NEXT, 1.0)]);
}

#[test]
fn a_place_without_a_share_recovers_unwatched() {
    let mut run = Run::new(World::new());
    run.world.endpoints(WEST, 0, 10);
    run.pace();
    run.world.endpoints(WEST, 10, 10);
    run.pace();
    assert_eq!(run.next, None);
}

#[test]
fn a_hold_down_without_end_is_only_that() {
    let mut run = Run::new(World::new());
    run.world.policy.locality.failback = Failback { ramp: Duration::MAX, hold_down: Duration::MAX };
    run.world.endpoints(ZONE, 0, 10);
    run.pace();
    run.world.endpoints(ZONE, 10, 10);
    run.pace();
    run.now += Duration::from_secs(100_000);
    run.pace();
    run.check(&[(ZONE, 0.0), (NEXT, 1.0)]);
}

#[test]
fn what_was_never_lost_needs_no_ramp() {
    let mut run = Run::new(World::new());
    run.world.view.localities.remove(&super::world::locality(ZONE));
    let mut run = Run::new(run.world);
    run.check(&[(NEXT, 1.0)]);
    run.world.endpoints(ZONE, 3, 3);
    run.pace();
    run.check(&[(ZONE, 1.0)]);
}
