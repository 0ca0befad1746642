//! What the catalog remembers over a restart: the pace of each plan, as one record with a format version.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::Duration;

use portolan_federation::disk::Disk;
use portolan_topology::plan::Paced;
use serde::{Deserialize, Serialize};

use super::core::{PlanKey, Remembered};

const RECORD: &str = "plans";
const FORMAT: u32 = 1;

/// Why the record cannot be used. The catalog goes on without it: plans start afresh.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    #[error("cannot read the record `{RECORD}` of the data directory; plans start afresh")]
    Read(#[source] io::Error),
    #[error("cannot write the record `{RECORD}` of the data directory; after a restart plans start afresh")]
    Write(#[source] io::Error),
    #[error("the record `{RECORD}` of the data directory cannot be understood; plans start afresh")]
    Malformed(#[source] serde_json::Error),
    #[error(
        "the record `{RECORD}` of the data directory has format {found}, this version knows {FORMAT}; plans start afresh"
    )]
    Format { found: u32 },
}

#[derive(Deserialize)]
struct Header {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    plans: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    key: PlanKey,
    paced: Paced,
    used: Duration,
}

pub(super) fn load(disk: &dyn Disk) -> Result<HashMap<PlanKey, Remembered>, MemoryError> {
    let Some(bytes) = disk.read(RECORD).map_err(MemoryError::Read)? else { return Ok(HashMap::new()) };
    let header: Header = serde_json::from_slice(&bytes).map_err(MemoryError::Malformed)?;
    if header.format != FORMAT {
        return Err(MemoryError::Format { found: header.format });
    }
    let record: Record = serde_json::from_slice(&bytes).map_err(MemoryError::Malformed)?;
    let remembered = |entry: Entry| (entry.key, Remembered { paced: entry.paced, used: entry.used });
    Ok(record.plans.into_iter().map(remembered).collect())
}

pub(super) fn save(disk: &dyn Disk, plans: BTreeMap<PlanKey, Remembered>) -> Result<(), MemoryError> {
    let entry = |(key, Remembered { paced, used })| Entry { key, paced, used };
    let record = Record { format: FORMAT, plans: plans.into_iter().map(entry).collect() };
    let bytes = serde_json::to_vec(&record).map_err(MemoryError::Malformed)?;
    disk.write(RECORD, &bytes).map_err(MemoryError::Write)
}
