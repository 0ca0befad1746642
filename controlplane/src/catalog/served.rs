//! What the catalog hands to those who serve it: one latest-wins slot per question.

use std::collections::BTreeMap;
use std::sync::Arc;

use portolan_topology::names::{Locality, ServiceId};
use portolan_topology::plan::Plan;
use portolan_topology::policy::EffectivePolicy;
use portolan_topology::service::{Endpoint, Health};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A question: what does a client there get under that name?
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Query {
    /// The service.
    pub service: ServiceId,
    /// Which of its ports.
    pub port: PortRef,
    /// The whole federation's endpoints, or one cluster's.
    pub scope: NameScope,
    /// Where the client is: its cluster (which may be a sibling of ours), region and zone.
    pub client: Locality,
}

/// A port as a client names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortRef {
    /// The service's first.
    First,
    /// By number.
    Number(u16),
    /// By name.
    Name(String),
}

/// How far a name reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NameScope {
    /// `checkout.shop` and `checkout.shop.svc.clusterset.local`.
    Federation,
    /// `checkout.shop.svc.cluster.local`: the client's own cluster alone.
    Cluster,
}

/// The answer, as of now.
#[derive(Debug, Clone, PartialEq)]
pub enum Served {
    /// Nothing can be said yet: neither that it exists nor that it does not. Leave the client with what it has.
    NotYet,
    /// Known not to exist.
    Absent,
    /// Here it is.
    Present(Arc<ServedService>),
}

/// A service as one kind of client gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServedService {
    /// The port's number.
    pub port: u16,
    /// The paced plan: what is served.
    pub plan: Plan,
    /// The endpoints of each locality that the plan names, sorted by address. An address stands in one locality only.
    pub endpoints: BTreeMap<Locality, Arc<Vec<Endpoint>>>,
    /// The policy in force.
    pub policy: Arc<EffectivePolicy>,
}

impl ServedService {
    /// Whether it has an endpoint that may take traffic.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        let healthy = self.plan.priorities.iter().flatten().filter(|planned| !planned.unhealthy);
        let mut listed = healthy.filter_map(|planned| self.endpoints.get(&planned.locality));
        listed.any(|endpoints| endpoints.iter().any(|endpoint| endpoint.health == Health::Ready))
    }

    /// Whether an endpoint of it has a shard.
    #[must_use]
    pub fn is_sharded(&self) -> bool {
        self.endpoints.values().any(|endpoints| endpoints.iter().any(|endpoint| endpoint.shard.is_some()))
    }
}

/// Answers questions, and goes on answering them as things change.
pub trait Catalog: Send + Sync + 'static {
    /// A slot that always holds the newest answer. It lives while somebody holds the receiver.
    fn watch(&self, query: Query) -> watch::Receiver<Served>;
}
