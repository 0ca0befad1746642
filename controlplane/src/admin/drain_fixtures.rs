//! Drains, and somewhere to drain, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use portolan_federation::model::{Fact, Remote, RemoteCluster, RemoteService};
use portolan_topology::names::ServiceId;
use portolan_topology::policy::{Drain, DrainSpec, PolicyObject, PolicySet, StoredPolicy};
use portolan_topology::service::{EndpointCounts, LocalService, LocalServices, Port};
use portolan_topology::topology::Topology;
use portolan_topology::view::Liveness;

use crate::catalog::Inputs;
use crate::resources::fixtures;

const TOPOLOGY: &str = "
apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {name: test}
spec:
  regions:
    - name: us-east
      zones: [a, b]
      clusters:
        - {name: use1-a, network: us, controlPlane: {address: 127.0.0.1, voter: true}}
        - {name: use1-b, network: us, controlPlane: {address: 127.0.0.2}}
    - name: eu-west
      zones: [c]
      clusters:
        - {name: euw1-a, network: eu, controlPlane: {address: 127.0.0.3}}
    - name: us-west
      zones: [d]
      clusters:
        - {name: usw1-a, network: us, controlPlane: {address: 127.0.0.4}}
";

/// `ready` is where checkout.shop has a ready endpoint: `CLUSTER/ZONE`. Ours is `use1-a`.
pub(super) fn inputs(ready: &[&str], failed: &[&str]) -> Inputs {
    let id: ServiceId = "checkout.shop".parse().unwrap();
    let ports = vec![Port { number: 80, name: None }];
    let (topology, _) = Topology::parse("topology", TOPOLOGY).unwrap();
    let endpoints = [(80, BTreeMap::new())].into();
    let mut local = LocalService { id: id.clone(), ports: ports.clone(), endpoints, capacity: None, warmup: None };
    let mut clusters = BTreeMap::new();
    for place in ready {
        let (cluster, zone) = place.split_once('/').unwrap();
        let zone = Some(zone.parse().unwrap());
        if cluster == "use1-a" {
            local.endpoints.get_mut(&80).unwrap().insert(zone, vec![fixtures::ready("10.0.0.1:80")]);
            continue;
        }
        let liveness = if failed.contains(&cluster) { Liveness::Failed } else { Liveness::Fresh };
        let told = clusters.entry(cluster.parse().unwrap()).or_insert_with(|| RemoteCluster {
            name: cluster.parse().unwrap(),
            liveness,
            heard: None,
            complete: true,
            version: (1, 1),
            topology_hash: None,
            policy: None,
            services: [(id.clone(), RemoteService { ports: ports.clone(), zones: BTreeMap::new(), export: None })]
                .into(),
            demand: BTreeMap::new(),
            nacked: None,
        });
        let fact = Fact { endpoints: EndpointCounts { total: 1, ready: 1, ..Default::default() }, ..Fact::default() };
        told.services.get_mut(&id).unwrap().zones.insert(zone, fact);
    }
    let clusters = clusters.into_iter().map(|(name, cluster)| (name, Arc::new(cluster))).collect();
    Inputs {
        cluster: "use1-a".parse().unwrap(),
        topology: Arc::new(topology),
        local: Arc::new(LocalServices { synced: true, services: [(id, Arc::new(local))].into() }),
        remote: Arc::new(Remote { clusters, lists: BTreeMap::new() }),
        policy: None,
        demand: Arc::default(),
        gateways: Arc::default(),
    }
}

pub(super) fn drain(scope: &str) -> Drain {
    let spec = DrainSpec {
        scope: scope.parse().unwrap(),
        services: None,
        percent: 100,
        over: Duration::ZERO,
        restore_over: Duration::ZERO,
        start_time: None,
        end_time: None,
        force: false,
        reason: "a test".to_owned(),
    };
    Drain { name: scope.replace('=', "-"), spec }
}

pub(super) fn set(drains: &[Drain]) -> PolicySet {
    let stored = |drain: &Drain| {
        let object = PolicyObject::Drain(drain.clone());
        let (by, at) = (String::new(), Timestamp::UNIX_EPOCH);
        (object.key(), StoredPolicy { object, owner: Default::default(), created: 1, revision: 1, by, at })
    };
    PolicySet { revision: 1, objects: drains.iter().map(stored).collect() }
}
