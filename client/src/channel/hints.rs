//! What a caller may tell of a call.

use std::sync::Arc;

use super::Hedge;
use crate::balancer::Cost;

/// Put into a request's extensions, it reaches the channel, and the strategy as part of its
/// [`RequestInfo`](crate::balancer::RequestInfo).
///
/// ```
/// # use portolan_client::channel::RequestHints;
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(RequestHints { hash: Some(42), ..RequestHints::default() });
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestHints {
    /// The key of what it asks for: strategies with affinity send equal keys to one endpoint. `None`: what the route says
    /// of its hash.
    pub hash: Option<u64>,
    /// What it is expected to cost.
    pub cost: Cost,
    /// Hashes of ever longer beginnings of its prompt, the shortest first.
    pub prefix: Option<Arc<[u64]>>,
    /// Whether it gets a second attempt when the first takes long; `None`: what the channel does. The layer for HTTP never
    /// does it.
    pub hedge: Option<Hedge>,
}
