//! A small federation to ask questions of: our own cluster `east-a`, another in the same zones, one in another region,
//! and one on another network.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use portolan_federation::model::{Fact, Remote, RemoteCluster, RemoteList, RemoteService};
use portolan_topology::names::{ClusterName, Locality, ServiceId, ServicePort, ZoneName};
use portolan_topology::policy::PolicySet;
use portolan_topology::service::{
    Endpoint, EndpointCounts, EndpointsByZone, Health, LocalService, LocalServices, Port,
};
use portolan_topology::topology::Topology;
use portolan_topology::view::Liveness;
use tokio::sync::watch;

use crate::catalog::core::Core;
use crate::catalog::inputs::Inputs;
use crate::catalog::served::{NameScope, PortRef, Query, Served, ServedService};

pub(in crate::catalog) const TOPOLOGY: &str = "
apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {name: test}
spec:
  regions:
  - name: east
    zones: [e1, e2]
    clusters:
    - {name: east-a, controlPlane: {address: a.test, voter: true}}
    - {name: east-b, controlPlane: {address: b.test}}
  - name: west
    zones: [w1]
    clusters: [{name: west-a, controlPlane: {address: c.test, voter: true}}]
  - name: far
    zones: [f1]
    clusters: [{name: far-a, network: far, gateways: ['203.0.113.1:15443'], controlPlane: {address: d.test, voter: true}}]
  failover:
    east: [{region: west, weight: 1}]
";

/// Long after the epoch, as a wall clock is.
pub(in crate::catalog) const START: Duration = Duration::from_secs(1_800_000_000);

pub(in crate::catalog) fn topology() -> Arc<Topology> {
    static CHECKED: LazyLock<Arc<Topology>> =
        LazyLock::new(|| Arc::new(Topology::parse("topology.yaml", TOPOLOGY).unwrap().0));
    CHECKED.clone()
}

pub(in crate::catalog) fn cluster(name: &str) -> ClusterName {
    name.parse().unwrap()
}

pub(in crate::catalog) fn service(name: &str) -> ServiceId {
    name.parse().unwrap()
}

/// `e1/east-a`, or `-/far-a` where there is no zone.
pub(in crate::catalog) fn place(text: &str) -> Locality {
    let (zone, name) = text.split_once('/').unwrap();
    let zone = (zone != "-").then(|| zone.parse().unwrap());
    topology().locality(&cluster(name), zone.as_ref()).unwrap()
}

/// `10.0.0.1:80`, `10.0.0.1:80!` for one that is not ready.
pub(in crate::catalog) fn endpoint(text: &str) -> Endpoint {
    let health = if text.ends_with('!') { Health::NotReady } else { Health::Ready };
    Endpoint { address: text.trim_end_matches('!').parse().unwrap(), weight: NonZeroU32::MIN, health, shard: None }
}

pub(in crate::catalog) fn zones(zones: &[(&str, &[&str])]) -> EndpointsByZone {
    let zone = |zone: &str| Some(zone.parse::<ZoneName>().unwrap());
    let endpoints = |texts: &[&str]| texts.iter().map(|text| endpoint(text)).collect();
    zones.iter().map(|(name, texts)| (zone(name), endpoints(texts))).collect()
}

/// A service with one port, 80.
pub(in crate::catalog) fn local_service(name: &str, endpoints: EndpointsByZone) -> LocalService {
    let ports = vec![Port { number: 80, name: Some("grpc".to_owned()) }];
    LocalService { id: service(name), ports, endpoints: [(80, endpoints)].into(), capacity: None, warmup: None }
}

/// What a cluster tells of itself: everything, and it has been heard.
pub(in crate::catalog) fn silent(name: &str) -> RemoteCluster {
    RemoteCluster {
        name: cluster(name),
        liveness: Liveness::Fresh,
        heard: None,
        complete: true,
        version: (1, 1),
        topology_hash: None,
        policy: None,
        services: BTreeMap::new(),
        demand: BTreeMap::new(),
        nacked: None,
    }
}

/// The facts that go with a list.
pub(in crate::catalog) fn facts(endpoints: &EndpointsByZone) -> RemoteService {
    let fact = |endpoints: &Vec<Endpoint>| Fact { endpoints: EndpointCounts::of(endpoints), ..Fact::default() };
    RemoteService {
        ports: vec![Port { number: 80, name: Some("grpc".to_owned()) }],
        zones: endpoints.iter().map(|(zone, endpoints)| (zone.clone(), fact(endpoints))).collect(),
        export: None,
    }
}

pub(in crate::catalog) fn list(endpoints: EndpointsByZone) -> RemoteList {
    RemoteList { synced: true, version: (1, 1), endpoints }
}

pub(in crate::catalog) fn port(name: &str) -> ServicePort {
    ServicePort { service: service(name), port: 80 }
}

pub(in crate::catalog) fn query(name: &str, client: &str) -> Query {
    Query { service: service(name), port: PortRef::First, scope: NameScope::Federation, client: place(client) }
}

/// The catalog's core with its inputs, for tests that change one after another.
pub(in crate::catalog) struct World {
    pub(in crate::catalog) inputs: Inputs,
    pub(in crate::catalog) core: Core,
    pub(in crate::catalog) now: Duration,
}

impl World {
    /// Everybody is heard and has nothing.
    pub(in crate::catalog) fn new() -> Self {
        let remote = Remote {
            clusters: ["east-b", "west-a", "far-a"].map(|name| (cluster(name), Arc::new(silent(name)))).into(),
            lists: BTreeMap::new(),
        };
        let inputs = Inputs {
            cluster: cluster("east-a"),
            topology: topology(),
            local: Arc::new(LocalServices { synced: true, services: BTreeMap::new() }),
            remote: Arc::new(remote),
            policy: Some(Arc::new(PolicySet::default())),
            demand: Arc::default(),
            gateways: Arc::new([("203.0.113.1:15443".to_owned(), vec!["203.0.113.1:15443".parse().unwrap()])].into()),
        };
        Self { core: Core::new(inputs.clone(), HashMap::new(), START), inputs, now: START }
    }

    /// Starts again from the inputs as they are, as after a restart.
    pub(in crate::catalog) fn restart(&mut self) {
        self.core = Core::new(self.inputs.clone(), HashMap::new(), self.now);
    }

    pub(in crate::catalog) fn apply(&mut self) {
        self.core.update(self.inputs.clone(), self.now);
    }

    pub(in crate::catalog) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.core.tick(self.now);
    }

    pub(in crate::catalog) fn local(&mut self, name: &str, endpoints: &[(&str, &[&str])]) {
        let mut local = self.inputs.local.as_ref().clone();
        local.services.insert(service(name), Arc::new(local_service(name, zones(endpoints))));
        self.inputs.local = Arc::new(local);
        self.apply();
    }

    pub(in crate::catalog) fn own_synced(&mut self, synced: bool) {
        let services = self.inputs.local.services.clone();
        self.inputs.local = Arc::new(LocalServices { synced, services });
        self.apply();
    }

    /// Changes what another cluster tells.
    pub(in crate::catalog) fn told(&mut self, name: &str, change: impl FnOnce(&mut RemoteCluster)) {
        let mut remote = self.inputs.remote.as_ref().clone();
        let mut told = remote.clusters[&cluster(name)].as_ref().clone();
        change(&mut told);
        remote.clusters.insert(cluster(name), Arc::new(told));
        self.inputs.remote = Arc::new(remote);
        self.apply();
    }

    pub(in crate::catalog) fn facts(&mut self, name: &str, of: &str, endpoints: &[(&str, &[&str])]) {
        let facts = facts(&zones(endpoints));
        self.told(name, |told| {
            told.services.insert(service(of), facts);
        });
    }

    pub(in crate::catalog) fn list(&mut self, name: &str, of: &str, list: RemoteList) {
        let mut remote = self.inputs.remote.as_ref().clone();
        remote.lists.insert((cluster(name), port(of)), Arc::new(list));
        self.inputs.remote = Arc::new(remote);
        self.apply();
    }

    /// Facts and list at once.
    pub(in crate::catalog) fn remote(&mut self, name: &str, of: &str, endpoints: &[(&str, &[&str])]) {
        self.facts(name, of, endpoints);
        self.list(name, of, list(zones(endpoints)));
    }

    pub(in crate::catalog) fn watch(&mut self, query: Query) -> watch::Receiver<Served> {
        self.core.watch(query, self.now)
    }

    /// What is served, one line a locality: priority, share and endpoints.
    pub(in crate::catalog) fn shown(&mut self, query: Query) -> Vec<String> {
        shown(&self.watch(query).borrow())
    }

    pub(in crate::catalog) fn wanted(&self) -> BTreeSet<ServicePort> {
        self.core.wanted()
    }
}

pub(in crate::catalog) fn present(served: &Served) -> Arc<ServedService> {
    match served {
        Served::Present(served) => served.clone(),
        other => panic!("{other:?}"),
    }
}

/// `0 e1/east-a 100% 10.0.0.1:80`; `-` and `?` for what is absent or not known yet.
pub(in crate::catalog) fn shown(served: &Served) -> Vec<String> {
    let served = match served {
        Served::NotYet => return vec!["?".to_owned()],
        Served::Absent => return vec!["-".to_owned()],
        Served::Present(served) => served,
    };
    let mut lines = Vec::new();
    for (priority, localities) in served.plan.priorities.iter().enumerate() {
        for planned in localities {
            let endpoints = served.endpoints[&planned.locality].iter().map(|endpoint| {
                let mark = if endpoint.health == Health::Ready { "" } else { "!" };
                format!("{}{mark}", endpoint.address)
            });
            let endpoints: Vec<_> = endpoints.collect();
            let share = (100.0 * planned.share).round();
            lines.push(format!("{priority} {} {share}% {}", planned.locality, endpoints.join(" ")));
        }
    }
    lines
}
