//! Several federations in one process, over real sockets on loopback.
#![allow(dead_code, unreachable_pub, reason = "a module of tests, each of which uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portolan_federation::certs;
use portolan_federation::disk::MemoryDisk;
use portolan_federation::model::{Local, Remote};
use portolan_federation::net::{Listener, Net, TokioNet};
use portolan_federation::tls::Credentials;
use portolan_federation::{Config, Federation, PeerPort, start};
use portolan_topology::names::{ClusterName, NetworkName, NodeName, RegionName, ServicePort, ZoneName};
use portolan_topology::topology::{Cluster, ControlPlane, Region, Topology};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;

pub fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

/// A topology named `test`: for each cluster a region `r-NAME` with one zone `z-NAME`.
pub fn topology(ports: &[(&str, u16)]) -> Topology {
    let regions = ports.iter().map(|(name, port)| {
        let region = RegionName::new(format!("r-{name}")).unwrap();
        let zones = vec![ZoneName::new(format!("z-{name}")).unwrap()];
        let cluster = Cluster {
            name: cluster(name),
            region: region.clone(),
            zones: zones.clone(),
            network: NetworkName::new("default").unwrap(),
            gateways: Vec::new(),
            control_plane: ControlPlane { host: "127.0.0.1".into(), port: *port, voter: true },
        };
        Region { name: region, zones, clusters: vec![cluster] }
    });
    Topology { name: "test".into(), regions: regions.collect(), links: vec![], failover: BTreeMap::new(), hash: 7 }
}

/// One cluster's federation and the ends of its pipes.
pub struct Member {
    pub federation: Federation,
    pub local: watch::Sender<Arc<Local>>,
    pub want: watch::Sender<BTreeSet<ServicePort>>,
    pub remote: watch::Receiver<Arc<Remote>>,
}

impl Member {
    /// Waits until what the others tell satisfies `condition`.
    pub async fn until(&mut self, what: &str, condition: impl FnMut(&Arc<Remote>) -> bool) -> Arc<Remote> {
        let reached = tokio::time::timeout(Duration::from_secs(30), self.remote.wait_for(condition)).await;
        if let Ok(Ok(remote)) = reached.map(|remote| remote.map(|remote| remote.clone())) {
            return remote;
        }
        panic!("{what}; known: {:#?}", self.remote.borrow());
    }
}

/// A whole federation's ground: ports, topology, certificates and disks.
pub struct Ground {
    certificates: tempfile::TempDir,
    pub topology: watch::Sender<Arc<Topology>>,
    pub disks: BTreeMap<ClusterName, MemoryDisk>,
    listeners: BTreeMap<ClusterName, Box<dyn Listener>>,
}

impl Ground {
    /// Opens a port for each of `clusters`.
    pub async fn new(clusters: &[&str]) -> Self {
        let (mut ports, mut listeners) = (Vec::new(), BTreeMap::new());
        for name in clusters {
            let listener = TokioNet.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
            ports.push((*name, listener.local_addr().unwrap().port()));
            listeners.insert(cluster(name), listener);
        }
        let topology = topology(&ports);
        let certificates = tempfile::tempdir().unwrap();
        certs::dev(certificates.path(), &topology, &[], jiff::Timestamp::now()).unwrap();
        let disks = listeners.keys().map(|name| (name.clone(), MemoryDisk::default())).collect();
        Self { certificates, topology: watch::Sender::new(Arc::new(topology)), disks, listeners }
    }

    pub fn certificates(&self) -> &Path {
        self.certificates.path()
    }

    /// Starts the federation of `name`: on its open port the first time, then at the same address.
    pub async fn start(&mut self, name: &str) -> Member {
        let name = cluster(name);
        let port = match self.listeners.remove(&name) {
            Some(listener) => PeerPort::Open(listener),
            None => {
                let port = self.topology.borrow().cluster(&name).unwrap().control_plane.port;
                PeerPort::At(([127, 0, 0, 1], port).into())
            }
        };
        let credentials = Credentials::from_files(&certs::files_of(self.certificates.path(), &name)).unwrap();
        let config = Config {
            cluster: name.clone(),
            node: NodeName::new("0").unwrap(),
            topology: self.topology.subscribe(),
            credentials: Arc::new(credentials),
            port,
        };
        let disk = Arc::new(self.disks[&name].clone());
        let federation = start(config, Arc::new(TokioNet), disk, StdRng::seed_from_u64(7)).await.unwrap();
        let (local, receiver) = watch::channel(Arc::default());
        federation.publish(receiver);
        let (want, receiver) = watch::channel(BTreeSet::new());
        federation.want(receiver);
        let remote = federation.remote();
        Member { federation, local, want, remote }
    }
}
