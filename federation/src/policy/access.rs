//! Policy as the rest of the control plane sees it, the same on every node: at the seat, or from a copy of what the seat
//! has applied.

use portolan_topology::names::NodeName;
use portolan_topology::policy::PolicySet;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::watch;

use super::copy::Copy;
use super::elections::Reach;
use super::machine::Change;
use super::network::CallError;
use super::seat::Seat;
use super::types::{Command, Outcome};

/// A node's policy.
#[derive(Clone)]
pub enum Policy {
    /// This node holds its cluster's seat in the group.
    Seat(Seat),
    /// Another node of the cluster does.
    Copy(Copy),
}

impl Policy {
    /// A slot that always holds the policy that this node has applied.
    #[must_use]
    pub fn set(&self) -> watch::Receiver<Arc<PolicySet>> {
        match self {
            Self::Seat(seat) => seat.set(),
            Self::Copy(copy) => copy.set(),
        }
    }

    /// A slot that always holds the cluster's standing.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        match self {
            Self::Seat(seat) => seat.standing(),
            Self::Copy(copy) => copy.standing(),
        }
    }

    /// The changes that this node remembers, oldest first; of one object, or of all.
    #[must_use]
    pub fn history(&self, key: Option<&str>) -> Vec<Change> {
        match self {
            Self::Seat(seat) => seat.history(key),
            Self::Copy(copy) => copy.history(key),
        }
    }

    /// Writes through the leader, and returns once this node has applied it.
    pub async fn write(&self, command: Command) -> Result<Outcome, WriteError> {
        match self {
            Self::Seat(seat) => seat.write(command).await,
            Self::Copy(copy) => copy.write(command).await,
        }
    }

    /// Returns once this node has applied everything that was acknowledged before the call.
    pub async fn read_barrier(&self) -> Result<(), WriteError> {
        match self {
            Self::Seat(seat) => seat.read_barrier().await,
            Self::Copy(copy) => copy.read_barrier().await,
        }
    }

    /// Leaves the group's work, the disk as it is.
    pub async fn stop(&self) {
        match self {
            Self::Seat(seat) => seat.stop().await,
            Self::Copy(copy) => copy.stop().await,
        }
    }
}

/// Why a write was not done, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is no group, or no leader that a majority follows.
    #[error(
        "policy is read-only here: {answering} of {voters} voters answer, and no leader is known; \
         the last policy stays in force, try again when a majority is back"
    )]
    ReadOnly {
        /// Voters that answer.
        answering: usize,
        /// Voters in all; 0: there is no group yet.
        voters: usize,
    },
    /// The leader cannot do it.
    #[error("the leader, {leader}, cannot write: {why}")]
    Failed {
        /// The leader's cluster.
        leader: String,
        /// Its reason.
        why: String,
    },
    /// The answer did not come: it may be written or not.
    #[error("{leader} did not answer, so the change may be written or not: read before you try again ({source})")]
    Unknown {
        /// The leader's cluster.
        leader: String,
        /// What the call said.
        source: CallError,
    },
    /// Written, but not applied on this node in time.
    #[error("written as r{index}, but this node has not applied it yet: it follows the leader late")]
    NotAppliedHere {
        /// The entry's log index.
        index: u64,
    },
    /// The node that holds the cluster's seat cannot be reached, so nothing was written.
    #[error(
        "policy is read-only here: the cluster's seat in the policy group is on node {node}, which cannot be reached \
         ({why}); the last policy stays in force, try again when it is back, or at another cluster"
    )]
    SeatAway {
        /// The node.
        node: NodeName,
        /// What the connection says.
        why: String,
    },
    /// The node that holds the seat says one of the others.
    #[error("{said}")]
    AtSeat {
        /// Which.
        reason: Reason,
        /// Its words.
        said: String,
    },
}

/// The kinds of [`WriteError`], for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// Nothing was written: no majority, or no way to the seat.
    ReadOnly,
    /// Nothing was written: the leader cannot.
    LeaderFailed,
    /// It may be written or not.
    MayBeWritten,
    /// It is written, and not applied here yet.
    NotAppliedHere,
}

impl WriteError {
    /// Of which kind it is.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::ReadOnly { .. } | Self::SeatAway { .. } => Reason::ReadOnly,
            Self::Failed { .. } => Reason::LeaderFailed,
            Self::Unknown { .. } => Reason::MayBeWritten,
            Self::NotAppliedHere { .. } => Reason::NotAppliedHere,
            Self::AtSeat { reason, .. } => *reason,
        }
    }
}

/// A cluster's standing in the group, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The group's id; `None`: not born, or not joined yet.
    pub group: Option<String>,
    /// Leader, voter or learner; `None` while the group does not know this node.
    pub role: Option<crate::model::Role>,
    /// The leader's cluster, if one is known.
    pub leader: Option<String>,
    /// The last applied change of policy.
    pub revision: u64,
    /// Voters in all, and those that answer us.
    pub reach: Reach,
}
