//! Consistent hashing on a ring, with bounded load: equal keys go to one endpoint, and a change of endpoints moves few keys.
//!
//! Karger et al. (1997): each endpoint stands on the ring at up to 256 places, in proportion to its weight. A key goes to the
//! first endpoint at or after its place that has room. A request without a key gets a random one.

use std::net::SocketAddr;

use super::super::{Candidates, Choice, Member, RequestInfo, Strategy};
use super::bounded::{first_with_room, hash_of, mix};

/// Places of the heaviest endpoint: fewer where there are very many endpoints.
const MOST_PLACES: usize = 256;
const FEWEST_PLACES: usize = 16;
const LARGEST_RING: usize = 1 << 20;

/// The strategy.
#[derive(Debug, Clone, Copy)]
pub struct RingHash {
    /// How many times the mean an endpoint may have in flight; more than 1.
    pub bound: f64,
}

impl Default for RingHash {
    /// A quarter more than the mean.
    fn default() -> Self {
        Self { bound: 1.25 }
    }
}

impl Strategy for RingHash {
    type Node = ();
    /// Places by hash, each with the index of its endpoint.
    type Table = Vec<(u64, u32)>;

    fn node(&self, _: SocketAddr) {}

    fn table(&self, members: &[Member<()>]) -> Self::Table {
        // Against the heaviest, not against the sum: so those that stay keep their places when another goes.
        let heaviest = members.iter().map(|member| member.weight).max().unwrap_or(1);
        let places = (LARGEST_RING / members.len().max(1)).clamp(FEWEST_PLACES, MOST_PLACES) as f64;
        let mut ring = Vec::new();
        for (at, member) in (0u32..).zip(members) {
            let places = (places * f64::from(member.weight) / f64::from(heaviest)).ceil() as u64;
            let address = hash_of(member.address);
            ring.extend((0..places).map(|place| (mix(address, place), at)));
        }
        ring.sort_unstable();
        ring
    }

    fn choose(&self, candidates: &Candidates<'_, ()>, ring: &Self::Table, request: &RequestInfo<'_>) -> Choice {
        let key = request.hash.map_or_else(|| candidates.random(), |hash| mix(hash, 0));
        let from = ring.partition_point(|place| place.0 < key);
        let order = ring[from..].iter().chain(&ring[..from]).map(|place| place.1 as usize);
        let at = first_with_room(candidates, self.bound, order);
        at.map_or_else(|| candidates.least_loaded(), |at| Choice { at, over: None })
    }

    fn affinity(&self, request: &RequestInfo<'_>) -> Option<u64> {
        request.hash.map(|hash| mix(hash, 1))
    }
}
