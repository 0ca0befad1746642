//! The data directory as everything here sees it: named records and a key-value store for the Raft log. Handed in, so
//! that a whole fleet can run in one process, and so that a test can lose what was not flushed.

mod dir;
mod memory;
mod sled_store;

use std::io;
use std::sync::Arc;

pub use dir::{DirDisk, DirDiskError};
pub use memory::{MemoryDisk, MemoryStore};
pub use sled_store::SledStore;

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
    /// Opens the ordered key-value store; `InvalidData`: it is damaged.
    fn open_store(&self) -> io::Result<Arc<dyn Store>>;
    /// Moves a damaged store out of the way, for whoever wants to look at it, and says where it is kept.
    fn set_store_aside(&self) -> io::Result<String> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this disk has one store"))
    }
}

/// An ordered key-value store.
pub trait Store: Send + Sync + 'static {
    /// A value.
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>>;
    /// All pairs with `from <= key < to`, in order.
    fn range(&self, from: &[u8], to: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>>;
    /// The last pair with `from <= key < to`.
    fn last(&self, from: &[u8], to: &[u8]) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        Ok(self.range(from, to)?.pop())
    }
    /// Applies all changes or none, in order. `None` removes. Not durable before [`Store::flush`].
    fn apply(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> io::Result<()>;
    /// Returns once everything applied before is durable.
    fn flush(&self) -> io::Result<()>;
}

/// Whether `record` may name a record: letters, digits, `.`, `-` and `_`, in parts divided by `/`, none of them empty
/// or beginning with a dot.
fn check_record(record: &str) -> io::Result<()> {
    let part_is_sound = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    if record.split('/').all(part_is_sound) {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{record}` cannot name a record")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disks(dir: &std::path::Path) -> Vec<Box<dyn Disk>> {
        vec![Box::new(MemoryDisk::default()), Box::new(DirDisk::open(dir, "test").unwrap())]
    }

    #[test]
    fn every_disk_keeps_records() {
        let dir = tempfile::tempdir().unwrap();
        for disk in disks(dir.path()) {
            assert_eq!(disk.read("epoch").unwrap(), None);
            disk.write("epoch", b"7").unwrap();
            disk.write("lists/a/checkout.shop-80", b"x").unwrap();
            disk.write("lists/b", b"y").unwrap();
            assert_eq!(disk.read("epoch").unwrap().as_deref(), Some(&b"7"[..]));
            assert_eq!(disk.list("lists/").unwrap(), ["lists/a/checkout.shop-80", "lists/b"]);
            disk.remove("lists/b").unwrap();
            disk.remove("lists/b").unwrap();
            assert_eq!(disk.list("").unwrap(), ["epoch", "lists/a/checkout.shop-80"]);
        }
    }

    #[test]
    fn no_record_leaves_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        for disk in disks(dir.path()) {
            for record in ["", "..", "../owner", "a/../b", "/etc/passwd", "a//b", ".hidden", "a~", "a\0b"] {
                assert!(disk.write(record, b"x").is_err(), "{record:?}");
            }
        }
    }

    #[test]
    fn every_store_is_ordered_and_applies_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for disk in disks(dir.path()) {
            let store = disk.open_store().unwrap();
            let put = |key: &str, value: &str| (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec()));
            store.apply(vec![put("b", "2"), put("a", "1"), put("c", "3"), (b"b".to_vec(), None)]).unwrap();
            store.flush().unwrap();
            assert_eq!(store.get(b"b").unwrap(), None);
            let pairs = store.range(b"a", b"c").unwrap();
            assert_eq!(pairs, [(b"a".to_vec(), b"1".to_vec())]);
            assert!(store.range(b"c", b"a").unwrap().is_empty());
        }
    }
}
