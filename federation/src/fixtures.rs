//! Topologies and certificates for this crate's own tests.

use portolan_topology::names::{ClusterName, NetworkName, RegionName, ZoneName};
use portolan_topology::topology::{Cluster, ControlPlane, Region, Topology};

/// The present: TLS compares certificates with the real clock.
pub(crate) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// A topology named `test`: a region `r-CLUSTER` with a zone `z-CLUSTER` for each cluster, control planes at port 1.
pub(crate) fn topology(clusters: &[&str]) -> Topology {
    let regions = clusters.iter().map(|name| {
        let region = RegionName::new(format!("r-{name}")).unwrap();
        let zones = vec![ZoneName::new(format!("z-{name}")).unwrap()];
        let cluster = Cluster {
            name: ClusterName::new(name).unwrap(),
            region: region.clone(),
            zones: zones.clone(),
            network: NetworkName::new("default").unwrap(),
            gateways: Vec::new(),
            control_plane: ControlPlane { host: "127.0.0.1".into(), port: 1, voter: true, config: false },
        };
        Region { name: region, zones, clusters: vec![cluster] }
    });
    Topology { name: "test".into(), regions: regions.collect(), links: vec![], failover: [].into(), hash: 7 }
}
