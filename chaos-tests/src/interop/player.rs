//! One subject at work: its processes, its calls, and what was found.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{ChildStdout, Command};
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

use super::bootstrap::{self, Connection, EnvoyPorts};
use super::federation::{Federation, PORT};
use super::outcome::Check;
use super::subject::{self, Kind, Language, Role, Subject};
use super::tally::{Counts, Tally};
use crate::caller::Caller;
use crate::echo::CallRequest;
use crate::echo::echo_client::EchoClient;
use crate::runner::RunPaths;
use crate::runner::portolan::Portolan;
use crate::runner::process::{Launch, Process};

/// Calls a second of each client.
pub(super) const RATE: f64 = 100.0;
/// The deadline of a call.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);

/// A line that a program of ours prints.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    /// Which client it is.
    Introduction { client: String, version: String },
    /// Whether an xDS server serves.
    Mode { serving: bool },
    /// What became of calls.
    Counts(Counts),
}

/// One subject.
#[derive(Debug)]
pub(super) struct Player {
    /// Which.
    pub subject: &'static Subject,
    /// The version that it says it has.
    pub version: String,
    /// What became of its calls.
    pub tally: Tally,
    /// What was found.
    pub checks: Vec<Check>,
    /// How many of these people were told.
    pub told: usize,
    folder: PathBuf,
    running: Option<Running>,
    /// Calls to an xDS server, for as long as it is tested.
    calls: Option<AbortOnDropHandle<()>>,
}

/// A started subject.
#[derive(Debug)]
pub(super) struct Running {
    process: Process,
    serving: Arc<AtomicBool>,
    tally: Tally,
    introduced: Arc<parking_lot::Mutex<Option<(String, String)>>>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Running {
    /// Whether it does what it was started for.
    pub(super) fn works(&self, kind: Kind) -> bool {
        match kind {
            Kind::Server(_) => self.serving.load(Ordering::Relaxed),
            Kind::Caller(_) | Kind::Envoy { .. } => self.tally.recent(Duration::from_secs(2)).answers() > 0,
        }
    }

    /// Why calls failed.
    pub(super) fn errors(&self) -> String {
        self.tally.total().errors()
    }

    /// What it said of itself: its name and version.
    pub(super) fn introduced(&self) -> Option<(String, String)> {
        self.introduced.lock().clone()
    }

    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let killed = self.process.kill();
        self.process.gone(killed).await.context("cannot wait for a killed client")?;
        Ok(())
    }
}

impl Player {
    /// The subject whose client is made in `folder`.
    pub(super) async fn new(subject: &'static Subject, folder: PathBuf) -> anyhow::Result<Self> {
        // Programs of ours say it when they start.
        let version = match subject.kind {
            Kind::Envoy { .. } => envoy_version(&folder).await?,
            Kind::Caller(_) | Kind::Server(_) => String::new(),
        };
        let tally = Tally::default();
        Ok(Self { subject, version, tally, checks: Vec::new(), told: 0, folder, running: None, calls: None })
    }

    /// Starts it over `connection`; its calls count.
    pub(super) async fn start(&mut self, federation: &mut Federation, connection: Connection) -> anyhow::Result<()> {
        let running = self.launch(federation, connection, self.tally.clone(), None)?;
        self.running = Some(running);
        Ok(())
    }

    /// Starts a second one beside it, for a look; its calls count apart.
    pub(super) fn probe(&self, federation: &mut Federation, connection: Connection) -> anyhow::Result<Running> {
        let host = federation.addresses.host();
        let listen = federation.addresses.port(host, None)?;
        self.launch(federation, connection, Tally::default(), Some(listen))
    }

    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        match self.running.take() {
            Some(running) => running.stop().await,
            None => Ok(()),
        }
    }

    /// The folder with its program.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Notes what was found.
    pub(super) fn found(&mut self, check: &'static str, passed: bool, detail: impl Into<String>) {
        self.checks.push(Check { name: check, passed, detail: detail.into() });
    }

    /// Takes over the version that the program says it has.
    pub(super) fn learn_version(&mut self) {
        if let Some((_, version)) = self.running.as_ref().and_then(Running::introduced) {
            self.version = version;
        }
    }

    /// An error if its process ended by itself.
    pub(super) fn alive(&mut self) -> Result<(), crate::runner::process::ProcessError> {
        self.running.as_mut().map_or(Ok(()), |running| running.process.check())
    }

    /// Begins to call an xDS server, by its service's name.
    pub(super) fn call_server(&mut self, bootstrap: &Path) -> anyhow::Result<()> {
        let caller = Caller::connect(&format!("xds:///{}", self.subject.service()?), bootstrap)?;
        self.calls = Some(call_steadily(self.tally.clone(), move || {
            let caller = caller.clone();
            async move { caller.call(TIMEOUT).await.map(|reply| reply.backend) }
        }));
        Ok(())
    }

    /// Ends the calls to an xDS server.
    pub(super) fn end_calls(&mut self) {
        self.calls = None;
    }

    fn launch(
        &self,
        federation: &mut Federation,
        connection: Connection,
        tally: Tally,
        listen: Option<std::net::SocketAddr>,
    ) -> anyhow::Result<Running> {
        let service = self.subject.service()?;
        let name = format!("{}-{}", connection.node, connection.security.slug());
        let config = federation.paths.bootstrap(&name);
        let paths = federation.paths.clone();
        let mut tasks = Vec::new();
        let (text, program, arguments) = match self.subject.kind {
            Kind::Envoy { delta } => {
                let host = federation.addresses.host();
                let ports = EnvoyPorts {
                    listen: federation.addresses.port(host, None)?,
                    admin: federation.addresses.port(host, None)?,
                };
                tasks.push(call_plainly(tally.clone(), ports.listen)?);
                let text = bootstrap::envoy(&connection, ports, &format!("{service}:{PORT}"), delta);
                let config = config.display().to_string();
                let arguments =
                    ["-c", &config, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning"];
                (text, self.folder.join("venv/bin/envoy"), arguments.map(str::to_owned).to_vec())
            }
            Kind::Caller(language) => {
                let target = format!("xds:///{service}");
                let role = Role::Caller { target: &target, rate: RATE, timeout_seconds: TIMEOUT.as_secs_f64() };
                self.program(language, &role, &connection, &paths)
            }
            Kind::Server(language) => {
                let slug = self.subject.slug();
                let listen = listen.map_or_else(|| federation.server_address(&service), Ok)?;
                self.program(language, &Role::Server { name: &slug, listen }, &connection, &paths)
            }
        };
        std::fs::write(&config, serde_json::to_vec_pretty(&text)?).context("cannot write a bootstrap")?;
        let launch = supervised(&federation.portolan, program, arguments, &name, &paths, &config);
        let (process, stdout) = launch.start_reading()?;
        let (serving, introduced) = (Arc::<AtomicBool>::default(), Arc::default());
        tasks.push(read(stdout, tally.clone(), Arc::clone(&serving), Arc::clone(&introduced)));
        Ok(Running { process, serving, tally, introduced, _tasks: tasks })
    }

    fn program(
        &self,
        language: Language,
        role: &Role<'_>,
        connection: &Connection,
        paths: &RunPaths,
    ) -> (serde_json::Value, PathBuf, Vec<String>) {
        let (program, arguments) = subject::command(language, role, &self.folder, &paths.certs().join("trust.p12"));
        (bootstrap::grpc(connection), program, arguments)
    }
}

/// A program that dies with this one.
pub(super) fn supervised(
    portolan: &Portolan,
    program: PathBuf,
    arguments: Vec<String>,
    name: &str,
    paths: &RunPaths,
    bootstrap: &Path,
) -> Launch {
    let first = [crate::runner::SUPERVISE.to_owned(), program.display().to_string()];
    Launch {
        name: name.to_owned(),
        program: portolan.ours().to_owned(),
        arguments: first.into_iter().chain(arguments).collect(),
        environment: vec![("GRPC_XDS_BOOTSTRAP".to_owned(), bootstrap.display().to_string())],
        log: paths.log(name),
        killed_by_pipe: true,
    }
}

/// Takes in what a program prints.
fn read(
    stdout: ChildStdout,
    tally: Tally,
    serving: Arc<AtomicBool>,
    introduced: Arc<parking_lot::Mutex<Option<(String, String)>>>,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match serde_json::from_str(&line) {
                Ok(Line::Introduction { client, version }) => *introduced.lock() = Some((client, version)),
                Ok(Line::Mode { serving: now }) => serving.store(now, Ordering::Relaxed),
                Ok(Line::Counts(counts)) => tally.add(counts),
                // Libraries print what they like; it is no answer.
                Err(_) => tracing::debug!(line, "a line that is none of ours"),
            }
        }
    }))
}

/// Calls at the suite's rate, whatever becomes of earlier calls.
fn call_steadily<F>(tally: Tally, mut call: impl FnMut() -> F + Send + 'static) -> AbortOnDropHandle<()>
where
    F: Future<Output = Result<String, tonic::Status>> + Send + 'static,
{
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / RATE));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (call, tally) = (call(), tally.clone());
            tokio::spawn(async move {
                let ended = match call.await {
                    Ok(backend) => Counts::one_answered(backend),
                    Err(status) => Counts::one_failed(format!("{:?}: {}", status.code(), status.message())),
                };
                tally.add(ended);
            });
        }
    }))
}

/// Calls an address that knows nothing of xDS.
fn call_plainly(tally: Tally, address: std::net::SocketAddr) -> anyhow::Result<AbortOnDropHandle<()>> {
    Ok(call_over(tally, Channel::from_shared(format!("http://{address}"))?.connect_lazy(), ("lane", 2)))
}

/// Calls over a channel at the suite's rate; in one of so many this header says `blue`.
pub(super) fn call_over(
    tally: Tally,
    channel: Channel,
    (header, one_in): (&'static str, u64),
) -> AbortOnDropHandle<()> {
    let client = EchoClient::new(channel);
    let mut calls = 0_u64;
    call_steadily(tally, move || {
        let mut client = client.clone();
        calls += 1;
        let value = calls.is_multiple_of(one_in).then(|| MetadataValue::from_static("blue"));
        async move {
            let mut request = Request::new(CallRequest {});
            value.map(|value| request.metadata_mut().insert(header, value));
            request.set_timeout(TIMEOUT);
            client.call(request).await.map(|reply| reply.into_inner().backend)
        }
    })
}

/// As Envoy says it: `envoy  version: HASH/1.40.0/Clean/RELEASE/BoringSSL`.
async fn envoy_version(folder: &Path) -> anyhow::Result<String> {
    let output = Command::new(folder.join("venv/bin/envoy")).arg("--version").output().await;
    let output = output.context("cannot run Envoy")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = said.rsplit_once(' ').and_then(|(_, build)| build.split('/').nth(1));
    let version = version.with_context(|| format!("Envoy says no version: {said}"))?;
    Ok(version.to_owned())
}
