//! What the balancer knows, from which it makes each snapshot: the assignment, each endpoint's status, and what each
//! locality has been through.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::area::{Area, Standing};
use super::cell::{Admission, Cells};
use super::chosen::{Chosen, Seated};
use super::explain::{EndpointState, LocalityShare, because};
use super::health;
use super::latency::Peers;
use super::shares::{Stand, shares};
use super::snapshot::{Laid, Locality, Snapshot, Taker, routes};
use super::stripe::Ledger;
use super::{Endpoint, PickError, Place, Status};
use crate::load::LoadRecorder;
use crate::xds::model::{Assignment, EndpointHealth, OutlierDetection, Warmup};

/// Up to so many endpoints are all kept connected.
const CONNECT_ALL: usize = 200;
/// Newcomers of a large locality wait at most so long for others to come with them.
const BATCH: Duration = Duration::from_millis(50);
/// Endpoints are looked at as often at least.
const LONGEST_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct State<T> {
    assignment: Option<Arc<Assignment>>,
    entries: HashMap<SocketAddr, Entry<T>>,
    /// The assignment's localities, in its order.
    areas: Vec<Area<T>>,
    ledger: Arc<Ledger>,
    cells: Arc<Cells>,
    chosen: Chosen,
    load: LoadRecorder,
    /// What to say without an assignment.
    nothing: PickError,
    /// What an endpoint said when it was last out of reach.
    last_failure: Option<Arc<str>>,
    /// When a ramp takes its next step.
    due: Option<Instant>,
    /// When newcomers that wait are laid out, however few.
    batch: Option<Instant>,
    /// The shares of the areas that picks know.
    published: Vec<f64>,
    /// The tiers that are alive, and a number that changes whenever other endpoints should be connected.
    alive: Vec<bool>,
    wanted: u64,
    outliers: OutlierDetection,
    warmup: Warmup,
    /// When endpoints were looked at last.
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Entry<T> {
    endpoint: Arc<Endpoint<T>>,
    /// What the strategy keeps for it, if that keeps anything.
    seated: Option<Arc<dyn Seated>>,
    status: Status,
    /// It has been down since it was ready last, whatever it is now.
    lost: bool,
    /// What it may take when it is ready, by whoever owns the balancer.
    admission: Admission,
    area: usize,
    /// Whether the assignment lets it take requests.
    healthy: bool,
    /// Whether it is in its area's layout.
    laid: bool,
    /// By what became of its requests.
    health: health::Standing,
}

impl<T> Entry<T> {
    fn standing(&self) -> Standing {
        let closed = self.admission == Admission::CLOSED || self.health.is_ejected();
        Standing {
            usable: self.status == Status::Ready && !closed,
            dead: matches!(self.status, Status::Down(_)) || closed,
            laid: self.laid,
        }
    }

    /// Tells picks.
    fn settle(&self, warmup: &Warmup) {
        let admission = match (&self.status, self.admission) {
            (Status::Ready, Admission::OPEN) if self.healthy => self.health.admission(warmup),
            (Status::Ready, set) if self.healthy && !self.health.is_ejected() => set,
            _ => Admission::CLOSED,
        };
        self.endpoint.seat.cell().admit(admission);
    }
}

impl<T: Default> State<T> {
    pub(super) fn new(chosen: Chosen, ledger: Arc<Ledger>, cells: Arc<Cells>, load: LoadRecorder) -> Self {
        Self {
            assignment: None,
            entries: HashMap::new(),
            areas: Vec::new(),
            ledger,
            cells,
            chosen,
            load,
            nothing: PickError::NoAssignment,
            last_failure: None,
            due: None,
            batch: None,
            published: Vec::new(),
            alive: Vec::new(),
            wanted: 0,
            outliers: OutlierDetection::default(),
            warmup: Warmup::default(),
            looked: None,
        }
    }

    /// Shares requests in another way from the next assignment on. Endpoints stay as they are, but for what a strategy keeps
    /// for them: that of the new one begins anew. Requests that are open end with the one that they began with.
    pub(super) fn choose(&mut self, chosen: Chosen) {
        if !self.chosen.is(&chosen) {
            self.chosen = chosen;
            for (address, entry) in &mut self.entries {
                entry.seated = self.chosen.seat(*address);
            }
        }
    }

    pub(super) fn assign(&mut self, assignment: Arc<Assignment>) {
        (self.outliers, self.warmup) = (assignment.outlier_detection, assignment.warmup);
        let mut before = std::mem::take(&mut self.entries);
        // When nobody serves yet, everything is as cold, and must begin at once.
        let serves = before.values().any(|entry| entry.standing().usable);
        let health = if serves { health::Standing::NEW } else { health::Standing::WHOLE };
        let past: HashMap<_, _> = self.areas.drain(..).map(|area| ((area.cluster, area.name), area.past)).collect();
        for (priority, localities) in (0u32..).zip(&assignment.priorities) {
            for locality in localities {
                let name = &locality.locality;
                let cluster = Arc::clone(assignment.cluster_of(priority));
                let key = (cluster, name.clone());
                let past = past.get(&key).copied().unwrap_or_default();
                let mut area = Area::new(key.0, key.1, priority, locality.weight, past);
                let reported = assignment.reported(priority);
                let load = reported.map(|(cluster, service)| self.load.locality(cluster, service, name));
                let place = Arc::new(Place { locality: name.clone(), priority, load });
                for assigned in &locality.endpoints {
                    // Twice in an assignment is a mistake that xDS validation refuses; others' first word counts.
                    if self.entries.contains_key(&assigned.address) {
                        continue;
                    }
                    let mut entry = match before.remove(&assigned.address) {
                        Some(entry) => {
                            entry.endpoint.place.store(Arc::clone(&place));
                            entry
                        }
                        None => self.newcomer(assigned.address, &place, health),
                    };
                    entry.area = self.areas.len();
                    entry.healthy = assigned.health == EndpointHealth::Healthy;
                    entry.laid = false;
                    entry.settle(&self.warmup);
                    if entry.healthy {
                        area.join(entry.standing());
                    }
                    self.entries.insert(assigned.address, entry);
                }
                self.areas.push(area);
            }
        }
        // Requests that picked it from an older snapshot are not stopped, but no new one goes there.
        before.values().for_each(|gone| gone.endpoint.seat.cell().admit(Admission::CLOSED));
        self.assignment = Some(assignment);
        self.forget_published();
    }

    fn newcomer(&self, address: SocketAddr, place: &Arc<Place>, health: health::Standing) -> Entry<T> {
        let counts = (self.cells.seat(), Arc::clone(&self.ledger));
        let endpoint = Endpoint::new(address, Arc::clone(place), counts, T::default());
        Entry {
            endpoint: Arc::new(endpoint),
            seated: self.chosen.seat(address),
            status: Status::Idle,
            lost: false,
            admission: Admission::OPEN,
            area: 0,
            healthy: false,
            laid: false,
            health,
        }
    }
}

impl<T> State<T> {
    pub(super) fn connect_timeout(&self) -> Duration {
        let assigned = self.assignment.as_ref().map(|assignment| assignment.connect_timeout);
        assigned.unwrap_or_else(|| Assignment::default().connect_timeout)
    }

    pub(super) fn clear(&mut self, why: PickError) {
        (self.assignment, self.nothing) = (None, why);
        self.entries.values().for_each(|gone| gone.endpoint.seat.cell().admit(Admission::CLOSED));
        self.entries.clear();
        self.areas.clear();
        self.forget_published();
    }

    /// The next snapshot is made whatever it holds, and connections are looked at.
    fn forget_published(&mut self) {
        self.published.clear();
        self.wanted += 1;
    }

    pub(super) fn report(&mut self, endpoint: &Arc<Endpoint<T>>, status: Status) {
        if let Status::Down(reason) = &status {
            self.last_failure = Some(Arc::clone(reason));
        }
        self.update(endpoint, |entry| {
            entry.lost |= matches!(status, Status::Down(_));
            let back = status == Status::Ready && std::mem::take(&mut entry.lost);
            entry.status = status;
            if back {
                // It was away for long enough to be another process, and cold.
                entry.health = entry.health.reconnected();
                entry.endpoint.vitals.forget();
                entry.endpoint.forget_latency(None);
            }
        });
    }

    pub(super) fn admit(&mut self, endpoint: &Arc<Endpoint<T>>, admission: Admission) {
        self.update(endpoint, |entry| entry.admission = admission);
    }

    fn update(&mut self, endpoint: &Arc<Endpoint<T>>, change: impl FnOnce(&mut Entry<T>)) {
        let Some(entry) = self.entries.get_mut(&endpoint.address()) else { return };
        if Arc::ptr_eq(&entry.endpoint, endpoint) {
            let before = entry.standing();
            change(entry);
            entry.settle(&self.warmup);
            if entry.healthy {
                self.areas[entry.area].change(before, entry.standing());
            }
        }
    }

    pub(super) fn is_ready(&self, endpoint: &Arc<Endpoint<T>>) -> bool {
        let entry = self.entries.get(&endpoint.address());
        entry.is_some_and(|entry| Arc::ptr_eq(&entry.endpoint, endpoint) && entry.status == Status::Ready)
    }

    /// When the snapshot may change by itself.
    pub(super) fn due(&self) -> Option<Instant> {
        let look = self.assignment.as_ref().and(self.looked).map(|looked| looked + self.interval());
        [self.due, self.batch, look].into_iter().flatten().min()
    }

    /// Changes whenever [`State::wanted`] may.
    pub(super) fn wanted_version(&self) -> u64 {
        self.wanted
    }

    /// How often endpoints are looked at. Who fails in a row need not wait for a longer interval, and latencies and warm-up
    /// reckon in seconds.
    fn interval(&self) -> Duration {
        self.outliers.interval.min(LONGEST_INTERVAL)
    }

    /// Looks at what became of requests since the last time, if that is an interval ago; true if an endpoint was ejected
    /// or let in again.
    pub(super) fn look(&mut self, now: Instant) -> bool {
        let passed = now - *self.looked.get_or_insert(now);
        let Some(assignment) = self.assignment.clone().filter(|_| passed >= self.interval()) else {
            return false;
        };
        self.looked = Some(now);
        let serving = self.areas.iter().filter(|area| area.is_usable()).count();
        let mut changed = false;
        for (at, locality) in assignment.priorities.iter().flatten().enumerate() {
            let connected = |entry: &Entry<T>| entry.healthy && entry.area == at && entry.status == Status::Ready;
            let addresses = locality.endpoints.iter().map(|assigned| assigned.address);
            let connected: Vec<SocketAddr> =
                addresses.filter(|address| self.entries.get(address).is_some_and(connected)).collect();
            let others = serving > usize::from(self.areas[at].is_usable());
            let (ejected, typical) = self.look_at(at, &connected, others, now, passed);
            self.areas[at].past.saw(typical, now, passed, assignment.failback);
            changed |= ejected;
        }
        changed
    }

    /// Looks at the connected endpoints of a locality, an area by its number. `others`: whether another locality serves.
    /// Returns whether an endpoint was ejected or let in again, and what they typically take.
    fn look_at(
        &mut self,
        at: usize,
        connected: &[SocketAddr],
        others: bool,
        now: Instant,
        passed: Duration,
    ) -> (bool, Option<f32>) {
        let entries = || connected.iter().filter_map(|address| self.entries.get(address));
        let members: Vec<health::Member> = entries()
            .map(|it| {
                let interval = it.endpoint.vitals.take(it.endpoint.in_flight() > 0);
                health::Member { interval, ejected: it.health.is_ejected() }
            })
            .collect();
        let latency = |(entry, member): (&Entry<T>, &health::Member)| entry.endpoint.latency(member.interval.latency);
        let peers = Peers::of(entries().zip(&members).filter_map(latency));
        let new = entries().zip(&members).filter(|(entry, _)| entry.health.is_new());
        let newcomers =
            self.areas[at].past.newcomers.after(new.map(|(_, member)| member.interval.latency), peers.typical);
        let out = health::judge(&members, others, &self.outliers);
        let mut changed = false;
        for ((address, member), out) in connected.iter().zip(members).zip(out) {
            let Some(entry) = self.entries.get_mut(address) else { continue };
            entry.endpoint.settle_latency(member.interval.latency, &peers);
            let before = entry.standing();
            entry.health = if out {
                // Its row is over, or it would be ejected again before its probe has ended.
                entry.endpoint.vitals.forget();
                entry.health.eject(now, &self.outliers)
            } else {
                let peers = health::Around { typical: peers.typical, newcomers };
                entry.health.after(&member.interval, peers, now, passed, (&self.outliers, &self.warmup))
            };
            if member.ejected && !entry.health.is_ejected() {
                // Judged anew: by the failures it was ejected for it would never be tried.
                entry.endpoint.forget_latency(peers.typical);
            }
            changed |= entry.health.is_ejected() != member.ejected;
            entry.settle(&self.warmup);
            self.areas[entry.area].change(before, entry.standing());
        }
        self.areas[at].past.newcomers = newcomers;
        (changed, peers.typical)
    }

    pub(super) fn wanted(&self) -> Vec<Arc<Endpoint<T>>> {
        let Some(assignment) = &self.assignment else { return Vec::new() };
        let all = assignment.priorities.iter().flatten().map(|l| l.endpoints.len()).sum::<usize>() <= CONNECT_ALL;
        let mut wanted = Vec::new();
        let mut alive_above = false;
        for (tier, alive) in assignment.priorities.iter().zip(&self.alive) {
            let healthy = tier.iter().flat_map(|locality| &locality.endpoints);
            let healthy = healthy.filter(|assigned| assigned.health == EndpointHealth::Healthy);
            let entries = healthy.filter_map(|assigned| self.entries.get(&assigned.address));
            wanted.extend(entries.map(|entry| Arc::clone(&entry.endpoint)));
            // The tier below the first that lives is connected as well, so that it can take over at once.
            if alive_above && !all {
                break;
            }
            alive_above |= alive;
        }
        wanted
    }

    /// What picks shall read from now on; `None`: what they read already.
    pub(super) fn snapshot(&mut self, now: Instant) -> Option<Snapshot<T>> {
        let Some(assignment) = self.assignment.clone() else {
            (self.due, self.batch) = (None, None);
            return Some(self.nothing());
        };
        let relaid = self.lay_out(&assignment, now);
        let failback = assignment.failback;
        let mut stands: Vec<Vec<Stand>> = vec![Vec::new(); assignment.priorities.len()];
        for area in &mut self.areas {
            area.past.presence = area.past.presence.observe(area.is_usable(), area.is_dead(), now, failback);
            stands[area.priority as usize].push(area.stand(area.past.fraction(now, failback)));
        }
        self.due = self.areas.iter().filter_map(|area| area.past.presence.next_change(now, failback)).min();
        self.look_at_tiers(assignment.priorities.len());
        let shares: Vec<f64> = shares(&stands).into_iter().flatten().collect();
        let nobody = shares.iter().all(|share| *share == 0.0);
        if !relaid && !nobody && shares == self.published {
            return None;
        }
        let takers = self.areas.iter().zip(&shares).filter_map(|(area, share)| {
            let locality = Arc::clone(area.layout.as_ref()?);
            Some(Taker { share: *share, priority: area.priority, locality })
        });
        let limit = assignment.max_requests.unwrap_or(u32::MAX);
        let overloaded = PickError::Overloaded { cluster: Arc::clone(&assignment.cluster), limit };
        let mut snapshot = self.empty(self.why_nothing(&assignment.cluster), overloaded, limit);
        snapshot.routes = routes(takers);
        self.published = shares;
        Some(snapshot)
    }

    /// How each endpoint stands.
    pub(super) fn endpoints(&self) -> Vec<EndpointState<T>> {
        let state = |entry: &Entry<T>| EndpointState {
            endpoint: Arc::clone(&entry.endpoint),
            status: entry.status.clone(),
            ejected: entry.health.is_ejected(),
            latency: entry.endpoint.latency(None).map(Duration::from_secs_f32),
        };
        let mut states: Vec<_> = self.entries.values().map(state).collect();
        states.sort_unstable_by_key(|state| state.endpoint.address());
        states
    }

    /// What each locality takes, and why.
    pub(super) fn explain(&self, now: Instant) -> Vec<LocalityShare> {
        let failback = self.assignment.as_ref().map(|assignment| assignment.failback).unwrap_or_default();
        let line = |(area, share): (&Area<T>, &f64)| LocalityShare {
            locality: area.name.clone(),
            priority: area.priority,
            share: *share,
            usable: area.usable(),
            healthy: area.healthy(),
            because: because(area.is_usable(), *share, area.past.presence, area.past.fraction(now, failback)),
        };
        self.areas.iter().zip(&self.published).map(line).collect()
    }

    /// Lays out anew the areas that need it; whether there were any.
    fn lay_out(&mut self, assignment: &Assignment, now: Instant) -> bool {
        let over = self.batch.is_some_and(|at| at <= now);
        let mut relaid = false;
        let localities = assignment.priorities.iter().flatten();
        for ((at, area), locality) in self.areas.iter_mut().enumerate().zip(localities) {
            if !(area.is_stale() || over && area.newcomers() > 0) {
                continue;
            }
            relaid = true;
            let mut usable = Vec::with_capacity(area.usable());
            for assigned in &locality.endpoints {
                let entry = self.entries.get_mut(&assigned.address);
                let Some(entry) = entry.filter(|entry| entry.healthy && entry.area == at) else { continue };
                let before = entry.standing();
                entry.laid = before.usable;
                area.change(before, entry.standing());
                if entry.laid {
                    let (endpoint, seated) = (Arc::clone(&entry.endpoint), entry.seated.clone());
                    usable.push(Laid { endpoint, weight: assigned.weight.max(1), seated });
                }
            }
            area.layout = Locality::new(&self.chosen, self.cells.chunks(), usable).map(Arc::new);
        }
        let waiting = self.areas.iter().any(|area| area.newcomers() > 0);
        self.batch = waiting.then(|| self.batch.filter(|at| *at > now).unwrap_or(now + BATCH));
        relaid
    }

    fn look_at_tiers(&mut self, tiers: usize) {
        let mut alive = vec![false; tiers];
        self.areas.iter().for_each(|area| alive[area.priority as usize] |= !area.is_dead());
        if alive != self.alive {
            self.alive = alive;
            self.wanted += 1;
        }
    }

    /// What picks read before anything is known.
    pub(super) fn nothing(&self) -> Snapshot<T> {
        self.empty(self.nothing.clone(), self.nothing.clone(), u32::MAX)
    }

    fn empty(&self, empty: PickError, overloaded: PickError, limit: u32) -> Snapshot<T> {
        let (ledger, chosen) = (Arc::clone(&self.ledger), self.chosen.clone());
        Snapshot { routes: Vec::new(), limit, empty, overloaded, ledger, chosen }
    }

    /// What to say if nothing is usable.
    fn why_nothing(&self, cluster: &Arc<str>) -> PickError {
        let cluster = Arc::clone(cluster);
        let healthy: usize = self.areas.iter().map(Area::healthy).sum();
        match &self.last_failure {
            _ if healthy == 0 => PickError::NoEndpoints { cluster, total: self.entries.len() },
            Some(reason) if self.areas.iter().all(Area::is_dead) => {
                PickError::Unreachable { cluster, healthy, reason: Arc::clone(reason) }
            }
            None if self.areas.iter().all(Area::is_dead) => {
                PickError::Unreachable { cluster, healthy, reason: "all are ejected".into() }
            }
            _ => PickError::Connecting { cluster },
        }
    }
}
