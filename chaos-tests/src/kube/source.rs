//! The `kube` source of a whole control plane: what it makes of objects, and how it gets over what breaks.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Secret, Service};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;
use tokio::time::Instant;

use super::calls::{RustCalls, plain_bootstrap};
use super::objects::{Writer, endpoint};
use super::plane::{Plane, Serve};
use super::pods::Pods;
use super::proxy::Proxy;
use super::server::allow;
use super::suite::{Check, Lab, eventually};

/// For a change to be seen, on a loaded machine.
const SOON: Duration = Duration::from_secs(15);
/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(60);
/// For shares to have moved: demand is measured over seconds, and shares move in steps.
const MOVED: Duration = Duration::from_secs(90);

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new("source: Services, EndpointSlices, Nodes and Pods become endpoints", becomes),
        Check::new("source: hostile objects are named, and the rest goes on", hostile),
        Check::lasting(
            "source: nothing goes while the API server is away for a minute, and 410 is got over",
            Duration::from_secs(180),
            away,
        ),
        Check::lasting(
            "source: a type that RBAC forbids is named, and taken up once it is allowed",
            Duration::from_secs(240),
            forbidden,
        ),
        Check::lasting(
            "source: a truncated watch, 429 and an expired page are got over",
            Duration::from_secs(180),
            faults,
        ),
        Check::new("source: a watch that hangs half open is noticed", hangs),
        Check::new("source: a watch that has nothing to tell is renewed where its last bookmark was", bookmarked),
        Check::lasting(
            "source: what exceeds an annotated capacity goes elsewhere, and comes back with the capacity",
            Duration::from_secs(240),
            spills,
        ),
    ]
}

/// A port 80 that leads to 8080, without a selector.
fn port_80() -> serde_json::Value {
    json!({"ports": [{"port": 80, "targetPort": 8080}]})
}

/// `a.shop` with one endpoint, 10.1.0.1.
async fn one_service(shop: &Writer) -> anyhow::Result<()> {
    shop.service("a", port_80(), json!({})).await?;
    shop.slice("a-1", "a", json!([{"port": 8080}]), &[endpoint("10.1.0.1", "here-a")]).await
}

async fn becomes(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server("one").await?;
    let client = server.client().await?;
    let shop = Writer::new(client.clone(), "shop").await?;
    shop.node("n", "here-b").await?;
    let two_ports = json!({"ports": [{"name": "grpc", "port": 80}, {"name": "admin", "port": 81}]});
    shop.service("named", two_ports, json!({"portolan.dev/weight": "3", "portolan.dev/capacity": "50"})).await?;
    shop.service("headless", json!({"clusterIP": "None", "ports": [{"port": 80}]}), json!({})).await?;
    let target = json!({"kind": "Pod", "name": "big", "namespace": "shop"});
    let ports = json!([{"name": "admin", "port": 8081}, {"name": "grpc", "port": 8080}]);
    shop.slice(
        "named-1",
        "named",
        ports.clone(),
        &[
            json!({"addresses": ["10.1.0.1"], "nodeName": "n", "targetRef": target, "conditions": {"ready": true}}),
            json!({"addresses": ["10.1.0.2"], "zone": "here-a",
                   "conditions": {"ready": false, "serving": true, "terminating": true}}),
            json!({"addresses": ["10.1.0.3"], "zone": "here-a", "conditions": {"ready": false}}),
        ],
    )
    .await?;
    // The next Pod has taken the address of one that still terminates: the better state counts.
    shop.slice("named-2", "named", ports, &[endpoint("10.1.0.2", "here-a")]).await?;
    shop.slice("headless-1", "headless", json!([{"port": 8080}]), &[endpoint("fd00:1::1", "here-a")]).await?;
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "big", "annotations": {"portolan.dev/weight": "8"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::namespaced(client, "shop");
    pods.create(&kube::api::PostParams::default(), &serde_json::from_value(pod)?).await?;

    let plane = Plane::start(&lab.folder, &Serve::alone(&lab.folder, server.kubeconfig(), &["--watch-pods"])?).await?;
    let wanted = ["10.1.0.1:8080 ready 8 here-b", "10.1.0.2:8080 ready 3 here-a", "10.1.0.3:8080 notReady 3 here-a"];
    plane.shows("named.shop", &wanted, SOON).await?;
    let by_name = ["10.1.0.1:8081 ready 8 here-b", "10.1.0.2:8081 ready 3 here-a", "10.1.0.3:8081 notReady 3 here-a"];
    plane.shows("named.shop:admin", &by_name, SOON).await?;
    plane.shows("named.shop:81", &by_name, SOON).await?;
    plane.shows("headless.shop", &["[fd00:1::1]:8080 ready 1 here-a"], SOON).await?;
    shop.no_slice("named-2").await?;
    let wanted = ["10.1.0.1:8080 ready 8 here-b", "10.1.0.2:8080 draining 3 here-a", "10.1.0.3:8080 notReady 3 here-a"];
    plane.shows("named.shop", &wanted, SOON).await
}

async fn hostile(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server("one").await?;
    let shop = Writer::new(server.client().await?, "shop").await?;
    one_service(&shop).await?;
    for (name, weight) in [("minus", "-1"), ("huge", "1e30"), ("letters", "abc")] {
        shop.service(name, port_80(), json!({"portolan.dev/weight": weight})).await?;
        shop.slice(&format!("{name}-1"), name, json!([{"port": 8080}]), &[endpoint("10.1.0.9", "here-a")]).await?;
    }
    let labels = json!({"topology.kubernetes.io/zone": "here-a", "topology.kubernetes.io/region": "there"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "lost", "labels": labels}});
    let nodes: Api<Node> = Api::all(server.client().await?);
    nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
    shop.service("hasty", port_80(), json!({"portolan.dev/warmup": "-5s"})).await?;
    shop.service("portless", json!({"clusterIP": "None"}), json!({})).await?;
    shop.slice("orphan", "deleted", json!([{"port": 8080}]), &[endpoint("10.1.0.8", "here-a")]).await?;
    let plane = Plane::start(&lab.folder, &Serve::alone(&lab.folder, server.kubeconfig(), &[])?).await?;
    plane.shows("a.shop", &["10.1.0.1:8080 ready 1 here-a"], SOON).await?;
    plane.shows("minus.shop", &["10.1.0.9:8080 ready 1 here-a"], SOON).await?;
    let status = plane.status_text().await?;
    for named in [
        "Service shop/minus: portolan.dev/weight: `-1` is not a whole number from 1 to 1000",
        "Service shop/huge: portolan.dev/weight: `1e30` is not",
        "Service shop/letters: portolan.dev/weight: `abc` is not",
        "Service shop/portless: it has no port",
        "Node lost: its label topology.kubernetes.io/region says `there`, and the topology has the zone here-a in here",
        "Service shop/hasty: portolan.dev/warmup: `-5s` is not a duration such as `30s` or `2m`",
    ] {
        ensure!(status.contains(named), "status does not say `{named}`:\n{status}");
    }
    // Their owners are told where they look.
    let events: Api<Event> = Api::namespaced(server.client().await?, "shop");
    let services: Api<Service> = Api::namespaced(server.client().await?, "shop");
    for (name, note) in
        [("minus", "`-1` is not a whole number"), ("portless", "it has no port"), ("hasty", "`-5s` is not a duration")]
    {
        let uid = services.get(name).await?.metadata.uid;
        eventually(&format!("an Event about {name}"), SOON, || async {
            let said = events.list(&ListParams::default()).await?.items;
            let about = |event: &Event| event.regarding.as_ref().is_some_and(|about| about.uid == uid);
            let noted = |event: &Event| event.note.as_ref().is_some_and(|text| text.contains(note));
            Ok(said.iter().any(|event| about(event) && noted(event)).then_some(()))
        })
        .await?;
    }
    let note = "its label topology.kubernetes.io/region says `there`, and the topology has the zone here-a in here";
    eventually("`kubectl describe` tells the Node's owner", SOON, || async {
        let told = lab.kubectl(server.kubeconfig(), &["describe", "node", "lost"]).await?.done()?;
        Ok(told.contains(note).then_some(()))
    })
    .await?;
    shop.service("minus", port_80(), json!({"portolan.dev/weight": "7"})).await?;
    plane.shows("minus.shop", &["10.1.0.9:8080 ready 7 here-a"], SOON).await?;
    let status = plane.status_text().await?;
    ensure!(!status.contains("shop/minus"), "it is well now, and status still says:\n{status}");
    // Its slice stays behind.
    shop.no_service("letters").await?;
    eventually("the deleted Service is gone", SOON, || async {
        Ok((!plane.ask(&["services"]).await?.to_string().contains("letters.shop")).then_some(()))
    })
    .await?;
    Ok(())
}

async fn away(lab: Lab) -> anyhow::Result<()> {
    let mut server = lab.api_server("one").await?;
    let shop = Writer::new(server.client().await?, "shop").await?;
    one_service(&shop).await?;
    let plane = Plane::start(&lab.folder, &Serve::alone(&lab.folder, server.kubeconfig(), &[])?).await?;
    let stands = ["10.1.0.1:8080 ready 1 here-a"];
    plane.shows("a.shop", &stands, SOON).await?;
    server.kill().await?;
    let told = "status says how long it has been away";
    eventually(told, SOON, || async {
        let status = plane.status_text().await?;
        Ok(status.contains("not everything can be seen for").then_some(()))
    })
    .await?;
    let killed = Instant::now();
    while killed.elapsed() < AWAY {
        ensure!(plane.is_ready().await, "it is not ready any more after {:?}", killed.elapsed());
        let seen = plane.endpoints("a.shop").await?;
        ensure!(seen == stands, "after {:?} the endpoints are {seen:?}", killed.elapsed());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    server.start_again().await?;
    // The server's watch cache is empty: what the control plane knows is too old for it.
    let shop = Writer::new(server.client().await?, "shop").await?;
    shop.slice("a-2", "a", json!([{"port": 8080}]), &[endpoint("10.1.0.2", "here-b")]).await?;
    plane.shows("a.shop", &[stands[0], "10.1.0.2:8080 ready 1 here-b"], Duration::from_secs(30)).await?;
    eventually("status has nothing to say of it", SOON, || async {
        Ok((!plane.status_text().await?.contains("not everything")).then_some(()))
    })
    .await
}

async fn forbidden(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server("one").await?;
    let admin = server.client().await?;
    one_service(&Writer::new(admin.clone(), "shop").await?).await?;
    let read = json!(["get", "list", "watch"]);
    let services = json!({"apiGroups": [""], "resources": ["services"], "verbs": read});
    let slices = json!({"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read});
    allow(&admin, "portolan", json!([services])).await?;
    let kubeconfig = server.kubeconfig_of(Some("portolan"), server.address())?;
    let plane = Plane::start_unready(&lab.folder, &Serve::alone(&lab.folder, &kubeconfig, &[])?)?;
    eventually("status names EndpointSlices", Duration::from_secs(30), || async {
        Ok(plane.status_text().await?.contains("endpointslices.discovery.k8s.io are forbidden").then_some(()))
    })
    .await?;
    ensure!(!plane.is_ready().await, "it is ready without any EndpointSlice");
    allow(&admin, "portolan", json!([services, slices])).await?;
    plane.shows("a.shop", &["10.1.0.1:8080 ready 1 here-a"], Duration::from_secs(30)).await?;
    ensure!(plane.is_ready().await, "services do without Nodes");
    let status = plane.status_text().await?;
    ensure!(status.contains("nodes are forbidden: allow get, list and watch by RBAC"), "{status}");
    ensure!(status.contains("serviceexports.multicluster.x-k8s.io are forbidden: allow list and watch"), "{status}");
    // Who may hold the Lease and write Events says so there, and what only that node watches is named as well.
    let lease =
        json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]});
    let events = json!({"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]});
    allow(&admin, "portolan", json!([services, slices, lease, events])).await?;
    let said: Api<Event> = Api::namespaced(admin.clone(), "default");
    let leases: Api<Lease> = Api::namespaced(admin.clone(), "default");
    for kind in [
        "nodes",
        "namespaces",
        "drains.portolan.dev",
        "serviceimports.multicluster.x-k8s.io",
        "grpcroutes.gateway.networking.k8s.io",
    ] {
        let named = format!("{kind} are forbidden: allow ");
        eventually(&format!("an Event of the Lease says that {named}"), Duration::from_secs(40), || async {
            let uid = leases.get("portolan").await?.metadata.uid;
            let said = said.list(&ListParams::default()).await?.items;
            let about = |event: &Event| event.regarding.as_ref().is_some_and(|about| about.uid == uid);
            let noted = |event: &Event| event.note.as_ref().is_some_and(|note| note.starts_with(&named));
            Ok(said.iter().any(|event| about(event) && noted(event)).then_some(()))
        })
        .await?;
        let status = plane.status_text().await?;
        ensure!(status.contains(&named), "status does not name {kind}:\n{status}");
    }
    plane.shows("a.shop", &["10.1.0.1:8080 ready 1 here-a"], SOON).await?;
    let groups = ["", "portolan.dev", "multicluster.x-k8s.io", "gateway.networking.k8s.io"];
    let rest = json!({"apiGroups": groups, "resources": ["*"], "verbs": read});
    allow(&admin, "portolan", json!([services, slices, lease, events, rest])).await?;
    eventually("status has nothing to say of Nodes", Duration::from_secs(30), || async {
        Ok((!plane.status_text().await?.contains("nodes are forbidden")).then_some(()))
    })
    .await?;
    eventually("status has nothing to say of any other type", Duration::from_secs(60), || async {
        Ok((!plane.status_text().await?.contains("forbidden")).then_some(()))
    })
    .await
}

async fn faults(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server("one").await?;
    let shop = Writer::new(server.client().await?, "shop").await?;
    one_service(&shop).await?;
    // Two pages and a bit of them.
    let more = (0..1_050_u16).map(|index| {
        let shop = &shop;
        async move {
            let address = format!("10.1.{}.{}", 1 + index / 200, 1 + index % 200);
            shop.slice(&format!("b-{index}"), "b", json!([{"port": 8080}]), &[endpoint(&address, "here-a")]).await
        }
    });
    stream::iter(more).buffer_unordered(16).try_collect::<()>().await?;
    let proxy = Proxy::start(server.client().await?)?;
    proxy.refuse(3);
    proxy.expire_pages(1);
    let serve = Serve::alone(&lab.folder, &proxy.kubeconfig(&lab.folder)?, &[])?;
    let plane = Plane::start(&lab.folder, &serve).await?;
    let (refused, expired, pages) = proxy.left();
    ensure!((refused, expired) == (0, 0) && pages >= 3, "no fault came: {refused} and {expired} left, {pages} pages");
    plane.shows("a.shop", &["10.1.0.1:8080 ready 1 here-a"], SOON).await?;
    proxy.truncate();
    shop.slice("a-1", "a", json!([{"port": 8080}]), &[endpoint("10.1.0.2", "here-b")]).await?;
    plane.shows("a.shop", &["10.1.0.2:8080 ready 1 here-b"], Duration::from_secs(30)).await?;
    proxy.refuse(2);
    proxy.truncate();
    shop.slice("a-1", "a", json!([{"port": 8080}]), &[endpoint("10.1.0.3", "here-b")]).await?;
    plane.shows("a.shop", &["10.1.0.3:8080 ready 1 here-b"], Duration::from_secs(30)).await
}

async fn hangs(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server("one").await?;
    let shop = Writer::new(server.client().await?, "shop").await?;
    one_service(&shop).await?;
    let proxy = Proxy::start(server.client().await?)?;
    let serve = Serve::alone(&lab.folder, &proxy.kubeconfig(&lab.folder)?, &[])?;
    let plane = Plane::start(&lab.folder, &serve).await?;
    plane.shows("a.shop", &["10.1.0.1:8080 ready 1 here-a"], SOON).await?;
    proxy.hang();
    shop.slice("a-1", "a", json!([{"port": 8080}]), &[endpoint("10.1.0.2", "here-b")]).await?;
    let noticed = plane.shows("a.shop", &["10.1.0.2:8080 ready 1 here-b"], Duration::from_secs(60)).await;
    noticed.context("the watches that hang were not given up")
}

/// Of the Secrets only those of certificates are watched: what becomes of others passes by, and moves the version on.
async fn bookmarked(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server("one").await?;
    let client = server.client().await?;
    one_service(&Writer::new(client.clone(), "shop").await?).await?;
    let proxy = Proxy::start(client.clone())?;
    let serve = Serve::alone(&lab.folder, &proxy.kubeconfig(&lab.folder)?, &["--watch-gateways"])?;
    let plane = Plane::start(&lab.folder, &serve).await?;
    plane.shows("a.shop", &["10.1.0.1:8080 ready 1 here-a"], SOON).await?;
    let begun =
        eventually("the watch of Secrets", SOON, || async { Ok(proxy.begun("secrets").first().copied()) }).await?;
    let secrets: Api<Secret> = Api::namespaced(client, "shop");
    let mut last = 0;
    for name in ["one", "two"] {
        let secret = json!({"metadata": {"name": name}, "type": "Opaque", "stringData": {"a": "b"}});
        let made = secrets.create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
        last = made.metadata.resource_version.context("no version")?.parse()?;
    }
    ensure!(last > begun, "the version did not move on: {last} after {begun}");
    let renewed = format!("the watch goes on from version {last} or later, not from {begun}");
    eventually(&renewed, Duration::from_secs(60), || async {
        Ok(proxy.begun("secrets").iter().any(|version| *version >= last).then_some(()))
    })
    .await
}

/// One client calls 50 times a second; each of its zone's two Pods carries 20 a second, 16 of which may be used.
async fn spills(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server("one").await?;
    let client = server.client().await?;
    let zones = ["here-a", "here-b"];
    let mut pods = Pods::new(client.clone(), ("checkout", "shop"), 40, &zones, lab.folder.clone()).await?;
    pods.add(4).await?;
    let shop = Writer::new(client, "shop").await?;
    let capacity = async |a_second: &str| {
        let spec = json!({"selector": {"app": "checkout"}, "ports": [{"port": 80, "targetPort": 8080}]});
        shop.service("checkout", spec, json!({"portolan.dev/capacity": a_second})).await
    };
    let plane = Plane::start(&lab.folder, &Serve::alone(&lab.folder, server.kubeconfig(), &[])?).await?;
    let bootstrap = plain_bootstrap(&lab.folder, plane.xds(), "one", "here-a")?;
    let calls = RustCalls::start("checkout.shop", &bootstrap, 50.0).await?;
    in_zone(&calls, 0.99..1.01).await.context("without a known capacity")?;
    capacity("20").await?;
    in_zone(&calls, 0.56..0.72).await.context("32 of 50 calls a second fit")?;
    capacity("100").await?;
    in_zone(&calls, 0.99..1.01).await.context("all fit")?;
    let tally = calls.stop().await;
    ensure!(tally.failed == 0, "calls failed: {:?}", tally.errors);
    Ok(())
}

/// Waits until the share of the answers of 3 s that come from here-a is `wanted`.
async fn in_zone(calls: &RustCalls, wanted: Range<f64>) -> anyhow::Result<()> {
    let (deadline, mut last) = (Instant::now() + MOVED, 0.0);
    while Instant::now() < deadline {
        calls.zones();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let zones = calls.zones();
        let all: u64 = zones.values().sum();
        last = zones.get("here-a").copied().unwrap_or_default() as f64 / all.max(1) as f64;
        if all > 75 && wanted.contains(&last) {
            return Ok(());
        }
    }
    bail!("wanted a share of {wanted:?} from here-a; in the last 3 s it was {last:.2}")
}
