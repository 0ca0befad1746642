//! Chaos failover tests: scenarios run against real control planes, backends and clients, faults put in on time, and a
//! verdict with numbers.
//!
//! [`scenario`] is what is to happen and what must hold, [`runner`] makes it happen with the clients of [`load`],
//! [`measure`] says what was seen, [`verdict`] compares, and [`report`] tells. [`interop`] runs clients that nobody here
//! wrote, and [`kube`] holds the checks against a real Kubernetes API server.

pub mod backend;
mod caller;
pub mod cli;
mod echo;
#[cfg(test)]
mod fixtures;
pub mod interop;
pub mod kube;
mod lifeline;
pub mod load;
pub mod measure;
pub mod report;
pub mod runner;
pub mod scenario;
mod sockets;
pub mod terminal;
pub mod verdict;
