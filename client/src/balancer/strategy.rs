//! Which endpoint of the drawn locality takes the request: the trait that strategies implement, and the default.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::Candidates;
use crate::orca::OrcaReport;

/// What a strategy may know of a request before it is sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestInfo<'a> {
    /// The key of what it asks for: strategies with affinity send equal keys to one endpoint.
    pub hash: Option<u64>,
    /// What it is expected to cost.
    pub cost: Cost,
    /// Hashes of ever longer beginnings of its prompt, the shortest first.
    pub prefix: &'a [u64],
    /// Endpoints that failed it already: not chosen again while there is another.
    pub avoid: &'a [SocketAddr],
}

/// What a request costs its endpoint, in whatever unit the strategy counts: tokens, say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Until the first byte of its answer.
    pub first: u32,
    /// From then to its end.
    pub rest: u32,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered well.
    Success,
    /// It failed by the endpoint's fault.
    Failure,
    /// Nobody waited for the answer: it says nothing of the endpoint.
    Cancelled,
}

/// The end of a request, as a strategy is told.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// How it ended.
    pub outcome: Outcome,
    /// From its beginning, if the transport measured it.
    pub latency: Option<Duration>,
    /// What the server said of its load.
    pub report: Option<&'a OrcaReport>,
    /// What the request was expected to cost.
    pub cost: Cost,
    /// Whether [`Strategy::answered`] was told of it.
    pub answered: bool,
}

/// An endpoint of a locality, as [`Strategy::table`] sees it.
#[derive(Debug, Clone, Copy)]
pub struct Member<N> {
    /// Its address.
    pub address: SocketAddr,
    /// Its weight, at least 1.
    pub weight: u32,
    /// What [`Strategy::node`] made for it.
    pub node: N,
}

/// What a strategy chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The index of the candidate chosen.
    pub at: usize,
    /// The one it was compared with and preferred to, if the choice was made so.
    pub over: Option<usize>,
}

/// The choice among the usable endpoints of a locality.
///
/// Most strategies need no more than [`Strategy::load`]: two candidates are drawn, and the one with less load for its
/// weight takes the request. Others choose themselves. Everything but [`Strategy::node`] and [`Strategy::table`] runs for
/// every request: no locks, no allocation.
///
/// ```
/// use std::net::SocketAddr;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// use portolan_client::balancer::{Cost, End, Member, RequestInfo, Strategy};
///
/// /// The fewest outstanding tokens of two.
/// #[derive(Debug)]
/// struct FewestTokens;
///
/// impl Strategy for FewestTokens {
///     type Node = Arc<AtomicU32>;
///     type Table = ();
///
///     fn node(&self, _: SocketAddr) -> Self::Node {
///         Arc::default()
///     }
///     fn table(&self, _: &[Member<Self::Node>]) {}
///     fn load(&self, tokens: &Self::Node, _in_flight: u32, _: &RequestInfo<'_>) -> f64 {
///         f64::from(tokens.load(Relaxed))
///     }
///     fn started(&self, tokens: &Self::Node, request: &RequestInfo<'_>) {
///         tokens.fetch_add(request.cost.first + request.cost.rest, Relaxed);
///     }
///     fn ended(&self, tokens: &Self::Node, end: &End<'_>) {
///         tokens.fetch_sub(end.cost.first + end.cost.rest, Relaxed);
///     }
/// }
/// ```
pub trait Strategy: fmt::Debug + Send + Sync + 'static {
    /// What it keeps for an endpoint while that is assigned, whatever localities and priorities it moves through: an
    /// `Arc` of its state, or `()`.
    type Node: Clone + Send + Sync + 'static;
    /// What it makes of a locality's endpoints when they change: a hash ring, say, or `()`.
    type Table: Send + Sync + 'static;

    /// The state of an endpoint that has just been assigned.
    fn node(&self, address: SocketAddr) -> Self::Node;

    /// The table of a locality's endpoints, in the candidates' order.
    fn table(&self, members: &[Member<Self::Node>]) -> Self::Table;

    /// What an endpoint bears: compared with another's after division by their weights. Never negative.
    fn load(&self, node: &Self::Node, in_flight: u32, request: &RequestInfo<'_>) -> f64 {
        let _ = (node, request);
        f64::from(in_flight)
    }

    /// The candidate that takes the request: the better of two by [`Strategy::load`].
    fn choose(
        &self,
        candidates: &Candidates<'_, Self::Node>,
        table: &Self::Table,
        request: &RequestInfo<'_>,
    ) -> Choice {
        let _ = table;
        candidates.two_choices(|at| self.load(candidates.node(at), candidates.in_flight(at), request))
    }

    /// Stands in for chance when the locality is drawn (2⁶⁴ possible values spread over the shares), so that equal
    /// requests reach one locality. `None`: chance decides.
    fn affinity(&self, request: &RequestInfo<'_>) -> Option<u64> {
        let _ = request;
        None
    }

    /// A request begins at the endpoint.
    fn started(&self, node: &Self::Node, request: &RequestInfo<'_>) {
        let _ = (node, request);
    }

    /// The first byte of its answer came, this long after it began.
    fn answered(&self, node: &Self::Node, after: Duration, cost: Cost) {
        let _ = (node, after, cost);
    }

    /// It ended. Told exactly once for each [`Strategy::started`].
    fn ended(&self, node: &Self::Node, end: &End<'_>) {
        let _ = (node, end);
    }
}

/// Least request, the default: of some endpoints drawn at random by weight, the one that promises to answer first.
///
/// It promises `(in flight / weight + 1) × slowness`: how many times longer than its good peers it has taken lately to
/// answer this client, beyond a quarter more. Nothing is better than an endpoint that is idle and not slow, so that the
/// first such one is taken; up to sixteen are looked at before that. Two would do if a client knew how busy servers are.
/// What one of a hundred clients knows is a request in flight here and there and a few latencies, so that the better of
/// two is often a poor one (`cargo bench --bench quality` has the figures). All of it is first-hand: nothing comes late or
/// from servers that may say anything. Without latencies from the transport it is plain least request. A tie goes to the one
/// drawn first, so that endpoints that are idle and about as fast share exactly by weight.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeastRequest;

impl Strategy for LeastRequest {
    type Node = ();
    type Table = ();

    fn node(&self, _: SocketAddr) {}

    fn table(&self, _: &[Member<()>]) {}
}
