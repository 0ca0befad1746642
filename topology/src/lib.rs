//! Portolan's pure core: names, the topology file, policy objects, service views and the planner.
//!
//! No I/O, no clock, no randomness and no async: everything here is a function of its arguments, so that the same
//! input gives the same plan on every control plane. Time enters as a `Duration` since an origin of the caller's.

pub mod address;
pub mod diagnostic;
pub mod document;
pub mod duration;
pub mod ladder;
pub mod names;
pub mod plan;
pub mod policy;
pub mod service;
pub mod topology;
pub mod view;
