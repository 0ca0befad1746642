//! What one cluster has of a service: ports, and endpoints by zone. What a source makes, and an endpoint list carries.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::{ServiceId, ZoneName};

/// Whether an endpoint may take traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Health {
    /// Takes traffic.
    Ready,
    /// Listed by the source, but not ready.
    NotReady,
    /// Terminating and still serving: finishes what it has, takes nothing new.
    Draining,
}

/// One address of a service's port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Where it listens: the pod's address and target port.
    pub address: SocketAddr,
    /// Its share of its locality's traffic against its peers there. 1 unless the source says otherwise.
    pub weight: NonZeroU32,
    /// Whether it may take traffic.
    pub health: Health,
    /// Which part of the service's data it has, where the source says so: requests that name a shard go to its endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Arc<str>>,
}

/// Endpoints of one service port in one cluster, by zone (`None`: the source names no zone), each list sorted by
/// address and free of duplicates.
pub type EndpointsByZone = BTreeMap<Option<ZoneName>, Vec<Endpoint>>;

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// The Service's port number.
    pub number: u16,
    /// Its name, if it has one; a service with several ports names each.
    pub name: Option<String>,
}

/// One service as its own cluster's source shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalService {
    /// Which service.
    pub id: ServiceId,
    /// Its ports, in the Service's order; the first is what a name without a port means.
    pub ports: Vec<Port>,
    /// Endpoints by port number. Every port of `ports` has an entry.
    pub endpoints: BTreeMap<u16, EndpointsByZone>,
    /// Requests a second that a ready endpoint of weight 1 carries, where the source says so.
    pub capacity: Option<NonZeroU32>,
    /// How long a new endpoint's share grows for the clients of its own cluster, where the source says so.
    pub warmup: Option<Duration>,
}

impl LocalService {
    /// Requests a second that `counts` of its endpoints carry, where the source says what one does.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a sum of weights is far below 2⁵²")]
    pub fn capacity_of(&self, counts: EndpointCounts) -> Option<f64> {
        self.capacity.map(|each| f64::from(each.get()) * counts.ready_weight as f64)
    }
}

/// What a cluster says of a service that it exports to the others (KEP-1645): what they make a ServiceImport of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Export {
    /// When the export was made, in seconds since 1970 by its own API server: of exports that contradict each other the
    /// oldest holds.
    pub since: i64,
    /// Whether its endpoints are resolved one by one.
    pub headless: bool,
    /// For how many seconds a client address sticks to an endpoint, if it does.
    pub affinity: Option<u32>,
    /// Its ports, in the Service's order.
    pub ports: Vec<ExportedPort>,
}

/// A port of an exported service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExportedPort {
    /// The Service's port number.
    pub number: u16,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// What is spoken over it, if the Service says.
    pub app_protocol: Option<String>,
}

/// Everything that a source knows, as one immutable snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalServices {
    /// Whether the first complete listing has been read. Until then absence means nothing.
    pub synced: bool,
    /// The services by id.
    pub services: BTreeMap<ServiceId, Arc<LocalService>>,
}

/// Endpoint counts of one place: what gossip carries of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointCounts {
    /// All that the source lists, the unready and draining included.
    pub total: u32,
    /// Those that take traffic.
    pub ready: u32,
    /// Those that finish what they have.
    pub draining: u32,
    /// The sum of the ready endpoints' weights.
    pub ready_weight: u64,
}

impl EndpointCounts {
    /// Counts `endpoints`.
    #[must_use]
    pub fn of(endpoints: &[Endpoint]) -> Self {
        endpoints.iter().fold(Self::default(), |mut counts, endpoint| {
            counts.total += 1;
            match endpoint.health {
                Health::Ready => {
                    counts.ready += 1;
                    counts.ready_weight += u64::from(endpoint.weight.get());
                }
                Health::Draining => counts.draining += 1,
                Health::NotReady => {}
            }
            counts
        })
    }
}
