//! Policy: TrafficPolicies and Drains, the same everywhere and never lost. One Raft group, on a [`crate::disk::Store`].
//!
//! Voters are the clusters that the topology marks; every other follows as a learner and reads what it has applied.
//! A cluster has one seat, on one node; its other nodes keep a copy of what it has applied.
//! Nothing here knows what a policy means: it keeps the objects, their revisions and their history.

mod access;
mod copy;
mod elections;
mod group;
mod log;
mod machine;
mod membership;
mod message;
mod network;
mod record;
mod seat;
mod state;
mod timing;
mod types;

#[cfg(test)]
mod crash;
#[cfg(test)]
mod damaged_tests;
#[cfg(test)]
mod tests;

pub use access::{Policy, Reason, Standing, WriteError};
pub use copy::Copy;
pub(crate) use copy::{Feed, ToSeat};
pub use elections::Reach;
pub use machine::{Change, Machine};
pub use network::{CallError, Courier};
pub use record::RecordError;
pub use seat::{Config, HEARTBEAT_FLOOR, Seat, StartError};
pub use types::{Command, Member, Outcome, PolicyChange};
