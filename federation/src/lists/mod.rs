//! Endpoint lists of other clusters: delta EDS between control planes, only for what somebody here asks for.
//!
//! [`resource`] and [`held`] are pure; [`serve`] is the answering end, [`subscribe`] the asking end.

mod held;
pub(crate) mod keep;
pub(crate) mod resource;
pub(crate) mod serve;
pub(crate) mod subscribe;
