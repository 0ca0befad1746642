//! That the command line reaches a control plane through the API server, and that `portolan check` sees what there is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::apiserver::ApiServer;
use super::kubelet::Kubelet;
use super::suite::{Check, Lab, eventually};
use crate::runner::AS_PORTOLAN;
use crate::runner::process::{Launch, Process};

/// An address of the run's own network, where the kubelet listens.
const NODE: ([u8; 4], u16) = ([10, 1, 255, 1], 0);
const READY_WITHIN: Duration = Duration::from_secs(30);
const TOPOLOGY: &str = "\
apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {name: test}
spec:
  regions:
  - {name: east, zones: [e1], clusters: [{name: east-a, controlPlane: {address: '127.0.0.1:1', voter: true}}]}
";
const POLICY: &str = "\
apiVersion: portolan.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: checkout, namespace: shop}
spec: {targetRefs: [{group: '', kind: Service, name: checkout}], timeout: 2s}
";

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new("access: commands read and write by a port-forward through the API server", by_port_forward),
        Check::new("access: what keeps commands from a control plane is told with the mend", kept_away),
        Check::new("access: `portolan check` sees what is there, before an install and after", checked),
    ]
}

/// A cluster with a node, and a control plane as its Pod portolan-0.
struct Site {
    server: ApiServer,
    client: Client,
    admin: SocketAddr,
    kubelet: Kubelet,
    /// Ends with the site.
    _process: Process,
}

impl Site {
    async fn new(lab: &Lab) -> anyhow::Result<Self> {
        std::fs::write(lab.folder.join("topology.yaml"), TOPOLOGY)?;
        std::fs::create_dir_all(lab.folder.join("manifests"))?;
        let (process, admin) = serve(lab).await?;
        let kubelet = Kubelet::start(SocketAddr::from(NODE), BTreeMap::from([("portolan-0".to_owned(), admin)]))?;
        let server = lab.api_server("one").await?;
        let client = server.client().await?;
        let site = Self { server, client, admin, kubelet, _process: process };
        site.node("n1", json!({"topology.kubernetes.io/region": "east", "topology.kubernetes.io/zone": "e1"})).await?;
        site.create::<Namespace>(None, json!({"metadata": {"name": "portolan"}})).await?;
        site.pod("portolan-0", true).await?;
        Ok(site)
    }

    async fn create<K>(&self, namespace: Option<&str>, mut object: Value) -> anyhow::Result<()>
    where
        K: kube::Resource<DynamicType = ()>,
    {
        if let Some(namespace) = namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        object["apiVersion"] = json!(K::api_version(&()));
        object["kind"] = json!(K::kind(&()));
        let object: kube::api::DynamicObject = serde_json::from_value(object)?;
        let resource = kube::api::ApiResource::erase::<K>(&());
        let api = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        api.create(&PostParams::default(), &object).await.with_context(|| format!("a {}", K::kind(&())))?;
        Ok(())
    }

    /// A Node whose kubelet is ours.
    async fn node(&self, name: &str, labels: Value) -> anyhow::Result<()> {
        self.create::<Node>(None, json!({"metadata": {"name": name, "labels": labels}})).await?;
        let at = self.kubelet.address();
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": at.ip()}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": at.port()}}}});
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    /// A control plane's Pod, which runs.
    async fn pod(&self, name: &str, ready: bool) -> anyhow::Result<()> {
        let labels = json!({"app.kubernetes.io/name": "portolan"});
        let container =
            json!({"name": "portolan", "image": "portolan", "ports": [{"name": "admin", "containerPort": 7480}]});
        let pod = json!({"metadata": {"name": name, "labels": labels}, 
            "spec": {"nodeName": "n1", "serviceAccountName": "portolan", "containers": [container]}});
        self.create::<Pod>(Some("portolan"), pod).await?;
        let ready = if ready { "True" } else { "False" };
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "portolan");
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    fn kubeconfig(&self) -> String {
        self.server.kubeconfig().display().to_string()
    }
}

/// A control plane, and where its admin port is.
async fn serve(lab: &Lab) -> anyhow::Result<(Process, SocketAddr)> {
    let path = |name: &str| lab.folder.join(name).display().to_string();
    let (topology, data, source) = (path("topology.yaml"), path("data"), format!("files:{}", path("manifests")));
    let mut arguments = vec![AS_PORTOLAN, "serve", "--dev", "--cluster", "east-a", "--topology", &topology];
    arguments.extend(["--data-dir", &data, "--source", &source]);
    for flag in ["--peer-addr", "--xds-addr", "--admin-addr", "--metrics-addr"] {
        arguments.extend([flag, "127.0.0.1:0"]);
    }
    let launch = Launch {
        name: "control plane".to_owned(),
        program: std::env::current_exe()?,
        arguments: arguments.into_iter().map(str::to_owned).collect(),
        environment: Vec::new(),
        log: lab.folder.join("portolan.log"),
        killed_by_pipe: false,
    };
    let (process, _) = launch.start_until(|line| line.starts_with("ready "), READY_WITHIN).await?;
    let addresses: Value = serde_json::from_slice(&std::fs::read(PathBuf::from(data).join("addresses.json"))?)?;
    let admin = addresses["admin"].as_str().context("no admin address")?.parse()?;
    Ok((process, admin))
}

async fn by_port_forward(lab: Lab) -> anyhow::Result<()> {
    let site = Site::new(&lab).await?;
    let kubeconfig = site.kubeconfig();
    let there = ["-n", "portolan", "--kubeconfig", &kubeconfig];
    let ask = async |command: &[&str]| lab.portolan(&[command, &there].concat()).await;
    let status = ask(&["status"]).await?.done()?;
    ensure!(status.contains("\neast-a *  east    fresh"), "status: {status}");
    let direct = lab.portolan(&["services", "--address", &site.admin.to_string()]).await?.done()?;
    ensure!(ask(&["services"]).await?.done()? == direct, "services differ from those of the admin port itself");
    std::fs::write(lab.folder.join("policy.yaml"), POLICY)?;
    eventually("a write is taken", READY_WITHIN, || async {
        ask(&["policy", "apply", "-f", "policy.yaml"]).await?.done().map(Some)
    })
    .await?;
    let list = ask(&["policy", "list", "--in", "shop"]).await?.done()?;
    ensure!(list.contains("checkout"), "policy list: {list}");
    ask(&["policy", "delete", "TrafficPolicy/shop/checkout"]).await?.done()?;
    ensure!(ask(&["version"]).await?.done()?.contains("(east-a/portolan-0)"), "version");
    Ok(())
}

async fn kept_away(lab: Lab) -> anyhow::Result<()> {
    let site = Site::new(&lab).await?;
    let kubeconfig = site.kubeconfig();
    let status = async |more: &[&str]| lab.portolan(&[&["status", "--kubeconfig", &kubeconfig], more].concat()).await;
    let elsewhere =
        "the namespace `shop` has no pod with the label app.kubernetes.io/name=portolan; -n NAME says where";
    status(&["-n", "shop"]).await?.failed_with(1, elsewhere)?;
    status(&["--context", "nowhere"]).await?.failed_with(1, "there is no context `nowhere`; expected ")?;
    status(&["--pod", "portolan-7"]).await?.failed_with(1, "has no control plane `portolan-7`; expected portolan-0")?;
    let both = status(&["--address", "127.0.0.1:1"]).await?;
    both.failed_with(1, "name two control planes: give one")?;
    // A Pod that is not ours: its kubelet finds nobody at the port.
    site.pod("portolan-1", true).await?;
    let broke = "the port-forward broke: error forwarding port 7480 to pod portolan-1";
    status(&["--pod", "portolan-1"]).await?.failed_with(1, broke)?;
    let nobody = site.server.kubeconfig_of(Some("nobody"), site.server.address())?.display().to_string();
    let refused = lab.portolan(&["status", "--kubeconfig", &nobody]).await?;
    refused.failed_with(1, "cannot list the pods of the namespace `portolan`")?;
    // Who may list Pods and not forward to them is told what is missing.
    let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]});
    site.create::<Role>(Some("portolan"), json!({"metadata": {"name": "list"}, "rules": [rule]})).await?;
    let user = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "nobody"});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "list"});
    let binding = json!({"metadata": {"name": "list"}, "roleRef": role, "subjects": [user]});
    site.create::<RoleBinding>(Some("portolan"), binding).await?;
    eventually("the role is in force", READY_WITHIN, || async {
        let refused = lab.portolan(&["status", "--kubeconfig", &nobody]).await?;
        refused.failed_with(1, "it takes the right to create pods/portforward").map(Some)
    })
    .await
}

async fn checked(lab: Lab) -> anyhow::Result<()> {
    let site = Site::new(&lab).await?;
    let kubeconfig = site.kubeconfig();
    let version = k8s_version(&site.client).await?;
    let there = ["--kubeconfig", &kubeconfig, "--topology", "topology.yaml", "--cluster", "east-a"];
    let check = async |more: &[&str]| lab.portolan(&[&["check"], &there[..], more].concat()).await;
    let hash = |said: &str| said.split_once("test ").map(|(_, rest)| rest[..4].to_owned()).unwrap_or_default();
    let pre = check(&["--pre"]).await?;
    ensure!(pre.status == 0, "--pre ended with {}: {}{}", pre.status, pre.out, pre.err);
    let missing = "serviceexports.multicluster.x-k8s.io, serviceimports.multicluster.x-k8s.io";
    same(
        &pre.out.replace(&hash(&pre.out), "HASH"),
        &format!(
            "✓ file           topology.yaml: test HASH, 1 clusters
✓ API server     Kubernetes {version}
✓ zones          1 nodes in e1
✓ rights         you may do all 12 things that it takes
! multi-cluster  missing: {missing} → install the Multi-Cluster Services API, or choose services by label or all of them
✓ clocks         the API server and this machine agree
5 good, 1 to look at, 0 to mend
"
        ),
    )?;
    // The definitions are not there, nor a zone on the second node; and the second Pod is nobody.
    site.node("n2", json!({})).await?;
    site.pod("portolan-1", false).await?;
    let after = check(&[]).await?;
    after
        .failed_with(1, "✗ definitions    missing: drains.portolan.dev, trafficpolicies.portolan.dev → helm upgrade")?;
    after.failed_with(
        1,
        "✗ zones          no region or zone on n2 → kubectl label node n2 topology.kubernetes.io/region=",
    )?;
    after
        .failed_with(1, "! pods           1 of 2 ready: portolan-1 is Running, but not ready → kubectl -n portolan")?;
    after.failed_with(1, "✓ readiness      portolan-0 is ready\n")?;
    after.failed_with(1, "✗ control plane  portolan-1: the port-forward broke: error forwarding port 7480")?;
    after.failed_with(1, "✗ rights         the service account portolan/portolan may not list services, ")?;
    let nobody = site.server.kubeconfig_of(Some("nobody"), site.server.address())?.display().to_string();
    let forbidden = lab.portolan(&["check", "--pre", "--kubeconfig", &nobody]).await?;
    forbidden.failed_with(1, "✗ rights         you may not create customresourcedefinitions.apiextensions.k8s.io, ")?;
    forbidden.failed_with(1, "! zones          cannot list nodes: ")
}

async fn k8s_version(client: &Client) -> anyhow::Result<String> {
    Ok(client.apiserver_version().await?.git_version.trim_start_matches('v').to_owned())
}

/// That two texts are equal, or the first line that differs.
pub(super) fn same(is: &str, wanted: &str) -> anyhow::Result<()> {
    let lines = is.lines().map(Some).chain(std::iter::repeat(None));
    let all = lines.zip(wanted.lines().map(Some).chain(std::iter::repeat(None)));
    for (number, (is, wanted)) in all.enumerate().take_while(|(_, (is, wanted))| is.is_some() || wanted.is_some()) {
        ensure!(is == wanted, "line {}:\n  is      {is:?}\n  wanted  {wanted:?}", number + 1);
    }
    Ok(())
}
