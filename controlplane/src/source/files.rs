//! The `files` source: watches a folder of manifests. The file system's events make it look soon, and a look at every
//! few seconds makes up for events that were lost.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use portolan_topology::service::LocalServices;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::folder::{Folder, Listing};
use super::{Source, SourceStatus};
use crate::gateway::objects::GatewayObjects;

/// Events that may wait while the folder is read. One that finds no room is made up for by those before it.
const EVENTS: usize = 64;
/// A file is read once the folder has been quiet for this long: a write in several parts is seen whole. One that was
/// renamed into its place is whole already.
const QUIET: Duration = Duration::from_millis(20);
/// A folder that is never quiet is read this often.
const NEVER_QUIET: Duration = Duration::from_millis(200);
/// How often the folder is read without an event.
const RESCAN: Duration = Duration::from_secs(2);

/// What happened in the folder, as far as it concerns what is read of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// A file came into its place with all that it holds.
    Whole,
    /// Anything else: there may be more to come.
    Part,
}

impl Event {
    fn of(folder: &Path, event: notify::Result<notify::Event>) -> Option<Self> {
        let Ok(event) = event else { return Some(Self::Part) };
        let is_beside = |path: &PathBuf| path.parent() == Some(folder) && !is_manifest(path);
        match event.kind {
            // Our own reading is an event, too, and `Both` repeats what `From` and `To` said.
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => None,
            // Of any name: a volume of Kubernetes swaps the folder that its files lead to.
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Self::Whole),
            // A file on its way, under a name that is not read.
            _ if !event.paths.is_empty() && event.paths.iter().all(is_beside) => None,
            _ => Some(Self::Part),
        }
    }
}

/// Why the folder cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// It cannot be listed at the start.
    #[error("--source files:{}: cannot read the folder: {source}", folder.display())]
    Unreadable {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A running source; dropping it ends it.
#[derive(Debug)]
pub struct FilesSource {
    source: Source,
    _task: AbortOnDropHandle<()>,
}

impl FilesSource {
    /// Reads the folder once, and watches it from then on.
    pub async fn start(folder: PathBuf) -> Result<Self, FilesError> {
        let unreadable = |source| FilesError::Unreadable { folder: folder.clone(), source };
        std::fs::read_dir(&folder).map_err(unreadable)?;
        let (events, seen) = mpsc::channel(EVENTS);
        // The watch begins before the first look, so that nothing falls between the two.
        let watcher = watch_folder(&folder, &events);
        let mut state = Folder::new(folder.display().to_string());
        state = look(state, folder.clone()).await;
        let (services, services_out) = watch::channel(Arc::new(state.services()));
        let (status, status_out) = watch::channel(Arc::new(state.status()));
        let (gateways, gateways_out) = watch::channel(state.gateways());
        let source = Source { services: services_out, gateways: gateways_out, status: status_out };
        let shown = Shown { services, gateways, status };
        let task = tokio::spawn(run(folder, state, (events, seen), watcher, shown));
        Ok(Self { source, _task: AbortOnDropHandle::new(task) })
    }

    /// What it shows.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source.clone()
    }
}

/// What the source shows.
struct Shown {
    services: watch::Sender<Arc<LocalServices>>,
    gateways: watch::Sender<Arc<GatewayObjects>>,
    status: watch::Sender<Arc<SourceStatus>>,
}

async fn run(
    folder: PathBuf,
    mut state: Folder,
    (events, mut seen): (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    mut watcher: Option<RecommendedWatcher>,
    Shown { services, gateways, status }: Shown,
) {
    let mut inode = identity(&folder);
    loop {
        // `events` is held here, so `seen` never ends.
        if let Ok(Some(event)) = tokio::time::timeout(RESCAN, seen.recv()).await {
            // What has come until now is all read by the next look.
            let mut whole = event == Event::Whole;
            while let Ok(event) = seen.try_recv() {
                whole &= event == Event::Whole;
            }
            let deadline = Instant::now() + NEVER_QUIET;
            let quiet = || deadline.min(Instant::now() + QUIET);
            while !whole && matches!(tokio::time::timeout_at(quiet(), seen.recv()).await, Ok(Some(_))) {}
        }
        // A folder that was replaced under its name has a new identity, and the old watch is deaf.
        let now = identity(&folder);
        if watcher.is_none() || now != inode {
            watcher = watch_folder(&folder, &events);
            inode = now;
        }
        state = look(state, folder.clone()).await;
        let shown = state.services();
        services.send_if_modified(|current| {
            let differs = **current != shown;
            if differs {
                *current = Arc::new(shown);
            }
            differs
        });
        let shown = state.gateways();
        gateways.send_if_modified(|current| {
            let differs = *current != shown;
            *current = shown;
            differs
        });
        let shown = state.status();
        status.send_if_modified(|current| {
            let differs = **current != shown;
            if differs {
                *current = Arc::new(shown);
            }
            differs
        });
    }
}

/// Watches the folder; `None` where that cannot be done: the regular look must do.
fn watch_folder(folder: &Path, events: &mpsc::Sender<Event>) -> Option<RecommendedWatcher> {
    let (events, own) = (events.clone(), folder.to_owned());
    let handler = move |event| {
        if let Some(event) = Event::of(&own, event) {
            // A full channel holds some that will be heard.
            let _ = events.try_send(event);
        }
    };
    let watched = notify::recommended_watcher(handler)
        .and_then(|mut watcher| watcher.watch(folder, RecursiveMode::NonRecursive).map(|()| watcher));
    watched
        .inspect_err(|error| {
            let (folder, every) = (folder.display(), RESCAN.as_secs());
            tracing::warn!(%folder, %error, "cannot watch the folder; it is read every {every} s");
        })
        .ok()
}

#[cfg(unix)]
fn identity(folder: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(folder).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(folder: &Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(folder).ok()?.created().ok()
}

async fn look(mut state: Folder, folder: PathBuf) -> Folder {
    // Reading and parsing block; a panic in there would be a bug of ours, and is passed on.
    let looked = tokio::task::spawn_blocking(move || {
        let listing = list(&folder).map_err(|error| format!("{}: {error}", folder.display()));
        for refused in state.take(listing) {
            tracing::warn!("{refused}\nThe last good content stands.");
        }
        state
    });
    match looked.await {
        Ok(state) => state,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and we with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Whether a file of this name is read. Hidden ones are not.
fn is_manifest(path: &Path) -> bool {
    let end = path.extension().and_then(|end| end.to_str());
    let is_hidden = path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with('.'));
    !is_hidden && matches!(end, Some("yaml" | "yml" | "json"))
}

/// The folder's manifests, sorted; each is read when its turn comes, so that they are never all in memory. Subfolders
/// are left out.
fn list(folder: &Path) -> io::Result<Listing> {
    let mut names = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| is_manifest(&path)) {
            names.insert(name.to_owned(), path);
        }
    }
    Ok(Box::new(names.into_iter().filter_map(|(name, path)| match std::fs::read(&path) {
        Ok(bytes) => Some((name, Ok(bytes))),
        // Gone since it was listed, or a folder with a file's name.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => None,
        Err(error) => Some((name, Err(format!("{}: {error}", path.display())))),
    })))
}

#[cfg(test)]
mod tests {
    use portolan_topology::service::Health;

    use super::*;

    const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: checkout, namespace: shop}
spec: {ports: [{port: 8080}]}
";

    fn slice(ready: bool) -> String {
        format!(
            "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: checkout-1, namespace: shop, labels: {{kubernetes.io/service-name: checkout}}}}
addressType: IPv4
ports: [{{port: 9090}}]
endpoints:
- {{addresses: [10.0.0.1], zone: z-1, conditions: {{ready: {ready}}}}}
"
        )
    }

    async fn health(source: &mut Source, wanted: Option<Health>) {
        let is_so = |services: &Arc<portolan_topology::service::LocalServices>| {
            let endpoints = services.services.values().flat_map(|service| service.endpoints.values());
            let mut endpoints = endpoints.flat_map(|zones| zones.values().flatten());
            endpoints.next().map(|endpoint| endpoint.health) == wanted
        };
        tokio::time::timeout(Duration::from_secs(20), source.services.wait_for(is_so)).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn changes_removals_and_broken_files_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("service.yaml"), SERVICE).unwrap();
        std::fs::write(at("slice.yaml"), slice(true)).unwrap();
        let files = FilesSource::start(folder.path().to_owned()).await.unwrap();
        let mut source = files.source();
        assert!(source.services.borrow().synced);
        health(&mut source, Some(Health::Ready)).await;

        std::fs::write(at("slice.yaml"), slice(false)).unwrap();
        health(&mut source, Some(Health::NotReady)).await;

        std::fs::write(at("slice.yaml"), "kind: [").unwrap();
        let wait = source.status.wait_for(|status| status.errors.keys().any(|file| file.ends_with("slice.yaml")));
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap().unwrap();
        health(&mut source, Some(Health::NotReady)).await;

        // As editors and `kubectl` do: a new file in the place of the old.
        std::fs::write(at("slice.tmp"), slice(true)).unwrap();
        std::fs::rename(at("slice.tmp"), at("slice.yaml")).unwrap();
        health(&mut source, Some(Health::Ready)).await;
        assert!(source.status.borrow().errors.is_empty());

        std::fs::remove_file(at("slice.yaml")).unwrap();
        health(&mut source, None).await;
        assert_eq!(source.services.borrow().services.len(), 1);
    }

    #[tokio::test]
    async fn a_folder_that_vanishes_takes_nothing_with_it() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("manifests");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("all.yaml"), format!("{SERVICE}---\n{}", slice(true))).unwrap();
        let files = FilesSource::start(folder.clone()).await.unwrap();
        let mut source = files.source();
        std::fs::rename(&folder, root.path().join("elsewhere")).unwrap();
        let name = folder.display().to_string();
        let wait = source.status.wait_for(|status| status.errors.contains_key(&name));
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap().unwrap();
        health(&mut source, Some(Health::Ready)).await;

        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("all.yaml"), format!("{SERVICE}---\n{}", slice(false))).unwrap();
        health(&mut source, Some(Health::NotReady)).await;
    }

    #[test]
    fn a_file_that_comes_whole_waits_for_nothing_and_others_do() {
        use notify::event::{AccessKind, CreateKind, DataChange, Flag, RemoveKind};

        let happens = |kind, path: &str| Event::of(Path::new("/m"), Ok(notify::Event::new(kind).add_path(path.into())));
        let (create, write) =
            (EventKind::Create(CreateKind::File), EventKind::Modify(ModifyKind::Data(DataChange::Any)));
        let rename = |mode| EventKind::Modify(ModifyKind::Name(mode));
        assert_eq!(happens(create, "/m/a.yaml"), Some(Event::Part));
        assert_eq!(happens(write, "/m/a.json"), Some(Event::Part));
        assert_eq!(happens(create, "/m/a.yaml.tmp"), None);
        assert_eq!(happens(write, "/m/.a.yaml"), None);
        assert_eq!(happens(rename(RenameMode::From), "/m/a.yaml.tmp"), None);
        assert_eq!(happens(rename(RenameMode::To), "/m/a.yaml"), Some(Event::Whole));
        assert_eq!(happens(rename(RenameMode::To), "/m/..data"), Some(Event::Whole));
        assert_eq!(happens(rename(RenameMode::Both), "/m/a.yaml"), None);
        assert_eq!(happens(rename(RenameMode::From), "/m/a.yaml"), Some(Event::Part));
        assert_eq!(happens(EventKind::Access(AccessKind::Any), "/m/a.yaml"), None);
        assert_eq!(happens(EventKind::Remove(RemoveKind::Folder), "/m"), Some(Event::Part));
        let overflow = notify::Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert_eq!(Event::of(Path::new("/m"), Ok(overflow)), Some(Event::Part));
    }

    #[tokio::test]
    async fn a_folder_that_does_not_exist_is_refused() {
        let error = FilesSource::start("/nowhere/at/all".into()).await.unwrap_err().to_string();
        assert!(error.starts_with("--source files:/nowhere/at/all: cannot read the folder"), "{error}");
    }
}
