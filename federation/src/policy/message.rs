//! What control planes say to each other about policy, and how a frame carries it.
//!
//! A frame names the group it belongs to and the seat it is meant for: another group's, or another disk's, is refused.

use openraft::error::{InstallSnapshotError, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use serde::{Deserialize, Serialize};

use super::types::{Command, Outcome, PolicyRaft};

/// One message, either way. Written as a record ([`super::record`]): unknown fields are passed over.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Frame<T> {
    /// The sender's group; `None`: it belongs to none yet.
    pub(super) group: Option<String>,
    /// The message.
    pub(super) message: T,
}

/// A question.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Request {
    /// Who are you?
    Introduce,
    /// Do you hear me? Answered within the group alone.
    Ping,
    /// Raft's own, for one seat.
    Append {
        /// The seat meant.
        seat: u64,
        /// openraft's request.
        request: AppendEntriesRequest<PolicyRaft>,
    },
    /// Raft's own, for one seat.
    Vote {
        /// The seat meant.
        seat: u64,
        /// openraft's request.
        request: VoteRequest<u64>,
    },
    /// Raft's own, for one seat.
    Snapshot {
        /// The seat meant.
        seat: u64,
        /// openraft's request.
        request: InstallSnapshotRequest<PolicyRaft>,
    },
    /// Write this, as the leader.
    Write(Command),
    /// Up to where must one have applied to read what is acknowledged now?
    ReadIndex,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// To [`Request::Introduce`].
    Seat {
        /// The answering seat.
        seat: u64,
        /// The content hash of the topology it runs.
        topology_hash: u64,
    },
    /// To [`Request::Ping`].
    Pong,
    /// To [`Request::Append`].
    Append(Result<AppendEntriesResponse<u64>, RaftError<u64>>),
    /// To [`Request::Vote`].
    Vote(Result<VoteResponse<u64>, RaftError<u64>>),
    /// To [`Request::Snapshot`].
    Snapshot(Result<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>>),
    /// To [`Request::Write`].
    Written {
        /// The entry's log index: who has applied it has the outcome.
        index: u64,
        /// What it came to.
        outcome: Outcome,
    },
    /// To [`Request::ReadIndex`].
    ReadIndex(u64),
    /// Not answered.
    Refused(Refusal),
}

/// Why a question is not answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(super) enum Refusal {
    /// The sender belongs to another group, or to none where one is needed.
    #[error("it belongs to the policy group {theirs}, not to ours")]
    AnotherGroup {
        /// The answering node's group, or `none`.
        theirs: String,
    },
    /// The seat meant is gone: its disk was replaced.
    #[error("its seat is now {seat:x}: its data directory is another")]
    AnotherSeat {
        /// The seat that the node has now.
        seat: u64,
    },
    /// The sender asked in the name of a seat that is another cluster's.
    #[error("the seat {seat:x} is {owner}'s, not the sender's")]
    NotYourSeat {
        /// The seat.
        seat: u64,
        /// Whose it is.
        owner: String,
    },
    /// The node does not lead.
    #[error("it does not lead")]
    NotLeader,
    /// The node leads, or did, and cannot do it.
    #[error("{0}")]
    Failed(String),
}
