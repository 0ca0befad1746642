//! A bare EDS client: what it is sent, and when. It believes everything and balances nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::{Locality, Node};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use futures::channel::mpsc;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

const EDS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// A first answer holds every service.
const LARGEST: usize = 64 << 20;

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// When each address was first sent.
    pub addresses: HashMap<String, Instant>,
}

/// A subscribed client; it ends with this value.
pub(super) struct Subscriber {
    seen: Arc<Mutex<Seen>>,
    responses: watch::Receiver<usize>,
    _task: AbortOnDropHandle<()>,
}

impl Subscriber {
    /// Asks for the endpoints of `names`.
    pub(super) async fn start(xds: SocketAddr, cluster: &str, zone: &str, names: Vec<String>) -> anyhow::Result<Self> {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{xds}"))?.connect().await?;
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(LARGEST);
        let (requests, stream) = mpsc::unbounded();
        let node = Node {
            id: "bench".to_owned(),
            cluster: cluster.to_owned(),
            locality: Some(Locality { region: "here".into(), zone: zone.into(), sub_zone: cluster.into() }),
            ..Node::default()
        };
        let request = DiscoveryRequest {
            node: Some(node),
            resource_names: names.clone(),
            type_url: EDS.to_owned(),
            ..DiscoveryRequest::default()
        };
        requests.unbounded_send(request).context("the stream is closed")?;
        let mut answers = client.stream_aggregated_resources(stream).await?.into_inner();
        let seen = Arc::<Mutex<Seen>>::default();
        let (count, responses) = watch::channel(0);
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok(Some(answer)) = answers.message().await {
                note(&answer, &mut noted.lock());
                count.send_modify(|count| *count += 1);
                let taken = DiscoveryRequest {
                    version_info: answer.version_info,
                    response_nonce: answer.nonce,
                    resource_names: names.clone(),
                    type_url: EDS.to_owned(),
                    ..DiscoveryRequest::default()
                };
                if requests.unbounded_send(taken).is_err() {
                    return;
                }
            }
        });
        Ok(Self { seen, responses, _task: AbortOnDropHandle::new(task) })
    }

    /// How many responses came.
    pub(super) fn responses(&self) -> usize {
        *self.responses.borrow()
    }

    /// When `address` was first sent.
    pub(super) fn first(&self, address: &str) -> Option<Instant> {
        self.seen.lock().addresses.get(address).copied()
    }

    /// How many addresses were sent.
    pub(super) fn addresses(&self) -> usize {
        self.seen.lock().addresses.len()
    }
}

fn note(answer: &DiscoveryResponse, seen: &mut Seen) {
    let now = Instant::now();
    for resource in &answer.resources {
        let Ok(assignment) = ClusterLoadAssignment::decode(resource.value.as_ref()) else { continue };
        for endpoint in assignment.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints) {
            let Some(HostIdentifier::Endpoint(endpoint)) = endpoint.host_identifier else { continue };
            let address = endpoint.address.and_then(|address| address.address);
            if let Some(Address::SocketAddress(socket)) = address {
                seen.addresses.entry(socket.address).or_insert(now);
            }
        }
    }
}
