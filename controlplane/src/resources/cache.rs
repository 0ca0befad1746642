//! Builds and encodes each resource once per key, keeps it current while somebody watches it, and tells exactly those
//! who do when its content changes.
//!
//! A *topic* is one question to the catalog and every resource that is made from its answer and from the routes of its
//! service. A change of either costs one build for each of those resources that it may concern, and one call for each
//! watcher of those that differ.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use portolan_topology::names::{ClusterName, Locality, ServiceId};
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use super::build::{Routes, build, is_unmoved};
use super::class::ClientClass;
use super::name::ResourceName;
use super::{Kind, Lookup};
use crate::catalog::served::{Catalog, Query, Served};
use crate::gateway::plan::ServiceRoutes;

/// Watchers that are told before those of them that were woken run: few, so that the first need not wait until thousands
/// have heard, and what they make is sent while it is still in the processor's cache; enough for a connection's streams
/// to write together.
const PORTION: usize = 128;

/// Somebody who wants to hear of changes. It is called from the task that made the change: it must not wait.
pub trait Watcher: Send + Sync + 'static {
    /// The resource `name` of `kind` is `lookup` from now on.
    fn changed(&self, kind: Kind, name: &Arc<str>, lookup: Lookup);
}

/// Encoded resources by (kind, name, client's place, client's class). Clones are the same cache.
#[derive(Clone)]
pub struct ResourceCache {
    shared: Arc<Shared>,
}

struct Shared {
    catalog: Arc<dyn Catalog>,
    topics: Mutex<HashMap<Query, Arc<Topic>>>,
    routes: Mutex<RoutesKnown>,
    encodes: AtomicU64,
    watches: AtomicU64,
}

/// The routes of services, as far as they are known.
enum RoutesKnown {
    NotYet,
    /// Of this cluster's clients; of any others nothing is known, and they get the services as they are.
    Of(Option<ClusterName>, BTreeMap<ServiceId, Arc<ServiceRoutes>>),
}

impl RoutesKnown {
    fn of(&self, query: &Query) -> Routes {
        match self {
            Self::NotYet => Routes::NotYet,
            Self::Of(Some(cluster), services) if *cluster == query.client.cluster => {
                services.get(&query.service).map_or(Routes::None, |routes| Routes::These(routes.clone()))
            }
            Self::Of(..) => Routes::None,
        }
    }
}

struct Topic {
    query: Query,
    cache: Weak<Shared>,
    /// The routes of its service may have changed.
    rerouted: Arc<Notify>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None` until somebody has asked the catalog.
    source: Option<Source>,
    resources: HashMap<Key, Resource>,
    /// Nobody watched it any more, and it is in the cache no longer.
    closed: bool,
}

struct Source {
    latest: Served,
    routes: Routes,
    _follower: AbortOnDropHandle<()>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    kind: Kind,
    name: Arc<str>,
    class: ClientClass,
}

struct Resource {
    parsed: ResourceName,
    current: Lookup,
    /// In the order of their coming: streams of one connection often stand together.
    watchers: BTreeMap<u64, Arc<dyn Watcher>>,
}

/// A resource that somebody wants.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Its kind.
    pub kind: Kind,
    /// Its name, as asked.
    pub name: &'a Arc<str>,
    /// Where the client is.
    pub client: &'a Locality,
    /// What the client is.
    pub class: ClientClass,
}

/// Keeps a watcher informed until it is dropped.
pub struct Watch {
    topic: Arc<Topic>,
    key: Key,
    number: u64,
}

impl ResourceCache {
    /// A cache of what `catalog` comes to.
    #[must_use]
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        let shared = Shared {
            catalog,
            topics: Mutex::default(),
            routes: Mutex::new(RoutesKnown::Of(None, BTreeMap::new())),
            encodes: AtomicU64::new(0),
            watches: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// From now on it is not known which services have routes: nothing is said of where calls go, and nothing taken back.
    pub fn withhold_routes(&self) {
        self.shared.reroute(RoutesKnown::NotYet);
    }

    /// The routes of all services that have any, for the clients of `cluster`. Until the first call there are none.
    pub fn replace_routes(&self, cluster: &ClusterName, routes: BTreeMap<ServiceId, Arc<ServiceRoutes>>) {
        self.shared.reroute(RoutesKnown::Of(Some(cluster.clone()), routes));
    }

    /// The routes of a service, as our own cluster's clients are told them.
    #[must_use]
    pub fn routes(&self, service: &ServiceId) -> Option<Arc<ServiceRoutes>> {
        match &*self.shared.routes.lock() {
            RoutesKnown::NotYet => None,
            RoutesKnown::Of(_, services) => services.get(service).cloned(),
        }
    }

    /// What `wanted` is now. `watcher` hears of every change from then on, until the [`Watch`] is dropped. `None`
    /// instead of one: no service has such a name, so that nothing will change.
    pub fn watch(&self, wanted: Wanted<'_>, watcher: &Arc<dyn Watcher>) -> (Lookup, Option<Watch>) {
        let Wanted { kind, name, client, class } = wanted;
        let Ok(parsed) = name.parse::<ResourceName>() else {
            return (build(kind, name, None, &Served::Absent, &Routes::None, class), None);
        };
        let query = parsed.query(client.clone());
        // All classes get the same endpoints.
        let class = if kind == Kind::Eds { ClientClass::Unknown } else { class };
        let key = Key { kind, name: name.clone(), class };
        loop {
            let topic = self.shared.topic(&query);
            let mut state = topic.state.lock();
            if state.closed {
                continue;
            }
            let source = state.source.get_or_insert_with(|| topic.ask(&self.shared));
            let (served, routes) = (source.latest.clone(), source.routes.clone());
            let resource = state.resources.entry(key.clone()).or_insert_with(|| {
                let current = self.shared.build(&key, &parsed, &served, &routes);
                Resource { parsed, current, watchers: BTreeMap::new() }
            });
            let lookup = resource.current.clone();
            let number = self.shared.watches.fetch_add(1, Ordering::Relaxed);
            resource.watchers.insert(number, watcher.clone());
            drop(state);
            return (lookup, Some(Watch { topic, key, number }));
        }
    }

    /// How many resources were encoded since the start.
    #[must_use]
    pub fn encodes(&self) -> u64 {
        self.shared.encodes.load(Ordering::Relaxed)
    }

    /// How many resources somebody watches.
    #[must_use]
    pub fn len(&self) -> usize {
        let topics: Vec<_> = self.shared.topics.lock().values().cloned().collect();
        topics.iter().map(|topic| topic.state.lock().resources.len()).sum()
    }

    /// Whether nobody watches anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Shared {
    fn topic(self: &Arc<Self>, query: &Query) -> Arc<Topic> {
        let mut topics = self.topics.lock();
        if let Some(topic) = topics.get(query) {
            return topic.clone();
        }
        let topic = Topic {
            query: query.clone(),
            cache: Arc::downgrade(self),
            rerouted: Arc::default(),
            state: Mutex::default(),
        };
        topics.entry(query.clone()).or_insert(Arc::new(topic)).clone()
    }

    /// Takes over routes, and has the topics look at theirs that they may concern.
    fn reroute(&self, now: RoutesKnown) {
        let before = std::mem::replace(&mut *self.routes.lock(), now);
        // A topic that comes after this looks at the new ones from the begin.
        let topics: Vec<_> = self.topics.lock().values().cloned().collect();
        for topic in topics {
            if before.of(&topic.query) != self.routes.lock().of(&topic.query) {
                topic.rerouted.notify_one();
            }
        }
    }

    fn build(&self, key: &Key, parsed: &ResourceName, served: &Served, routes: &Routes) -> Lookup {
        let lookup = build(key.kind, &key.name, Some(parsed), served, routes, key.class);
        if matches!(lookup, Lookup::Present(_) | Lookup::Absent(Some(_))) {
            self.encodes.fetch_add(1, Ordering::Relaxed);
        }
        lookup
    }
}

impl Topic {
    fn ask(self: &Arc<Self>, cache: &Shared) -> Source {
        let mut slot = cache.catalog.watch(self.query.clone());
        let latest = slot.borrow_and_update().clone();
        let routes = cache.routes.lock().of(&self.query);
        let follower = tokio::spawn(follow(Arc::downgrade(self), slot, self.rerouted.clone()));
        Source { latest, routes, _follower: AbortOnDropHandle::new(follower) }
    }

    /// Takes over a new answer and the routes as they now are. Gives what became different, and who must hear of it.
    fn take(&self, served: Served) -> Vec<News> {
        let Some(cache) = self.cache.upgrade() else { return Vec::new() };
        let mut news = Vec::new();
        let mut state = self.state.lock();
        let State { source: Some(source), resources, .. } = &mut *state else { return news };
        let routes = cache.routes.lock().of(&self.query);
        let before = std::mem::replace(&mut source.latest, served);
        let same_routes = std::mem::replace(&mut source.routes, routes) == source.routes;
        for (key, resource) in resources.iter_mut() {
            if is_unmoved(key.kind, &before, &source.latest) && (same_routes || key.kind != Kind::Rds) {
                continue;
            }
            let current = cache.build(key, &resource.parsed, &source.latest, &source.routes);
            // Most changes leave most resources as they were: then everybody goes on sharing the old bytes.
            if current != resource.current {
                resource.current = current.clone();
                let watchers = resource.watchers.values().cloned().collect();
                news.push(News { key: key.clone(), current, watchers });
            }
        }
        news
    }
}

/// A resource that became different.
struct News {
    key: Key,
    current: Lookup,
    watchers: Vec<Arc<dyn Watcher>>,
}

/// Not under the topic's lock: thousands may be told. The next change comes from the same task, so the order holds.
async fn tell(news: Vec<News>) {
    // Who watches a cluster and its endpoints should hear of both before it answers.
    let one_kind = news.windows(2).all(|pair| pair[0].key.kind == pair[1].key.kind);
    for News { key, current, watchers } in news {
        for portion in watchers.chunks(PORTION) {
            for watcher in portion {
                watcher.changed(key.kind, &key.name, current.clone());
            }
            if one_kind && portion.len() == PORTION {
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn follow(topic: Weak<Topic>, mut slot: watch::Receiver<Served>, rerouted: Arc<Notify>) {
    loop {
        tokio::select! {
            () = changed(&mut slot) => {}
            () = rerouted.notified() => {}
        }
        let Some(topic) = topic.upgrade() else { return };
        let served = slot.borrow_and_update().clone();
        tell(topic.take(served)).await;
    }
}

/// Waits for the next value. A catalog that let go of the slot will say nothing more; what it said stands.
async fn changed(slot: &mut watch::Receiver<Served>) {
    if slot.changed().await.is_err() {
        std::future::pending().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let is_empty = {
            let mut state = self.topic.state.lock();
            if let Some(resource) = state.resources.get_mut(&self.key) {
                resource.watchers.remove(&self.number);
                if resource.watchers.is_empty() {
                    state.resources.remove(&self.key);
                }
            }
            state.resources.is_empty()
        };
        let Some(cache) = self.topic.cache.upgrade().filter(|_| is_empty) else { return };
        let mut topics = cache.topics.lock();
        let mut state = self.topic.state.lock();
        // Somebody may have come in between.
        if state.resources.is_empty() && !state.closed {
            state.closed = true;
            state.source = None;
            topics.remove(&self.topic.query);
        }
    }
}

impl std::fmt::Debug for ResourceCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResourceCache").field("resources", &self.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("key", &self.key).finish_non_exhaustive()
    }
}
