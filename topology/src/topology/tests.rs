use proptest::prelude::*;

use super::*;

/// A valid file of two regions, without a warning but those of its one-sided voters; tests replace parts of it.
const GOOD: &str = "\
apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {name: test}
spec:
  regions:
    - name: us-east
      zones: [us-east-1a, us-east-1b]
      clusters:
        - name: use1-a
          gateways: [gw.use1-a.example.com:15443]
          controlPlane: {address: cp.use1-a.example.com, voter: true}
        - name: use1-b
          zones: [us-east-1b]
          controlPlane: {address: '10.0.0.2:8443', voter: true}
    - name: us-west
      zones: [us-west-2a]
      clusters:
        - name: usw2-a
          controlPlane: {address: '[fd00::1]', voter: true}
  links:
    - {between: [us-east, us-west], rtt: 62ms, cost: 2}
  failover:
    us-east: [{region: us-west, weight: 1}]
    us-west: [{region: us-east, weight: 1}]
";

const EXAMPLE: &str = include_str!("../../../examples/three-regions/topology.yaml");

/// Replaces `part` of the good file and expects these mistakes, as headlines without the file's name.
fn check(part: &str, by: &str, expected: &[&str]) {
    assert!(GOOD.contains(part), "{part} is not in the good file");
    let text = GOOD.replacen(part, by, 1);
    let refused = Topology::parse("t", &text).expect_err(&text);
    let found: Vec<_> = refused.iter().map(|mistake| mistake.headline()[2..].to_owned()).collect();
    assert_eq!(found, expected, "for:\n{text}");
}

/// Replaces `part` of the good file and expects these warnings.
fn check_warnings(part: &str, by: &str, expected: &[&str]) {
    assert!(GOOD.contains(part), "{part} is not in the good file");
    let (_, warnings) = Topology::parse("t", &GOOD.replacen(part, by, 1)).unwrap();
    let found: Vec<_> = warnings.iter().map(|warning| warning.0.headline()[2..].to_owned()).collect();
    assert_eq!(found, expected);
}

fn region(text: &str) -> RegionName {
    text.parse().unwrap()
}

#[test]
fn the_good_file_reads_with_its_defaults() {
    let (topology, _) = Topology::parse("t", GOOD).unwrap();
    let clusters: Vec<_> = topology.clusters().collect();
    assert_eq!(clusters[0].zones.len(), 2);
    assert_eq!(clusters[0].network.as_str(), "default");
    assert_eq!(
        (clusters[0].control_plane.host.as_str(), clusters[0].control_plane.port),
        ("cp.use1-a.example.com", 7443)
    );
    assert_eq!((clusters[1].control_plane.host.as_str(), clusters[1].control_plane.port), ("10.0.0.2", 8443));
    assert_eq!((clusters[2].control_plane.host.as_str(), clusters[2].control_plane.port), ("fd00::1", 7443));
    assert_eq!(topology.short_hash().len(), 4);
}

#[test]
fn the_example_has_no_warnings() {
    let (topology, warnings) = Topology::parse("topology.yaml", EXAMPLE).unwrap();
    assert_eq!(warnings, []);
    assert_eq!((topology.regions.len(), topology.clusters().count(), topology.voters().len()), (3, 6, 3));
    assert!(topology.clusters().all(|cluster| cluster.zones.len() == 2));
}

#[test]
fn a_mistake_shows_its_line_with_a_caret() {
    let text = GOOD.replace("us-east: [{region: us-west", "us-east: [{region: us-wset");
    assert_eq!(
        Topology::parse("topology.yaml", &text).unwrap_err().to_string(),
        "topology.yaml:23:24: unknown region `us-wset`; expected `us-east` or `us-west`; did you mean `us-west`?\n  \
         23 |     us-east: [{region: us-wset, weight: 1}]\n     \
            |                        ^^^^^^^"
    );
}

#[test]
fn wrong_heads() {
    check(
        "v1alpha1",
        "v1",
        &[
            "1:13: `apiVersion` is `portolan.dev/v1`; expected `portolan.dev/v1alpha1`; did you mean `portolan.dev/v1alpha1`?",
        ],
    );
    check(
        "kind: Topology",
        "kind: Topologie",
        &["2:7: `kind` is `Topologie`; expected `Topology`; did you mean `Topology`?"],
    );
    check(
        "name: test",
        "name: My_Test",
        &["3:18: `My_Test` is not a topology name: only lower-case letters, digits and `-` may stand in it"],
    );
    check(
        "spec:",
        "spce:",
        &[
            "1:1: the field `spec` is missing",
            "4:1: unknown field `spce`; expected `apiVersion`, `kind`, `metadata` or `spec`; did you mean `spec`?",
        ],
    );
}

#[test]
fn wrong_regions_and_zones() {
    check(
        "- name: us-west\n",
        "- name: us-east\n",
        &[
            "15:13: region `us-east` stands here again; first in line 6",
            "21:27: unknown region `us-west`; expected `us-east`; did you mean `us-east`?",
            "23:24: unknown region `us-west`; expected `us-east`; did you mean `us-east`?",
            "24:5: unknown region `us-west`; expected `us-east`; did you mean `us-east`?",
        ],
    );
    check(
        "zones: [us-west-2a]",
        "zones: [us-east-1b]",
        &["16:15: zone `us-east-1b` is already in region `us-east` (line 7): a zone is in one region"],
    );
    check(
        "[us-east-1a, us-east-1b]",
        "[us-east-1a, us-east-1b, us-east-1a]",
        &["7:39: zone `us-east-1a` stands here again; first in line 7"],
    );
    check("[us-west-2a]", "[]", &["16:14: region `us-west` has no zones; expected at least one"]);
    check(
        "[us-west-2a]",
        "[US_WEST]",
        &["16:15: `US_WEST` is not a zone name: only lower-case letters, digits and `-` may stand in it"],
    );
    check(
        "        - name: usw2-a\n          controlPlane: {address: '[fd00::1]', voter: true}\n",
        "        []\n",
        &["18:9: region `us-west` has no clusters; expected at least one"],
    );
}

#[test]
fn wrong_clusters() {
    check("name: use1-b", "name: use1-a", &["12:17: cluster `use1-a` stands here again; first in line 9"]);
    check("name: use1-b", "name: -b", &["12:17: `name`: `-b` is not a cluster name: it begins or ends with `-`"]);
    check(
        "zones: [us-east-1b]",
        "zones: [us-west-2a]",
        &["13:19: zone `us-west-2a` is in region `us-west`, the cluster in `us-east`; \
         expected `us-east-1a` or `us-east-1b`; did you mean `us-east-1a`?"],
    );
    check(
        "zones: [us-east-1b]",
        "zones: [us-east-b]",
        &["13:19: region `us-east` has no zone `us-east-b`; expected `us-east-1a` or `us-east-1b`; \
         did you mean `us-east-1b`?"],
    );
    check(
        "zones: [us-east-1b]",
        "zones: []",
        &["13:18: the cluster has no zones; expected at least one, or no `zones` at all for every zone of the region"],
    );
    check("zones: [us-east-1b]", "zones: [us-east-1b, us-east-1b]", &["13:31: zone `us-east-1b` stands here twice"]);
    check(
        "gw.use1-a.example.com:15443",
        "gw.use1-a.example.com",
        &["10:22: gateway `gw.use1-a.example.com`: the port is missing; expected HOST:PORT"],
    );
    check(
        "'10.0.0.2:8443'",
        "'10.0.0.2:99999'",
        &["14:35: control plane address `10.0.0.2:99999`: the port is not a number from 1 to 65535"],
    );
    check(
        "'10.0.0.2:8443'",
        "'cp.use1-a.example.com:7443'",
        &["14:35: control plane address `cp.use1-a.example.com:7443` stands here again; first in line 11"],
    );
    check(
        "'10.0.0.2:8443'",
        "'not a host'",
        &["14:35: control plane address `not a host`: the host is neither a DNS name nor an IP address; \
         an IPv6 address stands in brackets, `[fd00::1]:7443`"],
    );
    check(
        "controlPlane: {address: '10",
        "controlplane: {address: '10",
        &[
            "12:11: the field `controlPlane` is missing",
            "14:11: unknown field `controlplane`; expected `name`, `zones`, `network`, `gateways` or `controlPlane`; \
         did you mean `controlPlane`?",
        ],
    );
}

#[test]
fn no_voter_is_an_error() {
    let text = GOOD.replace(", voter: true", "");
    let refused = Topology::parse("t", &text).unwrap_err();
    assert_eq!(
        refused.first().headline(),
        "t:6:5: no cluster votes on policy; expected `voter: true` on at least one, better on three"
    );
}

#[test]
fn wrong_links() {
    check("rtt: 62ms", "rtt: -62ms", &["21:42: `rtt`: a duration cannot be negative"]);
    check(
        "rtt: 62ms",
        "rtt: 62",
        &["21:42: `rtt`: found integer `62`; expected a duration such as `250ms`, `5s` or `1h30m`"],
    );
    check("cost: 2", "cost: -2", &["21:54: the cost is -2; expected 0 or more"]);
    check("between: [us-east, us-west]", "between: [us-east, us-east]", &["21:17: a link of `us-east` with itself"]);
    check(
        "between: [us-east, us-west]",
        "between: [us-east]",
        &["21:17: `between`: found a list of 1; expected a list of 2"],
    );
    check(
        "between: [us-east, us-west]",
        "between: [us-esat, us-west]",
        &["21:18: unknown region `us-esat`; expected `us-east` or `us-west`; did you mean `us-east`?"],
    );
    let twice = "  links:\n    - {between: [us-west, us-east], rtt: 1ms, symmetric: false}\n";
    check(
        "  links:\n",
        twice,
        &["22:17: the link between `us-east` and `us-west` stands here again; first in line 21"],
    );
}

#[test]
fn wrong_failover() {
    check(
        "us-east: [{region: us-west, weight: 1}]",
        "us-east: [{region: us-east, weight: 1}]",
        &["23:24: region `us-east` fails over to itself"],
    );
    check(
        "us-east: [{region: us-west, weight: 1}]",
        "us-east: [{region: us-west, weight: 0}]",
        &["23:14: `us-east` fails over to nothing: every weight is zero; expected a target with a weight above 0"],
    );
    check(
        "us-east: [{region: us-west, weight: 1}]",
        "us-east: []",
        &["23:14: `us-east` fails over to nothing: every weight is zero; expected a target with a weight above 0"],
    );
    check(
        "us-east: [{region: us-west, weight: 1}]",
        "us-east: [{region: us-west, weight: -1}]",
        &["23:41: `weight`: found the number -1; expected a whole number from 0 to 4294967295"],
    );
    check(
        "us-east: [{",
        "eu-east: [{",
        &["23:5: unknown region `eu-east`; expected `us-east` or `us-west`; did you mean `us-east`?"],
    );
    check(
        "{region: us-west, weight: 1}]",
        "{region: us-west, weight: 1}, {region: us-west, weight: 2}]",
        &["23:54: region `us-west` stands here twice"],
    );
}

#[test]
fn many_mistakes_are_told_in_one_run() {
    let text = GOOD
        .replace("name: use1-b", "nmae: use1-b")
        .replace("[us-west-2a]", "[us west]")
        .replace("gateways: [gw.use1-a.example.com:15443]", "gateways: [5]");
    let refused = Topology::parse("t", &text).unwrap_err();
    assert_eq!(refused.count(), 4, "{refused}");
}

#[test]
fn warnings_say_what_is_probably_not_meant() {
    check_warnings(
        "kind",
        "kind",
        &["6:13: warning: 2 of 3 voters are in region `us-east`: while it is lost, policy cannot be written"],
    );
    check_warnings(
        "'10.0.0.2:8443', voter: true",
        "'10.0.0.2:8443'",
        &["6:5: warning: an even number of voters: 2 survive no more losses than 1"],
    );
    check_warnings(
        "    us-west: [{region: us-east, weight: 1}]\n",
        "",
        &[
            "6:13: warning: 2 of 3 voters are in region `us-east`: while it is lost, policy cannot be written",
            "15:13: warning: region `us-west` has no failover: its traffic goes by distance",
        ],
    );
    check_warnings(
        "name: usw2-a",
        "name: usw2-a\n          network: west",
        &[
            "6:13: warning: 2 of 3 voters are in region `us-east`: while it is lost, policy cannot be written",
            "12:17: warning: cluster `use1-b` has no gateways: there is no route to it from networks other than `default`",
            "18:17: warning: cluster `usw2-a` has no gateways: there is no route to it from networks other than `west`",
        ],
    );
    check_warnings(
        "zones: [us-west-2a]\n      clusters:\n        - name: usw2-a\n",
        "zones: [us-west-2a, us-west-2b]\n      clusters:\n        - name: usw2-a\n          zones: [us-west-2a]\n",
        &[
            "6:13: warning: 2 of 3 voters are in region `us-east`: while it is lost, policy cannot be written",
            "15:13: warning: no cluster spans zone `us-west-2b`",
        ],
    );
}

#[test]
fn the_hash_is_of_the_content_alone() {
    let (topology, _) = Topology::parse("t", GOOD).unwrap();
    let reordered =
        GOOD.replace("rtt: 62ms, cost: 2", "cost: 2.0, rtt: 62ms, symmetric: true").replace("spec:", "spec: # all");
    assert_eq!(Topology::parse("other", &reordered).unwrap().0.hash, topology.hash);
    let changed = GOOD.replace("62ms", "63ms");
    assert_ne!(Topology::parse("t", &changed).unwrap().0.hash, topology.hash);
}

#[test]
fn distance_orders_by_cost_then_rtt_and_unknown_last() {
    let text = EXAMPLE.replace("rtt: 76ms, cost: 3", "rtt: 61ms, cost: 2");
    let (topology, _) = Topology::parse("t", &text).unwrap();
    assert_eq!(topology.regions_by_distance(&region("us-east")), [&region("eu-west"), &region("us-west")]);
    let without = EXAMPLE.replace("    - {between: [us-east, us-west], rtt: 62ms, cost: 2}\n", "");
    let (topology, _) = Topology::parse("t", &without).unwrap();
    assert_eq!(topology.distance(&region("us-east"), &region("us-west")), Distance::Unknown);
    assert_eq!(topology.regions_by_distance(&region("us-east")), [&region("eu-west"), &region("us-west")]);
    assert!(Distance::Here < topology.distance(&region("us-east"), &region("eu-west")));
}

/// Any topology: some regions, each with zones and clusters of its own, with links and failover between them.
fn any_topology() -> impl Strategy<Value = Topology> {
    let cluster = (1_usize..4, 0_u8..3, any::<bool>(), 1_u16.., 0_usize..3);
    let regions = prop::collection::vec((1_usize..4, prop::collection::vec(cluster, 1..3)), 1..5);
    let links = prop::collection::vec((0_usize..5, 0_usize..5, any::<bool>(), 0_u32.., 0_u32..1000), 0..6);
    let failover = prop::collection::vec((0_usize..5, 0_usize..5, 1_u32..), 0..6);
    (regions, links, failover, "[a-z]{1,8}(\\.[0-9a-z]{1,5})?").prop_map(|(regions, links, failover, name)| {
        let names: Vec<RegionName> = (0..regions.len()).map(|r| region(&format!("r{r}"))).collect();
        let regions = regions.into_iter().enumerate().map(|(r, (zones, clusters))| {
            let zones: Vec<ZoneName> = (0..zones).map(|z| format!("r{r}-z{z}").parse().unwrap()).collect();
            let clusters =
                clusters.into_iter().enumerate().map(|(c, (spans, network, voter, port, gateways))| Cluster {
                    name: format!("r{r}-c{c}").parse().unwrap(),
                    region: names[r].clone(),
                    zones: zones.iter().take(spans).cloned().collect(),
                    network: format!("n{network}").parse().unwrap(),
                    gateways: (0..gateways).map(|g| format!("gw{g}.r{r}-c{c}.example:{port}")).collect(),
                    control_plane: ControlPlane {
                        host: if voter { format!("10.{r}.{c}.1") } else { format!("fd00::{r}:{c}") },
                        port,
                        voter: voter || (r, c) == (0, 0),
                        config: port % 2 == 0,
                    },
                });
            Region { name: names[r].clone(), clusters: clusters.collect(), zones }
        });
        let mut topology =
            Topology { name, regions: regions.collect(), links: vec![], failover: BTreeMap::new(), hash: 0 };
        let pick = |index: usize| names[index % names.len()].clone();
        for (a, b, symmetric, nanoseconds, cost) in links {
            let (a, b) = (pick(a), pick(b));
            if a != b && topology.link(&a, &b).is_none() && topology.link(&b, &a).is_none() {
                let rtt = Duration::from_nanos(u64::from(nanoseconds));
                topology.links.push(Link { between: [a, b], symmetric, rtt, cost: f64::from(cost) / 8.0 });
            }
        }
        for (from, to, weight) in failover {
            let (from, to) = (pick(from), pick(to));
            let known = topology.failover.get(&from).is_some_and(|targets| targets.iter().any(|t| t.region == to));
            if from != to && !known {
                topology.failover.entry(from).or_default().push(WeightedRegion { region: to, weight });
            }
        }
        topology.hash = topology.content_hash();
        topology
    })
}

proptest! {
    #[test]
    fn a_written_topology_reads_back_equal(topology in any_topology()) {
        let text = topology.to_yaml();
        let (read, _) = Topology::parse("written", &text).map_err(|refused| {
            TestCaseError::fail(format!("{refused}\n{text}"))
        })?;
        prop_assert_eq!(read, topology);
    }

    #[test]
    fn distance_is_a_total_order(topology in any_topology()) {
        let names: Vec<_> = topology.regions.iter().map(|region| &region.name).collect();
        for from in &names {
            let ordered = topology.regions_by_distance(from);
            prop_assert_eq!(ordered.len(), names.len() - 1);
            prop_assert!(ordered.is_sorted_by_key(|to| topology.distance(from, to)));
        }
    }

    #[test]
    fn a_damaged_file_never_panics(at in 0..GOOD.len(), length in 0_usize..40, by in "([ \\n]|[a-z0-9]|[:,{}&*!|>'\"\\[\\]#-]){0,8}") {
        let end = (at + length).min(GOOD.len());
        let text = format!("{}{by}{}", &GOOD[..at], &GOOD[end..]);
        if let Err(refused) = Topology::parse("damaged", &text) {
            prop_assert!(!refused.to_string().is_empty());
        }
    }
}
