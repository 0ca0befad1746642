//! The nodes of one cluster: control-plane processes that serve the same clients. One publishes, and is the cluster's only
//! gossip member; the first by place holds its seat in the policy group; the others follow both, by a stream from each.
//!
//! [`tenure`] is pure: who publishes, with which epoch. [`dial`] and [`serve`] are the two ends of the streams, [`relay`]
//! passes what other clusters say to the node that it is for.

mod dial;
pub(crate) mod frames;
mod relay;
mod serve;
mod tenure;

use std::collections::BTreeMap;
use std::sync::Arc;

use portolan_topology::names::{NodeName, ServiceId, ZoneName};
use portolan_topology::topology::Topology;
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;

pub(crate) use dial::{SeatCourier, keep_following};
pub(crate) use relay::RelayLayer;
pub(crate) use serve::NodeService;
pub(crate) use tenure::Tenure;
pub use tenure::{Election, MAX_NODES};

use crate::federation::StartError;
use crate::lists::subscribe::ListEvent;
use crate::model::NodeShown;
use crate::peers::Shared;
use crate::proto;

/// First attempts per second of clients, by service and source zone.
pub type Demand = BTreeMap<(ServiceId, Option<ZoneName>), f64>;

/// What clients come to, those of one node or of a whole cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct OfClients {
    pub(crate) demand: Demand,
    /// How many of them refuse what they were sent.
    pub(crate) nacked: u32,
}

/// The nodes of our cluster.
pub struct Nodes {
    /// All of them, this one included, each with the address of its peer port. The first holds the cluster's seat in the
    /// policy group, with its data directory, for ever. Empty: this is the only one.
    pub all: Vec<(NodeName, String)>,
    /// Who publishes.
    pub election: watch::Receiver<Election>,
}

impl Nodes {
    /// A cluster of one node, which always publishes.
    #[must_use]
    pub fn alone() -> Self {
        let (_, election) = watch::channel(Election::Us { until: None });
        Self { all: Vec::new(), election }
    }
}

/// The nodes as everything on the peer port sees them.
pub(crate) struct Siblings {
    own: NodeName,
    /// In order: the first holds the seat. Never empty.
    all: Vec<(NodeName, String)>,
    /// Whether this node publishes, and the newest publisher that it has heard of.
    standing: watch::Sender<proto::Standing>,
    /// The streams to the others that are up.
    up: watch::Sender<BTreeMap<NodeName, Up>>,
    pub(crate) events: mpsc::Sender<NodeEvent>,
}

/// Another node that answers us.
#[derive(Debug, Clone)]
pub(crate) struct Up {
    channel: Channel,
    /// What it said last.
    pub(crate) standing: proto::Standing,
}

/// What the streams between nodes bring to the hub.
pub(crate) enum NodeEvent {
    /// Another node knows of this publisher of our cluster.
    Standing { newest: proto::Publisher },
    /// The publisher that `node` takes itself for said something.
    Told { node: NodeName, told: Told },
    /// A node follows us from now on.
    Follows { node: NodeName, id: u64, outbox: Outbox },
    /// A node's clients need this.
    Needs { node: NodeName, id: u64, needs: frames::Needs },
    /// That stream has ended.
    Left { node: NodeName, id: u64 },
}

/// What a publisher tells those who follow it.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    Facts(frames::FactsOf),
    States(Vec<frames::StateOf>),
    List(Box<ListEvent>),
    Clients(OfClients),
}

/// Frames for a node that follows us. One that does not read is let go of, and begins anew.
pub(crate) type Outbox = mpsc::Sender<Vec<proto::follow_response::Frame>>;

/// Batches that may wait for a node to read them.
const OUTBOX: usize = 256;
/// The largest message between nodes: all facts of a cluster, all policy.
const MESSAGE: usize = 256 << 20;

impl Siblings {
    /// The nodes that `all` names, or `own` alone.
    pub(crate) fn new(
        own: NodeName,
        mut all: Vec<(NodeName, String)>,
        events: mpsc::Sender<NodeEvent>,
    ) -> Result<Self, StartError> {
        if all.is_empty() {
            all.push((own.clone(), String::new()));
        }
        let known = || all.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(", ");
        if !all.iter().any(|(name, _)| *name == own) {
            return Err(StartError::UnknownNode { node: own, known: known() });
        }
        let mut names: Vec<_> = all.iter().map(|(name, _)| name).collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(StartError::NodeTwice { node: twice[0].clone() });
        }
        if all.len() as u64 > MAX_NODES {
            return Err(StartError::TooManyNodes { nodes: all.len() });
        }
        Ok(Self { own, all, standing: watch::Sender::default(), up: watch::Sender::default(), events })
    }

    /// This node's tenure, none yet; `highest` is the highest epoch on its disk.
    pub(crate) fn tenure(&self, highest: u64) -> Tenure {
        let place = self.all.iter().position(|(name, _)| *name == self.own).unwrap_or_default();
        if self.are_several() { Tenure::of_several(place as u64, highest) } else { Tenure::alone(highest) }
    }

    /// Whether there is any other node.
    pub(crate) fn are_several(&self) -> bool {
        self.all.len() > 1
    }

    /// The node that holds the seat.
    pub(crate) fn seat(&self) -> &NodeName {
        &self.all[0].0
    }

    /// Whether this node holds the seat.
    pub(crate) fn is_seat(&self) -> bool {
        *self.seat() == self.own
    }

    /// Whether this node publishes.
    pub(crate) fn publishing(&self) -> bool {
        self.standing.borrow().publishing
    }

    /// Who publishes, as this node knows it.
    pub(crate) fn standing(&self) -> watch::Receiver<proto::Standing> {
        self.standing.subscribe()
    }

    /// Says who publishes.
    pub(crate) fn stand(&self, newest: proto::Publisher, publishing: bool) {
        let now = proto::Standing { newest: Some(newest), publishing };
        self.standing.send_if_modified(|standing| std::mem::replace(standing, now) != now);
    }

    /// Returns once this node does not publish any more.
    pub(crate) async fn deposed(&self) {
        let mut standing = self.standing();
        // We hold the sender.
        let _ = standing.wait_for(|standing| !standing.publishing).await;
    }

    /// The other nodes.
    pub(crate) fn others(&self) -> impl Iterator<Item = &(NodeName, String)> {
        self.all.iter().filter(|(name, _)| *name != self.own)
    }

    /// Whether `node` is another node of our cluster.
    pub(crate) fn is_other(&self, node: &str) -> bool {
        self.others().any(|(name, _)| name.as_str() == node)
    }

    /// The way to the node that publishes, unless it is this one, and its name.
    pub(crate) fn publisher(&self) -> Option<(NodeName, Channel)> {
        let up = self.up.borrow();
        let publishing = up.iter().filter(|(_, up)| up.standing.publishing);
        let newest = publishing.max_by_key(|(_, up)| up.standing.newest.map(|newest| newest.epoch));
        newest.map(|(node, up)| (node.clone(), up.channel.clone()))
    }

    /// Whether `node` says that it is the publisher `newest`.
    pub(crate) fn follows(&self, node: &NodeName, newest: proto::Publisher) -> bool {
        let up = self.up.borrow();
        up.get(node).is_some_and(|up| up.standing.publishing && up.standing.newest == Some(newest))
    }

    /// The way to `node`, while it answers us.
    pub(crate) fn channel(&self, node: &NodeName) -> Option<Channel> {
        self.up.borrow().get(node).map(|up| up.channel.clone())
    }

    fn set_up(&self, node: &NodeName, up: Option<Up>) {
        self.up.send_modify(|all| {
            match up {
                Some(up) => all.insert(node.clone(), up),
                None => all.remove(node),
            };
        });
    }

    /// Every node, for people.
    pub(crate) fn shown(&self) -> Vec<NodeShown> {
        let (standing, up) = (*self.standing.borrow(), self.up.borrow().clone());
        let shown = |(name, address): &(NodeName, String)| {
            let own = *name == self.own;
            let of = if own { Some(&standing) } else { up.get(name).map(|up| &up.standing) };
            NodeShown {
                name: name.clone(),
                address: address.clone(),
                own,
                reachable: of.is_some(),
                publisher: of.is_some_and(|standing| standing.publishing),
                seat: name == self.seat(),
            }
        };
        self.all.iter().map(shown).collect()
    }
}

/// What a node needs of its publisher, as it changes; shared with the streams that tell it.
pub(crate) type NeedsSlot = watch::Receiver<Arc<frames::Needs>>;

/// The SPIFFE id that every node of our cluster has.
fn own_id(shared: &Shared, trust_domain: &str) -> Result<crate::identity::SpiffeId, crate::identity::IdentityError> {
    crate::identity::SpiffeId::of_cluster(trust_domain, &shared.cluster)
}

/// Where a cluster's lists come from, for its resources.
pub(crate) fn place_of(
    topology: &Topology,
    cluster: &portolan_topology::names::ClusterName,
) -> crate::lists::resource::Place {
    let region = topology.cluster(cluster).map(|cluster| cluster.region.clone());
    crate::lists::resource::Place { region, cluster: cluster.clone() }
}
