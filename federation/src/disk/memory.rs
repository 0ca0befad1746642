//! A data directory in memory, for tests and simulations. It survives a restart for as long as somebody holds it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, Store, check_record};

/// Records and a store in memory. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    records: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    store: Arc<MemoryStore>,
}

impl Disk for MemoryDisk {
    fn read(&self, record: &str) -> io::Result<Option<Vec<u8>>> {
        check_record(record)?;
        Ok(self.records.lock().get(record).cloned())
    }

    fn write(&self, record: &str, bytes: &[u8]) -> io::Result<()> {
        check_record(record)?;
        self.records.lock().insert(record.to_owned(), bytes.to_owned());
        Ok(())
    }

    fn remove(&self, record: &str) -> io::Result<()> {
        check_record(record)?;
        self.records.lock().remove(record);
        Ok(())
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        Ok(self.records.lock().keys().filter(|record| record.starts_with(prefix)).cloned().collect())
    }

    fn open_store(&self) -> io::Result<Arc<dyn Store>> {
        Ok(self.store.clone())
    }
}

/// An ordered key-value store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    pairs: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.pairs.lock().get(key).cloned())
    }

    fn range(&self, from: &[u8], to: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let pairs = self.pairs.lock();
        let range = pairs.range(from.to_owned()..to.to_owned());
        Ok(range.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn apply(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> io::Result<()> {
        let mut pairs = self.pairs.lock();
        for (key, value) in changes {
            match value {
                Some(value) => pairs.insert(key, value),
                None => pairs.remove(&key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
