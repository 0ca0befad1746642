//! A scripted control plane: it takes ADS and LRS streams, and the test says what it answers. Connections are pipes in
//! memory, so that time can stand still.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_server::{
    LoadReportingService, LoadReportingServiceServer,
};
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use envoy_types::pb::google::protobuf::Any;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use crate::ads::dial::{Connect, Stream};
use crate::xds::resources::Kind;

/// The addresses at which something listens.
#[derive(Default)]
pub(super) struct Network {
    listeners: Mutex<HashMap<String, mpsc::UnboundedSender<DuplexStream>>>,
    dialled: Mutex<HashMap<String, usize>>,
}

impl Connect for Network {
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        *self.dialled.lock().unwrap().entry(address.clone()).or_default() += 1;
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let listeners = self.listeners.lock().unwrap();
        let taken = listeners.get(&address).is_some_and(|listener| listener.send(theirs).is_ok());
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens there");
        let stream = taken.then(|| Box::new(ours) as Box<dyn Stream>).ok_or_else(refused);
        async move { stream }.boxed()
    }
}

impl Network {
    /// How often an address was dialled.
    pub(super) fn dialled(&self, address: &str) -> usize {
        self.dialled.lock().unwrap().get(address).copied().unwrap_or(0)
    }

    /// New connections to it are refused.
    pub(super) fn silence(&self, address: &str) {
        self.listeners.lock().unwrap().remove(address);
    }

    /// A process that hangs: it is connected to, and does nothing. Returns the connections.
    pub(super) fn frozen(&self, address: &str) -> mpsc::UnboundedReceiver<DuplexStream> {
        let (listener, connections) = mpsc::unbounded_channel();
        self.listeners.lock().unwrap().insert(address.to_owned(), listener);
        connections
    }

    /// A control plane at an address.
    pub(super) fn plane(&self, address: &str, tls: Option<ServerTlsConfig>) -> Plane {
        let (listener, connections) = mpsc::unbounded_channel();
        self.listeners.lock().unwrap().insert(address.to_owned(), listener);
        let (service, plane) = services();
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        let incoming = UnboundedReceiverStream::new(connections).map(Ok::<_, io::Error>);
        let router = server.add_service(AggregatedDiscoveryServiceServer::new(service.clone()));
        tokio::spawn(router.add_service(LoadReportingServiceServer::new(service)).serve_with_incoming(incoming));
        plane
    }
}

/// What the streams of a control plane hand to the test.
pub(super) fn services() -> (Service, Plane) {
    let ((ads, ads_streams), (lrs, lrs_streams)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    (Service { ads, lrs }, Plane { ads: ads_streams, lrs: lrs_streams })
}

/// The test's end of a control plane.
pub(super) struct Plane {
    ads: mpsc::UnboundedReceiver<Peer<DiscoveryRequest, DiscoveryResponse>>,
    lrs: mpsc::UnboundedReceiver<Peer<LoadStatsRequest, LoadStatsResponse>>,
}

/// The test's end of a stream. Dropped, the stream ends.
pub(super) struct Peer<Q, R> {
    requests: Streaming<Q>,
    responses: mpsc::UnboundedSender<Result<R, Status>>,
}

/// Time stands still while anything moves: this passes only when nothing ever will.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(300), future).await.unwrap_or_else(|_| panic!("{what} never came"))
}

impl Plane {
    pub(super) async fn ads(&mut self) -> Peer<DiscoveryRequest, DiscoveryResponse> {
        soon("an ADS stream", self.ads.recv()).await.unwrap()
    }

    pub(super) async fn lrs(&mut self) -> Peer<LoadStatsRequest, LoadStatsResponse> {
        soon("an LRS stream", self.lrs.recv()).await.unwrap()
    }
}

impl<Q, R> Peer<Q, R> {
    pub(super) async fn hear(&mut self) -> Q {
        soon("a request", self.requests.message()).await.unwrap().expect("the client ended the stream")
    }

    /// Returns when the client has ended the stream.
    pub(super) async fn closed(&mut self) {
        soon("the stream's end", async { while let Ok(Some(_)) = self.requests.message().await {} }).await;
    }

    pub(super) fn say(&self, response: R) {
        assert!(self.responses.send(Ok(response)).is_ok(), "the client ended the stream");
    }

    pub(super) fn fail(self, status: Status) {
        let _ = self.responses.send(Err(status));
    }
}

impl Peer<DiscoveryRequest, DiscoveryResponse> {
    pub(super) fn give(&self, kind: Kind, version: &str, resources: Vec<Any>) {
        self.say(DiscoveryResponse {
            version_info: version.to_owned(),
            nonce: version.to_owned(),
            type_url: kind.type_url().to_owned(),
            resources,
            ..DiscoveryResponse::default()
        });
    }

    /// Hears requests up to the one that answers this version of this kind.
    pub(super) async fn answer_to(&mut self, kind: Kind, version: &str) -> DiscoveryRequest {
        loop {
            let request = self.hear().await;
            if request.type_url == kind.type_url() && request.response_nonce == version {
                return request;
            }
        }
    }
}

#[derive(Clone)]
pub(super) struct Service {
    ads: mpsc::UnboundedSender<Peer<DiscoveryRequest, DiscoveryResponse>>,
    lrs: mpsc::UnboundedSender<Peer<LoadStatsRequest, LoadStatsResponse>>,
}

type Responses<R> = BoxStream<'static, Result<R, Status>>;

fn accept<Q, R: Send + 'static>(
    request: Request<Streaming<Q>>,
    test: &mpsc::UnboundedSender<Peer<Q, R>>,
) -> Result<Response<Responses<R>>, Status> {
    let (responses, sent) = mpsc::unbounded_channel();
    let peer = Peer { requests: request.into_inner(), responses };
    test.send(peer).map_err(|_| Status::unavailable("the test is over"))?;
    Ok(Response::new(UnboundedReceiverStream::new(sent).boxed()))
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        accept(request, &self.ads)
    }

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("a client of the state of the world needs no delta"))
    }
}

#[tonic::async_trait]
impl LoadReportingService for Service {
    type StreamLoadStatsStream = Responses<LoadStatsResponse>;

    async fn stream_load_stats(
        &self,
        request: Request<Streaming<LoadStatsRequest>>,
    ) -> Result<Response<Self::StreamLoadStatsStream>, Status> {
        accept(request, &self.lrs)
    }
}
