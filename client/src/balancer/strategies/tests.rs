//! Each strategy in a balancer, as a channel has it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::super::tests::{OK, assignment};
use super::super::{Balancer, Chosen, Cost, Outcome, Pick, RequestInfo, Status};
use super::*;
use crate::orca::OrcaReport;

fn over(strategy: impl Into<Chosen>, weights: &[u32]) -> Balancer {
    let balancer = Balancer::new(strategy, 7);
    let endpoints: Vec<_> = (1..).zip(weights).map(|(port, weight)| (port, *weight, OK)).collect();
    balancer.assign(Arc::new(assignment(&[&[("a", 1, &endpoints)]])), Instant::now());
    for endpoint in balancer.wanted() {
        balancer.report(&endpoint, Status::Ready, Instant::now());
    }
    balancer
}

fn port(pick: &Pick<()>) -> u16 {
    pick.endpoint().address().port()
}

fn key(hash: u64) -> RequestInfo<'static> {
    RequestInfo { hash: Some(hash), ..RequestInfo::default() }
}

/// Where each key goes while nothing is in flight.
fn placed(balancer: &Balancer, keys: u64) -> BTreeMap<u64, u16> {
    (0..keys).map(|hash| (hash, port(&balancer.pick(&key(hash)).unwrap()))).collect()
}

fn check_hashing(strategy: impl Into<Chosen> + Copy, tolerance: f64) {
    let weights = [1, 1, 1, 1, 2, 2];
    let all = over(strategy, &weights);
    let before = placed(&all, 4000);
    assert_eq!(before, placed(&over(strategy, &weights), 4000), "the same in every process");
    for (port, weight) in (1..).zip(weights) {
        let share = before.values().filter(|at| **at == port).count() as f64 / 4000.0;
        let wanted = f64::from(weight) / 8.0;
        assert!((share / wanted - 1.0).abs() < tolerance, "{port}: {share}, not {wanted}");
    }
    let after = placed(&over(strategy, &weights[..5]), 4000);
    let moved = before.iter().filter(|(hash, at)| **at != 6 && after[hash] != **at).count();
    assert!(moved < 400, "{moved} keys moved whose endpoint stayed");
    // A hundred requests of one key: no endpoint has more than a quarter more than the mean, by weight.
    let held: Vec<_> = (0..100).map(|_| all.pick(&key(5)).unwrap().hold()).collect();
    for (at, weight) in (1..).zip(weights) {
        let has = held.iter().filter(|pick| port(pick) == at).count() as f64;
        assert!(has <= (1.25 * 107.0 * f64::from(weight) / 8.0).ceil(), "{at} has {has}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ring_keeps_keys_in_place_and_loads_bounded() {
    check_hashing(RingHash::default(), 0.35);
}

#[tokio::test(start_paused = true)]
async fn maglev_keeps_keys_in_place_and_loads_bounded() {
    check_hashing(Maglev::default(), 0.15);
}

#[tokio::test(start_paused = true)]
async fn a_peak_repels_at_once_and_is_forgiven_in_time() {
    let balancer = over(PeakEwma::default(), &[1, 1]);
    let serve = |slow: u16, slowness: u64| {
        let mut seen = HashMap::<u16, u32>::new();
        for _ in 0..200 {
            let pick = balancer.pick(&RequestInfo::default()).unwrap();
            let at = port(&pick);
            *seen.entry(at).or_default() += 1;
            let latency = Duration::from_millis(if at == slow { slowness } else { 10 });
            pick.finish(Outcome::Success, Some(latency), None);
        }
        seen
    };
    assert!(serve(1, 500).get(&1).copied().unwrap_or(0) <= 2);
    tokio::time::advance(Duration::from_secs(120)).await;
    let seen = serve(1, 10);
    assert!(seen[&1] > 0 && seen[&2] > 0, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn turns_follow_what_servers_report() {
    let balancer = over(WeightedRoundRobin::default(), &[1, 1, 1]);
    let serve = |n: u32| {
        let mut seen = HashMap::<u16, u32>::new();
        for _ in 0..n {
            let pick = balancer.pick(&RequestInfo::default()).unwrap();
            *seen.entry(port(&pick)).or_default() += 1;
            // The first is as busy as the others with half of their requests.
            let rps_fractional = if port(&pick) == 1 { 50.0 } else { 100.0 };
            let report = OrcaReport { application_utilization: 0.5, rps_fractional, ..OrcaReport::default() };
            pick.finish(Outcome::Success, None, Some(&report));
        }
        seen
    };
    let even = serve(300);
    assert!(even.values().all(|n| *n == 100), "in turn until the blackout is over: {even:?}");
    tokio::time::advance(Duration::from_secs(11)).await;
    serve(30);
    let seen = serve(1000);
    assert!(seen[&1].abs_diff(200) < 20 && seen[&2].abs_diff(400) < 20, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn hot_servers_are_left_alone() {
    let balancer = over(HotCold, &[1; 8]);
    let mut seen = HashMap::<u16, u32>::new();
    for i in 0..2000 {
        let pick = balancer.pick(&RequestInfo::default()).unwrap();
        if i >= 500 {
            *seen.entry(port(&pick)).or_default() += 1;
        }
        let in_flight = if port(&pick) == 3 { 90.0 } else { 10.0 };
        let named_metrics = [("in_flight".to_owned(), in_flight)].into();
        let report = OrcaReport { named_metrics, ..OrcaReport::default() };
        // Hot, though its answers are the fastest.
        let latency = Duration::from_millis(if port(&pick) == 3 { 5 } else { 10 });
        pick.finish(Outcome::Success, Some(latency), Some(&report));
    }
    assert!(seen.get(&3).copied().unwrap_or(0) < 40, "{seen:?}");
}

fn costs(first: u32, rest: u32) -> RequestInfo<'static> {
    RequestInfo { cost: Cost { first, rest }, ..RequestInfo::default() }
}

#[tokio::test(start_paused = true)]
async fn one_long_request_weighs_as_much_as_many_short_ones_and_less_once_it_answers() {
    let balancer = over(RequestCost, &[1, 1]);
    let mut long = balancer.pick(&costs(800, 200)).unwrap().hold();
    let short: Vec<_> = (0..10).map(|_| balancer.pick(&costs(50, 50)).unwrap().hold()).collect();
    assert!(short[..9].iter().all(|pick| port(pick) != port(&long)));
    long.answered(Duration::from_millis(3));
    assert_eq!(port(&balancer.pick(&costs(50, 50)).unwrap()), port(&long));
    drop((long, short));
    let held =
        [balancer.pick(&RequestInfo::default()).unwrap().hold(), balancer.pick(&RequestInfo::default()).unwrap()];
    assert_ne!(port(&held[0]), port(&held[1]), "what names no cost counts as one");
}

#[tokio::test(start_paused = true)]
async fn the_longest_known_beginning_wins_while_there_is_room() {
    let balancer = over(PrefixAffinity::default(), &[1; 4]);
    let (one, two) = ([11 << 32, 12 << 32], [11 << 32, 13 << 32]);
    let prompt = |prefix| RequestInfo { prefix, ..RequestInfo::default() };
    let first = port(&balancer.pick(&prompt(&one)).unwrap());
    for _ in 0..20 {
        assert_eq!(port(&balancer.pick(&prompt(&one)).unwrap()), first);
    }
    assert_eq!(port(&balancer.pick(&prompt(&two)).unwrap()), first, "they share a beginning");
    let held: Vec<_> = (0..40).map(|_| balancer.pick(&prompt(&one)).unwrap().hold()).collect();
    let most = (1..=4).map(|at| held.iter().filter(|pick| port(pick) == at).count()).max().unwrap();
    assert!(most <= 17, "{most} of 40");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// Whatever begins, answers and ends in whatever order, no cost is left over.
    #[test]
    fn costs_are_given_back(steps in proptest::collection::vec((0u8..3, 0u32..1000, 0u32..1000, any::<prop::sample::Index>()), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _inside = runtime.enter();
        let balancer = over(RequestCost, &[1, 1]);
        let mut open = Vec::new();
        for (what, first, rest, which) in steps {
            match what {
                0 => open.push(balancer.pick(&costs(first, rest)).unwrap().hold()),
                1 if !open.is_empty() => which.get_mut(&mut open).answered(Duration::from_millis(1)),
                _ if !open.is_empty() => drop(open.swap_remove(which.index(open.len()))),
                _ => {}
            }
        }
        drop(open);
        // Both bear nothing: held requests alternate.
        let held: Vec<_> = (0..10).map(|_| balancer.pick(&costs(5, 5)).unwrap().hold()).collect();
        prop_assert_eq!(held.iter().filter(|pick| port(pick) == 1).count(), 5);
    }
}
