//! Several nodes in a cluster: what clients notice when the publisher dies, and when all are restarted one after the other
//! as the StatefulSet controller does it. The service's Pods are in another cluster, so that whatever a client knows of
//! them has come through a publisher.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Api;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::apiserver::ApiServer;
use super::calls::{RustCalls, write_bootstrap};
use super::chart;
use super::plane::{Plane, Rendered, Serve};
use super::pods::Pods;
use super::suite::{Check, Lab, eventually};
use crate::runner::portolan::Portolan;
use crate::sockets;

/// The nodes of east, each at 127.0.3.(1 + its number).
const NODES: [&str; 3] = ["portolan-0", "portolan-1", "portolan-2"];
/// Where east's Services are.
const SERVICE: Ipv4Addr = Ipv4Addr::new(127, 0, 3, 10);
const WEST: Ipv4Addr = Ipv4Addr::new(127, 0, 3, 20);
const TOPOLOGY: &str = "\
apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {name: nodes}
spec:
  regions:
    - {name: east, zones: [east-a], clusters: [{name: east, controlPlane: {address: 127.0.3.10, voter: true}}]}
    - {name: west, zones: [west-a], clusters: [{name: west, controlPlane: {address: 127.0.3.20}}]}
  failover: {east: [{region: west, weight: 1}], west: [{region: east, weight: 1}]}
";
const PODS: usize = 4;
const CALLS_A_SECOND: f64 = 50.0;
/// For what should be so after a change of publisher, on a loaded machine.
const SOON: Duration = Duration::from_secs(40);
/// By when another node must publish.
const TAKEOVER: Duration = Duration::from_secs(15);

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::lasting(
            "nodes: another takes over from a killed publisher within 15 s, and no client notices",
            Duration::from_secs(180),
            taken_over,
        ),
        Check::lasting(
            "nodes: an upgrade restarts them one after the other, and no client notices",
            Duration::from_secs(240),
            upgraded,
        ),
    ]
}

/// Two clusters: east with several nodes, west with the Pods; and a client in east.
struct Site {
    lab: Lab,
    /// Whether nodes are started as the release's StatefulSet says, which is there then.
    installed: bool,
    east: ApiServer,
    nodes: Vec<Option<Plane>>,
    west: Plane,
    pods: Pods,
    _west: ApiServer,
    /// The node that takes new connections, while it is ready.
    first: Arc<AtomicUsize>,
    _services: [AbortOnDropHandle<()>; 2],
}

fn host(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 3, u8::try_from(node + 1).unwrap_or(u8::MAX))
}

fn serve(folder: &Path, cluster: &str, host: Ipv4Addr, kubeconfig: &Path) -> Serve {
    let certs = folder.join("certs");
    let flags = [
        ("topology", folder.join("topology.yaml")),
        ("tls-cert", certs.join(format!("{cluster}.pem"))),
        ("tls-key", certs.join(format!("{cluster}-key.pem"))),
        ("tls-ca", certs.join("ca.pem")),
        ("kubeconfig", kubeconfig.to_owned()),
    ];
    let mut flags: Vec<_> = flags.iter().map(|(name, path)| format!("--{name}={}", path.display())).collect();
    flags.push("--source=kube".to_owned());
    Serve { cluster: cluster.to_owned(), host, flags, node: None, rendered: None, program: None }
}

impl Site {
    /// `installed`: the chart is, and says how nodes are started.
    async fn new(lab: Lab, installed: bool) -> anyhow::Result<Self> {
        let folder = &lab.folder;
        let file = folder.join("topology.yaml");
        fs::write(&file, TOPOLOGY).context("cannot write the topology")?;
        let (certs, file) = (folder.join("certs").display().to_string(), file.display().to_string());
        Portolan::new(None)?.run(&["certs", "dev", &certs, "--topology", &file]).await?;
        let (east, west) = (lab.api_server("east").await?, lab.api_server("west").await?);
        if installed {
            put(&lab, &east, "install", &[]).await?;
        }
        let mut pods = Pods::new(west.client().await?, ("checkout", "shop"), 30, &["west-a"], folder.clone()).await?;
        pods.add(PODS).await?;
        let plane = Plane::start_unready(folder, &serve(folder, "west", WEST, west.kubeconfig()))?;
        let first = Arc::<AtomicUsize>::default();
        let services = [service(7443, Arc::clone(&first))?, service(7444, Arc::clone(&first))?];
        let mut site = Self {
            _services: services,
            first,
            nodes: NODES.map(|_| None).into(),
            east,
            west: plane,
            pods,
            _west: west,
            lab,
            installed,
        };
        for node in 0..NODES.len() {
            site.start(node).await?;
        }
        for node in site.nodes.iter_mut().flatten() {
            node.until_ready().await?;
        }
        Ok(site)
    }

    async fn start(&mut self, node: usize) -> anyhow::Result<()> {
        let mut serve = serve(&self.lab.folder, "east", host(node), self.east.kubeconfig());
        if self.installed {
            serve.rendered = Some(rendered(&self.lab.folder, &self.east, node).await?);
        }
        let nodes: Vec<_> = NODES.iter().enumerate().map(|(at, name)| format!("{name}={}:7443", host(at))).collect();
        serve.node = Some(NODES[node].to_owned());
        serve.flags.push(format!("--nodes={}", nodes.join(",")));
        serve.flags.push("--publisher-lease=default/portolan-publisher".to_owned());
        self.nodes[node] = Some(Plane::start_unready(&self.lab.folder, &serve)?);
        Ok(())
    }

    /// Which node publishes, as that node itself says.
    async fn publisher(&self) -> anyhow::Result<Option<usize>> {
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            let Ok(status) = node.ask(&["status"]).await else { continue };
            let own = |shown: &serde_json::Value| shown["own"] == true && shown["publisher"] == true;
            if status["nodes"].as_array().is_some_and(|nodes| nodes.iter().any(own)) {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Calls from east, whose client is connected to `node`.
    async fn calls(&self, node: usize) -> anyhow::Result<RustCalls> {
        self.first.store(node, Ordering::Relaxed);
        let certs = self.lab.folder.join("certs");
        let credentials = json!([{"type": "tls", "config": {
            "ca_certificate_file": certs.join("ca.pem"),
            "certificate_file": certs.join("client.pem"),
            "private_key_file": certs.join("client-key.pem")}}]);
        let servers = [SocketAddr::from((SERVICE, 7444))];
        let bootstrap = write_bootstrap(&self.lab.folder, &servers, credentials, "east", ("east", "east-a"))?;
        RustCalls::start("checkout.shop", &bootstrap, CALLS_A_SECOND).await
    }

    /// Replaces west's Pods: a client in east can only follow if east still hears of west, by whoever publishes now.
    async fn west_is_followed(&mut self, calls: &RustCalls, after: &str) -> anyhow::Result<()> {
        eventually("west hears east", SOON, || async {
            let status = self.west.ask(&["status"]).await?;
            let clusters = status["clusters"].as_array().cloned().unwrap_or_default();
            Ok(clusters.iter().any(|it| it["name"] == "east" && it["state"] == "fresh").then_some(()))
        })
        .await?;
        self.pods.roll(2).await.context("the rolling restart of west")?;
        let tally = calls.tally();
        ensure!(tally.failed == 0, "calls failed after {after}: {:?}", tally.errors);
        Ok(())
    }
}

/// Installs or upgrades east's release, for this topology and these nodes.
async fn put(lab: &Lab, east: &ApiServer, verb: &str, set: &[&str]) -> anyhow::Result<()> {
    let topology = lab.folder.join("topology.yaml").display().to_string();
    let set = [&["cluster=east", "replicas=3"][..], set].concat();
    chart::put_with(lab, east.kubeconfig(), verb, &topology, &set).await
}

/// What a kubelet would start `node` with: the arguments and variables of the StatefulSet that is in the API server. Only
/// what a network and volumes stand for is put in their place: names of Pods become addresses, mounted folders those of
/// the run, and the service account's token a kubeconfig.
async fn rendered(folder: &Path, east: &ApiServer, node: usize) -> anyhow::Result<Rendered> {
    let sets: Api<StatefulSet> = Api::namespaced(east.client().await?, "portolan");
    let pod = sets.get("portolan").await?.spec.and_then(|spec| spec.template.spec).context("no Pod's spec")?;
    let container = pod.containers.into_iter().next().context("no container")?;
    let mut environment = vec![("PORTOLAN_KUBECONFIG".to_owned(), chart::as_installed(east)?.display().to_string())];
    for variable in container.env.unwrap_or_default() {
        let of_field = || variable.value_from.as_ref()?.field_ref.as_ref().map(|field| field.field_path.as_str());
        let value = match (&variable.value, of_field()) {
            (Some(value), _) => value.clone(),
            (None, Some("metadata.name")) => NODES[node].to_owned(),
            (None, other) => bail!("the variable {} is of the field {other:?}", variable.name),
        };
        environment.push((variable.name, value));
    }
    let place = |path: &str| folder.join(path).display().to_string();
    let mut places = vec![
        ("/etc/portolan/topology/topology.yaml".to_owned(), place("topology.yaml")),
        ("/etc/portolan/tls/tls.crt".to_owned(), place("certs/east.pem")),
        ("/etc/portolan/tls/tls.key".to_owned(), place("certs/east-key.pem")),
        ("/etc/portolan/tls/ca.crt".to_owned(), place("certs/ca.pem")),
        ("/var/lib/portolan".to_owned(), place(NODES[node])),
    ];
    places.extend(NODES.iter().enumerate().map(|(at, name)| {
        let pod = format!("={name}.portolan-nodes.portolan.svc:");
        (pod, format!("={}:", host(at)))
    }));
    let argument = |mut argument: String| {
        for (name, value) in &environment {
            argument = argument.replace(&format!("$({name})"), value);
        }
        places.iter().fold(argument, |argument, (from, to)| argument.replace(from, to))
    };
    let arguments: Vec<String> = container.args.unwrap_or_default().into_iter().map(argument).collect();
    let left = arguments.iter().find(|argument| ["$(", "/etc/portolan", ".svc"].iter().any(|it| argument.contains(it)));
    ensure!(left.is_none(), "nothing stands for `{}` here", left.map_or("", String::as_str));
    Ok(Rendered { arguments, environment })
}

/// Stands in for what kube-proxy does of the chart's Services: passes a connection on to a node that is ready, to the one of
/// the number `first` if it is.
fn service(port: u16, first: Arc<AtomicUsize>) -> anyhow::Result<AbortOnDropHandle<()>> {
    let listener = sockets::listen((SERVICE, port).into()).context("cannot listen for the Service")?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let first = first.load(Ordering::Relaxed);
            tokio::spawn(async move {
                for node in (0..NODES.len()).map(|node| host((first + node) % NODES.len())) {
                    if !matches!(sockets::http_status((node, 7481).into(), "GET", "/readyz").await, Ok(200)) {
                        continue;
                    }
                    if let Ok(mut to) = sockets::connect((node, port).into(), Duration::from_secs(1)).await {
                        // Either end may break it.
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                        return;
                    }
                }
            });
        }
    })))
}

async fn taken_over(lab: Lab) -> anyhow::Result<()> {
    let mut site = Site::new(lab, false).await?;
    let first = eventually("a publisher", SOON, || site.publisher()).await?;
    let calls = site.calls(first).await?;
    site.west_is_followed(&calls, "nothing yet").await?;
    let plane = site.nodes[first].take().context("the publisher is not there")?;
    let killed = Instant::now();
    plane.kill().await?;
    let second = eventually("another publisher", TAKEOVER, || site.publisher()).await?;
    ensure!(second != first && killed.elapsed() <= TAKEOVER, "{second} after {:?}", killed.elapsed());
    site.west_is_followed(&calls, "the publisher's death").await?;
    // It comes back as one that follows.
    site.start(first).await?;
    site.nodes[first].as_mut().context("the node is not there")?.until_ready().await?;
    ensure!(site.publisher().await? == Some(second), "the node that came back publishes");
    let tally = calls.stop().await;
    ensure!(tally.failed == 0 && tally.calls > 300, "of {} calls failed: {:?}", tally.calls, tally.errors);
    Ok(())
}

async fn upgraded(lab: Lab) -> anyhow::Result<()> {
    let mut site = Site::new(lab, true).await?;
    let sets: Api<StatefulSet> = Api::namespaced(site.east.client().await?, "portolan");
    let template = async || anyhow::Ok(sets.get("portolan").await?.spec.context("no spec")?.template);
    let before = template().await?;
    let publisher = eventually("a publisher", SOON, || site.publisher()).await?;
    let calls = site.calls(publisher).await?;
    put(&site.lab, &site.east, "upgrade", &["log.filter=debug"]).await?;
    ensure!(template().await? != before, "the upgrade changes no Pod");
    // The last first, each once the one before is ready.
    for node in (0..NODES.len()).rev() {
        site.nodes[node].take().context("the node is not there")?.terminate().await?;
        site.start(node).await?;
        let plane = site.nodes[node].as_mut().context("the node is not there")?;
        plane.until_ready().await.with_context(|| format!("{} after its restart", NODES[node]))?;
        let tally = calls.tally();
        ensure!(tally.failed == 0, "calls failed through the restart of {}: {:?}", NODES[node], tally.errors);
    }
    eventually("a publisher after the upgrade", SOON, || site.publisher()).await?;
    site.west_is_followed(&calls, "the upgrade").await?;
    let tally = calls.stop().await;
    ensure!(tally.failed == 0 && tally.calls > 300, "of {} calls failed: {:?}", tally.calls, tally.errors);
    Ok(())
}
