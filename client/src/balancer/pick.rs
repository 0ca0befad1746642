//! The guard of one request.

use std::sync::Arc;

use super::Endpoint;

/// A request at its endpoint: it counts as in flight while this lives.
///
/// End it with [`Pick::success`] or [`Pick::failure`]; dropped, it was cancelled, which says nothing about the endpoint.
#[derive(Debug)]
#[must_use = "the request counts as in flight while the pick lives"]
pub struct Pick<T> {
    endpoint: Arc<Endpoint<T>>,
    priority: u32,
}

impl<T> Pick<T> {
    /// The breaker has counted it already.
    #[inline]
    pub(super) fn new(endpoint: Arc<Endpoint<T>>, priority: u32) -> Self {
        endpoint.load.start();
        Self { endpoint, priority }
    }

    /// The endpoint that was chosen.
    pub fn endpoint(&self) -> &Arc<Endpoint<T>> {
        &self.endpoint
    }

    /// The priority it was chosen from.
    pub fn priority(&self) -> u32 {
        self.priority
    }

    /// The request was answered well.
    pub fn success(self) {
        self.endpoint.load.count(true);
    }

    /// The request failed by the endpoint's fault.
    pub fn failure(self) {
        self.endpoint.load.count(false);
    }
}

impl<T> Drop for Pick<T> {
    #[inline]
    fn drop(&mut self) {
        self.endpoint.load.end();
        self.endpoint.breaker.leave();
    }
}
