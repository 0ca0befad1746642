//! Bounded load: an endpoint that hashing prefers is passed over while it has more than its part of what is in flight.
//!
//! Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2016): with a bound of `c` times the mean, at
//! most `1 / (c − 1)²` endpoints are passed on the way, on average.

use super::super::Candidates;

/// The mean is taken over at most so many endpoints, drawn at random.
const SAMPLE: usize = 32;

/// How many requests in flight an endpoint may have: `⌈bound × (mean + 1) × weight⌉`, weights in multiples of the mean.
/// The one more is the request that is to be placed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    in_flight_per_weight: f64,
}

impl Room {
    pub(super) fn of<N>(candidates: &Candidates<'_, N>, bound: f64) -> Self {
        let n = candidates.len();
        let sample = |at: usize| (f64::from(candidates.in_flight(at)), candidates.weight(at));
        let add = |sum: (f64, f64), one: (f64, f64)| (sum.0 + one.0, sum.1 + one.1);
        let taken = n.min(SAMPLE);
        let (in_flight, weight) = if n <= SAMPLE {
            (0..n).map(sample).fold((0.0, 0.0), add)
        } else {
            (0..SAMPLE).map(|_| sample((candidates.random() % n as u64) as usize)).fold((0.0, 0.0), add)
        };
        Self { in_flight_per_weight: bound * (in_flight + taken as f64) / weight.max(f64::MIN_POSITIVE) }
    }

    /// Whether an endpoint may take one more.
    pub(super) fn is_at<N>(self, candidates: &Candidates<'_, N>, at: usize) -> bool {
        let most = (self.in_flight_per_weight * candidates.weight(at)).ceil();
        candidates.admits(at) && f64::from(candidates.in_flight(at)) < most
    }
}

/// The first with room among those that `order` names, at most twice as many as there are endpoints; else any by load.
pub(super) fn first_with_room<N>(
    candidates: &Candidates<'_, N>,
    bound: f64,
    order: impl Iterator<Item = usize>,
) -> Option<usize> {
    let mut order = order.take(candidates.len() * 2);
    let first = order.next()?;
    // Most often it is idle, and nobody need be asked what the mean is.
    if candidates.in_flight(first) == 0 && candidates.admits(first) {
        return Some(first);
    }
    let room = Room::of(candidates, bound);
    std::iter::once(first).chain(order).find(|at| room.is_at(candidates, *at))
}

/// A well-mixed hash of two numbers (the finaliser of MurmurHash3): rings and tables are laid out by it.
pub(super) fn mix(one: u64, other: u64) -> u64 {
    let mut hash = one ^ other.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

/// The hash of an address, the same in every process.
pub(super) fn hash_of(address: std::net::SocketAddr) -> u64 {
    let (high, low) = match address.ip() {
        std::net::IpAddr::V4(ip) => (0, u64::from(ip.to_bits())),
        std::net::IpAddr::V6(ip) => ((ip.to_bits() >> 64) as u64, ip.to_bits() as u64),
    };
    mix(mix(high, low), u64::from(address.port()))
}
