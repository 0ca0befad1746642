//! A topology back as a file, and the hash of what it says.

use std::collections::BTreeMap;

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::{Cluster, Link, Region, Topology, WeightedRegion};
use crate::address::HostPort;
use crate::duration::DurationText;
use crate::names::{ClusterName, NetworkName, RegionName, ZoneName};

/// The file's shape, with every default spelled out. The hash is made of it: a field that is added must leave out its
/// default, or control planes of two versions would disagree on one file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Spec<'a> {
    regions: Vec<RegionEntry<'a>>,
    links: Vec<LinkEntry<'a>>,
    failover: &'a BTreeMap<RegionName, Vec<WeightedRegion>>,
}

#[derive(Serialize)]
struct RegionEntry<'a> {
    name: &'a RegionName,
    zones: &'a [ZoneName],
    clusters: Vec<ClusterEntry<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterEntry<'a> {
    name: &'a ClusterName,
    zones: &'a [ZoneName],
    network: &'a NetworkName,
    gateways: &'a [String],
    control_plane: ControlPlaneEntry,
}

#[derive(Serialize)]
struct ControlPlaneEntry {
    address: String,
    voter: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    config: bool,
}

#[derive(Serialize)]
struct LinkEntry<'a> {
    between: &'a [RegionName; 2],
    rtt: DurationText,
    cost: f64,
    symmetric: bool,
}

impl<'a> RegionEntry<'a> {
    fn of(region: &'a Region) -> Self {
        let clusters = region.clusters.iter().map(ClusterEntry::of).collect();
        Self { name: &region.name, zones: &region.zones, clusters }
    }
}

impl<'a> ClusterEntry<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        let address = HostPort { host: cluster.control_plane.host.clone(), port: cluster.control_plane.port };
        Self {
            name: &cluster.name,
            zones: &cluster.zones,
            network: &cluster.network,
            gateways: &cluster.gateways,
            control_plane: ControlPlaneEntry {
                address: address.to_string(),
                voter: cluster.control_plane.voter,
                config: cluster.control_plane.config,
            },
        }
    }
}

impl<'a> LinkEntry<'a> {
    fn of(link: &'a Link) -> Self {
        Self { between: &link.between, rtt: DurationText(link.rtt), cost: link.cost, symmetric: link.symmetric }
    }
}

impl<'a> File<'a> {
    fn of(topology: &'a Topology) -> Self {
        Self {
            api_version: super::file::API_VERSION,
            kind: "Topology",
            metadata: Metadata { name: &topology.name },
            spec: Spec {
                regions: topology.regions.iter().map(RegionEntry::of).collect(),
                links: topology.links.iter().map(LinkEntry::of).collect(),
                failover: &topology.failover,
            },
        }
    }
}

impl Topology {
    /// The topology as a file, every default spelled out; [`Topology::parse`] reads an equal topology from it.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        // Writing plain structs to a string has no way to fail; an empty file is one that nobody takes.
        serde_saphyr::to_string(&File::of(self)).unwrap_or_default()
    }

    /// What [`Topology::hash`] is made of: everything the topology says, in the file's order of lists.
    #[must_use]
    pub fn content_hash(&self) -> u64 {
        xxh3_64(&serde_json::to_vec(&File::of(self)).unwrap_or_default())
    }
}
