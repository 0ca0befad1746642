//! One run, from an empty folder to a verdict.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use portolan_topology::topology::Topology;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::addresses::Addresses;
use super::bootstrap::bootstrap;
use super::fleet::Fleet;
use super::folder::RunFolder;
use super::live;
use super::policy::PolicyWriter;
use super::portolan::{Portolan, RunPaths};
use super::site::{Site, place};
use super::steps::{Stage, scope_of_interest};
use crate::load::{Clients, Load};
use crate::measure::{Backend, Client, Record};
use crate::report::{self, Verdict};
use crate::scenario::Scenario;
use crate::terminal::{Terminal, Tone};
use crate::verdict::{Observed, Outcome, Trouble, judge};

/// How long the policy group may take to be born.
const POLICY_WITHIN: Duration = Duration::from_secs(40);
/// The same where the control planes never reach each other: it will not be.
const POLICY_WITHIN_BLOCKED: Duration = Duration::from_secs(5);
/// How often the table is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(500);
/// How often a line is written where there is no table, and it is seen whether all processes live.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What is run, and how.
#[derive(Debug)]
pub struct Options {
    /// The scenario.
    pub scenario: Scenario,
    /// The topology that it was checked against.
    pub topology: Topology,
    /// Another build of the control plane.
    pub portolan: Option<PathBuf>,
    /// Whether everything stays up after the verdict, until Ctrl-C.
    pub keep: bool,
    /// Where the report goes.
    pub report: PathBuf,
    /// The start of the run's random choices.
    pub seed: u64,
}

/// Runs a scenario; whether every expectation held. Nothing of the run but its report is left.
pub async fn run(options: Options, terminal: &mut Terminal) -> anyhow::Result<bool> {
    let folder = RunFolder::create(&std::env::temp_dir()).context("cannot make a folder for the run")?;
    let paths = RunPaths(folder.path().to_owned());
    let scenario = Arc::new(options.scenario.clone());
    let mut addresses = Addresses::new(options.seed);
    let site = Arc::new(Site::new(&scenario, &options.topology, &mut addresses).context("cannot find free addresses")?);
    let portolan = Portolan::new(options.portolan.clone()).context("cannot find this program")?;
    let mut run = Run {
        fleet: Fleet::new(Arc::clone(&site), Arc::clone(&scenario), portolan.clone(), paths.clone()),
        policy: PolicyWriter { site: Arc::clone(&site), portolan, paths: paths.clone() },
        observed: Observed::default(),
        load: None,
        options,
        scenario,
        site,
        paths,
    };
    let mut interrupts = Interrupts::new().context("cannot wait for signals")?;
    let played = tokio::select! {
        played = run.play(terminal) => played,
        () = interrupts.next() => Err(anyhow::anyhow!("interrupted")),
    };
    if run.options.keep && played.is_ok() {
        run.show_commands(terminal);
        interrupts.next().await;
    }
    terminal.end();
    run.fleet.end().await;
    played
}

pub(crate) struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Interrupts {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

struct Run {
    options: Options,
    scenario: Arc<Scenario>,
    site: Arc<Site>,
    paths: RunPaths,
    fleet: Fleet,
    policy: PolicyWriter,
    observed: Observed,
    load: Option<Load>,
}

impl Run {
    async fn play(&mut self, terminal: &mut Terminal) -> anyhow::Result<bool> {
        let (planes, backends, clients) =
            (self.site.control_planes.len(), self.site.backends.len(), self.site.clients.len());
        terminal.say(&format!(
            "{}: starting {planes} control planes, {backends} backends and {clients} clients",
            self.scenario.name
        ));
        self.prepare().await?;
        let starting = Instant::now();
        self.fleet.start().await?;
        terminal.say(&format!("up after {:.1} s", starting.elapsed().as_secs_f64()));
        self.apply_policies(terminal).await;
        let connected = Clients::connect(&self.site, &self.paths).await?;
        terminal.say("every client has had an answer; time 0");
        self.observe(connected, terminal).await?;
        self.conclude(terminal)
    }

    async fn prepare(&self) -> anyhow::Result<()> {
        self.site.prepare(&self.options.topology, &self.policy.portolan, &self.paths).await?;
        let mut localities: Vec<_> = self.site.clients.iter().map(|client| &client.locality).collect();
        localities.extend(self.site.backends.iter().map(|backend| &backend.locality));
        for locality in localities {
            let file = self.paths.bootstrap(&place(locality));
            let text = serde_json::to_vec_pretty(&bootstrap(&self.site, locality, &self.paths))?;
            std::fs::write(file, text).context("cannot write a bootstrap")?;
        }
        Ok(())
    }

    async fn apply_policies(&mut self, terminal: &Terminal) {
        let within = if self.scenario.block_peers { POLICY_WITHIN_BLOCKED } else { POLICY_WITHIN };
        let deadline = Instant::now() + within;
        let planes = self.fleet.living_planes();
        for (index, document) in self.scenario.policies.iter().enumerate() {
            let name = format!("policy-{}", index + 1);
            match self.policy.apply_by(deadline, &name, document, &planes).await {
                Ok(revision) => terminal.say(&format!("policy applied: r{revision}")),
                Err(error) => {
                    terminal.say(&format!("policy not applied: {error:#}"));
                    self.observed.troubles.push(Trouble { what: name, message: format!("{error:#}") });
                }
            }
        }
        if self.scenario.probes_writes()
            && let Err(error) = self.policy.apply_by(deadline, "born", &super::policy::probe_document(0), &planes).await
        {
            let message = format!("{error:#}");
            self.observed.troubles.push(Trouble { what: "policy group".to_owned(), message });
        }
    }

    async fn observe(&mut self, connected: Clients, terminal: &mut Terminal) -> anyhow::Result<()> {
        let zero = Instant::now();
        let load = connected.start(zero);
        let log = Arc::clone(load.log());
        self.load = Some(load);
        let done = CancellationToken::new();
        let writes = self.scenario.probes_writes().then(|| self.policy.probe(zero, done.child_token()));
        terminal.begin(self.scenario.duration);
        let mut removed = Vec::new();
        {
            let mut stage = Stage {
                scenario: &self.scenario,
                site: &self.site,
                fleet: &mut self.fleet,
                policy: &self.policy,
                zero,
                observed: &mut self.observed,
                removed: &mut removed,
            };
            let steps = async {
                for index in 0..stage.scenario.steps.len() {
                    stage.wait_until(stage.scenario.steps[index].at).await?;
                    let line = stage.step(index).await?;
                    terminal.say(&line);
                }
                stage.wait_until(stage.scenario.duration).await
            };
            let drawing = async {
                let every = if terminal.is_live() { DRAW_EVERY } else { LINE_EVERY };
                let mut ticks = tokio::time::interval_at(zero + every, every);
                loop {
                    ticks.tick().await;
                    let live = log.live();
                    if terminal.is_live() {
                        terminal.tick(zero.elapsed(), &live::table(&live, every, &self.site));
                    } else {
                        let line = live::line(&live, &self.site);
                        terminal.say(&format!("{:>6.1} s  {line}", zero.elapsed().as_secs_f64()));
                    }
                }
            };
            tokio::select! {
                done = steps => done?,
                () = drawing => {}
            }
        }
        terminal.end();
        self.observed.duration = zero.elapsed();
        if let Some(load) = self.load.as_ref().filter(|_| !self.options.keep) {
            load.stop().await;
        }
        done.cancel();
        if let Some(writes) = writes {
            self.observed.writes = std::mem::take(&mut *writes.lock());
            self.observed.history = self.policy.history(&self.fleet.living_planes()).await.ok();
        }
        let (calls, earlier, errors) = log.take(self.scenario.duration);
        self.record(calls, earlier, &removed);
        let mut errors: Vec<_> = errors.into_iter().collect();
        errors.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (error, count) in errors.into_iter().take(5) {
            terminal.say(&format!("{count} calls failed: {error}"));
        }
        Ok(())
    }

    fn record(
        &mut self,
        calls: Vec<crate::measure::Call>,
        earlier: Vec<crate::measure::EarlierAttempt>,
        removed: &[(usize, Duration)],
    ) {
        let clients = self.site.clients.iter();
        let backends = self.site.backends.iter().enumerate();
        let deaths = std::mem::take(&mut self.observed.record.deaths);
        self.observed.record = Record {
            clients: clients
                .map(|client| Client { service: client.group.service.clone(), locality: client.locality.clone() })
                .collect(),
            backends: backends
                .map(|(index, backend)| Backend {
                    name: backend.name.clone(),
                    service: backend.service.clone(),
                    locality: backend.locality.clone(),
                    removed: removed.iter().find(|(gone, _)| *gone == index).map(|(_, at)| *at),
                })
                .collect(),
            calls,
            earlier,
            deaths,
        };
    }

    fn conclude(&self, terminal: &Terminal) -> anyhow::Result<bool> {
        let outcomes = judge(&self.scenario, &self.observed);
        let report = report::report(&self.scenario, &self.observed, &outcomes, env!("CARGO_PKG_VERSION"));
        report::write(&self.options.report, &report, &self.scenario, &self.observed)
            .with_context(|| format!("cannot write the report to {}", self.options.report.display()))?;
        for line in table(&outcomes, terminal) {
            terminal.say(&line);
        }
        let passed = report.verdict == Verdict::Pass;
        let (word, tone) = if passed { ("PASS", Tone::Good) } else { ("FAIL", Tone::Bad) };
        terminal.say(&format!("report: {}", self.options.report.join("report.html").display()));
        terminal.say(&format!("{}  {}", terminal.tone(word, tone), self.scenario.name));
        Ok(passed)
    }

    fn show_commands(&self, terminal: &Terminal) {
        let living = self.fleet.living_planes();
        let Some(plane) = living.first().map(|plane| &self.site.control_planes[*plane]) else {
            terminal.say("no control plane is left to ask; Ctrl-C ends");
            return;
        };
        let admin = plane.admin.to_string();
        let service = self.scenario.services.first().map(|service| service.id.to_string()).unwrap_or_default();
        let zone = plane.locality.zone.as_ref().map_or("", |zone| zone.as_str());
        let scope = scope_of_interest(&self.scenario)
            .map_or_else(|| format!("region={}", plane.locality.region), ToString::to_string);
        terminal.say("everything stays up until Ctrl-C; try:");
        let commands: [&[&str]; 3] = [
            &["status", "--address", &admin],
            &["explain", &service, "--from", zone, "--address", &admin],
            &["drain", &scope, "--reason", "a trial", "--over", "10s", "--address", &admin],
        ];
        for command in commands {
            terminal.say(&format!("  {}", self.policy.portolan.command_line(command)));
        }
    }
}

impl Stage<'_> {
    /// Waits for a moment after time 0, seeing that all processes live meanwhile.
    async fn wait_until(&mut self, at: Duration) -> anyhow::Result<()> {
        let moment = self.zero + at;
        while Instant::now() < moment {
            tokio::time::sleep_until(moment.min(Instant::now() + LINE_EVERY)).await;
            self.fleet.check()?;
        }
        Ok(())
    }
}

fn table(outcomes: &[Outcome], terminal: &Terminal) -> Vec<String> {
    let width = |text: fn(&Outcome) -> &str| outcomes.iter().map(|outcome| text(outcome).chars().count()).max();
    let name = width(|outcome| &outcome.name).unwrap_or(0).max(11);
    let measured = width(|outcome| &outcome.measured).unwrap_or(0).clamp(8, 60);
    let header = format!("  {:<name$}  {:<measured$}  {}", "EXPECTATION", "MEASURED", "WANTED");
    let rows = outcomes.iter().map(|outcome| {
        let sign = if outcome.held { terminal.tone("✓", Tone::Good) } else { terminal.tone("✗", Tone::Bad) };
        format!("{sign} {:<name$}  {:<measured$}  {}", outcome.name, outcome.measured, outcome.wanted)
    });
    std::iter::once(header).chain(rows).collect()
}
