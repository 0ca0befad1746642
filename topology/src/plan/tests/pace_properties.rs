//! What holds of every plan that is served, whatever happens and whenever it is asked for, each property with the bug
//! that it catches.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestCaseResult;

use super::cases::{self, Knows, all, holds_and_catches, places, share, worlds};
use super::pacing::Run;
use super::world::World;
use crate::plan::Plan;
use crate::plan::bugs::Bug;
use crate::view::Liveness;

const ZONE: &str = "us-east-1a/us-east-a";

/// Something that happens to a service.
#[derive(Debug, Clone)]
enum Event {
    Endpoints(Index, u32),
    Liveness(Index, Liveness),
    Drain(Index),
    Undrain,
    Nothing,
}

fn event() -> impl Strategy<Value = Event> {
    let states = vec![Liveness::Fresh, Liveness::Stale, Liveness::Failed];
    prop_oneof![
        4 => (any::<Index>(), prop_oneof![Just(0), Just(10), 0..=10_u32]).prop_map(|(place, ready)| Event::Endpoints(place, ready)),
        2 => (any::<Index>(), select(states)).prop_map(|(cluster, state)| Event::Liveness(cluster, state)),
        1 => any::<Index>().prop_map(Event::Drain),
        1 => Just(Event::Undrain),
        3 => Just(Event::Nothing),
    ]
}

impl Event {
    fn happen(&self, world: &mut World) {
        let place = |index: &Index| places()[index.index(12)].clone();
        match self {
            Self::Endpoints(index, ready) => _ = world.endpoints(&place(index), *ready, 10),
            Self::Liveness(index, state) => _ = world.liveness(place(index).split_once('/').unwrap().1, *state),
            Self::Drain(index) => _ = world.drain(&format!("zone={}", place(index).split_once('/').unwrap().0), 100),
            Self::Undrain => world.policy.drains.clear(),
            Self::Nothing => {}
        }
    }
}

/// A world, and what happens in it after how many milliseconds.
fn lives() -> impl Strategy<Value = (World, Vec<(u64, Event)>)> {
    (worlds(Knows::Whatever), vec((0..8_000_u64, event()), 1..12))
}

/// Lives through it all and checks each plan that is served.
fn always((world, events): (World, Vec<(u64, Event)>), holds: impl Fn(&Plan) -> TestCaseResult) -> TestCaseResult {
    let mut run = Run::new(world);
    holds(run.plan())?;
    for (after, event) in events {
        run.now += Duration::from_millis(after);
        event.happen(&mut run.world);
        run.pace();
        holds(run.plan())?;
    }
    Ok(())
}

#[test]
fn served_shares_sum_to_one() {
    holds_and_catches(Bug::ForgetsAShare, &lives(), |life| always(life, cases::sums_to_one));
}

#[test]
fn served_priorities_are_contiguous() {
    holds_and_catches(Bug::LeavesAGap, &lives(), |life| always(life, cases::priorities_are_contiguous));
}

#[test]
fn no_served_locality_stands_twice() {
    holds_and_catches(Bug::PlacesTwice, &lives(), |life| always(life, cases::no_locality_stands_twice));
}

#[test]
fn served_weights_fit_their_type() {
    holds_and_catches(Bug::HugeWeights, &lives(), |life| always(life, cases::weights_fit_their_type));
}

#[test]
fn the_unhealthy_are_served_last() {
    holds_and_catches(Bug::ForgetsTheUnhealthy, &lives(), |life| always(life, cases::the_unhealthy_come_last));
}

#[test]
fn a_failover_is_never_delayed() {
    holds_and_catches(Bug::Dawdles, &lives(), |life| always(life, cases::nothing_goes_to_the_unready));
}

#[test]
fn the_same_past_gives_the_same_plan() {
    holds_and_catches(Bug::CountsItsCalls, &lives(), |(world, events)| {
        let mut runs = [Run::new(world.clone()), Run::new(world)];
        for (after, event) in events {
            for run in &mut runs {
                run.now += Duration::from_millis(after);
                event.happen(&mut run.world);
                run.pace();
            }
            prop_assert_eq!(&runs[0].paced, &runs[1].paced);
        }
        Ok(())
    });
}

#[test]
fn when_nothing_more_happens_the_target_is_reached() {
    holds_and_catches(Bug::Dawdles, &lives(), |(world, events)| {
        let mut run = Run::new(world);
        for (after, event) in events {
            run.now += Duration::from_millis(after);
            event.happen(&mut run.world);
            run.pace();
        }
        run.wait(600.0);
        let (target, stale) = (run.world.plan(), |name| run.world.view.liveness_of(name) == Liveness::Stale);
        // What is stale is not sure to get there.
        if !all(&target).any(|place| stale(&place.locality.cluster)) {
            for place in all(&target) {
                let served = share(run.plan(), &place.locality);
                prop_assert!((served - place.share).abs() < 0.01, "{served} of {place:#?} in {:#?}", run.plan());
            }
            prop_assert_eq!(run.next, None);
        }
        Ok(())
    });
}

/// Milliseconds between the moments at which a plan is asked for.
fn polls() -> impl Strategy<Value = Vec<u64>> {
    vec(1..3_000_u64, 1..60)
}

#[test]
fn a_recovery_is_never_faster_than_its_ramp() {
    holds_and_catches(Bug::OverlooksLosses, &(polls(), vec(8..=10_u32, 60)), |(polls, others)| {
        let mut run = Run::new(World::new());
        run.world.endpoints(ZONE, 0, 10);
        run.pace();
        run.world.endpoints(ZONE, 10, 10);
        run.pace();
        let back = run.now;
        for (poll, ready) in polls.into_iter().zip(others) {
            run.now += Duration::from_millis(poll);
            run.world.endpoints("us-east-1b/us-east-a", ready, 10);
            run.pace();
            let well = (run.now - back).as_secs_f64();
            let most = if well < 10.0 { 0.0 } else { ((well - 10.0) / 20.0).max(0.01) };
            prop_assert!(run.share(ZONE) <= most + 0.001, "{} after {well} s", run.share(ZONE));
        }
        Ok(())
    });
}

#[test]
fn a_drain_is_never_faster_than_its_ramp() {
    holds_and_catches(Bug::DrainsAtOnce, &polls(), |polls| {
        let mut run = Run::new(World::new());
        run.world.drain("zone=us-east-1a", 100);
        run.pace();
        let begun = run.now;
        for poll in polls {
            run.now += Duration::from_millis(poll);
            run.pace();
            let gone = ((run.now - begun).as_secs_f64() / 60.0).max(0.01);
            prop_assert!(run.share(ZONE) >= 1.0 - gone - 0.002, "{} when {gone} is gone", run.share(ZONE));
        }
        Ok(())
    });
}

#[test]
fn each_flap_doubles_the_hold_down() {
    let lives = vec((100..10_000_u64, vec(100..5_000_u64, 1..40)), 1..8);
    holds_and_catches(Bug::TrustsAtOnce, &lives, |lives| {
        let (hold, ramp) = (10.0, 20.0);
        let mut run = Run::new(World::new());
        let mut flaps = 0;
        for (down, polls) in lives {
            run.world.endpoints(ZONE, 0, 10);
            run.pace();
            prop_assert_eq!(run.share(ZONE), 0.0);
            run.now += Duration::from_millis(down);
            run.world.endpoints(ZONE, 10, 10);
            run.pace();
            let back = run.now;
            let mut returned = false;
            let needs = hold * f64::from(1 << flaps);
            for poll in polls {
                run.now += Duration::from_millis(poll);
                run.pace();
                let well = (run.now - back).as_secs_f64();
                if run.share(ZONE) > 0.0 {
                    returned = true;
                    prop_assert!(well >= needs, "back after {well} s and {flaps} flaps");
                }
            }
            let well = (run.now - back).as_secs_f64();
            if well >= 2.0 * needs + ramp {
                flaps = 0;
            } else if returned {
                flaps = (flaps + 1).min(3);
            }
        }
        Ok(())
    });
}

#[test]
fn known_demand_never_moves_by_more_than_a_quarter_of_the_gap() {
    let demands = vec((1..4_000_u64, 100..6_000_u32), 1..30);
    holds_and_catches(Bug::GoesAllTheWay, &demands, |demands| {
        let mut world = World::new();
        for place in world.view.localities.keys().cloned().collect::<Vec<_>>() {
            world.capacity(&place.to_string(), 1000.0);
        }
        world.demand(ZONE, 800.0);
        let mut run = Run::new(world);
        let mut moved = None;
        for (after, demand) in demands {
            run.now += Duration::from_millis(after);
            run.world.demand(ZONE, f64::from(demand));
            let (before, target) = (run.plan().clone(), run.world.plan());
            run.pace();
            for place in all(&target) {
                let was = share(&before, &place.locality);
                let step = (share(run.plan(), &place.locality) - was).abs();
                // Within the dead band a lasting change is made whole.
                let most = ((place.share - was).abs() / 4.0).max(0.02);
                prop_assert!(step <= most + 0.003, "{step} of {} at {}", place.share - was, place.locality);
            }
            if run.plan().priorities[0] != before.priorities[0]
                && all(run.plan()).any(|place| (share(&before, &place.locality) - place.share).abs() > 1e-9)
            {
                let since = moved.map(|moved| run.now - moved);
                prop_assert!(since.is_none_or(|since| since >= Duration::from_millis(1500)), "moved after {since:?}");
                moved = Some(run.now);
            }
        }
        Ok(())
    });
}
