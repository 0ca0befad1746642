//! Load reports from clients (LRS): taken in by [`service`], kept in [`store`] as demand by source and as evidence of
//! failure by destination.

pub mod service;
pub mod store;
mod window;
