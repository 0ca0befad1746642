//! New endpoints are held back, then counted by their warm-up.

use portolan_topology::policy::document;

use super::world::{World, query, shown};
use super::*;

impl World {
    /// Puts `a.shop` under a policy of this spec.
    pub(super) fn policy(&mut self, spec: &str) {
        let text = format!(
            "{{apiVersion: portolan.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: p, namespace: shop}}, \
             spec: {{targetRefs: [{{kind: Service, name: a}}], {spec}}}}}"
        );
        let object = document::parse("p", &text, None).unwrap().remove(0);
        let (by, at) = ("test".to_owned(), crate::catalog::core::timestamp(self.now));
        let stored = StoredPolicy { object, owner: Default::default(), created: 1, revision: 1, by, at };
        self.inputs.policy = Some(PolicySet { revision: 1, objects: [(stored.object.key(), stored)].into() }.into());
        self.apply();
    }
}

/// Ten seconds of hold, then twenty from a tenth; both zones alike.
const SPEC: &str = "locality: {preference: Region}, loadBalancer: {warmup: {hold: 10s, window: 20s}}";

/// A world under that policy, with one endpoint in each of two zones.
fn world() -> World {
    let mut world = World::new();
    world.local("a.shop", &[("e1", &["10.0.0.1:80"]), ("e2", &["10.0.0.2:80"])]);
    world.policy(SPEC);
    pass(&mut world, 60);
    world
}

/// Lets time pass second by second, as the live catalog does by its wakes.
fn pass(world: &mut World, time: u64) {
    for _ in 0..time {
        world.wait(seconds(1));
    }
}

#[test]
fn a_new_endpoint_is_left_out_and_then_its_zone_counts_it_by_its_warm_up() {
    let mut world = world();
    let answer = world.watch(query("a.shop", "e1/east-a"));
    let now = || shown(&answer.borrow());
    world.local("a.shop", &[("e1", &["10.0.0.1:80", "10.0.0.3:80"]), ("e2", &["10.0.0.2:80"])]);
    let held = ["0 e1/east-a 50% 10.0.0.1:80", "0 e2/east-a 50% 10.0.0.2:80"];
    assert_eq!(now(), held);
    pass(&mut world, 9);
    assert_eq!(now(), held);
    pass(&mut world, 1);
    let both = "10.0.0.1:80 10.0.0.3:80";
    assert_eq!(now(), [format!("0 e1/east-a 52% {both}"), "0 e2/east-a 48% 10.0.0.2:80".to_owned()]);
    pass(&mut world, 10);
    assert_eq!(now()[0], format!("0 e1/east-a 60% {both}"), "half of the window: 1.5 against 1");
    pass(&mut world, 10);
    assert_eq!(now()[0], format!("0 e1/east-a 67% {both}"));
}

#[test]
fn at_most_half_of_a_zone_is_held() {
    let mut world = world();
    let answer = world.watch(query("a.shop", "e1/east-a"));
    let now = |zone: usize| shown(&answer.borrow())[zone].clone();
    // One that has been there, and four new ones, of which the two that came last wait.
    let e1 = ["10.0.0.1:80", "10.0.0.5:80", "10.0.0.6:80", "10.0.0.4:80", "10.0.0.3:80"];
    for known in [3, 5] {
        world.local("a.shop", &[("e1", &e1[..known]), ("e2", &["10.0.0.2:80"])]);
        pass(&mut world, 1);
    }
    assert!(now(0).ends_with("% 10.0.0.1:80 10.0.0.5:80 10.0.0.6:80"), "{}", now(0));
    // A zone of a single one has it at once.
    world.local("a.shop", &[("e1", &["10.0.0.1:80"]), ("e2", &["10.0.0.9:80"])]);
    assert!(now(1).ends_with("% 10.0.0.9:80"), "{}", now(1));
    pass(&mut world, 60);
    assert_eq!(now(1), "0 e2/east-a 50% 10.0.0.9:80");
}

#[test]
fn what_was_there_before_somebody_looked_is_not_new() {
    let mut world = world();
    world.restart();
    let whole = ["0 e1/east-a 50% 10.0.0.1:80", "0 e2/east-a 50% 10.0.0.2:80"];
    assert_eq!(world.shown(query("a.shop", "e1/east-a")), whole);
    // Nor is the first list of another cluster.
    world.remote("east-b", "a.shop", &[("e1", &["10.1.0.1:80"])]);
    assert_eq!(world.shown(query("a.shop", "e1/east-a")).len(), 3);
    // What that lists later is.
    world.remote("east-b", "a.shop", &[("e1", &["10.1.0.1:80", "10.1.0.2:80"])]);
    let east_b = |world: &mut World| world.shown(query("a.shop", "e1/east-a"))[1].clone();
    assert_eq!(east_b(&mut world), "0 e1/east-b 33% 10.1.0.1:80");
    pass(&mut world, 10);
    assert_eq!(east_b(&mut world), "0 e1/east-b 35% 10.1.0.1:80 10.1.0.2:80");
}

#[test]
fn an_endpoint_that_was_ready_once_is_not_held_again_and_one_that_never_was_is() {
    let mut world = world();
    let answer = world.watch(query("a.shop", "e1/east-a"));
    let first = |answer: &tokio::sync::watch::Receiver<_>| shown(&answer.borrow())[0].clone();
    let e2: (&str, &[&str]) = ("e2", &["10.0.0.2:80"]);
    world.local("a.shop", &[("e1", &["10.0.0.1:80", "10.0.0.3:80!"]), e2]);
    pass(&mut world, 60);
    assert!(first(&answer).ends_with("10.0.0.1:80 10.0.0.3:80!"), "{}", first(&answer));
    world.local("a.shop", &[("e1", &["10.0.0.1:80", "10.0.0.3:80"]), e2]);
    assert!(first(&answer).ends_with("10.0.0.1:80"), "its hold begins when it is ready: {}", first(&answer));
    pass(&mut world, 60);
    for health in ["!", ""] {
        let again = format!("10.0.0.3:80{health}");
        world.local("a.shop", &[("e1", &["10.0.0.1:80", &again]), e2]);
        assert!(first(&answer).ends_with(&again), "{}", first(&answer));
    }
}

#[test]
fn new_endpoints_serve_where_nobody_else_is_left_to() {
    let mut world = world();
    let answer = world.watch(query("a.shop", "e1/east-a"));
    world.local("a.shop", &[("e1", &["10.0.0.1:80", "10.0.0.3:80"])]);
    assert_eq!(shown(&answer.borrow()), ["0 e1/east-a 100% 10.0.0.1:80"]);
    for gone in [&["10.0.0.1:80!", "10.0.0.3:80"][..], &["10.0.0.3:80"]] {
        world.local("a.shop", &[("e1", gone)]);
        assert_eq!(shown(&answer.borrow()), [format!("0 e1/east-a 100% {}", gone.join(" "))]);
    }
}
