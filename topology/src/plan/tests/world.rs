//! Three regions of two clusters of two zones each, and the services in them, written as short as a test wants them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::names::{ClusterName, Locality, RegionName};
use crate::plan::{Plan, PlannedLocality, target};
use crate::policy::{ActiveDrain, EffectivePolicy, Scope};
use crate::service::EndpointCounts;
use crate::topology::{Cluster, ControlPlane, Link, Region, Topology, WeightedRegion};
use crate::view::{Liveness, ServiceView};

pub(super) const REGIONS: [&str; 3] = ["us-east", "us-west", "eu-west"];

/// `us-east-1a` and `us-east-1b` with the clusters `us-east-a` and `us-east-b`, both in both zones; the other regions
/// alike. All on one network. `us-east` fails over to `us-west` and `eu-west`, 70 to 30.
pub(super) fn topology() -> Topology {
    let regions = REGIONS.map(|name| {
        let region: RegionName = name.parse().unwrap();
        let zones: Vec<_> = ["1a", "1b"].iter().map(|zone| format!("{name}-{zone}").parse().unwrap()).collect();
        let clusters = ["a", "b"].map(|letter| Cluster {
            name: format!("{name}-{letter}").parse().unwrap(),
            region: region.clone(),
            zones: zones.clone(),
            network: "default".parse().unwrap(),
            gateways: Vec::new(),
            control_plane: ControlPlane { host: "127.0.0.1".to_owned(), port: 7443, voter: true, config: false },
        });
        Region { name: region, zones, clusters: clusters.to_vec() }
    });
    let failover = failover(&[("us-west", 70), ("eu-west", 30)]);
    let link = |a: &str, b: &str, rtt| Link {
        between: [a.parse().unwrap(), b.parse().unwrap()],
        symmetric: true,
        rtt: Duration::from_millis(rtt),
        cost: 1.0,
    };
    Topology {
        name: "test".to_owned(),
        regions: regions.to_vec(),
        links: vec![link("us-east", "us-west", 62), link("us-east", "eu-west", 80), link("us-west", "eu-west", 130)],
        failover: BTreeMap::from([("us-east".parse().unwrap(), failover)]),
        hash: 0,
    }
}

pub(super) fn failover(weights: &[(&str, u32)]) -> Vec<WeightedRegion> {
    weights.iter().map(|(region, weight)| WeightedRegion { region: region.parse().unwrap(), weight: *weight }).collect()
}

/// `us-east-1a/us-east-a`, or `us-east/us-east-a` for a cluster as a whole.
pub(super) fn locality(text: &str) -> Locality {
    let (place, cluster) = text.split_once('/').unwrap();
    let region = cluster.rsplit_once('-').unwrap().0.parse().unwrap();
    let zone = (place != cluster.rsplit_once('-').unwrap().0).then(|| place.parse().unwrap());
    Locality { region, zone, cluster: cluster.parse().unwrap() }
}

pub(super) fn cluster(name: &str) -> ClusterName {
    name.parse().unwrap()
}

/// A test's world: a topology, a service and a policy that it changes as it goes.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) topology: Topology,
    pub(super) view: ServiceView,
    pub(super) policy: EffectivePolicy,
    pub(super) client: Locality,
}

impl World {
    /// Ten ready endpoints in both zones of the `a` clusters; the client in the first zone.
    pub(super) fn new() -> Self {
        let service = "checkout.shop".parse().unwrap();
        let view =
            ServiceView { service, localities: BTreeMap::new(), demand: BTreeMap::new(), liveness: BTreeMap::new() };
        let client = locality("us-east-1a/us-east-a");
        let mut world = Self { topology: topology(), view, policy: EffectivePolicy::default(), client };
        for region in REGIONS {
            for zone in ["1a", "1b"] {
                world.endpoints(&format!("{region}-{zone}/{region}-a"), 10, 10);
            }
        }
        world
    }

    pub(super) fn endpoints(&mut self, place: &str, ready: u32, total: u32) -> &mut Self {
        let facts = self.view.localities.entry(locality(place)).or_default();
        facts.endpoints = EndpointCounts { total, ready, draining: 0, ready_weight: u64::from(ready) };
        self
    }

    /// So much of the ready endpoints' weight is not warm yet.
    pub(super) fn cold(&mut self, place: &str, weight: f64) -> &mut Self {
        self.view.localities.get_mut(&locality(place)).unwrap().cold_weight = weight;
        self
    }

    pub(super) fn capacity(&mut self, place: &str, rps: f64) -> &mut Self {
        self.view.localities.get_mut(&locality(place)).unwrap().capacity = Some(rps);
        self
    }

    pub(super) fn demand(&mut self, place: &str, rps: f64) -> &mut Self {
        self.view.demand.insert(locality(place), rps);
        self
    }

    pub(super) fn liveness(&mut self, name: &str, liveness: Liveness) -> &mut Self {
        self.view.liveness.insert(cluster(name), liveness);
        self
    }

    pub(super) fn drain(&mut self, scope: &str, percent: u32) -> &mut Self {
        let scope: Scope = scope.parse().unwrap();
        self.policy.drains.push(ActiveDrain {
            name: "maintenance".to_owned(),
            scope,
            percent,
            over: Duration::from_secs(60),
            restore_over: Duration::from_secs(120),
        });
        self
    }

    pub(super) fn plan(&self) -> Plan {
        target(&self.view, &self.client, &self.topology, &self.policy)
    }
}

/// Where a plan has a place: its priority and what stands there.
pub(super) fn find<'p>(plan: &'p Plan, place: &str) -> (usize, &'p PlannedLocality) {
    let wanted = locality(place);
    let all = plan.priorities.iter().enumerate().flat_map(|(priority, all)| all.iter().map(move |one| (priority, one)));
    let mut found = all.filter(|(_, one)| one.locality == wanted);
    found.next().unwrap_or_else(|| panic!("{place} is not in {plan:#?}"))
}

/// Each priority's places with their fractions of that priority, in percent and rounded.
pub(super) fn ladder(plan: &Plan) -> Vec<Vec<String>> {
    let priority = |all: &Vec<PlannedLocality>| {
        let sum: f64 = all.iter().map(|one| f64::from(one.weight.get())).sum();
        let line = |one: &PlannedLocality| {
            let percent = (100.0 * f64::from(one.weight.get()) / sum).round();
            format!("{}{} {percent}%", one.locality, if one.unhealthy { "!" } else { "" })
        };
        all.iter().map(line).collect()
    };
    plan.priorities.iter().map(priority).collect()
}
