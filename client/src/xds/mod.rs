//! The client's end of xDS, without I/O: bootstrap, names, the stream's state machines, and what the resources come to.
//!
//! No socket, no clock and no runtime: requests and responses are values. Control planes use this module as well.

pub mod balancing;
pub mod bootstrap;
pub mod delta;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod hashing;
pub mod matching;
pub mod model;
mod resolve;
pub mod resources;
pub mod routing;
pub mod sotw;
mod status;
pub mod target;
