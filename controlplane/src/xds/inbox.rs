//! What changed for one stream since it last looked: one latest-wins slot per resource, never a queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::resources::cache::Watcher;
use crate::resources::gateway::GatewayResources;
use crate::resources::gateway::book::GatewayWatcher;
use crate::resources::{Kind, Lookup};

/// One stream's slots.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
}

/// The newest state of each resource that changed. Most often there is one, and thousands of streams hear of it.
#[derive(Debug, Default)]
pub(super) enum News {
    /// Nothing changed.
    #[default]
    None,
    /// One resource.
    One(Name, Lookup),
    /// Several.
    Many(HashMap<Name, Lookup>),
}

type Name = (Kind, Arc<str>);

impl News {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    fn insert(&mut self, name: Name, lookup: Lookup) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(name, lookup),
            Self::One(known, _) if known == name => Self::One(name, lookup),
            Self::One(known, of_known) => Self::Many([(known, of_known), (name, lookup)].into()),
            Self::Many(mut many) => {
                many.insert(name, lookup);
                Self::Many(many)
            }
        };
    }

    fn remove(&mut self, kind: Kind, name: &Arc<str>) {
        match self {
            Self::One((of, known), _) if *of == kind && known == name => *self = Self::None,
            Self::None | Self::One(..) => {}
            Self::Many(many) => {
                many.remove(&(kind, name.clone()));
                if many.is_empty() {
                    *self = Self::None;
                }
            }
        }
    }

    /// Takes each resource in turn.
    pub(super) fn for_each(self, mut take: impl FnMut(Name, Lookup)) {
        match self {
            Self::None => {}
            Self::One(name, lookup) => take(name, lookup),
            Self::Many(many) => many.into_iter().for_each(|(name, lookup)| take(name, lookup)),
        }
    }
}

/// Everything that changed.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Resources.
    pub(super) news: News,
    /// Whether the topology did.
    pub(super) moved: bool,
    /// What the client's gateway came to, if that changed.
    pub(super) gateway: Option<Arc<GatewayResources>>,
}

#[derive(Debug, Default)]
struct State {
    news: News,
    /// The topology changed.
    moved: bool,
    /// What the client's gateway came to.
    gateway: Option<Arc<GatewayResources>>,
    waker: Option<Waker>,
    /// Since when something waits for the client.
    owed_since: Option<Instant>,
}

impl State {
    fn wake(&mut self) -> Option<Waker> {
        self.owed_since.get_or_insert_with(Instant::now);
        self.waker.take()
    }
}

impl Inbox {
    /// What changed. `waker` is woken by the next change.
    pub(super) fn take(&self, waker: &Waker) -> Heard {
        let mut state = self.state.lock();
        state.owed_since = None;
        if !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        Heard {
            news: std::mem::take(&mut state.news),
            moved: std::mem::take(&mut state.moved),
            gateway: state.gateway.take(),
        }
    }

    /// What was said of a resource before this moment counts no more.
    pub(super) fn forget(&self, kind: Kind, name: &Arc<str>) {
        self.state.lock().news.remove(kind, name);
    }

    /// The topology changed.
    pub(super) fn topology_moved(&self) {
        let waker = {
            let mut state = self.state.lock();
            state.moved = true;
            state.wake()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The stream has handed something to the transport, and has not been asked for more.
    pub(super) fn handed_over(&self) {
        self.state.lock().owed_since.get_or_insert_with(Instant::now);
    }

    /// For how long something has been waiting for the client, who takes nothing.
    pub(super) fn stalled_for(&self) -> Duration {
        self.state.lock().owed_since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Watcher for Inbox {
    fn changed(&self, kind: Kind, name: &Arc<str>, lookup: Lookup) {
        let waker = {
            let mut state = self.state.lock();
            state.news.insert((kind, name.clone()), lookup);
            state.wake()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl GatewayWatcher for Inbox {
    fn gateway_changed(&self, resources: Arc<GatewayResources>) {
        let waker = {
            let mut state = self.state.lock();
            state.gateway = Some(resources);
            state.wake()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
