//! Where requests go now, and why: for people.

use std::sync::Arc;
use std::time::Duration;

use crate::xds::model::LocalityName;

use super::ramp::Presence;
use super::{Endpoint, Status};

/// How one endpoint stands.
#[derive(Debug)]
pub struct EndpointState<T> {
    /// Which; it tells the rest itself.
    pub endpoint: Arc<Endpoint<T>>,
    /// What its transport said last.
    pub status: Status,
    /// It takes nothing for what became of its requests.
    pub ejected: bool,
    /// A moving mean of the last seconds; `None`: none of late.
    pub latency: Option<Duration>,
}

/// What one locality takes.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalityShare {
    /// Which.
    pub locality: LocalityName,
    /// Its priority, 0 the highest.
    pub priority: u32,
    /// Its part of all requests: 0 to 1.
    pub share: f64,
    /// How many of its endpoints may take requests now.
    pub usable: usize,
    /// How many the control plane says are healthy.
    pub healthy: usize,
    /// Why it takes that.
    pub because: &'static str,
}

/// Why a locality takes what it takes.
pub(super) fn because(usable: bool, share: f64, presence: Presence, fraction: f64) -> &'static str {
    match presence {
        _ if !usable => "no endpoint of it is usable",
        Presence::Returning { .. } if fraction == 0.0 && share == 0.0 => "it came back and is held down for a while",
        Presence::Returning { .. } if fraction < 1.0 => "it came back and is given its share step by step",
        _ if share == 0.0 => "a higher priority takes everything",
        _ => "its weight in the highest priority that is alive",
    }
}
