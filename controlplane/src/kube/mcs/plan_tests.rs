//! The plan: what there should be, and what may go.

use std::sync::Arc;

use portolan_federation::model::{RemoteCluster, RemoteList, RemoteService};
use portolan_topology::service::{LocalService, Port};
use proptest::prelude::*;

use super::exports::Exports;
use super::plan::{Plan, Seen, plan, wanted};
use super::*;
use crate::resources::fixtures;

use std::collections::{BTreeMap, BTreeSet};

use portolan_federation::model::Remote;
use portolan_topology::names::{ClusterName, ServiceId, ServicePort};
use portolan_topology::service::{Export, ExportedPort, LocalServices};
use portolan_topology::topology::Topology;
use portolan_topology::view::Liveness;

const TOPOLOGY: &str = "
apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {name: test}
spec:
  regions:
    - name: us-east
      zones: [a]
      clusters:
        - {name: use1-a, controlPlane: {address: 127.0.0.1, voter: true}}
        - {name: use1-b, controlPlane: {address: 127.0.0.2}}
        - {name: use1-c, controlPlane: {address: 127.0.0.3}}
        - {name: far, network: far, controlPlane: {address: 127.0.0.4}}
";

/// What use1-a sees.
#[derive(Clone)]
struct World {
    topology: Topology,
    namespaces: BTreeSet<String>,
    exports: Exports,
    local: LocalServices,
    remote: Remote,
}

fn checkout() -> ServiceId {
    "checkout.shop".parse().unwrap()
}

fn export(since: i64, port: u16) -> Export {
    let name = Some("grpc".to_owned());
    let ports = vec![ExportedPort { number: port, name, protocol: "TCP".to_owned(), app_protocol: None }];
    Export { since, headless: false, affinity: None, ports }
}

impl World {
    fn new() -> Self {
        let (topology, _) = Topology::parse("topology", TOPOLOGY).unwrap();
        let mut world = Self {
            topology,
            namespaces: ["shop".to_owned()].into(),
            exports: Exports { synced: true, ..Exports::default() },
            local: LocalServices { synced: true, services: BTreeMap::new() },
            remote: Remote::default(),
        };
        for name in ["use1-b", "use1-c", "far"] {
            world.told(name, |_| {});
        }
        world
    }

    fn told(&mut self, name: &str, change: impl FnOnce(&mut RemoteCluster)) {
        let name: ClusterName = name.parse().unwrap();
        let fresh = || {
            Arc::new(RemoteCluster {
                name: name.clone(),
                liveness: Liveness::Fresh,
                heard: None,
                complete: true,
                version: (1, 1),
                topology_hash: None,
                policy: None,
                services: BTreeMap::new(),
                demand: BTreeMap::new(),
                nacked: None,
            })
        };
        change(Arc::make_mut(self.remote.clusters.entry(name.clone()).or_insert_with(fresh)));
    }

    /// `cluster` exports checkout.shop, with these endpoints.
    fn exports(&mut self, cluster: &str, export: Export, addresses: &[&str]) {
        let zones = [(None, addresses.iter().map(|address| fixtures::ready(address)).collect::<Vec<_>>())];
        let ports: Vec<Port> =
            export.ports.iter().map(|port| Port { number: port.number, name: port.name.clone() }).collect();
        if cluster == "use1-a" {
            let endpoints = ports.iter().map(|port| (port.number, zones.clone().into())).collect();
            let service = LocalService { id: checkout(), ports, endpoints, capacity: None, warmup: None };
            self.local.services.insert(checkout(), Arc::new(service));
            Arc::make_mut(&mut self.exports.services).insert(checkout(), export);
            return;
        }
        for port in &ports {
            let list = RemoteList { synced: true, version: (1, 1), endpoints: zones.clone().into() };
            let key = (cluster.parse().unwrap(), ServicePort { service: checkout(), port: port.number });
            self.remote.lists.insert(key, Arc::new(list));
        }
        let service = RemoteService { ports, zones: BTreeMap::new(), export: Some(export) };
        self.told(cluster, |told| {
            told.services.insert(checkout(), service);
        });
    }

    fn plan(&self) -> Plan {
        let cluster = "use1-a".parse().unwrap();
        plan(&Seen {
            cluster: &cluster,
            topology: &self.topology,
            namespaces: &self.namespaces,
            exports: &self.exports,
            local: &self.local,
            remote: &self.remote,
        })
    }
}

fn sources(plan: &Plan) -> Vec<String> {
    let labels = plan.slices.values().map(|slice| &slice["metadata"]["labels"][SOURCE_CLUSTER]);
    labels.map(|label| label.as_str().unwrap().to_owned()).collect()
}

fn checkout_import(plan: &Plan) -> &serde_json::Value {
    &plan.imports[&("shop".to_owned(), "checkout".to_owned())]
}

#[test]
fn every_cluster_s_endpoints_are_there_under_its_name() {
    let mut world = World::new();
    world.exports("use1-a", export(5, 80), &["10.0.0.1:8080"]);
    world.exports("use1-b", export(6, 80), &["10.0.1.1:8080", "[fd00::1]:8080", "10.0.1.2:9090"]);
    let plan = world.plan();
    assert_eq!(sources(&plan), ["use1-a", "use1-b", "use1-b", "use1-b"]);
    let slice = &plan.slices[&("shop".to_owned(), "checkout.use1-b.80-8080-ipv6-0".to_owned())];
    assert_eq!(slice["addressType"], "IPv6");
    assert_eq!(slice["endpoints"][0]["addresses"][0], "fd00::1");
    assert_eq!(slice["ports"], serde_json::json!([{"name": "grpc", "port": 8080, "protocol": "TCP"}]));
    let import = checkout_import(&plan);
    assert_eq!(import["spec"]["ports"], serde_json::json!([{"name": "grpc", "port": 80, "protocol": "TCP"}]));
    assert_eq!(plan.clusters.values().next().unwrap().len(), 2);
    assert!(plan.conflicts.is_empty() && plan.knows_all());
}

#[test]
fn ports_that_are_not_tcp_have_no_slices() {
    let mut world = World::new();
    let dns = ExportedPort { number: 80, name: Some("dns".to_owned()), protocol: "UDP".to_owned(), app_protocol: None };
    let mut both = export(5, 80);
    both.ports.push(dns);
    world.exports("use1-b", both, &["10.0.1.1:8080"]);
    let plan = world.plan();
    assert_eq!(checkout_import(&plan)["spec"]["ports"].as_array().unwrap().len(), 2);
    let ports: Vec<_> = plan.slices.values().map(|slice| slice["ports"][0]["name"].clone()).collect();
    assert_eq!(ports, ["grpc"]);
}

#[test]
fn many_endpoints_are_many_slices() {
    let mut world = World::new();
    let addresses: Vec<String> = (0..250).map(|last| format!("10.0.{}.{}:80", last / 200, last % 200)).collect();
    world.exports("use1-b", export(5, 80), &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    let counts: Vec<_> =
        world.plan().slices.values().map(|slice| slice["endpoints"].as_array().unwrap().len()).collect();
    assert_eq!(counts, [100, 100, 50]);
}

#[test]
fn a_namespace_that_is_not_here_imports_nothing() {
    let mut world = World::new();
    world.exports("use1-b", export(5, 80), &["10.0.1.1:8080"]);
    world.namespaces.clear();
    assert_eq!(world.plan(), Plan::default());
    assert!(wanted(&world.remote, &world.namespaces).is_empty());
    world.namespaces.insert("shop".to_owned());
    assert_eq!(wanted(&world.remote, &world.namespaces).len(), 1);
}

#[test]
fn of_exports_in_conflict_the_older_holds_and_it_is_said() {
    let mut world = World::new();
    world.exports("use1-a", Export { headless: true, ..export(9, 81) }, &["10.0.0.1:8080"]);
    world.exports("use1-b", Export { affinity: Some(60), ..export(5, 80) }, &["10.0.1.1:8080"]);
    let plan = world.plan();
    let spec = &checkout_import(&plan)["spec"];
    assert_eq!((&spec["type"], &spec["ports"][0]["port"]), (&"ClusterSetIP".into(), &80.into()));
    assert_eq!(spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 60);
    assert_eq!(
        plan.conflicts[&checkout()],
        "cluster use1-a exports it as Headless; cluster use1-a has another session affinity; the port grpc is 81/TCP in \
         cluster use1-a, and 80/TCP in an older export; the export of cluster use1-b is the oldest and holds (ClusterSetIP)"
    );
}

#[test]
fn a_cluster_goes_when_it_is_dead_or_has_left_and_not_for_silence() {
    let mut world = World::new();
    world.exports("use1-b", export(5, 80), &["10.0.1.1:8080"]);
    world.exports("use1-c", export(6, 80), &["10.0.2.1:8080"]);
    let both = ["use1-b", "use1-c"];
    for silent in [Liveness::Suspect, Liveness::Stale, Liveness::Isolated] {
        world.told("use1-b", |told| told.liveness = silent);
        assert_eq!(sources(&world.plan()), both, "{silent:?}");
    }
    world.told("use1-b", |told| told.liveness = Liveness::Failed);
    let dead = world.plan();
    assert_eq!((sources(&dead), dead.knows_all()), (vec!["use1-c".to_owned()], true));
    world.topology.regions[0].clusters.retain(|cluster| cluster.name.as_str() != "use1-c");
    let left = world.plan();
    assert!(left.slices.is_empty() && left.imports.is_empty());
    assert!(left.may_remove_slice("use1-c", &("shop".to_owned(), "checkout".to_owned())));
}

#[test]
fn another_network_s_pods_are_not_offered() {
    let mut world = World::new();
    world.exports("far", export(5, 80), &["10.0.1.1:8080"]);
    let plan = world.plan();
    assert!(plan.slices.is_empty() && plan.imports.len() == 1);
}

#[test]
fn what_is_not_known_removes_nothing() {
    let mut world = World::new();
    world.exports("use1-b", export(5, 80), &["10.0.1.1:8080"]);
    let service = ("shop".to_owned(), "checkout".to_owned());
    world.remote.lists.clear();
    let waiting = world.plan();
    assert!(waiting.slices.is_empty() && !waiting.may_remove_slice("use1-b", &service));
    assert!(waiting.may_remove_slice("use1-c", &service));
    world.told("use1-c", |told| told.complete = false);
    let unknown = world.plan();
    assert!(!unknown.may_remove_import() && !unknown.may_remove_slice("use1-c", &service));
    world.told("use1-c", |told| told.complete = true);
    world.exports.synced = false;
    assert!(!world.plan().may_remove_import());
}

proptest! {
    /// Whatever is exported: ports of one name once, the oldest's; a conflict is said exactly if two differ; each address
    /// of a cluster once.
    #[test]
    fn the_plan_holds_together(
        exported in proptest::collection::btree_map(0..3_usize, (0..4_i64, 79..82_u16, any::<bool>()), 0..3),
        addresses in proptest::collection::vec((1..5_u8, 1..4_u16), 0..6),
    ) {
        let names = ["use1-a", "use1-b", "use1-c"];
        let mut world = World::new();
        let addresses: Vec<String> = addresses.iter().map(|(last, port)| format!("10.0.0.{last}:{port}")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        for (cluster, (since, port, headless)) in &exported {
            world.exports(names[*cluster], Export { headless: *headless, ..export(*since, *port) }, &addresses);
        }
        let plan = world.plan();
        prop_assert_eq!(plan.imports.len(), usize::from(!exported.is_empty()));
        let differ = exported.values().any(|(_, port, headless)| {
            exported.values().any(|(_, other, others)| port != other || headless != others)
        });
        prop_assert_eq!(plan.conflicts.contains_key(&checkout()), differ);
        if let Some((_, (_, port, headless))) = exported.iter().min_by_key(|(cluster, (since, ..))| (*since, names[**cluster])) {
            let spec = &checkout_import(&plan)["spec"];
            prop_assert_eq!(spec["ports"].as_array().unwrap().len(), 1);
            prop_assert_eq!(&spec["ports"][0]["port"], &serde_json::json!(port));
            prop_assert_eq!(&spec["type"], if *headless { "Headless" } else { "ClusterSetIP" });
        }
        let mut seen = BTreeSet::new();
        for slice in plan.slices.values() {
            for endpoint in slice["endpoints"].as_array().unwrap() {
                let source = slice["metadata"]["labels"][SOURCE_CLUSTER].to_string();
                prop_assert!(seen.insert((source, slice["ports"].to_string(), endpoint["addresses"].to_string())));
            }
        }
        // The plan does not depend on what was said first.
        prop_assert_eq!(&plan, &world.clone().plan());
    }
}
