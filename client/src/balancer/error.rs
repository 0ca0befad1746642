//! Why no endpoint could be picked.

use std::sync::Arc;

/// Why no endpoint could be picked. The texts are what a caller sees in its status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// No assignment has come yet: wait.
    #[error("no endpoints are known yet")]
    NoAssignment,
    /// The name comes to nothing.
    #[error("{resource}: {reason}")]
    NotFound {
        /// The xDS resource at fault.
        resource: Arc<str>,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// Connections are being made: wait.
    #[error("cluster {cluster}: no endpoint is connected yet")]
    Connecting {
        /// The xDS cluster.
        cluster: Arc<str>,
    },
    /// The assignment has no endpoint that may take requests.
    #[error("cluster {cluster}: no healthy endpoint among {total}")]
    NoEndpoints {
        /// The xDS cluster.
        cluster: Arc<str>,
        /// How many endpoints it has, of whatever health.
        total: usize,
    },
    /// No endpoint can be reached.
    #[error("cluster {cluster}: connections to all {healthy} backends failing; last error: {reason}")]
    Unreachable {
        /// The xDS cluster.
        cluster: Arc<str>,
        /// How many endpoints should be reachable.
        healthy: usize,
        /// What one of them said.
        reason: Arc<str>,
    },
    /// As many requests are open as may be.
    #[error("cluster {cluster}: max concurrent requests exceeded: {limit} are open")]
    Overloaded {
        /// The xDS cluster.
        cluster: Arc<str>,
        /// `max_requests`.
        limit: u32,
    },
}

impl PickError {
    /// Whether waiting for a connection or an assignment may help.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::NoAssignment | Self::Connecting { .. })
    }
}
