//! The data directory as everything here sees it: named records and a key-value store for the Raft log. Handed in, so
//! that a whole fleet can run in one process, and so that a test can lose what was not flushed.

use std::io;
use std::sync::Arc;

/// A node's data directory.
pub trait Disk: Send + Sync + 'static {
    /// A record's bytes, if it exists.
    fn read(&self, record: &str) -> io::Result<Option<Vec<u8>>>;
    /// Replaces a record as a whole; durable once it returns.
    fn write(&self, record: &str, bytes: &[u8]) -> io::Result<()>;
    /// Removes a record; one that is not there is no error.
    fn remove(&self, record: &str) -> io::Result<()>;
    /// The names of all records that begin with `prefix`, sorted.
    fn list(&self, prefix: &str) -> io::Result<Vec<String>>;
    /// Opens the ordered key-value store.
    fn open_store(&self) -> io::Result<Arc<dyn Store>>;
}

/// An ordered key-value store.
pub trait Store: Send + Sync + 'static {
    /// A value.
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>>;
    /// All pairs with `from <= key < to`, in order.
    fn range(&self, from: &[u8], to: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>>;
    /// Applies all changes or none, in order. `None` removes. Not durable before [`Store::flush`].
    fn apply(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> io::Result<()>;
    /// Returns once everything applied before is durable.
    fn flush(&self) -> io::Result<()>;
}
