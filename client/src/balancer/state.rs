//! What the balancer knows, from which it makes each snapshot: the assignment, each endpoint's status, and what each
//! locality has been through.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::cell::{Admission, Cells};
use super::chosen::Chosen;
use super::ramp::Presence;
use super::shares::{Stand, shares};
use super::snapshot::{Locality, Snapshot, Taker, routes};
use super::stripe::Ledger;
use super::{Endpoint, PickError, Place, Status};
use crate::load::LoadRecorder;
use crate::xds::model::{AssignedEndpoint, Assignment, EndpointHealth, LocalityEndpoints, LocalityName};

/// Up to so many endpoints are all kept connected.
const CONNECT_ALL: usize = 200;

#[derive(Debug)]
pub(super) struct State<T> {
    assignment: Option<Arc<Assignment>>,
    entries: HashMap<SocketAddr, Entry<T>>,
    presence: HashMap<LocalityName, Presence>,
    ledger: Arc<Ledger>,
    cells: Arc<Cells>,
    chosen: Chosen,
    load: LoadRecorder,
    /// What to say without an assignment.
    nothing: PickError,
    /// When a ramp takes its next step.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Entry<T> {
    endpoint: Arc<Endpoint<T>>,
    status: Status,
    /// What it may take when it is ready.
    admission: Admission,
}

impl<T> Entry<T> {
    /// Whether it may take requests.
    fn is_usable(&self) -> bool {
        self.status == Status::Ready && self.admission != Admission::CLOSED
    }

    /// Whether it takes none, and nothing is under way that could soon change that.
    fn is_dead(&self) -> bool {
        matches!(self.status, Status::Down(_)) || self.admission == Admission::CLOSED
    }

    /// Tells picks.
    fn settle(&self) {
        let admission = if self.status == Status::Ready { self.admission } else { Admission::CLOSED };
        self.endpoint.seat.cell().admit(admission);
    }
}

impl<T: Default> State<T> {
    pub(super) fn new(chosen: Chosen, ledger: Arc<Ledger>, cells: Arc<Cells>, load: LoadRecorder) -> Self {
        Self {
            assignment: None,
            entries: HashMap::new(),
            presence: HashMap::new(),
            ledger,
            cells,
            chosen,
            load,
            nothing: PickError::NoAssignment,
            due: None,
        }
    }

    pub(super) fn assign(&mut self, assignment: Arc<Assignment>) {
        let mut before = std::mem::take(&mut self.entries);
        for (priority, localities) in (0u32..).zip(&assignment.priorities) {
            for locality in localities {
                let counted = |name| self.load.locality(&assignment.cluster, &assignment.eds_service, name);
                let load = assignment.report_load.then(|| counted(&locality.locality));
                let place = Arc::new(Place { locality: locality.locality.clone(), priority, load });
                for assigned in &locality.endpoints {
                    let entry = match before.remove(&assigned.address) {
                        Some(entry) => {
                            entry.endpoint.place.store(Arc::clone(&place));
                            entry
                        }
                        None => Entry {
                            endpoint: Arc::new(Endpoint::new(
                                assigned.address,
                                Arc::clone(&place),
                                (self.cells.seat(), Arc::clone(&self.ledger)),
                                self.chosen.seat(assigned.address),
                                T::default(),
                            )),
                            status: Status::Idle,
                            admission: Admission::OPEN,
                        },
                    };
                    self.entries.insert(assigned.address, entry);
                }
            }
        }
        let names = || assignment.priorities.iter().flatten().map(|l| &l.locality);
        self.presence =
            names().map(|name| (name.clone(), self.presence.get(name).copied().unwrap_or_default())).collect();
        self.assignment = Some(assignment);
    }
}

impl<T> State<T> {
    pub(super) fn clear(&mut self, why: PickError) {
        (self.assignment, self.nothing) = (None, why);
        self.entries.clear();
        self.presence.clear();
    }

    pub(super) fn report(&mut self, endpoint: &Arc<Endpoint<T>>, status: Status) {
        if let Some(entry) = self.entries.get_mut(&endpoint.address())
            && Arc::ptr_eq(&entry.endpoint, endpoint)
        {
            entry.status = status;
            entry.settle();
        }
    }

    pub(super) fn admit(&mut self, endpoint: &Arc<Endpoint<T>>, admission: Admission) {
        if let Some(entry) = self.entries.get_mut(&endpoint.address())
            && Arc::ptr_eq(&entry.endpoint, endpoint)
        {
            entry.admission = admission;
            entry.settle();
        }
    }

    pub(super) fn is_ready(&self, endpoint: &Arc<Endpoint<T>>) -> bool {
        let entry = self.entries.get(&endpoint.address());
        entry.is_some_and(|entry| Arc::ptr_eq(&entry.endpoint, endpoint) && entry.status == Status::Ready)
    }

    /// When the snapshot changes by itself.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn wanted(&self) -> Vec<Arc<Endpoint<T>>> {
        let Some(assignment) = &self.assignment else { return Vec::new() };
        let all = assignment.priorities.iter().flatten().map(|l| l.endpoints.len()).sum::<usize>() <= CONNECT_ALL;
        let mut wanted = Vec::new();
        let mut alive_above = false;
        for tier in &assignment.priorities {
            let healthy = || tier.iter().flat_map(|locality| self.healthy(locality));
            wanted.extend(healthy().map(|(entry, _)| Arc::clone(&entry.endpoint)));
            // The tier below the first that lives is connected as well, so that it can take over at once.
            if alive_above && !all {
                break;
            }
            alive_above |= healthy().any(|(entry, _)| !matches!(entry.status, Status::Down(_)));
        }
        wanted
    }

    /// What picks shall read from now on.
    pub(super) fn snapshot(&mut self, now: Instant) -> Snapshot<T> {
        let Some(assignment) = self.assignment.clone() else {
            self.due = None;
            return self.nothing();
        };
        let mut presence = std::mem::take(&mut self.presence);
        let stand = |locality: &LocalityEndpoints, presence: &mut HashMap<LocalityName, Presence>| {
            let usable = self.healthy(locality).any(|(entry, _)| entry.is_usable());
            let dead = self.healthy(locality).all(|(entry, _)| entry.is_dead());
            let presence = presence.entry(locality.locality.clone()).or_default();
            *presence = presence.observe(usable, dead, now, assignment.failback);
            Stand { weight: locality.weight, usable, fraction: presence.fraction(now, assignment.failback) }
        };
        let stands: Vec<Vec<Stand>> = assignment
            .priorities
            .iter()
            .map(|tier| tier.iter().map(|locality| stand(locality, &mut presence)).collect())
            .collect();
        self.due = presence.values().filter_map(|presence| presence.next_change(now, assignment.failback)).min();
        self.presence = presence;
        let takers =
            (0u32..).zip(assignment.priorities.iter().zip(shares(&stands))).flat_map(|(priority, (tier, shares))| {
                tier.iter().zip(shares).map(move |(locality, share)| (priority, locality, share))
            });
        let takers = takers.filter_map(|(priority, locality, share)| {
            let locality = Locality::new(&self.chosen, self.cells.chunks(), self.usable(locality))?;
            Some(Taker { share, priority, locality: Arc::new(locality) })
        });
        let limit = assignment.max_requests.unwrap_or(u32::MAX);
        let overloaded = PickError::Overloaded { cluster: Arc::clone(&assignment.cluster), limit };
        let mut snapshot = self.empty(self.why_nothing(&assignment), overloaded, limit);
        snapshot.routes = routes(takers);
        snapshot
    }

    /// What picks read before anything is known.
    pub(super) fn nothing(&self) -> Snapshot<T> {
        self.empty(self.nothing.clone(), self.nothing.clone(), u32::MAX)
    }

    fn empty(&self, empty: PickError, overloaded: PickError, limit: u32) -> Snapshot<T> {
        let (ledger, chosen) = (Arc::clone(&self.ledger), self.chosen.clone());
        Snapshot { routes: Vec::new(), limit, empty, overloaded, ledger, chosen }
    }

    fn healthy<'a>(
        &'a self,
        locality: &'a LocalityEndpoints,
    ) -> impl Iterator<Item = (&'a Entry<T>, &'a AssignedEndpoint)> {
        let healthy = locality.endpoints.iter().filter(|assigned| assigned.health == EndpointHealth::Healthy);
        healthy.filter_map(|assigned| Some((self.entries.get(&assigned.address)?, assigned)))
    }

    fn usable(&self, locality: &LocalityEndpoints) -> Vec<(Arc<Endpoint<T>>, u32)> {
        let usable = self.healthy(locality).filter(|(entry, _)| entry.is_usable());
        usable.map(|(entry, assigned)| (Arc::clone(&entry.endpoint), assigned.weight.max(1))).collect()
    }

    /// What to say if nothing is ready.
    fn why_nothing(&self, assignment: &Assignment) -> PickError {
        let cluster = Arc::clone(&assignment.cluster);
        let healthy = || assignment.priorities.iter().flatten().flat_map(|locality| self.healthy(locality));
        let mut last = None;
        for (entry, _) in healthy() {
            match &entry.status {
                Status::Down(reason) => last = Some(Arc::clone(reason)),
                Status::Idle | Status::Connecting | Status::Ready => return PickError::Connecting { cluster },
            }
        }
        match last {
            Some(reason) => PickError::Unreachable { cluster, healthy: healthy().count(), reason },
            None => PickError::NoEndpoints { cluster, total: self.entries.len() },
        }
    }
}
