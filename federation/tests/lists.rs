//! Endpoint lists between federations, and the evidence that they make possible.
#![allow(clippy::unwrap_used, reason = "a failure here is the test's failure")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{Ground, Member, checkout_at, cluster, local, service};
use portolan_federation::model::{Local, Remote};
use portolan_federation::net::{Net, TokioNet};
use portolan_topology::names::{ClusterName, ServicePort};
use portolan_topology::service::Health;
use portolan_topology::view::Liveness;

fn checkout() -> ServicePort {
    ServicePort { service: service("checkout"), port: 8080 }
}

fn key(name: &str) -> (ClusterName, ServicePort) {
    (cluster(name), checkout())
}

/// The hosts of `checkout` in cluster `a`, as (those that are ready, all others).
fn hosts(remote: &Remote) -> (usize, usize) {
    let Some(list) = remote.lists.get(&key("a")) else { return (0, 0) };
    let all = || list.endpoints.values().flatten();
    let ready = all().filter(|endpoint| endpoint.health == Health::Ready).count();
    (ready, all().count() - ready)
}

fn want(member: &Member) {
    member.want.send_replace(BTreeSet::from([checkout()]));
}

#[tokio::test]
async fn a_list_comes_when_it_is_wanted_and_follows() {
    let mut ground = Ground::new(&["a", "b"]).await;
    let a = ground.start("a").await;
    let mut b = ground.start("b").await;
    let published = local(&[("checkout", 5, 4), ("cart", 1, 1)]);
    a.local.send_replace(published.clone());
    let remote = b.until("a's facts", |remote| remote.clusters[&cluster("a")].complete).await;
    assert!(remote.lists.is_empty(), "nothing is wanted yet");
    want(&b);
    let remote = b.until("the list", |remote| hosts(remote) == (4, 1)).await;
    assert_eq!(remote.lists.len(), 1, "what is not wanted does not come");
    let list = &remote.lists[&key("a")];
    assert!(list.synced);
    let service = &published.services.services[&service("checkout")];
    assert_eq!(list.endpoints, service.endpoints[&8080]);
    a.local.send_replace(local(&[("checkout", 4, 4)]));
    b.until("one removed", |remote| hosts(remote) == (4, 0)).await;
}

#[tokio::test]
async fn what_vanishes_in_bulk_stays_as_a_last_resort() {
    let mut ground = Ground::new(&["a", "b"]).await;
    let a = ground.start("a").await;
    let mut b = ground.start("b").await;
    want(&b);
    a.local.send_replace(local(&[("checkout", 4, 4)]));
    b.until("the list", |remote| hosts(remote) == (4, 0)).await;
    a.local.send_replace(local(&[]));
    b.until("all of it as a last resort", |remote| hosts(remote) == (0, 4)).await;
}

#[tokio::test]
async fn an_unsynced_source_takes_nothing_from_the_others() {
    let mut ground = Ground::new(&["a", "b"]).await;
    let a = ground.start("a").await;
    let mut b = ground.start("b").await;
    want(&b);
    a.local.send_replace(local(&[("checkout", 4, 4)]));
    let before = b.until("the list", |remote| hosts(remote) == (4, 0)).await;
    // The source starts over: a new control plane that has read nothing yet.
    drop(a);
    let a = ground.start("a").await;
    a.local.send_replace(Arc::new(Local { topology_hash: 8, ..Local::default() }));
    let remote = b.until("a heard again", |remote| remote.clusters[&cluster("a")].topology_hash == Some(8)).await;
    assert_eq!(hosts(&remote), (4, 0));
    assert_eq!(remote.clusters[&cluster("a")].services, before.clusters[&cluster("a")].services);
    a.local.send_replace(local(&[("checkout", 3, 3)]));
    b.until("what the new one says", |remote| hosts(remote) == (3, 0)).await;
}

#[tokio::test]
async fn a_restart_during_a_partition_serves_the_lists_at_once() {
    let mut ground = Ground::new(&["a", "b"]).await;
    let a = ground.start("a").await;
    let mut b = ground.start("b").await;
    want(&b);
    a.local.send_replace(local(&[("checkout", 4, 4)]));
    b.until("the list", |remote| hosts(remote) == (4, 0)).await;
    ground.saved("b", "lists/a/checkout.shop-8080").await;
    ground.saved("b", "facts/a").await;
    drop((a, b));
    let b = ground.start("b").await;
    let remote = b.remote.borrow().clone();
    assert_eq!(hosts(&remote), (4, 0));
    assert!(remote.clusters[&cluster("a")].services.contains_key(&service("checkout")));
}

#[tokio::test]
async fn a_silent_cluster_whose_endpoints_refuse_has_failed() {
    let mut ground = Ground::new(&["a", "b"]).await;
    let a = ground.start("a").await;
    let mut b = ground.start("b").await;
    want(&b);
    let closed = TokioNet.listen(([127, 0, 0, 1], 0).into()).await.unwrap().local_addr().unwrap();
    a.local.send_replace(checkout_at(&[closed]));
    b.until("the list", |remote| hosts(remote) == (1, 0)).await;
    drop(a);
    let remote = b.until("a failed", |remote| remote.clusters[&cluster("a")].liveness == Liveness::Failed).await;
    assert_eq!(hosts(&remote), (1, 0), "failed is not forgotten");
    let a = ground.start("a").await;
    a.local.send_replace(checkout_at(&[closed]));
    b.until("a back", |remote| remote.clusters[&cluster("a")].liveness == Liveness::Fresh).await;
}
