//! Policy on a node that does not hold its cluster's seat: a copy of what the seat has applied, on disk too, and the way
//! to the seat for writes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portolan_topology::names::NodeName;
use portolan_topology::policy::PolicySet;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::access::{Reason, Standing, WriteError};
use super::elections::Reach;
use super::machine::{Change, Machine, Update};
use super::network::{CallError, was_not_sent};
use super::record::{self, RecordError};
use super::seat::Seat;
use super::state::Applied;
use super::types::{Command, Outcome};
use crate::disk::Disk;

/// The record that the copy is kept in.
const RECORD: &str = "policy-copy";
/// How long changes gather before they are written.
const SAVE_AFTER: Duration = Duration::from_secs(1);
/// How long this node waits for what was written to reach it.
const APPLIED_WITHIN: Duration = Duration::from_secs(10);

/// The way to the node that holds the seat.
#[async_trait]
pub(crate) trait ToSeat: Send + Sync + 'static {
    /// One question and its answer.
    async fn call(&self, body: Vec<u8>) -> io::Result<Vec<u8>>;
}

/// What a node asks of the seat.
#[derive(Debug, Serialize, Deserialize)]
enum Question {
    Write(Command),
    Barrier,
}

/// What the seat answers.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// Done; whoever has applied `revision` sees it.
    Done {
        outcome: Outcome,
        revision: u64,
    },
    Refused {
        reason: Reason,
        said: String,
    },
}

/// What the seat has applied since it was told last.
#[derive(Debug, Serialize, Deserialize)]
struct News {
    standing: Standing,
    update: Update,
}

/// What is on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    group: Option<String>,
    machine: Machine,
}

/// What a seat tells one node that follows it.
pub(crate) struct Feed {
    applied: watch::Receiver<Arc<Applied>>,
    standing: watch::Receiver<Standing>,
    told: Option<u64>,
}

impl Feed {
    pub(super) fn new(mut applied: watch::Receiver<Arc<Applied>>, standing: watch::Receiver<Standing>) -> Self {
        applied.mark_changed();
        Self { applied, standing, told: None }
    }

    /// The next news, at once the first time. It can be dropped while it waits.
    pub(crate) async fn next(&mut self) -> io::Result<Vec<u8>> {
        let changed = tokio::select! {
            changed = self.applied.changed() => changed,
            changed = self.standing.changed() => changed,
        };
        changed.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "policy has ended"))?;
        let machine = self.applied.borrow_and_update().machine.clone();
        let update = match self.told {
            Some(told) => machine.since(told),
            // Whatever it has, it may be another group's.
            None => Update::Whole(Machine::clone(&machine)),
        };
        self.told = Some(machine.set().revision);
        Ok(record::encode(&News { standing: self.standing.borrow_and_update().clone(), update })?)
    }
}

impl Seat {
    /// Does what another node of the cluster asks.
    pub(crate) async fn answer_node(&self, body: &[u8]) -> Result<Vec<u8>, RecordError> {
        let done = match record::decode(body)? {
            Question::Write(command) => self.write(command).await,
            Question::Barrier => self.read_barrier().await.map(|()| Outcome::Nothing),
        };
        record::encode(&match done {
            Ok(outcome) => Answer::Done { outcome, revision: self.set().borrow().revision },
            Err(error) => Answer::Refused { reason: error.reason(), said: error.to_string() },
        })
    }
}

/// A copy of what the seat has applied. Clones share it.
#[derive(Clone)]
pub struct Copy {
    inner: Arc<Inner>,
}

struct Inner {
    /// The node that holds the seat.
    seat: NodeName,
    way: Arc<dyn ToSeat>,
    machine: watch::Sender<Arc<Machine>>,
    set: watch::Sender<Arc<PolicySet>>,
    standing: watch::Sender<Standing>,
    disk: Arc<dyn Disk>,
    _saving: AbortOnDropHandle<()>,
}

impl Copy {
    /// What is on disk, until the seat tells more.
    pub(crate) fn open(seat: NodeName, way: Arc<dyn ToSeat>, disk: Arc<dyn Disk>) -> io::Result<Self> {
        let stored = match disk.read(RECORD)?.map(|bytes| record::decode::<Stored>(&bytes)) {
            Some(Ok(stored)) => stored,
            Some(Err(error)) => {
                tracing::warn!(record = RECORD, %error, "the copy of policy is left alone; the seat's node tells it again");
                Stored::default()
            }
            None => Stored::default(),
        };
        let Stored { group, machine } = stored;
        let standing = Standing { group, revision: machine.set().revision, ..Standing::default() };
        let set = watch::Sender::new(Arc::new(machine.set().clone()));
        let (machine, standing) = (watch::Sender::new(Arc::new(machine)), watch::Sender::new(standing));
        let saving = tokio::spawn(keep_saved(disk.clone(), machine.subscribe(), standing.subscribe()));
        let inner = Inner { seat, way, machine, set, standing, disk, _saving: AbortOnDropHandle::new(saving) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A slot that always holds the policy of the copy.
    #[must_use]
    pub fn set(&self) -> watch::Receiver<Arc<PolicySet>> {
        self.inner.set.subscribe()
    }

    /// A slot that always holds the cluster's standing, as far as it is known here.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.inner.standing.subscribe()
    }

    /// The changes that are remembered, oldest first; of one object, or of all.
    #[must_use]
    pub fn history(&self, key: Option<&str>) -> Vec<Change> {
        let machine = self.inner.machine.borrow().clone();
        machine.history().filter(|change| key.is_none_or(|key| change.key == key)).cloned().collect()
    }

    /// Takes over what the seat says.
    pub(crate) fn take(&self, body: &[u8]) -> Result<(), RecordError> {
        let News { standing, update } = record::decode(body)?;
        let ours = self.inner.standing.borrow().group.clone();
        let group = standing.group.clone().or_else(|| ours.clone());
        let current = self.inner.machine.borrow().clone();
        let takes = match &update {
            Update::Since { changes, .. } => !changes.is_empty(),
            // A seat that has just started may not know yet how much of its log is committed.
            Update::Whole(whole) if standing.group == ours => whole.set().revision > current.set().revision,
            Update::Whole(_) => standing.group.is_some(),
        };
        if takes {
            let mut machine = Machine::clone(&current);
            machine.update(update);
            self.inner.set.send_replace(Arc::new(machine.set().clone()));
            self.inner.machine.send_replace(Arc::new(machine));
        }
        let revision = self.inner.set.borrow().revision;
        self.stand(Standing { group, revision, ..standing });
        Ok(())
    }

    /// The seat's node does not answer: what is here stays in force.
    pub(crate) fn away(&self) {
        let standing = self.inner.standing.borrow().clone();
        let reach = Reach { answering: 0, ..standing.reach };
        self.stand(Standing { leader: None, reach, ..standing });
    }

    fn stand(&self, now: Standing) {
        self.inner.standing.send_if_modified(|standing| std::mem::replace(standing, now.clone()) != now);
    }

    /// Writes through the seat, and returns once it is here.
    pub async fn write(&self, command: Command) -> Result<Outcome, WriteError> {
        self.ask(Question::Write(command)).await
    }

    /// Returns once everything is here that was acknowledged before the call.
    pub async fn read_barrier(&self) -> Result<(), WriteError> {
        self.ask(Question::Barrier).await.map(drop)
    }

    async fn ask(&self, question: Question) -> Result<Outcome, WriteError> {
        let node = || self.inner.seat.to_string();
        let garbled =
            |source| WriteError::Unknown { leader: node(), source: CallError::Garbled { cluster: node(), source } };
        let body = record::encode(&question).map_err(garbled)?;
        let answer = self.inner.way.call(body).await.map_err(|source| match was_not_sent(&source) {
            true => WriteError::SeatAway { node: self.inner.seat.clone(), why: source.to_string() },
            false => WriteError::Unknown { leader: node(), source: CallError::Unreachable { cluster: node(), source } },
        })?;
        match record::decode(&answer).map_err(garbled)? {
            Answer::Refused { reason, said } => Err(WriteError::AtSeat { reason, said }),
            Answer::Done { outcome, revision } => {
                let mut set = self.set();
                match timeout(APPLIED_WITHIN, set.wait_for(|set| set.revision >= revision)).await {
                    Ok(Ok(_)) => Ok(outcome),
                    _ => Err(WriteError::NotAppliedHere { index: revision }),
                }
            }
        }
    }

    /// Writes the copy to the disk a last time.
    pub(crate) async fn stop(&self) {
        let (machine, standing) = (self.inner.machine.borrow().clone(), self.inner.standing.borrow().clone());
        save(self.inner.disk.clone(), standing.group, machine).await;
    }
}

async fn keep_saved(
    disk: Arc<dyn Disk>,
    mut machine: watch::Receiver<Arc<Machine>>,
    mut standing: watch::Receiver<Standing>,
) {
    let mut saved = standing.borrow().group.clone();
    loop {
        tokio::select! {
            changed = machine.changed() => if changed.is_err() { return },
            joined = standing.wait_for(|standing| standing.group != saved) => if joined.is_err() { return },
        }
        tokio::time::sleep(SAVE_AFTER).await;
        saved = standing.borrow_and_update().group.clone();
        let machine = machine.borrow_and_update().clone();
        save(disk.clone(), saved.clone(), machine).await;
    }
}

async fn save(disk: Arc<dyn Disk>, group: Option<String>, machine: Arc<Machine>) {
    let write = move || {
        let stored = Stored { group, machine: Machine::clone(&machine) };
        disk.write(RECORD, &record::encode(&stored)?)
    };
    match tokio::task::spawn_blocking(write).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the copy of policy cannot be written; it is served from memory"),
        Err(error) => tracing::error!(%error, "the copy of policy is not written"),
    }
}
