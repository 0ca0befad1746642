//! The catalog at work: takes snapshots from the streams, wakes for timers, remembers plans on disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use portolan_federation::disk::Disk;
use portolan_federation::model::Remote;
use portolan_federation::net::Net;
use portolan_topology::names::{ClusterName, ServiceId, ServicePort};
use portolan_topology::policy::PolicySet;
use portolan_topology::service::LocalServices;
use portolan_topology::topology::Topology;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::core::{Core, Explanation, Listed};
use super::distinct::Duplicate;
use super::served::{Catalog, Query, Served};
use super::{Demand, Inputs, gateways, memory};

/// How long changes to plans gather before they are written.
const SAVE_AFTER: Duration = Duration::from_secs(2);

/// Where the catalog's inputs come from.
#[derive(Debug, Clone)]
pub struct Streams {
    /// The topology in force.
    pub topology: watch::Receiver<Arc<Topology>>,
    /// What our own source shows.
    pub local: watch::Receiver<Arc<LocalServices>>,
    /// What the other clusters tell.
    pub remote: watch::Receiver<Arc<Remote>>,
    /// The policy objects; `None` until they are loaded.
    pub policy: watch::Receiver<Option<Arc<PolicySet>>>,
    /// What our own clients ask for.
    pub demand: watch::Receiver<Arc<Demand>>,
}

/// The catalog of one control plane.
pub struct LiveCatalog {
    cluster: ClusterName,
    core: Mutex<Core>,
    clock: Clock,
    wanted: watch::Sender<BTreeSet<ServicePort>>,
    /// A question came: timers and wanted lists may have changed.
    asked: Notify,
    disk: Arc<dyn Disk>,
}

/// Wall time that never jumps: the wall clock as it was at the start, advanced by tokio's.
struct Clock {
    origin: Duration,
    started: Instant,
}

impl Clock {
    fn now(&self) -> Duration {
        self.origin + self.started.elapsed()
    }
}

impl LiveCatalog {
    /// A catalog over what the streams hold now, going on from the plans that `disk` remembers. `wall` is the wall
    /// clock now. It stands still until [`LiveCatalog::run`] drives it.
    pub fn new(cluster: ClusterName, streams: &Streams, disk: Arc<dyn Disk>, wall: Timestamp) -> Arc<Self> {
        let clock =
            Clock { origin: Duration::try_from(wall.as_duration()).unwrap_or_default(), started: Instant::now() };
        let remembered = memory::load(disk.as_ref()).unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "{error}");
            HashMap::new()
        });
        let inputs = Inputs {
            cluster: cluster.clone(),
            topology: streams.topology.borrow().clone(),
            local: streams.local.borrow().clone(),
            remote: streams.remote.borrow().clone(),
            policy: streams.policy.borrow().clone(),
            demand: streams.demand.borrow().clone(),
            gateways: Arc::default(),
        };
        let core = Mutex::new(Core::new(inputs, remembered, clock.now()));
        let wanted = watch::channel(BTreeSet::new()).0;
        Arc::new(Self { cluster, core, clock, wanted, asked: Notify::new(), disk })
    }

    /// The endpoint lists of other clusters that plans need.
    #[must_use]
    pub fn wanted(&self) -> watch::Receiver<BTreeSet<ServicePort>> {
        self.wanted.subscribe()
    }

    /// What a client is served under `query`, or would be; `None` if the name means nothing.
    #[must_use]
    pub fn explain(&self, query: &Query) -> Option<Explanation> {
        self.core.lock().explain(query, self.clock.now())
    }

    /// The endpoints that are here of what `query` names, and its port; `None` if it means nothing.
    #[must_use]
    pub fn endpoints(&self, query: &Query) -> Option<Listed> {
        self.core.lock().endpoints(query, self.clock.now())
    }

    /// The addresses that stand in two localities, by service.
    #[must_use]
    pub fn duplicates(&self) -> BTreeMap<ServiceId, BTreeSet<Duplicate>> {
        self.core.lock().duplicates()
    }

    /// The services that somebody asks for.
    #[must_use]
    pub fn watched(&self) -> BTreeSet<ServiceId> {
        self.core.lock().watched()
    }

    /// The snapshots that answers are made from.
    #[must_use]
    pub fn inputs(&self) -> Inputs {
        self.core.lock().inputs().clone()
    }

    /// Answers anew whenever something changes, until `shutdown`. Plans are on disk when it returns.
    pub async fn run(self: Arc<Self>, mut streams: Streams, net: Arc<dyn Net>, shutdown: CancellationToken) {
        let (resolved, mut gateways) = watch::channel(Arc::default());
        let resolver = gateways::run(self.cluster.clone(), net, streams.topology.clone(), resolved);
        let _resolver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(resolver));
        let mut save: Option<Instant> = None;
        loop {
            let timer = self.next_tick();
            let changed = tokio::select! {
                () = shutdown.cancelled() => break,
                true = next(&mut streams.local) => true,
                true = next(&mut streams.remote) => true,
                true = next(&mut streams.policy) => true,
                true = next(&mut streams.topology) => true,
                true = next(&mut streams.demand) => true,
                true = next(&mut gateways) => true,
                () = self.asked.notified() => false,
                () = tokio::time::sleep_until(timer) => {
                    self.core.lock().tick(self.clock.now());
                    false
                }
                () = sleep_until(save) => {
                    save = None;
                    self.save().await;
                    continue;
                }
            };
            if changed {
                let inputs = Inputs {
                    cluster: self.cluster.clone(),
                    topology: streams.topology.borrow_and_update().clone(),
                    local: streams.local.borrow_and_update().clone(),
                    remote: streams.remote.borrow_and_update().clone(),
                    policy: streams.policy.borrow_and_update().clone(),
                    demand: streams.demand.borrow_and_update().clone(),
                    gateways: gateways.borrow_and_update().clone(),
                };
                self.core.lock().update(inputs, self.clock.now());
            }
            let wanted = self.core.lock().wanted();
            self.wanted.send_if_modified(|current| {
                let differs = *current != wanted;
                *current = wanted;
                differs
            });
            save.get_or_insert_with(|| Instant::now() + SAVE_AFTER);
        }
        self.save().await;
    }

    fn next_tick(&self) -> Instant {
        let now = self.clock.now();
        let at = self.core.lock().next_tick(now);
        Instant::now() + at.saturating_sub(now)
    }

    async fn save(&self) {
        let plans = self.core.lock().to_remember(self.clock.now());
        let disk = self.disk.clone();
        let saved = tokio::task::spawn_blocking(move || memory::save(disk.as_ref(), plans)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(error = &error as &dyn std::error::Error, "{error}");
        }
    }
}

impl Catalog for LiveCatalog {
    fn watch(&self, query: Query) -> watch::Receiver<Served> {
        let receiver = self.core.lock().watch(query, self.clock.now());
        self.asked.notify_one();
        receiver
    }
}

/// Waits for the next value. A stream whose sender is gone has said its last word: it is never ready again.
async fn next<T>(stream: &mut watch::Receiver<T>) -> bool {
    match stream.changed().await {
        Ok(()) => true,
        Err(_) => pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}
