//! The emptiness guard.

use std::sync::Arc;

use super::super::lists::LAST_RESORT;
use super::world::{World, list, query, shown, zones};
use portolan_federation::model::RemoteList;

const FULL: &[(&str, &[&str])] = &[("w1", &["10.2.0.1:80", "10.2.0.2:80", "10.2.0.3:80"])];

fn serving() -> World {
    let mut world = World::new();
    world.remote("west-a", "a.shop", FULL);
    world
}

#[test]
fn an_unsynced_list_adds_and_does_not_remove() {
    let mut world = serving();
    let answer = world.watch(query("a.shop", "e1/east-a"));
    let unsynced = RemoteList { synced: false, ..list(zones(&[("w1", &["10.2.0.3:80!", "10.2.0.4:80"])])) };
    world.list("west-a", "a.shop", unsynced);
    assert_eq!(shown(&answer.borrow()), ["0 w1/west-a 100% 10.2.0.1:80 10.2.0.2:80 10.2.0.3:80! 10.2.0.4:80"]);
    world.list("west-a", "a.shop", RemoteList { synced: false, ..list(zones(&[])) });
    assert_eq!(shown(&answer.borrow()), ["0 w1/west-a 100% 10.2.0.1:80 10.2.0.2:80 10.2.0.3:80! 10.2.0.4:80"]);
}

#[test]
fn a_list_that_the_facts_do_not_bear_out_removes_nothing_until_they_do() {
    let mut world = serving();
    let answer = world.watch(query("a.shop", "e1/east-a"));
    world.list("west-a", "a.shop", list(zones(&[("w1", &["10.2.0.1:80", "10.2.0.2:80"])])));
    assert_eq!(shown(&answer.borrow()), ["0 w1/west-a 100% 10.2.0.1:80 10.2.0.2:80 10.2.0.3:80"]);
    world.facts("west-a", "a.shop", &[("w1", &["10.2.0.1:80", "10.2.0.2:80"])]);
    assert_eq!(shown(&answer.borrow()), ["0 w1/west-a 100% 10.2.0.1:80 10.2.0.2:80"]);
}

#[test]
fn an_older_epochs_list_removes_nothing() {
    let mut world = serving();
    let answer = world.watch(query("a.shop", "e1/east-a"));
    world.facts("west-a", "a.shop", &[("w1", &["10.2.0.1:80"])]);
    world.told("west-a", |told| told.version = (2, 1));
    world.list("west-a", "a.shop", list(zones(&[("w1", &["10.2.0.1:80"])])));
    assert_eq!(shown(&answer.borrow()), ["0 w1/west-a 100% 10.2.0.1:80 10.2.0.2:80 10.2.0.3:80"]);
}

#[test]
fn what_goes_away_in_bulk_is_a_last_resort_for_a_while() {
    let mut world = serving();
    world.local("a.shop", &[("e2", &["10.0.0.1:80"])]);
    let answer = world.watch(query("a.shop", "e1/east-a"));
    world.remote("west-a", "a.shop", &[]);
    world.list("west-a", "a.shop", list(zones(&[])));
    assert_eq!(
        shown(&answer.borrow()),
        ["0 e2/east-a 100% 10.0.0.1:80", "1 w1/west-a 0% 10.2.0.1:80! 10.2.0.2:80! 10.2.0.3:80!"]
    );
    assert!(super::world::present(&answer.borrow()).plan.priorities[1][0].unhealthy);
    world.wait(LAST_RESORT);
    assert_eq!(shown(&answer.borrow()), ["0 e2/east-a 100% 10.0.0.1:80"]);
}

#[test]
fn beside_what_is_left_a_last_resort_weighs_nothing() {
    let mut world = serving();
    let answer = world.watch(query("a.shop", "w1/west-a"));
    world.remote("west-a", "a.shop", &[("w1", &["10.2.0.1:80"])]);
    assert_eq!(shown(&answer.borrow()), ["0 w1/west-a 100% 10.2.0.1:80 10.2.0.2:80! 10.2.0.3:80!"]);
    let planned = super::world::present(&answer.borrow()).plan.priorities[0][0].clone();
    assert_eq!((planned.ready, planned.total), (1, 1));
    // What comes back is no last resort.
    world.remote("west-a", "a.shop", &[("w1", &["10.2.0.1:80", "10.2.0.2:80"])]);
    assert_eq!(shown(&answer.borrow()), ["0 w1/west-a 100% 10.2.0.1:80 10.2.0.2:80 10.2.0.3:80!"]);
}

#[test]
fn a_list_that_nobody_asks_for_any_more_is_forgotten_with_its_guard() {
    let mut world = serving();
    let mut remote = world.inputs.remote.as_ref().clone();
    remote.lists.clear();
    world.inputs.remote = Arc::new(remote);
    world.apply();
    world.remote("west-a", "a.shop", &[("w1", &["10.2.0.9:80"])]);
    assert_eq!(world.shown(query("a.shop", "e1/east-a")), ["0 w1/west-a 100% 10.2.0.9:80"]);
}
