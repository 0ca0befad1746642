//! Outstanding cost instead of requests, released in two phases: for inference, where one request may be a thousand others.
//!
//! `load = Σ cost of what is outstanding`: a request counts `first + rest` (prompt and expected answer, in tokens) until its
//! first byte, `rest` from then to its end. Two choices, as for requests in flight.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::super::{Cost, End, Member, RequestInfo, Strategy};

/// The strategy. A request that names no cost counts as one.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestCost;

/// Both phases; at least 1 until the end, so that requests of unknown cost count as requests.
fn parts(cost: Cost) -> (u64, u64) {
    if cost == Cost::default() { (0, 1) } else { (u64::from(cost.first), u64::from(cost.rest)) }
}

impl Strategy for RequestCost {
    type Node = Arc<AtomicU64>;
    type Table = ();

    fn node(&self, _: SocketAddr) -> Self::Node {
        Arc::default()
    }

    fn table(&self, _: &[Member<Self::Node>]) {}

    fn load(&self, outstanding: &Self::Node, _: u32, _: &RequestInfo<'_>) -> f64 {
        outstanding.load(Relaxed) as f64
    }

    fn started(&self, outstanding: &Self::Node, request: &RequestInfo<'_>) {
        let (first, rest) = parts(request.cost);
        outstanding.fetch_add(first + rest, Relaxed);
    }

    fn answered(&self, outstanding: &Self::Node, _: Duration, cost: Cost) {
        outstanding.fetch_sub(parts(cost).0, Relaxed);
    }

    fn ended(&self, outstanding: &Self::Node, end: &End<'_>) {
        let (first, rest) = parts(end.cost);
        outstanding.fetch_sub(if end.answered { rest } else { first + rest }, Relaxed);
    }
}
