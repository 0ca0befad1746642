//! The state machine as Raft drives it: [`Machine`] in memory, its snapshots on a [`Store`], readers through a slot that
//! always holds the newest policy.

use std::io::{self, Cursor};
use std::sync::Arc;

use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{
    Entry, EntryPayload, ErrorSubject, ErrorVerb, LogId, OptionalSend, RaftSnapshotBuilder, SnapshotMeta, StorageError,
    StoredMembership,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::log::{failed, flush};
use super::machine::Machine;
use super::record;
use super::types::{Member, Outcome, PolicyRaft};
use crate::disk::Store;

const SNAPSHOT: &[u8] = b"snapshot";

/// What has been applied, as one immutable value.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Applied {
    /// The last entry applied, Raft's own included.
    pub(super) last: Option<LogId<u64>>,
    /// The last membership applied.
    pub(super) membership: StoredMembership<u64, Member>,
    /// The policy objects and their history.
    pub(super) machine: Arc<Machine>,
}

/// The state machine. Clones share everything; the one that openraft owns is the only writer.
#[derive(Clone)]
pub(super) struct StateMachine {
    store: Arc<dyn Store>,
    applied: watch::Sender<Arc<Applied>>,
    snapshot: Arc<Mutex<Option<StoredSnapshot>>>,
}

#[derive(Clone, Serialize, Deserialize)]
struct StoredSnapshot {
    meta: SnapshotMeta<u64, Member>,
    applied: Applied,
}

impl StateMachine {
    /// Opens the state machine: the last snapshot on `store`, or nothing. Raft then applies what was committed since.
    pub(super) fn open(store: Arc<dyn Store>) -> io::Result<Self> {
        let snapshot: Option<StoredSnapshot> = store.get(SNAPSHOT)?.map(|bytes| record::decode(&bytes)).transpose()?;
        let applied = snapshot.as_ref().map(|snapshot| snapshot.applied.clone()).unwrap_or_default();
        Ok(Self { store, applied: watch::Sender::new(Arc::new(applied)), snapshot: Arc::new(Mutex::new(snapshot)) })
    }

    /// A slot that always holds what has been applied.
    #[must_use]
    pub(super) fn applied(&self) -> watch::Receiver<Arc<Applied>> {
        self.applied.subscribe()
    }

    async fn keep(&self, snapshot: StoredSnapshot) -> io::Result<()> {
        let bytes = record::encode(&snapshot)?;
        self.store.apply(vec![(SNAPSHOT.to_vec(), Some(bytes))])?;
        flush(&self.store).await?;
        *self.snapshot.lock() = Some(snapshot);
        Ok(())
    }
}

fn as_openraft(snapshot: &StoredSnapshot) -> io::Result<Snapshot<PolicyRaft>> {
    let bytes = record::encode(&snapshot.applied)?;
    Ok(Snapshot { meta: snapshot.meta.clone(), snapshot: Box::new(Cursor::new(bytes)) })
}

impl RaftSnapshotBuilder<PolicyRaft> for StateMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<PolicyRaft>, StorageError<u64>> {
        let applied = Applied::clone(&self.applied.borrow());
        let snapshot_id = applied.last.map_or_else(|| "empty".to_owned(), |last| last.to_string());
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership.clone(), snapshot_id };
        let snapshot = StoredSnapshot { meta, applied };
        let failed = |error| failed(ErrorSubject::Snapshot(None), ErrorVerb::Write, &error);
        let built = as_openraft(&snapshot).map_err(failed)?;
        self.keep(snapshot).await.map_err(failed)?;
        Ok(built)
    }
}

impl RaftStateMachine<PolicyRaft> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, Member>), StorageError<u64>> {
        let applied = self.applied.borrow();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<PolicyRaft>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut applied = Applied::clone(&self.applied.borrow());
        let mut outcomes = Vec::new();
        for entry in entries {
            applied.last = Some(entry.log_id);
            outcomes.push(match entry.payload {
                EntryPayload::Blank => Outcome::Nothing,
                EntryPayload::Normal(command) => {
                    Arc::make_mut(&mut applied.machine).apply(entry.log_id.index, &command)
                }
                EntryPayload::Membership(membership) => {
                    applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Outcome::Nothing
                }
            });
        }
        self.applied.send_replace(Arc::new(applied));
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError<u64>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, Member>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<u64>> {
        let failed = |error| failed(ErrorSubject::Snapshot(Some(meta.signature())), ErrorVerb::Write, &error);
        let applied: Applied = record::decode(snapshot.get_ref()).map_err(|error| failed(error.into()))?;
        let stored = StoredSnapshot { meta: meta.clone(), applied };
        self.keep(stored.clone()).await.map_err(failed)?;
        self.applied.send_replace(Arc::new(stored.applied));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<PolicyRaft>>, StorageError<u64>> {
        let snapshot = self.snapshot.lock().clone();
        snapshot
            .map(|snapshot| as_openraft(&snapshot))
            .transpose()
            .map_err(|error| failed(ErrorSubject::Snapshot(None), ErrorVerb::Read, &error))
    }
}
