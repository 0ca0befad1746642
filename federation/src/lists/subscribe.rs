//! The asking end: one delta EDS stream to each cluster that has something wanted, over the connection that is up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use portolan_client::xds::delta::{DeltaClient, DeltaEvent};
use portolan_topology::names::{ClusterName, ServicePort};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::resource::{self, List, TYPE_URL};
use crate::peers::{Dialled, Shared};

/// The largest response that is taken: its sender cuts at 1 MiB, but one list may be larger.
const MESSAGE: usize = 64 << 20;

/// What a cluster said of a list.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ListEvent {
    pub(crate) cluster: ClusterName,
    pub(crate) port: ServicePort,
    /// The list and its resource version; `None`: there is none.
    pub(crate) list: Option<(List, String)>,
}

/// The streams to all clusters.
pub(crate) struct Subscriptions {
    shared: Arc<Shared>,
    events: mpsc::Sender<ListEvent>,
    clusters: BTreeMap<ClusterName, Subscription>,
}

struct Subscription {
    wanted: watch::Sender<BTreeSet<String>>,
    _task: AbortOnDropHandle<()>,
}

impl Subscriptions {
    /// None yet. What comes goes to `events`.
    pub(crate) fn new(shared: Arc<Shared>, events: mpsc::Sender<ListEvent>) -> Self {
        Self { shared, events, clusters: BTreeMap::new() }
    }

    /// Wants exactly these lists of `cluster`. `held` gives the names and versions of those that are held already: asked
    /// when a cluster's stream begins.
    pub(crate) fn want(
        &mut self,
        cluster: &ClusterName,
        names: BTreeSet<String>,
        held: impl FnOnce() -> Vec<(String, String)>,
    ) {
        match self.clusters.get(cluster) {
            Some(_) if names.is_empty() => drop(self.clusters.remove(cluster)),
            Some(subscription) => {
                subscription.wanted.send_if_modified(|now| {
                    let changed = *now != names;
                    *now = names;
                    changed
                });
            }
            None if names.is_empty() => {}
            None => {
                let subscription = self.begin(cluster, names, held());
                self.clusters.insert(cluster.clone(), subscription);
            }
        }
    }

    /// Ends the streams to clusters of which `known` is false.
    pub(crate) fn retain(&mut self, known: impl Fn(&ClusterName) -> bool) {
        self.clusters.retain(|cluster, _| known(cluster));
    }

    fn begin(&self, cluster: &ClusterName, names: BTreeSet<String>, held: Vec<(String, String)>) -> Subscription {
        let node =
            Node { id: self.shared.node.to_string(), cluster: self.shared.cluster.to_string(), ..Node::default() };
        let mut delta = DeltaClient::new(TYPE_URL, node);
        for (name, version) in held {
            delta.assume_held(name, version);
        }
        let (wanted, receiver) = watch::channel(names);
        let asking = Asking {
            cluster: cluster.clone(),
            delta,
            wanted: receiver,
            channels: self.shared.links.channels(),
            events: self.events.clone(),
        };
        Subscription { wanted, _task: AbortOnDropHandle::new(tokio::spawn(asking.run())) }
    }
}

/// The stream to one cluster.
struct Asking {
    cluster: ClusterName,
    delta: DeltaClient,
    wanted: watch::Receiver<BTreeSet<String>>,
    channels: watch::Receiver<BTreeMap<ClusterName, Dialled>>,
    events: mpsc::Sender<ListEvent>,
}

impl Asking {
    async fn run(mut self) {
        let mut channels = self.channels.clone();
        let cluster = self.cluster.clone();
        loop {
            let Some(dialled) = up(&mut channels, &cluster).await else { return };
            let why = tokio::select! {
                why = self.stream(dialled.clone()) => why,
                () = gone(&mut channels, &cluster, dialled.id) => Status::unavailable("the connection is gone"),
            };
            self.delta.disconnected();
            tracing::debug!(cluster = %self.cluster, status = %why, "the stream of endpoint lists ended");
            // The connection may stand though the stream does not: then ask again, but not at once.
            tokio::time::sleep(crate::peers::HEARTBEAT).await;
        }
    }

    async fn stream(&mut self, dialled: Dialled) -> Status {
        self.follow_wanted();
        let (requests, outgoing) = mpsc::unbounded_channel();
        if let Some(first) = self.delta.connected() {
            let _ = requests.send(first);
        }
        let mut client = AggregatedDiscoveryServiceClient::new(dialled.channel).max_decoding_message_size(MESSAGE);
        let mut responses = match client.delta_aggregated_resources(UnboundedReceiverStream::new(outgoing)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return status,
        };
        loop {
            let requested: Vec<DeltaDiscoveryRequest> = tokio::select! {
                response = responses.message() => match response {
                    Ok(Some(response)) => match self.received(response).await {
                        Ok(reply) => reply.into_iter().collect(),
                        Err(status) => return status,
                    },
                    Ok(None) => return Status::unavailable("the peer ended the stream"),
                    Err(status) => return status,
                },
                Ok(()) = self.wanted.changed() => self.follow_wanted(),
            };
            for request in requested {
                if requests.send(request).is_err() {
                    return Status::unavailable("the stream is closed");
                }
            }
        }
    }

    /// Brings the subscription up to what is wanted.
    fn follow_wanted(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let wanted = self.wanted.borrow_and_update().clone();
        let gone: Vec<_> = self.delta.subscribed().difference(&wanted).cloned().collect();
        let unsubscribe = self.delta.unsubscribe(gone);
        let subscribe = self.delta.subscribe(wanted);
        unsubscribe.into_iter().chain(subscribe).collect()
    }

    async fn received(
        &mut self,
        response: envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse,
    ) -> Result<Option<DeltaDiscoveryRequest>, Status> {
        let check = |_: &str, body: &_| resource::endpoints(body).map(drop).map_err(|error| error.to_string());
        let (events, reply) = self.delta.received(response, check);
        for event in events {
            let event = match event {
                DeltaEvent::Updated(resource) => match resource::decode(&resource) {
                    Ok((port, list)) => Some((port, Some((list, resource.version.clone())))),
                    Err(error) => {
                        tracing::warn!(cluster = %self.cluster, name = resource.name, %error, "an endpoint list is left alone");
                        None
                    }
                },
                DeltaEvent::Removed { name } => name.parse().ok().map(|port| (port, None)),
                DeltaEvent::Rejected { name, reason } => {
                    tracing::warn!(cluster = %self.cluster, name, reason, "an endpoint list is refused");
                    None
                }
            };
            if let Some((port, list)) = event {
                let event = ListEvent { cluster: self.cluster.clone(), port, list };
                self.events.send(event).await.map_err(|_| Status::unavailable("shutting down"))?;
            }
        }
        Ok(reply)
    }
}

/// The connection to `cluster`, once it is up; `None` at the end.
async fn up(channels: &mut watch::Receiver<BTreeMap<ClusterName, Dialled>>, cluster: &ClusterName) -> Option<Dialled> {
    let up = channels.wait_for(|channels| channels.contains_key(cluster)).await.ok()?;
    up.get(cluster).cloned()
}

/// Returns once the connection `id` is not the one to `cluster` any more.
async fn gone(channels: &mut watch::Receiver<BTreeMap<ClusterName, Dialled>>, cluster: &ClusterName, id: u64) {
    let is_another = |channels: &BTreeMap<ClusterName, Dialled>| channels.get(cluster).map(|d| d.id) != Some(id);
    // The registry lives as long as we do.
    let _ = channels.wait_for(is_another).await;
}
