//! A store that a test can crash: what was applied and not flushed is gone, as on a machine that lost its power.
//!
//! Also openraft's own storage suite, and what must hold of a log and a state machine after a crash.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use openraft::storage::{RaftLogStorage, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{LogId, RaftSnapshotBuilder, StorageError, Vote};
use parking_lot::Mutex;

use super::log::LogStore;
use super::state::StateMachine;
use super::types::PolicyRaft;
use crate::disk::{SledStore, Store};

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// The store, and the bug that a test can give it.
#[derive(Default)]
pub(super) struct CrashStore {
    volatile: Mutex<Pairs>,
    durable: Mutex<Pairs>,
    flush_does_nothing: bool,
}

impl CrashStore {
    /// A store whose flush acknowledges without keeping anything.
    pub(super) fn that_does_not_flush() -> Self {
        Self { flush_does_nothing: true, ..Self::default() }
    }

    /// Loses everything that was not flushed.
    pub(super) fn crash(&self) {
        *self.volatile.lock() = self.durable.lock().clone();
    }
}

impl Store for CrashStore {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.volatile.lock().get(key).cloned())
    }

    fn range(&self, from: &[u8], to: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let pairs = self.volatile.lock();
        Ok(pairs.range(from.to_vec()..to.to_vec()).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn apply(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> io::Result<()> {
        let mut pairs = self.volatile.lock();
        for (key, value) in changes {
            match value {
                Some(value) => pairs.insert(key, value),
                None => pairs.remove(&key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        if !self.flush_does_nothing {
            *self.durable.lock() = self.volatile.lock().clone();
        }
        Ok(())
    }
}

struct OnCrashStore;

impl StoreBuilder<PolicyRaft, LogStore, StateMachine> for OnCrashStore {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError<u64>> {
        let store: Arc<dyn Store> = Arc::new(CrashStore::default());
        Ok(((), LogStore::new(Arc::clone(&store)), StateMachine::open(store).unwrap()))
    }
}

struct OnSled;

impl StoreBuilder<PolicyRaft, LogStore, StateMachine, tempfile::TempDir> for OnSled {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<u64>> {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(SledStore::open(dir.path()).unwrap());
        Ok((dir, LogStore::new(Arc::clone(&store)), StateMachine::open(store).unwrap()))
    }
}

#[test]
fn openraft_finds_the_storage_sound_in_memory() {
    Suite::test_all(OnCrashStore).unwrap();
}

#[test]
fn openraft_finds_the_storage_sound_on_sled() {
    Suite::test_all(OnSled).unwrap();
}

async fn a_vote_survives(store: CrashStore) -> bool {
    let store = Arc::new(store);
    let mut log = LogStore::new(Arc::clone(&store) as Arc<dyn Store>);
    let vote = Vote::new(3, 7);
    log.save_vote(&vote).await.unwrap();
    store.crash();
    log.read_vote().await.unwrap() == Some(vote)
}

#[tokio::test]
async fn a_vote_that_was_acknowledged_survives_a_crash() {
    assert!(a_vote_survives(CrashStore::default()).await);
}

#[tokio::test]
async fn without_the_flush_a_vote_is_lost_and_the_check_sees_it() {
    assert!(!a_vote_survives(CrashStore::that_does_not_flush()).await);
}

#[tokio::test]
async fn a_snapshot_survives_a_crash_and_is_what_the_state_machine_opens_with() {
    let store = Arc::new(CrashStore::default());
    let mut machine = StateMachine::open(Arc::clone(&store) as Arc<dyn Store>).unwrap();
    let entry = openraft::Entry {
        log_id: LogId::new(openraft::CommittedLeaderId::new(1, 1), 4),
        payload: openraft::EntryPayload::<PolicyRaft>::Blank,
    };
    machine.apply([entry]).await.unwrap();
    machine.build_snapshot().await.unwrap();
    store.crash();
    let mut reopened = StateMachine::open(store).unwrap();
    assert_eq!(reopened.applied_state().await.unwrap().0.unwrap().index, 4);
}
