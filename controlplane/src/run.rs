//! The whole control plane: opens its ports, starts each stage, and hands the one's output to the next.

use std::collections::BTreeSet;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use portolan_federation::disk::Disk;
use portolan_federation::net::{Listener, Net};
use portolan_federation::nodes::Nodes;
use portolan_federation::tls::{CredentialsError, Incoming, Refusals, Rule};
use portolan_federation::{Federation, policy};
use portolan_topology::names::ServicePort;
use portolan_topology::policy::PolicySet;
use portolan_topology::service::LocalServices;
use portolan_topology::topology::Topology;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use crate::admin::model::XdsSecurity;
use crate::admin::{self, Admin};
use crate::catalog::{Demand, LiveCatalog, Streams};
use crate::config::{Config, SourceFrom, TopologyFrom};
use crate::demand;
use crate::gateway::{self, live::Gateways};
use crate::kube::Stage;
use crate::kube::mcs::exports::{self, Exports};
use crate::kube::mirror::Forbidden;
use crate::lrs::service::LoadReports;
use crate::lrs::store::LoadStore;
use crate::ports::{self, Http, Only, PortError};
use crate::publishing::Publishing;
use crate::readiness::Readiness;
use crate::slots::changed;
use crate::source::damped;
use crate::source::files::{FilesError, FilesSource};
use crate::source::kube::KubeSource;
use crate::telling::{self, Telling};
use crate::topology_file::{TopologyError, TopologyFile, TopologyStatus};
use crate::xds::csds::ClientStatus;
use crate::xds::server::{XdsServer, transport};
use crate::{grpc_health, grpc_reflection};

/// How long open streams may go on after the end was asked for.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why a control plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The topology cannot be used.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] FilesError),
    /// A port cannot be opened.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The description of the gRPC services is damaged.
    #[error("gRPC reflection cannot start: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The federation's part cannot start.
    #[error(transparent)]
    Federation(#[from] portolan_federation::StartError),
}

/// Where a control plane listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// Other control planes.
    pub peers: SocketAddr,
    /// xDS clients.
    pub xds: SocketAddr,
    /// xDS clients in plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xds_plaintext: Option<SocketAddr>,
    /// The admin interface.
    pub admin: SocketAddr,
    /// Health and metrics.
    pub metrics: SocketAddr,
}

/// A running control plane. Dropping it ends it at once; [`Running::stop`] ends it in order.
pub struct Running {
    addresses: Addresses,
    readiness: Readiness,
    catalog: Arc<LiveCatalog>,
    federation: Arc<Federation>,
    publishing: Publishing,
    shutdown: CancellationToken,
    catalog_task: JoinHandle<()>,
    servers: Vec<AbortOnDropHandle<()>>,
    kube: Option<Stage>,
    _stages: Vec<Box<dyn Send + Sync>>,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What is left before it is ready.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// What it serves.
    #[must_use]
    pub fn catalog(&self) -> &Arc<LiveCatalog> {
        &self.catalog
    }

    /// Its part of the federation.
    #[must_use]
    pub fn federation(&self) -> &Arc<Federation> {
        &self.federation
    }

    /// Ends it: ports are closed, plans are on disk, policy's log is as it is.
    pub async fn stop(self) {
        self.shutdown.cancel();
        let _ = self.catalog_task.await;
        let servers = async {
            for server in self.servers {
                let _ = server.await;
            }
        };
        if let Some(kube) = self.kube {
            kube.stop().await;
        }
        // Streams of xDS have no end of their own: those that are still open are cut.
        let _ = tokio::time::timeout(FAREWELL, servers).await;
        // Before the seat: whoever publishes next wants to relay to it.
        self.publishing.stop(&self.federation).await;
        self.federation.policy().stop().await;
    }
}

/// Runs a control plane until `shutdown`.
pub async fn run(
    config: Config,
    net: Arc<dyn Net>,
    disk: Arc<dyn Disk>,
    rng: StdRng,
    shutdown: CancellationToken,
) -> Result<(), StartError> {
    let running = start(config, net, disk, rng).await?;
    shutdown.cancelled().await;
    running.stop().await;
    Ok(())
}

/// Starts a control plane. Once this returns, its ports are open and every stage runs.
pub async fn start(
    config: Config,
    net: Arc<dyn Net>,
    disk: Arc<dyn Disk>,
    mut rng: StdRng,
) -> Result<Running, StartError> {
    let started = tokio::time::Instant::now();
    let mut kube_rng = StdRng::seed_from_u64(rng.random());
    let readiness = Readiness::new();
    let mut stages: Vec<Box<dyn Send + Sync>> = Vec::new();
    let (topology, topology_status) = match config.topology {
        TopologyFrom::File(path) => {
            let file = TopologyFile::start(path, config.cluster.clone())?;
            let streams = (file.topology(), file.status());
            stages.push(Box::new(file));
            streams
        }
        TopologyFrom::Given(topology) => (topology, watch::channel(Arc::<TopologyStatus>::default()).1),
    };
    let trust_domain: Arc<str> = topology.borrow().name.as_str().into();
    config.credentials.check(&trust_domain, &config.cluster)?;
    stages.push(Box::new(AbortOnDropHandle::new(tokio::spawn(config.credentials.clone().keep_current()))));
    // Who reads its services from Kubernetes is asked there, too, and writes back.
    let mut kubernetes = None;
    let source = match config.source {
        SourceFrom::Files(folder) => {
            let files = FilesSource::start(folder).await?;
            let source = files.source();
            stages.push(Box::new(files));
            source
        }
        SourceFrom::Kube(kube) => {
            let running = KubeSource::start(&kube, topology.clone(), &mut rng);
            let source = running.source();
            kubernetes = Some((kube, running.notes()));
            stages.push(Box::new(running));
            source
        }
        SourceFrom::Given(source) => source,
    };
    let source = damped(source);

    // Every port is open before anything speaks: a port in use ends the start, not a running system.
    let (xds_listener, xds) = ports::open(&*net, config.xds.address, "xDS clients", "--xds-addr").await?;
    let mut plaintext = None;
    if let Some(port) = config.plaintext {
        let purpose = "xDS clients in plain text";
        let (listener, bound) = ports::open(&*net, port.address, purpose, "--xds-plaintext-addr").await?;
        plaintext = Some((listener, bound, port.from));
    }
    let (admin_listener, admin_at) = ports::open(&*net, config.admin, "administration", "--admin-addr").await?;
    let (metrics_listener, metrics_at) =
        ports::open(&*net, config.metrics, "health and metrics", "--metrics-addr").await?;

    let (publishing, election) = Publishing::start(config.publisher);
    let federation = portolan_federation::start(
        portolan_federation::Config {
            cluster: config.cluster.clone(),
            node: config.node.clone(),
            topology: topology.clone(),
            credentials: config.credentials.clone(),
            port: config.peers,
            nodes: Nodes { all: config.nodes, election },
        },
        net.clone(),
        disk.clone(),
        rng,
    )
    .await?;
    let federation = Arc::new(federation);

    let loads = Arc::new(LoadStore::default());
    let (demand_slot, own_demand) = watch::channel(Arc::<Demand>::default());
    tokio::spawn(demand::run(config.cluster.clone(), loads.clone(), demand_slot));
    let streams = Streams {
        topology: topology.clone(),
        local: source.services.clone(),
        remote: federation.remote(),
        policy: loaded_policy(federation.policy(), topology.clone()),
        demand: federation.demand(),
    };
    let standing = federation.policy().standing();
    let forbidden = Forbidden::default();
    let exports = match &kubernetes {
        Some((kube, _)) => exports::follow(&kube.client, kube.exporting, &forbidden),
        None => watch::channel(Arc::new(Exports::everything())).1,
    };
    let catalog = LiveCatalog::new(config.cluster.clone(), &streams, disk, Timestamp::now());
    let (imported, imports) = watch::channel(BTreeSet::new());
    federation.want(both(catalog.wanted(), imports));
    let shutdown = CancellationToken::new();
    let catalog_task = tokio::spawn(catalog.clone().run(streams, net, shutdown.clone()));
    synced(source.services.clone(), &readiness);

    let addresses = Addresses {
        peers: federation.peer_addr(),
        xds,
        xds_plaintext: plaintext.as_ref().map(|(_, bound, _)| *bound),
        admin: admin_at,
        metrics: metrics_at,
    };
    let server = XdsServer::new(catalog.clone(), topology.clone(), config.cluster.clone());
    let (nacked_slot, nacked) = watch::channel(0);
    tokio::spawn(telling::count_nacked(server.clients().clone(), nacked_slot));
    federation.publish(telling::start(Telling {
        services: source.services.clone(),
        exports: exports.clone(),
        demand: own_demand,
        nacked,
        topology: topology.clone(),
        policy: standing,
    }));
    let gateways = Gateways::start(gateway::live::Inputs {
        cluster: config.cluster.clone(),
        topology: topology.clone(),
        objects: source.gateways.clone(),
        catalog: catalog.clone(),
        book: server.gateways().clone(),
        services: server.services().clone(),
    });
    let refusals = Arc::new(Refusals::new("xds"));
    let rule = match config.xds.tls {
        Some(clients) => Rule::Clients { tls: config.credentials.server(clients)?, trust_domain },
        None => Rule::Plain,
    };
    let admin = Arc::new(Admin {
        cluster: config.cluster,
        node: config.node,
        started,
        certificate: config.credentials.status(),
        addresses,
        xds_security: XdsSecurity::of(config.xds.tls),
        plaintext_from: plaintext.as_ref().map(|(_, _, from)| from.clone()).unwrap_or_default(),
        readiness: readiness.clone(),
        topology,
        topology_status,
        source,
        catalog: catalog.clone(),
        gateways: gateways.statuses(),
        forbidden,
        federation: federation.clone(),
        xds: server.clone(),
        loads: loads.clone(),
        xds_refusals: refusals.clone(),
    });
    stages.push(Box::new(gateways));
    let load_reports = LoadReports::new(loads, admin.topology.clone(), admin.cluster.clone());
    let health = grpc_health::follow(readiness.clone()).await;
    let xds_services = (server, load_reports, health, grpc_reflection::service()?);
    let mut servers = vec![
        serve_xds(&xds_services, xds_listener, rule, refusals.clone(), &shutdown),
        serve_http(admin_listener, admin::router(admin.clone()), &shutdown),
        serve_http(metrics_listener, admin::health_router(admin.clone()), &shutdown),
    ];
    if let Some((listener, _, from)) = plaintext {
        let only = Only { listener, from, refusals: refusals.clone() };
        servers.push(serve_xds(&xds_services, Box::new(only), Rule::Plain, refusals, &shutdown));
    }
    let kube = kubernetes.map(|(kube, notes)| {
        Stage::start(&admin, &kube.client, exports, imported, notes, kube.gateways, &mut kube_rng)
    });
    Ok(Running {
        addresses,
        readiness,
        catalog,
        federation,
        publishing,
        shutdown,
        catalog_task,
        servers,
        kube,
        _stages: stages,
    })
}

fn serve_xds<H: Health, R: ServerReflection>(
    (server, loads, health, reflection): &(XdsServer, LoadReports, HealthServer<H>, ServerReflectionServer<R>),
    listener: Box<dyn Listener>,
    rule: Rule,
    refusals: Arc<Refusals>,
    shutdown: &CancellationToken,
) -> AbortOnDropHandle<()> {
    let incoming = Incoming::new(listener, rule, refusals);
    let services = transport().add_service(server.aggregated()).add_service(server.endpoints());
    let services = services.add_service(ClientStatus::new(server.clone()).service());
    let router = services.add_service(loads.clone().service()).add_service(health.clone());
    let router = router.add_service(reflection.clone());
    let served = router.serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = served.await {
            tracing::error!(%error, "the xDS port is closed");
        }
    }))
}

fn serve_http(
    listener: Box<dyn Listener>,
    router: axum::Router,
    shutdown: &CancellationToken,
) -> AbortOnDropHandle<()> {
    let served = axum::serve(Http(listener), router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    AbortOnDropHandle::new(tokio::spawn(async move {
        let ended: io::Result<()> = served.await;
        if let Err(error) = ended {
            tracing::error!(%error, "an HTTP port is closed");
        }
    }))
}

/// Ready means that our own cluster is synced; it never waits for a remote.
fn synced(mut services: watch::Receiver<Arc<LocalServices>>, readiness: &Readiness) {
    let task = readiness.task("source: the first complete listing");
    tokio::spawn(async move {
        if services.wait_for(|services| services.synced).await.is_err() {
            // The source is gone before it was synced: we will never be ready.
            pending::<()>().await;
        }
        drop(task);
    });
}

/// What clients ask for, and what is imported into our Kubernetes.
fn both(
    mut asked: watch::Receiver<BTreeSet<ServicePort>>,
    mut imported: watch::Receiver<BTreeSet<ServicePort>>,
) -> watch::Receiver<BTreeSet<ServicePort>> {
    let (slot, receiver) = watch::channel(BTreeSet::new());
    tokio::spawn(async move {
        loop {
            let wanted = asked.borrow_and_update().union(&imported.borrow_and_update()).cloned().collect();
            slot.send_if_modified(|before| {
                let changed = *before != wanted;
                *before = wanted;
                changed
            });
            tokio::select! {
                () = changed(&mut asked) => {}
                () = changed(&mut imported) => {}
                () = slot.closed() => return,
            }
        }
    });
    receiver
}

/// The policy in force; `None` until this node belongs to the group, unless nobody votes: then there is none.
fn loaded_policy(
    policy: &policy::Policy,
    mut topology: watch::Receiver<Arc<Topology>>,
) -> watch::Receiver<Option<Arc<PolicySet>>> {
    let (mut set, mut standing) = (policy.set(), policy.standing());
    let (slot, receiver) = watch::channel(None);
    tokio::spawn(async move {
        loop {
            let belongs = standing.borrow_and_update().group.is_some();
            let loaded = belongs || topology.borrow_and_update().voters().is_empty();
            let policy = loaded.then(|| set.borrow_and_update().clone());
            slot.send_if_modified(|current: &mut Option<Arc<PolicySet>>| {
                let same = match (&*current, &policy) {
                    (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                    (None, None) => true,
                    _ => false,
                };
                *current = policy;
                !same
            });
            tokio::select! {
                () = changed(&mut set) => {}
                () = changed(&mut standing) => {}
                () = changed(&mut topology) => {}
                () = slot.closed() => return,
            }
        }
    });
    receiver
}
