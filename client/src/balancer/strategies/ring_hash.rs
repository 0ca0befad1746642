//! Consistent hashing on a ring, with bounded load: equal keys go to one endpoint, and a change of endpoints moves few keys.
//!
//! Karger et al. (1997): each endpoint stands on the ring at up to 256 places, in proportion to its weight, unless the ring's
//! limits want more or fewer. A key goes to the
//! first endpoint at or after its place that has room. A request without a key gets a random one.

use std::net::SocketAddr;

use super::super::{Candidates, Choice, Member, RequestInfo, Strategy};
use super::bounded::{first_with_room, hash_of, mix};
use crate::xds::balancing::Ring;

/// Places of the heaviest endpoint: fewer where there are very many endpoints.
const MOST_PLACES: usize = 256;
const FEWEST_PLACES: usize = 16;
/// Places are few where there are very many endpoints, whatever is allowed.
const LARGEST_RING: usize = 1 << 20;

/// The strategy.
#[derive(Debug, Clone, Copy)]
pub struct RingHash {
    /// How many times the mean an endpoint may have in flight; more than 1.
    pub bound: f64,
    /// The fewest places on the ring, as far as a million.
    pub least: u32,
    /// The most, beyond one for each endpoint.
    pub most: u32,
}

impl Default for RingHash {
    /// A quarter more than the mean, and any size.
    fn default() -> Self {
        Ring::default().into()
    }
}

impl From<Ring> for RingHash {
    fn from(ring: Ring) -> Self {
        Self { bound: f64::from(ring.bound_percent) / 100.0, least: ring.least, most: ring.most }
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
        // So many heaviest endpoints would weigh as much as all.
        let sum = members.iter().map(|member| f64::from(member.weight)).sum::<f64>() / f64::from(heaviest);
        let least = f64::from(self.least.min(LARGEST_RING as u32));
        let places = places.max(least / sum).min(f64::from(self.most) / sum);
        let mut ring = Vec::new();
        for (at, member) in (0u32..).zip(members) {
            let places = ((places * f64::from(member.weight) / f64::from(heaviest)).round() as u64).max(1);
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
