//! Runs made by hand, and their verdicts.

use std::time::Duration;

use super::*;
use crate::fixtures::{self, ms, scenario};

fn judged(expectation: &str, observed: &Observed) -> Outcome {
    let scenario = scenario(&[expectation]);
    judge(&scenario, observed).remove(0)
}

#[test]
fn the_run_made_by_hand_holds_what_region_loss_wants() {
    let scenario = scenario(&[
        "{name: in-zone, from: 2s, until: 10s, inZoneSharePercent: {min: 99}}",
        "{name: split, from: 12s, until: 25s, clientsIn: $lost, regionShares: topology, tolerancePoints: 3}",
        "{name: moved, after: kill, movedWithin: 1s}",
        "{name: failed, failed: {maxInFlightAtKill: true}}",
        "{name: ramp, after: restart, rampsBackOver: {min: 5s}}",
    ]);
    let outcomes = judge(&scenario, &fixtures::region_loss());
    let lines: Vec<String> = outcomes
        .iter()
        .map(|outcome| format!("{} {}: {} / {}", outcome.held, outcome.name, outcome.measured, outcome.wanted))
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn each_expectation_fails_on_a_run_that_breaks_it() {
    let good = fixtures::region_loss();
    let mut stays = good.clone();
    // A tenth of the calls before the kill leave their zone.
    for call in stays.record.calls.iter_mut().filter(|call| call.start < ms(10_000)).step_by(10) {
        call.backend = stays.record.backends.iter().position(|b| b.locality.region.as_str() == "eu-west").map(id);
    }
    let mut fails = good.clone();
    for call in fails.record.calls.iter_mut().filter(|call| call.start > ms(12_000)).take(50) {
        call.ok = false;
    }
    let mut jumps = good.clone();
    for call in jumps.record.calls.iter_mut().filter(|call| call.start >= ms(25_000)) {
        call.backend = Some(call.client.0).map(|client| id(usize::from(client)));
    }
    for (expectation, broken) in [
        ("{name: in-zone, from: 2s, until: 10s, inZoneSharePercent: {min: 99}}", &stays),
        ("{name: split, from: 30s, until: 50s, clientsIn: $lost, regionShares: topology}", &good),
        ("{name: split, from: 12s, until: 25s, clientsIn: $lost, regionShares: {us-west: 50, eu-west: 50}}", &good),
        ("{name: moved, after: kill, movedWithin: 400ms}", &good),
        ("{name: moved, after: kill, movedWithin: 1s}", &fails),
        ("{name: failed, failed: {maxInFlightAtKill: true}}", &fails),
        ("{name: failed, failed: {max: 0}}", &good),
        ("{name: ramp, after: restart, rampsBackOver: {min: 20s}}", &good),
        ("{name: ramp, after: restart, rampsBackOver: {min: 0s}}", &jumps),
    ] {
        let outcome = judged(expectation, broken);
        assert!(!outcome.held, "{expectation}: {outcome:?}");
        assert!(!outcome.measured.is_empty() && !outcome.wanted.is_empty());
    }
}

fn id(index: usize) -> crate::measure::BackendId {
    crate::measure::BackendId(u16::try_from(index).unwrap())
}

#[test]
fn what_rests_on_too_few_calls_does_not_hold() {
    let mut few = fixtures::region_loss();
    few.record.calls.retain(|call| call.start < ms(2_100));
    for expectation in [
        "{name: a, from: 2s, until: 10s, inZoneSharePercent: {min: 99}}",
        "{name: b, after: kill, movedWithin: 1s}",
        "{name: c, from: 10s, failed: {max: 0}}",
        "{name: d, from: 20s, until: 30s, p99Within: {factor: 1.5, of: {from: 2s, until: 10s}}}",
        "{name: e, after: restart, maxOverMean: {service: checkout.shop, max: 1.15}}",
    ] {
        let outcome = judged(expectation, &few);
        assert!(!outcome.held && outcome.measured.contains("too few to tell"), "{outcome:?}");
    }
}

#[test]
fn latency_is_compared_with_another_window() {
    let expectation = "{name: p99, from: 26s, until: 30s, p99Within: {factor: 1.5, of: {from: 2s, until: 10s}}}";
    let mut observed = fixtures::region_loss();
    assert_eq!(judged(expectation, &observed).measured, "1.00× (5.0 ms against 5.0 ms)");
    for call in observed.record.calls.iter_mut().filter(|call| call.start >= ms(26_000)) {
        call.end += ms(3);
    }
    let slower = judged(expectation, &observed);
    assert!(!slower.held && slower.measured.starts_with("1.60×"), "{slower:?}");
}

#[test]
fn a_killed_process_is_gone_only_if_nobody_answers_there() {
    let expectation = "{name: gone, after: kill, processGone: true}";
    let mut observed = fixtures::region_loss();
    assert_eq!(judged(expectation, &observed).measured, "no process was killed");
    let ended = |name: &str, by_kill, still_answers| Ended {
        step: 0,
        name: name.to_owned(),
        took: ms(3),
        by_kill,
        still_answers,
    };
    observed.ended = vec![ended("control plane use1-a", true, false)];
    assert_eq!(judged(expectation, &observed).measured, "control plane use1-a gone after 3 ms");
    observed.ended.push(ended("control plane use1-b", true, true));
    let outcome = judged(expectation, &observed);
    assert!(!outcome.held && outcome.measured == "not gone: control plane use1-b", "{outcome:?}");
    observed.ended[1] = ended("control plane use1-b", false, false);
    assert!(!judged(expectation, &observed).held);
}

#[test]
fn writes_work_again_with_the_first_that_was_asked_for_after_the_step() {
    let expectation = "{name: writes, after: kill, writesWithin: 5s}";
    let write = |asked, acknowledged: Option<(u64, u64)>| Write {
        asked: ms(asked),
        acknowledged: acknowledged.map(|(at, revision)| (ms(at), revision)),
    };
    let mut observed = fixtures::region_loss();
    // Asked for before the kill: it may have been done before.
    observed.writes = vec![write(9_900, Some((10_100, 7))), write(10_200, None), write(13_000, Some((14_000, 8)))];
    let outcome = judged(expectation, &observed);
    assert!(outcome.held && outcome.measured == "after 4 s", "{outcome:?}");
    observed.writes[2].acknowledged = None;
    assert!(!judged(expectation, &observed).held);

    let history = "{name: history, historyKept: true}";
    observed.history = Some(vec![1, 7, 9]);
    assert_eq!(judged(history, &observed).measured, "all 1");
    observed.history = Some(vec![1, 9]);
    assert_eq!(judged(history, &observed).measured, "1 of 1 lost: r7");
    observed.history = None;
    assert!(!judged(history, &observed).held);
}

#[test]
fn a_command_of_the_scenario_that_failed_fails_the_run() {
    let scenario = scenario(&["{name: failed, failed: {max: 300}}"]);
    let mut observed = fixtures::region_loss();
    assert!(judge(&scenario, &observed).iter().all(|outcome| outcome.held));
    observed.troubles.push(Trouble { what: "drain".to_owned(), message: "no leader".to_owned() });
    let outcomes = judge(&scenario, &observed);
    assert_eq!((outcomes.len(), outcomes[1].held, outcomes[1].measured.as_str()), (2, false, "no leader"));
}

#[test]
fn figures_read_well() {
    let said: Vec<String> =
        [0, 210, 999, 1_000, 1_540, 90_000].map(|millis| spoken(Duration::from_millis(millis))).into();
    assert_eq!(said, ["0 ms", "210 ms", "999 ms", "1 s", "1.5 s", "90 s"]);
    let shares = [("us-west", 0.701), ("eu-west", 0.299)].into_iter().collect();
    assert_eq!(percents(&shares), "us-west 70.1%, eu-west 29.9%");
    assert_eq!(percents::<String>(&Default::default()), "nobody");
    let bounds: Vec<String> = [(99.0, 100.0), (0.0, 5.5), (53.0, 59.0), (0.0, 100.0)]
        .into_iter()
        .map(|(min, max)| wording::bounds(min, max))
        .collect();
    assert_eq!(bounds, ["at least 99%", "at most 5.5%", "53% to 59%", "0% to 100%"]);
    assert_eq!(list(&["a".into(), "b".into(), "c".into()]), "a, b and c");
}
