//! Facts, gossiped: what a cluster says of itself, how it spreads, and how what the others say is put together.
//!
//! [`publish`] and [`facts`] are pure; [`transport`] carries chitchat over the peer port; [`node`] runs it.

pub(crate) mod facts;
pub(crate) mod key;
pub(crate) mod node;
pub(crate) mod publish;
mod transport;
pub(crate) mod value;
