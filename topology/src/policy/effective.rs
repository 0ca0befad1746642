//! What all policy objects come to for one service at one moment: the planner's third input.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Capacity, Connection, LocalityPolicy, OutlierDetection, Retry, Scope, Strategy, Warmup};

/// The policy in force for one service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EffectivePolicy {
    /// Where traffic goes.
    pub locality: LocalityPolicy,
    /// What one ready endpoint of weight 1 can serve, if anybody said.
    pub capacity: Option<Capacity>,
    /// The whole time that a request may take; `None`: no limit.
    pub timeout: Option<Duration>,
    /// What is tried again; `None`: nothing.
    pub retry: Option<Retry>,
    /// Limits of what is open at once.
    pub connection: Connection,
    /// By what an endpoint is picked.
    pub strategy: Strategy,
    /// The request header whose value is a call's key, in lower case; `None`: calls have none.
    pub hash_header: Option<String>,
    /// How a new endpoint comes to its share; `None`: as each client does it by itself.
    pub warmup: Option<Warmup>,
    /// When an endpoint is taken for broken; `None`: as each client does it by itself.
    pub outlier_detection: Option<OutlierDetection>,
    /// The drains in force, by name.
    pub drains: Vec<ActiveDrain>,
}

/// A drain in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveDrain {
    /// The Drain's name.
    pub name: String,
    /// What is drained.
    pub scope: Scope,
    /// How much of its capacity is taken away, 1 to 100.
    pub percent: u32,
    /// How long the way out takes.
    pub over: Duration,
    /// How long the way back takes.
    pub restore_over: Duration,
}
