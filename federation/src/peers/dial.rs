//! One connection to each other cluster of the topology, dialled again with backoff and jitter for as long as it is there.
//!
//! The node that publishes gossips over them. One that holds the seat in the policy group, and does not publish, needs
//! them for Raft alone. Any other node needs none.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use portolan_topology::names::ClusterName;
use portolan_topology::topology::ControlPlane;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

use super::links::End;
use super::{HEARTBEAT, SILENCE, Shared, stream};
use crate::identity::SpiffeId;
use crate::net::Net;
use crate::proto;
use crate::proto::peer_client::PeerClient;
use crate::tls::{self, Credentials, PeerIdentity};

const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A stream that lasted this long was a good one: the next dial begins from the base again.
const GOOD: Duration = Duration::from_secs(5);
const FRAMES: usize = 64;

/// What connections are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Gossip,
    Raft,
}

/// What this node needs connections for, if it needs any.
fn purpose(shared: &Shared) -> Option<Purpose> {
    if shared.nodes.publishing() { Some(Purpose::Gossip) } else { shared.nodes.is_seat().then_some(Purpose::Raft) }
}

/// Dials every other cluster of the topology, and follows the topology's changes and this node's part.
pub(crate) async fn keep_dialled(
    shared: Arc<Shared>,
    net: Arc<dyn Net>,
    credentials: Arc<Credentials>,
    mut rng: StdRng,
) {
    let mut topology = shared.topology.clone();
    let mut standing = shared.nodes.standing();
    let mut dialling: BTreeMap<ClusterName, (Target, AbortOnDropHandle<()>)> = BTreeMap::new();
    loop {
        standing.borrow_and_update();
        let purpose = purpose(&shared);
        let wanted: BTreeMap<_, _> = topology
            .borrow_and_update()
            .clusters()
            .filter(|cluster| cluster.name != shared.cluster)
            .filter_map(|cluster| Some((cluster.name.clone(), (cluster.control_plane.clone(), purpose?))))
            .collect();
        dialling.retain(|cluster, (target, _)| wanted.get(cluster) == Some(target));
        for (cluster, target) in wanted {
            dialling.entry(cluster).or_insert_with_key(|cluster| {
                let (at, purpose) = &target;
                let peer = Dial {
                    shared: shared.clone(),
                    net: net.clone(),
                    credentials: credentials.clone(),
                    cluster: cluster.clone(),
                    address: address(at),
                    purpose: *purpose,
                };
                let rng = StdRng::seed_from_u64(rng.random());
                (target, AbortOnDropHandle::new(tokio::spawn(peer.keep(rng))))
            });
        }
        tokio::select! {
            Ok(()) = topology.changed() => {}
            Ok(()) = standing.changed() => {}
            // Neither will change any more; the connections stay.
            else => std::future::pending().await,
        }
    }
}

/// Where to, and what for.
type Target = (ControlPlane, Purpose);

fn address(at: &ControlPlane) -> String {
    if at.host.contains(':') { format!("[{}]:{}", at.host, at.port) } else { format!("{}:{}", at.host, at.port) }
}

struct Dial {
    shared: Arc<Shared>,
    net: Arc<dyn Net>,
    credentials: Arc<Credentials>,
    cluster: ClusterName,
    address: String,
    purpose: Purpose,
}

impl Dial {
    async fn keep(self, mut rng: StdRng) {
        let mut backoff = BACKOFF_BASE;
        let mut said = String::new();
        let arrival = self.shared.links.arrival(&self.cluster);
        loop {
            let begun = Instant::now();
            let why = self.once().await;
            // Said again only when it changes: a cluster may be away for hours.
            let why = format!("{}: {}", why.code(), why.message());
            if why != said {
                tracing::warn!(cluster = %self.cluster, address = %self.address, why, "no connection to a peer");
                said = why;
            }
            backoff = if begun.elapsed() >= GOOD { BACKOFF_BASE } else { (backoff * 2).min(BACKOFF_MAX) };
            // Between half and all of it, so that many who lost one peer do not come back together.
            let wait = backoff.mul_f64(rng.random_range(0.5..=1.0));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // It has come to us, so it is there.
                () = arrival.notified() => backoff = BACKOFF_BASE,
            }
        }
    }

    /// One connection, from the dial to its end.
    async fn once(&self) -> Status {
        let channel = match self.connect().await {
            Ok(channel) => channel,
            Err(error) => return Status::unavailable(error_chain(&error)),
        };
        let _up = Up::new(self, channel.clone());
        match self.purpose {
            Purpose::Gossip => self.gossip(channel).await,
            Purpose::Raft => self.ping(channel).await,
        }
    }

    /// Asks again and again whether the other end is there, until it is not.
    async fn ping(&self, channel: Channel) -> Status {
        let mut client = PeerClient::new(channel);
        loop {
            let ping = client.ping(proto::PingRequest { sender: Some(self.shared.sender()) });
            match tokio::time::timeout(SILENCE, ping).await {
                Ok(Ok(_)) => tokio::time::sleep(HEARTBEAT).await,
                Ok(Err(status)) => return status,
                Err(_) => return Status::deadline_exceeded(format!("no answer to a ping for {SILENCE:?}")),
            }
        }
    }

    async fn gossip(&self, channel: Channel) -> Status {
        let (out, outgoing) = mpsc::channel(FRAMES);
        let _ = out.try_send(self.shared.hello(&self.cluster));
        let mut client = PeerClient::new(channel);
        let call = client.gossip(ReceiverStream::new(outgoing));
        match tokio::time::timeout(tls::HANDSHAKE_TIMEOUT, call).await {
            Ok(Ok(response)) => {
                let peer = PeerIdentity {
                    remote: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
                    spiffe: None,
                    // The handshake let nobody else through.
                    cluster: Some(self.cluster.clone()),
                };
                tracing::info!(cluster = %self.cluster, address = %self.address, "peer connected");
                let send = |frame| stream::offer(&out, frame);
                stream::run(&self.shared, End::Dialled, &peer, &self.cluster, None, response.into_inner(), send).await
            }
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded("no answer to the gossip call"),
        }
    }

    async fn connect(&self) -> Result<Channel, DialError> {
        let expected = SpiffeId::of_cluster(self.credentials.id().trust_domain(), &self.cluster)?;
        let config = self.credentials.client(expected)?;
        // The URI is for headers alone: the connector knows where to go.
        let endpoint = Endpoint::from_shared(format!("http://{}", self.cluster))?;
        let (net, address) = (self.net.clone(), self.address.clone());
        let connector = tower::service_fn(move |_: Uri| {
            let (net, config, address) = (net.clone(), config.clone(), address.clone());
            async move { Ok::<_, io::Error>(TokioIo::new(tls::dial(&*net, config, &address).await?)) }
        });
        Ok(endpoint.connect_with_connector(connector).await?)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error(transparent)]
    Identity(#[from] crate::identity::IdentityError),
    #[error(transparent)]
    Credentials(#[from] tls::CredentialsError),
    #[error("cannot connect")]
    Transport(#[from] tonic::transport::Error),
}

pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Keeps a channel in the registry for as long as its gossip stream lives.
struct Up<'a> {
    dial: &'a Dial,
}

impl<'a> Up<'a> {
    fn new(dial: &'a Dial, channel: Channel) -> Self {
        dial.shared.links.set_channel(&dial.cluster, Some(channel));
        Self { dial }
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.dial.shared.links.set_channel(&self.dial.cluster, None);
    }
}
