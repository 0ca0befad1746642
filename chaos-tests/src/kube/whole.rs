//! The whole thing on Kubernetes: three clusters with an API server, a control plane and Pods each, and clients that must
//! not notice what happens to them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::time::Instant;

use super::apiserver::ApiServer;
use super::calls::{RustCalls, Tally, Zones, write_bootstrap};
use super::plane::{Plane, Serve};
use super::pods::Pods;
use super::suite::{Check, Lab};
use crate::runner::portolan::Portolan;

/// Each cluster is a region of one zone, named like its cluster's zone.
const CLUSTERS: [(&str, &str, &str); 3] =
    [("east", "east-1", "east-a"), ("mid", "mid-1", "mid-a"), ("west", "west-1", "west-a")];
const PODS: usize = 4;
const CALLS_A_SECOND: f64 = 50.0;
const SERVICE: &str = "checkout.shop";

pub(super) fn checks() -> Vec<Check> {
    vec![Check::lasting(
        "whole: three clusters live through a rolling restart, a lost API server and a lost cluster",
        Duration::from_secs(240),
        lives_through,
    )]
}

fn host(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, u8::try_from(index + 1).unwrap_or(u8::MAX))
}

fn topology() -> String {
    let mut text =
        "apiVersion: portolan.dev/v1alpha1\nkind: Topology\nmetadata: {name: whole}\nspec:\n  regions:\n".to_owned();
    for (index, (cluster, region, zone)) in CLUSTERS.iter().enumerate() {
        text.push_str(&format!(
            "    - {{name: {region}, zones: [{zone}], clusters: [{{name: {cluster}, network: one, \
             controlPlane: {{address: {}, voter: true}}}}]}}\n",
            host(index)
        ));
    }
    text.push_str("  failover:\n    east-1: [{region: mid-1, weight: 1}]\n    mid-1: [{region: east-1, weight: 1}]\n");
    text.push_str("    west-1: [{region: east-1, weight: 1}]\n");
    text
}

struct Cluster {
    server: ApiServer,
    plane: Option<Plane>,
    pods: Pods,
    client: RustCalls,
}

async fn lives_through(lab: Lab) -> anyhow::Result<()> {
    let file = lab.folder.join("topology.yaml");
    fs::write(&file, topology()).context("cannot write the topology")?;
    let certs = lab.folder.join("certs");
    let (certs_text, file_text) = (certs.display().to_string(), file.display().to_string());
    Portolan::new(None)?.run(&["certs", "dev", &certs_text, "--topology", &file_text]).await?;

    let mut started = Vec::new();
    for (index, (cluster, _, zone)) in CLUSTERS.iter().enumerate() {
        let server = lab.api_server(cluster).await?;
        let network = 10 + u8::try_from(index).unwrap_or(0);
        let logs = lab.folder.join(format!("pods-{cluster}"));
        fs::create_dir_all(&logs).context("cannot make a folder for logs")?;
        let mut pods = Pods::new(server.client().await?, ("checkout", "shop"), network, &[*zone], logs).await?;
        pods.add(PODS).await?;
        let plane = Plane::start_unready(&lab.folder, &serve(cluster, index, &file, &certs, server.kubeconfig()))?;
        started.push((server, plane, pods));
    }
    let mut clusters = Vec::new();
    for (index, (server, plane, pods)) in started.into_iter().enumerate() {
        let bootstrap = bootstrap(&lab.folder, index, &certs)?;
        let client = RustCalls::start(SERVICE, &bootstrap, CALLS_A_SECOND).await?;
        clusters.push(Cluster { server, plane: Some(plane), pods, client });
    }
    for (cluster, (_, _, zone)) in clusters.iter().zip(CLUSTERS) {
        answered_by(&cluster.client, zone).await.with_context(|| format!("clients in {zone} before anything"))?;
    }

    clusters[0].pods.roll(2).await.context("the rolling restart")?;
    nobody_failed(&clusters, "a rolling restart of east")?;

    // While west's API server is away, nothing is known to have changed there.
    clusters[2].server.kill().await?;
    clusters[0].pods.roll(2).await.context("the second rolling restart")?;
    answered_by(&clusters[2].client, "west-a").await.context("west without its API server")?;
    nobody_failed(&clusters, "the loss of west's API server")?;
    clusters[2].server.start_again().await?;
    clusters[2].pods.roll(2).await.context("a rolling restart of west after its API server's return")?;
    nobody_failed(&clusters, "the return of west's API server")?;

    // All of mid goes at once. Calls that its backends had in hand go with them, and no others.
    clusters[1].pods.kill().await?;
    let gone = Instant::now();
    if let Some(plane) = clusters[1].plane.take() {
        plane.kill().await?;
    }
    clusters[1].server.kill().await?;
    answered_by(&clusters[1].client, "east-a").await.context("clients of mid after its loss")?;
    let late = clusters[1].client.failed_after(gone);
    ensure!(late.is_empty(), "calls failed that were sent after mid was gone: {late:?}");
    // No cluster ends before the last client has: any of them may have a share anywhere, while a failback ramps.
    let split = |cluster: Cluster| (cluster.client, (cluster.server, cluster.plane, cluster.pods));
    let (clients, _clusters): (Vec<_>, Vec<_>) = clusters.into_iter().map(split).unzip();
    for (index, client) in clients.into_iter().enumerate() {
        let tally: Tally = client.stop().await;
        ensure!(tally.calls > 300, "{} made only {} calls", CLUSTERS[index].0, tally.calls);
        ensure!(index == 1 || tally.failed == 0, "calls of {} failed: {:?}", CLUSTERS[index].0, tally.errors);
    }
    Ok(())
}

fn serve(cluster: &str, index: usize, topology: &Path, certs: &Path, kubeconfig: &Path) -> Serve {
    let flag = |name: &str, path: PathBuf| format!("--{name}={}", path.display());
    Serve {
        cluster: cluster.to_owned(),
        host: host(index),
        node: None,
        rendered: None,
        program: None,
        flags: vec![
            flag("topology", topology.to_owned()),
            flag("tls-cert", certs.join(format!("{cluster}.pem"))),
            flag("tls-key", certs.join(format!("{cluster}-key.pem"))),
            flag("tls-ca", certs.join("ca.pem")),
            "--source=kube".to_owned(),
            flag("kubeconfig", kubeconfig.to_owned()),
        ],
    }
}

/// Its own control plane, then another.
fn bootstrap(folder: &Path, index: usize, certs: &Path) -> anyhow::Result<PathBuf> {
    let (cluster, region, zone) = CLUSTERS[index];
    let credentials = json!([{"type": "tls", "config": {
        "ca_certificate_file": certs.join("ca.pem"),
        "certificate_file": certs.join("client.pem"),
        "private_key_file": certs.join("client-key.pem")}}]);
    let servers = [index, (index + 2) % CLUSTERS.len()].map(|of| SocketAddr::from((host(of), 7444)));
    write_bootstrap(folder, &servers, credentials, cluster, (region, zone))
}

/// Waits until a second's calls are all answered from one zone.
async fn answered_by(client: &RustCalls, zone: &str) -> anyhow::Result<()> {
    let mut last = Zones::new();
    let deadline = Instant::now() + Duration::from_secs(40);
    while Instant::now() < deadline {
        client.zones();
        tokio::time::sleep(Duration::from_secs(1)).await;
        last = client.zones();
        if last.len() == 1 && last.get(zone).is_some_and(|calls| *calls > 20) {
            return Ok(());
        }
    }
    anyhow::bail!("wanted all answers from {zone}; in the last second they came from {last:?}")
}

fn nobody_failed(clusters: &[Cluster], after: &str) -> anyhow::Result<()> {
    for (cluster, (name, ..)) in clusters.iter().zip(CLUSTERS) {
        let tally = cluster.client.tally();
        ensure!(tally.failed == 0, "calls of {name} failed through {after}: {:?}", tally.errors);
    }
    Ok(())
}
