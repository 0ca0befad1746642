//! From a target and a bootstrap to an answer, with a control plane and backends on loopback.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::protobuf::Any;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::transport::Server;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::{Request, Response, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{Builder, Channel, ConnectError, Picked};
use crate::xds::bootstrap::{Bootstrap, BootstrapError, CONFIG_VARIABLE, FILE_VARIABLE, Origin};
use crate::xds::fixtures;

/// All that is served, by type, under one version.
type Served = (u64, BTreeMap<String, Any>);

/// Serves the newest of what it is given, to everybody who asks.
struct Plane(watch::Receiver<Served>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Plane {
    type StreamAggregatedResourcesStream = BoxStream<'static, Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = BoxStream<'static, Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        requests: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        // Each request that is no ACK of the newest is answered; each change is sent for every type.
        let served = self.0.clone();
        let asked = requests.into_inner().filter_map(move |request| {
            let (version, resources) = served.borrow().clone();
            let answer = request.ok().filter(|r| r.version_info != version.to_string() && r.error_detail.is_none());
            let answer = answer.and_then(|request| Some(response(version, resources.get(&request.type_url)?.clone())));
            std::future::ready(answer.map(Ok))
        });
        let changed = WatchStream::from_changes(self.0.clone()).flat_map(|(version, resources)| {
            futures::stream::iter(resources.into_values().map(move |resource| Ok(response(version, resource))))
        });
        Ok(Response::new(futures::stream::select(asked, changed).boxed()))
    }

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("state of the world alone"))
    }
}

fn response(version: u64, resource: Any) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: version.to_string(),
        nonce: version.to_string(),
        type_url: resource.type_url.clone(),
        resources: vec![resource],
        ..DiscoveryResponse::default()
    }
}

fn served(version: u64, backends: &[SocketAddr]) -> Served {
    let backends: Vec<String> = backends.iter().map(SocketAddr::to_string).collect();
    let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
    let resources = [
        fixtures::listener("checkout.shop", "routes"),
        fixtures::routes("routes", "cluster"),
        fixtures::cluster("cluster", "endpoints"),
        fixtures::assignment("endpoints", &backends),
    ];
    (version, resources.into_iter().map(|any| (any.type_url.clone(), any)).collect())
}

async fn serve(router: Router) -> SocketAddr {
    serve_at(SocketAddr::from(([127, 0, 0, 1], 0)), router).await
}

#[expect(clippy::disallowed_methods, reason = "the tests' own servers listen on real loopback sockets")]
async fn listen(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).await.unwrap()
}

async fn serve_at(address: SocketAddr, router: Router) -> SocketAddr {
    let listener = listen(address).await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
    address
}

async fn backend() -> SocketAddr {
    let (_, health) = tonic_health::server::health_reporter();
    serve(Server::builder().add_service(health)).await
}

/// A server with a runtime of its own, so that it can die like a process: all its sockets at once.
struct Process {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Process {
    /// The addresses of this one's test, which no other has: nobody else comes to listen where one of them died.
    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([127, 8, 0, number], 0))
    }

    async fn start(at: SocketAddr, router: Router) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = runtime.spawn(serve_at(at, router)).await.unwrap();
        Self { address, runtime: Some(runtime) }
    }

    async fn backend(number: u8) -> Self {
        let (_, health) = tonic_health::server::health_reporter();
        Self::start(Self::address(number), Server::builder().add_service(health)).await
    }

    /// When this returns, nothing listens there any more.
    async fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(5))).await.unwrap();
            #[expect(clippy::disallowed_methods, reason = "the tests' own servers use real loopback sockets")]
            while tokio::net::TcpStream::connect(self.address).await.is_ok() {}
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn plane(served: watch::Receiver<Served>) -> Router {
    Server::builder().add_service(AggregatedDiscoveryServiceServer::new(Plane(served)))
}

fn builder(planes: &[SocketAddr]) -> Builder {
    let server = |plane| format!(r#"{{"server_uri": "{plane}", "channel_creds": [{{"type": "insecure"}}]}}"#);
    let servers: Vec<String> = planes.iter().map(server).collect();
    let bootstrap = format!(r#"{{"xds_servers": [{}], "node": {{"id": "n"}}}}"#, servers.join(", "));
    Channel::builder("xds:///checkout.shop").bootstrap(Bootstrap::parse(&bootstrap, Origin::Variable).unwrap())
}

async fn ask(channel: &Channel) -> Result<SocketAddr, Status> {
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(Duration::from_secs(10));
    let response = HealthClient::new(channel.clone()).check(request).await?;
    Ok(response.extensions().get::<Picked>().unwrap().address)
}

#[tokio::test]
async fn a_target_is_resolved_and_followed() {
    let (first, second) = (backend().await, backend().await);
    let (serving, newest) = watch::channel(served(1, &[first]));
    let plane = serve(plane(newest)).await;
    let channel = builder(&[plane]).seed(1).build().unwrap();
    assert_eq!(ask(&channel).await.unwrap(), first);
    serving.send_replace(served(2, &[second]));
    while ask(&channel).await.unwrap() != second {}
}

#[tokio::test]
async fn a_wrong_target_or_bootstrap_is_refused_with_its_mend() {
    let error = Channel::connect("http://checkout.shop").await.unwrap_err();
    assert!(matches!(error, ConnectError::Target(_)));
    assert_eq!(error.to_string(), "`http://checkout.shop` is not an xDS target; write `xds:///SERVICE.NAMESPACE`");

    // What `connect` finds in the environment, which a test must not change.
    let refused = |set: &str, value: &str| {
        let variable = |name: &str| (name == set).then(|| value.to_owned());
        match Channel::builder("xds:///checkout.shop").build_in(variable).unwrap_err() {
            ConnectError::Bootstrap(error) => error,
            other => panic!("{other:?}"),
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let cut = file("cut.json", "{\n  \"xds_servers\": [");
    let error = refused(FILE_VARIABLE, &cut);
    assert!(matches!(error, BootstrapError::Malformed { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("{cut}: not a bootstrap: EOF while parsing a list at line 2 column 18"));
    let nowhere = file(
        "nowhere.json",
        r#"{"xds_servers": [{"server_uri": "plane", "channel_creds": [{"type": "insecure"}]}], "node": {"id": "n"}}"#,
    );
    let error = refused(FILE_VARIABLE, &nowhere);
    assert!(matches!(error, BootstrapError::Field { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!("{nowhere}: xds_servers[0].server_uri: `plane` is not HOST:PORT, such as portolan.example.com:7444")
    );
    let missing = folder.path().join("missing.json").to_str().unwrap().to_owned();
    let error = refused(FILE_VARIABLE, &missing);
    assert!(matches!(error, BootstrapError::Unreadable { .. }), "{error:?}");
    assert!(error.to_string().starts_with(&format!("{missing}: cannot be read: ")), "{error}");
    let error = refused(CONFIG_VARIABLE, "{}");
    assert!(matches!(error, BootstrapError::Field { .. }), "{error:?}");
    assert!(error.to_string().starts_with("GRPC_XDS_BOOTSTRAP_CONFIG: xds_servers: "), "{error}");
    let error = refused("ANOTHER_VARIABLE", "{}");
    assert!(matches!(error, BootstrapError::Missing), "{error:?}");
}

/// Some calls at once, none of which may fail; who answered.
async fn answered_by(channel: &Channel) -> Vec<SocketAddr> {
    futures::future::try_join_all((0..8).map(|_| ask(channel))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_is_gone_for_good_fails_no_call_and_the_next_server_takes_over() {
    let (mut dies, lives, new) = (Process::backend(1).await, Process::backend(2).await, Process::backend(3).await);
    let (_serving, first) = watch::channel(served(1, &[dies.address, lives.address]));
    let mut gone = Process::start(Process::address(4), plane(first)).await;
    // The next server is broken for now: it hangs up on everybody, which tells that the client looks for one.
    let listener = listen(Process::address(5)).await;
    let next = listener.local_addr().unwrap();
    let (dial, dialled) = watch::channel(0u32);
    let broken = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            drop(socket);
            dial.send_modify(|times| *times += 1);
        }
    });
    let channel = builder(&[gone.address, next]).seed(1).build().unwrap();
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        seen.extend(answered_by(&channel).await);
    }
    assert_eq!(*dialled.borrow(), 0, "the first server is there");

    gone.kill().await;
    while *dialled.borrow() < 2 {
        answered_by(&channel).await;
    }
    dies.kill().await;
    while *dialled.borrow() < 4 {
        let by = answered_by(&channel).await;
        assert!(by.iter().all(|address| *address == lives.address), "{by:?}");
    }
    let explained = channel.explain().clusters.remove(0).localities.remove(0);
    assert_eq!((explained.usable, explained.healthy), (1, 2), "the dead one is known by its connection alone");

    broken.abort();
    assert!(broken.await.unwrap_err().is_cancelled());
    let (_serving, second) = watch::channel(served(1, &[lives.address, new.address]));
    let _next = Process::start(next, plane(second)).await;
    while !answered_by(&channel).await.contains(&new.address) {}
}

#[tokio::test(start_paused = true)]
async fn without_a_control_plane_a_call_waits_for_its_deadline_and_says_why() {
    // Nobody listens at port 1, and the deadline passes in the runtime's own time.
    let channel = builder(&[SocketAddr::from(([127, 0, 0, 1], 1))]).seed(1).build().unwrap();
    let status = ask(&channel).await.unwrap_err();
    assert!(status.message().starts_with("checkout.shop: "), "{status:?}");
    assert!(matches!(status.code(), tonic::Code::DeadlineExceeded | tonic::Code::Unavailable), "{status:?}");
}
