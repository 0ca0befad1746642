//! The strategy in use: the default, which picks call directly, or another behind a pointer.

use std::any::{Any, TypeId};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::candidates::{Draws, Slots};
use super::{Candidates, Choice, Cost, End, LeastRequest, Member, RequestInfo, Strategy};

/// A strategy of any type.
#[derive(Debug, Clone, Default)]
pub struct Chosen(Option<Arc<dyn AnyStrategy>>);

impl<S: Strategy> From<S> for Chosen {
    fn from(strategy: S) -> Self {
        if TypeId::of::<S>() == TypeId::of::<LeastRequest>() {
            return Self(None);
        }
        Self(Some(Arc::new(Erased(Arc::new(strategy)))))
    }
}

impl Chosen {
    /// Whether it is this very one, with all that it keeps.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// What the strategy keeps for an endpoint; the default keeps nothing.
    pub(super) fn seat(&self, address: SocketAddr) -> Option<Arc<dyn Seated>> {
        self.0.as_ref().map(|strategy| strategy.seat(address))
    }

    /// The choice among a locality's endpoints, which it has seated all.
    pub(super) fn chooser(&self, members: &[Member<Option<Arc<dyn Seated>>>]) -> Chooser {
        match &self.0 {
            None => Chooser::LeastRequest,
            Some(strategy) => Chooser::Other(strategy.chooser(members)),
        }
    }

    #[inline]
    pub(super) fn affinity(&self, request: &RequestInfo<'_>) -> Option<u64> {
        self.0.as_ref()?.affinity(request)
    }
}

/// The choice among one locality's endpoints.
#[derive(Debug)]
pub(super) enum Chooser {
    LeastRequest,
    Other(Box<dyn AnyChooser>),
}

impl Chooser {
    #[inline(always)]
    pub(super) fn choose(&self, slots: &Slots, draws: Draws<'_>, request: &RequestInfo<'_>) -> Choice {
        match self {
            Self::LeastRequest => {
                let candidates: Candidates<'_, ()> = Candidates::new(slots, &[], draws);
                candidates.least_loaded()
            }
            Self::Other(chooser) => chooser.choose(slots, draws, request),
        }
    }
}

trait AnyStrategy: fmt::Debug + Send + Sync {
    fn seat(&self, address: SocketAddr) -> Arc<dyn Seated>;
    fn chooser(&self, members: &[Member<Option<Arc<dyn Seated>>>]) -> Box<dyn AnyChooser>;
    fn affinity(&self, request: &RequestInfo<'_>) -> Option<u64>;
}

pub(super) trait AnyChooser: fmt::Debug + Send + Sync {
    fn choose(&self, slots: &Slots, draws: Draws<'_>, request: &RequestInfo<'_>) -> Choice;
}

/// An endpoint's state with its strategy: what a request's guard tells.
pub(super) trait Seated: Any + Send + Sync {
    fn started(&self, request: &RequestInfo<'_>);
    fn answered(&self, after: Duration, cost: Cost);
    fn ended(&self, end: &End<'_>);
}

impl fmt::Debug for dyn Seated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seated")
    }
}

#[derive(Debug)]
struct Erased<S>(Arc<S>);

struct Seat<S: Strategy> {
    strategy: Arc<S>,
    node: S::Node,
}

struct Typed<S: Strategy> {
    strategy: Arc<S>,
    nodes: Box<[S::Node]>,
    table: S::Table,
}

impl<S: Strategy> AnyStrategy for Erased<S> {
    fn seat(&self, address: SocketAddr) -> Arc<dyn Seated> {
        Arc::new(Seat { strategy: Arc::clone(&self.0), node: self.0.node(address) })
    }

    fn chooser(&self, members: &[Member<Option<Arc<dyn Seated>>>]) -> Box<dyn AnyChooser> {
        let strategy = Arc::clone(&self.0);
        let node = |member: &Member<Option<Arc<dyn Seated>>>| {
            let seat = member.node.as_deref().and_then(|seat| (seat as &dyn Any).downcast_ref::<Seat<S>>());
            // One that another strategy seated cannot be here; a fresh node would be the same, without memory.
            seat.map_or_else(|| strategy.node(member.address), |seat| seat.node.clone())
        };
        let typed = |member: &Member<_>| Member { address: member.address, weight: member.weight, node: node(member) };
        let members: Vec<Member<S::Node>> = members.iter().map(typed).collect();
        let table = strategy.table(&members);
        let nodes = members.into_iter().map(|member| member.node).collect();
        Box::new(Typed { strategy, nodes, table })
    }

    fn affinity(&self, request: &RequestInfo<'_>) -> Option<u64> {
        self.0.affinity(request)
    }
}

impl<S: Strategy> AnyChooser for Typed<S> {
    fn choose(&self, slots: &Slots, draws: Draws<'_>, request: &RequestInfo<'_>) -> Choice {
        self.strategy.choose(&Candidates::new(slots, &self.nodes, draws), &self.table, request)
    }
}

impl<S: Strategy> fmt::Debug for Typed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed").field("strategy", &self.strategy).finish_non_exhaustive()
    }
}

impl<S: Strategy> Seated for Seat<S> {
    fn started(&self, request: &RequestInfo<'_>) {
        self.strategy.started(&self.node, request);
    }

    fn answered(&self, after: Duration, cost: Cost) {
        self.strategy.answered(&self.node, after, cost);
    }

    fn ended(&self, end: &End<'_>) {
        self.strategy.ended(&self.node, end);
    }
}
