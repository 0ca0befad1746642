//! Backends that can be told how to behave, and channels over assignments made by hand.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures::StreamExt as _;
use portolan_client::balancer::Balancer;
use portolan_client::channel::{Channel, Options, Picked};
use portolan_client::connection::Slot;
use portolan_client::xds::model::{
    AssignedEndpoint, Assignment, EndpointHealth, Failback, LocalityEndpoints, LocalityName, Resolution,
};
use portolan_client::xds::routing::Routing;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// How a backend answers.
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    /// Connections that it accepted.
    pub(crate) accepted: AtomicU64,
    /// Calls that it began.
    pub(crate) calls: AtomicU64,
    /// Milliseconds before each answer.
    pub(crate) latency: AtomicU64,
    /// The status of each answer.
    pub(crate) code: AtomicI32,
}

struct Service(Arc<Behaviour>);

#[tonic::async_trait]
impl Health for Service {
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        self.0.calls.fetch_add(1, Relaxed);
        let latency = self.0.latency.load(Relaxed);
        if latency > 0 {
            tokio::time::sleep(Duration::from_millis(latency)).await;
        }
        match Code::from(self.0.code.load(Relaxed)) {
            Code::Ok => Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() })),
            code => Err(Status::new(code, "as told")),
        }
    }

    type WatchStream = tokio_stream::Pending<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(tokio_stream::pending()))
    }
}

/// A gRPC server with a runtime of its own, so that it can die like a process: all its sockets at once.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) behaviour: Arc<Behaviour>,
    runtime: Option<Runtime>,
    graceful: Option<oneshot::Sender<()>>,
}

#[expect(clippy::disallowed_methods, reason = "the tests' own servers listen on real loopback sockets")]
pub(crate) async fn listen(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).await.unwrap()
}

/// Any port of a loopback address that no other has: what is left is nobody else's, or a channel of one test would come to
/// connect to the server of another.
pub(crate) fn any_port() -> SocketAddr {
    static LAST: AtomicU16 = AtomicU16::new(1);
    let [high, low] = LAST.fetch_add(1, Relaxed).to_be_bytes();
    SocketAddr::from(([127, 9, high, low], 0))
}

impl Backend {
    pub(crate) async fn start() -> Self {
        Self::start_at(any_port()).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let behaviour = Arc::new(Behaviour::default());
        let service = HealthServer::new(Service(Arc::clone(&behaviour)));
        let counted = Arc::clone(&behaviour);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (graceful, stop) = oneshot::channel::<()>();
        let (listening, address_of) = oneshot::channel();
        runtime.spawn(async move {
            let listener = listen(address).await;
            listening.send(listener.local_addr().unwrap()).unwrap();
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let incoming = incoming.inspect(move |_| {
                counted.accepted.fetch_add(1, Relaxed);
            });
            let stopped = async { drop(stop.await) };
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(incoming, stopped)
                .await
                .unwrap();
        });
        let address = address_of.await.unwrap();
        Self { address, behaviour, runtime: Some(runtime), graceful: Some(graceful) }
    }

    pub(crate) async fn start_many(n: usize) -> Vec<Self> {
        futures::future::join_all((0..n).map(|_| Self::start())).await
    }

    /// Says goodbye, and ends when open calls have.
    pub(crate) fn leave(&mut self) {
        drop(self.graceful.take());
    }

    /// Dies: when this returns, its sockets are closed.
    pub(crate) async fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            let graceful = self.graceful.take();
            tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(5))).await.unwrap();
            drop(graceful);
            // The kernel may still be on its way to tell the peers; it has, once it refuses a newcomer.
            #[expect(clippy::disallowed_methods, reason = "the tests' own backends use real loopback sockets")]
            while tokio::net::TcpStream::connect(self.address).await.is_ok() {}
        }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.behaviour.calls.load(Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn locality(zone: &str, weight: u32, addresses: &[SocketAddr]) -> LocalityEndpoints {
    let endpoint =
        |address: &SocketAddr| AssignedEndpoint { address: *address, weight: 1, health: EndpointHealth::Healthy };
    LocalityEndpoints {
        locality: LocalityName { region: "region".into(), zone: zone.into(), sub_zone: "cluster".into() },
        weight,
        endpoints: addresses.iter().map(endpoint).collect(),
    }
}

pub(crate) fn assignment(priorities: Vec<Vec<LocalityEndpoints>>) -> Assignment {
    Assignment {
        cluster: "checkout".into(),
        priorities,
        failback: Failback { ramp: Duration::from_secs(1), hold_down: Duration::from_millis(200) },
        ..Assignment::default()
    }
}

/// The balancer of a channel to one cluster.
pub(crate) fn balancer(channel: &Channel) -> Arc<Balancer<Slot>> {
    channel.balancers().into_values().next().expect("the channel has heard of its cluster")
}

/// A channel over an assignment, all of whose endpoints that live are connected, and the way to change it.
pub(crate) async fn channel(routing: impl Into<Routing>, ready: usize) -> (Channel, watch::Sender<Resolution>) {
    let (source, resolutions) = watch::channel(Resolution::Routing(Arc::new(routing.into())));
    let channel = Channel::over("checkout.shop", resolutions, Options::new(11));
    connected(&channel, ready).await;
    (channel, source)
}

/// Waits until so many endpoints are connected.
pub(crate) async fn connected(channel: &Channel, n: usize) {
    let reached = async {
        while channel.balancers().is_empty() {
            tokio::task::yield_now().await;
        }
        let balancer = balancer(channel);
        let mut changes = balancer.changes();
        let count = || balancer.wanted().iter().filter(|endpoint| endpoint.transport().is_connected()).count();
        while count() != n {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reached).await.expect("the endpoints that live get connected");
}

/// One call; the endpoint that answered.
pub(crate) async fn call(channel: &Channel) -> Result<Picked, Status> {
    let response = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await?;
    Ok(response.extensions().get::<Picked>().expect("a response tells who served it").clone())
}

/// The shares of `n` calls, `at_once` of them at a time, by address. None may fail.
pub(crate) async fn shares(channel: &Channel, n: usize, at_once: usize) -> HashMap<SocketAddr, f64> {
    let mut seen: HashMap<SocketAddr, usize> = HashMap::new();
    for _ in 0..n / at_once {
        for picked in futures::future::join_all((0..at_once).map(|_| call(channel))).await {
            *seen.entry(picked.unwrap().address).or_default() += 1;
        }
    }
    seen.into_iter().map(|(address, calls)| (address, calls as f64 / n as f64)).collect()
}
