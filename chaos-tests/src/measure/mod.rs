//! What a run's record says: shares, failures, how fast traffic moved, how slowly it came back. Pure: every figure of a
//! report is a function of the [`Record`], so that it can be checked on records made by hand.
//!
//! A call belongs to the moment at which it started; windows are half open.

mod balance;
mod latency;
mod moved;
mod ramp;
mod record;
mod shares;

#[cfg(test)]
mod tests;

pub use balance::{Balance, balance};
pub use latency::{p99, percentile};
pub use moved::{MOVED_PERCENT, WINDOW, moved};
pub use ramp::{Ramp, ramp};
pub use record::{Backend, BackendId, Call, Client, ClientId, Death, EarlierAttempt, Record, Selection, Window};
pub use shares::{Shares, in_zone, shares_by_cluster, shares_by_region};
