//! Policy objects, and what they come to for one service.

mod drain;
mod effective;
mod scope;
mod set;
mod traffic;

pub use drain::{Drain, DrainSpec};
pub use effective::{ActiveDrain, EffectivePolicy};
pub use scope::{Scope, ScopeError};
pub use set::{PolicyObject, PolicySet, StoredPolicy};
pub use traffic::*;
