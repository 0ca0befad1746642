//! What a drain, a fault or a question is about: `region=us-east`, `cluster=use1-a` or `zone=us-east-1a`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{ClusterName, Locality, NameError, RegionName, ZoneName};

/// Exactly one of a region, a cluster or a zone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// A whole region.
    Region(RegionName),
    /// A whole cluster.
    Cluster(ClusterName),
    /// A zone, in every cluster that spans it.
    Zone(ZoneName),
}

/// Why a text is not a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// Not `KIND=NAME`.
    #[error("`{0}` is not a scope: expected region=NAME, cluster=NAME or zone=NAME")]
    NotAScope(String),
    /// The name is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Scope {
    /// Whether `locality` is within it.
    #[must_use]
    pub fn contains(&self, locality: &Locality) -> bool {
        match self {
            Self::Region(region) => locality.region == *region,
            Self::Cluster(cluster) => locality.cluster == *cluster,
            Self::Zone(zone) => locality.zone.as_ref() == Some(zone),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Region(name) => write!(f, "region={name}"),
            Self::Cluster(name) => write!(f, "cluster={name}"),
            Self::Zone(name) => write!(f, "zone={name}"),
        }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        match text.split_once('=') {
            Some(("region", name)) => Ok(Self::Region(name.parse()?)),
            Some(("cluster", name)) => Ok(Self::Cluster(name.parse()?)),
            Some(("zone", name)) => Ok(Self::Zone(name.parse()?)),
            _ => Err(ScopeError::NotAScope(text.to_owned())),
        }
    }
}
