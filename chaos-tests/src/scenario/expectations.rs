//! Checks `expect`: each entry is one thing that can be measured, on enough calls to mean something.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use portolan_topology::diagnostic::{Report, Span};
use portolan_topology::document::Spanned;
use portolan_topology::names::ServiceId;
use portolan_topology::policy::Scope;

use super::check::{optional, positive, time};
use super::document as doc;
use super::model::{Action, Between, Expectation, Scenario, Target, Wanted};
use super::roles::{Roles, service};
use super::{FEWEST_CALLS, FEWEST_CALLS_BEHIND_A_SHARE};
use crate::measure::Window;

const KINDS: &str = "exactly one of `inZoneSharePercent`, `regionShares`, `clusterShares`, `movedWithin`, `failed`, \
                     `rampsBackOver`, `p99Within`, `processGone`, `writesWithin`, `historyKept`, `maxOverMean`";

/// The fewest steps that make a ramp, unless the scenario says otherwise.
const RAMP_STEPS: usize = 5;

/// What expectations are checked against.
pub(super) struct Expectations<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) roles: &'a Roles<'a>,
}

impl Expectations<'_> {
    pub(super) fn all(&self, list: &[Spanned<doc::Expectation>], report: &mut Report) -> Vec<Expectation> {
        let mut names = BTreeSet::new();
        for raw in list {
            if !names.insert(raw.name.as_str()) {
                report.error(raw.name.span, format!("two expectations are called `{}`", *raw.name));
            }
        }
        list.iter().filter_map(|raw| self.one(raw, report)).collect()
    }

    fn one(&self, raw: &Spanned<doc::Expectation>, report: &mut Report) -> Option<Expectation> {
        let window = self.between(raw, report)?;
        let clients_in = optional(raw.clients_in.as_ref(), |text| self.roles.scope(text, report))?;
        let ids: Vec<ServiceId> = self.scenario.services.iter().map(|service| service.id.clone()).collect();
        let service = optional(raw.service.as_ref(), |text| service(text, &ids, report))?;
        let kind = self.wanted(raw, &window, clients_in.as_ref(), &ids, report)?;
        let expectation = Expectation { name: (*raw.name).clone(), window, clients_in, service, kind };
        self.enough_calls(&expectation, raw.span, report);
        Some(expectation)
    }

    fn between(&self, raw: &Spanned<doc::Expectation>, report: &mut Report) -> Option<Between> {
        if let Some(after) = &raw.after {
            if let Some(from) = raw.from.as_ref().or(raw.until.as_ref()) {
                report.error(from.span, "`from` and `until` stand beside `after`").expected("one way to say when");
                return None;
            }
            let step = self.scenario.steps.iter().position(|step| step.name == **after);
            if step.is_none() {
                let names = self.scenario.steps.iter().map(|step| step.name.as_str());
                report.error(after.span, format!("no step `{}`", **after)).nearest(after, names);
            }
            return step.map(Between::AfterStep);
        }
        let from = raw.from.as_ref().map_or(Some(Duration::ZERO), |text| time(text, report))?;
        let until = raw.until.as_ref().map_or(Some(self.scenario.duration), |text| time(text, report))?;
        let span = raw.from.as_ref().or(raw.until.as_ref()).map_or(raw.span, |text| text.span);
        self.window(from, until, span, report).map(Between::Times)
    }

    fn window(&self, from: Duration, until: Duration, span: Span, report: &mut Report) -> Option<Window> {
        if from >= until {
            report.error(span, "the window ends before it begins").expected("`from` before `until`");
            return None;
        }
        if until > self.scenario.duration {
            report.error(span, "the window ends after the scenario").expected("`until` at most the `duration`");
            return None;
        }
        Some(Window::new(from, until))
    }

    fn wanted(
        &self,
        raw: &Spanned<doc::Expectation>,
        window: &Between,
        clients_in: Option<&Scope>,
        ids: &[ServiceId],
        report: &mut Report,
    ) -> Option<Wanted> {
        let mut wanted: Vec<Option<Wanted>> = Vec::new();
        let tolerance_points = raw.tolerance_points.map_or(3.0, |points| *points);
        if let Some(bounds) = &raw.in_zone_share_percent {
            wanted.push(in_zone(bounds, report));
        }
        if let Some(shares) = &raw.region_shares {
            wanted.push(self.region_shares(shares, clients_in, tolerance_points, report));
        }
        if let Some(shares) = &raw.cluster_shares {
            let names: Vec<String> = self.roles.topology().clusters().map(|cluster| cluster.name.to_string()).collect();
            let shares = self.parts(shares, &names, "cluster", report);
            wanted.push(shares.map(|shares| Wanted::ClusterShares { shares, tolerance_points }));
        }
        if let Some(within) = &raw.moved_within {
            let killed = self.step_scope(raw, window, "a `kill` of backends", report, |action| match action {
                Action::Kill { target: Target::Scope(scope), backends: true, .. } => Some(scope.clone()),
                _ => None,
            });
            let within = positive(within, report);
            wanted.push(within.zip(killed).map(|(within, killed)| Wanted::MovedWithin { within, killed }));
        }
        if let Some(failed) = &raw.failed {
            if !failed.max_in_flight_at_kill && failed.max.is_none() {
                report.error(failed.span, "`failed` says no bound").expected("`maxInFlightAtKill: true` or `max: 0`");
            }
            let (max_in_flight_at_kill, max) = (failed.max_in_flight_at_kill, failed.max);
            wanted.push(Some(Wanted::Failed { max_in_flight_at_kill, max }));
        }
        if let Some(ramp) = &raw.ramps_back_over {
            let returned = self.step_scope(raw, window, "a `restart` or `undrain`", report, |action| match action {
                Action::Restart { target: Target::Scope(scope) } | Action::Undrain { scope } => Some(scope.clone()),
                _ => None,
            });
            let steps = ramp.steps.map_or(RAMP_STEPS, |steps| *steps);
            if let Some(few) = ramp.steps.filter(|steps| !(1..=9).contains(&steps.value)) {
                report
                    .error(few.span, format!("{} steps", *few))
                    .expected("1 to 9: they are seen when they are a tenth apart");
            }
            let min = time(&ramp.min, report);
            wanted.push(min.zip(returned).map(|(min, returned)| Wanted::RampsBackOver { min, steps, returned }));
        }
        if let Some(p99) = &raw.p99_within {
            wanted.push(self.p99(p99, report));
        }
        if let Some(gone) = &raw.process_gone {
            self.must_be_true(gone, report);
            let kill = |action: &Action| matches!(action, Action::Kill { .. }).then_some(());
            let step = self.step_scope(raw, window, "a `kill`", report, kill);
            wanted.push(step.and(step_of(window)).map(|step| Wanted::ProcessGone { step }));
        }
        if let Some(within) = &raw.writes_within {
            let step = self.step_scope(raw, window, "a step", report, |_| Some(()));
            let within = positive(within, report);
            let wanted_here = within.zip(step.and(step_of(window)));
            wanted.push(wanted_here.map(|(within, step)| Wanted::WritesWithin { within, step }));
        }
        if let Some(kept) = &raw.history_kept {
            self.must_be_true(kept, report);
            wanted.push(Some(Wanted::HistoryKept));
        }
        if let Some(balance) = &raw.max_over_mean {
            let within = balance.within.as_ref().map_or(Some(Duration::ZERO), |text| time(text, report));
            if balance.max.value < 1.0 || !balance.max.is_finite() {
                report.error(balance.max.span, "nothing is below its own mean").expected("at least 1.0");
            }
            let of = service(&balance.service, ids, report);
            wanted.push(of.zip(within).map(|(service, within)| Wanted::MaxOverMean {
                service,
                max: *balance.max,
                within,
            }));
        }
        if wanted.len() != 1 {
            let message = format!("the expectation `{}` wants {} things", *raw.name, wanted.len());
            report.error(raw.span, message).expected(KINDS);
            return None;
        }
        wanted.pop().flatten()
    }

    /// What `pick` finds in the step that the expectation comes after.
    fn step_scope<T>(
        &self,
        raw: &Spanned<doc::Expectation>,
        window: &Between,
        wanted: &str,
        report: &mut Report,
        pick: impl FnOnce(&Action) -> Option<T>,
    ) -> Option<T> {
        let found = step_of(window).and_then(|step| pick(&self.scenario.steps[step].action));
        if found.is_none() {
            let span = raw.after.as_ref().map_or(raw.span, |after| after.span);
            report
                .error(span, format!("the expectation `{}` does not say after what", *raw.name))
                .expected(format!("`after` with the name of {wanted} of one scope"));
        }
        found
    }

    fn must_be_true(&self, flag: &Spanned<bool>, report: &mut Report) {
        if !flag.value {
            report.error(flag.span, "`false` would expect nothing").expected("`true`, or no such expectation");
        }
    }

    fn region_shares(
        &self,
        shares: &Spanned<doc::SharesText>,
        clients_in: Option<&Scope>,
        tolerance_points: f64,
        report: &mut Report,
    ) -> Option<Wanted> {
        let topology = self.roles.topology();
        let names: Vec<String> = topology.regions.iter().map(|region| region.name.to_string()).collect();
        if let doc::SharesText::Parts(_) = &shares.value {
            let shares = self.parts(shares, &names, "region", report)?;
            return Some(Wanted::RegionShares { shares, tolerance_points, from_topology: false });
        }
        if !matches!(&shares.value, doc::SharesText::Text(text) if text == "topology") {
            report.error(shares.span, "not shares").expected("`topology`, or a part for each region");
            return None;
        }
        let Some(region) = clients_in.and_then(|scope| self.roles.region_of(scope)) else {
            report.error(shares.span, "`topology` needs to know whose failover").expected("`clientsIn` beside it");
            return None;
        };
        let Some(targets) = topology.failover.get(&region) else {
            report
                .error(shares.span, format!("the topology has no failover for {region}"))
                .expected("`failover` there, or a part for each region here");
            return None;
        };
        let sum: f64 = targets.iter().map(|target| f64::from(target.weight)).sum();
        let shares = targets.iter().map(|target| (target.region.clone(), f64::from(target.weight) / sum)).collect();
        Some(Wanted::RegionShares { shares, tolerance_points, from_topology: true })
    }

    /// Parts of a whole by name, as fractions of 1.
    fn parts<K: FromStr + Ord>(
        &self,
        shares: &Spanned<doc::SharesText>,
        known: &[String],
        kind: &str,
        report: &mut Report,
    ) -> Option<BTreeMap<K, f64>> {
        let doc::SharesText::Parts(parts) = &shares.value else {
            report.error(shares.span, "not shares").expected(format!("a part for each {kind}"));
            return None;
        };
        let sum: f64 = parts.iter().map(|(_, part)| part).sum();
        if parts.iter().any(|(_, part)| !part.is_finite() || *part < 0.0) || sum <= 0.0 {
            report.error(shares.span, "parts must be 0 or more, and one above 0");
            return None;
        }
        let mut named = BTreeMap::new();
        for (text, part) in parts {
            let name = self.roles.name(text, shares.span, report)?;
            match K::from_str(&name) {
                Ok(key) if known.contains(&name) => *named.entry(key).or_insert(0.0) += part / sum,
                _ => {
                    let known = known.iter().map(String::as_str);
                    report.error(shares.span, format!("no {kind} `{name}` in the topology")).nearest(&name, known);
                    return None;
                }
            }
        }
        Some(named)
    }

    fn p99(&self, p99: &doc::P99, report: &mut Report) -> Option<Wanted> {
        if !p99.factor.is_finite() || p99.factor.value <= 0.0 {
            report.error(p99.factor.span, format!("{} times", *p99.factor)).expected("a factor such as `1.5`");
        }
        let (from, until) = (time(&p99.of.from, report)?, time(&p99.of.until, report)?);
        let of = self.window(from, until, p99.of.span, report)?;
        Some(Wanted::P99Within { factor: *p99.factor, of })
    }

    fn enough_calls(&self, expectation: &Expectation, span: Span, report: &mut Report) {
        let window = self.scenario.planned(&expectation.window);
        let count = |scope, length| self.calls(scope, expectation.service.as_ref(), length);
        let clients_in = expectation.clients_in.as_ref();
        let (calls, least) = match &expectation.kind {
            Wanted::InZoneSharePercent { .. } | Wanted::RegionShares { .. } | Wanted::ClusterShares { .. } => {
                (count(clients_in, window.length()), FEWEST_CALLS_BEHIND_A_SHARE)
            }
            Wanted::RampsBackOver { returned, .. } => {
                (count(Some(returned), window.length()), FEWEST_CALLS_BEHIND_A_SHARE)
            }
            Wanted::MovedWithin { killed, .. } => (count(Some(killed), window.length()), FEWEST_CALLS),
            Wanted::Failed { .. } => (count(clients_in, window.length()), FEWEST_CALLS),
            Wanted::P99Within { of, .. } => (count(clients_in, window.length().min(of.length())), FEWEST_CALLS),
            Wanted::MaxOverMean { service, within, .. } => {
                let callers = self.scenario.services.iter().filter(|other| other.calls.as_ref() == Some(service));
                let length = window.length().saturating_sub(*within);
                let of = |id: &ServiceId| self.calls(None, Some(id), length);
                (of(service) + callers.map(|caller| of(&caller.id)).sum::<f64>(), FEWEST_CALLS)
            }
            Wanted::ProcessGone { .. } | Wanted::WritesWithin { .. } | Wanted::HistoryKept => return,
        };
        if calls < least as f64 {
            report
                .error(span, format!("{calls:.0} calls are behind the expectation `{}`", expectation.name))
                .expected(format!("at least {least}: a higher `rate` or a longer window"));
        }
    }

    /// How many calls the clients in `scope` make in a window of that length.
    fn calls(&self, scope: Option<&Scope>, service: Option<&ServiceId>, length: Duration) -> f64 {
        let topology = self.roles.topology();
        let groups = self.scenario.clients.iter().filter(|group| service.is_none_or(|id| *id == group.service));
        let rate: f64 = groups
            .map(|group| {
                let localities = Scenario::localities(topology, group.within.as_ref());
                let here = localities.iter().filter(|at| scope.is_none_or(|scope| scope.contains(at))).count();
                here as f64 * f64::from(group.per_zone) * group.rate
            })
            .sum();
        rate * length.as_secs_f64()
    }
}

fn in_zone(bounds: &Spanned<doc::Bounds>, report: &mut Report) -> Option<Wanted> {
    let (min, max) = (bounds.min.unwrap_or(0.0), bounds.max.unwrap_or(100.0));
    let percents = 0.0..=100.0;
    if (bounds.min.is_none() && bounds.max.is_none())
        || !percents.contains(&min)
        || !percents.contains(&max)
        || min > max
    {
        report.error(bounds.span, "not bounds").expected("`min`, `max` or both, from 0 to 100");
        return None;
    }
    Some(Wanted::InZoneSharePercent { min, max })
}

fn step_of(window: &Between) -> Option<usize> {
    match window {
        Between::AfterStep(step) => Some(*step),
        Between::Times(_) => None,
    }
}
