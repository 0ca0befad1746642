//! What control planes are to each other: identity, gossip, policy, endpoint lists and evidence of failure.
//!
//! Sockets, disk and randomness are handed in; time is tokio's. Wall clocks are never compared.

pub mod disk;
pub mod model;
pub mod net;
