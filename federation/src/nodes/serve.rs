//! The answering end: what another node of our cluster follows, and writes that it passes to the seat.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portolan_topology::names::NodeName;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::frames::Needs;
use super::{NodeEvent, OUTBOX};
use crate::peers::{HEARTBEAT, SILENCE, Shared, identity};
use crate::policy::{Feed, Policy};
use crate::proto;
use crate::proto::follow_response::Frame;
use crate::tls::{PeerIdentity, Refusal};

/// Frames that may wait for the connection.
const FRAMES: usize = 16;

/// Serves [`proto::node_server::Node`].
pub(crate) struct NodeService {
    shared: Arc<Shared>,
    policy: Policy,
    streams: AtomicU64,
}

impl NodeService {
    pub(crate) fn new(shared: Arc<Shared>, policy: Policy) -> Self {
        Self { shared, policy, streams: AtomicU64::new(0) }
    }
}

/// The node behind a connection, if it is another one of our cluster.
fn admit(shared: &Shared, peer: &PeerIdentity, sender: Option<&proto::Sender>) -> Result<NodeName, Status> {
    let refuse = |refusal, why: String| {
        shared.refusals.refuse(peer.remote.ip(), refusal, &why);
        Err(Status::permission_denied(why))
    };
    if peer.cluster.as_ref() != Some(&shared.cluster) {
        let who = peer.cluster.as_ref().map_or("nobody", |cluster| cluster.as_str());
        return refuse(Refusal::Impersonation, format!("{who} spoke as a node of cluster `{}`", shared.cluster));
    }
    let node = sender.map_or("", |sender| sender.node.as_str());
    match NodeName::new(node) {
        Ok(node) if shared.nodes.is_other(node.as_str()) => Ok(node),
        _ => refuse(Refusal::Identity, format!("`{node}` is not another node of cluster `{}`", shared.cluster)),
    }
}

#[tonic::async_trait]
impl proto::node_server::Node for NodeService {
    type FollowStream = Pin<Box<dyn futures::Stream<Item = Result<proto::FollowResponse, Status>> + Send + 'static>>;

    async fn follow(
        &self,
        request: Request<Streaming<proto::FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let peer = identity(&request)?;
        let mut requests = request.into_inner();
        let (out, outgoing) = mpsc::channel(FRAMES);
        let (shared, id) = (self.shared.clone(), self.streams.fetch_add(1, Ordering::Relaxed));
        let feed = match &self.policy {
            Policy::Seat(seat) => Some(seat.feed()),
            Policy::Copy(_) => None,
        };
        tokio::spawn(async move {
            let status = match tokio::time::timeout(SILENCE, requests.message()).await {
                Ok(Ok(Some(first))) => match admit(&shared, &peer, first.sender.as_ref()) {
                    Ok(node) => {
                        let stream = Stream { shared: &shared, node: node.clone(), id, out: &out, feed };
                        let status = stream.run(first, requests).await;
                        // The hub is gone only at the end.
                        let _ = shared.nodes.events.send(NodeEvent::Left { node, id }).await;
                        status
                    }
                    Err(status) => status,
                },
                Ok(Ok(None)) => return,
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no first message came"),
            };
            tracing::debug!(peer = %peer.remote, %status, "a node's stream ended");
            // Nobody may be there any more to be told.
            let _ = out.try_send(Err(status));
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn policy(&self, request: Request<proto::PolicyCall>) -> Result<Response<proto::PolicyAnswer>, Status> {
        let peer = identity(&request)?;
        if peer.cluster.as_ref() != Some(&self.shared.cluster) {
            return Err(Status::permission_denied("only a node of our own cluster may ask this"));
        }
        let Policy::Seat(seat) = &self.policy else {
            return Err(Status::failed_precondition("the cluster's seat in the policy group is on another node"));
        };
        let answer = seat.answer_node(&request.get_ref().body).await;
        let body = answer.map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(proto::PolicyAnswer { body: body.into() }))
    }
}

/// One node that follows us.
struct Stream<'a> {
    shared: &'a Shared,
    node: NodeName,
    id: u64,
    out: &'a mpsc::Sender<Result<proto::FollowResponse, Status>>,
    feed: Option<Feed>,
}

impl Stream<'_> {
    async fn run(mut self, first: proto::FollowRequest, mut requests: Streaming<proto::FollowRequest>) -> Status {
        let (outbox, mut batches) = mpsc::channel(OUTBOX);
        let follows = NodeEvent::Follows { node: self.node.clone(), id: self.id, outbox };
        if self.shared.nodes.events.send(follows).await.is_err() {
            return Status::unavailable("shutting down");
        }
        if let Err(status) = self.take(first).await {
            return status;
        }
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut standing = self.shared.nodes.standing();
        let mut deadline = Instant::now() + SILENCE;
        loop {
            let frames = tokio::select! {
                // Who publishes comes before what it tells.
                biased;
                () = self.shared.stop.cancelled() => return Status::unavailable("shutting down"),
                Ok(()) = standing.changed() => vec![Frame::Standing(*standing.borrow_and_update())],
                _ = heartbeat.tick() => vec![Frame::Standing(*standing.borrow_and_update())],
                request = timeout_at(deadline, requests.message()) => match request {
                    Ok(Ok(Some(request))) => {
                        deadline = Instant::now() + SILENCE;
                        if let Err(status) = self.take(request).await {
                            return status;
                        }
                        continue;
                    }
                    Ok(Ok(None)) => return Status::unavailable("the stream is closed"),
                    Ok(Err(status)) => return status,
                    Err(_) => return Status::deadline_exceeded(format!("nothing came for {SILENCE:?}")),
                },
                news = news(&mut self.feed) => match news {
                    Ok(news) => vec![Frame::Policy(news.into())],
                    Err(error) => return Status::unavailable(error.to_string()),
                },
                batch = batches.recv() => match batch {
                    Some(batch) => batch,
                    None => return Status::resource_exhausted("what was told was not read; begin anew"),
                },
            };
            for frame in frames {
                let response = proto::FollowResponse { sender: Some(self.shared.sender()), frame: Some(frame) };
                if self.out.send(Ok(response)).await.is_err() {
                    return Status::unavailable("the stream is closed");
                }
            }
        }
    }

    async fn take(&self, request: proto::FollowRequest) -> Result<(), Status> {
        let proto::FollowRequest { sender: _, newest, needs } = request;
        let newest = newest.map(|newest| NodeEvent::Standing { newest });
        let needs =
            needs.map(|needs| NodeEvent::Needs { node: self.node.clone(), id: self.id, needs: Needs::of_proto(needs) });
        for event in newest.into_iter().chain(needs) {
            self.shared.nodes.events.send(event).await.map_err(|_| Status::unavailable("shutting down"))?;
        }
        Ok(())
    }
}

async fn news(feed: &mut Option<Feed>) -> std::io::Result<Vec<u8>> {
    match feed {
        Some(feed) => feed.next().await,
        None => std::future::pending().await,
    }
}
