//! Several nodes of one cluster: one publishes, another takes over, and clients notice nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use portolan_federation::policy::{Outcome, WriteError};
use portolan_topology::view::Liveness;

use crate::POLICY;
use crate::world::{Fleet, host_of};

/// The nodes of cluster `a`; the first holds its seat in the policy group.
const NODES: [&str; 3] = ["a", "a-1", "a-2"];

/// The epoch that cluster `b` knows of `a`, once it knows everything of that epoch.
fn epoch(fleet: &Fleet) -> Option<u64> {
    let known = fleet.remote("b", "a")?;
    (known.complete && known.liveness == Liveness::Fresh).then_some(known.version.0)
}

/// The node that publishes.
fn publisher(fleet: &Fleet) -> &'static str {
    let publishers = fleet.publishers();
    assert_eq!(publishers.len(), 1, "{publishers:?}");
    publishers[0]
}

fn others(than: &str) -> Vec<&'static str> {
    NODES.into_iter().filter(|node| *node != than).collect()
}

#[test]
fn every_node_serves_its_clients_what_the_publisher_knows() {
    let fleet = Fleet::settled_with(11, &NODES);
    publisher(&fleet);
    for node in NODES {
        let told = fleet.told_at(node);
        assert_eq!(told.last().unwrap().healthy, fleet.endpoints, "{node}");
    }
}

#[test]
fn a_dead_publisher_is_replaced_and_no_client_of_another_node_notices() {
    let mut fleet = Fleet::settled_with(12, &NODES);
    let (dead, before) = (publisher(&fleet), epoch(&fleet).unwrap());
    let told: Vec<_> = others(dead).into_iter().map(|node| (node, fleet.told_at(node))).collect();
    let killed = fleet.elapsed();
    fleet.crash(dead);
    fleet.until("b knows a new publisher of a", |fleet| epoch(fleet).is_some_and(|now| now > before));
    let took = fleet.elapsed() - killed;
    assert!(took < Duration::from_secs(15), "{took:?}");
    let next = publisher(&fleet);
    assert_ne!(next, dead);
    fleet.bounce(dead);
    fleet.until("all is whole, with the old one back", Fleet::is_whole);
    fleet.pass(Duration::from_secs(15));
    assert_eq!(publisher(&fleet), next, "the old one follows");
    for (node, told) in told {
        assert_eq!(fleet.told_at(node), told, "{node} told its client something");
    }
}

#[test]
fn a_publisher_that_loses_its_lease_and_its_siblings_steps_down_when_it_hears_of_another() {
    let mut fleet = Fleet::settled_with(13, &NODES);
    let (old, before) = (publisher(&fleet), epoch(&fleet).unwrap());
    let rest = others(old);
    let hosts: Vec<_> = rest.iter().map(|node| host_of(node)).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    fleet.lease.cut.lock().insert(old);
    fleet.partition(&host_of(old), &hosts);
    fleet.until("another publishes", |fleet| fleet.publishers().iter().any(|node| *node != old));
    // Only the other clusters still connect the two; what they remember is enough.
    fleet.until("the old one has stepped down", |fleet| !fleet.publishers().contains(&old));
    fleet.until("b believes the new one", |fleet| epoch(fleet).is_some_and(|now| now > before));
    let now = epoch(&fleet).unwrap();
    fleet.repair(&host_of(old), &hosts);
    fleet.lease.cut.lock().clear();
    fleet.until("all is whole again", Fleet::is_whole);
    fleet.pass(Duration::from_secs(15));
    assert_ne!(publisher(&fleet), old);
    assert_eq!(epoch(&fleet), Some(now), "nobody had to go higher");
}

#[test]
fn policy_is_written_and_read_at_any_node() {
    let mut fleet = Fleet::settled_with(14, &NODES);
    let revision = fleet.write("a-2", POLICY);
    assert_eq!(fleet.revision("a-2"), Some(revision), "whoever was asked has it");
    fleet.until("every node has it", |fleet| NODES.iter().all(|node| fleet.revision(node) == Some(revision)));
    assert_eq!(fleet.policy("a-1"), fleet.policy("a"));
}

#[test]
fn the_clients_of_all_nodes_that_refuse_are_counted_together() {
    let mut fleet = Fleet::settled_with(18, &NODES);
    assert_eq!(fleet.remote("b", "a").unwrap().nacked, Some(0));
    fleet.refuses.store(true, Ordering::Relaxed);
    fleet.write("a-2", POLICY);
    fleet.until("b knows of the clients of all three", |fleet| fleet.remote("b", "a").unwrap().nacked == Some(3));
    fleet.until("each node knows, too", |fleet| NODES.iter().all(|node| fleet.nacked(node) == Some(3)));
    let follower = *others(publisher(&fleet)).iter().find(|node| **node != "a").unwrap();
    fleet.crash(follower);
    fleet.until("those of a dead node are not counted", |fleet| fleet.remote("b", "a").unwrap().nacked == Some(2));
    fleet.refuses.store(false, Ordering::Relaxed);
    fleet.write("a", &POLICY.replace("weight: 20", "weight: 30"));
    fleet.until("they take what comes next", |fleet| fleet.remote("b", "a").unwrap().nacked == Some(0));
}

#[test]
fn without_the_seats_node_policy_is_read_on_and_a_write_says_why_it_cannot() {
    let mut fleet = Fleet::settled_with(15, &NODES);
    let revision = fleet.write("a-1", POLICY);
    fleet.until("a-2 has it", |fleet| fleet.revision("a-2") == Some(revision));
    fleet.crash("a");
    fleet.until("a-2 knows", |fleet| fleet.standing("a-2").unwrap().leader.is_none());
    assert_eq!(fleet.revision("a-2"), Some(revision));
    let refused = fleet.try_write("a-2", &POLICY.replace("weight: 20", "weight: 30")).unwrap_err();
    assert!(matches!(&refused, WriteError::SeatAway { node, .. } if node.as_str() == "a"), "{refused}");
    fleet.bounce("a");
    fleet.until("all is whole again", Fleet::is_whole);
    let written = fleet.try_write("a-2", &POLICY.replace("weight: 20", "weight: 30")).unwrap();
    assert!(matches!(written, Outcome::Applied { revision: now } if now > revision), "{written:?}");
}

#[test]
fn a_node_cut_off_from_its_siblings_serves_on_and_catches_up() {
    let mut fleet = Fleet::settled_with(16, &NODES);
    let old = publisher(&fleet);
    let away = *others(old).iter().find(|node| **node != "a").unwrap();
    let told = fleet.told_at(away);
    let hosts: Vec<_> = others(away).into_iter().map(host_of).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    fleet.partition(&host_of(away), &hosts);
    // At the seat itself: the other clusters' way to it may lead through the node that cannot reach it.
    let revision = fleet.write("a", POLICY);
    fleet.pass(Duration::from_secs(30));
    assert_eq!(fleet.told_at(away), told, "nothing changed for its client");
    assert_ne!(fleet.revision(away), Some(revision));
    fleet.repair(&host_of(away), &hosts);
    fleet.until("it has what it missed", |fleet| fleet.revision(away) == Some(revision));
}

#[test]
fn a_node_that_starts_alone_serves_the_copy_on_its_disk() {
    let mut fleet = Fleet::settled_with(17, &NODES);
    let revision = fleet.write("a-1", POLICY);
    fleet.until("a-2 has it", |fleet| fleet.revision("a-2") == Some(revision));
    fleet.pass(Duration::from_secs(5));
    NODES.into_iter().for_each(|node| fleet.crash(node));
    fleet.partition(&host_of("a-2"), &["plane-b", "plane-c"]);
    fleet.bounce("a-2");
    fleet.until("a-2 is up", |fleet| fleet.remote("a-2", "b").is_some());
    assert_eq!(fleet.revision("a-2"), Some(revision), "its policy");
    assert_eq!(fleet.lists("a-2"), Some(2), "the endpoint lists of b and c");
    let b = fleet.remote("a-2", "b").unwrap();
    assert!(b.heard.is_none() && !b.services.is_empty(), "{b:?}");
}
