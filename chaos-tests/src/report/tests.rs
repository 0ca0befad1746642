//! Reports of a run made by hand.

use super::*;
use crate::fixtures;
use crate::verdict::judge;

fn by_hand() -> (Report, Scenario, Observed) {
    let scenario = fixtures::scenario(&[
        "{name: in-zone, from: 2s, until: 10s, inZoneSharePercent: {min: 99}}",
        "{name: moved, after: kill, movedWithin: 500ms}",
    ]);
    let observed = fixtures::region_loss();
    let outcomes = judge(&scenario, &observed);
    (report(&scenario, &observed, &outcomes, "0.1.0"), scenario, observed)
}

#[test]
fn the_json_has_its_agreed_shape() {
    let (report, ..) = by_hand();
    insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
}

#[test]
fn one_expectation_that_does_not_hold_fails_the_run() {
    let (failed, scenario, observed) = by_hand();
    assert_eq!(failed.verdict, Verdict::Fail);
    let mut outcomes = judge(&scenario, &observed);
    outcomes.retain(|outcome| outcome.held);
    assert_eq!(report(&scenario, &observed, &outcomes, "0.1.0").verdict, Verdict::Pass);
}

#[test]
fn the_page_is_whole_and_needs_nothing_from_outside() {
    let (report, scenario, observed) = by_hand();
    let page = html::page(&report, &scenario, &observed);
    for wanted in
        ["<title>FAIL: by-hand</title>", "us-west", "<svg", "kill region us-east", "✗", "✓", "99th percentile"]
    {
        assert!(page.contains(wanted), "{wanted}");
    }
    for outside in ["http://", "https://", "src=", "<script", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    // Three regions' shares, errors, latency; each marks both steps.
    assert_eq!(page.matches("<svg").count(), 5);
    assert_eq!(page.matches("class=\"mark\" d=").count(), 10);
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
}

#[test]
fn both_files_are_written_and_replace_older_ones() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("new/report");
    let (report, scenario, observed) = by_hand();
    for _ in 0..2 {
        write(&into, &report, &scenario, &observed).unwrap();
    }
    let mut names: Vec<_> = std::fs::read_dir(&into).unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["report.html", "report.json"]);
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(into.join("report.json")).unwrap()).unwrap();
    assert_eq!(json["verdict"], "fail");
}
