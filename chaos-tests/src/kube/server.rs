//! That the API server does what the other checks rely on.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::objects::{Writer, endpoint};
use super::suite::{Check, Lab, eventually};

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new("server: it keeps what was written through a SIGKILL", keeps),
        Check::new("server: who watches from before a restart is told 410", forgets),
        Check::new("server: a compacted history is told as 410 to who watches without a cache", compacts),
        Check::new("server: a user may nothing until RBAC says so", allows),
        Check::new("server: a Pod that turns ready has an EndpointSlice", slices_follow),
    ]
}

fn map(name: &str) -> ConfigMap {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    ConfigMap { metadata, data: Some(BTreeMap::from([("key".to_owned(), "value".to_owned())])), ..ConfigMap::default() }
}

async fn keeps(lab: Lab) -> anyhow::Result<()> {
    let mut server = lab.api_server("one").await?;
    let maps: Api<ConfigMap> = Api::namespaced(server.client().await?, "default");
    let written = maps.create(&PostParams::default(), &map("kept")).await?;
    let address = server.address();
    server.restart().await?;
    ensure!(server.address() == address, "it moved from {address} to {}", server.address());
    let read = maps.get("kept").await.context("after the restart")?;
    ensure!(read == written, "it was {written:?} and is {read:?}");
    Ok(())
}

async fn forgets(lab: Lab) -> anyhow::Result<()> {
    let mut server = lab.api_server("one").await?;
    let maps: Api<ConfigMap> = Api::namespaced(server.client().await?, "default");
    let old = maps.create(&PostParams::default(), &map("old")).await?;
    let version = old.metadata.resource_version.context("no version")?;
    maps.create(&PostParams::default(), &map("new")).await?;
    server.restart().await?;
    let mut watch = maps.watch(&WatchParams::default(), &version).await?.boxed();
    gone(watch.next().await)
}

fn gone<T: std::fmt::Debug>(event: Option<kube::Result<WatchEvent<T>>>) -> anyhow::Result<()> {
    match event {
        Some(Ok(WatchEvent::Error(status))) if status.code == 410 => Ok(()),
        other => anyhow::bail!("expected 410 Gone, saw {other:?}"),
    }
}

async fn compacts(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server_with("one", &["--watch-cache-sizes=endpointslices.discovery.k8s.io#0"]).await?;
    let shop = Writer::new(server.client().await?, "shop").await?;
    shop.slice("a", "a", json!([{"port": 80}]), &[endpoint("10.1.0.1", "z")]).await?;
    let version = shop.slices().get("a").await?.metadata.resource_version.context("no version")?;
    shop.slice("a", "a", json!([{"port": 80}]), &[endpoint("10.1.0.2", "z")]).await?;
    shop.slice("a", "a", json!([{"port": 80}]), &[endpoint("10.1.0.3", "z")]).await?;
    server.compact().await?;
    let mut watch = shop.slices().watch(&WatchParams::default(), &version).await?.boxed();
    gone(watch.next().await)
}

async fn allows(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server("one").await?;
    let maps: Api<ConfigMap> = Api::namespaced(server.client_as("ada").await?, "default");
    match maps.list(&ListParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_forbidden() => {}
        other => anyhow::bail!("expected 403, saw {other:?}"),
    }
    let admin = server.client().await?;
    allow(&admin, "ada", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}])).await?;
    eventually("the list of configmaps", Duration::from_secs(10), || async {
        Ok(Some(maps.list(&ListParams::default()).await?))
    })
    .await?;
    Ok(())
}

/// Allows `user` what the `rules` of a ClusterRole say, in place of what it was allowed before.
pub(super) async fn allow(admin: &Client, user: &str, rules: serde_json::Value) -> anyhow::Result<()> {
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": user}, "rules": rules});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    let apply = PatchParams::apply("cargo-kube").force();
    Api::<ClusterRole>::all(admin.clone()).patch(user, &apply, &Patch::Apply(role)).await?;
    Api::<ClusterRoleBinding>::all(admin.clone()).patch(user, &apply, &Patch::Apply(binding)).await?;
    Ok(())
}

async fn slices_follow(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server("one").await?;
    let client = server.client().await?;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    let status = json!({"status": {"podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}], "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}]}});
    let services = Api::namespaced(client.clone(), "default");
    let create = PostParams::default();
    services.create(&create, &serde_json::from_value::<Service>(service)?).await?;
    // The controller leaves out Pods on Nodes that it does not know.
    Api::<Node>::all(client.clone()).create(&create, &serde_json::from_value(node)?).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    pods.create(&create, &serde_json::from_value(pod)?).await?;
    pods.patch_status("web-1", &PatchParams::default(), &Patch::Merge(status)).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(client, "default");
    eventually("a slice with the Pod's address, ready", Duration::from_secs(20), || async {
        let all = slices.list(&ListParams::default()).await?;
        let ready = all.items.iter().flat_map(|slice| &slice.endpoints).any(|endpoint| {
            endpoint.addresses == ["10.1.0.1"]
                && endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true))
        });
        Ok(ready.then_some(()))
    })
    .await
}
