//! The types that Raft replicates here: commands, what they come to, and who the members are.

use std::io::Cursor;

use jiff::Timestamp;
use portolan_topology::policy::{Owner, PolicyObject};
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// Portolan's instance of Raft: commands on policy objects, members named by their cluster.
    pub PolicyRaft:
        D = Command,
        R = Outcome,
        NodeId = u64,
        Node = Member,
        SnapshotData = Cursor<Vec<u8>>,
);

/// A seat of the group. Its id is random and made with its data directory: a seat belongs to its disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// The cluster whose control plane holds the seat; peers are dialled by it.
    pub cluster: String,
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.cluster)
    }
}

/// A change of policy, applied as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    /// What is to change.
    pub change: PolicyChange,
    /// The revision that every object named must have (0: it must not exist). `None`: any.
    pub expected_revision: Option<u64>,
    /// In whose name: an object of another owner is not touched. Older entries of the log have no owner.
    #[serde(default)]
    pub owner: Owner,
    /// Whether objects of other owners are taken over: of those that cannot speak for them any more.
    #[serde(default)]
    pub take_over: bool,
    /// Who asks.
    pub by: String,
    /// When they asked, by the clock of the node asked; for people, never compared.
    pub at: Timestamp,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PolicyChange {
    /// Creates or replaces these objects.
    Apply(Vec<PolicyObject>),
    /// Removes the objects with these keys.
    Delete(Vec<String>),
}

impl PolicyChange {
    /// The keys of the objects that it names.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        match self {
            Self::Apply(objects) => objects.iter().map(PolicyObject::key).collect(),
            Self::Delete(keys) => keys.clone(),
        }
    }
}

/// What a command came to, the same on every node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum Outcome {
    /// Not a command: an entry of Raft's own.
    #[default]
    Nothing,
    /// Written.
    Applied {
        /// Its revision, the entry's log index.
        revision: u64,
    },
    /// Everything was so already; nothing was written.
    Unchanged {
        /// The revision of the last change.
        revision: u64,
    },
    /// The expected revision is not the object's. Nothing was written.
    Conflict {
        /// The object.
        key: String,
        /// Its revision; 0: it does not exist.
        found: u64,
    },
    /// An object belongs to another. Nothing was written.
    Owned {
        /// The object.
        key: String,
        /// Whose it is.
        owner: Owner,
    },
    /// An object to delete does not exist. Nothing was written.
    NotFound {
        /// The object.
        key: String,
    },
}
