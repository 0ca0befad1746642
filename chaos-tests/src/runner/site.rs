//! Where everything of a run is: which process has which address. Made once, before anything starts.

use std::io;
use std::net::SocketAddr;

use anyhow::Context;
use portolan_topology::names::{ClusterName, Locality, ServiceId};
use portolan_topology::topology::Topology;

use super::addresses::Addresses;
use super::portolan::{Portolan, RunPaths};
use crate::scenario::{Clients, Scenario};

/// The whole run's layout.
#[derive(Debug, Clone)]
pub struct Site {
    /// One control plane for each cluster, in the topology's order.
    pub control_planes: Vec<ControlPlaneSite>,
    /// The backends.
    pub backends: Vec<BackendSite>,
    /// The clients.
    pub clients: Vec<ClientSite>,
}

/// A control plane's addresses.
#[derive(Debug, Clone)]
pub struct ControlPlaneSite {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Where it is, as scopes see it; the zone is the cluster's first.
    pub locality: Locality,
    /// Peers.
    pub peer: SocketAddr,
    /// xDS.
    pub xds: SocketAddr,
    /// For clients that can do no better than plain text; with it, the other port takes those without a certificate.
    pub plaintext: Option<SocketAddr>,
    /// The admin interface.
    pub admin: SocketAddr,
    /// Health and metrics.
    pub metrics: SocketAddr,
    /// What the topology file says of its peer port: `peer`, or an address that nobody listens on.
    pub advertised: SocketAddr,
}

/// A backend's place.
#[derive(Debug, Clone)]
pub struct BackendSite {
    /// Its name, as it answers.
    pub name: String,
    /// Its service.
    pub service: ServiceId,
    /// Where it is.
    pub locality: Locality,
    /// Where it listens.
    pub address: SocketAddr,
}

/// A client's place.
#[derive(Debug, Clone)]
pub struct ClientSite {
    /// Where it is.
    pub locality: Locality,
    /// What it does.
    pub group: Clients,
}

impl Site {
    /// Lays out `scenario` on `topology`.
    pub fn new(scenario: &Scenario, topology: &Topology, addresses: &mut Addresses) -> io::Result<Self> {
        let mut control_planes = Vec::new();
        for cluster in topology.clusters() {
            let host = addresses.host();
            let mut port = |host| addresses.port(host, None);
            let (peer, xds, admin, metrics) = (port(host)?, port(host)?, port(host)?, port(host)?);
            let advertised = if scenario.block_peers {
                let nobody = addresses.host();
                addresses.port(nobody, None)?
            } else {
                peer
            };
            control_planes.push(ControlPlaneSite {
                cluster: cluster.name.clone(),
                locality: Locality {
                    region: cluster.region.clone(),
                    zone: cluster.zones.first().cloned(),
                    cluster: cluster.name.clone(),
                },
                peer,
                xds,
                plaintext: None,
                admin,
                metrics,
                advertised,
            });
        }
        let mut backends = Vec::new();
        for service in &scenario.services {
            // One port for all of a service's pods, as in Kubernetes, where every address is its own.
            let mut common = None;
            for locality in Scenario::localities(topology, service.within.as_ref()) {
                for index in 0..service.backends_per_zone {
                    let host = addresses.host();
                    let address = addresses.port(host, common)?;
                    common = common.or(Some(address.port()));
                    let name = format!("{}-{}-{index}", service.id.name(), place(&locality));
                    backends.push(BackendSite {
                        name,
                        service: service.id.clone(),
                        locality: locality.clone(),
                        address,
                    });
                }
            }
        }
        let mut clients = Vec::new();
        for group in &scenario.clients {
            for locality in Scenario::localities(topology, group.within.as_ref()) {
                for _ in 0..group.per_zone {
                    clients.push(ClientSite { locality: locality.clone(), group: group.clone() });
                }
            }
        }
        Ok(Self { control_planes, backends, clients })
    }

    /// Makes what must be in the run's folder before anything starts: its folders, the topology and certificates.
    pub(crate) async fn prepare(
        &self,
        topology: &Topology,
        portolan: &Portolan,
        paths: &RunPaths,
    ) -> anyhow::Result<()> {
        let clusters = self.control_planes.iter().map(|plane| &plane.cluster);
        paths.make(clusters).context("cannot make the run's folders")?;
        std::fs::write(paths.topology(), self.rewritten(topology).to_yaml()).context("cannot write the topology")?;
        let (certs, topology) = (paths.certs().display().to_string(), paths.topology().display().to_string());
        // Where the topology gives addresses that nobody has, the certificates still name those that are dialled.
        let hosts: Vec<String> = self.control_planes.iter().map(|plane| plane.xds.ip().to_string()).collect();
        let names = hosts.iter().flat_map(|host| ["--name", host]);
        let arguments: Vec<&str> = ["certs", "dev", &certs, "--topology", &topology].into_iter().chain(names).collect();
        portolan.run(&arguments).await?;
        Ok(())
    }

    /// The topology with the run's addresses. All of them are on one network, the loopback, so that gateways fall away.
    fn rewritten(&self, topology: &Topology) -> Topology {
        let mut topology = topology.clone();
        let network = topology.clusters().next().map(|cluster| cluster.network.clone());
        for cluster in topology.regions.iter_mut().flat_map(|region| &mut region.clusters) {
            let here = self.control_planes.iter().find(|plane| plane.cluster == cluster.name);
            if let Some(plane) = here {
                cluster.control_plane.host = plane.advertised.ip().to_string();
                cluster.control_plane.port = plane.advertised.port();
            }
            cluster.gateways = Vec::new();
            cluster.network = network.clone().unwrap_or_else(|| cluster.network.clone());
        }
        topology
    }
}

/// A locality as part of a name: `use1-a-us-east-1a`.
#[must_use]
pub fn place(locality: &Locality) -> String {
    let zone = locality.zone.as_ref().map_or("", |zone| zone.as_str());
    format!("{}-{zone}", locality.cluster)
}
