mod live;
mod properties;
mod warmup;
mod world;

use std::time::Duration;

use portolan_topology::names::Locality;
use portolan_topology::policy::document;
use portolan_topology::policy::{Drain, DrainSpec, PolicyObject, PolicySet, Scope, StoredPolicy};
use portolan_topology::view::Liveness;

use super::resolve::SETTLE;
use super::served::{NameScope, PortRef, Query};
use world::{World, endpoint, list, place, port, query, service, shown, zones};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn the_own_zone_serves_and_the_rest_stands_by() {
    let mut world = World::new();
    world.local("a.shop", &[("e1", &["10.0.0.1:80"]), ("e2", &["10.0.0.2:80"])]);
    world.remote("east-b", "a.shop", &[("e1", &["10.1.0.1:80"])]);
    world.remote("west-a", "a.shop", &[("w1", &["10.2.0.1:80"])]);
    assert_eq!(
        world.shown(query("a.shop", "e1/east-a")),
        [
            "0 e1/east-a 100% 10.0.0.1:80",
            "1 e1/east-b 0% 10.1.0.1:80",
            "2 e2/east-a 0% 10.0.0.2:80",
            "3 w1/west-a 0% 10.2.0.1:80",
        ]
    );
}

#[test]
fn a_port_is_named_by_number_name_or_not_at_all() {
    let mut world = World::new();
    world.local("a.shop", &[("e1", &["10.0.0.1:80"])]);
    let ask = |port| Query { port, ..query("a.shop", "e1/east-a") };
    let served = ["0 e1/east-a 100% 10.0.0.1:80"];
    for port in [PortRef::First, PortRef::Number(80), PortRef::Name("grpc".into())] {
        assert_eq!(world.shown(ask(port)), served);
    }
    for port in [PortRef::Number(81), PortRef::Name("http".into())] {
        assert_eq!(world.shown(ask(port)), ["-"]);
    }
}

#[test]
fn absence_is_said_only_when_it_is_known() {
    let mut world = World::new();
    world.told("west-a", |told| told.complete = false);
    world.restart();
    let answer = world.watch(query("b.shop", "e1/east-a"));
    assert_eq!(shown(&answer.borrow()), ["?"]);
    world.wait(SETTLE - seconds(1));
    assert_eq!(shown(&answer.borrow()), ["?"]);
    world.told("west-a", |told| told.complete = true);
    assert_eq!(shown(&answer.borrow()), ["-"]);

    world.told("west-a", |told| told.complete = false);
    world.restart();
    let answer = world.watch(query("b.shop", "e1/east-a"));
    world.told("west-a", |told| told.liveness = Liveness::Failed);
    assert_eq!(shown(&answer.borrow()), ["-"], "a dead cluster is not waited for");
}

#[test]
fn after_settle_what_is_not_known_is_absent_unless_our_own_source_is_not_synced() {
    let mut world = World::new();
    world.told("west-a", |told| told.complete = false);
    world.own_synced(false);
    world.restart();
    let answer = world.watch(query("b.shop", "e1/east-a"));
    world.wait(SETTLE);
    assert_eq!(shown(&answer.borrow()), ["?"]);
    world.own_synced(true);
    assert_eq!(shown(&answer.borrow()), ["-"]);
}

#[test]
fn without_policy_nothing_is_called_absent_before_settle() {
    let mut world = World::new();
    world.inputs.policy = None;
    world.restart();
    let answer = world.watch(query("b.shop", "e1/east-a"));
    assert_eq!(shown(&answer.borrow()), ["?"]);
    world.inputs.policy = Some(Default::default());
    world.apply();
    assert_eq!(shown(&answer.borrow()), ["-"]);
}

#[test]
fn a_remote_locality_is_served_once_its_list_is_here() {
    let mut world = World::new();
    world.local("a.shop", &[("e1", &["10.0.0.1:80"])]);
    world.facts("west-a", "a.shop", &[("w1", &["10.2.0.1:80"])]);
    let answer = world.watch(query("a.shop", "e1/east-a"));
    assert_eq!(shown(&answer.borrow()), ["0 e1/east-a 100% 10.0.0.1:80"]);
    assert_eq!(world.wanted(), [port("a.shop")].into());
    let explained = world.core.explain(&query("a.shop", "e1/east-a"), world.now).unwrap();
    assert_eq!(explained.waiting, [place("w1/west-a")].into());
    world.list("west-a", "a.shop", list(zones(&[("w1", &["10.2.0.1:80"])])));
    assert_eq!(shown(&answer.borrow()), ["0 e1/east-a 100% 10.0.0.1:80", "1 w1/west-a 0% 10.2.0.1:80"]);
}

#[test]
fn a_service_that_is_only_elsewhere_is_waited_for() {
    let mut world = World::new();
    world.facts("west-a", "b.shop", &[("w1", &["10.2.0.1:80"])]);
    let answer = world.watch(query("b.shop", "e1/east-a"));
    assert_eq!(shown(&answer.borrow()), ["?"]);
    assert_eq!(world.wanted(), [port("b.shop")].into());
    world.list("west-a", "b.shop", list(zones(&[("w1", &["10.2.0.1:80"])])));
    assert_eq!(shown(&answer.borrow()), ["0 w1/west-a 100% 10.2.0.1:80"]);

    let mut world = World::new();
    world.facts("west-a", "b.shop", &[("w1", &["10.2.0.1:80"])]);
    let answer = world.watch(query("b.shop", "e1/east-a"));
    world.wait(SETTLE);
    assert_eq!(shown(&answer.borrow()), Vec::<String>::new(), "it exists, and nothing of it can be reached");
}

#[test]
fn lists_outlive_a_restart_during_a_partition() {
    let mut world = World::new();
    world.list("west-a", "b.shop", list(zones(&[("w1", &["10.2.0.1:80"])])));
    world.told("west-a", |told| {
        told.complete = false;
        told.liveness = Liveness::Suspect;
    });
    world.restart();
    let answer = world.watch(query("b.shop", "e1/east-a"));
    assert_eq!(shown(&answer.borrow()), ["0 w1/west-a 100% 10.2.0.1:80"]);
    world.wait(SETTLE * 10);
    assert_eq!(shown(&answer.borrow()), ["0 w1/west-a 100% 10.2.0.1:80"]);
    // It is the federation's to say when a list has nothing left: it believes facts before emptiness.
    world.told("west-a", |told| told.complete = true);
    assert_eq!(shown(&answer.borrow()), ["0 w1/west-a 100% 10.2.0.1:80"]);
    world.list("west-a", "b.shop", list(zones(&[])));
    assert_eq!(shown(&answer.borrow()), ["-"]);
}

#[test]
fn a_last_resort_is_served_last_and_weighs_on_nothing() {
    let mut world = World::new();
    world.facts("west-a", "a.shop", &[("w1", &["10.2.0.1:80"])]);
    world.list("west-a", "a.shop", list(zones(&[("w1", &["10.2.0.1:80", "10.2.0.2:80!", "10.2.0.3:80!"])])));
    world.local("a.shop", &[("e1", &["10.0.0.1:80"])]);
    let served = world::present(&world.watch(query("a.shop", "w1/west-a")).borrow());
    let planned = &served.plan.priorities[0][0];
    assert_eq!((&planned.locality, planned.ready, planned.total, planned.share), (&place("w1/west-a"), 1, 1, 1.0));
    // Where nothing but a last resort is left, it comes after everything else, and takes no calls.
    world.told("west-a", |told| told.services.clear());
    world.list("west-a", "a.shop", list(zones(&[("w1", &["10.2.0.2:80!", "10.2.0.3:80!"])])));
    let answer = world.watch(query("a.shop", "w1/west-a"));
    assert_eq!(shown(&answer.borrow()), ["0 e1/east-a 100% 10.0.0.1:80", "1 w1/west-a 0% 10.2.0.2:80! 10.2.0.3:80!"]);
    assert!(world::present(&answer.borrow()).plan.priorities[1][0].unhealthy);
}

#[test]
fn a_place_that_grows_does_not_look_half_dead_while_its_list_travels() {
    let mut world = World::new();
    world.remote("west-a", "a.shop", &[("w1", &["10.2.0.1:80"])]);
    world.local("a.shop", &[("e1", &["10.0.0.1:80"])]);
    let answer = world.watch(query("a.shop", "w1/west-a"));
    world.facts("west-a", "a.shop", &[("w1", &["10.2.0.1:80", "10.2.0.2:80", "10.2.0.3:80", "10.2.0.4:80"])]);
    assert_eq!(shown(&answer.borrow())[0], "0 w1/west-a 100% 10.2.0.1:80");
}

#[test]
fn an_address_in_two_clusters_stays_with_the_nearer() {
    let mut world = World::new();
    world.local("a.shop", &[("e1", &["10.0.0.1:80"]), ("e2", &["10.0.0.2:80"])]);
    world.remote("west-a", "a.shop", &[("w1", &["10.0.0.1:80", "10.2.0.1:80"])]);
    world.remote("east-b", "a.shop", &[("e1", &["10.0.0.1:80"])]);
    assert_eq!(
        world.shown(query("a.shop", "e1/east-a")),
        ["0 e1/east-a 100% 10.0.0.1:80", "1 e2/east-a 0% 10.0.0.2:80", "2 w1/west-a 0% 10.2.0.1:80"]
    );
    let told = &world.core.duplicates()[&service("a.shop")];
    let told: Vec<_> = told.iter().map(|it| format!("{} {} {}", it.address, it.kept, it.dropped)).collect();
    assert_eq!(told, ["10.0.0.1:80 e1/east-a e1/east-b", "10.0.0.1:80 e1/east-a w1/west-a"]);
}

#[test]
fn a_cluster_local_name_stays_in_the_clients_cluster() {
    let mut world = World::new();
    world.local("a.shop", &[("e1", &["10.0.0.1:80"])]);
    world.remote("east-b", "a.shop", &[("e1", &["10.1.0.1:80"])]);
    let ask = |client| Query { scope: NameScope::Cluster, ..query("a.shop", client) };
    assert_eq!(world.shown(ask("e1/east-a")), ["0 e1/east-a 100% 10.0.0.1:80"]);
    assert_eq!(world.wanted(), [].into(), "our own cluster's endpoints need no list");
    assert_eq!(world.shown(ask("e1/east-b")), ["0 e1/east-b 100% 10.1.0.1:80"]);
    assert_eq!(world.wanted(), [port("a.shop")].into());
    assert_eq!(world.shown(ask("w1/west-a")), ["-"]);
}

#[test]
fn another_network_is_reached_through_its_gateways() {
    let mut world = World::new();
    world.facts("far-a", "a.shop", &[("f1", &["192.168.0.1:80", "192.168.0.2:80!"])]);
    assert_eq!(world.shown(query("a.shop", "e1/east-a")), ["0 far/far-a 100% 203.0.113.1:15443"]);
    // From there, the pods themselves; our own cluster has no gateway and no route.
    world.local("a.shop", &[("e1", &["10.0.0.1:80"])]);
    world.list("far-a", "a.shop", list(zones(&[("f1", &["192.168.0.1:80", "192.168.0.2:80!"])])));
    assert_eq!(world.shown(query("a.shop", "f1/far-a")), ["0 f1/far-a 100% 192.168.0.1:80 192.168.0.2:80!"]);
}

#[test]
fn a_gateway_that_does_not_resolve_is_waited_for() {
    let mut world = World::new();
    let resolved = std::mem::take(&mut world.inputs.gateways);
    world.facts("far-a", "a.shop", &[("f1", &["192.168.0.1:80"])]);
    let answer = world.watch(query("a.shop", "e1/east-a"));
    assert_eq!(shown(&answer.borrow()), ["?"]);
    world.inputs.gateways = resolved;
    world.apply();
    assert_eq!(shown(&answer.borrow()), ["0 far/far-a 100% 203.0.113.1:15443"]);
}

#[test]
fn a_fact_tells_of_a_failure_before_the_list_does() {
    let mut world = World::new();
    world.remote("east-b", "a.shop", &[("e1", &["10.1.0.1:80"])]);
    world.remote("west-a", "a.shop", &[("w1", &["10.2.0.1:80"])]);
    let answer = world.watch(query("a.shop", "e1/east-a"));
    assert_eq!(shown(&answer.borrow())[0], "0 e1/east-b 100% 10.1.0.1:80");
    world.facts("east-b", "a.shop", &[("e1", &["10.1.0.1:80!"])]);
    assert_eq!(shown(&answer.borrow())[0], "0 w1/west-a 100% 10.2.0.1:80");
}

#[test]
fn what_does_not_concern_a_service_is_not_answered_again() {
    let mut world = World::new();
    world.local("a.shop", &[("e1", &["10.0.0.1:80"])]);
    let mut answer = world.watch(query("a.shop", "e1/east-a"));
    answer.mark_unchanged();
    world.local("b.shop", &[("e1", &["10.0.0.9:80"])]);
    world.remote("west-a", "b.shop", &[("w1", &["10.2.0.9:80"])]);
    assert!(!answer.has_changed().unwrap());
    world.local("a.shop", &[("e1", &["10.0.0.1:80", "10.0.0.3:80"])]);
    assert!(answer.has_changed().unwrap());
}

#[test]
fn what_nobody_asks_any_more_is_let_go() {
    let mut world = World::new();
    world.facts("west-a", "a.shop", &[("w1", &["10.2.0.1:80"])]);
    let answer = world.watch(query("a.shop", "e1/east-a"));
    world.wait(seconds(60));
    assert_eq!(world.wanted(), [port("a.shop")].into());
    drop(answer);
    world.wait(seconds(10));
    assert_eq!(world.wanted(), [].into());
    assert_eq!(world.core.watched(), [].into());
    // Its pace is remembered for a while.
    assert_eq!(world.core.to_remember(world.now).len(), 1);
    world.wait(seconds(2 * 3600));
    assert_eq!(world.core.to_remember(world.now).len(), 0);
}

#[test]
fn a_drain_with_a_time_begins_by_itself() {
    let mut world = World::new();
    world.local("a.shop", &[("e1", &["10.0.0.1:80"])]);
    world.remote("west-a", "a.shop", &[("w1", &["10.2.0.1:80"])]);
    let begins = world.now + seconds(100);
    let spec = DrainSpec {
        scope: Scope::Cluster("east-a".parse().unwrap()),
        services: None,
        percent: 100,
        over: Duration::ZERO,
        restore_over: Duration::ZERO,
        start_time: Some(super::core::timestamp(begins)),
        end_time: None,
        force: false,
        reason: "test".into(),
    };
    let object = PolicyObject::Drain(Drain { name: "d".into(), spec });
    let stored = StoredPolicy {
        object,
        owner: Default::default(),
        created: 1,
        revision: 1,
        by: "me".into(),
        at: super::core::timestamp(world.now),
    };
    world.inputs.policy = Some(PolicySet { revision: 1, objects: [("Drain/d".to_owned(), stored)].into() }.into());
    world.apply();
    let answer = world.watch(query("a.shop", "e1/east-a"));
    assert_eq!(shown(&answer.borrow())[0], "0 e1/east-a 100% 10.0.0.1:80");
    world.wait(seconds(95));
    assert_eq!(shown(&answer.borrow())[0], "0 e1/east-a 100% 10.0.0.1:80");
    assert_eq!(world.core.next_tick(world.now), begins);
    world.wait(seconds(5));
    // Its way out may take a few ticks.
    while world.now < begins + seconds(60) {
        let next = world.core.next_tick(world.now);
        world.wait((next - world.now).max(Duration::from_millis(1)));
    }
    assert_eq!(shown(&answer.borrow())[0], "0 w1/west-a 100% 10.2.0.1:80");
}

#[test]
fn explain_shows_what_a_client_would_get_before_anybody_asks() {
    let mut world = World::new();
    world.facts("west-a", "a.shop", &[("w1", &["10.2.0.1:80"])]);
    let explained = world.core.explain(&query("a.shop", "e1/east-a"), world.now).unwrap();
    assert!(!explained.watched);
    assert_eq!(explained.plan.priorities[0][0].locality, place("w1/west-a"));
    assert_eq!(world.wanted(), [].into(), "asking does not subscribe");
    assert!(world.core.explain(&query("b.shop", "e1/east-a"), world.now).is_none());
}

#[test]
fn explain_shows_exactly_what_is_served() {
    let mut world = World::new();
    world.local("a.shop", &[("e1", &["10.0.0.1:80", "10.0.0.2:80!", "10.0.0.3:80!"]), ("e2", &["10.0.0.4:80"])]);
    let answer = world.watch(query("a.shop", "e1/east-a"));
    let explained = world.core.explain(&query("a.shop", "e1/east-a"), world.now).unwrap();
    assert!(explained.watched);
    assert_eq!(explained.plan, world::present(&answer.borrow()).plan);
    assert_eq!(explained.plan.priorities[0].len(), 2, "a third of a zone cannot carry all of its load");
}

#[test]
fn endpoints_that_did_not_change_are_the_same_allocation() {
    let mut world = World::new();
    world.local("a.shop", &[("e1", &["10.0.0.1:80"]), ("e2", &["10.0.0.2:80"])]);
    let answer = world.watch(query("a.shop", "e1/east-a"));
    let before = world::present(&answer.borrow());
    world.local("a.shop", &[("e1", &["10.0.0.1:80"]), ("e2", &["10.0.0.2:80", "10.0.0.3:80"])]);
    let after = world::present(&answer.borrow());
    let same = |place: &Locality| std::sync::Arc::ptr_eq(&before.endpoints[place], &after.endpoints[place]);
    assert!(same(&place("e1/east-a")));
    assert!(!same(&place("e2/east-a")));
    assert_eq!(after.endpoints[&place("e2/east-a")][1], endpoint("10.0.0.3:80"));
}

#[test]
fn a_policy_of_a_port_holds_for_that_port_wherever_it_is_known_from() {
    let text = "{apiVersion: portolan.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: p, namespace: shop}, \
                spec: {timeout: 2s, targetRefs: [{kind: Service, name: a, sectionName: grpc}, \
                {kind: Service, name: b, sectionName: grpc}, {kind: Service, name: c, sectionName: other}]}}";
    let object = document::parse("p", text, None).unwrap().remove(0);
    let (by, at) = ("test".to_owned(), jiff::Timestamp::UNIX_EPOCH);
    let stored = StoredPolicy { object, owner: Default::default(), created: 1, revision: 1, by, at };
    let mut world = World::new();
    world.inputs.policy = Some(PolicySet { revision: 1, objects: [(stored.object.key(), stored)].into() }.into());
    world.local("a.shop", &[("e1", &["10.0.0.1:80"])]);
    world.remote("west-a", "b.shop", &[("w1", &["10.2.0.1:80"])]);
    world.local("c.shop", &[("e1", &["10.0.0.3:80"])]);
    for (name, timeout) in [("a.shop", Some(seconds(2))), ("b.shop", Some(seconds(2))), ("c.shop", None)] {
        let answer = world.watch(query(name, "e1/east-a"));
        assert_eq!(world::present(&answer.borrow()).policy.timeout, timeout, "{name}");
    }
}

#[test]
fn a_service_says_how_its_endpoints_warm_up_where_no_policy_does() {
    let mut world = World::new();
    world.local("a.shop", &[("e1", &["10.0.0.1:80"])]);
    let answer = world.watch(query("a.shop", "e1/east-a"));
    let window = || world::present(&answer.borrow()).policy.warmup.map(|warmup| warmup.window);
    assert_eq!(window(), None);
    let mut local = world.inputs.local.as_ref().clone();
    let mut annotated = local.services[&service("a.shop")].as_ref().clone();
    annotated.warmup = Some(seconds(30));
    local.services.insert(service("a.shop"), annotated.into());
    world.inputs.local = local.into();
    world.apply();
    assert_eq!(window(), Some(seconds(30)));
    let text = "apiVersion: portolan.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: p, namespace: shop}\n\
                spec: {targetRefs: [{kind: Service, name: a}], loadBalancer: {warmup: {window: 5s}}}\n";
    let object = document::parse("p.yaml", text, None).unwrap().remove(0);
    let at = super::core::timestamp(world.now);
    let stored = StoredPolicy { object, owner: Default::default(), created: 1, revision: 1, by: "me".into(), at };
    let key = "TrafficPolicy/shop/p".to_owned();
    world.inputs.policy = Some(PolicySet { revision: 1, objects: [(key, stored)].into() }.into());
    world.apply();
    assert_eq!(window(), Some(seconds(5)));
}
