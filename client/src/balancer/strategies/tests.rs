//! Each strategy in a balancer, as a channel has it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::super::tests::{OK, assignment};
use super::super::{Balancer, Chosen, Cost, Member, Outcome, Pick, RequestInfo, Status, Strategy};
use super::*;
use crate::orca::OrcaReport;
use crate::xds::balancing::{TableSize, Weighting};

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

#[test]
fn tables_have_the_size_that_is_asked_for_and_everybody_a_place() {
    let members = |weights: &[u32]| -> Vec<Member<()>> {
        let member =
            |(port, weight): (u16, &u32)| Member { address: ([127, 0, 0, 1], port).into(), weight: *weight, node: () };
        (1..).zip(weights).map(member).collect()
    };
    let ring = |least, most, weights: &[u32]| RingHash { least, most, ..RingHash::default() }.table(&members(weights));
    assert_eq!(ring(1024, 8 << 20, &[1; 2]).len(), 1024, "two would have 512");
    assert_eq!(ring(0, 8 << 20, &[1; 2]).len(), 512);
    assert_eq!(ring(0, 100, &[1; 4]).len(), 100);
    assert_eq!(ring(4000, 4000, &[1, 1, 2]).len(), 4000);
    let few = ring(0, 2, &[1; 5]);
    assert!((0..5).all(|at| few.iter().any(|place| place.1 == at)), "one place for each at least");
    assert!(ring(8 << 20, 8 << 20, &[1; 3]).len() <= (1 << 20) + 3, "whatever is asked for");

    let table = |size| Maglev { size, ..Maglev::default() }.table(&members(&[1, 1, 2]));
    let two_and_more = table(TableSize::new(5));
    assert_eq!(two_and_more.len(), 5);
    assert_eq!(table(TableSize::new(10_007)).iter().filter(|at| **at == 2).count() / 100, 50);
    assert_eq!(table(None).len(), 1009);
}

#[tokio::test(start_paused = true)]
async fn one_of_ten_that_leaves_moves_its_own_keys_and_few_others() {
    for strategy in [Chosen::from(RingHash::default()), Maglev::default().into()] {
        let all = over(strategy, &[1; 10]);
        let before = placed(&all, 4000);
        let gone = all.wanted().into_iter().find(|endpoint| endpoint.address().port() == 4).unwrap();
        all.report(&gone, Status::Down("it is gone".into()), Instant::now());
        let after = placed(&all, 4000);
        let moved = before.iter().filter(|(hash, at)| after[hash] != **at).count();
        assert!((300..600).contains(&moved), "{moved} of 4000, {all:?}");
    }
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
async fn weights_count_from_when_and_for_as_long_as_is_asked_for() {
    let weighting = Weighting {
        blackout: Duration::ZERO,
        expiry: Duration::from_secs(20),
        update: Duration::from_secs(5),
        error_penalty: 1.0,
    };
    let balancer = over(WeightedRoundRobin::from(weighting), &[1, 1]);
    let serve = |report: bool| {
        let mut seen = HashMap::<u16, u32>::new();
        for _ in 0..300 {
            let pick = balancer.pick(&RequestInfo::default()).unwrap();
            *seen.entry(port(&pick)).or_default() += 1;
            // As busy with half of the requests; errors count as much as it is used.
            let eps = if port(&pick) == 1 { 50.0 } else { 0.0 };
            let said = OrcaReport { application_utilization: 0.5, rps_fractional: 100.0, eps, ..OrcaReport::default() };
            pick.finish(Outcome::Success, None, report.then_some(&said));
        }
        seen[&1]
    };
    assert_eq!(serve(true), 150, "taken up at the first request, when nothing was known");
    tokio::time::advance(Duration::from_secs(4)).await;
    assert_eq!(serve(true), 150, "not yet taken up");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(serve(false).abs_diff(100) < 3);
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(serve(false), 150, "not heard of for too long");
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
