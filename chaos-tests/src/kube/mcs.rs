//! Multi-Cluster Services between two clusters, each with an API server of its own: what is written for other consumers,
//! and when it goes.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::apiserver::ApiServer;
use super::plane::{Plane, Serve};
use super::suite::{Check, Lab, eventually};
use crate::runner::portolan::Portolan;

const WITHIN: Duration = Duration::from_secs(40);

const TOPOLOGY: &str = "\
apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {name: two}
spec:
  regions:
    - {name: east, zones: [east-a], clusters: [{name: east, controlPlane: {address: 127.0.2.1, voter: true}}]}
    - {name: west, zones: [west-a], clusters: [{name: west, controlPlane: {address: 127.0.2.2}}]}
  failover: {east: [{region: west, weight: 1}], west: [{region: east, weight: 1}]}
";

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new("mcs: an export is imported elsewhere, and what is written goes with the export", imported),
        Check::new("mcs: of two exports in conflict the older holds, and both are told", conflict),
    ]
}

/// A cluster: its API server, and its control plane.
struct Site {
    client: Client,
    _server: ApiServer,
    plane: Plane,
}

fn definition(kind: &str, plural: &str) -> anyhow::Result<CustomResourceDefinition> {
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let version = json!({
        "name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}},
    });
    Ok(serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.multicluster.x-k8s.io"),
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes/enhancements/issues/1645"}},
        "spec": {"group": "multicluster.x-k8s.io", "scope": "Namespaced", "versions": [version],
            "names": {"kind": kind, "plural": plural}},
    }))?)
}

fn objects(client: &Client, kind: &str, plural: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("multicluster.x-k8s.io", "v1alpha1", kind);
    Api::namespaced_with(client.clone(), "shop", &ApiResource::from_gvk_with_plural(&kind, plural))
}

fn imports(client: &Client) -> Api<DynamicObject> {
    objects(client, "ServiceImport", "serviceimports")
}

fn exports(client: &Client) -> Api<DynamicObject> {
    objects(client, "ServiceExport", "serviceexports")
}

/// Both clusters, with checkout.shop behind port `ports[0]` in the east and `ports[1]` in the west.
async fn two(lab: &Lab, ports: [u16; 2]) -> anyhow::Result<[Site; 2]> {
    let folder = &lab.folder;
    let file = folder.join("topology.yaml");
    fs::write(&file, TOPOLOGY).context("cannot write the topology")?;
    let (certs, file) = (folder.join("certs").display().to_string(), file.display().to_string());
    Portolan::new(None)?.run(&["certs", "dev", &certs, "--topology", &file]).await?;
    let east = site(lab, "east", Ipv4Addr::new(127, 0, 2, 1), "10.1.1.1", ports[0]).await?;
    let west = site(lab, "west", Ipv4Addr::new(127, 0, 2, 2), "10.1.2.1", ports[1]).await?;
    Ok([east, west])
}

async fn site(lab: &Lab, name: &str, host: Ipv4Addr, pod: &str, port: u16) -> anyhow::Result<Site> {
    let server = lab.api_server(name).await?;
    let client = server.client().await?;
    let create = PostParams::default();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (kind, plural) in [("ServiceExport", "serviceexports"), ("ServiceImport", "serviceimports")] {
        definitions.create(&create, &definition(kind, plural)?).await?;
    }
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "shop"}}))?;
    Api::<Namespace>::all(client.clone()).create(&create, &namespace).await?;
    let ports = json!([{"name": "grpc", "port": port, "targetPort": 9000}]);
    let service: Service = serde_json::from_value(json!({"metadata": {"name": "checkout"}, "spec": {"ports": ports}}))?;
    Api::<Service>::namespaced(client.clone(), "shop").create(&create, &service).await?;
    let zone = format!("{name}-a");
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "checkout-1", "labels": {"kubernetes.io/service-name": "checkout"}},
        "addressType": "IPv4", "ports": [{"name": "grpc", "port": 9000}],
        "endpoints": [{"addresses": [pod], "conditions": {"ready": true}, "zone": zone}],
    }))?;
    Api::<EndpointSlice>::namespaced(client.clone(), "shop").create(&create, &slice).await?;
    let certs = lab.folder.join("certs");
    let flag = |flag: &str, value: std::path::PathBuf| format!("{flag}={}", value.display());
    let flags = vec![
        flag("--topology", lab.folder.join("topology.yaml")),
        flag("--tls-cert", certs.join(format!("{name}.pem"))),
        flag("--tls-key", certs.join(format!("{name}-key.pem"))),
        flag("--tls-ca", certs.join("ca.pem")),
        "--source=kube".to_owned(),
        flag("--kubeconfig", server.kubeconfig().to_owned()),
        "--export=declared".to_owned(),
    ];
    let plane = Plane::start(
        &lab.folder,
        &Serve { cluster: name.to_owned(), host, flags, node: None, rendered: None, program: None },
    )
    .await?;
    Ok(Site { client, _server: server, plane })
}

/// Exports checkout.shop.
async fn export(site: &Site) -> anyhow::Result<()> {
    let export = json!({"apiVersion": "multicluster.x-k8s.io/v1alpha1", "kind": "ServiceExport", "metadata": {"name": "checkout"}});
    let create = PostParams::default();
    eventually("the export is taken", WITHIN, || async {
        Ok(Some(exports(&site.client).create(&create, &serde_json::from_value(export.clone())?).await?))
    })
    .await?;
    Ok(())
}

/// The clusters and addresses of the slices that were written here.
async fn slices(site: &Site) -> anyhow::Result<Vec<String>> {
    let ours = ListParams::default().labels("endpointslice.kubernetes.io/managed-by=portolan.dev");
    let slices = Api::<EndpointSlice>::namespaced(site.client.clone(), "shop").list(&ours).await?;
    let mut found = Vec::new();
    for slice in slices.items {
        let labels = slice.metadata.labels.unwrap_or_default();
        let source = labels.get("multicluster.kubernetes.io/source-cluster").cloned().unwrap_or_default();
        found
            .extend(slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses).map(|at| format!("{source} {at}")));
    }
    found.sort();
    Ok(found)
}

async fn shows(site: &Site, wanted: &[&str]) -> anyhow::Result<()> {
    let what = format!("slices with {wanted:?}");
    let shown = eventually(&what, WITHIN, || async { Ok((slices(site).await? == wanted).then_some(())) });
    shown.await.with_context(|| format!("the log ends:\n{}", site.plane.log_end()))
}

async fn imported(lab: Lab) -> anyhow::Result<()> {
    let [east, west] = two(&lab, [80, 80]).await?;
    // What another wrote is never touched.
    let theirs: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "theirs", "labels": {"multicluster.kubernetes.io/source-cluster": "elsewhere"}},
        "addressType": "IPv4", "ports": [], "endpoints": [],
    }))?;
    let all: Api<EndpointSlice> = Api::namespaced(east.client.clone(), "shop");
    all.create(&PostParams::default(), &theirs).await?;
    export(&west).await?;
    shows(&east, &["west 10.1.2.1"]).await?;
    let import = imports(&east.client).get("checkout").await?;
    ensure!(import.data["spec"]["type"] == "ClusterSetIP", "{}", import.data);
    ensure!(
        import.data["spec"]["ports"] == json!([{"name": "grpc", "port": 80, "protocol": "TCP"}]),
        "{}",
        import.data
    );
    eventually("the import says where from", WITHIN, || async {
        let import = imports(&east.client).get("checkout").await?;
        Ok((import.data["status"]["clusters"] == json!([{"cluster": "west"}])).then_some(()))
    })
    .await?;
    exports(&west.client).delete("checkout", &DeleteParams::default()).await?;
    shows(&east, &[]).await?;
    eventually("the import goes", WITHIN, || async {
        Ok(imports(&east.client).get_opt("checkout").await?.is_none().then_some(()))
    })
    .await?;
    ensure!(all.get_opt("theirs").await?.is_some(), "a slice of somebody else is gone");
    Ok(())
}

async fn conflict(lab: Lab) -> anyhow::Result<()> {
    let [east, west] = two(&lab, [80, 81]).await?;
    export(&east).await?;
    shows(&west, &["east 10.1.1.1"]).await?;
    // API servers tell time in seconds: the second export must be the younger.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    export(&west).await?;
    for site in [&east, &west] {
        shows(site, &["east 10.1.1.1", "west 10.1.2.1"]).await?;
        let import = imports(&site.client).get("checkout").await?;
        ensure!(import.data["spec"]["ports"][0]["port"] == 80, "{}", import.data);
        eventually("the export says the conflict", WITHIN, || async {
            let export = exports(&site.client).get("checkout").await?;
            let conditions = export.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is =
                |kind: &str, status: &str| conditions.iter().any(|it| it["type"] == kind && it["status"] == status);
            let says = |it: &Value| it["message"].as_str().unwrap_or_default().contains("the export of cluster east");
            Ok((is("Valid", "True") && is("Conflict", "True") && conditions.iter().any(says)).then_some(()))
        })
        .await?;
    }
    Ok(())
}
