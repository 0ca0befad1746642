//! Portolan as a citizen of its Kubernetes cluster: the one client, the Lease that says which node writes, the objects of
//! its own that it is asked by, and what it writes back.
//!
//! What a cluster *has* (Services, EndpointSlices, Nodes) is read by [`crate::source`]. Nothing here decides where traffic
//! goes.

pub mod client;
mod conditions;
pub mod crd;
pub mod events;
pub(crate) mod gateway;
pub mod lease;
pub(crate) mod mcs;
pub(crate) mod mirror;
mod notes;
pub(crate) mod policy;
mod stage;

pub(crate) use stage::Stage;

/// Who we are to an API server that tells apart who owns which field of an object.
pub(crate) const FIELD_MANAGER: &str = "portolan";
