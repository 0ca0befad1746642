//! Scenario files, good and bad.

use std::time::Duration;

use portolan_topology::topology::Topology;

use super::*;

fn topology() -> Topology {
    Topology::parse(builtin::TOPOLOGY_FILE, builtin::TOPOLOGY).unwrap().0
}

/// A good scenario in which tests change one thing.
const GOOD: &str = "\
apiVersion: portolan.dev/v1alpha1
kind: Scenario
metadata: {name: good}
spec:
  select: {lost: {region: first}, far: {cluster: last}}
  services: [{name: checkout.shop, port: 8080, backendsPerZone: 2}]
  clients: [{service: checkout.shop, rate: 200}]
  steps:
    - {name: kill, at: 10s, kill: {scope: $lost}}
    - {name: restart, at: 25s, restart: {scope: $lost}}
  duration: 50s
  expect:
    - {name: split, from: 12s, until: 25s, clientsIn: $lost, regionShares: topology}
    - {name: moved, after: kill, movedWithin: 1s}
";

fn read(text: &str) -> Result<Scenario, String> {
    parse("s.yaml", text, &topology()).map_err(|diagnostics| diagnostics.first().headline())
}

/// What is said about [`GOOD`] with `from` changed to `to`.
#[track_caller]
fn refusal(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    read(&GOOD.replacen(from, to, 1)).unwrap_err()
}

#[test]
fn every_builtin_scenario_fits_its_topology_and_names_it() {
    for builtin in builtin::ALL {
        let file = builtin.file();
        let path = topology_path(&file, builtin.text).unwrap().unwrap();
        assert_eq!(path, format!("../../{}", builtin::TOPOLOGY_FILE));
        let scenario = parse(&file, builtin.text, &topology()).unwrap_or_else(|refused| panic!("{refused}"));
        assert_eq!(scenario.name, builtin.name);
        assert!(!builtin.about().is_empty(), "{} says what it is about", builtin.name);
    }
}

#[test]
fn a_topology_is_not_a_scenario_and_is_told_so() {
    let refused = topology_path("t.yaml", builtin::TOPOLOGY).unwrap_err();
    assert_eq!(refused.first().headline(), "t.yaml:7:7: this is a Topology; expected a Scenario");
}

#[test]
fn the_shipped_region_loss_is_large_enough_and_has_its_five_expectations() {
    let scenario = parse("s", builtin::find("region-loss").unwrap().text, &topology()).unwrap();
    let clients: usize =
        scenario.clients.iter().map(|group| Scenario::localities(&topology(), group.within.as_ref()).len()).sum();
    assert!(clients as f64 * scenario.clients[0].rate * scenario.duration.as_secs_f64() >= 20_000.0);
    let names: Vec<_> = scenario.expectations.iter().map(|expectation| expectation.name.as_str()).collect();
    assert_eq!(names, ["in-zone", "split", "moved", "failed", "ramp"]);
}

#[test]
fn roles_become_names_and_the_topology_gives_its_weights() {
    let scenario = read(GOOD).unwrap();
    let Action::Kill { target: Target::Scope(lost), backends: true, control_planes: true } = &scenario.steps[0].action
    else {
        panic!("{:?}", scenario.steps[0])
    };
    assert_eq!(lost.to_string(), "region=us-east");
    let Wanted::RegionShares { shares, from_topology: true, .. } = &scenario.expectations[0].kind else {
        panic!("{:?}", scenario.expectations[0])
    };
    let shares: Vec<_> = shares.iter().map(|(region, share)| (region.as_str(), *share)).collect();
    assert_eq!(shares, [("eu-west", 0.3), ("us-west", 0.7)]);
    assert_eq!(scenario.planned(&scenario.expectations[1].window).until, Duration::from_secs(25));
}

#[test]
fn positions_pick_regions_clusters_and_zones() {
    for (role, wanted) in [
        ("{region: last}", "region=eu-west"),
        ("{region: largest}", "region=us-east"),
        ("{cluster: first}", "cluster=use1-a"),
        ("{zone: largest}", "zone=us-east-1b"),
        ("{zone: eu-west-1c}", "zone=eu-west-1c"),
    ] {
        let kill = "{name: kill, at: 10s, kill: {scope: $lost}}";
        let text = GOOD.replacen(kill, &format!("{{name: kill, at: 10s, kill: {{scope: {role}}}}}"), 1);
        let scenario = read(&text.replace("    - {name: moved, after: kill, movedWithin: 1s}\n", "")).unwrap();
        let Action::Kill { target: Target::Scope(scope), .. } = &scenario.steps[0].action else { panic!() };
        assert_eq!(scope.to_string(), wanted);
    }
}

#[test]
fn a_policy_gets_its_namespace_and_the_names_of_roles() {
    let policies = "  policies:
    - targetRefs: [{group: \"\", kind: Service, name: checkout}]
      locality: {clusterWeights: [{cluster: $far, weight: 1}]}
  duration: 50s";
    let scenario = read(&GOOD.replacen("  duration: 50s", policies, 1)).unwrap();
    let policy: serde_json::Value = serde_json::from_str(&scenario.policies[0]).unwrap();
    assert_eq!(policy["metadata"]["namespace"], "shop");
    assert_eq!(policy["spec"]["locality"]["clusterWeights"][0]["cluster"], "euw1-b");
    assert!(scenario.writes_policy());
    assert!(!read(GOOD).unwrap().writes_policy());
}

#[test]
fn mistakes_have_a_place_what_was_expected_and_a_suggestion() {
    let refusals = [
        refusal("{name: good}", "{name: Good}"),
        refusal("kind: Scenario", "kind: Scenery"),
        refusal("{region: first}", "{region: us-easy}"),
        refusal("{region: first}", "{regoin: first}"),
        refusal("{scope: $lost}}\n    - {name: restart", "{scope: $last}}\n    - {name: restart"),
        refusal("rate: 200", "rat: 200"),
        refusal("rate: 200", "rate: 0"),
        refusal("{service: checkout.shop", "{service: chekout.shop"),
        refusal("name: checkout.shop, port", "name: checkout, port"),
        refusal("backendsPerZone: 2", "backendsPerZone: 0"),
        refusal("at: 10s", "at: ten"),
        refusal("at: 25s", "at: 9s"),
        refusal("at: 25s", "at: 50s"),
        refusal("name: restart", "name: kill"),
        refusal("kill: {scope: $lost}}", "kill: {scope: $lost}, restart: {scope: $lost}}"),
        refusal("kill: {scope: $lost}}", "kill: {scope: $lost, what: []}}"),
        refusal("kill: {scope: $lost}}", "kill: {role: leader}}"),
        refusal("kill: {scope: $lost}}", "kill: {}}"),
        refusal("restart: {scope: $lost}", "degrade: {scope: $lost, percent: 101}"),
        refusal("restart: {scope: $lost}", "scale: {service: checkout.shop, to: 9}"),
        refusal("clientsIn: $lost, regionShares: topology", "regionShares: topology"),
        refusal("regionShares: topology", "regionShares: {us-weest: 1}"),
        refusal("regionShares: topology", "regionShares: {us-west: 0}"),
        refusal("after: kill", "after: kil"),
        refusal("after: kill", "after: restart"),
        refusal("after: kill", "from: 10s"),
        refusal("until: 25s", "until: 12s"),
        refusal("until: 25s", "until: 51s"),
        refusal("movedWithin: 1s", "movedWithin: 1s, processGone: true"),
        refusal("movedWithin: 1s", "processGone: false"),
        refusal("movedWithin: 1s", "inZoneSharePercent: {min: 101}"),
        refusal("movedWithin: 1s", "failed: {}"),
    ];
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn a_scenario_that_expects_nothing_is_refused() {
    let nothing = GOOD.split("  expect:").next().unwrap();
    let said = read(nothing).unwrap_err();
    assert!(said.contains("expects nothing"), "{said}");
    let said = read(&format!("{nothing}  expect: []\n")).unwrap_err();
    assert!(said.contains("expects nothing"), "{said}");
}

#[test]
fn an_expectation_needs_a_thousand_calls_and_a_share_five_thousand() {
    // 4 clients of us-east, 13 s: 1.92 × 52 = 100.
    let said = read(&GOOD.replacen("rate: 200", "rate: 96", 1)).unwrap_err();
    insta::assert_snapshot!(said, @"s.yaml:13:7: 4992 calls are behind the expectation `split`; expected at least 5000: a higher `rate` or a longer window");
    assert!(read(&GOOD.replacen("rate: 200", "rate: 97", 1)).is_ok());
    let no_share =
        GOOD.replacen("    - {name: split, from: 12s, until: 25s, clientsIn: $lost, regionShares: topology}\n", "", 1);
    assert!(read(&no_share.replacen("rate: 200", "rate: 17", 1)).is_ok());
    let said = read(&no_share.replacen("rate: 200", "rate: 16", 1)).unwrap_err();
    assert!(said.contains("960 calls are behind the expectation `moved`; expected at least 1000"), "{said}");
}

#[test]
fn sizes_that_a_machine_cannot_bear_are_refused() {
    let said = refusal("backendsPerZone: 2", "backendsPerZone: 40");
    assert!(said.contains("480 backends; expected at most 400"), "{said}");
    let said = refusal("rate: 200", "rate: 4000");
    assert!(said.contains("2400000 calls; expected at most 2000000"), "{said}");
}
