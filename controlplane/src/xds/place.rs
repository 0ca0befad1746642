//! Where a client is: what its node says, as far as the topology bears it out.

use envoy_types::pb::envoy::config::core::v3::Node;
use portolan_topology::names::{ClusterName, Locality, ZoneName};
use portolan_topology::topology::Topology;

/// What a node says of its place. Names that are none are as good as not said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    cluster: Option<ClusterName>,
    zone: Option<ZoneName>,
}

impl Place {
    pub(crate) fn of(node: &Node) -> Self {
        let zone = node.locality.as_ref().and_then(|locality| locality.zone.parse().ok());
        Self { cluster: node.cluster.parse().ok(), zone }
    }

    /// The place in `topology`: in the named cluster if that stands there, else in `own`. A zone that the cluster does not
    /// span falls away. `None`: the topology has not even `own`.
    pub(crate) fn locality(&self, topology: &Topology, own: &ClusterName) -> Option<Locality> {
        let cluster = self.cluster.as_ref().filter(|cluster| topology.cluster(cluster).is_some()).unwrap_or(own);
        topology.locality(cluster, self.zone.as_ref())
    }
}
