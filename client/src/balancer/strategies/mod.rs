//! The other strategies, each a small module whose head states its rule and where that comes from. The default is
//! [`LeastRequest`](super::LeastRequest); `docs/clients.md` says which to choose when.

mod bounded;
mod hot_cold;
mod maglev;
mod peak_ewma;
mod prefix_affinity;
mod request_cost;
mod ring_hash;
mod weighted_round_robin;

pub use self::hot_cold::HotCold;
pub use self::maglev::Maglev;
pub use self::peak_ewma::PeakEwma;
pub use self::prefix_affinity::PrefixAffinity;
pub use self::request_cost::RequestCost;
pub use self::ring_hash::RingHash;
pub use self::weighted_round_robin::WeightedRoundRobin;

#[cfg(test)]
mod tests;
