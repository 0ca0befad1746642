//! From a target and a bootstrap to an answer, with a control plane and backends on loopback.

use std::collections::BTreeMap;
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
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::transport::Server;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::{Request, Response, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{Builder, Channel, ConnectError, Picked};
use crate::xds::bootstrap::{Bootstrap, Origin};
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

fn served(version: u64, backend: SocketAddr) -> Served {
    let resources = [
        fixtures::listener("checkout.shop", "routes"),
        fixtures::routes("routes", "cluster"),
        fixtures::cluster("cluster", "endpoints"),
        fixtures::assignment("endpoints", &[&backend.to_string()]),
    ];
    (version, resources.into_iter().map(|any| (any.type_url.clone(), any)).collect())
}

async fn serve(router: Router) -> SocketAddr {
    #[expect(clippy::disallowed_methods, reason = "the tests' own servers listen on real loopback sockets")]
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
    address
}

async fn backend() -> SocketAddr {
    let (_, health) = tonic_health::server::health_reporter();
    serve(Server::builder().add_service(health)).await
}

fn builder(plane: SocketAddr) -> Builder {
    let bootstrap = format!(
        r#"{{"xds_servers": [{{"server_uri": "{plane}", "channel_creds": [{{"type": "insecure"}}]}}], "node": {{"id": "n"}}}}"#
    );
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
    let (serving, newest) = watch::channel(served(1, first));
    let plane = serve(Server::builder().add_service(AggregatedDiscoveryServiceServer::new(Plane(newest)))).await;
    let channel = builder(plane).seed(1).build().unwrap();
    assert_eq!(ask(&channel).await.unwrap(), first);
    serving.send_replace(served(2, second));
    while ask(&channel).await.unwrap() != second {}
}

#[tokio::test]
async fn a_wrong_target_or_bootstrap_is_refused_with_its_mend() {
    let error = Channel::connect("http://checkout.shop").await.unwrap_err();
    assert!(matches!(error, ConnectError::Target(_)));
    assert_eq!(error.to_string(), "`http://checkout.shop` is not an xDS target; write `xds:///SERVICE.NAMESPACE`");
}

#[tokio::test(start_paused = true)]
async fn without_a_control_plane_a_call_waits_for_its_deadline_and_says_why() {
    // Nobody listens at port 1, and the deadline passes in the runtime's own time.
    let channel = builder(SocketAddr::from(([127, 0, 0, 1], 1))).seed(1).build().unwrap();
    let status = ask(&channel).await.unwrap_err();
    assert!(status.message().starts_with("checkout.shop: "), "{status:?}");
    assert!(matches!(status.code(), tonic::Code::DeadlineExceeded | tonic::Code::Unavailable), "{status:?}");
}
