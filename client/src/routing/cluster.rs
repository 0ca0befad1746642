//! One cluster: its balancer, the task that keeps its connections, and what its calls share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::sync::watch;
use tokio::time::Instant;

use super::Strategies;
use super::breaker::{Breaker, Passed};
use super::budget::Budget;
use super::follow::{AbortOnDrop, drive};

use crate::balancer::Balancer;
use crate::connection::{Keep, Pool};
use crate::load::LoadRecorder;
use crate::xds::model::{Assignment, Balancing};

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
    balancing: Vec<Balancing>,
    assignments: watch::Sender<Arc<Assignment>>,
    _driver: AbortOnDrop,
}

/// Makes what keeps a balancer's endpoints connected.
type Keeper<T> = Box<dyn Fn(&Arc<Balancer<T>>) -> Keep<T> + Send + Sync>;

/// From what a transport's clusters are made.
pub(crate) struct Parts<T> {
    pub(crate) strategies: Strategies,
    pub(crate) load: LoadRecorder,
    pub(crate) seed: u64,
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
        let balancer =
            Arc::new(Balancer::with_load(parts.strategies.choose(&assignment.balancing), seed, parts.load.clone()));
        balancer.assign(Arc::clone(&assignment), Instant::now());
        let pool = Pool::new(Arc::clone(&balancer), (parts.keeper)(&balancer));
        let (assignments, newest) = watch::channel(Arc::clone(&assignment));
        let cluster = Self {
            name: Arc::clone(&assignment.cluster),
            budget: Budget::default(),
            retry_percent: AtomicU32::default(),
            retrying: Breaker::default(),
            waiting: Breaker::default(),
            balancing: assignment.balancing.clone(),
            assignments,
            _driver: AbortOnDrop::spawn(drive(newest, Arc::clone(&balancer), pool)),
            balancer,
        };
        cluster.limit(&assignment);
        cluster
    }

    /// Whether it can take this assignment; one that shares requests in another way is another cluster's.
    pub(super) fn suits(&self, assignment: &Assignment) -> bool {
        self.balancing == assignment.balancing
    }

    /// Takes a new assignment.
    pub(super) fn assign(&self, assignment: &Arc<Assignment>) {
        let is_new = |held: &mut Arc<Assignment>| {
            let is_new = !Arc::ptr_eq(held, assignment);
            *held = Arc::clone(assignment);
            is_new
        };
        self.limit(assignment);
        self.assignments.send_if_modified(is_new);
    }

    fn limit(&self, assignment: &Assignment) {
        self.retry_percent.store(assignment.retry_percent, Relaxed);
        self.retrying.limit(assignment.max_retries);
        self.waiting.limit(assignment.max_pending_requests);
    }
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
