//! Portolan's control plane: sources, catalog, planning, the xDS server, the admin interface and the command line.
//!
//! [`start`] is the whole of it, with sockets, disk and randomness handed in; [`cli::main`] is the `portolan` program.

pub mod admin;
pub mod catalog;
pub mod cli;
pub mod config;
mod demand;
pub mod gateway;
mod grpc_health;
mod grpc_reflection;
pub mod kube;
pub mod lrs;
mod ports;
pub mod publishing;
pub mod readiness;
pub mod resources;
mod run;
mod slots;
pub mod source;
mod telling;
pub mod topology_file;
pub mod xds;

pub use ports::PortError;
pub use run::{Addresses, Running, StartError, run, start};
