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

/// The kinds that cannot be watched for want of rights, in words; shared by a node's mirrors.
#[derive(Debug, Clone)]
pub(crate) struct Forbidden(Arc<watch::Sender<BTreeMap<String, String>>>);

impl Default for Forbidden {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }
}

impl Forbidden {
    /// Them, by the names that RBAC has for them.
    pub(crate) fn kinds(&self) -> watch::Receiver<BTreeMap<String, String>> {
        self.0.subscribe()
    }

    fn set(&self, kind: &str, why: Option<String>) {
        self.0.send_if_modified(|all| match why {
            Some(why) => all.insert(kind.to_owned(), why.clone()).as_ref() != Some(&why),
            None => all.remove(kind).is_some(),
        });
    }
}

/// What one mirror says there. It says nothing any more when it goes.
struct Entry {
    kind: String,
    forbidden: Forbidden,
}

impl Entry {
    fn set(&self, status: Option<&kube::core::Status>) {
        let why = status
            .map(|status| format!("{} are forbidden: allow list and watch by RBAC ({})", self.kind, status.message));
        self.forbidden.set(&self.kind, why);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.forbidden.set(&self.kind, None);
    }
}

/// As RBAC names the kind behind a path: `/apis/portolan.dev/v1alpha1/drains` is `drains.portolan.dev`.
fn kind_of(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["", "apis", group, _, .., plural] => format!("{plural}.{group}"),
        [.., plural] => (*plural).to_owned(),
        [] => path.to_owned(),
    }
}

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
    /// One that RBAC forbids is told of in `forbidden`.
    pub(crate) fn start<K>(
        api: Api<K>,
        config: watcher::Config,
        forbidden: &Forbidden,
        project: fn(K) -> Option<T>,
    ) -> Self
    where
        K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (sender, slot) = watch::channel(Arc::default());
        let what = api.resource_url().to_owned();
        let entry = Entry { kind: kind_of(&what), forbidden: forbidden.clone() };
        let task = tokio::spawn(follow(api, config, project, sender, entry));
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
    entry: Entry,
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
                if let Some(status) = refusal(&error) {
                    entry.set(Some(status).filter(|status| status.is_forbidden()));
                }
                match &error {
                    _ if failing => {}
                    // A kind whose definition is not installed: it may come.
                    watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404 => {
                        tracing::info!(kind = entry.kind, "the API server has no such kind; it is asked again");
                    }
                    error => tracing::warn!(kind = entry.kind, %error, "the watch fails; the last state stands"),
                }
                false
            }
        };
        failing = failed;
        if synced {
            entry.set(None);
            slot.send_replace(Arc::new(Mirrored { synced, objects: current.clone() }));
        }
    }
}

/// What the API server answered instead.
fn refusal(error: &watcher::Error) -> Option<&kube::core::Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status),
        watcher::Error::WatchError(status) => Some(status),
        _ => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_named_as_rbac_names_it() {
        assert_eq!(kind_of("/apis/portolan.dev/v1alpha1/drains"), "drains.portolan.dev");
        assert_eq!(kind_of("/api/v1/namespaces"), "namespaces");
    }

    #[test]
    fn a_mirror_that_goes_takes_back_what_it_said() {
        let forbidden = Forbidden::default();
        let entry = Entry { kind: "drains.portolan.dev".into(), forbidden: forbidden.clone() };
        entry.set(Some(&kube::core::Status { message: "no".into(), ..kube::core::Status::default() }));
        let said = forbidden.kinds().borrow()["drains.portolan.dev"].clone();
        assert_eq!(said, "drains.portolan.dev are forbidden: allow list and watch by RBAC (no)");
        drop(entry);
        assert!(forbidden.kinds().borrow().is_empty());
    }
}
