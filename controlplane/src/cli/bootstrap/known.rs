//! What a topology file or a running control plane knows that a bootstrap needs.

use portolan_topology::address::HostPort;
use portolan_topology::diagnostic::{nearest, one_of};
use portolan_topology::names::{ClusterName, RegionName, ZoneName};
use portolan_topology::topology::Topology;

use crate::admin::model::{Status, XdsSecurity};

/// The xDS port, where nothing says otherwise.
const XDS_PORT: u16 = 7444;

/// Clusters, and how their control planes are reached.
#[derive(Debug)]
pub(super) struct Known {
    places: Vec<Place>,
    /// The running control plane that said so; `None`: a file did.
    running: Option<Running>,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub(super) cluster: ClusterName,
    pub(super) region: RegionName,
    zones: Vec<ZoneName>,
    /// Where its control plane serves xDS; `None`: not known.
    server: Option<HostPort>,
}

#[derive(Debug)]
struct Running {
    cluster: ClusterName,
    security: XdsSecurity,
    plaintext: Option<HostPort>,
}

impl Known {
    pub(super) fn from_topology(topology: &Topology) -> Self {
        let place = |cluster: &portolan_topology::topology::Cluster| Place {
            cluster: cluster.name.clone(),
            region: cluster.region.clone(),
            zones: cluster.zones.clone(),
            server: Some(HostPort { host: cluster.control_plane.host.clone(), port: XDS_PORT }),
        };
        Self { places: topology.clusters().map(place).collect(), running: None }
    }

    /// `host` is the one under which the control plane was asked; it stands for an address that means all interfaces.
    pub(super) fn from_status(status: &Status, host: Option<&str>) -> Self {
        let reached = |at: std::net::SocketAddr| {
            let host = if at.ip().is_unspecified() { host?.to_owned() } else { at.ip().to_string() };
            Some(HostPort { host, port: at.port() })
        };
        let places = status.clusters.iter().filter_map(|cluster| {
            Some(Place {
                cluster: cluster.name.clone(),
                region: cluster.region.clone()?,
                zones: cluster.zones.clone(),
                server: reached(status.addresses.xds).filter(|_| cluster.own),
            })
        });
        let running = Running {
            cluster: status.cluster.clone(),
            security: status.xds_security,
            plaintext: status.addresses.xds_plaintext.and_then(reached),
        };
        Self { places: places.collect(), running: Some(running) }
    }

    /// Whether the control plane's xDS port speaks plain text.
    pub(super) fn is_plaintext(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.security == XdsSecurity::Plaintext)
    }

    /// The cluster of a client in `zone`.
    pub(super) fn place(&self, zone: &ZoneName, cluster: Option<&ClusterName>) -> Result<&Place, String> {
        if let Some(name) = cluster {
            let known = || self.places.iter().map(|place| place.cluster.as_str());
            let place = self.places.iter().find(|place| place.cluster == *name);
            let place =
                place.ok_or_else(|| format!("--cluster {name}: {}", unknown("cluster", name.as_str(), known())))?;
            return place.zones.contains(zone).then_some(place).ok_or_else(|| {
                let zones = one_of(place.zones.iter().map(ZoneName::as_str));
                format!("--zone {zone}: the cluster `{name}` does not span it; expected {zones}")
            });
        }
        let spanning: Vec<_> = self.places.iter().filter(|place| place.zones.contains(zone)).collect();
        let own = |place: &&&Place| self.running.as_ref().is_some_and(|running| running.cluster == place.cluster);
        match (spanning.iter().find(own), spanning.as_slice()) {
            (Some(own), _) => Ok(own),
            (None, [only]) => Ok(only),
            (None, []) => {
                let zones = self.places.iter().flat_map(|place| place.zones.iter().map(ZoneName::as_str));
                Err(format!("--zone {zone}: {}", unknown("zone", zone.as_str(), zones)))
            }
            (None, several) => {
                let names = one_of(several.iter().map(|place| place.cluster.as_str()));
                Err(format!("several clusters span {zone}: add --cluster, {names}"))
            }
        }
    }

    /// Where a client at `place` finds its control plane.
    pub(super) fn server(&self, place: &Place, plaintext: bool) -> Result<HostPort, String> {
        let found = match &self.running {
            Some(running) if plaintext && !self.is_plaintext() && running.cluster == place.cluster => {
                return running.plaintext.clone().ok_or_else(|| {
                    "--plaintext: this control plane has no port in plain text; it is opened by --xds-plaintext-addr, \
                     or named by --server"
                        .into()
                });
            }
            // A file does not say where plain text is spoken.
            None if plaintext => None,
            _ => place.server.clone(),
        };
        found.ok_or_else(|| {
            let example = format!("portolan.portolan.svc:{XDS_PORT}");
            format!("where is the control plane of `{}`? Add --server HOST:PORT, such as {example}", place.cluster)
        })
    }
}

fn unknown<'a>(what: &str, given: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let suggestion = nearest(given, known.clone()).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    format!("the topology has no such {what}; expected {}{suggestion}", one_of(known))
}
