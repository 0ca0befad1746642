//! Whole federations, two or three in one process.
#![allow(clippy::unwrap_used, reason = "a failure here is the test's failure")]

mod common;

use std::sync::Arc;

use common::{Ground, cluster, local, ready_of, service, zone};
use portolan_federation::disk::MemoryDisk;
use portolan_federation::model::Local;
use portolan_federation::net::{Net, TokioNet};
use portolan_federation::nodes::Nodes;
use portolan_federation::tls::Credentials;
use portolan_federation::{Config, PeerPort, certs, start};
use portolan_topology::names::NodeName;
use portolan_topology::service::Port;
use portolan_topology::view::Liveness;
use rand::SeedableRng;
use rand::rngs::StdRng;

#[tokio::test]
async fn two_control_planes_hear_each_other() {
    let mut ground = Ground::new(&["a", "b"]).await;
    let mut a = ground.start("a").await;
    let mut b = ground.start("b").await;
    a.until("a hears b", |remote| remote.clusters[&cluster("b")].heard.is_some()).await;
    b.until("b hears a", |remote| remote.clusters[&cluster("a")].heard.is_some()).await;
}

#[tokio::test]
async fn facts_reach_the_others_and_removals_too() {
    let mut ground = Ground::new(&["a", "b", "c"]).await;
    let a = ground.start("a").await;
    let mut others = [ground.start("b").await, ground.start("c").await];
    a.local.send_replace(local(&[("checkout", 3, 2), ("cart", 1, 1)]));
    for other in &mut others {
        let remote = other.until("all of a's facts", |remote| remote.clusters[&cluster("a")].complete).await;
        let a = &remote.clusters[&cluster("a")];
        assert_eq!(a.liveness, Liveness::Fresh);
        assert_eq!(a.topology_hash, Some(7));
        assert_eq!(a.services.len(), 2);
        let checkout = &a.services[&service("checkout")];
        assert_eq!(checkout.ports, [Port { number: 8080, name: Some("grpc".into()) }]);
        let counts = checkout.zones[&Some(zone("z-a"))].endpoints;
        assert_eq!((counts.total, counts.ready, counts.ready_weight), (3, 2, 2));
    }
    a.local.send_replace(local(&[("checkout", 3, 3)]));
    for other in &mut others {
        other
            .until("the change and the removal", |remote| {
                let services = &remote.clusters[&cluster("a")].services;
                !services.contains_key(&service("cart"))
                    && services[&service("checkout")].zones[&Some(zone("z-a"))].endpoints.ready == 3
            })
            .await;
    }
}

#[tokio::test]
async fn a_restart_serves_what_was_known_before_anyone_was_heard() {
    let mut ground = Ground::new(&["a", "b"]).await;
    let a = ground.start("a").await;
    let mut b = ground.start("b").await;
    a.local.send_replace(local(&[("checkout", 2, 2)]));
    b.until("a's facts", |remote| remote.clusters[&cluster("a")].complete).await;
    ground.saved("b", "facts/a").await;
    drop(a);
    drop(b);
    let b = ground.start("b").await;
    let remote = b.remote.borrow().clone();
    let a = &remote.clusters[&cluster("a")];
    assert_eq!(a.heard, None);
    assert_eq!(a.liveness, Liveness::Suspect);
    assert!(a.services.contains_key(&service("checkout")));
}

#[tokio::test]
async fn a_restarted_publisher_goes_on_with_a_higher_epoch() {
    let mut ground = Ground::new(&["a", "b"]).await;
    let a = ground.start("a").await;
    let mut b = ground.start("b").await;
    a.local.send_replace(local(&[("checkout", 2, 2), ("cart", 1, 1)]));
    let before = b.until("a's facts", |remote| remote.clusters[&cluster("a")].complete).await;
    drop(a);
    let a = ground.start("a").await;
    a.local.send_replace(local(&[("checkout", 1, 1)]));
    let epoch = before.clusters[&cluster("a")].version.0;
    let after = b
        .until("the new epoch, whole", |remote| {
            let a = &remote.clusters[&cluster("a")];
            a.complete && a.version.0 > epoch && !a.services.contains_key(&service("cart"))
        })
        .await;
    assert_eq!(after.clusters[&cluster("a")].services.len(), 1);
}

#[tokio::test]
async fn a_publisher_with_a_wiped_disk_is_not_taken_for_an_old_one() {
    let mut ground = Ground::new(&["a", "b"]).await;
    let mut b = ground.start("b").await;
    // Some lives, so that a wiped disk begins below.
    for ready in 1..=3 {
        let a = ground.start("a").await;
        a.local.send_replace(local(&[("checkout", 3, ready)]));
        b.until("a's facts", |remote| ready_of(remote, "a") == Some(ready)).await;
    }
    ground.disks.insert(cluster("a"), MemoryDisk::default());
    let a = ground.start("a").await;
    a.local.send_replace(local(&[("checkout", 9, 9)]));
    let remote = b.until("what the wiped one says", |remote| ready_of(remote, "a") == Some(9)).await;
    assert!(remote.clusters[&cluster("a")].version.0 > 3, "{:?}", remote.clusters[&cluster("a")].version);
}

#[tokio::test]
async fn a_silent_peer_is_suspected_and_not_dropped() {
    let mut ground = Ground::new(&["a", "b"]).await;
    let a = ground.start("a").await;
    let mut b = ground.start("b").await;
    a.local.send_replace(local(&[("checkout", 2, 2)]));
    b.until("a's facts", |remote| remote.clusters[&cluster("a")].complete).await;
    drop(a);
    let remote = b.until("a suspected", |remote| remote.clusters[&cluster("a")].liveness == Liveness::Suspect).await;
    assert_eq!(ready_of(&remote, "a"), Some(2));
}

#[tokio::test]
async fn a_cluster_that_says_it_failed_is_failed() {
    let mut ground = Ground::new(&["a", "b"]).await;
    let a = ground.start("a").await;
    let mut b = ground.start("b").await;
    let failed = Local { failed: true, ..(*local(&[("checkout", 2, 2)])).clone() };
    a.local.send_replace(Arc::new(failed));
    b.until("a failed", |remote| remote.clusters[&cluster("a")].liveness == Liveness::Failed).await;
    a.local.send_replace(local(&[("checkout", 2, 2)]));
    b.until("a back", |remote| remote.clusters[&cluster("a")].liveness == Liveness::Fresh).await;
}

#[tokio::test]
async fn the_others_know_how_many_clients_of_a_cluster_refuse() {
    let mut ground = Ground::new(&["a", "b"]).await;
    let a = ground.start("a").await;
    let mut b = ground.start("b").await;
    for nacked in [0, 2, 0] {
        a.local.send_replace(Arc::new(Local { nacked, ..(*local(&[("checkout", 1, 1)])).clone() }));
        b.until("what a says", |remote| remote.clusters[&cluster("a")].nacked == Some(nacked)).await;
        assert_eq!(a.federation.nacked(), nacked);
    }
}

#[tokio::test]
async fn strangers_are_refused_and_peers_go_on() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut ground = Ground::new(&["a", "b"]).await;
    let a = ground.start("a").await;
    let mut plain = TokioNet.dial(&a.federation.peer_addr().to_string()).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The port hangs up, by a reset or an end, perhaps after a TLS alert.
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.windows(4).any(|bytes| bytes == b"HTTP"));
    while a.federation.refusals().counts().is_empty() {
        tokio::task::yield_now().await;
    }
    let mut b = ground.start("b").await;
    b.until("b hears a", |remote| remote.clusters[&cluster("a")].heard.is_some()).await;
}

#[tokio::test]
async fn a_federation_that_cannot_be_is_refused_with_the_reason() {
    let ground = Ground::new(&["a", "b"]).await;
    let files = |name| certs::files_of(ground.certificates(), &cluster(name));
    let config = |name, certificate| Config {
        cluster: cluster(name),
        node: NodeName::new("0").unwrap(),
        topology: ground.topology.subscribe(),
        credentials: Arc::new(Credentials::from_files(&files(certificate)).unwrap()),
        port: PeerPort::At(([127, 0, 0, 1], 0).into()),
        nodes: Nodes::alone(),
    };
    let refused = async |config| {
        let disk = Arc::new(MemoryDisk::default());
        start(config, Arc::new(TokioNet), disk, StdRng::seed_from_u64(1)).await.err().unwrap().to_string()
    };
    let error = refused(config("nowhere", "a")).await;
    assert!(error.contains("`nowhere`") && error.contains("a, b"), "{error}");
    let error = refused(config("a", "b")).await;
    assert!(error.contains("cluster/b") && error.contains("cluster/a") && error.contains("b.pem"), "{error}");
    let taken = TokioNet.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let port = PeerPort::At(taken.local_addr().unwrap());
    let error = refused(Config { port, ..config("a", "a") }).await;
    assert!(error.contains("--peer-addr") && error.contains("in use"), "{error}");
}
