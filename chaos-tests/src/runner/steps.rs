//! What each step does to the fleet, and what it leaves in the record.

use std::time::Duration;

use portolan_topology::policy::Scope;
use tokio::time::Instant;

use super::fleet::{Fleet, Kills};
use super::policy::PolicyWriter;
use super::site::Site;
use crate::measure::{BackendId, Death};
use crate::scenario::{Action, Scenario, Target};
use crate::sockets;
use crate::verdict::{Ended, Observed, StepTime, Trouble, spoken};

/// Carries out a scenario's steps.
pub(super) struct Stage<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) site: &'a Site,
    pub(super) fleet: &'a mut Fleet,
    pub(super) policy: &'a PolicyWriter,
    pub(super) zero: Instant,
    pub(super) observed: &'a mut Observed,
    /// When each backend was scaled away.
    pub(super) removed: &'a mut Vec<(usize, Duration)>,
}

impl Stage<'_> {
    /// Carries out one step; one line that says what happened.
    pub(super) async fn step(&mut self, index: usize) -> anyhow::Result<String> {
        let step = &self.scenario.steps[index];
        let began = self.zero.elapsed();
        let note = match &step.action {
            Action::Kill { target, backends, control_planes } => {
                self.kill(index, target, *backends, *control_planes).await?
            }
            Action::Restart { target } => {
                self.fleet.restart(target).await?;
                String::new()
            }
            Action::Degrade { scope, percent } => {
                self.fleet.degrade(scope, *percent)?;
                String::new()
            }
            Action::Scale { service, per_zone } => {
                let gone = self.fleet.scale(service, *per_zone)?;
                self.removed.extend(gone.iter().map(|backend| (*backend, began)));
                format!("{} backends go", gone.len())
            }
            Action::Drain { scope, over, restore_over } => {
                let [over, back] = [over, restore_over].map(|time| format!("{}ms", time.as_millis()));
                let scope = scope.to_string();
                let reason = format!("scenario {}, step {}", self.scenario.name, step.name);
                let arguments = ["drain", &scope, "--reason", &reason, "--over", &over, "--restore-over", &back];
                self.command(&step.name, &arguments).await
            }
            Action::Undrain { scope } => {
                let scope = scope.to_string();
                self.command(&step.name, &["undrain", &scope]).await
            }
            Action::Policy { document } => {
                let applied = self.policy.apply(&step.name, document, &self.fleet.living_planes()).await;
                match applied {
                    Ok(revision) => format!("r{revision}"),
                    Err(error) => self.trouble(&step.name, &error),
                }
            }
        };
        self.observed.steps.push(StepTime { began, done: self.zero.elapsed() });
        let note = if note.is_empty() { note } else { format!(" ({note})") };
        Ok(format!("{:>6.1} s  {}: {}{note}", began.as_secs_f64(), step.name, step.action))
    }

    async fn kill(&mut self, step: usize, target: &Target, backends: bool, planes: bool) -> anyhow::Result<String> {
        let leader = match target {
            Target::Leader => Some(self.policy.leader(&self.fleet.living_planes()).await?),
            _ => None,
        };
        let Kills { planes, backends } = self.fleet.kill(target, backends, planes, leader).await?;
        let (zero, site) = (self.zero, self.site);
        for (backend, killed) in &backends {
            self.observed.record.deaths.push(Death {
                backend: BackendId(u16::try_from(*backend).unwrap_or(u16::MAX)),
                killed: killed.killed.saturating_duration_since(zero),
                gone: killed.gone.saturating_duration_since(zero),
            });
        }
        let addresses = backends
            .iter()
            .map(|(index, killed)| (site.backends[*index].address, killed))
            .chain(planes.iter().map(|(index, killed)| (site.control_planes[*index].xds, killed)));
        let mut longest = Duration::ZERO;
        let mut count = 0;
        for (address, killed) in addresses {
            let took = killed.gone - killed.killed;
            longest = longest.max(took);
            count += 1;
            self.observed.ended.push(Ended {
                step,
                name: killed.name.clone(),
                took,
                by_kill: by_kill(killed.status),
                still_answers: sockets::answers(address).await,
            });
        }
        let who = leader.map(|leader| format!("{}, ", site.control_planes[leader].cluster)).unwrap_or_default();
        Ok(format!("{who}{count} processes gone after {}", spoken(longest)))
    }

    async fn command(&mut self, step: &str, arguments: &[&str]) -> String {
        match self.policy.command(arguments, &self.fleet.living_planes()).await {
            Ok(()) => String::new(),
            Err(error) => self.trouble(step, &error),
        }
    }

    fn trouble(&mut self, what: &str, error: &anyhow::Error) -> String {
        let message = format!("{error:#}");
        self.observed.troubles.push(Trouble { what: what.to_owned(), message: message.clone() });
        message
    }
}

/// Whether a process ended by SIGKILL, directly or through its supervisor, which ends as its child did.
fn by_kill(status: std::process::ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    const SIGKILL: i32 = 9;
    status.signal() == Some(SIGKILL) || status.code() == Some(128 + SIGKILL)
}

/// The scope that a scenario is mostly about: that of its first step with one.
pub(super) fn scope_of_interest(scenario: &Scenario) -> Option<&Scope> {
    scenario.steps.iter().find_map(|step| match &step.action {
        Action::Kill { target: Target::Scope(scope), .. }
        | Action::Restart { target: Target::Scope(scope) }
        | Action::Degrade { scope, .. }
        | Action::Drain { scope, .. }
        | Action::Undrain { scope } => Some(scope),
        _ => None,
    })
}
