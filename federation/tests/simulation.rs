//! Three federations in one simulated network, in simulated time: a partition, and what comes after.
#![allow(clippy::unwrap_used, reason = "a failure here is the test's failure")]

mod common;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::{checkout_at, cluster, ready_of, service, topology};
use portolan_federation::disk::MemoryDisk;
use portolan_federation::model::{Local, Remote};
use portolan_federation::net::{BoxStream, Listener, Net};
use portolan_federation::nodes::Nodes;
use portolan_federation::tls::Credentials;
use portolan_federation::{Config, PeerPort, certs, start};
use portolan_topology::names::{NodeName, ServicePort};
use portolan_topology::topology::Topology;
use portolan_topology::view::Liveness;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use turmoil::net::{TcpListener, TcpStream};

const PEER_PORT: u16 = 7443;
const BACKEND_PORT: u16 = 8080;

struct SimulatedNet;

#[async_trait]
impl Net for SimulatedNet {
    async fn dial(&self, address: &str) -> io::Result<BoxStream> {
        Ok(Box::new(TcpStream::connect(address).await?))
    }

    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(SimulatedListener(TcpListener::bind(address).await?)))
    }

    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = address.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
        let port = port.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(vec![SocketAddr::new(turmoil::lookup(host), port)])
    }
}

struct SimulatedListener(TcpListener);

#[async_trait]
impl Listener for SimulatedListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Box::new(stream), peer))
    }
}

/// The ends of a member's pipes, for whoever watches the simulation.
#[derive(Clone)]
struct Ends {
    local: watch::Sender<Arc<Local>>,
    remote: watch::Receiver<Arc<Remote>>,
}

type Members = Rc<RefCell<BTreeMap<&'static str, Ends>>>;

/// One member's process: a federation, and a backend of `checkout` beside it.
async fn member(
    name: &'static str,
    certificates: Rc<Path>,
    topology: Arc<Topology>,
    disk: MemoryDisk,
    members: Members,
) -> turmoil::Result {
    let config = Config {
        cluster: cluster(name),
        node: NodeName::new("0")?,
        topology: watch::channel(topology).1,
        credentials: Arc::new(Credentials::from_files(&certs::files_of(&certificates, &cluster(name)))?),
        port: PeerPort::At((Ipv4Addr::UNSPECIFIED, PEER_PORT).into()),
        nodes: Nodes::alone(),
    };
    let rng = StdRng::seed_from_u64(name.len() as u64);
    let federation = start(config, Arc::new(SimulatedNet), Arc::new(disk), rng).await?;
    let (local, receiver) = watch::channel(checkout_at(&[(turmoil::lookup(name), BACKEND_PORT).into()]));
    federation.publish(receiver);
    let wanted = ServicePort { service: service("checkout"), port: 8080 };
    federation.want(watch::channel(BTreeSet::from([wanted])).1);
    members.borrow_mut().insert(name, Ends { local, remote: federation.remote() });
    let backend = TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), BACKEND_PORT)).await?;
    loop {
        backend.accept().await?;
    }
}

/// Waits until what `name` knows satisfies `condition`, in simulated time.
async fn until(members: &Members, name: &str, what: &str, condition: impl Fn(&Remote) -> bool) {
    let begun = tokio::time::Instant::now();
    loop {
        let ends = members.borrow().get(name).cloned();
        if let Some(ends) = ends
            && condition(&ends.remote.borrow())
        {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{name}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn liveness(remote: &Remote, of: &str) -> Liveness {
    remote.clusters[&cluster(of)].liveness
}

/// Runs `script` in a simulation of members `a`, `b` and `c`.
fn simulate<F: Future<Output = ()> + 'static>(script: impl FnOnce(Members) -> F) {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    let mut topology = topology(&NAMES.map(|name| (name, PEER_PORT)));
    for region in &mut topology.regions {
        for cluster in &mut region.clusters {
            cluster.control_plane.host = cluster.name.to_string();
        }
    }
    let topology = Arc::new(topology);
    let folder = tempfile::tempdir().unwrap();
    certs::dev(folder.path(), &topology, &[], jiff::Timestamp::now()).unwrap();
    let mut sim = turmoil::Builder::new()
        .simulation_duration(Duration::from_secs(300))
        .tick_duration(Duration::from_millis(5))
        .max_message_latency(Duration::from_millis(50))
        .rng_seed(7)
        .build();
    let members = Members::default();
    for name in NAMES {
        let (certificates, topology, members) = (Rc::from(folder.path()), topology.clone(), members.clone());
        let disk = MemoryDisk::default();
        sim.host(name, move || member(name, Rc::clone(&certificates), topology.clone(), disk.clone(), members.clone()));
    }
    let script = script(members);
    sim.client("script", async move {
        script.await;
        Ok(())
    });
    sim.run().unwrap();
}

#[test]
fn a_partition_drops_nothing_and_what_changed_meanwhile_comes_after() {
    simulate(|members| async move {
        for name in ["b", "c"] {
            until(&members, name, "a's facts and list", |remote| {
                ready_of(remote, "a") == Some(1) && remote.lists.keys().any(|(of, _)| *of == cluster("a"))
            })
            .await;
        }
        turmoil::partition("a", "b");
        turmoil::partition("a", "c");
        until(&members, "b", "a suspected", |remote| liveness(remote, "a") != Liveness::Fresh).await;
        // Who is cut off from everyone blames itself, as far as it can know, and drops nobody.
        until(&members, "a", "b quiet as well", |remote| liveness(remote, "b") != Liveness::Fresh).await;
        let (a, b) = (members.borrow()["a"].clone(), members.borrow()["b"].clone());
        assert_eq!(ready_of(&a.remote.borrow(), "b"), Some(1));
        assert_eq!(ready_of(&b.remote.borrow(), "a"), Some(1));
        assert_eq!(liveness(&b.remote.borrow(), "c"), Liveness::Fresh);
        let backend = turmoil::lookup("a");
        a.local.send_replace(checkout_at(&[(backend, BACKEND_PORT).into(), (backend, BACKEND_PORT + 1).into()]));
        turmoil::repair("a", "b");
        turmoil::repair("a", "c");
        for name in ["b", "c"] {
            until(&members, name, "a back, with its change", |remote| {
                liveness(remote, "a") == Liveness::Fresh && ready_of(remote, "a") == Some(2)
            })
            .await;
        }
    });
}

#[test]
fn gossip_goes_round_a_broken_link() {
    simulate(|members| async move {
        until(&members, "b", "a's facts", |remote| ready_of(remote, "a") == Some(1)).await;
        turmoil::partition("a", "b");
        // Long enough for every stream between them to be given up.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let (a, b) = (members.borrow()["a"].clone(), members.borrow()["b"].clone());
        assert_eq!(liveness(&b.remote.borrow(), "a"), Liveness::Fresh, "c tells of it");
        let backend = turmoil::lookup("a");
        a.local.send_replace(checkout_at(&[(backend, BACKEND_PORT).into(), (backend, BACKEND_PORT + 1).into()]));
        until(&members, "b", "the change, through c", |remote| ready_of(remote, "a") == Some(2)).await;
    });
}
