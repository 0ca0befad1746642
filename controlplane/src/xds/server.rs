//! The gRPC services that clients connect to: the aggregated one, and endpoints alone.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use portolan_federation::tls::PeerIdentity;
use portolan_topology::names::ClusterName;
use portolan_topology::topology::Topology;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::Server;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Extensions, Response, Status, Streaming};

use super::clients::{ClientsRegistry, Peer};
use super::counters::{Counters, Counts};
use super::delta::Delta;
use super::open;
use super::protocol;
use super::protocol::holding::Holding;
use super::sotw::StateOfTheWorld;
use super::stream::ClientStream;
use super::wire::{Wire, WireCodec};
use crate::catalog::served::Catalog;
use crate::resources::Kind;
use crate::resources::cache::ResourceCache;
use crate::resources::gateway::book::GatewayBook;

/// The largest request: room for [`super::protocol::MAX_NAMES`] names and an Envoy's node.
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
    pub(super) topology: watch::Receiver<Arc<Topology>>,
    pub(super) cluster: ClusterName,
    pub(super) cache: ResourceCache,
    pub(super) gateways: Arc<GatewayBook>,
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
    /// It tends its streams in a task of the runtime that it is made in.
    #[must_use]
    pub fn new(catalog: Arc<dyn Catalog>, topology: watch::Receiver<Arc<Topology>>, cluster: ClusterName) -> Self {
        let shared = Shared {
            topology: topology.clone(),
            cluster,
            cache: ResourceCache::new(catalog),
            gateways: Arc::default(),
            clients: Arc::default(),
            counters: Counters::default(),
        };
        let shared = Arc::new(shared);
        tokio::spawn(open::tend(Arc::downgrade(&shared), topology));
        Self { shared }
    }

    /// The aggregated discovery service.
    #[must_use]
    pub fn aggregated(&self) -> Aggregated {
        Aggregated(self.shared.clone())
    }

    /// The endpoint discovery service, for clients that want just endpoints.
    #[must_use]
    pub fn endpoints(&self) -> Endpoints {
        Endpoints(self.shared.clone())
    }

    /// Who is connected.
    #[must_use]
    pub fn clients(&self) -> &Arc<ClientsRegistry> {
        &self.shared.clients
    }

    /// What the client of a stream has of each resource, by the stream's number. `None`: there is no such stream.
    #[must_use]
    pub fn holdings(&self, stream: u64) -> Option<Vec<(Kind, Vec<Holding>)>> {
        self.shared.clients.get(stream)?.holdings()
    }

    /// What the Envoys of gateways are served: to be filled by whoever plans gateways.
    #[must_use]
    pub fn gateways(&self) -> &Arc<GatewayBook> {
        &self.shared.gateways
    }

    /// The services' resources; their routes are to be filled in by whoever plans them.
    #[must_use]
    pub fn services(&self) -> &ResourceCache {
        &self.shared.cache
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

/// The aggregated discovery service: all types on one stream.
#[derive(Clone)]
pub struct Aggregated(Arc<Shared>);

impl NamedService for Aggregated {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

/// The endpoint discovery service: endpoints alone.
#[derive(Clone)]
pub struct Endpoints(Arc<Shared>);

impl NamedService for Endpoints {
    const NAME: &'static str = "envoy.service.endpoint.v3.EndpointDiscoveryService";
}

type Answer = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

impl tower::Service<http::Request<Body>> for Aggregated {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        match method(&request) {
            "StreamAggregatedResources" => answer::<StateOfTheWorld>(&self.0, None, request),
            "DeltaAggregatedResources" => answer::<Delta>(&self.0, None, request),
            _ => refuse("no such method"),
        }
    }
}

impl tower::Service<http::Request<Body>> for Endpoints {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        match method(&request) {
            "StreamEndpoints" => answer::<StateOfTheWorld>(&self.0, Some(Kind::Eds), request),
            "DeltaEndpoints" => answer::<Delta>(&self.0, Some(Kind::Eds), request),
            "FetchEndpoints" => refuse("polling is not supported: open a stream"),
            _ => refuse("no such method"),
        }
    }
}

/// The method that a request calls. Its path is `/SERVICE/METHOD`.
fn method(request: &http::Request<Body>) -> &str {
    request.uri().path().rsplit('/').next().unwrap_or_default()
}

fn refuse(why: &str) -> Answer {
    let response = Status::unimplemented(why).into_http();
    Box::pin(std::future::ready(Ok(response)))
}

fn answer<V: Wire>(shared: &Arc<Shared>, only: Option<Kind>, request: http::Request<Body>) -> Answer {
    let opening = Opening::<V> { shared: shared.clone(), only, variant: PhantomData };
    Box::pin(async move {
        let codec = WireCodec::<V>::default();
        let mut grpc = Grpc::new(codec).apply_max_message_size_config(Some(MAX_REQUEST_BYTES), None);
        Ok(grpc.streaming(opening, request).await)
    })
}

/// Opens one stream.
struct Opening<V> {
    shared: Arc<Shared>,
    only: Option<Kind>,
    variant: PhantomData<fn() -> V>,
}

impl<V: Wire> StreamingService<V::Message> for Opening<V> {
    type Response = protocol::Response;
    type ResponseStream = ClientStream<V>;
    type Future = std::future::Ready<Result<Response<ClientStream<V>>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<V::Message>>) -> Self::Future {
        let peer = peer(request.extensions());
        let stream = ClientStream::new(self.shared.clone(), request.into_inner(), peer, self.only);
        std::future::ready(Ok(Response::new(stream)))
    }
}
