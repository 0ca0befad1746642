//! A server that lets few streams be open on a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use portolan_client::channel::Channel;
use portolan_client::connection::Slot;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::{any_port, assignment, balancer, call, channel, connected, listen, locality};

/// Answers no call before so many have been begun.
struct Together {
    begun: watch::Sender<usize>,
    enough: watch::Receiver<usize>,
}

#[tonic::async_trait]
impl Health for Together {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.begun.send_modify(|begun| *begun += 1);
        let (mut begun, mut enough) = (self.begun.subscribe(), self.enough.clone());
        loop {
            if *begun.borrow_and_update() >= *enough.borrow_and_update() {
                return Ok(Response::new(HealthCheckResponse::default()));
            }
            tokio::select! {
                changed = begun.changed() => changed.map_err(|_| Status::internal("gone"))?,
                changed = enough.changed() => changed.map_err(|_| Status::internal("gone"))?,
            }
        }
    }

    type WatchStream = tokio_stream::Pending<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(tokio_stream::pending()))
    }
}

struct Narrow {
    address: SocketAddr,
    enough: watch::Sender<usize>,
    begun: watch::Receiver<usize>,
    graceful: Option<oneshot::Sender<()>>,
    /// A thread of its own: the tests' may stop its clock.
    runtime: Option<Runtime>,
}

impl Narrow {
    /// So many streams on a connection; no call is answered before `enough` have been begun.
    async fn start(streams: u32, enough: usize) -> Self {
        let (begun, enough) = (watch::Sender::new(0), watch::Sender::new(enough));
        let service = Together { begun: begun.clone(), enough: enough.subscribe() };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (graceful, stop) = oneshot::channel::<()>();
        let (listening, address_of) = oneshot::channel();
        runtime.spawn(async move {
            let listener = listen(any_port()).await;
            listening.send(listener.local_addr().unwrap()).unwrap();
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            tonic::transport::Server::builder()
                .max_concurrent_streams(streams)
                .add_service(HealthServer::new(service))
                .serve_with_incoming_shutdown(incoming, async { drop(stop.await) })
                .await
                .unwrap();
        });
        let address = address_of.await.unwrap();
        Self { address, enough, begun: begun.subscribe(), graceful: Some(graceful), runtime: Some(runtime) }
    }

    async fn channel(&self) -> (Channel, impl Sized + use<>) {
        channel(assignment(vec![vec![locality("a", 1, &[self.address])]]), 1).await
    }

    async fn begun(&self, calls: usize) {
        let mut begun = self.begun.clone();
        let enough = begun.wait_for(|begun| *begun >= calls);
        let done = tokio::time::timeout(Duration::from_secs(10), enough).await.is_ok();
        assert!(done, "{} of {calls} calls run", *self.begun.borrow());
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn connections(channel: &Channel) -> usize {
    balancer(channel).wanted()[0].transport().connections()
}

/// Waits until there are so many connections.
async fn reach(channel: &Channel, n: usize) {
    let reached = async {
        while connections(channel) < n {
            tokio::task::yield_now().await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(10), reached).await.is_ok();
    assert!(done, "{} of {n} connections", connections(channel));
}

/// So many calls, begun at once.
fn calls(channel: &Channel, n: usize) -> tokio::task::JoinHandle<Vec<Result<SocketAddr, Status>>> {
    let channel = channel.clone();
    tokio::spawn(async move { join_all((0..n).map(|_| async { Ok(call(&channel).await?.address) })).await })
}

fn is_quiet(channel: &Channel) -> bool {
    let endpoint: Arc<portolan_client::balancer::Endpoint<Slot>> = balancer(channel).wanted().remove(0);
    endpoint.in_flight() == 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_one_connection_carries_run_at_once() {
    let server = Narrow::start(4, 20).await;
    let (channel, _source) = server.channel().await;
    let calls = tokio::time::timeout(Duration::from_secs(10), calls(&channel, 20)).await;
    let calls = calls.expect("all of them run, or none is answered").unwrap();
    assert!(calls.iter().all(Result::is_ok), "{calls:?}");
    // Five carry them; two more are opened ahead while five, or six, are nearly full.
    assert!((5..=7).contains(&connections(&channel)), "{}", connections(&channel));
    assert!(is_quiet(&channel));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_opened_ahead_of_the_limit() {
    let server = Narrow::start(4, 4).await;
    let (channel, _source) = server.channel().await;
    // Three of four streams stay open: nobody waits yet.
    let first = calls(&channel, 3);
    server.begun(3).await;
    let ahead = async {
        while connections(&channel) < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ahead)
        .await
        .expect("another connection is there before it is needed");
    assert!(call(&channel).await.is_ok());
    assert!(first.await.unwrap().iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn their_number_is_bounded_and_who_finds_no_room_waits_for_it() {
    let server = Narrow::start(1, 17).await;
    let (channel, _source) = server.channel().await;
    let waiting = calls(&channel, 20);
    server.begun(16).await;
    assert_eq!(connections(&channel), 16);
    assert!(!waiting.is_finished());
    assert_eq!(balancer(&channel).wanted()[0].in_flight(), 20, "who waits for a stream counts as well");
    server.enough.send_replace(1);
    assert!(waiting.await.unwrap().iter().all(Result::is_ok));
    assert_eq!(*server.begun.borrow(), 20);
    assert!(is_quiet(&channel));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_goodbye_on_all_of_them_finishes_what_it_has() {
    let mut server = Narrow::start(4, usize::MAX).await;
    let (channel, _source) = server.channel().await;
    let open = calls(&channel, 20);
    server.begun(20).await;
    drop(server.graceful.take());
    connected(&channel, 0).await;
    server.enough.send_replace(1);
    let calls = open.await.unwrap();
    assert!(calls.iter().all(Result::is_ok), "{calls:?}");
    assert!(is_quiet(&channel));
}

#[tokio::test]
async fn what_is_not_needed_for_a_while_is_closed() {
    let server = Narrow::start(4, usize::MAX).await;
    let (channel, _source) = server.channel().await;
    let open = calls(&channel, 20);
    server.begun(20).await;
    // With seven, twenty calls are less than three quarters.
    reach(&channel, 7).await;
    server.enough.send_replace(1);
    assert!(open.await.unwrap().iter().all(Result::is_ok));
    // Nothing is under way: the clock runs on to whatever somebody sleeps for.
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    while connections(&channel) > 1 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(6 * 30), "one at a time");
    tokio::time::resume();
    assert!(call(&channel).await.is_ok());
}
