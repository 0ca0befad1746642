//! How far a Drain has got: its phase, how much of its scope is taken away by now, and what clients everywhere still
//! send there. Pure.
//!
//! Nothing here is measured at the endpoints: the rest is what the plans leave of the demand that every cluster tells.
//! A ramp is linear, so that it needs no plan's past: it began when the Drain was last written or when it starts,
//! whichever is later.

use std::time::Duration;

use jiff::Timestamp;
use portolan_topology::names::{Locality, ServiceId};
use portolan_topology::plan::Plan;
use portolan_topology::policy::{Drain, DrainSpec, PolicySet, StoredPolicy};
use portolan_topology::topology::Topology;
use serde::Serialize;

use super::drain_reach::{Stranded, stranded};
use crate::catalog::served::NameScope;
use crate::catalog::{Inputs, PlanKey, intended, port_name};

/// Where a Drain is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Phase {
    /// Its start is yet to come.
    Pending,
    /// On its way out.
    Ramping,
    /// All that it takes is taken.
    Complete,
    /// It has ended and gives back.
    Restoring,
    /// Over.
    Ended,
}

/// How far a Drain has got.
#[derive(Debug, PartialEq)]
pub(super) struct Progress {
    pub(super) phase: Phase,
    /// How much of the scope's capacity is taken away now, 0 to the Drain's own percent.
    pub(super) percent: u32,
    /// First attempts per second that still go to the scope, of clients in every cluster; `None`: no cluster tells of
    /// any demand for its services.
    pub(super) remaining: Option<f64>,
    /// Services that it leaves nothing: what is drained serves them on.
    pub(super) stranded: Vec<Stranded>,
}

/// How far `drain`, stored as `stored` in `set`, has got.
pub(super) fn progress(
    inputs: &Inputs,
    set: &PolicySet,
    stored: &StoredPolicy,
    drain: &Drain,
    now: Timestamp,
) -> Progress {
    let (phase, taken) = way(&drain.spec, stored.at, now);
    let percent = (f64::from(drain.spec.percent) * taken).round() as u32;
    let active = matches!(phase, Phase::Ramping | Phase::Complete);
    let stranded = if active { stranded(inputs, set, &[drain], now) } else { Vec::new() };
    Progress { phase, percent, remaining: remaining(inputs, set, drain, taken, now), stranded }
}

/// The phase, and the fraction of its own percent that the Drain takes now.
fn way(spec: &DrainSpec, written: Timestamp, now: Timestamp) -> (Phase, f64) {
    let start = spec.start_time.map_or(written, |start| start.max(written));
    if now < start {
        return (Phase::Pending, 0.0);
    }
    let out = |until: Timestamp| fraction(until.duration_since(start).try_into().unwrap_or_default(), spec.over);
    match spec.end_time {
        Some(end) if end <= now => {
            let back = fraction(now.duration_since(end).try_into().unwrap_or_default(), spec.restore_over);
            if back < 1.0 && start < end { (Phase::Restoring, out(end) * (1.0 - back)) } else { (Phase::Ended, 0.0) }
        }
        _ if out(now) < 1.0 => (Phase::Ramping, out(now)),
        _ => (Phase::Complete, 1.0),
    }
}

/// How much of a ramp over `over` is gone after `elapsed`.
fn fraction(elapsed: Duration, over: Duration) -> f64 {
    if over.is_zero() { 1.0 } else { (elapsed.as_secs_f64() / over.as_secs_f64()).min(1.0) }
}

fn remaining(inputs: &Inputs, set: &PolicySet, drain: &Drain, taken: f64, now: Timestamp) -> Option<f64> {
    let concerned = |service: &ServiceId| drain.spec.services.as_ref().is_none_or(|all| all.contains(service));
    let mut sum = None;
    for (service, source, rate) in demand(inputs).filter(|(service, ..)| concerned(service)) {
        let Some(port) = port(inputs, service) else { continue };
        let key = PlanKey { service: service.clone(), port, scope: NameScope::Federation, client: source };
        let mut without = set.effective(service, port_name(inputs, &key), now);
        without.drains.retain(|other| other.name != drain.name);
        let mut with = without.clone();
        with.drains.push(drain.active());
        let [before, after] = [without, with].map(|policy| share(&intended(inputs, &key, &policy), drain));
        *sum.get_or_insert(0.0) += rate * (before + (after - before) * taken);
    }
    sum
}

/// The share of a plan that goes to the Drain's scope.
fn share(plan: &Plan, drain: &Drain) -> f64 {
    let first = plan.priorities.first().into_iter().flatten();
    first.filter(|place| drain.spec.scope.contains(&place.locality)).map(|place| place.share).sum()
}

/// First attempts per second of every cluster's clients, by service and where they are.
fn demand(inputs: &Inputs) -> impl Iterator<Item = (&ServiceId, Locality, f64)> {
    let others = inputs.remote.clusters.values().filter(|cluster| cluster.name != inputs.cluster);
    let all = others.map(|cluster| (&cluster.name, &cluster.demand)).chain([(&inputs.cluster, inputs.demand.as_ref())]);
    let topology: &Topology = &inputs.topology;
    all.flat_map(move |(cluster, rates)| {
        rates.iter().filter_map(move |((service, zone), rate)| {
            Some((service, topology.locality(cluster, zone.as_ref())?, *rate))
        })
    })
}

/// The port that stands for the service: demand is not told by port.
fn port(inputs: &Inputs, service: &ServiceId) -> Option<u16> {
    let here = inputs.local.services.get(service).and_then(|service| service.ports.first());
    let elsewhere = || inputs.remote.clusters.values().find_map(|cluster| cluster.services.get(service)?.ports.first());
    here.or_else(elsewhere).map(|port| port.number)
}

#[cfg(test)]
mod tests {
    use portolan_topology::policy::PolicyObject;

    use super::super::drain_fixtures::{drain, inputs, set};
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A drain of us-east's zone a, written at second 0, as it stands at second `now`; both zones have an endpoint and
    /// zone a's clients ask for 100 a second.
    fn progress_at(now: i64, spec: impl FnOnce(&mut DrainSpec)) -> Progress {
        let mut inputs = inputs(&["use1-a/a", "use1-a/b"], &[]);
        inputs.demand = std::sync::Arc::new(
            [(("checkout.shop".parse().unwrap(), Some("a".parse().unwrap())), 100.0)].into_iter().collect(),
        );
        let mut zone_a = drain("zone=a");
        zone_a.spec.over = Duration::from_secs(100);
        zone_a.spec.restore_over = Duration::from_secs(50);
        spec(&mut zone_a.spec);
        let set = set(std::slice::from_ref(&zone_a));
        let stored = &set.objects[&PolicyObject::Drain(zone_a.clone()).key()];
        progress(&inputs, &set, stored, &zone_a, at(now))
    }

    #[track_caller]
    fn check(now: i64, spec: impl FnOnce(&mut DrainSpec), phase: Phase, percent: u32, remaining: f64) {
        let found = progress_at(now, spec);
        assert_eq!((found.phase, found.percent), (phase, percent), "at {now}");
        let left = found.remaining.expect("demand is told");
        assert!((left - remaining).abs() < 1e-6, "at {now}: {left} where {remaining} was expected");
    }

    #[test]
    fn a_drain_ramps_out_and_is_complete() {
        check(0, |_| (), Phase::Ramping, 0, 100.0);
        check(40, |_| (), Phase::Ramping, 40, 60.0);
        check(100, |_| (), Phase::Complete, 100, 0.0);
        check(0, |spec| spec.over = Duration::ZERO, Phase::Complete, 100, 0.0);
    }

    #[test]
    fn a_start_to_come_has_taken_nothing() {
        check(40, |spec| spec.start_time = Some(at(41)), Phase::Pending, 0, 100.0);
        check(61, |spec| spec.start_time = Some(at(41)), Phase::Ramping, 20, 80.0);
    }

    #[test]
    fn an_ended_drain_gives_back_what_it_had_taken() {
        check(105, |spec| spec.end_time = Some(at(80)), Phase::Restoring, 40, 60.0);
        check(130, |spec| spec.end_time = Some(at(80)), Phase::Ended, 0, 100.0);
    }

    #[test]
    fn a_part_of_the_capacity_counts_as_a_part() {
        // Half of the zone's capacity carries, at 1.4 times its load, seven tenths of it.
        check(100, |spec| spec.percent = 50, Phase::Complete, 50, 70.0);
    }

    #[test]
    fn without_any_demand_the_rest_is_unknown() {
        let found = progress_at(0, |spec| spec.services = Some(vec!["cart.shop".parse().unwrap()]));
        assert_eq!(found.remaining, None);
    }

    #[test]
    fn a_service_with_nothing_else_is_named() {
        let inputs = inputs(&["use1-a/a"], &[]);
        let zone_a = drain("zone=a");
        let set = set(std::slice::from_ref(&zone_a));
        let stored = &set.objects[&PolicyObject::Drain(zone_a.clone()).key()];
        let found = progress(&inputs, &set, stored, &zone_a, at(1_000));
        assert_eq!(found.stranded.iter().map(ToString::to_string).collect::<Vec<_>>(), ["checkout.shop"]);
    }
}
