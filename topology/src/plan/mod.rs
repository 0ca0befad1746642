//! The planner: which share of a client's traffic goes where, and why.
//!
//! [`target`] says where traffic belongs, from what is known now; [`pace`] says how fast to get there.

mod allocate;
mod blend;
#[cfg(test)]
mod bugs;
mod compose;
mod history;
mod pace;
mod ramp;
mod sites;
mod target;
#[cfg(test)]
mod tests;
mod tiers;

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::names::{ClusterName, Locality, RegionName, ServiceId};

#[cfg(test)]
use bugs::spoilt;
pub use pace::{Paced, pace};
pub use target::target;

/// A stage's result on its way out. In tests a seeded bug may spoil it here, so that the properties can be seen to
/// catch it.
#[cfg(not(test))]
fn spoilt<T>(result: T) -> T {
    result
}

/// Where one kind of client's traffic for one service goes: priorities, contiguous from 0, nearest first.
///
/// A locality stands in it at most once. Priority 0 holds every locality with a share; the lower ones the rest in tier
/// order, each with the weights that it would have if everything above it were dead. The last holds what must not be
/// used, marked unhealthy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The service.
    pub service: ServiceId,
    /// Where the client is.
    pub client: Locality,
    /// The priorities; never an empty one. No priority at all: nothing is known of the service anywhere.
    pub priorities: Vec<Vec<PlannedLocality>>,
    /// What was left out, and why.
    pub omitted: Vec<Omitted>,
}

/// One locality of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedLocality {
    /// Which.
    pub locality: Locality,
    /// How the client reaches it.
    pub route: Route,
    /// Its weight within its priority. A priority's sum stays below 2³².
    pub weight: NonZeroU32,
    /// The fraction (0 to 1) of the client's traffic that it gets while nothing dies: 0 below priority 0.
    pub share: f64,
    /// How far away it is, in the planner's terms.
    pub tier: Tier,
    /// Endpoints that take traffic.
    pub ready: u32,
    /// Endpoints listed.
    pub total: u32,
    /// What it can carry.
    pub carries: Carries,
    /// Why it has this share.
    pub because: Reason,
    /// Whether its endpoints are served as unhealthy: a last resort, or none at all.
    pub unhealthy: bool,
}

/// How a client reaches a locality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Route {
    /// By its pods' addresses.
    Direct,
    /// Through its cluster's gateways: another network.
    Gateway,
}

/// The tiers, nearest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Tier {
    /// The client's zone in its own cluster.
    Zone,
    /// The client's zone in other clusters.
    ZoneElsewhere,
    /// The rest of the client's region.
    Region,
    /// A region that the policy or the topology names as a failover target, with its part of their weights in percent.
    Failover {
        /// This region's weight as a percentage of all the targets' weights, rounded.
        percent: u32,
    },
    /// Everything else, by distance.
    Distant,
    /// A cluster that the policy gives a weight of its own, in percent of all of them: there are no tiers then.
    Weighted {
        /// This cluster's weight as a percentage of all the clusters' weights, rounded.
        percent: u32,
    },
}

/// What a locality can carry of the client's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Carries {
    /// Requests per second, where capacity is known.
    RequestsPerSecond(f64),
    /// The fraction (0 to 1) of the load that would be its own, where demand or capacity is not known.
    FractionOfLoad(f64),
}

/// Why a locality has the share it has. `explain` prints it, so each reads as a clause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "reason")]
pub enum Reason {
    /// Nearest, and everything fits.
    Nearest,
    /// Nearest, and full.
    Full {
        /// Demand in requests per second, if known.
        demand: Option<f64>,
        /// The utilisation above which it spills, in percent; `None` where only endpoint counts are known.
        target_utilization_percent: Option<u32>,
    },
    /// Takes what nearer tiers cannot.
    TakesExcess,
    /// A nearer tier has room: its name as the table prints it.
    NearerHasRoom {
        /// `zone`, `region` or `failover`.
        tier: String,
    },
    /// Its weight in the policy or topology gives it this share.
    ByWeight,
    /// No tier has room, so load spreads by ready capacity.
    Overload,
    /// Nothing ready there.
    NothingReady,
    /// Drained by policy.
    Drained {
        /// The Drain's name.
        drain: String,
    },
    /// Drained, but the service has nowhere else.
    DrainedButLast {
        /// The Drain's name.
        drain: String,
    },
    /// Its cluster is failed.
    ClusterFailed,
    /// Its cluster is stale: no more than it had.
    ClusterStale,
    /// On its way to another share.
    Ramping {
        /// The share it had when the ramp began.
        from: f64,
        /// The share it is going to.
        to: f64,
    },
    /// Kept where it was until the hold-down ends.
    HeldDown,
}

/// A place that a client's plan leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Omitted {
    /// The cluster.
    pub cluster: ClusterName,
    /// Why.
    pub because: OmittedBecause,
}

/// Why a cluster stands in no plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OmittedBecause {
    /// Another network, and it has no gateway.
    NoRoute,
    /// The policy's `allowedRegions` leave its region out.
    RegionNotAllowed {
        /// The region.
        region: RegionName,
    },
    /// The policy's `clusterWeights` do not name it, or with a weight of 0.
    NotWeighted,
}

impl fmt::Display for OmittedBecause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute => f.write_str("no route: it is on another network and has no gateway"),
            Self::RegionNotAllowed { region } => write!(f, "the policy's allowedRegions leave {region} out"),
            Self::NotWeighted => f.write_str("the policy's clusterWeights give it no weight"),
        }
    }
}
