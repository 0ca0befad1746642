//! Portolan as a citizen of its Kubernetes cluster: the one client, the Lease that says which node writes.
//!
//! What a cluster *has* (Services, EndpointSlices, Nodes) is read by [`crate::source`]; here is what Portolan is asked by
//! objects of its own, and what it writes back. Nothing here decides where traffic goes.

pub mod client;
pub mod lease;
