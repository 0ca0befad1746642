//! One cluster: its balancer, the task that keeps its connections, and what its calls share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::sync::watch;
use tokio::time::Instant;

use super::breaker::{Breaker, Passed};
use super::budget::Budget;
use super::follow::{AbortOnDrop, drive};
use super::{Strategies, Subset};

use crate::balancer::{Balancer, Chosen};
use crate::connection::{Keep, Pool};
use crate::load::LoadRecorder;
use crate::xds::model::Assignment;

/// A cluster that requests go to. Dropped, it closes its connections once they are idle.
#[derive(Debug)]
pub(crate) struct Cluster<T> {
    pub(crate) name: Arc<str>,
    pub(crate) balancer: Arc<Balancer<T>>,
    /// What it has saved for retries.
    pub(crate) budget: Budget,
    retry_percent: AtomicU32,
    /// Its calls that are tried again now.
    retrying: Breaker,
    /// Its calls that wait for an endpoint.
    waiting: Breaker,
    wanted: watch::Sender<Wanted>,
    _driver: AbortOnDrop,
}

/// What a cluster is to be.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) assignment: Arc<Assignment>,
    /// The strategy that the assignment asks for: the same one as long as it asks for the same.
    pub(super) chosen: Chosen,
}

/// Makes what keeps a balancer's endpoints connected.
type Keeper<T> = Box<dyn Fn(&Arc<Balancer<T>>) -> Keep<T> + Send + Sync>;

/// From what a transport's clusters are made.
pub(crate) struct Parts<T> {
    pub(crate) strategies: Strategies,
    pub(crate) load: LoadRecorder,
    pub(crate) seed: u64,
    /// Which of a large locality's endpoints are used; `None`: all.
    pub(crate) subset: Option<Subset>,
    /// How endpoints of a balancer are kept connected.
    pub(crate) keeper: Keeper<T>,
}

impl<T> fmt::Debug for Parts<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("strategies", &self.strategies).finish_non_exhaustive()
    }
}

impl<T: Default + Send + Sync + 'static> Cluster<T> {
    /// Begins to connect. The `number`th of its service: each has random choices of its own. In a runtime only.
    pub(super) fn start(assignment: Arc<Assignment>, parts: &Parts<T>, number: u64) -> Self {
        let seed = parts.seed.wrapping_add(number);
        let chosen = parts.strategies.choose(&assignment.balancing);
        let balancer = Arc::new(Balancer::with_load(chosen.clone(), seed, parts.load.clone()));
        balancer.assign(part(&assignment, parts.subset.as_ref()), Instant::now());
        let pool = Pool::new(Arc::clone(&balancer), (parts.keeper)(&balancer));
        let (wanted, newest) = watch::channel(Wanted { assignment: Arc::clone(&assignment), chosen });
        let cluster = Self {
            name: Arc::clone(&assignment.cluster),
            budget: Budget::default(),
            retry_percent: AtomicU32::default(),
            retrying: Breaker::default(),
            waiting: Breaker::default(),
            wanted,
            _driver: AbortOnDrop::spawn(drive(newest, parts.subset.clone(), Arc::clone(&balancer), pool)),
            balancer,
        };
        cluster.limit(&assignment);
        cluster
    }

    /// Takes a new assignment.
    pub(super) fn assign(&self, assignment: &Arc<Assignment>, strategies: &Strategies) {
        let is_new = |held: &mut Wanted| {
            let is_new = !Arc::ptr_eq(&held.assignment, assignment);
            if held.assignment.balancing != assignment.balancing {
                held.chosen = strategies.choose(&assignment.balancing);
            }
            held.assignment = Arc::clone(assignment);
            is_new
        };
        self.limit(assignment);
        self.wanted.send_if_modified(is_new);
    }

    fn limit(&self, assignment: &Assignment) {
        self.retry_percent.store(assignment.retry_percent, Relaxed);
        self.retrying.limit(assignment.max_retries);
        self.waiting.limit(assignment.max_pending_requests);
    }
}

/// What of an assignment this client uses.
pub(super) fn part(assignment: &Arc<Assignment>, subset: Option<&Subset>) -> Arc<Assignment> {
    subset.map_or_else(|| Arc::clone(assignment), |subset| subset.of(assignment))
}

impl<T> Cluster<T> {
    /// At most so many retries for a hundred calls.
    pub(crate) fn retry_percent(&self) -> u32 {
        self.retry_percent.load(Relaxed)
    }

    /// A call of this cluster is tried again, unless as many are as may be.
    pub(crate) fn retry(&self) -> Option<Passed> {
        self.retrying.pass().ok()
    }

    /// A call waits for an endpoint, until this is dropped.
    ///
    /// # Errors
    /// As many wait as may: so many.
    pub(crate) fn wait(&self) -> Result<Passed, u32> {
        self.waiting.pass()
    }
}
