//! Policy objects, and what they come to for one service.

pub mod document;
mod drain;
mod effective;
mod scope;
mod set;
mod traffic;

pub use drain::{Drain, DrainSpec};
pub use effective::{ActiveDrain, EffectivePolicy};
pub use scope::{Scope, ScopeError};
pub use set::{Conflict, Owner, PolicyObject, PolicySet, StoredPolicy, conflicts};
pub use traffic::*;
