//! The topology file: its shape, and its way to a checked [`Topology`].

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Topology;
use super::check::Checks;
use crate::diagnostic::{Diagnostics, Warning};
use crate::document::{self, Fields, List, Spanned};
use crate::duration::DurationText;
use crate::names::{ClusterName, NetworkName, RegionName, ZoneName};

/// The version of our objects.
pub const API_VERSION: &str = "portolan.dev/v1alpha1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct File {
    pub(super) api_version: Spanned<String>,
    pub(super) kind: Spanned<String>,
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
}

#[derive(Deserialize)]
pub(super) struct Metadata {
    pub(super) name: Spanned<String>,
}

#[derive(Deserialize)]
pub(super) struct Spec {
    pub(super) regions: Spanned<List<RegionEntry>>,
    #[serde(default)]
    pub(super) links: List<LinkEntry>,
    #[serde(default)]
    pub(super) failover: BTreeMap<Spanned<String>, Spanned<List<FailoverEntry>>>,
}

#[derive(Deserialize)]
pub(super) struct RegionEntry {
    pub(super) name: Spanned<RegionName>,
    pub(super) zones: Spanned<List<Spanned<ZoneName>>>,
    pub(super) clusters: Spanned<List<ClusterEntry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterEntry {
    pub(super) name: Spanned<ClusterName>,
    /// Text, not names: what is not a zone of the region is told as such, with the nearest that is.
    pub(super) zones: Option<Spanned<List<Spanned<String>>>>,
    pub(super) network: Option<NetworkName>,
    #[serde(default)]
    pub(super) gateways: List<Spanned<String>>,
    pub(super) control_plane: ControlPlaneEntry,
}

#[derive(Deserialize)]
pub(super) struct ControlPlaneEntry {
    pub(super) address: Spanned<String>,
    #[serde(default)]
    pub(super) voter: bool,
    #[serde(default)]
    pub(super) config: bool,
}

#[derive(Deserialize)]
pub(super) struct LinkEntry {
    pub(super) between: Spanned<[Spanned<String>; 2]>,
    pub(super) rtt: DurationText,
    pub(super) cost: Option<Spanned<f64>>,
    pub(super) symmetric: Option<bool>,
}

#[derive(Deserialize)]
pub(super) struct FailoverEntry {
    pub(super) region: Spanned<String>,
    pub(super) weight: u32,
}

impl Topology {
    /// Reads and checks a topology file, YAML or JSON. `file` is its name in messages.
    pub fn parse(file: &str, text: &str) -> Result<(Self, Vec<Warning>), Diagnostics> {
        let document = document::parse_one(file, text)?;
        let mut report = document.report();
        let topology =
            document.read_into(Fields::Known, &mut report).map(|file: File| Checks::new(&mut report).topology(file));
        let warnings = report.finish()?;
        match topology {
            Some(topology) => Ok((topology, warnings)),
            None => Err(document.refuse("the topology could not be read")),
        }
    }
}
