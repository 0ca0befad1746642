//! The checked topology: regions, zones, clusters, links and failover. What is left of a topology file once every rule
//! held; nothing here can name a region, zone or cluster that does not exist.

mod check;
mod file;
mod write;

pub use file::API_VERSION;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::{ClusterName, Locality, NetworkName, RegionName, ZoneName};

/// The peer port where a control plane's address names none.
pub const DEFAULT_PEER_PORT: u16 = 7443;

/// A whole topology, the same in every cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// `metadata.name`; also the trust domain of the clusters' certificates unless they say otherwise.
    pub name: String,
    /// The regions in the file's order.
    pub regions: Vec<Region>,
    /// Links as written; ask [`Topology::link`] for the one between two regions.
    pub links: Vec<Link>,
    /// Where a region's traffic goes when it has no capacity left. Weights are relative, their sum is not 0.
    pub failover: BTreeMap<RegionName, Vec<WeightedRegion>>,
    /// A hash of the content (comments, order of keys and white space do not count): what `status` compares.
    pub hash: u64,
}

/// A region.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// Its name.
    pub name: RegionName,
    /// Its zones in the file's order.
    pub zones: Vec<ZoneName>,
    /// Its clusters in the file's order.
    pub clusters: Vec<Cluster>,
}

/// A cluster of a region.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Its name.
    pub name: ClusterName,
    /// The region it is in.
    pub region: RegionName,
    /// The zones that it spans; all of the region's unless the file says otherwise.
    pub zones: Vec<ZoneName>,
    /// Its network; clusters that name none share the network `default`.
    pub network: NetworkName,
    /// `HOST:PORT`s by which other networks reach it.
    pub gateways: Vec<String>,
    /// Its control plane.
    pub control_plane: ControlPlane,
}

/// How the other control planes find one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlane {
    /// Host name or IP address of the peer port.
    pub host: String,
    /// The peer port.
    pub port: u16,
    /// Whether it votes on policy; every other is a learner.
    pub voter: bool,
    /// Whether the policy objects in its Kubernetes hold for the federation.
    pub config: bool,
}

/// A link between two regions.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// The regions it joins; in this direction alone if `symmetric` is false.
    pub between: [RegionName; 2],
    /// Whether it holds both ways.
    pub symmetric: bool,
    /// Round-trip time.
    pub rtt: Duration,
    /// What a request over it costs, relative to others; 1 unless the file says otherwise.
    pub cost: f64,
}

/// A region to fail over to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightedRegion {
    /// The region.
    pub region: RegionName,
    /// Its weight against the other targets of the same list.
    pub weight: u32,
}

/// How far one region is from another; nearer is less. Compares by cost, then by round-trip time.
///
/// Two regions may be equally far: break ties by name, as [`Topology::regions_by_distance`] does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distance {
    /// The same region.
    Here,
    /// A link joins them in this direction.
    Linked {
        /// The link's cost.
        cost: f64,
        /// The link's round-trip time.
        rtt: Duration,
    },
    /// No link joins them: farther than everything that has one.
    Unknown,
}

impl Distance {
    /// What is compared. Equal costs compare equal whatever their sign of zero, because a cost is never negative.
    fn rank(&self) -> (u8, f64, Duration) {
        match self {
            Self::Here => (0, 0.0, Duration::ZERO),
            Self::Linked { cost, rtt } => (1, cost.abs(), *rtt),
            Self::Unknown => (2, 0.0, Duration::ZERO),
        }
    }
}

impl Eq for Distance {}

impl Ord for Distance {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((kind, cost, rtt), (other_kind, other_cost, other_rtt)) = (self.rank(), other.rank());
        kind.cmp(&other_kind).then(cost.total_cmp(&other_cost)).then(rtt.cmp(&other_rtt))
    }
}

impl PartialOrd for Distance {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Topology {
    /// How far `to` is from `from`.
    #[must_use]
    pub fn distance(&self, from: &RegionName, to: &RegionName) -> Distance {
        if from == to {
            return Distance::Here;
        }
        self.link(from, to).map_or(Distance::Unknown, |link| Distance::Linked { cost: link.cost, rtt: link.rtt })
    }

    /// The other regions, nearest first; equally far ones by name.
    #[must_use]
    pub fn regions_by_distance(&self, from: &RegionName) -> Vec<&RegionName> {
        let mut others: Vec<_> = self.regions.iter().map(|region| &region.name).filter(|name| *name != from).collect();
        others.sort_by(|a, b| self.distance(from, a).cmp(&self.distance(from, b)).then(a.cmp(b)));
        others
    }

    /// The first four hexadecimal digits of the hash: what `status` shows.
    #[must_use]
    pub fn short_hash(&self) -> String {
        format!("{:04x}", self.hash >> 48)
    }

    /// All clusters, in the file's order.
    pub fn clusters(&self) -> impl Iterator<Item = &Cluster> {
        self.regions.iter().flat_map(|region| &region.clusters)
    }

    /// A region by name.
    #[must_use]
    pub fn region(&self, name: &RegionName) -> Option<&Region> {
        self.regions.iter().find(|region| region.name == *name)
    }

    /// A cluster by name.
    #[must_use]
    pub fn cluster(&self, name: &ClusterName) -> Option<&Cluster> {
        self.clusters().find(|cluster| cluster.name == *name)
    }

    /// The region that a zone is in.
    #[must_use]
    pub fn region_of_zone(&self, zone: &ZoneName) -> Option<&Region> {
        self.regions.iter().find(|region| region.zones.contains(zone))
    }

    /// The locality of `zone` in `cluster`; the zone falls away if the cluster does not span it.
    #[must_use]
    pub fn locality(&self, cluster: &ClusterName, zone: Option<&ZoneName>) -> Option<Locality> {
        let cluster = self.cluster(cluster)?;
        Some(Locality {
            region: cluster.region.clone(),
            zone: zone.filter(|zone| cluster.zones.contains(zone)).cloned(),
            cluster: cluster.name.clone(),
        })
    }

    /// The link from one region to another, if the file has one for that direction.
    #[must_use]
    pub fn link(&self, from: &RegionName, to: &RegionName) -> Option<&Link> {
        self.links.iter().find(|link| {
            let [a, b] = &link.between;
            (a == from && b == to) || (link.symmetric && a == to && b == from)
        })
    }

    /// Whether policy objects in the Kubernetes of `cluster` hold for the federation.
    #[must_use]
    pub fn is_config(&self, cluster: &ClusterName) -> bool {
        self.cluster(cluster).is_some_and(|cluster| cluster.control_plane.config)
    }

    /// The clusters whose control planes vote on policy, by name.
    #[must_use]
    pub fn voters(&self) -> Vec<&Cluster> {
        let mut voters: Vec<_> = self.clusters().filter(|cluster| cluster.control_plane.voter).collect();
        voters.sort_by(|a, b| a.name.cmp(&b.name));
        voters
    }
}

#[cfg(test)]
mod tests;
