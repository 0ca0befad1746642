//! Putting it together: the port, the peers, and the one task that owns what is known of them.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use portolan_topology::names::{ClusterName, NodeName, ServicePort};
use portolan_topology::topology::Topology;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;

use crate::disk::Disk;
use crate::hub::{Command, Hub, Inputs, Memory};
use crate::lists::serve::ListService;
use crate::model::{Local, NodeShown, Remote};
use crate::net::{Listener, Net};
use crate::nodes::{self, Demand, MAX_NODES, NodeService, Nodes, RelayLayer, SeatCourier, Siblings, place_of};
use crate::peers::{self, Links, PeerCourier, PeerService, PolicyService, Shared};
use crate::policy::{self, Policy};
use crate::proto::node_server::NodeServer;
use crate::proto::peer_server::PeerServer;
use crate::proto::policy_group_server::PolicyGroupServer;
use crate::store::Records;
use crate::tls::{ClientCertificates, Credentials, CredentialsError, Incoming, Refusals, Rule};

/// Where the peer port is.
pub enum PeerPort {
    /// To be opened at this address.
    At(SocketAddr),
    /// Opened already: tests must know their ports before they can write a topology.
    Open(Box<dyn Listener>),
}

/// What a federation must be told.
pub struct Config {
    /// The cluster that it is in.
    pub cluster: ClusterName,
    /// The control-plane process that it belongs to.
    pub node: NodeName,
    /// The topology; may change.
    pub topology: watch::Receiver<Arc<Topology>>,
    /// The cluster's certificate and CA.
    pub credentials: Arc<Credentials>,
    /// The peer port.
    pub port: PeerPort,
    /// The nodes of the cluster.
    pub nodes: Nodes,
}

/// Why a federation cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The cluster stands in no region of the topology.
    #[error("cluster `{cluster}` is not in the topology `{topology}`; it has: {known}")]
    UnknownCluster {
        /// Our cluster.
        cluster: ClusterName,
        /// The topology's name.
        topology: String,
        /// The clusters that it has.
        known: String,
    },
    /// This node is not among the cluster's.
    #[error("node `{node}` is not among the nodes of its cluster: {known}; see --node and --nodes")]
    UnknownNode {
        /// This node.
        node: NodeName,
        /// The nodes that there are.
        known: String,
    },
    /// Two nodes with one name.
    #[error("node `{node}` stands twice among the nodes of its cluster; see --nodes")]
    NodeTwice {
        /// The name.
        node: NodeName,
    },
    /// More than there are epochs for.
    #[error("a cluster has at most {MAX_NODES} nodes; --nodes names {nodes}")]
    TooManyNodes {
        /// How many.
        nodes: usize,
    },
    /// The certificate is not this cluster's, or cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The peer port cannot be opened.
    #[error("cannot listen for peers at {address}: {source}; another process may have the port, see --peer-addr")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The peer port's address is not known.
    #[error("the peer port does not say its address")]
    Address(#[source] io::Error),
    /// A record in the data directory cannot be read or written.
    #[error("record `{record}` of the data directory: {source}")]
    Disk {
        /// The record.
        record: String,
        /// Why.
        source: io::Error,
    },
    /// Policy does not start.
    #[error(transparent)]
    Policy(#[from] policy::StartError),
}

/// A running federation. Dropping it ends it.
pub struct Federation {
    commands: mpsc::UnboundedSender<Command>,
    remote: watch::Receiver<Arc<Remote>>,
    peer_addr: SocketAddr,
    refusals: Arc<Refusals>,
    policy: Policy,
    demand: watch::Receiver<Arc<Demand>>,
    nacked: watch::Receiver<u32>,
    shared: Arc<Shared>,
    _stop: DropGuard,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Federation {
    /// Tells the other clusters what `local` holds, and what it will hold. A later call replaces an earlier one.
    pub fn publish(&self, local: watch::Receiver<Arc<Local>>) {
        // The hub ends only with us.
        let _ = self.commands.send(Command::Publish(local));
    }

    /// What the other clusters tell, always the newest.
    #[must_use]
    pub fn remote(&self) -> watch::Receiver<Arc<Remote>> {
        self.remote.clone()
    }

    /// Asks for the endpoint lists of these service ports wherever they are, and no others. A later call replaces an
    /// earlier one.
    pub fn want(&self, wanted: watch::Receiver<BTreeSet<ServicePort>>) {
        let _ = self.commands.send(Command::Want(wanted));
    }

    /// Policy: what this node has applied, and the way to write.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What the clients of the whole cluster ask for, whichever node they report to.
    #[must_use]
    pub fn demand(&self) -> watch::Receiver<Arc<Demand>> {
        self.demand.clone()
    }

    /// How many clients of the whole cluster refuse what they were sent, whichever node they are connected to.
    #[must_use]
    pub fn nacked(&self) -> u32 {
        *self.nacked.borrow()
    }

    /// The nodes of our cluster, in their order.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeShown> {
        self.shared.nodes.shown()
    }

    /// Returns once this node does not publish for its cluster.
    pub async fn stepped_down(&self) {
        self.shared.nodes.deposed().await;
    }

    /// Where the peer port is.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer_addr
    }

    /// Who was turned away from the peer port.
    #[must_use]
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }
}

/// Opens the peer port, connects to every other cluster of the topology, and serves what is on disk at once.
pub async fn start(
    config: Config,
    net: Arc<dyn Net>,
    disk: Arc<dyn Disk>,
    mut rng: StdRng,
) -> Result<Federation, StartError> {
    let Config { cluster, node, topology, credentials, port, nodes } = config;
    let (node_events, node_event_queue) = mpsc::channel(256);
    let siblings = Siblings::new(node.clone(), nodes.all, node_events)?;
    let trust_domain = {
        let topology = topology.borrow();
        if topology.cluster(&cluster).is_none() {
            let known = topology.clusters().map(|cluster| cluster.name.to_string()).collect::<Vec<_>>().join(", ");
            return Err(StartError::UnknownCluster { cluster, topology: topology.name.clone(), known });
        }
        topology.name.clone()
    };
    credentials.check(&trust_domain, &cluster)?;
    let listener = match port {
        PeerPort::Open(listener) => listener,
        PeerPort::At(address) => net.listen(address).await.map_err(|source| StartError::Listen { address, source })?,
    };
    let peer_addr = listener.local_addr().map_err(StartError::Address)?;
    let refusals = Arc::new(Refusals::new("peer"));
    let rule =
        Rule::Peers { tls: credentials.server(ClientCertificates::Required)?, trust_domain: trust_domain.into() };
    let incoming = Incoming::new(listener, rule, refusals.clone());

    let (events, peer_events) = mpsc::channel(256);
    let (gossip, messages) = mpsc::channel(256);
    let memory = Memory::default();
    let stop = CancellationToken::new();
    let shared = Arc::new(Shared {
        cluster,
        node,
        nodes: siblings,
        topology: topology.clone(),
        links: Links::default(),
        events,
        gossip,
        refusals: refusals.clone(),
        remembered: memory.lookup(),
        stop: stop.clone(),
    });
    let policy = if shared.nodes.is_seat() {
        let seat = policy::Config {
            cluster: shared.cluster.clone(),
            topology: topology.clone(),
            heartbeat_floor: policy::HEARTBEAT_FLOOR,
        };
        let courier = Arc::new(PeerCourier::new(shared.clone()));
        Policy::Seat(policy::Seat::start(seat, &*disk, courier, &mut rng).await?)
    } else {
        let way = Arc::new(SeatCourier::new(shared.clone()));
        let copy = policy::Copy::open(shared.nodes.seat().clone(), way, disk.clone());
        Policy::Copy(copy.map_err(policy::StartError::Store)?)
    };
    let (commands, command_queue) = mpsc::unbounded_channel();
    let hub_rng = StdRng::seed_from_u64(rng.random());
    let (hub, remote) = Hub::new(shared.clone(), net.clone(), Records::new(disk), memory, hub_rng)?;
    let inputs = Inputs {
        commands: command_queue,
        peers: peer_events,
        gossip: messages,
        nodes: node_event_queue,
        election: nodes.election,
    };
    let (demand, nacked, needs) = (hub.demand(), hub.nacked(), hub.needs());
    let place = place_of(&topology.borrow(), &shared.cluster);
    let lists = ListService::new(shared.clone(), hub.published(), place);

    let server = Server::builder()
        .layer(RelayLayer::new(shared.clone()))
        .add_service(PeerServer::new(PeerService::new(shared.clone())))
        .add_service(PolicyGroupServer::new(PolicyService::new(policy.clone())))
        .add_service(NodeServer::new(NodeService::new(shared.clone(), policy.clone())))
        .add_service(AggregatedDiscoveryServiceServer::new(lists))
        .serve_with_incoming(incoming);
    let (dial_rng, follow_rng) = (StdRng::seed_from_u64(rng.random()), StdRng::seed_from_u64(rng.random()));
    let copy = match &policy {
        Policy::Copy(copy) => Some(copy.clone()),
        Policy::Seat(_) => None,
    };
    let following = nodes::keep_following(shared.clone(), net.clone(), credentials.clone(), needs, copy, follow_rng);
    let tasks = vec![
        AbortOnDropHandle::new(tokio::spawn(following)),
        AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the peer port is closed");
            }
        })),
        AbortOnDropHandle::new(tokio::spawn(peers::keep_dialled(shared.clone(), net, credentials, dial_rng))),
        AbortOnDropHandle::new(tokio::spawn(hub.run(inputs))),
    ];
    let _stop = stop.drop_guard();
    Ok(Federation { commands, remote, peer_addr, refusals, policy, demand, nacked, shared, _stop, _tasks: tasks })
}
