//! A watched kind as one immutable snapshot: whole from the first complete listing on, and the last state while the API
//! server is away.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// An object's namespace (empty: none) and name.
pub(crate) type Name = (String, String);

/// What is known of a kind.
#[derive(Debug)]
pub(crate) struct Mirrored<T> {
    /// Whether a listing was read completely: until then absence means nothing.
    pub(crate) synced: bool,
    /// What was made of each object.
    pub(crate) objects: BTreeMap<Name, Arc<T>>,
}

impl<T> Default for Mirrored<T> {
    fn default() -> Self {
        Self { synced: false, objects: BTreeMap::new() }
    }
}

/// A kind under watch, until it is dropped.
#[derive(Debug)]
pub(crate) struct Mirror<T> {
    slot: watch::Receiver<Arc<Mirrored<T>>>,
    _task: AbortOnDropHandle<()>,
}

impl<T: Send + Sync + 'static> Mirror<T> {
    /// Begins to watch. `project` takes from an object what is needed of it, so that memory does not grow with the rest;
    /// `None` leaves it out.
    pub(crate) fn start<K>(api: Api<K>, config: watcher::Config, project: fn(K) -> Option<T>) -> Self
    where
        K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (sender, slot) = watch::channel(Arc::default());
        let what = api.resource_url().to_owned();
        let task = tokio::spawn(follow(api, config, project, sender, what));
        Self { slot, _task: AbortOnDropHandle::new(task) }
    }

    /// What is known now.
    pub(crate) fn now(&mut self) -> Arc<Mirrored<T>> {
        self.slot.borrow_and_update().clone()
    }

    /// Returns when something else is known.
    pub(crate) async fn changed(&mut self) {
        if self.slot.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

async fn follow<K, T>(
    api: Api<K>,
    config: watcher::Config,
    project: fn(K) -> Option<T>,
    slot: watch::Sender<Arc<Mirrored<T>>>,
    what: String,
) where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut current: BTreeMap<Name, Arc<T>> = BTreeMap::new();
    let mut listing: BTreeMap<Name, Arc<T>> = BTreeMap::new();
    let mut failing = false;
    while let Some(event) = events.next().await {
        let failed = event.is_err();
        let synced = match event {
            Ok(watcher::Event::Init) => {
                listing.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                put(&mut listing, object, project);
                continue;
            }
            // A listing counts as a whole, or not at all.
            Ok(watcher::Event::InitDone) => {
                current = std::mem::take(&mut listing);
                true
            }
            Ok(watcher::Event::Apply(object)) => {
                put(&mut current, object, project);
                true
            }
            Ok(watcher::Event::Delete(object)) => {
                current.remove(&name_of(&object));
                true
            }
            Err(error) => {
                match &error {
                    _ if failing => {}
                    // A kind whose definition is not installed: it may come.
                    watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404 => {
                        tracing::info!(%what, "the API server has no such kind; it is asked again");
                    }
                    error => tracing::warn!(%what, %error, "the watch fails; the last state stands"),
                }
                false
            }
        };
        failing = failed;
        if synced {
            slot.send_replace(Arc::new(Mirrored { synced, objects: current.clone() }));
        }
    }
}

fn put<K: kube::Resource, T>(objects: &mut BTreeMap<Name, Arc<T>>, object: K, project: fn(K) -> Option<T>) {
    let name = name_of(&object);
    match project(object) {
        Some(projected) => objects.insert(name, Arc::new(projected)),
        None => objects.remove(&name),
    };
}

fn name_of<K: kube::Resource>(object: &K) -> Name {
    (object.namespace().unwrap_or_default(), object.name_any())
}
