//! Maglev hashing with bounded load: a look-up table in which each endpoint has its part almost exactly.
//!
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), section 3.4. Endpoints take
//! turns to claim the next free place of a permutation of their own; the heavier ones more often. Against
//! [`RingHash`](super::RingHash) shares are more even, and a change of endpoints moves a few more keys. A key whose endpoint
//! has no room goes on along the table.

use std::net::SocketAddr;

use super::super::{Candidates, Choice, Member, RequestInfo, Strategy};
use super::bounded::{first_with_room, hash_of, mix};
use crate::xds::balancing::{Lookup, TableSize};

/// Primes: a step through the table then visits every place. The first that is a hundred times the endpoints.
const SIZES: [usize; 4] = [1009, 10_007, 65_537, 655_373];

/// The strategy.
#[derive(Debug, Clone, Copy)]
pub struct Maglev {
    /// How many times the mean an endpoint may have in flight; more than 1.
    pub bound: f64,
    /// How many places the table has; `None`: about a hundred times as many as there are endpoints.
    pub size: Option<TableSize>,
}

impl Default for Maglev {
    /// A quarter more than the mean.
    fn default() -> Self {
        Lookup::default().into()
    }
}

impl From<Lookup> for Maglev {
    fn from(lookup: Lookup) -> Self {
        Self { bound: f64::from(lookup.bound_percent) / 100.0, size: lookup.size }
    }
}

impl Strategy for Maglev {
    type Node = ();
    /// The index of each place's endpoint.
    type Table = Vec<u32>;

    fn node(&self, _: SocketAddr) {}

    fn table(&self, members: &[Member<()>]) -> Self::Table {
        let fitting = || SIZES.into_iter().find(|size| *size >= members.len() * 100).unwrap_or(SIZES[SIZES.len() - 1]);
        let size = self.size.map_or_else(fitting, |size| size.get() as usize);
        let heaviest = members.iter().map(|member| member.weight).max().unwrap_or(1);
        let mut walks: Vec<Walk> = members.iter().map(|member| Walk::new(member, heaviest, size)).collect();
        let mut table = vec![u32::MAX; size];
        let mut free = size;
        while free > 0 {
            for (at, walk) in (0u32..).zip(&mut walks) {
                walk.credit += walk.part;
                if walk.credit >= 1.0 && free > 0 {
                    walk.credit -= 1.0;
                    while table[walk.place] != u32::MAX {
                        walk.place = (walk.place + walk.step) % size;
                    }
                    table[walk.place] = at;
                    free -= 1;
                }
            }
        }
        table
    }

    fn choose(&self, candidates: &Candidates<'_, ()>, table: &Self::Table, request: &RequestInfo<'_>) -> Choice {
        let key = request.hash.map_or_else(|| candidates.random(), |hash| mix(hash, 0));
        let from = (key % table.len() as u64) as usize;
        let order = table[from..].iter().chain(&table[..from]).map(|at| *at as usize);
        let at = first_with_room(candidates, self.bound, order);
        at.map_or_else(|| candidates.least_loaded(), |at| Choice { at, over: None })
    }

    fn affinity(&self, request: &RequestInfo<'_>) -> Option<u64> {
        request.hash.map(|hash| mix(hash, 1))
    }
}

/// An endpoint's way through the table.
struct Walk {
    place: usize,
    step: usize,
    /// Of a turn: its weight over the heaviest.
    part: f64,
    credit: f64,
}

impl Walk {
    fn new(member: &Member<()>, heaviest: u32, size: usize) -> Self {
        let hash = hash_of(member.address);
        let place = (hash % size as u64) as usize;
        let step = (mix(hash, 1) % (size as u64 - 1)) as usize + 1;
        Self { place, step, part: f64::from(member.weight) / f64::from(heaviest), credit: 0.0 }
    }
}
