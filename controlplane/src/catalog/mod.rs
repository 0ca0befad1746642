//! The catalog: joins the cluster's own services, the other clusters' facts and lists, and policy, and hands each kind
//! of client its paced plan. The xDS server asks it, `explain` asks it, and nothing else plans.
//!
//! [`core`] is pure and synchronous; [`live`] feeds it and wakes it. Nothing here opens a socket.

mod arrivals;
mod assemble;
mod core;
mod distinct;
mod gateways;
mod inputs;
mod live;
mod memory;
mod resolve;
#[cfg(test)]
mod restart_tests;
pub mod served;
#[cfg(test)]
mod tests;

pub use self::core::{Explanation, Listed, PlanKey, intended};
pub use distinct::Duplicate;
pub use inputs::{Demand, Inputs};
pub use live::{LiveCatalog, Streams};
pub use resolve::port_name;
