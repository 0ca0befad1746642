//! Clients that call a service at a steady rate and count what failed: the Rust client, and stock gRPC.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::suite::eventually;
use super::tools::{self, Tools};
use crate::caller::Caller;

const DEADLINE: Duration = Duration::from_secs(5);
/// Until the first answer.
const FIRST_WITHIN: Duration = Duration::from_secs(60);

/// What became of the calls.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Tally {
    /// How many were made.
    pub calls: u64,
    /// How many failed.
    pub failed: u64,
    /// Why.
    pub errors: BTreeMap<String, u64>,
}

/// Who answered, by the first part of the backend's name: its zone.
pub(super) type Zones = BTreeMap<String, u64>;

/// A bootstrap for a client in `zone` of `cluster`, in plain text.
pub(super) fn plain_bootstrap(folder: &Path, xds: SocketAddr, cluster: &str, zone: &str) -> anyhow::Result<PathBuf> {
    write_bootstrap(folder, &[xds], json!([{"type": "insecure"}]), cluster, ("here", zone))
}

/// A bootstrap with these servers in this order.
pub(super) fn write_bootstrap(
    folder: &Path,
    servers: &[SocketAddr],
    credentials: serde_json::Value,
    cluster: &str,
    (region, zone): (&str, &str),
) -> anyhow::Result<PathBuf> {
    let server = |at: &SocketAddr| json!({"server_uri": at.to_string(), "channel_creds": credentials, "server_features": ["xds_v3"]});
    let bootstrap = json!({
        "xds_servers": servers.iter().map(server).collect::<Vec<_>>(),
        "node": {"id": format!("{cluster}-{zone}"), "cluster": cluster,
                 "locality": {"region": region, "zone": zone, "sub_zone": cluster}}});
    let file = folder.join(format!("bootstrap-{cluster}-{zone}.json"));
    fs::write(&file, serde_json::to_vec(&bootstrap)?).context("cannot write a bootstrap")?;
    Ok(file)
}

/// Calls through the Rust client.
pub(super) struct RustCalls {
    stop: CancellationToken,
    calls: TaskTracker,
    seen: Arc<Mutex<Seen>>,
}

/// What was seen of calls that ended.
#[derive(Default)]
struct Seen {
    tally: Tally,
    zones: Zones,
    /// When each that failed was sent for the last time, and why it failed.
    failures: Vec<(Instant, String)>,
}

impl RustCalls {
    /// Begins once a call was answered.
    pub(super) async fn start(service: &str, bootstrap: &Path, a_second: f64) -> anyhow::Result<Self> {
        let caller = Caller::connect(&format!("xds:///{service}"), bootstrap)?;
        eventually("an answer to the Rust client", FIRST_WITHIN, || async {
            caller.call(Duration::from_secs(1)).await.map(Some).map_err(anyhow::Error::from)
        })
        .await?;
        let (stop, calls, seen) = (CancellationToken::new(), TaskTracker::new(), Arc::default());
        let started = Self { stop: stop.clone(), calls: calls.clone(), seen: Arc::clone(&seen) };
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / a_second));
        calls.clone().spawn(async move {
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = stop.cancelled() => return,
                }
                let (caller, seen) = (caller.clone(), Arc::clone(&seen));
                calls.spawn(async move {
                    let begun = Instant::now();
                    let (answer, attempts) = caller.call_observed(DEADLINE).await;
                    let sent = attempts.last().map_or(begun, |last| last.at);
                    seen.lock().count(sent, answer);
                });
            }
        });
        Ok(started)
    }

    /// Who answered since the last time that this was asked.
    pub(super) fn zones(&self) -> Zones {
        std::mem::take(&mut self.seen.lock().zones)
    }

    /// What became of the calls so far.
    pub(super) fn tally(&self) -> Tally {
        self.seen.lock().tally.clone()
    }

    /// Why calls failed that were sent after `then`.
    pub(super) fn failed_after(&self, then: Instant) -> Vec<String> {
        let seen = self.seen.lock();
        seen.failures.iter().filter(|(sent, _)| *sent > then).map(|(_, why)| why.clone()).collect()
    }

    /// Calls no more, and waits for the last answer.
    pub(super) async fn stop(self) -> Tally {
        self.stop.cancel();
        self.calls.close();
        self.calls.wait().await;
        self.tally()
    }
}

impl Seen {
    fn count(&mut self, sent: Instant, answer: Result<crate::echo::CallReply, tonic::Status>) {
        self.tally.calls += 1;
        match answer {
            Ok(reply) => {
                let zone = reply.backend.split('/').next().unwrap_or_default().to_owned();
                *self.zones.entry(zone).or_default() += 1;
            }
            Err(status) => {
                let why = format!("{:?}: {}", status.code(), status.message());
                self.tally.failed += 1;
                *self.tally.errors.entry(why.clone()).or_default() += 1;
                self.failures.push((sent, why));
            }
        }
    }
}

/// Calls through grpcio.
pub(super) struct PythonCalls {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl PythonCalls {
    /// Begins once a call was answered.
    pub(super) async fn start(tools: &Tools, service: &str, bootstrap: &Path, a_second: f64) -> anyhow::Result<Self> {
        let mut child = Command::new(&tools.python)
            .arg(tools::grpc_caller())
            .args([format!("xds:///{service}"), a_second.to_string()])
            .env("GRPC_XDS_BOOTSTRAP", bootstrap)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start Python")?;
        let stdin = child.stdin.take().context("no standard input")?;
        let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
        let first = tokio::time::timeout(FIRST_WITHIN, lines.next_line()).await.context("grpcio had no answer")??;
        ensure!(first.as_deref() == Some("ready"), "grpcio ended before its first answer");
        Ok(Self { child, stdin, lines })
    }

    /// Calls no more, and waits for the last answer.
    pub(super) async fn stop(mut self) -> anyhow::Result<Tally> {
        drop(self.stdin);
        let line =
            tokio::time::timeout(FIRST_WITHIN, self.lines.next_line()).await.context("grpcio does not end")??;
        let _ = self.child.wait().await;
        Ok(serde_json::from_str(&line.context("grpcio said nothing")?)?)
    }
}
