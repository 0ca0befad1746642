//! The xDS server: the aggregated discovery service, and who is connected to it.
//!
//! [`protocol`] is the server's end of a stream, without I/O or time, with its two variants [`sotw`] and [`delta`];
//! [`stream`] drives it for one client; [`server`] has the gRPC services.

pub mod clients;
pub mod counters;
pub mod csds;
pub mod delta;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod inbox;
mod membership;
mod open;
pub(crate) mod place;
pub mod protocol;
pub mod server;
pub mod sotw;
mod stream;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use membership::GATEWAY;
