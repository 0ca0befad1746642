//! The gRPC services that clients connect to: the aggregated one, and endpoints alone.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::endpoint::v3::endpoint_discovery_service_server::{
    EndpointDiscoveryService, EndpointDiscoveryServiceServer,
};
use futures::Stream;
use portolan_federation::tls::PeerIdentity;
use portolan_topology::names::ClusterName;
use portolan_topology::topology::Topology;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Extensions, Response, Status, Streaming};

use super::clients::{ClientsRegistry, Peer};
use super::counters::{Counters, Counts};
use super::stream;
use crate::catalog::served::Catalog;
use crate::resources::Kind;
use crate::resources::cache::EncodedCache;

/// The largest request: room for [`super::sotw::MAX_NAMES`] names and an Envoy's node.
const MAX_REQUEST_BYTES: usize = 4 << 20;
/// Streams on one connection; a client that multiplexes many channels uses one or two each.
const MAX_STREAMS: u32 = 10_000;
/// A connection that is silent for so long is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// And given so long for its answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The xDS server of one control plane. Clones are the same server.
#[derive(Clone)]
pub struct XdsServer {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) topology: watch::Receiver<Arc<Topology>>,
    pub(super) cluster: ClusterName,
    pub(super) cache: EncodedCache,
    pub(super) clients: Arc<ClientsRegistry>,
    pub(super) counters: Counters,
}

impl std::fmt::Debug for XdsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("XdsServer").field("cluster", &self.shared.cluster).finish_non_exhaustive()
    }
}

impl XdsServer {
    /// The server of `cluster`'s control plane. A client that names no cluster of `topology` is taken to be in `cluster`.
    #[must_use]
    pub fn new(catalog: Arc<dyn Catalog>, topology: watch::Receiver<Arc<Topology>>, cluster: ClusterName) -> Self {
        let shared = Shared {
            catalog,
            topology,
            cluster,
            cache: EncodedCache::default(),
            clients: Arc::default(),
            counters: Counters::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The aggregated discovery service.
    #[must_use]
    pub fn aggregated(&self) -> AggregatedDiscoveryServiceServer<Self> {
        AggregatedDiscoveryServiceServer::new(self.clone()).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// The endpoint discovery service, for clients that want just endpoints.
    #[must_use]
    pub fn endpoints(&self) -> EndpointDiscoveryServiceServer<Self> {
        EndpointDiscoveryServiceServer::new(self.clone()).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// Who is connected.
    #[must_use]
    pub fn clients(&self) -> &Arc<ClientsRegistry> {
        &self.shared.clients
    }

    /// The counters as they stand.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }

    /// How many resources were encoded since the start.
    #[must_use]
    pub fn encodes(&self) -> u64 {
        self.shared.cache.encodes()
    }

    fn open(&self, requests: Streaming<DiscoveryRequest>, peer: Peer, only: Option<Kind>) -> ResponseStream {
        // One response in the transport's hands; behind it the newest state, not a queue.
        let (sender, responses) = mpsc::channel(1);
        tokio::spawn(stream::run(self.shared.clone(), requests, sender, peer, only));
        Box::pin(ReceiverStream::new(responses))
    }
}

/// A gRPC server with the limits that a port for xDS clients needs; add the services and serve.
#[must_use]
pub fn transport() -> Server {
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .tcp_nodelay(true)
}

/// Who is at the other end, from what the listener left with the request.
fn peer(extensions: &Extensions) -> Peer {
    if let Some(peer) = extensions.get::<Arc<PeerIdentity>>() {
        let identity = peer.spiffe.as_ref().map(ToString::to_string);
        return Peer { address: Some(peer.remote.to_string()), identity };
    }
    let address = extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    Peer { address: address.map(|address| address.to_string()), identity: None }
}

type ResponseStream = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
type DeltaResponseStream = Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

fn no_delta() -> Status {
    Status::unimplemented("delta xDS is not supported yet: use the state of the world (api_type GRPC)")
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for XdsServer {
    type StreamAggregatedResourcesStream = ResponseStream;
    type DeltaAggregatedResourcesStream = DeltaResponseStream;

    async fn stream_aggregated_resources(
        &self,
        request: tonic::Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<ResponseStream>, Status> {
        let peer = peer(request.extensions());
        Ok(Response::new(self.open(request.into_inner(), peer, None)))
    }

    async fn delta_aggregated_resources(
        &self,
        _request: tonic::Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<DeltaResponseStream>, Status> {
        Err(no_delta())
    }
}

#[tonic::async_trait]
impl EndpointDiscoveryService for XdsServer {
    type StreamEndpointsStream = ResponseStream;
    type DeltaEndpointsStream = DeltaResponseStream;

    async fn stream_endpoints(
        &self,
        request: tonic::Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<ResponseStream>, Status> {
        let peer = peer(request.extensions());
        Ok(Response::new(self.open(request.into_inner(), peer, Some(Kind::Eds))))
    }

    async fn delta_endpoints(
        &self,
        _request: tonic::Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<DeltaResponseStream>, Status> {
        Err(no_delta())
    }

    async fn fetch_endpoints(
        &self,
        _request: tonic::Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("polling is not supported: open a stream"))
    }
}
