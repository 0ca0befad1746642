//! Services and places for the tests of whatever serves them.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;

use parking_lot::Mutex;
use portolan_topology::names::{ClusterName, Locality};
use portolan_topology::plan::{Carries, Plan, PlannedLocality, Reason, Route, Tier};
use portolan_topology::policy::EffectivePolicy;
use portolan_topology::service::{Endpoint, Health};
use portolan_topology::topology::{Cluster, ControlPlane, Region, Topology};
use tokio::sync::watch;

use crate::catalog::served::{Catalog, Query, Served, ServedService};

/// A zone of `us-east` in the cluster `use1-a`.
pub(crate) fn place(zone: &str) -> Locality {
    place_in("use1-a", zone)
}

/// A zone of `us-east` in a cluster.
pub(crate) fn place_in(cluster: &str, zone: &str) -> Locality {
    let zone = if zone.is_empty() { None } else { Some(zone.parse().unwrap()) };
    Locality { region: "us-east".parse().unwrap(), zone, cluster: cluster.parse().unwrap() }
}

/// One region, `us-east`, with zones `a` and `b` and clusters `use1-a` and `use1-b`, each in both.
pub(crate) fn topology() -> Topology {
    let region = "us-east".parse().unwrap();
    let zones: Vec<_> = ["a", "b"].map(|zone| zone.parse().unwrap()).into();
    let cluster = |name: &str| Cluster {
        name: name.parse::<ClusterName>().unwrap(),
        region: "us-east".parse().unwrap(),
        zones: zones.clone(),
        network: "default".parse().unwrap(),
        gateways: Vec::new(),
        control_plane: ControlPlane { host: "127.0.0.1".to_owned(), port: 7443, voter: true, config: false },
    };
    let clusters = vec![cluster("use1-a"), cluster("use1-b")];
    let regions = vec![Region { name: region, zones: zones.clone(), clusters }];
    Topology { name: "test".to_owned(), regions, links: Vec::new(), failover: BTreeMap::new(), hash: 1 }
}

/// A ready endpoint.
pub(crate) fn ready(address: &str) -> Endpoint {
    Endpoint { address: address.parse().unwrap(), weight: NonZeroU32::MIN, health: Health::Ready, shard: None }
}

pub(crate) fn planned(locality: &Locality, weight: u32) -> PlannedLocality {
    PlannedLocality {
        locality: locality.clone(),
        route: Route::Direct,
        weight: NonZeroU32::new(weight).unwrap(),
        share: 0.0,
        tier: Tier::Zone,
        ready: 0,
        total: 0,
        carries: Carries::FractionOfLoad(1.0),
        because: Reason::Nearest,
        unhealthy: false,
    }
}

/// The service `checkout.shop` on port 8080 with these priorities and endpoints.
pub(crate) fn service(
    priorities: Vec<Vec<PlannedLocality>>,
    endpoints: impl IntoIterator<Item = (Locality, Vec<Endpoint>)>,
) -> ServedService {
    let plan = Plan { service: "checkout.shop".parse().unwrap(), client: place("a"), priorities, omitted: Vec::new() };
    ServedService {
        port: 8080,
        plan,
        endpoints: endpoints.into_iter().map(|(locality, listed)| (locality, Arc::new(listed))).collect(),
        policy: Arc::new(EffectivePolicy::default()),
    }
}

/// `checkout.shop` with all of its endpoints, ready, in the client's zone.
pub(crate) fn served(addresses: &[&str]) -> Served {
    let endpoints = addresses.iter().map(|address| ready(address)).collect();
    Served::Present(Arc::new(service(vec![vec![planned(&place("a"), 1)]], [(place("a"), endpoints)])))
}

/// A catalog that says what it is told to.
#[derive(Default)]
pub(crate) struct Told {
    slots: Mutex<HashMap<Query, watch::Sender<Served>>>,
    says: Mutex<HashMap<String, Served>>,
}

impl Catalog for Told {
    fn watch(&self, query: Query) -> watch::Receiver<Served> {
        let says = self.says.lock().get(&query.service.to_string()).cloned().unwrap_or(Served::NotYet);
        let mut slots = self.slots.lock();
        slots.entry(query).or_insert_with(|| watch::Sender::new(says)).subscribe()
    }
}

impl Told {
    /// Says `served` of `service`, to whomever asked and will ask.
    pub(crate) fn say(&self, service: &str, served: &Served) {
        self.says.lock().insert(service.to_owned(), served.clone());
        for (query, slot) in &*self.slots.lock() {
            if query.service.to_string() == service {
                slot.send_replace(served.clone());
            }
        }
    }

    /// Every question that was asked.
    pub(crate) fn asked(&self) -> Vec<Query> {
        self.slots.lock().keys().cloned().collect()
    }

    /// How many are listening.
    pub(crate) fn listeners(&self) -> usize {
        self.slots.lock().values().map(watch::Sender::receiver_count).sum()
    }
}
