//! The way to a control plane's admin port through the API server: a port-forward to one of its pods, as
//! `kubectl port-forward` makes it, but without a port on this machine. Which pod is a pure choice.

use std::path::PathBuf;

use clap::Args;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use portolan_federation::net::BoxStream;

use crate::kube::client::{Access, ClientError, connect};

/// The label that every control plane's pod has.
pub(super) const SELECTOR: &str = "app.kubernetes.io/name=portolan";
/// The namespace that the documentation installs to.
const NAMESPACE: &str = "portolan";
/// The name of the admin port in a pod, and its number where the pod does not name it.
const ADMIN: (&str, u16) = ("admin", 7480);

#[derive(Debug, Clone, Args)]
pub(super) struct InCluster {
    /// Goes by a port-forward to a control plane of this kubeconfig context
    #[arg(long, env = "PORTOLAN_CONTEXT", value_name = "NAME")]
    context: Option<String>,
    /// Goes by a port-forward to a control plane in this namespace [default: portolan]
    #[arg(short, long, env = "PORTOLAN_NAMESPACE", value_name = "NAME")]
    namespace: Option<String>,
    /// The kubeconfig, if it is not the one that kubectl uses
    #[arg(long, env = "PORTOLAN_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The control plane's pod, such as portolan-1 [default: the first that is ready]
    #[arg(long, value_name = "POD")]
    pod: Option<String>,
}

/// Why there is no way to a control plane.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot list the pods of the namespace `{namespace}`: {source}")]
    List { namespace: String, source: Box<kube::Error> },
    #[error(
        "the namespace `{namespace}` has no pod with the label {SELECTOR}; -n NAME says where portolan is installed"
    )]
    None { namespace: String },
    #[error("the namespace `{namespace}` has no control plane `{pod}`; expected {known}")]
    Unknown { namespace: String, pod: String, known: String },
    #[error("no control plane runs in the namespace `{namespace}`: {why}")]
    NotRunning { namespace: String, why: String },
    #[error("cannot forward to {pod}, port {port}: {source}; it takes the right to create pods/portforward")]
    Forward { pod: String, port: u16, source: Box<kube::Error> },
}

/// A connection to a pod's admin port.
pub(super) struct Forwarded {
    /// The bytes.
    pub(super) stream: BoxStream,
    /// What the kubelet says of a connection that it could not make or keep; resolves when the stream has ended.
    pub(super) trouble: BoxFuture<'static, Option<String>>,
}

impl InCluster {
    /// Whether a cluster is meant rather than an address.
    pub(super) fn is_named(&self) -> bool {
        self.context.is_some() || self.namespace.is_some() || self.kubeconfig.is_some() || self.pod.is_some()
    }

    /// Where portolan is installed.
    pub(super) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or(NAMESPACE)
    }

    /// Which cluster and namespace, in words.
    pub(super) fn place(&self) -> String {
        let context = self.context.as_ref().map_or(String::new(), |context| format!(" of the context `{context}`"));
        format!("the namespace `{}`{context}", self.namespace())
    }

    /// The cluster's client.
    pub(super) async fn client(&self) -> Result<Client, ClientError> {
        connect(&Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }).await
    }

    /// The control planes' pods, by name.
    pub(super) async fn pods(&self, client: &Client) -> Result<Vec<Pod>, ForwardError> {
        let api: Api<Pod> = Api::namespaced(client.clone(), self.namespace());
        let listed = api.list(&ListParams::default().labels(SELECTOR)).await;
        let failed = |source| ForwardError::List { namespace: self.namespace().to_owned(), source: Box::new(source) };
        let mut pods = listed.map_err(failed)?.items;
        pods.sort_by_key(Pod::name_any);
        Ok(pods)
    }

    /// Connects to the admin port of the pod that is meant.
    pub(super) async fn open(&self) -> Result<Forwarded, ForwardError> {
        let client = self.client().await?;
        let pods = self.pods(&client).await?;
        let pod = choose(&pods, self.namespace(), self.pod.as_deref())?;
        self.open_to(&client, pod).await
    }

    /// Connects to the admin port of `pod`.
    pub(super) async fn open_to(&self, client: &Client, pod: &Pod) -> Result<Forwarded, ForwardError> {
        let (name, port) = (pod.name_any(), admin_port(pod));
        let api: Api<Pod> = Api::namespaced(client.clone(), self.namespace());
        let failed = |source| ForwardError::Forward { pod: name.clone(), port, source: Box::new(source) };
        let mut forwarder = api.portforward(&name, &[port]).await.map_err(failed)?;
        let (Some(stream), Some(trouble)) = (forwarder.take_stream(port), forwarder.take_error(port)) else {
            unreachable!("the port was asked for, and is taken once")
        };
        Ok(Forwarded { stream: Box::new(stream), trouble: trouble.boxed() })
    }
}

/// The pod to ask: the one that is named; else the first that is ready; else the first that runs, which can say what it
/// is not ready for.
fn choose<'a>(pods: &'a [Pod], namespace: &str, named: Option<&str>) -> Result<&'a Pod, ForwardError> {
    let namespace = namespace.to_owned();
    if pods.is_empty() {
        return Err(ForwardError::None { namespace });
    }
    if let Some(name) = named {
        let known = || pods.iter().map(Pod::name_any).collect::<Vec<_>>().join(", ");
        let unknown = || ForwardError::Unknown { namespace, pod: name.to_owned(), known: known() };
        return pods.iter().find(|pod| pod.name_any() == name).ok_or_else(unknown);
    }
    let lives = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
    let running = || pods.iter().filter(lives).filter(|pod| phase(pod) == "Running");
    running().find(|pod| is_ready(pod)).or_else(|| running().next()).ok_or_else(|| ForwardError::NotRunning {
        namespace,
        why: pods.iter().map(|pod| format!("{} is {}", pod.name_any(), state(pod))).collect::<Vec<_>>().join(", "),
    })
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Unknown")
}

/// Whether its condition `Ready` is true.
pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// How a pod is, and why it is no further.
pub(super) fn state(pod: &Pod) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "ending".to_owned();
    }
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let waiting = statuses.filter_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone()).next();
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let unscheduled = conditions.filter(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    let unscheduled = unscheduled.filter_map(|condition| condition.message.clone()).next();
    match waiting.or(unscheduled) {
        Some(why) => format!("{} ({why})", phase(pod)),
        None if phase(pod) == "Running" && !is_ready(pod) => "Running, but not ready".to_owned(),
        None => phase(pod).to_owned(),
    }
}

fn admin_port(pod: &Pod) -> u16 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    let named = ports.find(|port| port.name.as_deref() == Some(ADMIN.0));
    named.and_then(|port| port.container_port.try_into().ok()).unwrap_or(ADMIN.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap()
    }

    fn running(name: &str, ready: &str) -> Pod {
        pod(name, json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}))
    }

    fn chosen(pods: &[Pod], named: Option<&str>) -> String {
        match choose(pods, "portolan", named) {
            Ok(pod) => pod.name_any(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_first_ready_pod_is_asked_and_else_one_that_runs() {
        let mut ending = running("portolan-0", "True");
        ending.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-11-23T12:00:00Z")).unwrap());
        let pods = [ending.clone(), running("portolan-1", "False"), running("portolan-2", "True")];
        assert_eq!(chosen(&pods, None), "portolan-2");
        assert_eq!(chosen(&pods[..2], None), "portolan-1");
        assert_eq!(chosen(&pods, Some("portolan-0")), "portolan-0");
        assert_eq!(
            chosen(&pods, Some("portolan-9")),
            "the namespace `portolan` has no control plane `portolan-9`; expected portolan-0, portolan-1, portolan-2"
        );
    }

    #[test]
    fn what_does_not_run_is_told_with_its_reason() {
        let waiting = json!({"phase": "Pending", "containerStatuses": [{
            "name": "portolan", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff"}}}]});
        let unscheduled = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]});
        let pods = [pod("portolan-0", waiting), pod("portolan-1", unscheduled)];
        assert_eq!(
            chosen(&pods, None),
            "no control plane runs in the namespace `portolan`: portolan-0 is Pending (ImagePullBackOff), \
             portolan-1 is Pending (0/3 nodes are available)"
        );
        assert_eq!(
            chosen(&[], None),
            "the namespace `portolan` has no pod with the label app.kubernetes.io/name=portolan; -n NAME says where \
             portolan is installed"
        );
    }

    #[test]
    fn the_admin_port_is_the_one_that_the_pod_names() {
        let with = |ports| {
            let spec = json!({"containers": [{"name": "portolan", "ports": ports}]});
            serde_json::from_value::<Pod>(json!({"metadata": {}, "spec": spec})).unwrap()
        };
        assert_eq!(
            admin_port(&with(json!([{"name": "xds", "containerPort": 1}, {"name": "admin", "containerPort": 9}]))),
            9
        );
        assert_eq!(admin_port(&with(json!([{"name": "xds", "containerPort": 1}]))), 7480);
        assert_eq!(admin_port(&Pod::default()), 7480);
    }
}
