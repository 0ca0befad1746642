//! What control planes are to each other: identity, gossip, policy, endpoint lists and evidence of failure.
//!
//! [`start`] is the whole of it: facts and lists of this cluster go in, those of the others come out. Sockets, disk and
//! randomness are handed in; time is tokio's. Wall clocks are never compared.

pub mod certs;
pub mod disk;
mod federation;
#[cfg(test)]
mod fixtures;
mod gossip;
mod hub;
pub mod identity;
mod lists;
mod liveness;
pub mod model;
pub mod net;
pub mod nodes;
mod peers;
pub mod policy;
#[allow(missing_docs, unreachable_pub, dead_code, clippy::all, clippy::pedantic, reason = "generated")]
mod proto {
    tonic::include_proto!("portolan.peer.v1");
}
mod probe;
mod remote;
mod store;
pub mod tls;

pub use federation::{Config, Federation, PeerPort, StartError, start};
