//! The peer port and the connections to every other cluster: who is connected, who speaks, and whether they are heard.
//!
//! Knows nothing of what is said: gossip messages pass through as bytes.

mod dial;
mod links;
mod policy;
mod server;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portolan_topology::names::{ClusterName, NodeName};
use portolan_topology::topology::Topology;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use dial::{DialError, error_chain, keep_dialled};
pub(crate) use links::{Dialled, Links};
pub(crate) use policy::{PeerCourier, PolicyService};
pub(crate) use server::{PeerService, identity};

use crate::identity::IdentityError;
use crate::nodes::Siblings;
use crate::proto;
use crate::tls::{PeerIdentity, Refusal, Refusals};

/// Every side of a gossip stream says something this often.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(500);
/// A stream on which nothing came for this long does not work, whatever TCP thinks of it.
pub(crate) const SILENCE: Duration = Duration::from_secs(2);

/// What peers' streams tell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PeerEvent {
    /// A stream to or from `cluster` began with this hello.
    Hello { cluster: ClusterName, hello: proto::Hello },
    /// Something came from it; perhaps which publisher of ours it remembers.
    Heard { cluster: ClusterName, remembered: Option<proto::Publisher> },
}

/// What every stream and service of the peer port shares.
pub(crate) struct Shared {
    pub(crate) cluster: ClusterName,
    pub(crate) node: NodeName,
    /// The other nodes of our cluster, and whether this one publishes.
    pub(crate) nodes: Siblings,
    pub(crate) topology: watch::Receiver<Arc<Topology>>,
    pub(crate) links: Links,
    pub(crate) events: mpsc::Sender<PeerEvent>,
    /// Gossip messages and whom they came from. A full queue loses them, as a network would.
    pub(crate) gossip: mpsc::Sender<(ClusterName, Bytes)>,
    pub(crate) refusals: Arc<Refusals>,
    /// The newest publisher of each cluster, for our hello.
    pub(crate) remembered: Remembered,
    /// Ends the streams: the server's tasks outlive its own.
    pub(crate) stop: CancellationToken,
}

/// Looks up the newest publisher of a cluster that is remembered here.
pub(crate) type Remembered = Box<dyn Fn(&ClusterName) -> Option<proto::Publisher> + Send + Sync>;

impl Shared {
    pub(crate) fn sender(&self) -> proto::Sender {
        proto::Sender { cluster: self.cluster.to_string(), node: self.node.to_string() }
    }

    fn frame(&self, frame: proto::gossip_frame::Frame) -> proto::GossipFrame {
        proto::GossipFrame { sender: Some(self.sender()), frame: Some(frame) }
    }

    fn hello(&self, to: &ClusterName) -> proto::GossipFrame {
        let topology_hash = self.topology.borrow().hash;
        let remembered = (self.remembered)(to);
        self.frame(proto::gossip_frame::Frame::Hello(proto::Hello { topology_hash, remembered }))
    }

    fn heartbeat(&self, to: &ClusterName) -> proto::GossipFrame {
        let remembered = (self.remembered)(to);
        self.frame(proto::gossip_frame::Frame::Heartbeat(proto::Heartbeat { remembered }))
    }

    /// The cluster behind a connection, if it is one that our topology knows and that speaks for itself.
    pub(crate) fn admit(
        &self,
        peer: &PeerIdentity,
        sender: Option<&proto::Sender>,
    ) -> Result<ClusterName, tonic::Status> {
        let refuse = |refusal, why: String| {
            self.refusals.refuse(peer.remote.ip(), refusal, &why);
            tonic::Status::permission_denied(why)
        };
        let Some(cluster) = &peer.cluster else {
            return Err(refuse(Refusal::Identity, IdentityError::NotOneId { found: 0 }.to_string()));
        };
        let claimed = sender.map_or("", |sender| sender.cluster.as_str());
        if claimed != cluster.as_str() {
            return Err(refuse(
                Refusal::Impersonation,
                format!("a control plane of cluster `{cluster}` spoke for `{claimed}`; it may only speak for itself"),
            ));
        }
        if *cluster == self.cluster || self.topology.borrow().cluster(cluster).is_none() {
            return Err(refuse(
                Refusal::Identity,
                format!("cluster `{cluster}` is not another cluster of the topology that {} runs", self.cluster),
            ));
        }
        Ok(cluster.clone())
    }
}
