//! The following end: one stream to each other node of our cluster, dialled again for as long as we run.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use portolan_topology::names::NodeName;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Status, Streaming};

use super::{MESSAGE, NeedsSlot, NodeEvent, Up, frames};
use crate::net::Net;
use crate::peers::{DialError, HEARTBEAT, SILENCE, Shared, error_chain};
use crate::policy;
use crate::proto;
use crate::proto::follow_response::Frame;
use crate::proto::node_client::NodeClient;
use crate::tls::{self, Credentials};

const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// Nodes of one cluster are few and near: one that comes back is to be found soon.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A stream that lasted this long was a good one: the next dial begins from the base again.
const GOOD: Duration = Duration::from_secs(5);
const REQUESTS: usize = 16;

/// Follows every other node of our cluster. `copy` takes what the seat says, unless it is here.
pub(crate) async fn keep_following(
    shared: Arc<Shared>,
    net: Arc<dyn Net>,
    credentials: Arc<Credentials>,
    needs: NeedsSlot,
    copy: Option<policy::Copy>,
    mut rng: StdRng,
) {
    let mut following = JoinSet::new();
    for (node, address) in shared.nodes.others() {
        let follow = Follow {
            shared: shared.clone(),
            net: net.clone(),
            credentials: credentials.clone(),
            node: node.clone(),
            address: address.clone(),
            needs: needs.clone(),
            copy: copy.clone().filter(|_| node == shared.nodes.seat()),
        };
        following.spawn(follow.keep(StdRng::seed_from_u64(rng.random())));
    }
    following.join_all().await;
}

/// The stream to one node.
struct Follow {
    shared: Arc<Shared>,
    net: Arc<dyn Net>,
    credentials: Arc<Credentials>,
    node: NodeName,
    address: String,
    needs: NeedsSlot,
    copy: Option<policy::Copy>,
}

impl Follow {
    async fn keep(mut self, mut rng: StdRng) {
        let (mut backoff, mut said) = (BACKOFF_BASE, String::new());
        loop {
            let begun = Instant::now();
            let why = self.once().await;
            self.shared.nodes.set_up(&self.node, None);
            if let Some(copy) = &self.copy {
                copy.away();
            }
            // Said again only when it changes: a node may be away for hours.
            let why = format!("{}: {}", why.code(), why.message());
            if why != said {
                tracing::warn!(node = %self.node, address = self.address, why, "no stream to another node of our cluster");
                said = why;
            }
            backoff = if begun.elapsed() >= GOOD { BACKOFF_BASE } else { (backoff * 2).min(BACKOFF_MAX) };
            tokio::time::sleep(backoff.mul_f64(rng.random_range(0.5..=1.0))).await;
        }
    }

    /// One stream, from the dial to its end.
    async fn once(&mut self) -> Status {
        let channel = match self.connect().await {
            Ok(channel) => channel,
            Err(error) => return Status::unavailable(error_chain(&error)),
        };
        let (requests, outgoing) = mpsc::channel(REQUESTS);
        let needs = self.needs.borrow_and_update().to_proto();
        let _ = requests.try_send(self.request(Some(needs)));
        let mut client = NodeClient::new(channel.clone()).max_decoding_message_size(MESSAGE);
        let call = client.follow(ReceiverStream::new(outgoing));
        match tokio::time::timeout(tls::HANDSHAKE_TIMEOUT, call).await {
            Ok(Ok(response)) => self.read(channel, response.into_inner(), requests).await,
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded("no answer to the call"),
        }
    }

    async fn read(
        &mut self,
        channel: Channel,
        mut frames: Streaming<proto::FollowResponse>,
        requests: mpsc::Sender<proto::FollowRequest>,
    ) -> Status {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut standing = self.shared.nodes.standing();
        let mut deadline = Instant::now() + SILENCE;
        loop {
            let request = tokio::select! {
                frame = timeout_at(deadline, frames.message()) => match frame {
                    Ok(Ok(Some(frame))) => {
                        deadline = Instant::now() + SILENCE;
                        if let Err(status) = self.take(&channel, frame).await {
                            return status;
                        }
                        continue;
                    }
                    Ok(Ok(None)) => return Status::unavailable("the stream is closed"),
                    Ok(Err(status)) => return status,
                    Err(_) => return Status::deadline_exceeded(format!("nothing came for {SILENCE:?}")),
                },
                _ = heartbeat.tick() => self.request(None),
                Ok(()) = standing.changed() => self.request(None),
                Ok(()) = self.needs.changed() => {
                    let needs = self.needs.borrow_and_update().to_proto();
                    self.request(Some(needs))
                }
            };
            let needs = request.needs.is_some();
            // A heartbeat that finds no room is late anyway; needs must not be lost.
            match requests.try_send(request) {
                Err(mpsc::error::TrySendError::Full(_)) if needs => {
                    return Status::resource_exhausted("it does not read what we send");
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return Status::unavailable("the stream is closed"),
                _ => {}
            }
        }
    }

    async fn take(&self, channel: &Channel, response: proto::FollowResponse) -> Result<(), Status> {
        let sender = response.sender.unwrap_or_default();
        if sender.node != self.node.as_str() {
            let why = format!("{} answers as node `{}`, not `{}`: see --nodes", self.address, sender.node, self.node);
            return Err(Status::permission_denied(why));
        }
        let event = match response.frame {
            Some(Frame::Standing(standing)) => {
                let newest = standing.newest.unwrap_or_default();
                self.shared.nodes.set_up(&self.node, Some(Up { channel: channel.clone(), standing }));
                NodeEvent::Standing { newest }
            }
            Some(Frame::Policy(news)) => {
                if let Some(Err(error)) = self.copy.as_ref().map(|copy| copy.take(&news)) {
                    tracing::warn!(node = %self.node, %error, "the news of policy is left alone");
                }
                return Ok(());
            }
            Some(frame) => match frames::told(frame) {
                Ok(Some(told)) => NodeEvent::Told { node: self.node.clone(), told },
                Ok(None) => return Ok(()),
                Err(error) => {
                    tracing::warn!(node = %self.node, %error, "what the publisher tells is left alone");
                    return Ok(());
                }
            },
            // A kind of frame that only a newer node knows.
            None => return Ok(()),
        };
        self.shared.nodes.events.send(event).await.map_err(|_| Status::unavailable("shutting down"))
    }

    fn request(&self, needs: Option<proto::Needs>) -> proto::FollowRequest {
        let newest = self.shared.nodes.standing().borrow().newest;
        proto::FollowRequest { sender: Some(self.shared.sender()), newest, needs }
    }

    async fn connect(&self) -> Result<Channel, DialError> {
        let config = self.credentials.client(super::own_id(&self.shared, self.credentials.id().trust_domain())?)?;
        // The URI is for headers alone: the connector knows where to go.
        let endpoint = Endpoint::from_shared(format!("http://{}", self.node))?;
        let (net, address) = (self.net.clone(), self.address.clone());
        let connector = tower::service_fn(move |_: Uri| {
            let (net, config, address) = (net.clone(), config.clone(), address.clone());
            async move { Ok::<_, io::Error>(TokioIo::new(tls::dial(&*net, config, &address).await?)) }
        });
        Ok(endpoint.connect_with_connector(connector).await?)
    }
}

/// The way to the seat, over the stream's connection.
pub(crate) struct SeatCourier {
    shared: Arc<Shared>,
}

impl SeatCourier {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

/// Longer than the seat itself waits for a leader and for its own state machine.
const ANSWER: Duration = Duration::from_secs(25);

#[async_trait::async_trait]
impl policy::ToSeat for SeatCourier {
    async fn call(&self, body: Vec<u8>) -> io::Result<Vec<u8>> {
        let nodes = &self.shared.nodes;
        let away = || io::Error::new(io::ErrorKind::NotConnected, "no stream to it is up");
        let channel = nodes.channel(nodes.seat()).ok_or_else(away)?;
        let mut client = NodeClient::new(channel).max_decoding_message_size(MESSAGE);
        let call = client.policy(proto::PolicyCall { body: body.into() });
        match tokio::time::timeout(ANSWER, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner().body.to_vec()),
            Ok(Err(status)) => Err(io::Error::other(status.message().to_owned())),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {ANSWER:?}"))),
        }
    }
}
