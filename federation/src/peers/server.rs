//! The peer service: the accepting end of gossip streams, and pings.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::links::End;
use super::{SILENCE, Shared, stream};
use crate::proto;
use crate::tls::PeerIdentity;

/// Frames that may wait for a peer to read them.
const FRAMES: usize = 64;

/// Serves [`proto::peer_server::Peer`].
#[derive(Clone)]
pub(crate) struct PeerService {
    shared: Arc<Shared>,
}

impl PeerService {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

/// Who sent a request: put there by the listener.
pub(crate) fn identity<T>(request: &Request<T>) -> Result<Arc<PeerIdentity>, Status> {
    request.extensions().get().cloned().ok_or_else(|| Status::unauthenticated("no verified identity"))
}

#[tonic::async_trait]
impl proto::peer_server::Peer for PeerService {
    type GossipStream = Pin<Box<dyn futures::Stream<Item = Result<proto::GossipFrame, Status>> + Send + 'static>>;

    async fn gossip(
        &self,
        request: Request<Streaming<proto::GossipFrame>>,
    ) -> Result<Response<Self::GossipStream>, Status> {
        let peer = identity(&request)?;
        let mut frames = request.into_inner();
        let (out, outgoing) = mpsc::channel(FRAMES);
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let status = match tokio::time::timeout(SILENCE, frames.message()).await {
                Ok(Ok(Some(first))) => match shared.admit(&peer, first.sender.as_ref()) {
                    Ok(cluster) => {
                        let _ = out.try_send(Ok(shared.hello(&cluster)));
                        let send = |frame| stream::offer(&out, Ok(frame));
                        stream::run(&shared, End::Accepted, &peer, &cluster, Some(first), frames, send).await
                    }
                    Err(status) => status,
                },
                Ok(Ok(None)) => return,
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no hello came"),
            };
            tracing::debug!(peer = %peer.remote, cluster = ?peer.cluster, %status, "gossip stream ended");
            // Nobody may be there any more to be told.
            let _ = out.try_send(Err(status));
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn ping(&self, request: Request<proto::PingRequest>) -> Result<Response<proto::PingResponse>, Status> {
        let peer = identity(&request)?;
        self.shared.admit(&peer, request.get_ref().sender.as_ref())?;
        let topology_hash = self.shared.topology.borrow().hash;
        Ok(Response::new(proto::PingResponse { sender: Some(self.shared.sender()), topology_hash }))
    }
}
