//! Prefix affinity, for inference: a request goes where the longest beginning of its prompt was sent before, so that the
//! endpoint finds it in its cache; while that endpoint has room, else the default's choice.
//!
//! As the cache-aware routers of SGLang and the Gateway API's inference extension do it, by what was sent rather than by
//! what is cached: a table remembers for each prefix's hash the endpoint that had it last. The table has a fixed size; what
//! falls on the same place is forgotten.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::super::{Candidates, Choice, Member, RequestInfo, Strategy};
use super::bounded::{Room, mix};

/// Places of the table: a power of two. 512 KiB.
const PLACES: usize = 1 << 16;

/// The strategy. Give each channel its own: what it remembers is one service's.
#[derive(Debug)]
pub struct PrefixAffinity {
    bound: f64,
    /// Each holds the upper half of a prefix's hash, and below it the number of an endpoint; 0: nothing.
    seen: Box<[AtomicU64]>,
    numbers: AtomicU32,
}

impl PrefixAffinity {
    /// An endpoint has room up to `bound` times the mean of what is in flight; more than 1.
    #[must_use]
    pub fn new(bound: f64) -> Self {
        let seen = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { bound, seen, numbers: AtomicU32::new(1) }
    }

    fn place(&self, prefix: u64) -> &AtomicU64 {
        &self.seen[mix(prefix, 0) as usize % PLACES]
    }

    /// The endpoint that had this prefix last.
    fn last(&self, prefix: u64) -> Option<u32> {
        let word = self.place(prefix).load(Relaxed);
        (word != 0 && word >> 32 == prefix >> 32).then_some(word as u32)
    }
}

impl Default for PrefixAffinity {
    /// Room up to half more than the mean.
    fn default() -> Self {
        Self::new(1.5)
    }
}

impl Strategy for PrefixAffinity {
    /// The endpoint's number.
    type Node = Arc<u32>;
    /// The index of each number.
    type Table = HashMap<u32, usize>;

    fn node(&self, _: SocketAddr) -> Self::Node {
        Arc::new(self.numbers.fetch_add(1, Relaxed))
    }

    fn table(&self, members: &[Member<Self::Node>]) -> Self::Table {
        members.iter().enumerate().map(|(at, member)| (*member.node, at)).collect()
    }

    fn choose(
        &self,
        candidates: &Candidates<'_, Self::Node>,
        table: &Self::Table,
        request: &RequestInfo<'_>,
    ) -> Choice {
        let known = |prefix: &u64| table.get(&self.last(*prefix)?).copied();
        match request.prefix.iter().rev().find_map(known) {
            Some(at) if Room::of(candidates, self.bound).is_at(candidates, at) => Choice { at, over: None },
            _ => candidates.least_loaded(),
        }
    }

    fn started(&self, number: &Self::Node, request: &RequestInfo<'_>) {
        for prefix in request.prefix {
            self.place(*prefix).store(prefix >> 32 << 32 | u64::from(**number), Relaxed);
        }
    }
}
