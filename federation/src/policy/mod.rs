//! Policy: TrafficPolicies and Drains, the same everywhere and never lost. One Raft group, on a [`crate::disk::Store`].
//!
//! Voters are the clusters that the topology marks; every other follows as a learner and reads what it has applied.
//! Nothing here knows what a policy means: it keeps the objects, their revisions and their history.

mod elections;
mod group;
mod handle;
mod log;
mod machine;
mod membership;
mod message;
mod network;
mod record;
mod state;
mod timing;
mod types;

#[cfg(test)]
mod crash;
#[cfg(test)]
mod damaged_tests;
#[cfg(test)]
mod tests;

pub use elections::Reach;
pub use handle::{Config, HEARTBEAT_FLOOR, Policy, Standing, StartError, WriteError};
pub use machine::{Change, Machine};
pub use network::{CallError, Courier};
pub use record::RecordError;
pub use types::{Command, Member, Outcome, PolicyChange};
