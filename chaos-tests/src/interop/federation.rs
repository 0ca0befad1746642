//! The federation that the clients run on: three regions with real control planes and backends. Each client has a service
//! of its own over the same pods, so that what one does is told from what another does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use portolan_topology::names::{ClusterName, ServiceId, ZoneName};
use portolan_topology::policy::Scope;
use portolan_topology::topology::Topology;
use serde::Deserialize;
use tokio::time::Instant;

use super::bootstrap::Connection;
use super::security::Security;
use super::subject::{NAMESPACE, Subject};
use crate::runner::addresses::Addresses;
use crate::runner::fleet::Fleet;
use crate::runner::manifests::{self, Pod, Readiness};
use crate::runner::policy::PolicyWriter;
use crate::runner::portolan::Portolan;
use crate::runner::{BackendSite, ControlPlaneSite, RunPaths, Site};
use crate::scenario::{API_VERSION, Scenario, Service, Target};

/// The services' port.
pub(super) const PORT: u16 = 8080;
const TOPOLOGY: &str = include_str!("../../interop/topology.yaml");
/// The cluster that the clients live in.
const HOME: &str = "use1";
/// How long the policy group may take to be born.
const POLICY_WITHIN: Duration = Duration::from_secs(40);

/// Everything but the clients.
pub(super) struct Federation {
    /// For whatever else is started.
    pub addresses: Addresses,
    /// The run's folder.
    pub paths: RunPaths,
    /// The program.
    pub portolan: Portolan,
    fleet: Fleet,
    site: Arc<Site>,
    policy: PolicyWriter,
    /// By backend: its readiness; `None`: its pod is gone.
    readiness: BTreeMap<String, Option<Readiness>>,
    /// Services on the backends.
    services: Vec<ServiceId>,
    /// Services that are an xDS server each.
    servers: BTreeMap<ServiceId, SocketAddr>,
    /// More manifests of the clients' cluster, by file name.
    published: BTreeMap<String, String>,
    written: BTreeMap<ClusterName, BTreeMap<String, String>>,
}

/// A stream, as `portolan clients` shows it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Seen {
    /// `node.id`.
    pub node: String,
    /// The identity in its certificate.
    pub identity: Option<String>,
    /// By type.
    pub subscriptions: BTreeMap<String, SeenSubscription>,
}

/// One type's subscription.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct SeenSubscription {
    /// `SYNCED`, `STALE`, `NACKED`, `NOT_SENT`.
    pub state: String,
    /// Why it was refused.
    pub nack: Option<String>,
}

impl Seen {
    /// Whether it took everything.
    pub(super) fn is_synced(&self) -> bool {
        self.subscriptions.values().all(|it| it.state == "SYNCED") && !self.subscriptions.is_empty()
    }

    /// Why it refused something.
    pub(super) fn nack(&self) -> Option<&str> {
        self.subscriptions.values().find(|it| it.state == "NACKED")?.nack.as_deref()
    }
}

#[derive(Debug, Deserialize)]
struct SeenClients {
    clients: Vec<Seen>,
}

impl Federation {
    /// Lays it out in `folder` for `subjects`. Nothing runs yet.
    pub(super) async fn new(folder: &Path, subjects: &[&'static Subject], seed: u64) -> anyhow::Result<Self> {
        let (topology, _) = Topology::parse("chaos-tests/interop/topology.yaml", TOPOLOGY)?;
        let echo = Service {
            id: ServiceId::new("echo", NAMESPACE)?,
            port: PORT,
            backends_per_zone: 2,
            latency: Duration::ZERO,
            within: None,
            calls: None,
        };
        let scenario = Arc::new(Scenario {
            name: "interop".to_owned(),
            services: vec![echo],
            clients: Vec::new(),
            policies: Vec::new(),
            block_peers: false,
            detect: Duration::from_secs(2),
            steps: Vec::new(),
            duration: Duration::ZERO,
            expectations: Vec::new(),
        });
        let mut addresses = Addresses::new(seed);
        let mut site = Site::new(&scenario, &topology, &mut addresses).context("cannot find free addresses")?;
        for plane in &mut site.control_planes {
            plane.plaintext = Some(addresses.port(plane.xds.ip(), None)?);
        }
        let site = Arc::new(site);
        let paths = RunPaths(folder.to_owned());
        let portolan = Portolan::new(None).context("cannot find this program")?;
        site.prepare(&topology, &portolan, &paths).await?;
        let mut services = Vec::new();
        let mut servers = BTreeMap::new();
        for subject in subjects {
            if subject.is_server() {
                let host = addresses.host();
                servers.insert(subject.service()?, addresses.port(host, None)?);
            } else {
                services.push(subject.service()?);
            }
        }
        let readiness = site.backends.iter().map(|backend| (backend.name.clone(), Some(Readiness::Ready))).collect();
        Ok(Self {
            fleet: Fleet::new(Arc::clone(&site), scenario, portolan.clone(), paths.clone()),
            policy: PolicyWriter { site: Arc::clone(&site), portolan: portolan.clone(), paths: paths.clone() },
            addresses,
            paths,
            portolan,
            site,
            readiness,
            services,
            servers,
            published: BTreeMap::new(),
            written: BTreeMap::new(),
        })
    }

    /// Starts everything, and gives the suite's services a policy under which they move fast.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        self.write()?;
        self.fleet.start().await?;
        self.apply("{failback: {ramp: 1s, holdDown: 1s}}").await
    }

    /// Applies the `locality` part of the policy of all services.
    pub(super) async fn apply(&self, locality: &str) -> anyhow::Result<()> {
        self.apply_with(locality, "{}").await
    }

    /// The same with a `loadBalancer` part.
    pub(super) async fn apply_with(&self, locality: &str, load_balancer: &str) -> anyhow::Result<()> {
        let document = format!(
            "apiVersion: {API_VERSION}
kind: TrafficPolicy
metadata: {{name: interop, namespace: {NAMESPACE}}}
spec:
  targetRefs: [{{group: \"\", kind: Namespace, name: {NAMESPACE}}}]
  locality: {locality}
  loadBalancer: {load_balancer}
"
        );
        let deadline = Instant::now() + POLICY_WITHIN;
        self.policy.apply_by(deadline, "interop", &document, &self.fleet.living_planes()).await?;
        Ok(())
    }

    /// Says what the backends are from now on whose names begin so.
    pub(super) fn set(&mut self, prefix: &str, readiness: Option<Readiness>) -> anyhow::Result<()> {
        for (_, now) in self.readiness.iter_mut().filter(|(name, _)| name.starts_with(prefix)) {
            *now = readiness;
        }
        self.write()
    }

    /// Writes one more manifest to the clients' cluster, or another text to one.
    pub(super) fn publish(&mut self, file: &str, text: String) -> anyhow::Result<()> {
        self.published.insert(file.to_owned(), text);
        self.write()
    }

    /// Takes such a manifest away.
    pub(super) fn unpublish(&mut self, file: &str) -> anyhow::Result<()> {
        self.published.remove(file);
        self.write()
    }

    /// The backends of a zone of the clients' cluster, all of them ready.
    pub(super) fn pods(&self, zone: &str) -> anyhow::Result<Vec<Pod>> {
        let zone: ZoneName = zone.parse()?;
        let in_zone = |backend: &&BackendSite| {
            backend.locality.cluster.as_str() == HOME && backend.locality.zone.as_ref() == Some(&zone)
        };
        let pod = |backend: &BackendSite| Pod {
            name: backend.name.clone(),
            address: backend.address,
            zone: zone.clone(),
            readiness: Readiness::Ready,
        };
        Ok(self.site.backends.iter().filter(in_zone).map(pod).collect())
    }

    /// Kills the control plane of the clients' cluster.
    pub(super) async fn kill_plane(&mut self) -> anyhow::Result<()> {
        let home = self.home_alone()?;
        self.fleet.kill(&home, false, true, None).await?;
        Ok(())
    }

    /// Starts it again, and waits until it is ready.
    pub(super) async fn restart_plane(&mut self) -> anyhow::Result<()> {
        let home = self.home_alone()?;
        self.fleet.restart(&home).await
    }

    fn home_alone(&self) -> anyhow::Result<Target> {
        Ok(Target::Scope(Scope::Cluster(self.home()?.cluster.clone())))
    }

    /// Kills the clients' region: backends and control plane.
    pub(super) async fn lose_region(&mut self) -> anyhow::Result<()> {
        let region = self.home()?.locality.region.clone();
        self.fleet.kill(&Target::Scope(Scope::Region(region)), true, true, None).await?;
        Ok(())
    }

    /// Who is connected to the clients' control plane.
    pub(super) async fn clients(&self) -> anyhow::Result<Vec<Seen>> {
        let address = self.home()?.admin.to_string();
        let said = self.portolan.run(&["clients", "-o", "json", "--address", &address]).await?;
        Ok(serde_json::from_str::<SeenClients>(&said).context("`portolan clients`")?.clients)
    }

    /// How the subject reaches the clients' control plane.
    pub(super) fn connection(&self, node: String, security: Security) -> anyhow::Result<Connection> {
        let home = self.home()?;
        let server = match security {
            Security::Plain => home.plaintext.context("no plain-text port")?,
            Security::Mtls | Security::Tls => home.xds,
        };
        Ok(Connection { node, server, security, certs: self.paths.certs() })
    }

    /// Where the clients' control plane serves xDS over TLS.
    pub(super) fn home(&self) -> anyhow::Result<&ControlPlaneSite> {
        self.site.control_planes.iter().find(|plane| plane.cluster.as_str() == HOME).context("no control plane at home")
    }

    /// Where an xDS server listens.
    pub(super) fn server_address(&self, service: &ServiceId) -> anyhow::Result<SocketAddr> {
        self.servers.get(service).copied().with_context(|| format!("{service} is no xDS server"))
    }

    pub(super) async fn end(&mut self) {
        self.fleet.end().await;
    }

    fn write(&mut self) -> anyhow::Result<()> {
        for plane in &self.site.control_planes {
            let backends = self.site.backends.iter().filter(|backend| backend.locality.cluster == plane.cluster);
            let pods: Vec<Pod> = backends
                .filter_map(|backend| {
                    let readiness = (*self.readiness.get(&backend.name)?)?;
                    let zone = backend.locality.zone.clone()?;
                    Some(Pod { name: backend.name.clone(), address: backend.address, zone, readiness })
                })
                .collect();
            let mut files: BTreeMap<String, String> =
                self.services.iter().flat_map(|service| manifests::of_service(service, PORT, &pods)).collect();
            if plane.cluster.as_str() == HOME
                && let Some(zone) = &plane.locality.zone
            {
                for (service, address) in &self.servers {
                    let (name, zone) = (service.name().to_owned(), zone.clone());
                    let pod = Pod { name, address: *address, zone, readiness: Readiness::Ready };
                    files.extend(manifests::of_service(service, PORT, &[pod]));
                }
            }
            if plane.cluster.as_str() == HOME {
                files.extend(self.published.clone());
            }
            let written = self.written.entry(plane.cluster.clone()).or_default();
            manifests::write(&self.paths.manifests(&plane.cluster), files, written)
                .context("cannot write manifests")?;
        }
        Ok(())
    }
}
