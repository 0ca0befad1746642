//! Chaos failover tests: scenarios run against real control planes, backends and clients, faults put in on time, and a
//! verdict with numbers.
//!
//! [`scenario`] is what is to happen and what must hold, [`runner`] makes it happen, [`measure`] says what was seen,
//! [`verdict`] compares, and [`report`] tells.

// pub mod backend;
mod echo;
mod lifeline;
pub mod measure;
pub mod runner;
pub mod scenario;
mod sockets;
pub mod verdict;
