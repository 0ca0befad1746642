//! The cluster's seat in the policy group: reads from what it has applied, writes to whoever leads, and its own part in
//! the group.

use std::sync::Arc;
use std::time::Duration;

use openraft::error::{CheckIsLeaderError, ClientWriteError, RaftError};
use openraft::{Raft, ServerState};
use portolan_topology::names::ClusterName;
use portolan_topology::policy::PolicySet;
use portolan_topology::topology::Topology;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::access::{Standing, WriteError};
use super::copy::Feed;
use super::elections::{self, Reach};
use super::group::{Group, seat};
use super::log::LogStore;
use super::machine::Change;
use super::membership::Keeper;
use super::message::{Frame, Refusal, Reply, Request};
use super::network::{Caller, Courier, Network};
use super::record::{self, RecordError};
use super::state::{Applied, StateMachine};
use super::timing::Timing;
use super::types::{Command, Outcome, PolicyRaft};
use crate::disk::{Disk, Store};

/// How long a write waits for a leader, and for this node to apply it.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// How long a write waits before it asks again who leads.
const RETRY: Duration = Duration::from_millis(250);

/// What a node's policy is made of.
pub struct Config {
    /// Our cluster.
    pub cluster: ClusterName,
    /// The topology, as it changes.
    pub topology: watch::Receiver<Arc<Topology>>,
    /// The shortest heartbeat; 500 ms in production, less in a test on one machine.
    pub heartbeat_floor: Duration,
}

/// The shortest heartbeat between regions.
pub const HEARTBEAT_FLOOR: Duration = Duration::from_millis(500);

/// Why policy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store does not open or read.
    #[error("the policy store cannot be read: {0}")]
    Store(#[from] std::io::Error),
    /// A voter's store is damaged.
    #[error(
        "the policy store is damaged, and {cluster} is a voter: one that forgets its votes could vote twice. \
         If the other voters are well, move the folder `store` out of the data directory and start again: it rejoins \
         with a new seat. {source}"
    )]
    DamagedVoter {
        /// The cluster.
        cluster: ClusterName,
        /// What is wrong.
        source: std::io::Error,
    },
    /// openraft's own.
    #[error("the policy group cannot be joined: {0}")]
    Raft(#[source] Box<openraft::error::Fatal<u64>>),
}

impl From<openraft::error::Fatal<u64>> for StartError {
    fn from(error: openraft::error::Fatal<u64>) -> Self {
        Self::Raft(Box::new(error))
    }
}

/// The node that holds the seat. Clones share it; it stops when the last is gone.
#[derive(Clone)]
pub struct Seat {
    inner: Arc<Inner>,
}

struct Inner {
    seat: u64,
    own: ClusterName,
    topology: watch::Receiver<Arc<Topology>>,
    raft: Raft<PolicyRaft>,
    caller: Caller,
    applied: watch::Receiver<Arc<Applied>>,
    set: watch::Receiver<Arc<PolicySet>>,
    standing: watch::Receiver<Standing>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Opens the store. A damaged one is set aside: a learner takes the group's snapshot into a new one.
fn open_store(disk: &dyn Disk, config: &Config) -> Result<Arc<dyn Store>, StartError> {
    match disk.open_store() {
        Err(source) if source.kind() == std::io::ErrorKind::InvalidData => {
            let voter = config.topology.borrow().voters().iter().any(|voter| voter.name == config.cluster);
            if voter {
                return Err(StartError::DamagedVoter { cluster: config.cluster.clone(), source });
            }
            let kept = disk.set_store_aside()?;
            tracing::warn!(error = %source, kept, "the policy store is damaged; the group's snapshot is taken into a new one");
            Ok(disk.open_store()?)
        }
        opened => Ok(opened?),
    }
}

impl Seat {
    /// Starts the node's part: what its disk has is served at once, and the group is joined or founded as peers answer.
    pub async fn start(
        config: Config,
        disk: &dyn Disk,
        courier: Arc<dyn Courier>,
        rng: &mut StdRng,
    ) -> Result<Self, StartError> {
        let store = open_store(disk, &config)?;
        let seat = seat(&store, rng).await?;
        let group = Group::open(Arc::clone(&store))?;
        let caller = Caller { courier, group };
        let machine = StateMachine::open(Arc::clone(&store))?;
        let applied = machine.applied();
        let timing = Timing::new(&config.topology.borrow(), config.heartbeat_floor);
        let network = Network(caller.clone());
        let raft = Raft::new(seat, Arc::new(timing.config()), network, LogStore::new(store), machine).await?;

        let (reach, reachable) = watch::channel(Reach::default());
        let (set_slot, set) = watch::channel(Arc::new(applied.borrow().machine.set().clone()));
        let (standing_slot, standing) = watch::channel(Standing::default());
        let keeper = Keeper {
            raft: raft.clone(),
            caller: caller.clone(),
            own: config.cluster.clone(),
            seat,
            topology: config.topology.clone(),
            rng: StdRng::seed_from_u64(rng.random()),
        };
        let guard = elections::guard(raft.clone(), caller.clone(), config.cluster.clone(), timing, reach);
        let publish = publish(raft.clone(), caller.group.watch(), applied.clone(), reachable, set_slot, standing_slot);
        let tasks = vec![
            tokio::spawn(keeper.run()).abort_handle(),
            tokio::spawn(guard).abort_handle(),
            tokio::spawn(publish).abort_handle(),
        ];
        let inner =
            Inner { seat, own: config.cluster, topology: config.topology, raft, caller, applied, set, standing, tasks };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A slot that always holds the policy that this node has applied.
    #[must_use]
    pub fn set(&self) -> watch::Receiver<Arc<PolicySet>> {
        self.inner.set.clone()
    }

    /// A slot that always holds this node's standing.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.inner.standing.clone()
    }

    /// The changes that this node remembers, oldest first; of one object, or of all.
    #[must_use]
    pub fn history(&self, key: Option<&str>) -> Vec<Change> {
        let applied = self.inner.applied.borrow();
        applied.machine.history().filter(|change| key.is_none_or(|key| change.key == key)).cloned().collect()
    }

    /// What this node applies from now on and what it has, for the nodes that follow it.
    #[must_use]
    pub(crate) fn feed(&self) -> Feed {
        Feed::new(self.inner.applied.clone(), self.standing())
    }

    /// The current term.
    #[cfg(test)]
    pub(super) fn term(&self) -> u64 {
        self.inner.raft.metrics().borrow().current_term
    }

    /// This disk's seat.
    #[cfg(test)]
    pub(super) fn seat(&self) -> u64 {
        self.inner.seat
    }

    /// Leaves the group's work, the disk as it is.
    pub async fn stop(&self) {
        for task in &self.inner.tasks {
            task.abort();
        }
        let _ = self.inner.raft.shutdown().await;
    }

    /// Writes through the leader, and returns once this node has applied it.
    pub async fn write(&self, command: Command) -> Result<Outcome, WriteError> {
        let (index, outcome) = self.through_leader(Request::Write(command)).await?;
        self.wait_applied(index).await?;
        Ok(outcome)
    }

    /// Returns once this node has applied everything that was acknowledged before the call.
    pub async fn read_barrier(&self) -> Result<(), WriteError> {
        let (index, _) = self.through_leader(Request::ReadIndex).await?;
        self.wait_applied(index).await
    }

    async fn wait_applied(&self, index: u64) -> Result<(), WriteError> {
        let mut applied = self.inner.applied.clone();
        let reached = applied.wait_for(|applied| applied.last.is_some_and(|last| last.index >= index));
        match timeout(WRITE_LIMIT, reached).await {
            Ok(Ok(_)) => {}
            _ => return Err(WriteError::NotAppliedHere { index }),
        }
        // Readers look at the set, which follows what is applied in a task of its own.
        let revision = self.inner.applied.borrow().machine.set().revision;
        let mut set = self.inner.set.clone();
        let shown = set.wait_for(|set| set.revision >= revision);
        match timeout(WRITE_LIMIT, shown).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(WriteError::NotAppliedHere { index }),
        }
    }

    /// Asks the leader, whoever it is; while there is none, waits for one.
    async fn through_leader(&self, request: Request) -> Result<(u64, Outcome), WriteError> {
        let until = Instant::now() + WRITE_LIMIT;
        let mut standing = self.inner.standing.clone();
        loop {
            let leader = standing.borrow_and_update().leader.clone();
            if let Some(leader) = leader {
                let reply = if leader == self.inner.own.as_str() {
                    Ok(self.lead(request.clone()).await)
                } else {
                    let limit = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
                    self.inner.caller.call(&leader, request.clone(), limit).await.map(|frame| frame.message)
                };
                match reply {
                    Ok(Reply::Written { index, outcome }) => return Ok((index, outcome)),
                    Ok(Reply::ReadIndex(index)) => return Ok((index, Outcome::Nothing)),
                    Ok(Reply::Refused(Refusal::NotLeader)) => {}
                    Ok(Reply::Refused(refusal)) => {
                        return Err(WriteError::Failed { leader, why: refusal.to_string() });
                    }
                    Ok(_) => {
                        let why = "it answered another question".to_owned();
                        return Err(WriteError::Failed { leader, why });
                    }
                    Err(error) if error.was_not_sent() => {}
                    Err(source) => return Err(WriteError::Unknown { leader, source }),
                }
            }
            if Instant::now() >= until {
                let Reach { voters, answering } = standing.borrow().reach;
                return Err(WriteError::ReadOnly { answering, voters });
            }
            // Another leader, or the same one reached after all.
            let _ = timeout(RETRY, standing.changed()).await;
        }
    }

    /// Does what only a leader can.
    async fn lead(&self, request: Request) -> Reply {
        let raft = &self.inner.raft;
        let failed = |why: String| Reply::Refused(Refusal::Failed(why));
        match request {
            Request::Write(command) => match raft.client_write(command).await {
                Ok(written) => Reply::Written { index: written.log_id.index, outcome: written.data },
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Reply::Refused(Refusal::NotLeader),
                Err(error) => failed(error.to_string()),
            },
            Request::ReadIndex => match raft.get_read_log_id().await {
                Ok((read, applied)) => Reply::ReadIndex(read.or(applied).map_or(0, |id| id.index)),
                Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_))) => Reply::Refused(Refusal::NotLeader),
                Err(error) => failed(error.to_string()),
            },
            _ => failed("this is not for a leader to do".to_owned()),
        }
    }

    /// Answers another control plane. `from` is the cluster that its certificate names.
    pub async fn answer(&self, from: &ClusterName, body: &[u8]) -> Result<Vec<u8>, RecordError> {
        let frame: Frame<Request> = record::decode(body)?;
        let message = self.reply(from, frame).await;
        record::encode(&Frame { group: self.inner.caller.group.id(), message })
    }

    async fn reply(&self, from: &ClusterName, frame: Frame<Request>) -> Reply {
        if matches!(frame.message, Request::Introduce) {
            return Reply::Seat { seat: self.inner.seat, topology_hash: self.inner.topology.borrow().hash };
        }
        if let Err(refusal) = self.admit(from, &frame).await {
            tracing::debug!(%from, %refusal, "a policy message is refused");
            return Reply::Refused(refusal);
        }
        let raft = &self.inner.raft;
        match frame.message {
            Request::Introduce | Request::Ping => Reply::Pong,
            Request::Append { request, .. } => Reply::Append(raft.append_entries(request).await),
            Request::Vote { request, .. } => Reply::Vote(raft.vote(request).await),
            Request::Snapshot { request, .. } => Reply::Snapshot(raft.install_snapshot(request).await),
            request @ (Request::Write(_) | Request::ReadIndex) => self.lead(request).await,
        }
    }

    /// Whether the message is for this seat, of this group, and from the one in whose name it speaks.
    async fn admit(&self, from: &ClusterName, frame: &Frame<Request>) -> Result<(), Refusal> {
        let seats = match &frame.message {
            Request::Append { seat, request } => Some((*seat, request.vote.leader_id.voted_for())),
            Request::Vote { seat, request } => Some((*seat, request.vote.leader_id.voted_for())),
            Request::Snapshot { seat, request } => Some((*seat, request.vote.leader_id.voted_for())),
            Request::Introduce | Request::Ping | Request::Write(_) | Request::ReadIndex => None,
        };
        if let Some((to, speaker)) = seats {
            if to != self.inner.seat {
                return Err(Refusal::AnotherSeat { seat: self.inner.seat });
            }
            let membership = self.inner.raft.metrics().borrow().membership_config.clone();
            let owner =
                speaker.and_then(|speaker| membership.membership().get_node(&speaker).map(|member| (speaker, member)));
            if let Some((seat, member)) = owner
                && member.cluster != from.as_str()
            {
                return Err(Refusal::NotYourSeat { seat, owner: member.cluster.clone() });
            }
        }
        match (self.inner.caller.group.id(), &frame.group) {
            (Some(ours), Some(theirs)) if ours == *theirs => Ok(()),
            // Raft itself is how a new node learns which group it is in.
            (None, Some(theirs)) if seats.is_some() => {
                let joined = self.inner.caller.group.join(theirs.clone()).await;
                joined.map_err(|error| Refusal::Failed(format!("the disk does not take the group's id: {error}")))
            }
            (ours, _) => Err(Refusal::AnotherGroup { theirs: ours.unwrap_or_else(|| "none".to_owned()) }),
        }
    }
}

/// Keeps the slots that readers watch: the policy set (only when it changed) and the standing.
async fn publish(
    raft: Raft<PolicyRaft>,
    mut group: watch::Receiver<Option<String>>,
    mut applied: watch::Receiver<Arc<Applied>>,
    mut reach: watch::Receiver<Reach>,
    set: watch::Sender<Arc<PolicySet>>,
    standing: watch::Sender<Standing>,
) {
    let mut metrics = raft.metrics();
    loop {
        let now = applied.borrow_and_update().clone();
        if now.machine.set().revision != set.borrow().revision {
            set.send_replace(Arc::new(now.machine.set().clone()));
        }
        let next = {
            let metrics = metrics.borrow_and_update();
            let membership = metrics.membership_config.membership();
            let leader = metrics.current_leader.and_then(|seat| membership.get_node(&seat));
            let voter = membership.voter_ids().any(|seat| seat == metrics.id);
            let role = match metrics.state {
                ServerState::Leader => Some(crate::model::Role::Leader),
                _ if voter => Some(crate::model::Role::Voter),
                _ if membership.get_node(&metrics.id).is_some() => Some(crate::model::Role::Learner),
                _ => None,
            };
            Standing {
                group: group.borrow_and_update().clone(),
                role,
                leader: leader.map(|member| member.cluster.clone()),
                revision: now.machine.set().revision,
                reach: *reach.borrow_and_update(),
            }
        };
        standing.send_if_modified(|standing| {
            let changed = *standing != next;
            *standing = next;
            changed
        });
        let changed = tokio::select! {
            changed = metrics.changed() => changed,
            changed = applied.changed() => changed,
            changed = reach.changed() => changed,
            changed = group.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}
