//! Records made by hand, and what they must come to.

use std::collections::BTreeMap;
use std::time::Duration;

use portolan_topology::names::{Locality, ServiceId};
use portolan_topology::policy::Scope;
use proptest::prelude::*;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn service(text: &str) -> ServiceId {
    text.parse().unwrap()
}

fn locality(region: &str, zone: &str, cluster: &str) -> Locality {
    Locality { region: region.parse().unwrap(), zone: Some(zone.parse().unwrap()), cluster: cluster.parse().unwrap() }
}

fn east() -> Scope {
    "region=east".parse().unwrap()
}

fn window(from: u64, until: u64) -> Window {
    Window::new(ms(from), ms(until))
}

/// Client and backend 0 are in east, 1 in west, 2 in north.
fn three_regions() -> Record {
    let places = [locality("east", "e-1", "ce"), locality("west", "w-1", "cw"), locality("north", "n-1", "cn")];
    Record {
        clients: places.iter().map(|at| Client { service: service("a.b"), locality: at.clone() }).collect(),
        backends: places
            .iter()
            .map(|at| Backend {
                name: format!("a-{}", at.cluster),
                service: service("a.b"),
                locality: at.clone(),
                removed: None,
            })
            .collect(),
        ..Record::default()
    }
}

fn call(client: u16, start: Duration, backend: u16, ok: bool) -> Call {
    Call {
        client: ClientId(client),
        start,
        sent: start,
        end: start + ms(5),
        backend: Some(BackendId(backend)),
        callee: None,
        ok,
    }
}

/// One call a millisecond by client 0 over `window`; `answer` says by millisecond who answered and how it ended.
fn each_ms(window: Window, answer: impl Fn(u64) -> (u16, bool)) -> Record {
    let mut record = three_regions();
    for at in window.from.as_millis() as u64..window.until.as_millis() as u64 {
        let (backend, ok) = answer(at);
        record.calls.push(call(0, ms(at), backend, ok));
    }
    record
}

#[test]
fn traffic_that_goes_elsewhere_at_once_moved_after_0_ms() {
    let record = each_ms(window(0, 2_000), |_| (1, true));
    assert_eq!(moved(&record, &east(), window(0, 2_000)), Some(ms(0)));
}

#[test]
fn moved_counts_from_the_kill_to_the_first_good_window_with_none_bad_after() {
    // Bad until 350 ms after the kill, and once more at 790 ms: the window from 800 ms on is the first.
    let record = each_ms(window(10_000, 12_000), |at| (1, !(at < 10_350 || (10_780..10_790).contains(&at))));
    assert_eq!(moved(&record, &east(), window(10_000, 12_000)), Some(ms(800)));
}

#[test]
fn one_call_in_a_hundred_may_fail_in_a_window_and_no_more() {
    let two_of_200 = each_ms(window(0, 1_000), |at| (1, at % 100 != 0));
    assert_eq!(moved(&two_of_200, &east(), window(0, 1_000)), Some(ms(0)));
    let three_of_the_last_200 = each_ms(window(0, 1_000), |at| (1, at % 100 != 0 && at != 999));
    assert_eq!(moved(&three_of_the_last_200, &east(), window(0, 1_000)), None);
}

#[test]
fn calls_that_succeed_in_the_killed_scope_have_not_moved() {
    let record = each_ms(window(0, 1_000), |at| (u16::from(at >= 500), true));
    assert_eq!(moved(&record, &east(), window(0, 1_000)), Some(ms(600)));
}

#[test]
fn nobody_calling_proves_nothing() {
    assert_eq!(moved(&three_regions(), &east(), window(0, 1_000)), None);
    // Bad calls, then silence.
    let record = each_ms(window(0, 400), |_| (1, false));
    assert_eq!(moved(&record, &east(), window(0, 1_000)), None);
}

#[test]
fn other_regions_clients_do_not_count_towards_moved() {
    let mut record = each_ms(window(0, 1_000), |_| (1, true));
    record.calls.extend((0..1_000).map(|at| call(2, ms(at), 2, false)));
    assert_eq!(moved(&record, &east(), window(0, 1_000)), Some(ms(0)));
}

#[test]
fn shares_are_of_successful_calls_by_the_answering_region() {
    // 7 of 10 to west, 2 to north, 1 fails.
    let record = each_ms(window(0, 1_000), |at| (if at % 10 < 7 { 1 } else { 2 }, at % 10 != 9));
    let shares = shares_by_region(&record, &Selection::by_clients_in(window(0, 1_000), &east()));
    assert_eq!(shares.calls, 900);
    let wanted = BTreeMap::from([("west".parse().unwrap(), 7.0 / 9.0), ("north".parse().unwrap(), 2.0 / 9.0)]);
    assert!(shares.points_off(&wanted) < 1e-9, "{shares:?}");
    let wrong = BTreeMap::from([("west".parse().unwrap(), 1.0)]);
    assert!((shares.points_off(&wrong) - 200.0 / 9.0).abs() < 1e-9);
}

#[test]
fn in_zone_is_by_zone_whatever_the_cluster() {
    let mut record = each_ms(window(0, 100), |at| (if at < 98 { 0 } else { 1 }, true));
    record.backends[1].locality = locality("east", "e-1", "another-cluster");
    assert_eq!(in_zone(&record, &Selection::all(window(0, 100))), Some((1.0, 100)));
    record.backends[1].locality = locality("east", "e-2", "ce");
    assert_eq!(in_zone(&record, &Selection::all(window(0, 100))), Some((0.98, 100)));
    assert_eq!(in_zone(&record, &Selection::all(window(100, 200))), None);
}

#[test]
fn in_flight_at_the_kill_is_what_was_open_at_the_killed_process_between_signal_and_end() {
    let mut record = three_regions();
    record.deaths.push(Death { backend: BackendId(0), killed: ms(100), gone: ms(110) });
    let open = |start, end, backend| Call { end: ms(end), ..call(0, ms(start), backend, false) };
    record.calls = vec![
        open(90, 99, 0),   // over before the signal
        open(90, 105, 0),  // open at the signal
        open(105, 108, 0), // within
        open(109, 900, 0), // began before the end
        open(111, 900, 0), // after the end
        open(90, 120, 1),  // at somebody who lives
    ];
    assert_eq!(record.in_flight_at_kill(&Selection::all(window(0, 1_000))), 3);
    // A retry that ended well elsewhere was in flight too.
    record.calls.push(Call { ok: true, sent: ms(112), ..open(95, 120, 1) });
    record.earlier.push(EarlierAttempt { call: 6, backend: BackendId(0), start: ms(95), end: ms(103) });
    assert_eq!(record.in_flight_at_kill(&Selection::all(window(0, 1_000))), 4);
}

#[test]
fn a_jump_back_has_no_steps() {
    let record = each_ms(window(0, 10_000), |at| (u16::from(at < 3_000), true));
    let jump = ramp(&record, &east(), window(0, 10_000)).unwrap();
    assert_eq!(jump, Ramp { begins_after: ms(3_000), took: ms(0), steps: 0 });
}

#[test]
fn a_straight_ramp_is_measured_from_begin_to_end() {
    // From 2 s to 12 s, one part in a hundred more each 100 ms.
    let record = each_ms(window(0, 20_000), |at| {
        let percent = at.saturating_sub(2_000).min(10_000) / 100;
        // A call is home if its place in its hundred (shuffled by a step prime to it) is below the percent.
        (u16::from((at * 37) % 100 >= percent), true)
    });
    let straight = ramp(&record, &east(), window(0, 20_000)).unwrap();
    assert!((8..=9).contains(&straight.steps), "{straight:?}");
    assert_eq!(straight.begins_after, ms(2_500));
    assert!((ms(8_500)..=ms(9_500)).contains(&straight.took), "{straight:?}");
}

#[test]
fn a_staircase_has_as_many_steps_as_levels_between() {
    let levels = [0, 0, 20, 45, 70, 100, 100];
    let record = each_ms(window(0, 14_000), |at| (u16::from((at * 37) % 100 >= levels[at as usize / 2_000]), true));
    let stairs = ramp(&record, &east(), window(0, 14_000)).unwrap();
    assert_eq!(stairs, Ramp { begins_after: ms(4_000), took: ms(6_000), steps: 3 });
}

#[test]
fn clients_that_jump_one_after_another_are_no_ramp() {
    let mut record = each_ms(window(0, 20_000), |_| (0, true));
    record.clients = vec![record.clients[0].clone(); 5];
    record.calls.clear();
    for at in 0..20_000 {
        for client in 0..5 {
            record.calls.push(call(client, ms(at), u16::from(at < 2_000 * (1 + u64::from(client))), true));
        }
    }
    let jumps = ramp(&record, &east(), window(0, 20_000)).unwrap();
    assert_eq!(jumps, Ramp { begins_after: ms(2_000), took: ms(0), steps: 4 });
}

#[test]
fn what_never_comes_back_whole_has_no_ramp() {
    let record = each_ms(window(0, 10_000), |at| (u16::from((at * 37) % 100 >= 60), true));
    assert_eq!(ramp(&record, &east(), window(0, 10_000)), None);
    let never = each_ms(window(0, 10_000), |_| (1, true));
    assert_eq!(ramp(&never, &east(), window(0, 10_000)), None);
}

#[test]
fn percentiles_are_by_nearest_rank() {
    let mut latencies: Vec<_> = (1..=200).rev().map(ms).collect();
    assert_eq!(percentile(&mut latencies, 99), Some(ms(198)));
    assert_eq!(percentile(&mut latencies, 50), Some(ms(100)));
    assert_eq!(percentile(&mut latencies, 0), Some(ms(1)));
    assert_eq!(percentile(&mut latencies, 100), Some(ms(200)));
    assert_eq!(percentile(&mut [], 99), None);
}

#[test]
fn balance_counts_idle_backends_and_leaves_out_those_scaled_away() {
    let mut record = three_regions();
    record.calls = (0..30).map(|at| call(0, ms(at), u16::from(at % 3 == 0), true)).collect();
    let all = balance(&record, &service("a.b"), window(0, 100)).unwrap();
    assert_eq!((all.backends, all.calls), (3, 30));
    assert!((all.max_over_mean - 2.0).abs() < 1e-9, "20 of a mean of 10: {all:?}");
    record.backends[2].removed = Some(ms(0));
    let fewer = balance(&record, &service("a.b"), window(0, 100)).unwrap();
    assert!((fewer.max_over_mean - 20.0 / 15.0).abs() < 1e-9, "{fewer:?}");
}

#[test]
fn balance_counts_the_callees_of_callees() {
    let mut record = three_regions();
    record.backends[1].service = service("stock.b");
    record.backends[2].service = service("stock.b");
    record.calls = (0..40)
        .map(|at| Call { callee: Some(BackendId(1 + u16::from(at % 4 == 0))), ..call(0, ms(at), 0, true) })
        .collect();
    let stock = balance(&record, &service("stock.b"), window(0, 100)).unwrap();
    assert!((stock.max_over_mean - 30.0 / 20.0).abs() < 1e-9, "{stock:?}");
    assert_eq!(balance(&record, &service("other.b"), window(0, 100)), None);
}

fn any_calls() -> impl Strategy<Value = Vec<Call>> {
    prop::collection::vec((0..3_u16, 0..3_000_u64, 0..3_u16, prop::bool::weighted(0.9)), 0..400).prop_map(|calls| {
        calls.into_iter().map(|(client, start, backend, ok)| call(client, ms(start), backend, ok)).collect()
    })
}

proptest! {
    #[test]
    fn shares_sum_to_one(calls in any_calls()) {
        let record = Record { calls, ..three_regions() };
        let shares = shares_by_region(&record, &Selection::all(window(0, 3_000)));
        let sum: f64 = shares.fractions.values().sum();
        let wanted = if shares.calls == 0 { 0.0 } else { 1.0 };
        prop_assert!((sum - wanted).abs() < 1e-9, "{}", sum);
    }

    /// What `moved` means, said again the slow way.
    #[test]
    fn moved_is_the_first_window_from_which_all_are_good(calls in any_calls(), from in 0..2_500_u64) {
        let record = Record { calls, ..three_regions() };
        let after = window(from, 3_000);
        let of_scope: Vec<_> =
            record.calls.iter().filter(|call| call.client == ClientId(0) && after.contains(call.start)).collect();
        let good_from = |start: Duration| {
            let mut begin = start;
            while begin < after.until {
                let in_window: Vec<_> =
                    of_scope.iter().filter(|call| call.start >= begin && call.start < begin + WINDOW).collect();
                let good = in_window.iter().filter(|call| call.ok && call.backend != Some(BackendId(0))).count();
                if (good as f64) < in_window.len() as f64 * 0.99 {
                    return false;
                }
                begin += WINDOW;
            }
            of_scope.iter().any(|call| call.start >= start)
        };
        let slow = (0..).map(|step| WINDOW * step).take_while(|step| after.from + *step < after.until)
            .find(|step| good_from(after.from + *step));
        prop_assert_eq!(moved(&record, &east(), after), slow);
    }

    #[test]
    fn failures_and_in_flight_never_exceed_the_calls(calls in any_calls(), killed in 0..3_000_u64, took in 0..50_u64) {
        let mut record = Record { calls, ..three_regions() };
        record.deaths.push(Death { backend: BackendId(0), killed: ms(killed), gone: ms(killed + took) });
        let all = Selection::all(window(0, 3_000));
        let total = record.select(&all).count();
        prop_assert_eq!(total, record.calls.len());
        prop_assert!(record.failed(&all) <= total);
        let at_killed = record.calls.iter().filter(|call| call.backend == Some(BackendId(0))).count();
        prop_assert!(record.in_flight_at_kill(&all) <= at_killed);
    }
}
