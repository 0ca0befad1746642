//! How endpoints share requests by the control plane's word: a strategy's name and its settings.
//!
//! Values alone: who reads them is `resources::balancing`, and who does the work the balancer.

use std::sync::Arc;
use std::time::Duration;

/// A strategy, by the control plane's word. Each is one of `balancer::strategies`; those without settings have its defaults.
#[derive(Debug, Clone, PartialEq)]
pub enum Balancing {
    /// The default. Round robin is served by it as well.
    LeastRequest,
    /// By what servers say of their utilisation.
    WeightedRoundRobin(Weighting),
    /// Peak EWMA.
    PeakEwma,
    /// A hash ring with bounded load.
    RingHash(Ring),
    /// Maglev with bounded load.
    Maglev(Lookup),
    /// Prequal's rule.
    HotCold,
    /// By the requests' cost.
    RequestCost,
    /// By the longest shared beginning of a prompt.
    PrefixAffinity,
    /// One that the application may have registered under this name.
    Custom(Arc<str>),
}

/// How weights come from what servers report: gRPC's proposal A58.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weighting {
    /// A weight counts once it has been reported for so long; 10 s by default.
    pub blackout: Duration,
    /// It counts no more when nothing was reported for so long; 180 s by default.
    pub expiry: Duration,
    /// Weights are taken up this often; 1 s by default, at least 100 ms.
    pub update: Duration,
    /// How much errors weigh; 1 by default, never negative.
    pub error_penalty: f64,
}

impl Default for Weighting {
    /// gRPC's.
    fn default() -> Self {
        Self {
            blackout: Duration::from_secs(10),
            expiry: Duration::from_secs(180),
            update: Duration::from_secs(1),
            error_penalty: 1.0,
        }
    }
}

/// A hash ring's settings: gRPC's proposal A42.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ring {
    /// The fewest places on it, if that is asked for. Otherwise each endpoint has its own number, whatever the others', so
    /// that fewer keys move; 0 by default.
    pub least: u32,
    /// The most, beyond one for each endpoint; 8,388,608 by default, and at most. Not less than the fewest.
    pub most: u32,
    /// How much more than the mean an endpoint may have in flight, in percent of the mean: 100 or more; 125 by default.
    pub bound_percent: u32,
}

impl Ring {
    /// No ring is larger.
    pub const LARGEST: u32 = 8 << 20;
}

impl Default for Ring {
    fn default() -> Self {
        Self { least: 0, most: Self::LARGEST, bound_percent: BOUND_PERCENT }
    }
}

/// Maglev's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lookup {
    /// How many places its table has; `None`: by the number of endpoints.
    pub size: Option<TableSize>,
    /// As [`Ring::bound_percent`].
    pub bound_percent: u32,
}

impl Default for Lookup {
    fn default() -> Self {
        Self { size: None, bound_percent: BOUND_PERCENT }
    }
}

/// A quarter more than the mean.
const BOUND_PERCENT: u32 = 125;

/// The size of a Maglev table: a prime, so that a step through the table visits every place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSize(u32);

impl TableSize {
    /// None is larger: Envoy's limit.
    pub const LARGEST: u32 = 5_000_011;

    /// `None`: not a prime, or too large.
    #[must_use]
    pub fn new(size: u64) -> Option<Self> {
        let size = u32::try_from(size).ok().filter(|size| (2..=Self::LARGEST).contains(size))?;
        let is_prime = (2..size).take_while(|by| by * by <= size).all(|by| size % by != 0);
        is_prime.then_some(Self(size))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_prime_number_of_places() {
        for prime in [2, 3, 5, 1009, 65_537, 5_000_011] {
            assert_eq!(TableSize::new(prime).map(TableSize::get), u32::try_from(prime).ok());
        }
        for other in [0, 1, 4, 9, 65_536, 5_000_009, 5_000_077, u64::MAX] {
            assert_eq!(TableSize::new(other), None, "{other}");
        }
    }
}
