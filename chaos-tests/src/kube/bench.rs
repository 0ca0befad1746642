//! `cargo kube --bench`: what the source costs with 10,000 Pods in 1,000 Services. A table, and one line of JSON.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{Patch, PatchParams, WatchEvent, WatchParams};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;

use super::calls::{PythonCalls, RustCalls, plain_bootstrap};
use super::objects::Writer;
use super::plane::{Plane, Serve};
use super::pods::Pods;
use super::proxy::Proxy;
use super::suite::{Lab, eventually};
use crate::terminal::{Terminal, Tone};

const SERVICES: usize = 1_000;
const PODS_OF_EACH: usize = 10;
/// Requests to the API server at a time while it is filled.
const IN_FLIGHT: usize = 16;
const CHANGES_A_SECOND: u32 = 100;
const CHANGES: u32 = 2_000;
/// How many types are watched.
const TYPES: usize = 3;
/// How long after a relist its pushes may come.
const AFTER_RELIST: Duration = Duration::from_secs(2);
const ROLLING: usize = 50;
const ROLLED_AT_ONCE: usize = 10;
const CALLS_A_SECOND: f64 = 100.0;

/// One figure.
struct Figure {
    name: &'static str,
    measured: f64,
    /// What it should be below; 0: it should be 0.
    below: f64,
    digits: usize,
}

impl Figure {
    fn held(&self) -> bool {
        if self.below == 0.0 { self.measured == 0.0 } else { self.measured < self.below }
    }
}

/// Measures, and prints as it goes; how many targets were missed.
pub(super) async fn run(lab: &Lab, terminal: &Terminal) -> anyhow::Result<usize> {
    let server = lab.api_server("bench").await?;
    let client = server.client().await?;
    let began = Instant::now();
    fill(&client).await?;
    terminal.say(&format!(
        "{SERVICES} Services and {} endpoints are in the API server after {:.0} s",
        SERVICES * PODS_OF_EACH,
        began.elapsed().as_secs_f64()
    ));
    let proxy = Proxy::start(client.clone())?;
    let began = Instant::now();
    let direct = Plane::start(&lab.folder, &serve(lab, server.kubeconfig())?).await?;
    terminal.say(&format!("the control plane is ready after {:.1} s", began.elapsed().as_secs_f64()));
    let mut figures = vec![event_to_send(&client, &direct, terminal).await?];
    let resident = direct.resident_bytes()? as f64 / f64::from(1 << 20);
    figures.push(Figure { name: "rss_mb", measured: resident, below: 150.0, digits: 0 });
    terminal.say("a rolling restart under load");
    figures.push(rolling(lab, &server.client().await?, &direct, terminal).await?);
    direct.kill().await?;
    let through = Plane::start(&lab.folder, &serve(lab, &proxy.kubeconfig(&lab.folder)?)?).await?;
    figures.extend(relist(&through, &proxy).await?);
    through.kill().await?;
    report(&figures, terminal);
    Ok(figures.iter().filter(|figure| !figure.held()).count())
}

fn serve(lab: &Lab, kubeconfig: &Path) -> anyhow::Result<Serve> {
    Ok(Serve { program: lab.tools.portolan.clone(), ..Serve::alone(&lab.folder, kubeconfig, &[])? })
}

fn report(figures: &[Figure], terminal: &Terminal) {
    terminal.say(&format!("  {:<24}{:>10}  TARGET", "FIGURE", "MEASURED"));
    for figure in figures {
        let (mark, tone) = if figure.held() { ("✓", Tone::Good) } else { ("✗", Tone::Bad) };
        let target = if figure.below == 0.0 { "0".to_owned() } else { format!("under {}", figure.below) };
        let measured = format!("{:.*}", figure.digits, figure.measured);
        terminal.say(&format!("{} {:<24}{measured:>10}  {target}", terminal.tone(mark, tone), figure.name));
    }
    let missed: Vec<&str> = figures.iter().filter(|figure| !figure.held()).map(|figure| figure.name).collect();
    if !missed.is_empty() {
        terminal.say(&format!("missed: {}", missed.join(", ")));
    }
    let json: serde_json::Map<String, Value> = figures
        .iter()
        .map(|figure| {
            let scale = 10_f64.powi(i32::try_from(figure.digits).unwrap_or(0));
            (figure.name.to_owned(), json!((figure.measured * scale).round() / scale))
        })
        .collect();
    terminal.say(&Value::Object(json).to_string());
}

/// The name of a service and of its slice.
fn service(index: usize) -> String {
    format!("s-{index}")
}

fn endpoints(index: usize, first: &str) -> Vec<Value> {
    let other = |pod: usize| format!("10.{}.{}.{}", 2 + index / 250, index % 250, 1 + pod);
    let address = |pod: usize| if pod == 0 { first.to_owned() } else { other(pod) };
    let zone = |pod: usize| if pod.is_multiple_of(2) { "here-a" } else { "here-b" };
    (0..PODS_OF_EACH)
        .map(|pod| json!({"addresses": [address(pod)], "zone": zone(pod), "conditions": {"ready": true}}))
        .collect()
}

async fn fill(client: &kube::Client) -> anyhow::Result<()> {
    let writer = Writer::new(client.clone(), "bench").await?;
    let writer = &writer;
    let write = |index: usize| async move {
        let name = service(index);
        writer.service(&name, json!({"ports": [{"port": 80}]}), json!({})).await?;
        let first = format!("10.1.{}.{}", index / 250, index % 250 + 1);
        writer.slice(&name, &name, json!([{"port": 8080}]), &endpoints(index, &first)).await
    };
    stream::iter((0..SERVICES).map(write)).buffer_unordered(IN_FLIGHT).try_collect::<()>().await
}

fn names() -> Vec<String> {
    (0..SERVICES).map(|index| format!("{}.bench:80", service(index))).collect()
}

/// The address by which a change is known again.
fn mark(change: u32) -> String {
    let [_, b, c, d] = change.to_be_bytes();
    format!("172.{}.{c}.{d}", 16 + b)
}

/// From the API server's event to the client of the control plane: both as this process sees them.
async fn event_to_send(client: &kube::Client, plane: &Plane, terminal: &Terminal) -> anyhow::Result<Figure> {
    let subscriber = super::subscriber::Subscriber::start(plane.xds(), "one", "here-a", names()).await?;
    eventually("every endpoint is sent", Duration::from_secs(60), || async {
        Ok((subscriber.addresses() >= SERVICES * PODS_OF_EACH).then_some(()))
    })
    .await?;
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "bench");
    let version = slices.list_metadata(&kube::api::ListParams::default().limit(1)).await?.metadata.resource_version;
    let mut watch = slices.watch(&WatchParams::default(), &version.context("no version")?).await?.boxed();
    let events = Arc::<Mutex<HashMap<String, Instant>>>::default();
    let noted = Arc::clone(&events);
    let _watching = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(Ok(event)) = watch.next().await {
            let WatchEvent::Modified(slice) = event else { continue };
            let now = Instant::now();
            if let Some(first) = slice.endpoints.first().and_then(|endpoint| endpoint.addresses.first()) {
                noted.lock().entry(first.clone()).or_insert(now);
            }
        }
    }));
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / CHANGES_A_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let began = Instant::now();
    let mut patches = tokio::task::JoinSet::new();
    for change in 0..CHANGES {
        ticks.tick().await;
        let slices = slices.clone();
        // A stride that has no divisor in common with the number: neighbours in time are not neighbours in name.
        let index = (change as usize * 387) % SERVICES;
        patches.spawn(async move {
            let patch = Patch::Merge(json!({"endpoints": endpoints(index, &mark(change))}));
            slices.patch(&service(index), &PatchParams::default(), &patch).await
        });
    }
    while let Some(patched) = patches.join_next().await {
        patched.context("a change's task failed")??;
    }
    let rate = f64::from(CHANGES) / began.elapsed().as_secs_f64();
    // A service that is changed twice within a batch is sent once: the last change of each is sent.
    let last = (CHANGES - u32::try_from(SERVICES).unwrap_or(0))..CHANGES;
    eventually("the last changes are sent", Duration::from_secs(30), || async {
        Ok(last.clone().all(|change| subscriber.first(&mark(change)).is_some()).then_some(()))
    })
    .await?;
    let events = events.lock();
    let mut millis: Vec<f64> = (0..CHANGES)
        .filter_map(|change| {
            let (event, sent) = (events.get(&mark(change))?, subscriber.first(&mark(change))?);
            Some(sent.saturating_duration_since(*event).as_secs_f64() * 1_000.0)
        })
        .collect();
    ensure!(millis.len() >= SERVICES, "only {} of {CHANGES} changes were seen on both sides", millis.len());
    millis.sort_by(f64::total_cmp);
    let at = |percent: usize| millis[(millis.len() * percent / 100).min(millis.len() - 1)];
    terminal.say(&format!(
        "{} changes at {rate:.0} a second: event to send p50 {:.1} ms, p99 {:.1} ms",
        millis.len(),
        at(50),
        at(99)
    ));
    Ok(Figure { name: "event_to_send_p99_ms", measured: at(99), below: 50.0, digits: 1 })
}

/// Every watch is told 410 Gone: until all are listed and watched again, and what clients are sent of it.
async fn relist(plane: &Plane, proxy: &Proxy) -> anyhow::Result<[Figure; 2]> {
    let subscriber = super::subscriber::Subscriber::start(plane.xds(), "one", "here-a", names()).await?;
    eventually("every endpoint is sent", Duration::from_secs(60), || async {
        Ok((subscriber.addresses() >= SERVICES * PODS_OF_EACH).then_some(()))
    })
    .await?;
    let before = subscriber.responses();
    let mut opened = proxy.opened();
    let all = *opened.borrow_and_update() + TYPES;
    let began = Instant::now();
    proxy.forget();
    let again = tokio::time::timeout(Duration::from_secs(60), opened.wait_for(|opened| *opened >= all));
    again.await.context("not everything is watched again")??;
    let took = began.elapsed().as_secs_f64() * 1_000.0;
    tokio::time::sleep(AFTER_RELIST).await;
    let pushes = subscriber.responses() - before;
    Ok([
        Figure { name: "relist_ms", measured: took, below: 2_000.0, digits: 0 },
        Figure { name: "relist_pushes", measured: pushes as f64, below: 0.0, digits: 0 },
    ])
}

/// A rolling restart of [`ROLLING`] Pods under load from the Rust client and from stock gRPC.
async fn rolling(lab: &Lab, client: &kube::Client, plane: &Plane, terminal: &Terminal) -> anyhow::Result<Figure> {
    let mut pods =
        Pods::new(client.clone(), ("rolling", "shop"), 200, &["here-a", "here-b"], lab.folder.clone()).await?;
    pods.add(ROLLING).await?;
    let bootstrap = plain_bootstrap(&lab.folder, plane.xds(), "one", "here-a")?;
    let rust = RustCalls::start("rolling.shop", &bootstrap, CALLS_A_SECOND).await?;
    let python = PythonCalls::start(&lab.tools, "rolling.shop", &bootstrap, CALLS_A_SECOND).await?;
    let began = Instant::now();
    pods.roll(ROLLED_AT_ONCE).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let took = began.elapsed().as_secs_f64();
    let (rust, python) = (rust.stop().await, python.stop().await?);
    terminal.say(&format!(
        "{ROLLING} Pods replaced in {took:.0} s: {} of {} calls of the Rust client and {} of {} of grpcio failed",
        rust.failed, rust.calls, python.failed, python.calls
    ));
    for (error, count) in rust.errors.iter().chain(&python.errors) {
        terminal.say(&format!("  {count} × {error}"));
    }
    ensure!(rust.calls > 500 && python.calls > 500, "too few calls to say anything");
    let failed = (rust.failed + python.failed) as f64;
    Ok(Figure { name: "rolling_failed", measured: failed, below: 0.0, digits: 0 })
}
