//! The records of the data directory: the epoch, and what is known of other clusters. Read once at the start, written
//! behind the hub's back, so that a slow disk holds up nobody.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use portolan_topology::names::ClusterName;
use prost::Message;

use crate::disk::Disk;
use crate::federation::StartError;
use crate::gossip::facts::{Facts, Incoming};
use crate::gossip::value;
use crate::proto;

const FORMAT: u32 = 1;
const EPOCH: &str = "epoch";
const FACTS: &str = "facts/";

/// A record to write; without bytes, to remove.
pub(crate) type Record = (String, Option<Vec<u8>>);

/// The records, as the hub uses them.
#[derive(Clone)]
pub(crate) struct Records {
    disk: Arc<dyn Disk>,
}

impl Records {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk }
    }

    /// The highest epoch that our cluster is known to have published with, 0 if none.
    pub(crate) fn epoch(&self) -> Result<u64, StartError> {
        let failed = |source| StartError::Disk { record: EPOCH.to_owned(), source };
        let Some(bytes) = self.disk.read(EPOCH).map_err(failed)? else { return Ok(0) };
        match proto::StoredEpoch::decode(&*bytes) {
            Ok(stored) if stored.format == FORMAT => Ok(stored.epoch),
            _ => Err(failed(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is damaged or of a newer version; remove it, and the others will tell which epochs they remember",
            ))),
        }
    }

    /// Raises the epoch. It must be on disk before anything is said with it.
    pub(crate) async fn raise_epoch(&self, epoch: u64) -> io::Result<()> {
        self.write(vec![Self::epoch_record(epoch)]).await
    }

    /// The record of the highest epoch that our cluster is known to have published with.
    pub(crate) fn epoch_record(epoch: u64) -> Record {
        (EPOCH.to_owned(), Some(proto::StoredEpoch { format: FORMAT, epoch }.encode_to_vec()))
    }

    /// What was known of every cluster. A damaged record is as good as none: the others say it again.
    pub(crate) fn facts(&self) -> Result<BTreeMap<ClusterName, Facts>, StartError> {
        let mut known = BTreeMap::new();
        for (record, bytes) in self.all(FACTS)? {
            let Some(cluster) = record.strip_prefix(FACTS).and_then(|name| ClusterName::new(name).ok()) else {
                continue;
            };
            match read_facts(&bytes) {
                Ok(facts) => drop(known.insert(cluster, facts)),
                Err(error) => tracing::warn!(record, error, "a record is left alone"),
            }
        }
        Ok(known)
    }

    /// The record of what is known of `cluster`.
    pub(crate) fn facts_record(cluster: &ClusterName, facts: &Facts) -> Record {
        let entry = |(key, raw): (_, &bytes::Bytes)| proto::StoredFact { key: format!("{key}"), value: raw.clone() };
        let stored = proto::StoredFacts { format: FORMAT, facts: facts.raw().map(entry).collect() };
        (format!("{FACTS}{cluster}"), Some(stored.encode_to_vec()))
    }

    /// All records that begin with `prefix`.
    pub(crate) fn all(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StartError> {
        let failed = |record: &str| {
            let record = record.to_owned();
            move |source| StartError::Disk { record, source }
        };
        let mut all = Vec::new();
        for record in self.disk.list(prefix).map_err(failed(prefix))? {
            if let Some(bytes) = self.disk.read(&record).map_err(failed(&record))? {
                all.push((record, bytes));
            }
        }
        Ok(all)
    }

    /// Writes records, or removes those without bytes, away from the runtime's threads.
    pub(crate) async fn write(&self, records: Vec<Record>) -> io::Result<()> {
        let disk = self.disk.clone();
        let write = move || {
            records.into_iter().try_for_each(|(record, bytes)| match bytes {
                Some(bytes) => disk.write(&record, &bytes),
                None => disk.remove(&record),
            })
        };
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
    }
}

fn read_facts(bytes: &[u8]) -> Result<Facts, String> {
    let stored = proto::StoredFacts::decode(bytes).map_err(|error| error.to_string())?;
    if stored.format != FORMAT {
        return Err(format!("it has format {}; this version reads {FORMAT}", stored.format));
    }
    let mut facts = Facts::default();
    for fact in stored.facts {
        let key = fact.key.parse().map_err(|error| format!("{error}"))?;
        let value = value::decode(&fact.value).map_err(|error| error.to_string())?;
        facts.apply(Incoming { key, value, raw: fact.value });
    }
    Ok(facts)
}
