//! The simulated world: three regions with a cluster each, its control planes, its backends, and watching clients.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use portolan_controlplane::config::{Config, SourceFrom, TopologyFrom, XdsPort};
use portolan_controlplane::gateway::objects::GatewayObjects;
use portolan_controlplane::publishing::PublisherFrom;
use portolan_controlplane::source::{Source, SourceStatus};
use portolan_controlplane::start;
use portolan_federation::disk::MemoryDisk;
use portolan_federation::model::{Remote, RemoteCluster, Role};
use portolan_federation::policy::{Command, Outcome, PolicyChange, Standing, WriteError};
use portolan_federation::tls::{ClientCertificates, Credentials};
use portolan_federation::{Federation, PeerPort, certs};
use portolan_topology::names::{ClusterName, NodeName, ServiceId, ZoneName};
use portolan_topology::policy::{PolicySet, document};
use portolan_topology::service::{Endpoint, Health, LocalService, LocalServices, Port};
use portolan_topology::topology::Topology;
use portolan_topology::view::Liveness;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot, watch};
use turmoil::Sim;

use crate::client::{Assignment, Client, Told};
use crate::lease::SimLease;
use crate::net::SimNet;

const TOPOLOGY: &str = "
apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {name: fleet}
spec:
  regions:
    - {name: us, zones: [us-1], clusters: [{name: a, controlPlane: {address: plane-a, voter: true}}]}
    - {name: eu, zones: [eu-1], clusters: [{name: b, controlPlane: {address: plane-b, voter: true}}]}
    - {name: ap, zones: [ap-1], clusters: [{name: c, controlPlane: {address: plane-c, voter: true}}]}
  failover:
    us: [{region: eu, weight: 70}, {region: ap, weight: 30}]
    eu: [{region: us, weight: 50}, {region: ap, weight: 50}]
    ap: [{region: us, weight: 50}, {region: eu, weight: 50}]
";

/// The same federation when cluster `a` has several nodes, behind one address.
const SERVICE: (&str, &str) = ("address: plane-a,", "address: service-a,");

/// Cluster, region, zone, and how many endpoints `checkout.shop` has there.
const CLUSTERS: [(&str, &str, &str, u16); 3] = [("a", "us", "us-1", 3), ("b", "eu", "eu-1", 4), ("c", "ap", "ap-1", 2)];
const FIRST_BACKEND: u16 = 9000;
const TICK: Duration = Duration::from_millis(10);

type Write = (Command, oneshot::Sender<Result<Outcome, WriteError>>);

/// A control plane's host, through its lives.
struct Plane {
    cluster: ClusterName,
    node: NodeName,
    nodes: Vec<(NodeName, String)>,
    /// `None`: it is the only node.
    lease: Option<Arc<SimLease>>,
    topology: Arc<Topology>,
    services: Arc<LocalServices>,
    credentials: Arc<Credentials>,
    disk: MemoryDisk,
    seed: u64,
    lives: AtomicU64,
    writes: tokio::sync::Mutex<mpsc::UnboundedReceiver<Write>>,
    view: Mutex<Option<View>>,
}

/// What a running control plane shows.
#[derive(Clone)]
struct View {
    federation: Arc<Federation>,
    remote: watch::Receiver<Arc<Remote>>,
    policy: watch::Receiver<Arc<PolicySet>>,
    standing: watch::Receiver<Standing>,
}

impl Plane {
    /// One life: what `portolan serve` does once flags are read.
    async fn live(self: Arc<Self>) -> turmoil::Result {
        let at = |port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        let status = SourceStatus { synced: true, ..SourceStatus::default() };
        let (_topology, topology) = watch::channel(self.topology.clone());
        let (_services, services) = watch::channel(self.services.clone());
        let (_status, status) = watch::channel(Arc::new(status));
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let publisher = match &self.lease {
            None => PublisherFrom::Always,
            Some(lease) => PublisherFrom::Given(lease.clone().claim(self.node.clone(), life)),
        };
        let config = Config {
            cluster: self.cluster.clone(),
            node: self.node.clone(),
            nodes: self.nodes.clone(),
            publisher,
            topology: TopologyFrom::Given(topology),
            source: SourceFrom::Given(Source {
                services,
                gateways: watch::channel(Arc::new(GatewayObjects::none())).1,
                status,
            }),
            credentials: self.credentials.clone(),
            peers: PeerPort::At(at(7443)),
            xds: XdsPort { address: at(7444), tls: Some(ClientCertificates::Required) },
            plaintext: None,
            admin: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 7480),
            metrics: at(7481),
        };
        let seed = self.seed + 1000 * life;
        let disk = Arc::new(self.disk.clone());
        let running = start(config, Arc::new(SimNet), disk, StdRng::seed_from_u64(seed)).await?;
        running.readiness().wait().await;
        let (remote, policy) = (running.federation().remote(), running.federation().policy());
        let federation = running.federation().clone();
        *self.view.lock() = Some(View { federation, remote, policy: policy.set(), standing: policy.standing() });
        let mut writes = self.writes.lock().await;
        while let Some((command, answer)) = writes.recv().await {
            let _ = answer.send(policy.write(command).await);
        }
        running.stop().await;
        Ok(())
    }
}

/// The fleet, and the time that passes for it.
pub struct Fleet {
    sim: Sim<'static>,
    planes: BTreeMap<&'static str, (Arc<Plane>, mpsc::UnboundedSender<Write>)>,
    told: BTreeMap<&'static str, Told>,
    /// Whether the clients refuse what they are told.
    pub refuses: Arc<AtomicBool>,
    /// Which node of `a` publishes.
    pub lease: Arc<SimLease>,
    /// The endpoints of each region, as its own source lists them.
    pub endpoints: BTreeMap<String, BTreeSet<SocketAddr>>,
    topology: Arc<Topology>,
    _certificates: tempfile::TempDir,
}

impl Fleet {
    /// Everything starts at once; each client asks for `checkout.shop` in `us-1` at one of `nodes`, the control planes of
    /// cluster `a`.
    pub fn new(seed: u64, nodes: &[&'static str]) -> Self {
        let several = nodes.len() > 1;
        let text = if several { TOPOLOGY.replacen(SERVICE.0, SERVICE.1, 1) } else { TOPOLOGY.to_owned() };
        let topology = Arc::new(Topology::parse("topology.yaml", &text).unwrap().0);
        let certificates = tempfile::tempdir().unwrap();
        certs::dev(certificates.path(), &topology, &[], jiff::Timestamp::now()).unwrap();
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .simulation_duration(Duration::from_secs(3600))
            .tick_duration(TICK)
            .min_message_latency(Duration::from_millis(10))
            .max_message_latency(Duration::from_millis(40))
            .tcp_capacity(1024)
            .build();
        let lease = Arc::new(SimLease::default());
        let (mut planes, mut endpoints, mut told) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (n, (name, region, zone, backends)) in (0..).zip(CLUSTERS) {
            let host = format!("backends-{name}");
            let addresses = (0..backends).map(|n| SocketAddr::new(sim.lookup(host.as_str()), FIRST_BACKEND + n));
            let addresses: BTreeSet<_> = addresses.collect();
            sim.host(host.as_str(), move || accept(backends));
            let cluster = ClusterName::new(name).unwrap();
            let files = certs::files_of(certificates.path(), &cluster);
            let hosts: &[&str] = if name == "a" { nodes } else { std::slice::from_ref(&name) };
            let all: Vec<_> = hosts.iter().map(|host| (node_of(host), format!("{}:7443", host_of(host)))).collect();
            for (m, host) in (0..).zip(hosts.iter().copied()) {
                let (write, writes) = mpsc::unbounded_channel();
                let plane = Arc::new(Plane {
                    cluster: cluster.clone(),
                    node: node_of(host),
                    nodes: if hosts.len() > 1 { all.clone() } else { Vec::new() },
                    lease: (hosts.len() > 1).then(|| lease.clone()),
                    topology: topology.clone(),
                    services: checkout(zone, &addresses),
                    credentials: Arc::new(Credentials::from_files(&files).unwrap()),
                    disk: MemoryDisk::default(),
                    seed: seed + n + 100 * m,
                    lives: AtomicU64::new(0),
                    writes: tokio::sync::Mutex::new(writes),
                    view: Mutex::new(None),
                });
                planes.insert(host, (plane.clone(), write));
                sim.host(host_of(host), move || plane.clone().live());
            }
            endpoints.insert(region.to_owned(), addresses);
        }
        let credentials = Credentials::from_files(&certs::client_files(certificates.path())).unwrap();
        let (credentials, refuses) = (Arc::new(credentials), Arc::new(AtomicBool::default()));
        for node in nodes {
            let slot = Told::default();
            let client = Client {
                credentials: credentials.clone(),
                cluster: "a",
                host: host_of(node),
                zone: "us-1",
                service: "checkout.shop:8080",
                told: slot.clone(),
                refuses: refuses.clone(),
            };
            told.insert(*node, slot);
            // The client of a control plane that dies is not asked how it liked that.
            sim.client(format!("client-{node}"), async move {
                let ended = client.run().await;
                if several { Ok(()) } else { ended }
            });
        }
        Self { sim, planes, told, refuses, lease, endpoints, topology, _certificates: certificates }
    }

    /// A fleet whose clusters all know each other, with a policy group, whose client has everything.
    pub fn settled(seed: u64) -> Self {
        Self::settled_with(seed, &["a"])
    }

    /// The same with these nodes of cluster `a`.
    pub fn settled_with(seed: u64, nodes: &[&'static str]) -> Self {
        let mut fleet = Self::new(seed, nodes);
        fleet.until("the fleet is whole", |fleet| {
            let all = |told: &Told| told.lock().last().is_some_and(|told| told.healthy == fleet.endpoints);
            fleet.is_whole() && fleet.told.values().all(all)
        });
        fleet
    }

    /// Whether each cluster hears every other and holds all of its facts, and all are in one policy group with a leader.
    pub fn is_whole(&self) -> bool {
        let standings: Vec<_> = self.planes.keys().filter_map(|name| self.standing(name)).collect();
        let groups: BTreeSet<_> = standings.iter().map(|standing| standing.group.clone()).collect();
        let known = self.planes.iter().all(|(of, (plane, _))| {
            let mut others = CLUSTERS.iter().map(|(name, ..)| *name).filter(|name| *name != plane.cluster.as_str());
            others.all(|other| {
                self.remote(of, other).is_some_and(|known| known.complete && known.liveness == Liveness::Fresh)
            })
        });
        let in_group = standings.len() == self.planes.len() && groups.len() == 1 && !groups.contains(&None);
        let leaders = self.planes.iter().filter(|(name, _)| {
            // Nodes of one cluster share its standing.
            CLUSTERS.iter().any(|(cluster, ..)| cluster == *name)
                && self.standing(name).is_some_and(|standing| standing.role == Some(Role::Leader))
        });
        let leaders = leaders.count();
        known && in_group && leaders == 1 && standings.iter().all(|standing| standing.role.is_some())
    }

    /// What the control plane of `of` knows of `other`.
    pub fn remote(&self, of: &str, other: &str) -> Option<Arc<RemoteCluster>> {
        let view = self.planes[of].0.view.lock().clone()?;
        view.remote.borrow().clusters.get(&ClusterName::new(other).unwrap()).cloned()
    }

    /// How many clients of its whole cluster refuse something, as the control plane of `of` has it.
    pub fn nacked(&self, of: &str) -> Option<u32> {
        Some(self.planes[of].0.view.lock().clone()?.federation.nacked())
    }

    /// How much the control plane of `of` trusts what it knows of `other`.
    pub fn liveness(&self, of: &str, other: &str) -> Option<Liveness> {
        Some(self.remote(of, other)?.liveness)
    }

    /// Where the control plane of `of` stands in the policy group.
    pub fn standing(&self, of: &str) -> Option<Standing> {
        let view = self.planes[of].0.view.lock().clone()?;
        Some(view.standing.borrow().clone())
    }

    /// The revision of the policy that the control plane of `of` has applied.
    pub fn revision(&self, of: &str) -> Option<u64> {
        let view = self.planes[of].0.view.lock().clone()?;
        Some(view.policy.borrow().revision)
    }

    /// The newest that `a`'s client was told.
    pub fn last_told(&self) -> Option<Assignment> {
        self.told["a"].lock().last().cloned()
    }

    /// Every assignment that `a`'s client was told after the first `seen`.
    pub fn told_since(&self, seen: usize) -> Vec<Assignment> {
        self.told["a"].lock()[seen..].to_vec()
    }

    /// How many assignments `a`'s client was told.
    pub fn told_count(&self) -> usize {
        self.told_at("a").len()
    }

    /// Every assignment that the client of the control plane `at` was told.
    pub fn told_at(&self, at: &str) -> Vec<Assignment> {
        self.told[at].lock().clone()
    }

    /// The nodes that say of themselves that they publish for cluster `a`.
    pub fn publishers(&self) -> Vec<&'static str> {
        let own = |plane: &Plane| {
            let view = plane.view.lock().clone();
            view.is_some_and(|view| view.federation.nodes().iter().any(|node| node.own && node.publisher))
        };
        let of_a = self.planes.iter().filter(|(_, (plane, _))| plane.cluster.as_str() == "a");
        of_a.filter(|(_, (plane, _))| own(plane)).map(|(name, _)| *name).collect()
    }

    /// The policy that the control plane `of` has applied.
    pub fn policy(&self, of: &str) -> Option<Arc<PolicySet>> {
        let view = self.planes[of].0.view.lock().clone()?;
        Some(view.policy.borrow().clone())
    }

    /// The endpoint lists that the control plane `of` holds.
    pub fn lists(&self, of: &str) -> Option<usize> {
        let view = self.planes[of].0.view.lock().clone()?;
        Some(view.remote.borrow().lists.values().filter(|list| !list.endpoints.is_empty()).count())
    }

    /// Writes a policy object at the control plane of `at`; the revision once it is applied there.
    pub fn write(&mut self, at: &str, yaml: &str) -> u64 {
        match self.try_write(at, yaml).unwrap() {
            Outcome::Applied { revision } => revision,
            other => panic!("{other:?}"),
        }
    }

    /// Writes a policy object at the control plane of `at`, and waits for the answer.
    pub fn try_write(&mut self, at: &str, yaml: &str) -> Result<Outcome, WriteError> {
        let objects = document::parse("policy.yaml", yaml, Some(&self.topology)).unwrap();
        let change = PolicyChange::Apply(objects);
        let command = Command {
            change,
            expected_revision: None,
            owner: Default::default(),
            take_over: false,
            by: "test".to_owned(),
            at: jiff::Timestamp::now(),
        };
        let (answer, mut answered) = oneshot::channel();
        self.planes[at].1.send((command, answer)).unwrap();
        let mut outcome = None;
        self.until("the write is answered", |_| {
            outcome = answered.try_recv().ok();
            outcome.is_some()
        });
        outcome.unwrap()
    }

    /// Lets time pass until something holds; a simulated minute is the limit.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let limit = self.sim.elapsed() + Duration::from_secs(60);
        while !holds(self) {
            assert!(self.sim.elapsed() < limit, "never: {what}\n{}", self.describe());
            self.sim.step().unwrap();
        }
    }

    /// How much time has passed.
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Lets this much time pass.
    pub fn pass(&mut self, time: Duration) {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.sim.step().unwrap();
        }
    }

    /// Loses all that the hosts `one` and `others` send each other.
    pub fn partition(&self, one: &str, others: &[&str]) {
        others.iter().for_each(|other| self.sim.partition(one, *other));
    }

    /// Ends a [`Fleet::partition`].
    pub fn repair(&self, one: &str, others: &[&str]) {
        others.iter().for_each(|other| self.sim.repair(one, *other));
    }

    /// Kills the control plane of `of`: nothing that it holds in memory is saved, its connections close.
    pub fn crash(&mut self, of: &str) {
        self.sim.crash(host_of(of));
        *self.planes[of].0.view.lock() = None;
    }

    /// Starts the control plane of `of` again, on the same disk.
    pub fn bounce(&mut self, of: &str) {
        self.sim.bounce(host_of(of));
    }

    fn describe(&self) -> String {
        let mut text = format!("the client was told last: {:#?}\n", self.last_told());
        text.push_str(&format!("{:?} publish for a\n", self.publishers()));
        for of in self.planes.keys() {
            text.push_str(&format!("{of}: {:?}\n", self.standing(of)));
            for (other, ..) in CLUSTERS {
                let known = self.remote(of, other).map(|known| (known.liveness, known.complete, known.version));
                text.push_str(&format!("  of {other}: {known:?}\n"));
            }
        }
        text
    }
}

/// The host of a control plane: a cluster's only one, or one of its nodes.
pub fn host_of(plane: &str) -> String {
    format!("plane-{plane}")
}

fn node_of(plane: &str) -> NodeName {
    NodeName::new(plane).unwrap()
}

/// `checkout.shop` with port 8080 and ready endpoints at `addresses`.
fn checkout(zone: &str, addresses: &BTreeSet<SocketAddr>) -> Arc<LocalServices> {
    let id = ServiceId::new("checkout", "shop").unwrap();
    let endpoint = |address: &SocketAddr| Endpoint {
        address: *address,
        weight: NonZeroU32::MIN,
        health: Health::Ready,
        shard: None,
    };
    let listed = addresses.iter().map(endpoint).collect();
    let service = LocalService {
        id: id.clone(),
        ports: vec![Port { number: 8080, name: Some("grpc".into()) }],
        endpoints: [(8080, [(Some(ZoneName::new(zone).unwrap()), listed)].into())].into(),
        capacity: None,
        warmup: None,
    };
    Arc::new(LocalServices { synced: true, services: [(id, Arc::new(service))].into() })
}

/// Backends that take connections, which is all that probes ask.
async fn accept(backends: u16) -> turmoil::Result {
    let mut listening = tokio::task::JoinSet::new();
    for n in 0..backends {
        let address = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), FIRST_BACKEND + n);
        let listener = turmoil::net::TcpListener::bind(address).await?;
        listening.spawn(async move { while listener.accept().await.is_ok() {} });
    }
    listening.join_all().await;
    Ok(())
}
