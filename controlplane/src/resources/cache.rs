//! Encodes each resource once per key, and hands the same bytes to every stream that needs them.
//!
//! An entry lives as long as somebody holds its bytes: the cache itself keeps nothing alive.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use portolan_topology::names::Locality;

use super::build::build;
use super::class::ClientClass;
use super::name::ResourceName;
use super::{Encoded, Inner, Kind, Lookup};
use crate::catalog::served::{Served, ServedService};

/// Dead entries are swept when the map has grown to twice what lived after the last sweep, and never below this.
const SWEEP_AT_LEAST: usize = 256;

/// Encoded resources by (kind, name, client's place, client's class).
#[derive(Debug, Default)]
pub struct EncodedCache {
    entries: Mutex<Entries>,
    encodes: AtomicU64,
}

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<Key, Entry>,
    sweep_at: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    kind: Kind,
    name: Arc<str>,
    client: Locality,
    class: ClientClass,
}

#[derive(Debug)]
struct Entry {
    /// What it was made from. Weak, but it keeps the address from being given to another.
    source: Source,
    encoded: Weak<Inner>,
}

#[derive(Debug, Clone)]
enum Source {
    Absent,
    Present(Weak<ServedService>),
}

impl Source {
    fn of(served: &Served) -> Option<Self> {
        match served {
            Served::NotYet => None,
            Served::Absent => Some(Self::Absent),
            Served::Present(service) => Some(Self::Present(Arc::downgrade(service))),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, Self::Absent) => true,
            (Self::Present(a), Self::Present(b)) => Weak::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl EncodedCache {
    /// The resource `asked` of `kind` for a client of `class` at `client`, given what the catalog serves it.
    #[must_use]
    pub fn get(
        &self,
        kind: Kind,
        asked: &Arc<str>,
        name: Option<&ResourceName>,
        served: &Served,
        client: &Locality,
        class: ClientClass,
    ) -> Lookup {
        // Not worth an entry: nothing to encode, or a name that only a confused client asks for.
        let (Some(_), Some(source)) = (name, Source::of(served)) else {
            return build(kind, asked, name, served, class);
        };
        // All classes get the same endpoints.
        let shared_by = if kind == Kind::Eds { ClientClass::Unknown } else { class };
        let key = Key { kind, name: asked.clone(), client: client.clone(), class: shared_by };
        let mut entries = self.entries.lock();
        let before = entries.by_key.get(&key).and_then(|entry| {
            let encoded = entry.encoded.upgrade().map(Encoded)?;
            Some((entry.source.is(&source), encoded))
        });
        if let Some((true, encoded)) = before {
            return Lookup::Present(encoded);
        }
        let Lookup::Present(mut encoded) = build(kind, asked, name, served, class) else {
            return Lookup::Absent;
        };
        self.encodes.fetch_add(1, Ordering::Relaxed);
        // Most changes leave most resources as they were: then everybody goes on sharing the old bytes.
        if let Some((_, before)) = before
            && before == encoded
        {
            encoded = before;
        }
        entries.insert(key, Entry { source, encoded: Arc::downgrade(&encoded.0) });
        Lookup::Present(encoded)
    }

    /// How many resources were encoded since the start.
    #[must_use]
    pub fn encodes(&self) -> u64 {
        self.encodes.load(Ordering::Relaxed)
    }

    /// How many entries there are, those included that nobody holds any more and that the next sweep takes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.lock().by_key.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Entries {
    fn insert(&mut self, key: Key, entry: Entry) {
        if self.by_key.len() >= self.sweep_at.max(SWEEP_AT_LEAST) {
            self.by_key.retain(|_, entry| entry.encoded.strong_count() > 0);
            self.sweep_at = self.by_key.len() * 2;
        }
        self.by_key.insert(key, entry);
    }
}
