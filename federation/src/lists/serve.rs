//! The answering end: this cluster's endpoint lists for other control planes, by delta EDS. Each stream always gets the
//! newest state; a slow one skips what lies between.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use portolan_topology::names::ServicePort;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::resource::{self, List, Place, TYPE_URL};
use crate::gossip::publish::Published;
use crate::peers::{Shared, identity};
use crate::proto;

/// A response is sent once it has this many bytes of resources; a single larger resource goes alone.
const RESPONSE: usize = 1 << 20;

/// Serves delta EDS to peers.
pub(crate) struct ListService {
    shared: Arc<Shared>,
    published: watch::Receiver<Arc<Published>>,
    place: Arc<Place>,
}

impl ListService {
    pub(crate) fn new(shared: Arc<Shared>, published: watch::Receiver<Arc<Published>>, place: Place) -> Self {
        Self { shared, published, place: Arc::new(place) }
    }
}

type Answers<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send + 'static>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for ListService {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("the peer port serves delta alone; xDS clients have a port of their own"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let peer = identity(&request)?;
        let mut requests = request.into_inner();
        let (answers, outgoing) = mpsc::channel(1);
        let shared = self.shared.clone();
        let mut stream = ListStream {
            published: self.published.clone(),
            place: self.place.clone(),
            asked: BTreeMap::new(),
            nonce: 0,
        };
        tokio::spawn(async move {
            let run = async {
                // The first request says who asks; the stream is refused with it, not before.
                let Some(first) = requests.message().await? else { return Ok(()) };
                let node = first.node.clone().unwrap_or_default();
                shared.admit(&peer, Some(&proto::Sender { cluster: node.cluster, node: node.id }))?;
                stream.run(first, requests, &answers).await
            };
            let ended = tokio::select! {
                ended = run => ended,
                () = shared.stop.cancelled() => Err(Status::unavailable("shutting down")),
                () = shared.nodes.deposed() => Err(Status::unavailable("another node publishes now")),
            };
            if let Err(status) = ended {
                // Nobody may be there any more to be told.
                let _ = answers.try_send(Err(status));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

/// One peer's stream.
struct ListStream {
    published: watch::Receiver<Arc<Published>>,
    place: Arc<Place>,
    /// What is subscribed, and what was sent for it.
    asked: BTreeMap<String, Sent>,
    nonce: u64,
}

/// What was sent for a name last.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sent {
    Nothing,
    Version(String),
    Absence,
}

impl ListStream {
    async fn run(
        &mut self,
        first: DeltaDiscoveryRequest,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        answers: &mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    ) -> Result<(), Status> {
        self.take(first)?;
        loop {
            let published = self.published.borrow_and_update().clone();
            for response in self.responses(&published) {
                if answers.send(Ok(response)).await.is_err() {
                    return Ok(());
                }
            }
            tokio::select! {
                request = requests.message() => match request? {
                    Some(request) => self.take(request)?,
                    None => return Ok(()),
                },
                changed = self.published.changed() => if changed.is_err() {
                    return Err(Status::unavailable("shutting down"));
                },
            }
        }
    }

    fn take(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        if request.type_url != TYPE_URL {
            return Err(Status::unimplemented(format!("the peer port serves {TYPE_URL} alone")));
        }
        if let Some(error) = request.error_detail {
            tracing::warn!(error = error.message, "a peer refused an endpoint list");
        }
        for name in request.resource_names_subscribe {
            let sent = request.initial_resource_versions.get(&name).map_or(Sent::Nothing, |v| Sent::Version(v.clone()));
            // Asking again means: send it again.
            self.asked.insert(name, sent);
        }
        for name in request.resource_names_unsubscribe {
            self.asked.remove(&name);
        }
        Ok(())
    }

    /// What changed since it was sent.
    fn responses(&mut self, published: &Published) -> Vec<DeltaDiscoveryResponse> {
        let mut responses = Vec::new();
        let (mut resources, mut removed, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (name, sent) in &mut self.asked {
            match answer(name, published, &self.place) {
                Answer::NotYet => {}
                Answer::Absent if *sent == Sent::Absence => {}
                Answer::Absent => {
                    *sent = Sent::Absence;
                    removed.push(name.clone());
                }
                Answer::Is(resource) => {
                    let now = Sent::Version(resource.version.clone());
                    if *sent == now {
                        continue;
                    }
                    *sent = now;
                    bytes += resource.encoded_len();
                    resources.push(*resource);
                    if bytes >= RESPONSE {
                        responses.push(response(&mut self.nonce, std::mem::take(&mut resources), Vec::new()));
                        bytes = 0;
                    }
                }
            }
        }
        if !resources.is_empty() || !removed.is_empty() {
            responses.push(response(&mut self.nonce, resources, removed));
        }
        responses
    }
}

enum Answer {
    /// The source has not been read completely, so that absence means nothing.
    NotYet,
    Absent,
    Is(Box<Resource>),
}

fn answer(name: &str, published: &Published, place: &Place) -> Answer {
    let parsed: Option<ServicePort> = name.parse().ok();
    let found = parsed.and_then(|port| {
        let endpoints = published.services.services.get(&port.service)?.endpoints.get(&port.port)?;
        Some((port, endpoints))
    });
    let Some((port, endpoints)) = found else {
        return if published.services.synced { Answer::Absent } else { Answer::NotYet };
    };
    let list =
        List { synced: published.services.synced, stamp: published.stamp(&port.service), endpoints: endpoints.clone() };
    Answer::Is(Box::new(resource::encode(&port, &list, place)))
}

fn response(nonce: &mut u64, resources: Vec<Resource>, removed_resources: Vec<String>) -> DeltaDiscoveryResponse {
    *nonce += 1;
    DeltaDiscoveryResponse {
        type_url: TYPE_URL.to_owned(),
        resources,
        removed_resources,
        nonce: nonce.to_string(),
        ..DeltaDiscoveryResponse::default()
    }
}
