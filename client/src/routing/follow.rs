//! Carries what a name comes to into the routes and the clusters behind them, and keeps each cluster going.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::cluster::{Cluster, Parts, Wanted, part};
use super::table::{Table, Target};
use super::{Router, Subset};
use crate::balancer::Balancer;
use crate::connection::Pool;
use crate::xds::model::{Assignment, Resolution};
use crate::xds::routing::{NoCluster, Routing};

/// A task that ends with its owner.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(JoinHandle<()>);

impl AbortOnDrop {
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Follows a name: what is known of it already is taken before this returns. The task that it gives follows on.
pub(crate) fn follow<T: Default + Send + Sync + 'static>(
    mut resolutions: watch::Receiver<Resolution>,
    router: &Arc<Router<T>>,
    parts: Parts<T>,
) -> impl Future<Output = ()> + Send + use<T> {
    let mut clusters = Clusters { parts, held: BTreeMap::new(), started: 0 };
    let router = Arc::clone(router);
    clusters.apply(&resolutions.borrow_and_update(), &router);
    async move {
        // A source that is gone leaves its last word.
        while resolutions.changed().await.is_ok() {
            clusters.apply(&resolutions.borrow_and_update(), &router);
        }
        std::future::pending().await
    }
}

/// The clusters of the present routes.
struct Clusters<T> {
    parts: Parts<T>,
    held: BTreeMap<Arc<str>, Arc<Cluster<T>>>,
    started: u64,
}

impl<T: Default + Send + Sync + 'static> Clusters<T> {
    fn apply(&mut self, resolution: &Resolution, router: &Router<T>) {
        match resolution {
            Resolution::Pending => {}
            Resolution::Routing(routing) => router.replace(self.table(routing)),
            Resolution::NotFound { resource, reason } => {
                self.held.clear();
                let why = NoCluster { resource: Arc::clone(resource), reason: Arc::clone(reason) };
                router.replace(Table::NotFound(why));
            }
        }
    }

    /// A cluster that stays keeps all that it has; one that left is let go.
    fn table(&mut self, routing: &Routing) -> Table<T> {
        let mut before = std::mem::take(&mut self.held);
        let mut targets: BTreeMap<Arc<str>, Target<T>> = BTreeMap::new();
        for (name, cluster) in &routing.clusters {
            let target = cluster.as_ref().map_err(NoCluster::clone).map(|assignment| match before.remove(name) {
                Some(cluster) => {
                    cluster.assign(assignment, &self.parts.strategies);
                    cluster
                }
                None => self.start(assignment),
            });
            if let Ok(cluster) = &target {
                self.held.insert(Arc::clone(name), Arc::clone(cluster));
            }
            targets.insert(Arc::clone(name), target);
        }
        Table::of(routing, targets)
    }

    fn start(&mut self, assignment: &Arc<Assignment>) -> Arc<Cluster<T>> {
        let number = self.started;
        self.started += 1;
        Arc::new(Cluster::start(Arc::clone(assignment), &self.parts, number))
    }
}

/// Takes what a cluster is to be, keeps the connections that its balancer wants, and moves its ramps on.
pub(super) async fn drive<T: Default>(
    mut wanted: watch::Receiver<Wanted>,
    subset: Option<Subset>,
    balancer: Arc<Balancer<T>>,
    mut pool: Pool<T>,
) {
    let mut changes = balancer.changes();
    let mut source_is_alive = true;
    loop {
        let wake = balancer.tick(Instant::now());
        pool.reconcile();
        tokio::select! {
            changed = wanted.changed(), if source_is_alive => {
                source_is_alive = changed.is_ok();
                if source_is_alive {
                    let Wanted { assignment, chosen } = wanted.borrow_and_update().clone();
                    balancer.assign_by(part(&assignment, subset.as_ref()), chosen, Instant::now());
                }
            }
            // The balancer is held here, so that this never ends.
            _ = changes.changed() => {}
            () = until(wake) => {}
        }
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
