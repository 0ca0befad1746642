//! What control planes are to each other: identity, gossip, policy, endpoint lists and evidence of failure.
//!
//! Sockets, disk and randomness are handed in; time is tokio's. Wall clocks are never compared.

pub mod certs;
pub mod disk;
pub mod identity;
pub mod model;
pub mod net;
pub mod tls;

#[cfg(test)]
mod fixtures;
