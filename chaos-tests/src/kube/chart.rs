//! The chart: that it lints, renders as its golden files show, refuses what cannot work, and goes into a real API server.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition as Crd;
use kube::api::PostParams;
use kube::config::Kubeconfig;
use kube::{Api, Client};
use serde_json::json;

use super::access::same;
use super::apiserver::ApiServer;
use super::suite::{Check, Lab};

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
/// What must be set: a cluster, certificates, and the topology.
const LEAST: [&str; 2] = ["helm/golden/least.values.yaml", "examples/topology.yaml"];

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new("chart: it lints and renders as deploy/helm/golden shows", renders),
        Check::new("chart: values that cannot work are refused with the mend", refuses),
        Check::new("chart: helm installs it, and a change of the topology restarts nothing", installs),
        Check::new("chart: everything on, the API server takes it; its definitions outlive it", installs_everything),
    ]
}

fn deploy(path: &str) -> String {
    Path::new(DEPLOY).join(path).display().to_string()
}

/// The arguments that install what must be set and nothing else.
fn least(topology: &str) -> Vec<String> {
    ["-f", &deploy(LEAST[0]), "--set-file", &format!("topology.content={topology}")].map(str::to_owned).to_vec()
}

/// Installs or upgrades the release `portolan` with what must be set and `set`.
pub(super) async fn put(lab: &Lab, kubeconfig: &Path, verb: &str, set: &[&str]) -> anyhow::Result<()> {
    put_with(lab, kubeconfig, verb, &deploy(LEAST[1]), set).await
}

/// The same with the topology of a file.
pub(super) async fn put_with(
    lab: &Lab,
    kubeconfig: &Path,
    verb: &str,
    topology: &str,
    set: &[&str],
) -> anyhow::Result<()> {
    let chart = deploy("helm/portolan");
    let mut arguments: Vec<String> = [verb, "portolan", &chart, "-n", "portolan"].map(str::to_owned).into();
    if verb == "install" {
        arguments.push("--create-namespace".to_owned());
    }
    arguments.extend(least(topology));
    arguments.extend(set.iter().flat_map(|value| ["--set".to_owned(), (*value).to_owned()]));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    lab.helm(kubeconfig, &arguments).await?.done()?;
    Ok(())
}

/// A kubeconfig of the release's service account, in its namespace: what its Pods have.
pub(super) fn as_installed(server: &ApiServer) -> anyhow::Result<PathBuf> {
    let file = server.kubeconfig_of(Some("system:serviceaccount:portolan:portolan"), server.address())?;
    let mut config = Kubeconfig::read_from(&file).context("cannot read the kubeconfig")?;
    for context in config.contexts.iter_mut().filter_map(|named| named.context.as_mut()) {
        context.namespace = Some("portolan".to_owned());
    }
    std::fs::write(&file, serde_json::to_vec(&config)?).with_context(|| file.display().to_string())?;
    Ok(file)
}

async fn renders(lab: Lab) -> anyhow::Result<()> {
    let (chart, nowhere) = (deploy("helm/portolan"), Path::new("/dev/null"));
    let cases =
        [("least", least(&deploy(LEAST[1]))), ("full", vec!["-f".to_owned(), deploy("helm/golden/full.values.yaml")])];
    for (name, values) in cases {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        lab.helm(nowhere, &[&["lint", "--strict", &chart], &values[..]].concat()).await?.done()?;
        let template = [&["template", "portolan", &chart, "-n", "portolan"], &values[..]].concat();
        let rendered = lab.helm(nowhere, &template).await?.done()?;
        let golden = deploy(&format!("helm/golden/{name}.yaml"));
        let wanted = std::fs::read_to_string(&golden).with_context(|| golden.clone())?;
        same(&rendered, &wanted)
            .with_context(|| format!("{golden}; if it is meant: helm {} > {golden}", template.join(" ")))?;
    }
    Ok(())
}

async fn refuses(lab: Lab) -> anyhow::Result<()> {
    let chart = deploy("helm/portolan");
    let values = least(&deploy(LEAST[1]));
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    for (set, message) in [
        ("replcas=2", "additional properties 'replcas' not allowed"),
        ("replicas=65", "at '/replicas': maximum: got 65, want 64"),
        ("xds.clientCertificates=maybe", "value must be one of 'required', 'optional'"),
        ("cluster=", "cluster: set it to this cluster's name in the topology"),
        ("cluster=use2", "cluster: the topology has no cluster `use2`; expected one of use1, usw2, euw1"),
        ("topology.content=", "topology: set it with --set-file topology.content=topology.yaml"),
        ("topology.existingConfigMap=mine", "topology: set content or existingConfigMap, not both"),
        ("topology.content=a: [", "`portolan topology check FILE` says where"),
        ("tls.existingSecret=", "tls: set existingSecret, or certManager.enabled with its issuerRef.name"),
        ("tls.certManager.enabled=true", "tls: set existingSecret or certManager.enabled, not both"),
        ("xds.plaintext.enabled=true", "xds.plaintext.from: say who may use the plain-text port"),
        ("serviceAccount.create=false", "serviceAccount.name: needed with serviceAccount.create=false"),
    ] {
        let arguments = [&["template", "portolan", &chart], &values[..], &["--set", set]].concat();
        // A topology in --set comes after the file's only so.
        let arguments: Vec<&str> = match set.strip_prefix("topology.content=") {
            Some(_) => vec!["template", "portolan", &chart, "-f", values[1], "--set", set],
            None => arguments,
        };
        lab.helm(Path::new("/dev/null"), &arguments).await?.failed_with(1, message)?;
    }
    Ok(())
}

async fn installs(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server("one").await?;
    let client = server.client().await?;
    let kubeconfig = server.kubeconfig();
    let (chart, topology) = (deploy("helm/portolan"), lab.folder.join("topology.yaml"));
    let first = std::fs::read_to_string(deploy(LEAST[1]))?;
    std::fs::write(&topology, &first)?;
    let values = least(&topology.display().to_string());
    let helm = async |command: &[&str]| {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        lab.helm(kubeconfig, &[command, &["portolan", &chart, "-n", "portolan"], &values[..]].concat()).await
    };
    let notes = helm(&["install", "--create-namespace"]).await?.done()?;
    ensure!(notes.contains("\n    portolan check -n portolan\n"), "the notes name no next command: {notes}");
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), "portolan");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "portolan");
    let template = async || anyhow::Ok(sets.get("portolan").await?.spec.context("no spec")?.template);
    let content =
        async || anyhow::Ok(maps.get("portolan-topology").await?.data.unwrap_or_default().remove("topology.yaml"));
    let before = template().await?;
    // As helm indents it, and no other.
    ensure!(content().await?.as_deref() == Some(first.as_str()), "the ConfigMap is not the file");
    let second = first.replace("weight: 70", "weight: 60");
    std::fs::write(&topology, &second)?;
    helm(&["upgrade"]).await?.done()?;
    ensure!(content().await?.as_deref() == Some(second.as_str()), "the ConfigMap is not the new file");
    ensure!(template().await? == before, "a new topology would restart the nodes");
    helm(&["upgrade", "--set", "log.filter=debug"]).await?.done()?;
    ensure!(template().await? != before, "another log filter reaches no node");
    helm(&["upgrade", "--reset-values"]).await?.done()?;
    ensure!(template().await? == before, "the nodes are not what they were");
    Ok(())
}

async fn installs_everything(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server("one").await?;
    let client = server.client().await?;
    // Their schemas are their authors'. These let anything pass, so that helm can write: what is in it the golden file shows.
    define(&client, "cert-manager.io", "Certificate", "certificates", "v1").await?;
    define(&client, "monitoring.coreos.com", "ServiceMonitor", "servicemonitors", "v1").await?;
    let (chart, values) = (deploy("helm/portolan"), deploy("helm/golden/full.values.yaml"));
    let kubeconfig = server.kubeconfig();
    let install = ["install", "portolan", &chart, "-n", "portolan", "--create-namespace", "-f", &values];
    super::suite::eventually("helm finds the definitions", std::time::Duration::from_secs(20), || async {
        lab.helm(kubeconfig, &install).await?.done().map(Some)
    })
    .await?;
    let services: Api<Service> = Api::namespaced(client.clone(), "portolan");
    let names: Vec<_> =
        services.list(&Default::default()).await?.items.into_iter().filter_map(|it| it.metadata.name).collect();
    ensure!(names == ["portolan", "portolan-nodes", "portolan-peers"], "the Services are {names:?}");
    lab.helm(kubeconfig, &["uninstall", "portolan", "-n", "portolan", "--wait"]).await?.done()?;
    ensure!(services.list(&Default::default()).await?.items.is_empty(), "Services are left");
    let ours = definitions()?;
    let crds: Api<Crd> = Api::all(client);
    for name in &ours {
        ensure!(crds.get_opt(name).await?.is_some(), "{name} went with the release, and every object with it");
    }
    Ok(())
}

/// The names of the definitions that the chart carries.
fn definitions() -> anyhow::Result<Vec<String>> {
    let folder = PathBuf::from(deploy("helm/portolan/files/crds"));
    let files = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let names = files.map(|file| Ok(file?.file_name().to_string_lossy().replace(".yaml", ".portolan.dev")));
    names.collect()
}

async fn define(client: &Client, group: &str, kind: &str, plural: &str, version: &str) -> anyhow::Result<()> {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    Api::<Crd>::all(client.clone()).create(&PostParams::default(), &serde_json::from_value(crd)?).await?;
    Ok(())
}
