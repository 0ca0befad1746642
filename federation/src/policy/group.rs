//! Which group this node belongs to, and which seat it holds. Both are on the disk that the log is on: a seat belongs to
//! its disk, since a voter without its log could vote twice.

use std::io;
use std::sync::Arc;

use rand::{Rng, RngExt};
use tokio::sync::watch;

use super::log::flush;
use super::record;
use crate::disk::Store;

const SEAT: &[u8] = b"meta/seat";
const GROUP: &[u8] = b"meta/group";

/// The group's id, once there is one. Clones share it.
#[derive(Clone)]
pub(super) struct Group {
    store: Arc<dyn Store>,
    id: watch::Sender<Option<String>>,
}

impl Group {
    /// What the disk says.
    pub(super) fn open(store: Arc<dyn Store>) -> io::Result<Self> {
        let id: Option<String> = store.get(GROUP)?.map(|bytes| record::decode(&bytes)).transpose()?;
        Ok(Self { store, id: watch::Sender::new(id) })
    }

    /// The id, if there is a group.
    pub(super) fn id(&self) -> Option<String> {
        self.id.borrow().clone()
    }

    /// A slot that holds the id.
    pub(super) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.id.subscribe()
    }

    /// Joins `id`, for ever: durable when it returns.
    pub(super) async fn join(&self, id: String) -> io::Result<()> {
        self.store.apply(vec![(GROUP.to_vec(), Some(record::encode(&id)?))])?;
        flush(&self.store).await?;
        self.id.send_replace(Some(id));
        Ok(())
    }
}

/// This disk's seat; made, and made durable, at the first start.
pub(super) async fn seat(store: &Arc<dyn Store>, rng: &mut impl Rng) -> io::Result<u64> {
    if let Some(bytes) = store.get(SEAT)? {
        return Ok(record::decode(&bytes)?);
    }
    // 53 bits: the number stands in JSON, and some readers of JSON know no larger integer. 0 means nobody.
    let seat: u64 = rng.random_range(1..1 << 53);
    store.apply(vec![(SEAT.to_vec(), Some(record::encode(&seat)?))])?;
    flush(store).await?;
    Ok(seat)
}

/// A new group's id.
pub(super) fn new_id(rng: &mut impl Rng) -> String {
    format!("{:032x}", rng.random::<u128>())
}
