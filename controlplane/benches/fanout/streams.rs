//! Connect storm, one change to everybody, many changes in a row, and what an idle stream keeps.

use std::fmt::Write;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

use crate::client::{Dial, Seen, marker};
use crate::progress;
use crate::server::{Server, Site, start_bare};

pub(crate) const ENDPOINTS: usize = 100;
/// Single changes; the figures are their medians.
pub(crate) const CHANGES: usize = 21;
const ROLLING: usize = 500;
const ROLLING_INTERVAL: Duration = Duration::from_millis(20);
/// The server is left alone for so long before its memory is read.
const SETTLE: Duration = Duration::from_secs(3);
/// Longer than a server's batch of changes, so that each single change finds it idle.
const PAUSE: Duration = Duration::from_millis(150);

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) streams: usize,
    pub(crate) per_connection: usize,
    pub(crate) speaks: Speaks,
}

/// Who is measured, and how it is spoken to.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Speaks {
    /// A control plane, in plain text.
    Plain,
    /// A control plane, with mutual TLS.
    MutualTls,
    /// The bare server.
    Bare,
}

pub(crate) struct Measured {
    streams: usize,
    storm_ms: f64,
    storm_cpu_us_per_stream: f64,
    change_first_ms: f64,
    change_p50_ms: f64,
    change_last_ms: f64,
    change_cpu_us_per_stream: f64,
    rolling_staleness_p99_ms: f64,
    idle_stream_bytes: u64,
    /// How many resources the server encoded for the single changes.
    pub(crate) encodes: u64,
}

impl Measured {
    pub(crate) fn to_json(&self) -> Value {
        let round = |figure: f64| (figure * 100.0).round() / 100.0;
        json!({
            "streams": self.streams,
            "storm_ms": round(self.storm_ms),
            "storm_cpu_us_per_stream": round(self.storm_cpu_us_per_stream),
            "change_first_ms": round(self.change_first_ms),
            "change_p50_ms": round(self.change_p50_ms),
            "change_last_ms": round(self.change_last_ms),
            "change_cpu_us_per_stream": round(self.change_cpu_us_per_stream),
            "rolling_staleness_p99_ms": round(self.rolling_staleness_p99_ms),
            "idle_stream_bytes": self.idle_stream_bytes,
        })
    }
}

/// The service with its endpoints, the last of which says which change this is.
fn manifest(change: usize) -> String {
    let mut text = "\
apiVersion: v1
kind: Service
metadata: {name: checkout, namespace: shop}
spec: {ports: [{port: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: checkout-1, namespace: shop, labels: {kubernetes.io/service-name: checkout}}
addressType: IPv4
ports: [{port: 9090}]
endpoints:
"
    .to_owned();
    let addresses = (1..ENDPOINTS).map(|number| format!("10.0.0.{number}")).chain([marker::address(change)]);
    for address in addresses {
        let _ = writeln!(text, "- {{addresses: [{address}], zone: a, conditions: {{ready: true}}}}");
    }
    text
}

/// To a control plane as a kubelet's volume does it: whole or not at all.
fn publish(folder: &Path, change: usize) {
    let file = folder.join("checkout.yaml");
    std::fs::write(file.with_extension("new"), manifest(change)).unwrap();
    std::fs::rename(file.with_extension("new"), file).unwrap();
}

pub(crate) fn run(case: &Case) -> Measured {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let measured = LocalSet::new().block_on(&runtime, measure(case));
    // The clients end with their connections, whatever they are doing.
    runtime.shutdown_background();
    measured
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
async fn measure(case: &Case) -> Measured {
    let site = Site::new();
    publish(&site.manifests(), 0);
    let mut server = if case.speaks == Speaks::Bare { start_bare() } else { site.start() };
    let dial = match case.speaks {
        Speaks::MutualTls => Dial::mutual_tls(&server, &site),
        Speaks::Plain | Speaks::Bare => Dial::plain(&server),
    };
    let publish = |server: &mut Server, change| match case.speaks {
        Speaks::Bare => server.tell(change),
        Speaks::Plain | Speaks::MutualTls => publish(&site.manifests(), change),
    };
    let seen = Rc::new(Seen::default());
    seen.make();
    let say = |text: &str| progress(&format!("{}: {text}", case.name));
    say(&format!("{} streams, {} a connection", case.streams, case.per_connection));
    sleep(SETTLE).await;

    let (memory, cpu, begun) = (server.memory(), server.cpu_ns(), Instant::now());
    for _ in 0..case.streams / case.per_connection {
        spawn_local(dial.clone().open(case.per_connection, seen.clone()));
    }
    seen.synced(case.streams).await;
    let storm = begun.elapsed();
    say(&format!("all synced after {} ms", storm.as_millis()));
    sleep(SETTLE).await;
    let storm_cpu = server.cpu_ns() - cpu;
    let idle = server.memory().saturating_sub(memory);

    let encodes = server.encodes();
    say(&format!("{CHANGES} single changes"));
    let mut singles = Vec::new();
    for _ in 0..CHANGES {
        let cpu = server.cpu_ns();
        let change = seen.make();
        publish(&mut server, change);
        seen.reached(change, case.streams).await;
        // The last acknowledgements are still on their way.
        sleep(PAUSE).await;
        let delays = seen.take();
        singles.push((delays[0], delays[delays.len() / 2], delays[delays.len() - 1], server.cpu_ns() - cpu));
    }
    let encodes = server.encodes() - encodes;

    say(&format!("{ROLLING} changes, one every {} ms", ROLLING_INTERVAL.as_millis()));
    let mut last = 0;
    let mut due = Instant::now();
    for _ in 0..ROLLING {
        last = seen.make();
        publish(&mut server, last);
        due += ROLLING_INTERVAL;
        tokio::time::sleep_until(due).await;
    }
    seen.reached(last, case.streams).await;
    let staleness = seen.take();

    let per_stream = |ns: u64| ns as f64 / 1_000.0 / case.streams as f64;
    let ms = |duration: Duration| duration.as_secs_f64() * 1_000.0;
    Measured {
        streams: case.streams,
        storm_ms: ms(storm),
        storm_cpu_us_per_stream: per_stream(storm_cpu),
        change_first_ms: ms(median(singles.iter().map(|single| single.0))),
        change_p50_ms: ms(median(singles.iter().map(|single| single.1))),
        change_last_ms: ms(median(singles.iter().map(|single| single.2))),
        change_cpu_us_per_stream: per_stream(median(singles.iter().map(|single| single.3))),
        rolling_staleness_p99_ms: ms(staleness[staleness.len() * 99 / 100]),
        idle_stream_bytes: idle / case.streams as u64,
        encodes,
    }
}

fn median<T: Ord>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    let middle = values.len() / 2;
    values.swap_remove(middle)
}
