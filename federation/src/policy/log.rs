//! Raft's log and vote on a [`Store`]. A vote or an entry is durable before it is acknowledged.
//!
//! Keys: `log/` and the index as eight bytes, big end first; `meta/vote`, `meta/committed`, `meta/purged`.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{
    Entry, ErrorSubject, ErrorVerb, LogId, OptionalSend, RaftLogId, RaftLogReader, StorageError, StorageIOError, Vote,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::record;
use super::types::PolicyRaft;
use crate::disk::Store;

const VOTE: &[u8] = b"meta/vote";
const COMMITTED: &[u8] = b"meta/committed";
const PURGED: &[u8] = b"meta/purged";
const ENTRIES: &[u8] = b"log/";

fn entry_key(index: u64) -> Vec<u8> {
    [ENTRIES, &index.to_be_bytes()].concat()
}

/// The end of all entries: `0` is the byte after `/`.
const ENTRIES_END: &[u8] = b"log0";

/// Wraps a disk's error for openraft, which then stops writing policy and says why.
pub(super) fn failed(subject: ErrorSubject<u64>, verb: ErrorVerb, error: &io::Error) -> StorageError<u64> {
    StorageIOError::new(subject, verb, error).into()
}

/// Waits until everything applied to `store` is durable, off the runtime's threads.
pub(super) async fn flush(store: &Arc<dyn Store>) -> io::Result<()> {
    let store = Arc::clone(store);
    tokio::task::spawn_blocking(move || store.flush()).await.map_err(io::Error::other)?
}

/// Raft's log. Clones share the store.
#[derive(Clone)]
pub(super) struct LogStore {
    store: Arc<dyn Store>,
}

impl LogStore {
    /// A log on `store`; what is there already is the log.
    #[must_use]
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    fn read<T: DeserializeOwned>(&self, key: &[u8]) -> io::Result<Option<T>> {
        self.store.get(key)?.map(|bytes| record::decode(&bytes)).transpose().map_err(Into::into)
    }

    fn write(&self, key: &[u8], value: &impl Serialize) -> io::Result<()> {
        self.store.apply(vec![(key.to_vec(), Some(record::encode(value)?))])
    }

    fn entries(&self, from: &[u8], to: &[u8]) -> io::Result<Vec<Entry<PolicyRaft>>> {
        self.store.range(from, to)?.iter().map(|(_, bytes)| Ok(record::decode(bytes)?)).collect()
    }

    fn remove(&self, from: &[u8], to: &[u8], also: Option<(Vec<u8>, Vec<u8>)>) -> io::Result<()> {
        let mut changes: Vec<_> = self.store.range(from, to)?.into_iter().map(|(key, _)| (key, None)).collect();
        changes.extend(also.map(|(key, value)| (key, Some(value))));
        self.store.apply(changes)
    }
}

impl RaftLogReader<PolicyRaft> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry<PolicyRaft>>, StorageError<u64>> {
        let from = match range.start_bound() {
            Bound::Included(index) => entry_key(*index),
            Bound::Excluded(index) => entry_key(index.saturating_add(1)),
            Bound::Unbounded => ENTRIES.to_vec(),
        };
        let to = match range.end_bound() {
            Bound::Included(index) => entry_key(index.saturating_add(1)),
            Bound::Excluded(index) => entry_key(*index),
            Bound::Unbounded => ENTRIES_END.to_vec(),
        };
        if from >= to {
            return Ok(Vec::new());
        }
        self.entries(&from, &to).map_err(|error| failed(ErrorSubject::Logs, ErrorVerb::Read, &error))
    }
}

impl RaftLogStorage<PolicyRaft> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<PolicyRaft>, StorageError<u64>> {
        let read = || -> io::Result<_> {
            let purged: Option<LogId<u64>> = self.read(PURGED)?;
            let last = self.store.last(ENTRIES, ENTRIES_END)?;
            let last = last.map(|(_, bytes)| record::decode::<Entry<PolicyRaft>>(&bytes)).transpose()?;
            Ok(LogState { last_purged_log_id: purged, last_log_id: last.map(|entry| *entry.get_log_id()).or(purged) })
        };
        read().map_err(|error| failed(ErrorSubject::Logs, ErrorVerb::Read, &error))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError<u64>> {
        let failed = |error| failed(ErrorSubject::Vote, ErrorVerb::Write, &error);
        self.write(VOTE, vote).map_err(failed)?;
        flush(&self.store).await.map_err(failed)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError<u64>> {
        self.read(VOTE).map_err(|error| failed(ErrorSubject::Vote, ErrorVerb::Read, &error))
    }

    /// Not flushed: what is committed is known again from the leader; this only lets a restarted node serve before that.
    async fn save_committed(&mut self, committed: Option<LogId<u64>>) -> Result<(), StorageError<u64>> {
        self.write(COMMITTED, &committed).map_err(|error| failed(ErrorSubject::Store, ErrorVerb::Write, &error))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<u64>>, StorageError<u64>> {
        let committed: Option<Option<LogId<u64>>> =
            self.read(COMMITTED).map_err(|error| failed(ErrorSubject::Store, ErrorVerb::Read, &error))?;
        Ok(committed.flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<PolicyRaft>) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<PolicyRaft>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let failed = |error| failed(ErrorSubject::Logs, ErrorVerb::Write, &error);
        let changes: io::Result<Vec<_>> = entries
            .into_iter()
            .map(|entry| Ok((entry_key(entry.log_id.index), Some(record::encode(&entry)?))))
            .collect();
        changes.and_then(|changes| self.store.apply(changes)).map_err(failed)?;
        flush(&self.store).await.map_err(failed)?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        let failed = |error| failed(ErrorSubject::Logs, ErrorVerb::Delete, &error);
        self.remove(&entry_key(log_id.index), ENTRIES_END, None).map_err(failed)?;
        flush(&self.store).await.map_err(failed)
    }

    async fn purge(&mut self, log_id: LogId<u64>) -> Result<(), StorageError<u64>> {
        let failed = |error| failed(ErrorSubject::Logs, ErrorVerb::Delete, &error);
        let purged = record::encode(&log_id).map_err(|error| failed(error.into()))?;
        self.remove(ENTRIES, &entry_key(log_id.index.saturating_add(1)), Some((PURGED.to_vec(), purged)))
            .map_err(failed)?;
        flush(&self.store).await.map_err(failed)
    }
}
