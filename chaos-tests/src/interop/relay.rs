//! A relay between clients and their control plane that spoils what it is told to spoil: how a NACK is provoked from a
//! client of a server that never sends what the client would refuse.
//!
//! It understands ADS alone, in plain text on the clients' side, with mutual TLS on the other.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;

use anyhow::Context;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::protobuf::{Any, UInt32Value};
use futures::{Stream, StreamExt};
use prost::Message;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::sockets;

/// What is spoiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoiled {
    /// Nothing: responses pass as they are.
    Nothing,
    /// Endpoint assignments: a priority is missing and weights are zero, which every client refuses.
    Assignments,
    /// Listeners: what they say is no message at all.
    Listeners,
}

const ASSIGNMENT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

/// A running relay; ends when dropped.
#[derive(Debug)]
pub(super) struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    spoiled: watch::Sender<Spoiled>,
    streams: watch::Sender<CancellationToken>,
    _server: AbortOnDropHandle<()>,
}

impl Relay {
    /// Listens at `address` and relays to `upstream`, with the certificates in `certs`.
    pub(super) async fn start(address: SocketAddr, upstream: SocketAddr, certs: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| std::fs::read(certs.join(name)).with_context(|| certs.join(name).display().to_string());
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")?))
            .identity(Identity::from_pem(read("client.pem")?, read("client-key.pem")?));
        let channel = Channel::from_shared(format!("https://{upstream}"))?.tls_config(tls)?.connect_lazy();
        let listener = sockets::listen(address).with_context(|| format!("cannot listen at {address}"))?;
        let (spoiled, streams) = (watch::channel(Spoiled::Nothing).0, watch::channel(CancellationToken::new()).0);
        let relaying = Relaying {
            upstream: AggregatedDiscoveryServiceClient::new(channel),
            spoiled: spoiled.subscribe(),
            streams: streams.subscribe(),
        };
        let served = Server::builder()
            .add_service(AggregatedDiscoveryServiceServer::new(relaying))
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        let server = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the relay ended");
            }
        }));
        Ok(Self { address, spoiled, streams, _server: server })
    }

    /// Spoils from now on.
    pub(super) fn spoil(&self, what: Spoiled) {
        self.spoiled.send_replace(what);
    }

    /// Breaks every stream; clients come back.
    pub(super) fn break_streams(&self) {
        self.streams.send_replace(CancellationToken::new()).cancel();
    }
}

struct Relaying {
    upstream: AggregatedDiscoveryServiceClient<Channel>,
    spoiled: watch::Receiver<Spoiled>,
    streams: watch::Receiver<CancellationToken>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Relaying {
    /// The upstream's responses, spoiled while they are to be, until the streams are broken.
    fn relay<T: Send + 'static>(
        &self,
        responses: Streaming<T>,
        resources: impl Fn(&mut T) -> Vec<&mut Any> + Send + 'static,
    ) -> Response<Responses<T>> {
        let spoiled = self.spoiled.clone();
        let broken = self.streams.borrow().clone().cancelled_owned();
        let spoiling = responses.map(move |response| {
            let mut response = response?;
            let what = *spoiled.borrow();
            for any in resources(&mut response) {
                spoil(any, what)?;
            }
            Ok(response)
        });
        Response::new(spoiling.take_until(broken).boxed())
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Relaying {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        requests: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let requests = requests.into_inner().filter_map(|request| std::future::ready(request.ok()));
        let responses = self.upstream.clone().stream_aggregated_resources(requests).await?.into_inner();
        Ok(self.relay(responses, |response| response.resources.iter_mut().collect()))
    }

    async fn delta_aggregated_resources(
        &self,
        requests: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let requests = requests.into_inner().filter_map(|request| std::future::ready(request.ok()));
        let responses = self.upstream.clone().delta_aggregated_resources(requests).await?.into_inner();
        Ok(self.relay(responses, |response| {
            response.resources.iter_mut().filter_map(|resource| resource.resource.as_mut()).collect()
        }))
    }
}

fn spoil(any: &mut Any, what: Spoiled) -> Result<(), Status> {
    match (what, any.type_url.as_str()) {
        (Spoiled::Assignments, ASSIGNMENT) => {
            let mut assignment = ClusterLoadAssignment::decode(any.value.as_slice())
                .map_err(|error| Status::data_loss(format!("an assignment that is none: {error}")))?;
            for locality in &mut assignment.endpoints {
                locality.priority += 1;
                for endpoint in &mut locality.lb_endpoints {
                    endpoint.load_balancing_weight = Some(UInt32Value { value: 0 });
                }
            }
            any.value = assignment.encode_to_vec();
        }
        // A tag that no message has.
        (Spoiled::Listeners, LISTENER) => any.value = vec![0xff; 3],
        _ => {}
    }
    Ok(())
}
