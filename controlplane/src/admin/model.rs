//! The shapes of the admin interface's answers: what the server writes, the command line reads back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use jiff::Timestamp;
use portolan_federation::model::NodeShown;
use portolan_federation::tls::ClientCertificates;
use portolan_topology::names::{ClusterName, Locality, NodeName, RegionName, ServiceId, ZoneName};
use portolan_topology::plan::Plan;
use portolan_topology::service::{Endpoint, Port};
use portolan_topology::view::Liveness;
use serde::{Deserialize, Serialize};

use crate::catalog::Duplicate;
use crate::gateway::conditions::{GatewayStatus, Trouble};
use crate::run::Addresses;
use crate::source::SourceStatus;
use crate::topology_file::TopologyStatus;

/// `GET /api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Our cluster.
    pub cluster: ClusterName,
    /// The control plane that answers.
    pub node: NodeName,
    /// All nodes of the cluster, in their order.
    #[serde(default)]
    pub nodes: Vec<NodeShown>,
    /// Its version.
    pub version: String,
    /// For how long it has run.
    pub uptime_seconds: u64,
    /// What is left before it is ready; empty: ready.
    pub not_ready: BTreeSet<String>,
    /// The topology file.
    pub topology: TopologyShown,
    /// The cluster's own source.
    pub source: SourceStatus,
    /// For how long some of what the source reads cannot be reached.
    pub source_silent_seconds: Option<u64>,
    /// Its own certificate.
    pub certificate: CertificateShown,
    /// Where it listens.
    pub addresses: Addresses,
    /// How the xDS port is protected.
    #[serde(default)]
    pub xds_security: XdsSecurity,
    /// The networks that may use the plain-text port.
    pub plaintext_from: Vec<String>,
    /// Policy.
    pub policy: PolicyShown,
    /// All clusters, our own first.
    pub clusters: Vec<ClusterShown>,
    /// Addresses that two localities list, by service.
    pub duplicates: BTreeMap<ServiceId, BTreeSet<Duplicate>>,
    /// Gateways of our class.
    #[serde(default)]
    pub gateways: BTreeMap<String, GatewayStatus>,
    /// What is amiss with gateways and their routes.
    #[serde(default)]
    pub gateway_troubles: Vec<Trouble>,
    /// How many streams of xDS clients are open.
    pub clients: usize,
    /// How many of them refuse what they were sent.
    pub clients_refusing: u32,
}

/// How the xDS port is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum XdsSecurity {
    /// TLS, and clients must show a certificate.
    #[default]
    Mtls,
    /// TLS, and clients may show a certificate.
    Tls,
    /// Not at all: `--dev`.
    Plaintext,
}

impl XdsSecurity {
    /// Of a port with this rule for its clients' certificates; `None`: it speaks plain text.
    #[must_use]
    pub fn of(clients: Option<ClientCertificates>) -> Self {
        match clients {
            Some(ClientCertificates::Required) => Self::Mtls,
            Some(ClientCertificates::Optional) => Self::Tls,
            None => Self::Plaintext,
        }
    }
}

/// The topology in force, and how its file is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologyShown {
    /// `metadata.name`.
    pub name: String,
    /// The first digits of its content hash.
    pub hash: String,
    /// How the file is.
    #[serde(flatten)]
    pub file: TopologyStatus,
}

/// A control plane's own certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateShown {
    /// When it expires.
    pub expires: Timestamp,
    /// In how many seconds that is; negative once it has.
    pub expires_in_seconds: i64,
    /// Why what is in the files now is not in force.
    pub error: Option<String>,
}

/// Policy, as this node has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyShown {
    /// The last change applied here.
    pub revision: u64,
    /// The Raft group's id, once it is born and joined.
    pub group: Option<String>,
    /// The cluster that leads, if that is known.
    pub leader: Option<String>,
    /// Voters in the group.
    pub voters: usize,
    /// Those of them that answer us.
    pub answering: usize,
}

/// A cluster, as `status` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterShown {
    /// Its name.
    pub name: ClusterName,
    /// Its region; `None`: not in our topology.
    pub region: Option<RegionName>,
    /// The zones that it spans.
    #[serde(default)]
    pub zones: Vec<ZoneName>,
    /// Whether it is ours.
    pub own: bool,
    /// How much its state is trusted.
    pub state: Liveness,
    /// How long ago it was last heard, in milliseconds; `None`: it is fresh or ours, or was never heard.
    pub heard_ms: Option<u64>,
    /// Whether everything that it tells has arrived.
    pub complete: bool,
    /// Its services.
    pub services: usize,
    /// Endpoints that take traffic, each service's first port.
    pub ready: u64,
    /// Endpoints listed.
    pub total: u64,
    /// Demand of its clients as a percentage of its ready capacity, where both are known.
    pub utilization_percent: Option<u32>,
    /// Where it stands in the policy group.
    pub policy: Option<PolicyOfCluster>,
    /// The first digits of the hash of the topology that it runs.
    pub topology: Option<String>,
    /// How many clients of its control plane refuse what they were sent; `None`: it does not say.
    #[serde(default)]
    pub nacked: Option<u32>,
}

/// Where a cluster stands in the policy group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyOfCluster {
    /// The last change that it has applied.
    pub revision: u64,
    /// `leader`, `voter` or `learner`.
    pub role: String,
}

/// `GET /api/v1/clients`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clients {
    /// One entry a stream.
    pub clients: Vec<ClientShown>,
}

/// A client's stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientShown {
    /// The stream's number.
    pub stream: u64,
    /// `node.id`.
    pub node: String,
    /// `user_agent_name`.
    pub user_agent: String,
    /// `user_agent_version`.
    pub version: String,
    /// Its address.
    pub address: Option<String>,
    /// The identity in its certificate.
    pub identity: Option<String>,
    /// Where it is taken to be.
    pub locality: Locality,
    /// For how long it has been connected, in milliseconds.
    pub connected_ms: u64,
    /// Its subscriptions by type: LDS, RDS, CDS, EDS, SDS.
    pub subscriptions: BTreeMap<String, SubscriptionShown>,
}

/// One type's subscription.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionShown {
    /// The names subscribed to; empty for a wildcard.
    pub names: Vec<String>,
    /// `NOT_SENT`, `SYNCED`, `STALE` or `NACKED`.
    pub state: String,
    /// For how long it has stood so, in milliseconds; in sync, for how long with what it has.
    pub state_ms: u64,
    /// The version sent last.
    pub sent: String,
    /// The version accepted last.
    pub accepted: String,
    /// Why it refused what is current.
    pub nack: Option<String>,
    /// How long ago, in milliseconds.
    pub nack_ms: Option<u64>,
}

/// `GET /api/v1/services`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Services {
    /// All services that are known anywhere, by name.
    pub services: Vec<ServiceShown>,
}

/// A service, everywhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceShown {
    /// Which.
    pub service: ServiceId,
    /// Its ports.
    pub ports: Vec<Port>,
    /// What each cluster has of it.
    pub clusters: BTreeMap<ClusterName, ReadyOfTotal>,
    /// Whether clients here ask for it.
    pub watched: bool,
    /// What our own clients ask for, in requests per second, if they report it.
    pub demand: Option<f64>,
}

/// Endpoints by readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadyOfTotal {
    /// Those that take traffic.
    pub ready: u64,
    /// Those listed.
    pub total: u64,
}

/// `GET /api/v1/loads/SERVICE`: what clients of this control plane reported of a service within the last 10 seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loads {
    /// The service.
    pub service: ServiceId,
    /// From where to where.
    pub loads: Vec<LoadShown>,
}

/// The load of one place's clients on one locality.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadShown {
    /// Where the clients are.
    pub source: Locality,
    /// Where the endpoints are.
    pub upstream: Locality,
    /// Over all of its endpoints.
    pub total: LoadFigures,
    /// Of each endpoint, from clients that report each: Envoy.
    pub endpoints: BTreeMap<SocketAddr, LoadFigures>,
}

/// What became of requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadFigures {
    /// Requests begun per second.
    pub requests_per_second: f64,
    /// Requests that ended well.
    pub succeeded: u64,
    /// Requests that ended otherwise.
    pub failed: u64,
    /// Requests that are open now.
    pub in_progress: u64,
    /// Whether requests are open and none ends: what takes connections and answers nothing.
    pub hangs: bool,
    /// What servers said of their own load (ORCA), by metric: the mean over the requests that told it.
    pub metrics: BTreeMap<String, f64>,
}

/// `GET /api/v1/endpoints/SERVICE`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// The service.
    pub service: ServiceId,
    /// The port's number.
    pub port: u16,
    /// Where the client is, if that was asked.
    pub client: Locality,
    /// The endpoints that are here, by locality.
    pub localities: Vec<EndpointsOf>,
    /// Localities whose endpoints are not here: nobody here asks for them, or they are on their way.
    pub waiting: BTreeSet<Locality>,
}

/// The endpoints of one locality.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointsOf {
    /// Where.
    pub locality: Locality,
    /// Sorted by address.
    pub endpoints: Vec<Endpoint>,
}

/// `GET /api/v1/explain/SERVICE`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// The service.
    pub service: ServiceId,
    /// The port's number.
    pub port: u16,
    /// Where the client is.
    pub client: Locality,
    /// Whether a client there is connected here and is sent this; else it is what one would get.
    pub watched: bool,
    /// The plan.
    pub plan: Plan,
    /// Addresses that stand in a nearer locality too.
    pub duplicates: Vec<Duplicate>,
    /// Localities whose endpoints have been asked for and are not here yet.
    pub waiting: BTreeSet<Locality>,
    /// How many routes decide which calls come here at all; 0: all do.
    #[serde(default, skip_serializing_if = "is_none")]
    pub routes: usize,
}

/// `GET /api/v1/explain/cluster/NAME`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterExplained {
    /// The cluster, as `status` shows it.
    pub cluster: ClusterShown,
    /// Who tells.
    pub from: ClusterName,
    /// The services that it has, as far as we know.
    pub services: BTreeMap<ServiceId, ReadyOfTotal>,
    /// How many endpoint lists of it are here.
    pub lists: usize,
    /// Sentences: what its state means, and what comes next.
    pub because: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
fn is_none(count: &usize) -> bool {
    *count == 0
}
