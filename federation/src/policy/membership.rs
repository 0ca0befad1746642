//! How the group is born, and how the leader keeps its learners those of the topology.
//!
//! The group is made once: only the first voter by name makes it, and only when every voter of its topology answers that
//! it belongs to none and runs the same topology. Voters change only through Raft, never because a file changed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::error::{ClientWriteError, Fatal, InitializeError, RaftError};
use openraft::{ChangeMembers, Raft, ServerState};
use portolan_topology::names::ClusterName;
use portolan_topology::topology::Topology;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::group::new_id;
use super::message::{Reply, Request};
use super::network::Caller;
use super::types::{Member, PolicyRaft};

/// How often the founder asks, and the leader looks for learners.
const EVERY: Duration = Duration::from_millis(500);

/// The limit of one question.
const LIMIT: Duration = Duration::from_secs(2);

/// What another control plane says of itself.
struct Introduction {
    seat: u64,
    topology_hash: u64,
    group: Option<String>,
}

/// Why a step was not taken; the next tick tries again.
#[derive(Debug, thiserror::Error)]
pub(super) enum MembershipError {
    /// The group cannot be made.
    #[error("the group cannot be founded: {0}")]
    Founding(#[from] RaftError<u64, InitializeError<u64, Member>>),
    /// A seat cannot be given or taken.
    #[error("the membership cannot be changed: {0}")]
    Change(#[from] RaftError<u64, ClientWriteError<u64, Member>>),
    /// openraft has stopped.
    #[error(transparent)]
    Stopped(#[from] Fatal<u64>),
    /// The group's id cannot be kept.
    #[error("the disk does not take the group's id: {0}")]
    Disk(#[from] io::Error),
}

/// The task that does both.
pub(super) struct Keeper {
    pub(super) raft: Raft<PolicyRaft>,
    pub(super) caller: Caller,
    pub(super) own: ClusterName,
    pub(super) seat: u64,
    pub(super) topology: watch::Receiver<Arc<Topology>>,
    pub(super) rng: StdRng,
}

impl Keeper {
    /// Founds the group if that is our part, then keeps the learners while we lead; for ever.
    pub(super) async fn run(mut self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let topology = self.topology.borrow().clone();
            if let Err(error) = self.step(&topology).await {
                tracing::warn!(%error, "the policy group's membership could not be changed; trying again");
            }
        }
    }

    async fn step(&mut self, topology: &Topology) -> Result<(), MembershipError> {
        if !self.raft.is_initialized().await? {
            return self.found(topology).await;
        }
        if self.leads() {
            return self.keep_learners(topology).await;
        }
        Ok(())
    }

    fn leads(&self) -> bool {
        self.raft.metrics().borrow().state == ServerState::Leader
    }

    async fn introduction(&self, cluster: &ClusterName) -> Option<Introduction> {
        let frame = self.caller.call(cluster.as_str(), Request::Introduce, LIMIT).await.ok()?;
        match frame.message {
            Reply::Seat { seat, topology_hash } => Some(Introduction { seat, topology_hash, group: frame.group }),
            _ => None,
        }
    }

    async fn found(&mut self, topology: &Topology) -> Result<(), MembershipError> {
        let voters = topology.voters();
        if voters.first().is_none_or(|first| first.name != self.own) {
            return Ok(());
        }
        let mut members = BTreeMap::from([(self.seat, Member { cluster: self.own.to_string() })]);
        for voter in voters.iter().filter(|voter| voter.name != self.own) {
            let Some(introduction) = self.introduction(&voter.name).await else { return Ok(()) };
            if introduction.group.is_some() || introduction.topology_hash != topology.hash {
                return Ok(());
            }
            members.insert(introduction.seat, Member { cluster: voter.name.to_string() });
        }
        // The id comes first, since the founding election needs it; a crash between the two leaves an empty log, which
        // is how the next start knows that the founding is not done.
        let id = self.caller.group.id().unwrap_or_else(|| new_id(&mut self.rng));
        self.caller.group.join(id.clone()).await?;
        self.raft.initialize(members).await?;
        tracing::info!(group = id, voters = voters.len(), "the policy group is founded");
        Ok(())
    }

    async fn keep_learners(&self, topology: &Topology) -> Result<(), MembershipError> {
        let membership = self.raft.metrics().borrow().membership_config.clone();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let mut seats: BTreeMap<String, u64> =
            membership.nodes().map(|(seat, member)| (member.cluster.clone(), *seat)).collect();
        for cluster in topology.clusters().filter(|cluster| cluster.name != self.own) {
            let seated = seats.remove(cluster.name.as_str());
            if seated.is_some_and(|seat| voters.contains(&seat)) {
                continue;
            }
            let Some(introduction) = self.introduction(&cluster.name).await else { continue };
            if introduction.group.is_some() && introduction.group != self.caller.group.id() {
                tracing::warn!(cluster = %cluster.name, "belongs to another policy group: its data directory is another federation's");
                continue;
            }
            if seated == Some(introduction.seat) {
                continue;
            }
            if let Some(old) = seated {
                self.raft.change_membership(ChangeMembers::RemoveNodes([old].into()), true).await?;
            }
            let member = Member { cluster: cluster.name.to_string() };
            self.raft.add_learner(introduction.seat, member, false).await?;
            tracing::info!(cluster = %cluster.name, "follows policy now");
        }
        // Clusters that the topology does not name any more; their voters stay until somebody changes the membership.
        let gone: BTreeSet<u64> = seats
            .into_iter()
            .filter(|(cluster, seat)| cluster != self.own.as_str() && !voters.contains(seat))
            .map(|(_, seat)| seat)
            .collect();
        if !gone.is_empty() {
            self.raft.change_membership(ChangeMembers::RemoveNodes(gone), true).await?;
        }
        Ok(())
    }
}
