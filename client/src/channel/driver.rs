//! Carries what a name comes to into the balancer, keeps the connections that it wants, and moves its ramps on.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::balancer::Balancer;
use crate::connection::Pool;
use crate::xds::model::{Assignment, Resolution, Retry};

/// What the route says of calls.
#[derive(Debug, Default)]
pub(super) struct Policy {
    pub(super) timeout: Option<Duration>,
    pub(super) retry: Option<Retry>,
    /// How many calls may wait for an endpoint; `None`: as many as come.
    pub(super) max_pending: Option<u32>,
}

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

/// Follows a name. `each` sees every assignment before the balancer does.
pub(crate) async fn run<T: Default>(
    mut resolutions: watch::Receiver<Resolution>,
    balancer: Arc<Balancer<T>>,
    mut pool: Pool<T>,
    mut each: impl FnMut(&Assignment),
) {
    let mut changes = balancer.changes();
    let mut source_is_alive = true;
    let mut news = Some(resolutions.borrow_and_update().clone());
    loop {
        if let Some(resolution) = news.take() {
            apply(resolution, &balancer, &mut each);
        }
        let wake = balancer.tick(Instant::now());
        pool.reconcile();
        news = tokio::select! {
            changed = resolutions.changed(), if source_is_alive => {
                // A source that is gone leaves its last word.
                source_is_alive = changed.is_ok();
                source_is_alive.then(|| resolutions.borrow_and_update().clone())
            }
            // The balancer is held here, so that this never ends.
            _ = changes.changed() => None,
            () = until(wake) => None,
        };
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn apply<T: Default>(resolution: Resolution, balancer: &Balancer<T>, each: &mut impl FnMut(&Assignment)) {
    match resolution {
        Resolution::Pending => {}
        Resolution::Assignment(assignment) => {
            each(&assignment);
            balancer.assign(assignment, Instant::now());
        }
        Resolution::NotFound { resource, reason } => {
            balancer.not_found(resource, reason, Instant::now());
        }
    }
}
