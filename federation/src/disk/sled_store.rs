//! The key-value store on disk: sled. Nothing is durable before a flush.

use std::io;
use std::path::Path;

use super::Store;

/// A sled database.
#[derive(Debug)]
pub struct SledStore {
    db: sled::Db,
}

impl SledStore {
    /// Opens or makes the database in `folder`.
    pub fn open(folder: &Path) -> io::Result<Self> {
        // Flushes are ours alone, so that what was acknowledged is exactly what was flushed.
        let db = sled::Config::default().path(folder).flush_every_ms(None).open()?;
        Ok(Self { db })
    }
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.db.get(key)?.map(|value| value.to_vec()))
    }

    fn range(&self, from: &[u8], to: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        if from >= to {
            return Ok(Vec::new());
        }
        self.db
            .range(from..to)
            .map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(io::Error::from))
            .collect()
    }

    fn last(&self, from: &[u8], to: &[u8]) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let last = self.db.range(from..to).next_back().transpose()?;
        Ok(last.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    fn apply(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        Ok(self.db.apply_batch(batch)?)
    }

    fn flush(&self) -> io::Result<()> {
        self.db.flush()?;
        Ok(())
    }
}
