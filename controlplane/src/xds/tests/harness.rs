//! A real gRPC server over in-memory pipes, a catalog that says what a test wants, and a raw client.
//!
//! In-memory, so that time can be paused: it goes on by itself whenever nobody has anything left to do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{Locality as ProtoLocality, Node};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use hyper_util::rt::TokioIo;
use portolan_topology::topology::Topology;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Status, Streaming};
use tower::service_fn;

use super::SHOP;
use crate::lrs::service::LoadReports;
use crate::lrs::store::LoadStore;
use crate::resources::Kind;
use crate::resources::fixtures::{Told, served, topology};
use crate::xds::csds::ClientStatus;
use crate::xds::server::{XdsServer, transport};

pub(super) struct Plane {
    pub(super) catalog: Arc<Told>,
    pub(super) topology: watch::Sender<Arc<Topology>>,
    pub(super) server: XdsServer,
    pub(super) loads: Arc<LoadStore>,
    pub(super) channel: Channel,
}

impl Plane {
    pub(super) fn start() -> Self {
        Self::of("use1-a")
    }

    /// The control plane of this cluster.
    pub(super) fn of(cluster: &str) -> Self {
        let catalog = Arc::new(Told::default());
        let topology = watch::Sender::new(Arc::new(topology()));
        let server = XdsServer::new(catalog.clone(), topology.subscribe(), cluster.parse().unwrap());
        let loads = Arc::new(LoadStore::default());
        let reports = LoadReports::new(loads.clone(), topology.subscribe(), cluster.parse().unwrap());
        let (dialled, connections) = mpsc::channel::<std::io::Result<DuplexStream>>(16);
        let routes = transport().add_service(server.aggregated()).add_service(server.endpoints());
        let routes = routes.add_service(reports.service()).add_service(ClientStatus::new(server.clone()).service());
        tokio::spawn(routes.serve_with_incoming(ReceiverStream::new(connections)));
        let dial = service_fn(move |_: Uri| {
            let dialled = dialled.clone();
            async move {
                let (near, far) = tokio::io::duplex(64 << 10);
                dialled.send(Ok(far)).await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(near))
            }
        });
        let channel = Endpoint::from_static("http://plane").connect_with_connector_lazy(dial);
        Self { catalog, topology, server, loads, channel }
    }

    /// One that serves `checkout.shop` at 10.0.0.1, and a client that has just taken its resource of this kind.
    pub(super) async fn serving(kind: Kind) -> (Self, Ads, DiscoveryResponse) {
        let plane = Self::start();
        plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
        let mut ads = plane.open().await;
        ads.subscribe(kind, &[SHOP]).await;
        let first = ads.take(kind, &[SHOP]).await;
        (plane, ads, first)
    }

    /// Opens a stream that has said nothing yet.
    pub(super) async fn open(&self) -> Ads {
        let (requests, outgoing) = mpsc::channel(16);
        let mut client =
            AggregatedDiscoveryServiceClient::new(self.channel.clone()).max_decoding_message_size(64 << 20);
        let responses = client.stream_aggregated_resources(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        Ads { requests, responses, node: Some(node("", "a")), nonces: HashMap::new(), versions: HashMap::new() }
    }
}

pub(super) fn node(cluster: &str, zone: &str) -> Node {
    Node {
        id: "test".to_owned(),
        cluster: cluster.to_owned(),
        user_agent_name: "gRPC Go".to_owned(),
        locality: Some(ProtoLocality { zone: zone.to_owned(), ..ProtoLocality::default() }),
        ..Node::default()
    }
}

/// A raw client.
pub(super) struct Ads {
    pub(super) requests: mpsc::Sender<DiscoveryRequest>,
    pub(super) responses: Streaming<DiscoveryResponse>,
    /// Goes with the next request.
    pub(super) node: Option<Node>,
    nonces: HashMap<String, String>,
    versions: HashMap<String, String>,
}

impl Ads {
    pub(super) async fn send(&mut self, type_url: &str, names: &[&str], error: Option<&str>) {
        let request = DiscoveryRequest {
            node: self.node.take(),
            type_url: type_url.to_owned(),
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            response_nonce: self.nonces.get(type_url).cloned().unwrap_or_default(),
            version_info: self.versions.get(type_url).cloned().unwrap_or_default(),
            error_detail: error.map(|text| RpcStatus { code: 3, message: text.to_owned(), details: Vec::new() }),
            ..DiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }

    pub(super) async fn subscribe(&mut self, kind: Kind, names: &[&str]) {
        self.send(kind.type_url(), names, None).await;
    }

    /// The next response; it is not acknowledged yet.
    pub(super) async fn next(&mut self) -> Result<DiscoveryResponse, Status> {
        let response = self.responses.message().await?.ok_or_else(|| Status::ok("the stream ended"))?;
        self.nonces.insert(response.type_url.clone(), response.nonce.clone());
        Ok(response)
    }

    /// The next response, which must be of this kind and is acknowledged.
    pub(super) async fn take(&mut self, kind: Kind, names: &[&str]) -> DiscoveryResponse {
        let response = self.next().await.unwrap();
        assert_eq!(response.type_url, kind.type_url());
        self.versions.insert(response.type_url.clone(), response.version_info.clone());
        self.subscribe(kind, names).await;
        response
    }

    /// Nothing comes for a while.
    pub(super) async fn silent(&mut self) {
        let response = tokio::time::timeout(Duration::from_secs(5), self.responses.message()).await;
        assert!(response.is_err(), "{response:?}");
    }
}

/// Lets (paused) time go on until something holds.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
