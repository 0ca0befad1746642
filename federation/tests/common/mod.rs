//! Several federations in one process, over real sockets on loopback.
#![allow(dead_code, unreachable_pub, reason = "a module of tests, each of which uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use portolan_federation::certs;
use portolan_federation::disk::{Disk, MemoryDisk};
use portolan_federation::model::{Local, Remote};
use portolan_federation::net::{Listener, Net, TokioNet};
use portolan_federation::nodes::Nodes;
use portolan_federation::tls::Credentials;
use portolan_federation::{Config, Federation, PeerPort, StartError, start};
use portolan_topology::names::{ClusterName, NetworkName, NodeName, RegionName, ServiceId, ServicePort, ZoneName};
use portolan_topology::service::{Endpoint, EndpointsByZone, Health, LocalService, LocalServices, Port};
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
            control_plane: ControlPlane { host: "127.0.0.1".into(), port: *port, voter: true, config: false },
        };
        Region { name: region, zones, clusters: vec![cluster] }
    });
    Topology { name: "test".into(), regions: regions.collect(), links: vec![], failover: BTreeMap::new(), hash: 7 }
}

pub fn service(name: &str) -> ServiceId {
    ServiceId::new(name, "shop").unwrap()
}

pub fn zone(name: &str) -> ZoneName {
    ZoneName::new(name).unwrap()
}

/// Services in zone `z-a`, as (name, endpoints, how many of them are ready), each with port 8080.
pub fn local(services: &[(&str, u8, u8)]) -> Arc<Local> {
    let services = services.iter().map(|(name, total, ready)| {
        let endpoint = |n: u8| Endpoint {
            address: ([10, 0, 0, n], 80).into(),
            weight: 1.try_into().unwrap(),
            health: if n < *ready { Health::Ready } else { Health::NotReady },
            shard: None,
        };
        let endpoints: EndpointsByZone = [(Some(zone("z-a")), (0..*total).map(endpoint).collect())].into();
        let service = LocalService {
            id: service(name),
            ports: vec![Port { number: 8080, name: Some("grpc".into()) }],
            endpoints: [(8080, endpoints)].into(),
            capacity: None,
            warmup: None,
        };
        (service.id.clone(), Arc::new(service))
    });
    let services = LocalServices { synced: true, services: services.collect() };
    Arc::new(Local { services: Arc::new(services), topology_hash: 7, ..Local::default() })
}

/// `checkout` with ready endpoints at `addresses`.
pub fn checkout_at(addresses: &[SocketAddr]) -> Arc<Local> {
    let endpoint = |address: &SocketAddr| Endpoint {
        address: *address,
        weight: 1.try_into().unwrap(),
        health: Health::Ready,
        shard: None,
    };
    let checkout = LocalService {
        id: service("checkout"),
        ports: vec![Port { number: 8080, name: None }],
        endpoints: [(8080, [(Some(zone("z-a")), addresses.iter().map(endpoint).collect())].into())].into(),
        capacity: None,
        warmup: None,
    };
    let services = LocalServices { synced: true, services: [(service("checkout"), Arc::new(checkout))].into() };
    Arc::new(Local { services: Arc::new(services), topology_hash: 7, ..Local::default() })
}

/// How many endpoints of `checkout` are ready in a cluster, by its facts.
pub fn ready_of(remote: &Remote, name: &str) -> Option<u8> {
    let zones = &remote.clusters[&cluster(name)].services.get(&service("checkout"))?.zones;
    u8::try_from(zones.values().map(|fact| fact.endpoints.ready).sum::<u32>()).ok()
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
    seed: u64,
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
        Self { certificates, topology: watch::Sender::new(Arc::new(topology)), disks, listeners, seed: 0 }
    }

    pub fn certificates(&self) -> &Path {
        self.certificates.path()
    }

    /// Waits until `name` has written `record`.
    pub async fn saved(&self, name: &str, record: &str) {
        let disk = &self.disks[&cluster(name)];
        while disk.read(record).unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    }

    /// Starts the federation of `name`: on its open port the first time, then at the same address.
    pub async fn start(&mut self, name: &str) -> Member {
        let name = cluster(name);
        let credentials = Credentials::from_files(&certs::files_of(self.certificates.path(), &name)).unwrap();
        let credentials = Arc::new(credentials);
        self.seed += 1;
        let federation = loop {
            let port = match self.listeners.remove(&name) {
                Some(listener) => PeerPort::Open(listener),
                None => {
                    let port = self.topology.borrow().cluster(&name).unwrap().control_plane.port;
                    PeerPort::At(([127, 0, 0, 1], port).into())
                }
            };
            let config = Config {
                cluster: name.clone(),
                node: NodeName::new("0").unwrap(),
                topology: self.topology.subscribe(),
                credentials: credentials.clone(),
                port,
                nodes: Nodes::alone(),
            };
            let disk = Arc::new(self.disks[&name].clone());
            match start(config, Arc::new(TokioNet), disk, StdRng::seed_from_u64(self.seed)).await {
                Ok(federation) => break federation,
                // The port of a federation that was dropped just now is not closed yet.
                Err(StartError::Listen { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        let (local, receiver) = watch::channel(Arc::default());
        federation.publish(receiver);
        let (want, receiver) = watch::channel(BTreeSet::new());
        federation.want(receiver);
        let remote = federation.remote();
        Member { federation, local, want, remote }
    }
}
