//! The xDS server: the aggregated discovery service, and who is connected to it.
//!
//! [`sotw`] is the protocol, without I/O or time; [`stream`] drives it for one client; [`server`] is the gRPC service.

pub mod clients;
pub mod counters;
pub(crate) mod place;
pub mod server;
pub mod sotw;
mod stream;
#[cfg(test)]
mod tests;
