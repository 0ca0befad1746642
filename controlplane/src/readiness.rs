//! Readiness as named tasks: "not ready" says which are left. Liveness asks nothing: a process that answers lives.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

/// What must be done before clients may be sent here.
#[derive(Debug, Clone)]
pub struct Readiness {
    left: Arc<watch::Sender<BTreeSet<&'static str>>>,
}

/// One task; done when it is dropped.
#[derive(Debug)]
#[must_use = "a task is done when it is dropped"]
pub(crate) struct Task {
    name: &'static str,
    left: Arc<watch::Sender<BTreeSet<&'static str>>>,
}

impl Readiness {
    pub(crate) fn new() -> Self {
        Self { left: Arc::new(watch::channel(BTreeSet::new()).0) }
    }

    pub(crate) fn task(&self, name: &'static str) -> Task {
        self.left.send_modify(|left| {
            left.insert(name);
        });
        Task { name, left: self.left.clone() }
    }

    /// The tasks that are not done, by name.
    #[must_use]
    pub fn left(&self) -> BTreeSet<&'static str> {
        self.left.borrow().clone()
    }

    /// Returns once everything is done.
    pub async fn wait(&self) {
        // We hold the sender, so that it cannot be gone.
        let _ = self.left.subscribe().wait_for(BTreeSet::is_empty).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.left.send_modify(|left| {
            left.remove(self.name);
        });
    }
}
