//! The `files` source: watches a folder of manifests. The file system's events make it look soon, and a look at every
//! few seconds makes up for events that were lost.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::Source;
use super::folder::{Folder, Listing};

/// A file is read once the folder has been quiet for this long: a write in several parts is seen whole.
const QUIET: Duration = Duration::from_millis(20);
/// A folder that is never quiet is read this often.
const NEVER_QUIET: Duration = Duration::from_millis(200);
/// How often the folder is read without an event.
const RESCAN: Duration = Duration::from_secs(2);

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
        let (events, seen) = mpsc::channel(1);
        // The watch begins before the first look, so that nothing falls between the two.
        let watcher = watch_folder(&folder, &events);
        let mut state = Folder::new(folder.display().to_string());
        state = look(state, folder.clone()).await;
        let (services, services_out) = watch::channel(Arc::new(state.services()));
        let (status, status_out) = watch::channel(Arc::new(state.status()));
        let source = Source { services: services_out, status: status_out };
        let task = tokio::spawn(run(folder, state, (events, seen), watcher, services, status));
        Ok(Self { source, _task: AbortOnDropHandle::new(task) })
    }

    /// What it shows.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source.clone()
    }
}

async fn run(
    folder: PathBuf,
    mut state: Folder,
    (events, mut seen): (mpsc::Sender<()>, mpsc::Receiver<()>),
    mut watcher: Option<RecommendedWatcher>,
    services: watch::Sender<Arc<portolan_topology::service::LocalServices>>,
    status: watch::Sender<Arc<super::SourceStatus>>,
) {
    let mut inode = identity(&folder);
    loop {
        // `events` is held here, so `seen` never ends.
        if let Ok(Some(())) = tokio::time::timeout(RESCAN, seen.recv()).await {
            let deadline = Instant::now() + NEVER_QUIET;
            while let Ok(Some(())) = tokio::time::timeout_at(deadline.min(Instant::now() + QUIET), seen.recv()).await {}
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
fn watch_folder(folder: &Path, events: &mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let events = events.clone();
    let handler = move |event: notify::Result<notify::Event>| {
        // Our own reading is an event, too. A full channel holds one that will be heard.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            let _ = events.try_send(());
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
        for refused in state.take(list(&folder).map_err(|error| format!("{}: {error}", folder.display()))) {
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

/// Reads every manifest of the folder. Hidden files are left out, as are subfolders.
fn list(folder: &Path) -> io::Result<Listing> {
    let mut listing = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let is_manifest =
            path.extension().and_then(|end| end.to_str()).is_some_and(|end| matches!(end, "yaml" | "yml" | "json"));
        if name.starts_with('.') || !is_manifest {
            continue;
        }
        match std::fs::read(&path) {
            Ok(bytes) => {
                listing.insert(name.to_owned(), Ok(bytes));
            }
            // Gone since it was listed, or a folder with a file's name.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => {}
            Err(error) => {
                listing.insert(name.to_owned(), Err(format!("{}: {error}", path.display())));
            }
        }
    }
    Ok(listing)
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

    #[tokio::test]
    async fn a_folder_that_does_not_exist_is_refused() {
        let error = FilesSource::start("/nowhere/at/all".into()).await.unwrap_err().to_string();
        assert!(error.starts_with("--source files:/nowhere/at/all: cannot read the folder"), "{error}");
    }
}
