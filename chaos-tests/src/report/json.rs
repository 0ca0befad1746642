//! `report.json`.

use std::collections::BTreeMap;

use portolan_topology::names::{RegionName, ZoneName};
use serde::Serialize;

use crate::measure::{Selection, Window, moved, shares_by_region};
use crate::scenario::{Action, Scenario, Step};
use crate::verdict::{Observed, Outcome, after_step, killed_scope};

/// The whole report.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// `pass` or `fail`.
    pub verdict: Verdict,
    /// The version of the control planes.
    pub portolan: String,
    /// All calls.
    pub requests: Requests,
    /// The steps in order.
    pub steps: Vec<StepReport>,
    /// The expectations in order.
    pub expectations: Vec<OutcomeReport>,
    /// The clients by zone.
    pub clients: Vec<ClientReport>,
}

/// How the run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Every expectation held.
    Pass,
    /// At least one did not.
    Fail,
}

/// Calls of the whole run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// Made.
    pub total: usize,
    /// Failed.
    pub failed: usize,
    /// Open at a killed process between its SIGKILL and its end.
    pub in_flight_at_kill: usize,
}

/// A step as it happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepReport {
    /// Its name.
    pub name: String,
    /// When it began, in seconds since time 0.
    pub at: f64,
    /// What was done.
    pub action: String,
    /// From the kill until the killed scope's clients were served elsewhere; `null` if nothing was killed, or never.
    pub moved_after_ms: Option<u64>,
    /// Who answered the clients it was about, by region, from then (or the step) to the next step; fractions of 1.
    pub shares: BTreeMap<RegionName, f64>,
}

/// An expectation and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutcomeReport {
    /// Its name.
    pub name: String,
    /// Whether it held.
    pub held: bool,
    /// What was seen.
    pub measured: String,
    /// What had to be seen.
    pub wanted: String,
}

/// A zone's clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientReport {
    /// The zone.
    pub zone: ZoneName,
    /// The client library's language.
    pub language: String,
    /// Its version.
    pub version: String,
    /// Calls made.
    pub calls: usize,
    /// Calls failed.
    pub failed: usize,
}

/// The report of a run.
#[must_use]
pub fn report(scenario: &Scenario, observed: &Observed, outcomes: &[Outcome], portolan: &str) -> Report {
    let record = &observed.record;
    let all = Selection::all(Window::new(std::time::Duration::ZERO, std::time::Duration::MAX));
    let held = outcomes.iter().all(|outcome| outcome.held);
    Report {
        scenario: scenario.name.clone(),
        verdict: if held { Verdict::Pass } else { Verdict::Fail },
        portolan: portolan.to_owned(),
        requests: Requests {
            total: record.calls.len(),
            failed: record.failed(&all),
            in_flight_at_kill: record.in_flight_at_kill(&all),
        },
        steps: scenario
            .steps
            .iter()
            .enumerate()
            .take(observed.steps.len())
            .map(|(index, step)| step_report(index, step, observed))
            .collect(),
        expectations: outcomes
            .iter()
            .map(|outcome| OutcomeReport {
                name: outcome.name.clone(),
                held: outcome.held,
                measured: outcome.measured.clone(),
                wanted: outcome.wanted.clone(),
            })
            .collect(),
        clients: clients(observed),
    }
}

fn step_report(index: usize, step: &Step, observed: &Observed) -> StepReport {
    let window = after_step(observed, index);
    let moved_after = killed_scope(&step.action).and_then(|killed| moved(&observed.record, killed, window));
    let clients_in = match &step.action {
        Action::Degrade { scope, .. } | Action::Drain { scope, .. } | Action::Undrain { scope } => Some(scope),
        Action::Restart { target: crate::scenario::Target::Scope(scope) } => Some(scope),
        action => killed_scope(action),
    };
    let from = window.from + moved_after.unwrap_or_default();
    let selection =
        Selection { window: Window::new(from, window.until), clients_in: clients_in.cloned(), service: None };
    let shares = shares_by_region(&observed.record, &selection).fractions;
    StepReport {
        name: step.name.clone(),
        at: (window.from.as_secs_f64() * 100.0).round() / 100.0,
        action: step.action.to_string(),
        moved_after_ms: moved_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        shares: shares.into_iter().map(|(region, share)| (region, (share * 1e4).round() / 1e4)).collect(),
    }
}

fn clients(observed: &Observed) -> Vec<ClientReport> {
    let record = &observed.record;
    let mut zones: BTreeMap<ZoneName, (usize, usize)> = BTreeMap::new();
    // A zone whose clients made no call is shown too.
    for client in &record.clients {
        if let Some(zone) = &client.locality.zone {
            zones.entry(zone.clone()).or_default();
        }
    }
    for call in &record.calls {
        let zone = record.client(call.client).locality.zone.as_ref();
        if let Some((calls, failed)) = zone.and_then(|zone| zones.get_mut(zone)) {
            *calls += 1;
            *failed += usize::from(!call.ok);
        }
    }
    let report = |(zone, (calls, failed))| ClientReport {
        zone,
        language: "rust".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        calls,
        failed,
    };
    zones.into_iter().map(report).collect()
}
