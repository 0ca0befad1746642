//! Compares what was seen with what was wanted. Pure.

mod observed;
mod wording;

#[cfg(test)]
mod tests;

use std::time::Duration;

use portolan_topology::policy::Scope;

use crate::measure::{Selection, Window, balance, in_zone, moved, p99, ramp, shares_by_cluster, shares_by_region};
use crate::scenario::{
    Action, Between, Expectation, FEWEST_CALLS, FEWEST_CALLS_BEHIND_A_SHARE, Scenario, Target, Wanted,
};

pub use observed::{Ended, Observed, StepTime, Trouble, Write};
pub use wording::{list, percents, spoken};

/// What became of one expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The expectation's name.
    pub name: String,
    /// Whether it held.
    pub held: bool,
    /// What was seen; never empty.
    pub measured: String,
    /// What had to be seen; never empty.
    pub wanted: String,
}

/// What became of every expectation, in the scenario's order; what went wrong with the scenario's own commands follows.
#[must_use]
pub fn judge(scenario: &Scenario, observed: &Observed) -> Vec<Outcome> {
    let judge = Judge { observed };
    let expectations = scenario.expectations.iter().map(|expectation| judge.one(expectation));
    let troubles = observed.troubles.iter().map(|trouble| Outcome {
        name: trouble.what.clone(),
        held: false,
        measured: trouble.message.clone(),
        wanted: "done".to_owned(),
    });
    expectations.chain(troubles).collect()
}

/// The window from when a step really began until the next one did, or the end.
#[must_use]
pub fn after_step(observed: &Observed, step: usize) -> Window {
    let until = observed.steps.get(step + 1).map_or(observed.duration, |next| next.began);
    Window::new(observed.steps.get(step).map_or(observed.duration, |step| step.began), until)
}

/// The scope whose backends a step killed, if it did that.
#[must_use]
pub fn killed_scope(action: &Action) -> Option<&Scope> {
    match action {
        Action::Kill { target: Target::Scope(scope), backends: true, .. } => Some(scope),
        _ => None,
    }
}

struct Judge<'a> {
    observed: &'a Observed,
}

impl Judge<'_> {
    fn one(&self, expectation: &Expectation) -> Outcome {
        let window = match expectation.window {
            Between::Times(window) => window,
            Between::AfterStep(step) => after_step(self.observed, step),
        };
        let (held, measured, wanted) = self.measure(expectation, window);
        Outcome { name: expectation.name.clone(), held, measured, wanted }
    }

    fn measure(&self, expectation: &Expectation, window: Window) -> (bool, String, String) {
        let record = &self.observed.record;
        let calls =
            Selection { window, clients_in: expectation.clients_in.clone(), service: expectation.service.clone() };
        match &expectation.kind {
            Wanted::InZoneSharePercent { min, max } => {
                let wanted = wording::bounds(*min, *max);
                let Some((fraction, count)) = in_zone(record, &calls) else { return unseen(0, wanted) };
                let percent = fraction * 100.0;
                if count < FEWEST_CALLS_BEHIND_A_SHARE {
                    return unseen(count, wanted);
                }
                ((*min..=*max).contains(&percent), format!("{percent:.1}% of {count} calls"), wanted)
            }
            Wanted::RegionShares { shares, tolerance_points, from_topology } => {
                let seen = shares_by_region(record, &calls);
                let by = if *from_topology { " by the topology's weights" } else { "" };
                let wanted = format!("{}{by}, within {tolerance_points} points", percents(shares));
                self::shares(seen.calls, &seen.fractions, seen.points_off(shares), *tolerance_points, wanted)
            }
            Wanted::ClusterShares { shares, tolerance_points } => {
                let seen = shares_by_cluster(record, &calls);
                let wanted = format!("{}, within {tolerance_points} points", percents(shares));
                self::shares(seen.calls, &seen.fractions, seen.points_off(shares), *tolerance_points, wanted)
            }
            Wanted::MovedWithin { within, killed } => {
                let wanted = format!("under {}", spoken(*within));
                let of_scope = Selection::by_clients_in(window, killed);
                let count = record.select(&of_scope).count();
                if count < FEWEST_CALLS {
                    return unseen(count, wanted);
                }
                match moved(record, killed, window) {
                    Some(after) => (after < *within, spoken(after), wanted),
                    None => (false, "never".to_owned(), wanted),
                }
            }
            Wanted::Failed { max_in_flight_at_kill, max } => self.failed(&calls, *max_in_flight_at_kill, *max),
            Wanted::RampsBackOver { min, steps, returned } => {
                let wanted = format!("over {} or more, through {steps} steps or more", spoken(*min));
                let count = record.select(&Selection::by_clients_in(window, returned)).count();
                if count < FEWEST_CALLS_BEHIND_A_SHARE {
                    return unseen(count, wanted);
                }
                match ramp(record, returned, window) {
                    Some(ramp) => (
                        ramp.took >= *min && ramp.steps >= *steps,
                        format!("over {}, through {} steps", spoken(ramp.took), ramp.steps),
                        wanted,
                    ),
                    None => (false, "not back".to_owned(), wanted),
                }
            }
            Wanted::P99Within { factor, of } => {
                let wanted = format!("at most {factor}× of before");
                let before = p99(record, &Selection { window: *of, ..calls.clone() });
                let (Some((now, count)), Some((before, count_before))) = (p99(record, &calls), before) else {
                    return unseen(0, wanted);
                };
                if count.min(count_before) < FEWEST_CALLS {
                    return unseen(count.min(count_before), wanted);
                }
                let ratio = now.as_secs_f64() / before.as_secs_f64();
                let measured = format!("{ratio:.2}× ({:.1} ms against {:.1} ms)", millis(now), millis(before));
                (ratio <= *factor, measured, wanted)
            }
            Wanted::ProcessGone { step } => self.process_gone(*step),
            Wanted::WritesWithin { within, step } => self.writes_within(*within, *step),
            Wanted::HistoryKept => self.history_kept(),
            Wanted::MaxOverMean { service, max, within } => {
                let wanted = format!("at most {max}× the mean, from {} after", spoken(*within));
                let settled = Window::new(window.from + *within, window.until);
                match balance(record, service, settled) {
                    Some(seen) if seen.calls >= FEWEST_CALLS => (
                        seen.max_over_mean <= *max,
                        format!("{:.2}× over {} backends of {service}", seen.max_over_mean, seen.backends),
                        wanted,
                    ),
                    seen => unseen(seen.map_or(0, |seen| seen.calls), wanted),
                }
            }
        }
    }

    fn failed(&self, calls: &Selection, max_in_flight: bool, max: Option<usize>) -> (bool, String, String) {
        let record = &self.observed.record;
        let (count, failed) = (record.select(calls).count(), record.failed(calls));
        let in_flight = record.in_flight_at_kill(calls);
        let mut wanted = Vec::new();
        if max_in_flight {
            wanted.push(format!("at most the {in_flight} in flight at the kill"));
        }
        if let Some(max) = max {
            wanted.push(if max == 0 { "none".to_owned() } else { format!("at most {max}") });
        }
        let wanted = list(&wanted);
        if count < FEWEST_CALLS {
            return unseen(count, wanted);
        }
        let held = (!max_in_flight || failed <= in_flight) && max.is_none_or(|max| failed <= max);
        (held, format!("{failed} of {count} calls"), wanted)
    }

    fn process_gone(&self, step: usize) -> (bool, String, String) {
        let wanted = "killed, and nobody answers there".to_owned();
        let ended: Vec<&Ended> = self.observed.ended.iter().filter(|ended| ended.step == step).collect();
        let not_gone: Vec<String> = ended
            .iter()
            .filter(|ended| !ended.by_kill || ended.still_answers)
            .map(|ended| ended.name.clone())
            .collect();
        match (ended.as_slice(), not_gone.as_slice()) {
            ([], _) => (false, "no process was killed".to_owned(), wanted),
            ([one], []) => (true, format!("{} gone after {}", one.name, spoken(one.took)), wanted),
            (several, []) => {
                let longest = several.iter().map(|ended| ended.took).max().unwrap_or_default();
                (true, format!("{} processes gone after {}", several.len(), spoken(longest)), wanted)
            }
            (_, alive) => (false, format!("not gone: {}", list(alive)), wanted),
        }
    }

    fn writes_within(&self, within: Duration, step: usize) -> (bool, String, String) {
        let wanted = format!("within {}", spoken(within));
        let window = after_step(self.observed, step);
        // A write that was under way at the kill may have been done before it.
        let first = self
            .observed
            .writes
            .iter()
            .filter(|write| window.contains(write.asked))
            .filter_map(|write| write.acknowledged.map(|(at, _)| at))
            .min();
        match first {
            Some(at) => (at - window.from <= within, format!("after {}", spoken(at - window.from)), wanted),
            None => (false, "no write was acknowledged".to_owned(), wanted),
        }
    }

    fn history_kept(&self) -> (bool, String, String) {
        let wanted = "every acknowledged revision in the history".to_owned();
        let acknowledged: Vec<u64> =
            self.observed.writes.iter().filter_map(|write| write.acknowledged.map(|(_, revision)| revision)).collect();
        let Some(history) = &self.observed.history else {
            return (false, "the history could not be read".to_owned(), wanted);
        };
        if acknowledged.is_empty() {
            return (false, "no write was acknowledged".to_owned(), wanted);
        }
        let lost: Vec<String> =
            acknowledged.iter().filter(|revision| !history.contains(revision)).map(|lost| format!("r{lost}")).collect();
        if lost.is_empty() {
            (true, format!("all {}", acknowledged.len()), wanted)
        } else {
            (false, format!("{} of {} lost: {}", lost.len(), acknowledged.len(), list(&lost)), wanted)
        }
    }
}

fn shares<K: std::fmt::Display + Ord>(
    count: usize,
    fractions: &std::collections::BTreeMap<K, f64>,
    off: f64,
    tolerance: f64,
    wanted: String,
) -> (bool, String, String) {
    if count < FEWEST_CALLS_BEHIND_A_SHARE {
        return unseen(count, wanted);
    }
    (off <= tolerance, format!("{} of {count} calls", percents(fractions)), wanted)
}

/// Too few calls to say anything: a failure, since nothing was shown.
fn unseen(calls: usize, wanted: String) -> (bool, String, String) {
    (false, format!("only {calls} calls, too few to tell"), wanted)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
