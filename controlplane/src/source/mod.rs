//! Sources: where a cluster's own services and endpoints come from. A source knows nothing of other clusters, policy or
//! clients; it hands over one immutable snapshot after another.

mod damped;
pub mod files;
mod flap;
mod folder;
pub mod kube;
pub mod manifest;
mod objects;

pub use damped::damped;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use portolan_topology::service::LocalServices;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::gateway::objects::GatewayObjects;

/// A running source.
#[derive(Debug, Clone)]
pub struct Source {
    /// What it shows.
    pub services: watch::Receiver<Arc<LocalServices>>,
    /// The objects that gateways are made from.
    pub gateways: watch::Receiver<Arc<GatewayObjects>>,
    /// How it is.
    pub status: watch::Receiver<Arc<SourceStatus>>,
}

/// How a source is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// What it reads, as given: `files:manifests`, `kube`.
    pub source: String,
    /// Whether the first complete listing has been read.
    pub synced: bool,
    /// Since when some of what it reads cannot be reached: what it shows of that is as old.
    pub silent_since: Option<Timestamp>,
    /// What is wrong now, by file, folder or type: the last good content of each stands.
    pub errors: BTreeMap<String, String>,
    /// What is odd but taken, by file.
    pub warnings: BTreeMap<String, String>,
}
