//! The Gateway API: Gateways of the class `portolan` with their HTTPRoutes and GRPCRoutes become plans for the Envoys of
//! each gateway, routes with a Service parent become what that service's clients are told, and conditions say what is amiss.
//!
//! [`planner`] is pure: objects and what is known of backends go in, plans and conditions come out. [`live`] feeds it and
//! hands on what comes of it. Nothing here knows xDS or opens a socket.

mod backends;
pub mod conditions;
mod grants;
pub mod hostname;
pub mod listeners;
pub mod live;
mod mesh;
pub mod objects;
pub mod plan;
pub mod planner;
mod route;
mod rules;
#[cfg(test)]
pub(crate) mod tests;
