//! The topology file, watched: a good one is swapped in whole, a bad one is refused and the old one stays.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portolan_topology::diagnostic::{Diagnostics, Warning, nearest, one_of};
use portolan_topology::names::ClusterName;
use portolan_topology::topology::Topology;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// How often the file is looked at: it is small, and looking finds every kind of replacement.
const LOOK: Duration = Duration::from_secs(1);

/// Why a topology file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// It cannot be read.
    #[error("{}: cannot read the topology file: {source}; see --topology", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is wrong.
    #[error(transparent)]
    Refused(#[from] Diagnostics),
    /// It does not have our cluster.
    #[error("{file}: it has no cluster `{cluster}`, which this control plane serves; expected {known}")]
    NotOurs {
        /// The file.
        file: String,
        /// Our cluster.
        cluster: ClusterName,
        /// The clusters that it has, and the one that may be meant.
        known: String,
    },
}

/// How the file is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopologyStatus {
    /// The file's name.
    pub file: String,
    /// Why the file as it is now was refused, if it was: the topology in force is an older one.
    pub error: Option<String>,
    /// What is probably not meant in the one in force.
    pub warnings: Vec<String>,
}

/// The watched file; dropping it ends the watch.
#[derive(Debug)]
pub struct TopologyFile {
    topology: watch::Receiver<Arc<Topology>>,
    status: watch::Receiver<Arc<TopologyStatus>>,
    _task: AbortOnDropHandle<()>,
}

impl TopologyFile {
    /// Reads the file, which must be good, and watches it from then on.
    pub fn start(file: PathBuf, cluster: ClusterName) -> Result<Self, TopologyError> {
        let name = file.display().to_string();
        let mut text = read(&file)?;
        let (topology, warnings) = check(&name, &text, &cluster)?;
        let status = status(&name, None, &warnings);
        let (topology_slot, topology) = watch::channel(Arc::new(topology));
        let (status_slot, status) = watch::channel(Arc::new(status));
        let task = tokio::spawn(async move {
            let mut refused = None;
            loop {
                tokio::time::sleep(LOOK).await;
                let looked = match read(&file) {
                    Ok(new) if new == text && refused.is_none() => continue,
                    Ok(new) => check(&name, &new, &cluster).map(|checked| (new, checked)),
                    Err(error) => Err(error),
                };
                match looked {
                    Ok((new, (topology, warnings))) => {
                        text = new;
                        refused = None;
                        status_slot.send_replace(Arc::new(self::status(&name, None, &warnings)));
                        if **topology_slot.borrow() != topology {
                            tracing::info!(hash = topology.short_hash(), "the topology has changed");
                            topology_slot.send_replace(Arc::new(topology));
                        }
                    }
                    Err(error) => {
                        let error = error.to_string();
                        if refused.as_ref() != Some(&error) {
                            tracing::warn!("{error}\nThe topology in force stays.");
                            let warnings = status_slot.borrow().warnings.clone();
                            let shown = TopologyStatus { file: name.clone(), error: Some(error.clone()), warnings };
                            status_slot.send_replace(Arc::new(shown));
                            refused = Some(error);
                        }
                    }
                }
            }
        });
        Ok(Self { topology, status, _task: AbortOnDropHandle::new(task) })
    }

    /// The topology in force.
    #[must_use]
    pub fn topology(&self) -> watch::Receiver<Arc<Topology>> {
        self.topology.clone()
    }

    /// How the file is.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<TopologyStatus>> {
        self.status.clone()
    }
}

/// Reads and checks a topology file. `cluster` must be in it.
pub fn check(file: &str, text: &str, cluster: &ClusterName) -> Result<(Topology, Vec<Warning>), TopologyError> {
    let (topology, warnings) = Topology::parse(file, text)?;
    if topology.cluster(cluster).is_none() {
        let names = || topology.clusters().map(|cluster| cluster.name.as_str());
        let mut known = one_of(names());
        if let Some(meant) = nearest(cluster.as_str(), names()) {
            known.push_str(&format!("; did you mean `{meant}`?"));
        }
        return Err(TopologyError::NotOurs { file: file.to_owned(), cluster: cluster.clone(), known });
    }
    Ok((topology, warnings))
}

/// The file's text.
pub fn read(file: &Path) -> Result<String, TopologyError> {
    std::fs::read_to_string(file).map_err(|source| TopologyError::Unreadable { file: file.to_owned(), source })
}

fn status(file: &str, error: Option<String>, warnings: &[Warning]) -> TopologyStatus {
    TopologyStatus { file: file.to_owned(), error, warnings: warnings.iter().map(ToString::to_string).collect() }
}
