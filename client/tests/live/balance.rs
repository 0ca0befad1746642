//! Who gets which share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use portolan_client::channel::{CallError, Channel, Failure, Options};
use portolan_client::connection::{Dial, Transport};
use portolan_client::load::LoadRecorder;
use portolan_client::xds::model::{Assignment, Resolution};
use tokio::sync::watch;

use crate::support::{Backend, assignment, balancer, call, channel, connected, locality, shares};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_is_even() {
    let backends = Backend::start_many(4).await;
    let addresses: Vec<_> = backends.iter().map(|b| b.address).collect();
    let (channel, _source) = channel(assignment(vec![vec![locality("a", 1, &addresses)]]), 4).await;
    let shares = shares(&channel, 2000, 8).await;
    for backend in &backends {
        assert!((shares[&backend.address] - 0.25).abs() < 0.05, "{shares:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn localities_split_by_weight() {
    let backends = Backend::start_many(3).await;
    // As fast as each other, whichever processor is busy: the one that answers slower gets less.
    backends.iter().for_each(|backend| backend.behaviour.latency.store(5, Relaxed));
    let [a, b, c] = [0, 1, 2].map(|i: usize| backends[i].address);
    let (channel, _source) =
        channel(assignment(vec![vec![locality("a", 80, &[a, b]), locality("b", 20, &[c])]]), 3).await;
    let shares = shares(&channel, 4000, 8).await;
    assert!((shares[&c] - 0.2).abs() < 0.03, "{shares:?}");
    assert!((shares[&a] - 0.4).abs() < 0.05, "{shares:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_endpoint_gets_less() {
    let backends = Backend::start_many(2).await;
    backends[0].behaviour.latency.store(20, Relaxed);
    backends[1].behaviour.latency.store(1, Relaxed);
    let addresses: Vec<_> = backends.iter().map(|b| b.address).collect();
    let (channel, _source) = channel(assignment(vec![vec![locality("a", 1, &addresses)]]), 2).await;
    let workers = (0..8).map(|_| async {
        for _ in 0..50 {
            call(&channel).await.unwrap();
        }
    });
    futures::future::join_all(workers).await;
    assert!(backends[0].calls() * 2 < backends[1].calls(), "{} {}", backends[0].calls(), backends[1].calls());
}

/// A network in which nobody ever answers.
#[derive(Debug)]
struct Silence;

impl Dial for Silence {
    fn dial(&self, _: SocketAddr) -> BoxFuture<'_, std::io::Result<Box<dyn Transport>>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn no_more_calls_wait_for_an_endpoint_than_the_cluster_lets() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    // As long as the connection may take to open, calls wait for it.
    let connect_timeout = Duration::from_secs(3600);
    let plain = assignment(vec![vec![locality("a", 1, &[nobody])]]);
    let limited = Assignment { max_pending_requests: Some(2), connect_timeout, ..plain };
    let (_source, resolutions) = watch::channel(Resolution::from(limited));
    let options = Options { dial: Arc::new(Silence), ..Options::new(3) };
    let channel = Channel::over("checkout.shop", resolutions, options);
    let mut calls: FuturesUnordered<_> = (0..3).map(|_| call(&channel)).collect();
    // Of three at once, one is told; the others wait on.
    let refused = calls.next().await.unwrap().unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert_eq!(
        refused.message(),
        "checkout.shop: 2 calls wait for an endpoint already, which is the cluster's max_pending_requests"
    );
    assert_eq!(CallError::of(&refused).unwrap().failure, Failure::Pending);
    assert!(calls.next().now_or_never().is_none());
    // Whoever gives up makes room.
    drop(calls);
    assert!(call(&channel).now_or_never().is_none());
}

#[tokio::test]
async fn a_new_assignment_is_taken_and_removed_endpoints_finish_what_they_have() {
    let backends = Backend::start_many(2).await;
    let (channel, source) = channel(assignment(vec![vec![locality("a", 1, &[backends[0].address])]]), 1).await;
    backends[0].behaviour.latency.store(300, Relaxed);
    let open = tokio::spawn({
        let channel = channel.clone();
        async move { call(&channel).await }
    });
    while backends[0].calls() == 0 {
        tokio::task::yield_now().await;
    }
    let next = assignment(vec![vec![locality("a", 1, &[backends[1].address])]]);
    source.send_replace(Resolution::from(next));
    let moved = async {
        while balancer(&channel).wanted().iter().all(|endpoint| endpoint.address() != backends[1].address) {
            tokio::task::yield_now().await;
        }
    };
    moved.await;
    assert_eq!(call(&channel).await.unwrap().address, backends[1].address);
    assert_eq!(open.await.unwrap().unwrap().address, backends[0].address);
    assert_eq!(backends[0].calls(), 1);
}

#[tokio::test]
async fn a_name_that_comes_to_nothing_fails_at_once_and_says_which_resource() {
    let (source, resolutions) = watch::channel(Resolution::Pending);
    let channel = Channel::over("checkout.shop", resolutions, Options::new(1));
    let waiting = tokio::spawn({
        let channel = channel.clone();
        async move { call(&channel).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "nothing is known yet");
    source.send_replace(Resolution::NotFound {
        resource: "Listener `checkout.shop`".into(),
        reason: "it is not there".into(),
    });
    let status = waiting.await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert_eq!(status.message(), "checkout.shop: Listener `checkout.shop`: it is not there");
    assert_eq!(CallError::of(&status).unwrap().failure, Failure::NoEndpoint);
    let backend = Backend::start().await;
    let found = assignment(vec![vec![locality("a", 1, &[backend.address])]]);
    source.send_replace(Resolution::from(found));
    connected(&channel, 1).await;
    assert_eq!(call(&channel).await.unwrap().address, backend.address);
}

#[tokio::test]
async fn the_breaker_refuses_what_is_too_much() {
    let backend = Backend::start().await;
    backend.behaviour.latency.store(200, Relaxed);
    let limited = Assignment { max_requests: Some(2), ..assignment(vec![vec![locality("a", 1, &[backend.address])]]) };
    let (channel, _source) = channel(limited, 1).await;
    let calls = futures::future::join_all((0..5).map(|_| call(&channel))).await;
    let refused: Vec<_> = calls.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 3);
    assert_eq!(refused[0].message(), "checkout.shop: cluster checkout: max concurrent requests exceeded: 2 are open");
    assert!(call(&channel).await.is_ok(), "the others have ended");
}

#[tokio::test]
async fn calls_are_counted_for_load_reports() {
    let backend = Backend::start().await;
    let reported = Assignment { report_load: true, ..assignment(vec![vec![locality("a", 1, &[backend.address])]]) };
    let load = LoadRecorder::new();
    let (_source, resolutions) = watch::channel(Resolution::from(reported));
    let channel = Channel::over("checkout.shop", resolutions, Options { load: load.clone(), ..Options::new(1) });
    for _ in 0..3 {
        call(&channel).await.unwrap();
    }
    backend.behaviour.code.store(5, Relaxed);
    assert_eq!(call(&channel).await.unwrap_err().code(), tonic::Code::NotFound);
    let report = load.drain(|cluster| &*cluster.cluster == "checkout");
    let line = report.values().flatten().next().unwrap();
    assert_eq!((line.issued, line.succeeded, line.failed, line.in_progress), (4, 3, 1, 0));
    assert_eq!(&*line.locality.zone, "a");
    let (well, badly) = balancer(&channel).wanted()[0].outcomes();
    assert_eq!((well, badly), (4, 0), "NOT_FOUND is no fault of the endpoint's");
}
