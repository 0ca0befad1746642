//! What a plan goes on from when its control plane, or who asked for it, has been away.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use portolan_topology::policy::{Drain, DrainSpec, PolicyObject, PolicySet, Scope, StoredPolicy};
use portolan_topology::service::{LocalService, LocalServices, Port};

use super::Inputs;
use super::core::{Core, Remembered};
use super::served::{NameScope, PortRef, Query, Served};
use crate::resources::fixtures::{place, ready, topology};

const START: Duration = Duration::from_secs(1_000_000);

fn after(seconds: u64) -> Duration {
    START + Duration::from_secs(seconds)
}

/// `checkout.shop` in the zones `a` and `b` of `use1-a`.
fn inputs() -> Inputs {
    let id: portolan_topology::names::ServiceId = "checkout.shop".parse().unwrap();
    let zone = |zone: &str, address: &str| (Some(zone.parse().unwrap()), vec![ready(address)]);
    let endpoints = [zone("a", "10.0.0.1:80"), zone("b", "10.0.0.2:80")].into();
    let service = LocalService {
        id: id.clone(),
        ports: vec![Port { number: 8080, name: None }],
        endpoints: [(8080, endpoints)].into(),
        capacity: None,
        warmup: None,
    };
    Inputs {
        cluster: "use1-a".parse().unwrap(),
        topology: Arc::new(topology()),
        local: Arc::new(LocalServices { synced: true, services: [(id, Arc::new(service))].into() }),
        remote: Arc::default(),
        policy: Some(Arc::default()),
        demand: Arc::default(),
        gateways: Arc::default(),
    }
}

/// With the zone `a` drained over 100 s.
fn drained() -> Inputs {
    let drain = PolicyObject::Drain(Drain {
        name: "a".to_owned(),
        spec: DrainSpec {
            scope: Scope::Zone("a".parse().unwrap()),
            services: None,
            percent: 100,
            over: Duration::from_secs(100),
            restore_over: Duration::from_secs(100),
            start_time: None,
            end_time: None,
            force: false,
            reason: "a test".to_owned(),
        },
    });
    let (by, at) = ("ada".to_owned(), Timestamp::UNIX_EPOCH);
    let stored = StoredPolicy { object: drain.clone(), owner: Default::default(), created: 1, revision: 1, by, at };
    let set = PolicySet { revision: 1, objects: BTreeMap::from([(drain.key(), stored)]) };
    Inputs { policy: Some(Arc::new(set)), ..inputs() }
}

fn query() -> Query {
    let service = "checkout.shop".parse().unwrap();
    Query { service, port: PortRef::First, scope: NameScope::Federation, client: place("a") }
}

/// The share of the client's own zone.
fn own_share(served: &Served) -> f64 {
    let Served::Present(service) = served else { panic!("{served:?}") };
    let places = service.plan.priorities.iter().flatten();
    places.filter(|planned| planned.locality == place("a")).map(|planned| planned.share).sum()
}

fn remembered(core: &Core, now: Duration) -> HashMap<super::PlanKey, Remembered> {
    core.to_remember(now).into_iter().collect()
}

#[test]
fn a_drain_that_was_on_its_way_is_complete_after_a_restart() {
    let mut core = Core::new(inputs(), HashMap::new(), START);
    let slot = core.watch(query(), START);
    assert!((own_share(&slot.borrow()) - 1.0).abs() < 1e-9);
    core.update(drained(), START);
    core.tick(after(50));
    let halfway = own_share(&slot.borrow());
    assert!((0.4..0.6).contains(&halfway), "{halfway}");

    let mut restarted = Core::new(drained(), remembered(&core, after(50)), after(60));
    let share = own_share(&restarted.watch(query(), after(60)).borrow());
    assert!(share < 1e-9, "{share}");
}

#[test]
fn a_drain_that_began_while_nobody_asked_for_long_counts_as_complete() {
    let mut core = Core::new(inputs(), HashMap::new(), START);
    drop(core.watch(query(), START));
    core.tick(after(10));
    core.update(drained(), after(700));
    let share = own_share(&core.watch(query(), after(700)).borrow());
    assert!(share < 1e-9, "{share}");
}

#[test]
fn a_client_that_is_away_for_a_moment_finds_its_ramp_where_it_is() {
    let mut core = Core::new(inputs(), HashMap::new(), START);
    let slot = core.watch(query(), START);
    core.update(drained(), START);
    core.tick(after(40));
    drop(slot);
    core.tick(after(45));
    let share = own_share(&core.watch(query(), after(60)).borrow());
    assert!((0.3..0.5).contains(&share), "{share}");
}
