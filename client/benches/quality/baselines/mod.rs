//! The strategies that the default is compared with, written for the simulation from their published descriptions.

mod connection;
mod prequal;
mod round_robin;
mod two_choices;
mod weighted_round_robin;

pub(crate) use self::connection::Connection;
pub(crate) use self::prequal::Prequal;
pub(crate) use self::round_robin::RoundRobin;
pub(crate) use self::two_choices::{PeakEwma, TowerP2c};
pub(crate) use self::weighted_round_robin::WeightedRoundRobin;
