//! The catalog's heart: questions, the plans that answer them, and what must be planned again when something changes.
//! Pure and synchronous: snapshots and time are handed in, answers go out through latest-wins slots.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use portolan_topology::names::{Locality, ServiceId, ServicePort};
use portolan_topology::plan::{Paced, Plan, pace, target};
use portolan_topology::policy::{EffectivePolicy, PolicyObject, Warmup};
use portolan_topology::service::Endpoint;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::arrivals::Arrivals;
use super::assemble::{Assembled, Waiting, assemble};
use super::distinct::{Duplicate, has_duplicates, keep_nearest};
use super::inputs::{Affected, Inputs, demand_changes, local_changes, remote_changes};
use super::resolve::{Meaning, SETTLE, port_name, resolve};
use super::served::{NameScope, Query, Served, ServedService};

/// For how long the pace of a plan is remembered that nobody asks for.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// After so long without anybody asking a plan goes on as after a restart: longer than the ramps' defaults, so that
/// whatever began meanwhile counts as done.
const UNWATCHED: Duration = Duration::from_secs(600);

/// How often questions that nobody asks any more are looked for.
const SWEEP: Duration = Duration::from_secs(10);

/// What a plan is made for: one port of one service, for clients in one locality.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanKey {
    /// The service.
    pub service: ServiceId,
    /// The port's number.
    pub port: u16,
    /// How far the name reaches.
    pub scope: NameScope,
    /// Where the client is.
    pub client: Locality,
}

/// What `explain` shows: the plan that clients there have, or would have, and what is not in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The port's number.
    pub port: u16,
    /// What is served, or would be.
    pub plan: Plan,
    /// Whether some client there is served this.
    pub watched: bool,
    /// Addresses that stand in a nearer locality too.
    pub duplicates: Vec<Duplicate>,
    /// Localities whose endpoints have been asked for and are not here yet.
    pub waiting: BTreeSet<Locality>,
}

/// The endpoints of one port that are here.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The port's number.
    pub port: u16,
    /// By locality, sorted by address.
    pub endpoints: BTreeMap<Locality, Vec<Endpoint>>,
    /// Localities whose endpoints are not here.
    pub waiting: BTreeSet<Locality>,
}

struct Cell {
    slot: watch::Sender<Served>,
    since: Duration,
}

struct Planned {
    paced: Paced,
    /// When it must be planned again even if nothing changes.
    wake: Option<Duration>,
    served: Arc<ServedService>,
    duplicates: Vec<Duplicate>,
    waiting: BTreeSet<Locality>,
}

/// A plan as remembered: its pace, and when somebody last asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Remembered {
    pub(super) paced: Paced,
    pub(super) used: Duration,
}

impl Remembered {
    /// What a plan that somebody asks for again goes on from.
    fn resumed(&self, now: Duration) -> Paced {
        let paced = self.paced.clone();
        if now.saturating_sub(self.used) < UNWATCHED { paced } else { paced.after_restart(now) }
    }
}

/// The catalog, without its clock and its inputs' streams.
pub(super) struct Core {
    inputs: Inputs,
    started: Duration,
    settled: bool,
    /// When the next Drain begins or ends by itself.
    policy_change: Option<Duration>,
    /// When questions that nobody asks any more are looked for next.
    sweep: Duration,
    cells: BTreeMap<ServiceId, HashMap<Query, Cell>>,
    plans: HashMap<PlanKey, Planned>,
    remembered: HashMap<PlanKey, Remembered>,
    arrivals: Arrivals,
    /// What has changed and is not planned again yet.
    affected: Affected,
}

impl Core {
    /// A catalog over `inputs` that goes on from what was `remembered` before a restart. All times are since the Unix epoch, by one clock.
    pub(super) fn new(inputs: Inputs, remembered: HashMap<PlanKey, Remembered>, now: Duration) -> Self {
        let mut core = Self {
            inputs,
            started: now,
            settled: false,
            policy_change: None,
            sweep: now + SWEEP,
            cells: BTreeMap::new(),
            plans: HashMap::new(),
            remembered: remembered
                .into_iter()
                .map(|(key, Remembered { paced, used })| (key, Remembered { paced: paced.after_restart(now), used }))
                .collect(),
            arrivals: Arrivals::default(),
            affected: Affected::nothing(),
        };
        core.policy_change = core.next_policy_change(now);
        core
    }

    /// What the plans are made from.
    pub(super) fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// Takes over new snapshots, and answers anew whatever they concern.
    pub(super) fn update(&mut self, inputs: Inputs, now: Duration) {
        let old = std::mem::replace(&mut self.inputs, inputs);
        let new = &self.inputs;
        let same_policy = match (&old.policy, &new.policy) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        if !same_policy {
            self.policy_change = self.next_policy_change(now);
        }
        let new = &self.inputs;
        if !same_policy || old.topology != new.topology || old.gateways != new.gateways {
            self.affected.add(Affected::All);
        }
        if !Arc::ptr_eq(&old.local, &new.local) {
            self.arrivals.local(&new.cluster, &old.local, &new.local, now);
            self.affected.add(local_changes(&old.local, &new.local));
        }
        if !Arc::ptr_eq(&old.demand, &new.demand) {
            self.affected.add(demand_changes(&old.demand, &new.demand));
        }
        if !Arc::ptr_eq(&old.remote, &new.remote) {
            self.arrivals.remote(&old.remote, &new.remote, now);
            self.affected.add(remote_changes(&old.remote, &new.remote));
        }
        self.answer_affected(now);
    }

    /// Does what the time asks for.
    pub(super) fn tick(&mut self, now: Duration) {
        let due = self.plans.iter().filter(|(_, plan)| plan.wake.is_some_and(|wake| wake <= now));
        self.affected.add(Affected::Services(due.map(|(key, _)| key.service.clone()).collect()));
        let waited = self.cells.iter().filter(|(_, cells)| {
            cells.values().any(|cell| matches!(*cell.slot.borrow(), Served::NotYet) && now >= cell.since + SETTLE)
        });
        self.affected.add(Affected::Services(waited.map(|(service, _)| service.clone()).collect()));
        if !self.settled && now >= self.started + SETTLE {
            self.settled = true;
            self.affected.add(Affected::All);
        }
        if self.policy_change.is_some_and(|at| at <= now) {
            self.policy_change = self.next_policy_change(now);
            self.affected.add(Affected::All);
        }
        self.answer_affected(now);
        if now >= self.sweep {
            self.sweep = now + SWEEP;
            self.forget(now);
        }
    }

    /// When [`Core::tick`] must be called next, at the latest.
    pub(super) fn next_tick(&self, now: Duration) -> Duration {
        let plans = self.plans.values().filter_map(|plan| plan.wake);
        let settle = (!self.settled).then_some(self.started + SETTLE);
        let waiting = self.cells.values().flat_map(HashMap::values);
        let waiting = waiting.filter(|cell| matches!(*cell.slot.borrow(), Served::NotYet)).map(|cell| cell.since);
        let waiting = waiting.map(|since| since + SETTLE).filter(|at| *at > now);
        let times = plans.chain(settle).chain(waiting).chain(self.policy_change);
        times.fold(self.sweep, Duration::min)
    }

    /// Adds a question, or finds it; its slot has an answer at once.
    pub(super) fn watch(&mut self, query: Query, now: Duration) -> watch::Receiver<Served> {
        let cell = self.cells.get(&query.service).and_then(|cells| cells.get(&query));
        // One that nobody held for a moment begins again, with its pace as it was.
        if let Some(cell) = cell.filter(|cell| cell.slot.receiver_count() > 0) {
            return cell.slot.subscribe();
        }
        let served = self.answer(&query, now, now, &mut HashSet::new());
        let (slot, receiver) = watch::channel(served);
        self.cells.entry(query.service.clone()).or_default().insert(query, Cell { slot, since: now });
        receiver
    }

    /// The lists that plans need: the watched ports, as far as their numbers are known.
    pub(super) fn wanted(&self) -> BTreeSet<ServicePort> {
        let needs_others =
            |key: &&PlanKey| key.scope == NameScope::Federation || key.client.cluster != self.inputs.cluster;
        self.plans
            .keys()
            .filter(needs_others)
            .map(|key| ServicePort { service: key.service.clone(), port: key.port })
            .collect()
    }

    /// The pace of every plan, to go on from after a restart.
    pub(super) fn to_remember(&self, now: Duration) -> BTreeMap<PlanKey, Remembered> {
        let live = self.plans.iter().map(|(key, plan)| (key, Remembered { paced: plan.paced.clone(), used: now }));
        let old = self.remembered.iter().map(|(key, remembered)| (key, remembered.clone()));
        old.chain(live).map(|(key, remembered)| (key.clone(), remembered)).collect()
    }

    /// What a client is served under `query`, or would be; `None` if the name means nothing.
    pub(super) fn explain(&self, query: &Query, now: Duration) -> Option<Explanation> {
        let Meaning::Port(port) = self.resolve(query, now) else { return None };
        let key = plan_key(query, port);
        if let Some(planned) = self.plans.get(&key) {
            return Some(Explanation {
                port,
                plan: planned.served.plan.clone(),
                watched: true,
                duplicates: planned.duplicates.clone(),
                waiting: planned.waiting.clone(),
            });
        }
        let planned = self.plan(&key, now, Waiting::Counted);
        let waiting = BTreeSet::new();
        Some(Explanation { port, plan: planned.paced.plan, watched: false, duplicates: planned.duplicates, waiting })
    }

    /// The addresses that stand in two localities of some plan.
    pub(super) fn duplicates(&self) -> BTreeMap<ServiceId, BTreeSet<Duplicate>> {
        let mut duplicates: BTreeMap<ServiceId, BTreeSet<Duplicate>> = BTreeMap::new();
        for (key, planned) in self.plans.iter().filter(|(_, planned)| !planned.duplicates.is_empty()) {
            duplicates.entry(key.service.clone()).or_default().extend(planned.duplicates.iter().cloned());
        }
        duplicates
    }

    /// What `query` is answered from, without a plan.
    pub(super) fn endpoints(&self, query: &Query, now: Duration) -> Option<Listed> {
        let Meaning::Port(port) = self.resolve(query, now) else { return None };
        let Assembled { endpoints, waiting, .. } = assemble(&self.inputs, &plan_key(query, port), Waiting::LeftOut);
        Some(Listed { port, endpoints, waiting })
    }

    /// The services that somebody asks for.
    pub(super) fn watched(&self) -> BTreeSet<ServiceId> {
        self.cells.keys().cloned().collect()
    }

    fn resolve(&self, query: &Query, now: Duration) -> Meaning {
        resolve(&self.inputs, query, now.saturating_sub(self.started))
    }

    fn answer_affected(&mut self, now: Duration) {
        let affected = std::mem::replace(&mut self.affected, Affected::nothing());
        let services: Vec<ServiceId> = match affected {
            Affected::All => self.cells.keys().cloned().collect(),
            Affected::Services(services) => {
                services.into_iter().filter(|service| self.cells.contains_key(service)).collect()
            }
        };
        for service in services {
            let Some(mut cells) = self.cells.remove(&service) else { continue };
            let mut done = HashSet::new();
            for (query, cell) in &mut cells {
                let served = self.answer(query, now, cell.since, &mut done);
                cell.slot.send_if_modified(|current| {
                    let differs = *current != served;
                    *current = served;
                    differs
                });
            }
            self.cells.insert(service, cells);
        }
    }

    /// The answer to `query`, planned anew unless its plan is among those `done`. `since` is when it was first asked.
    fn answer(&mut self, query: &Query, now: Duration, since: Duration, done: &mut HashSet<PlanKey>) -> Served {
        let key = match self.resolve(query, now) {
            Meaning::Port(port) => plan_key(query, port),
            Meaning::Absent => return Served::Absent,
            Meaning::NotYet => return Served::NotYet,
        };
        if done.insert(key.clone()) {
            let planned = self.plan(&key, now, Waiting::LeftOut);
            self.plans.insert(key.clone(), planned);
            self.remembered.remove(&key);
        }
        let Some(planned) = self.plans.get(&key) else { return Served::NotYet };
        let nothing_yet = planned.served.endpoints.is_empty() && !planned.waiting.is_empty();
        if nothing_yet && now < since + SETTLE {
            return Served::NotYet;
        }
        Served::Present(planned.served.clone())
    }

    fn plan(&self, key: &PlanKey, now: Duration, waiting: Waiting) -> Planned {
        let Inputs { topology, policy, .. } = &self.inputs;
        let port = port_name(&self.inputs, key);
        let policy = policy.as_ref().map(|policy| policy.effective(&key.service, port, timestamp(now)));
        let mut policy = policy.unwrap_or_default();
        // What the cluster's own Service says stands where no policy says anything.
        let annotated = || self.inputs.local.services.get(&key.service)?.warmup;
        let window = |window| Warmup { window, ..Warmup::default() };
        policy.warmup = policy.warmup.or_else(|| annotated().map(window));
        let mut assembled = assemble(&self.inputs, key, waiting);
        let mut wanted = target(&assembled.view, &key.client, topology, &policy);
        let mut duplicates = Vec::new();
        if has_duplicates(&assembled.endpoints) {
            duplicates = keep_nearest(&mut assembled, &wanted);
            wanted = target(&assembled.view, &key.client, topology, &policy);
        }
        let port = ServicePort { service: key.service.clone(), port: key.port };
        let aged = policy.warmup.and_then(|warmup| self.arrivals.age(&assembled, &port, &warmup, now));
        let changes_in = aged.map(|aged| {
            assembled = aged.assembled;
            wanted = target(&assembled.view, &key.client, topology, &policy);
            aged.changes_in
        });
        let before = self.plans.get(key);
        let resumed = match before {
            Some(_) => None,
            None => self.remembered.get(key).map(|remembered| remembered.resumed(now)),
        };
        let previous = before.map(|planned| &planned.paced).or(resumed.as_ref());
        let (paced, due_in) = pace(previous, &wanted, &assembled.view, &policy, now);
        let wake = due_in.into_iter().chain(changes_in).min().map(|due_in| now + due_in);
        let served = serve(key, &paced.plan, &assembled, policy, before.map(|planned| planned.served.as_ref()));
        Planned { paced, wake, served: Arc::new(served), duplicates, waiting: assembled.waiting }
    }

    /// Lets go of questions that nobody asks any more, and of plans that answer none.
    fn forget(&mut self, now: Duration) {
        for cells in self.cells.values_mut() {
            cells.retain(|_, cell| cell.slot.receiver_count() > 0);
        }
        self.cells.retain(|_, cells| !cells.is_empty());
        let mut used: HashSet<PlanKey> = HashSet::new();
        for query in self.cells.values().flat_map(HashMap::keys) {
            if let Meaning::Port(port) = self.resolve(query, now) {
                used.insert(plan_key(query, port));
            }
        }
        let unused: Vec<PlanKey> = self.plans.keys().filter(|key| !used.contains(*key)).cloned().collect();
        for key in unused {
            if let Some(planned) = self.plans.remove(&key) {
                self.remembered.insert(key, Remembered { paced: planned.paced, used: now });
            }
        }
        self.remembered.retain(|_, remembered| now < remembered.used + REMEMBERED);
    }

    /// When the next Drain begins or ends by itself.
    fn next_policy_change(&self, after: Duration) -> Option<Duration> {
        let objects = self.inputs.policy.iter().flat_map(|policy| policy.objects.values());
        let times = objects.filter_map(|stored| match &stored.object {
            PolicyObject::Drain(drain) => Some([drain.spec.start_time, drain.spec.end_time]),
            PolicyObject::TrafficPolicy(_) => None,
        });
        let times = times.flatten().flatten().filter_map(since_epoch);
        times.filter(|at| *at > after).min()
    }
}

/// The plan that clients in any cluster are on their way to under `policy`, as far as is known here: no ramp is in it.
#[must_use]
pub fn intended(inputs: &Inputs, key: &PlanKey, policy: &EffectivePolicy) -> Plan {
    target(&assemble(inputs, key, Waiting::Counted).view, &key.client, &inputs.topology, policy)
}

fn plan_key(query: &Query, port: u16) -> PlanKey {
    PlanKey { service: query.service.clone(), port, scope: query.scope, client: query.client.clone() }
}

/// What is served of `plan`: the localities whose endpoints are here, with those endpoints. Endpoints that did not
/// change are the same allocation as `before`.
fn serve(
    key: &PlanKey,
    plan: &Plan,
    assembled: &Assembled,
    policy: EffectivePolicy,
    before: Option<&ServedService>,
) -> ServedService {
    let mut plan = plan.clone();
    // A plan on its way may still name what is gone. Its share is everybody else's at once.
    for priority in &mut plan.priorities {
        priority.retain(|planned| assembled.endpoints.contains_key(&planned.locality));
    }
    plan.priorities.retain(|priority| !priority.is_empty());
    if let Some(first) = plan.priorities.first_mut() {
        let sum: f64 = first.iter().map(|planned| planned.share).sum();
        if sum > 0.0 && (sum - 1.0).abs() > 1e-9 {
            first.iter_mut().for_each(|planned| planned.share /= sum);
        }
    }
    let named = plan.priorities.iter().flatten().map(|planned| &planned.locality);
    let endpoints = named.filter_map(|locality| {
        let endpoints = assembled.endpoints.get(locality)?;
        let same = before.and_then(|before| before.endpoints.get(locality)).filter(|before| ***before == *endpoints);
        Some((locality.clone(), same.cloned().unwrap_or_else(|| Arc::new(endpoints.clone()))))
    });
    let endpoints = endpoints.collect();
    let policy = match before {
        Some(before) if *before.policy == policy => before.policy.clone(),
        _ => Arc::new(policy),
    };
    ServedService { port: key.port, plan, endpoints, policy }
}

/// A time since the Unix epoch as the moment that it is.
pub(super) fn timestamp(since_epoch: Duration) -> Timestamp {
    let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
    Timestamp::new(seconds, since_epoch.subsec_nanos().cast_signed()).unwrap_or(Timestamp::MAX)
}

/// A moment as the time since the Unix epoch; `None` before it.
fn since_epoch(moment: Timestamp) -> Option<Duration> {
    Duration::try_from(moment.as_duration()).ok()
}
