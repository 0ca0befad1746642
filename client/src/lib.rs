//! Client-side load balancing over xDS: power of two choices in your zone, failover across clusters and regions.

#[cfg(feature = "channel")]
pub mod ads;
#[cfg(feature = "channel")]
pub mod balancer;
#[cfg(feature = "channel")]
pub mod channel;
#[cfg(feature = "channel")]
pub mod connection;
#[cfg(feature = "channel")]
pub mod http;
#[cfg(feature = "channel")]
pub mod load;
#[cfg(feature = "channel")]
pub mod orca;
#[cfg(feature = "channel")]
mod routing;
pub mod xds;

#[cfg(feature = "channel")]
pub use channel::Channel;
