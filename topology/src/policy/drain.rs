//! `Drain`, checked: takes a region, cluster or zone out of service, and gives it back.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ActiveDrain, Scope};
use crate::names::ServiceId;

/// A Drain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Its name, unique in the federation.
    pub name: String,
    /// What it says.
    pub spec: DrainSpec,
}

impl Drain {
    /// What it does while it is in force.
    #[must_use]
    pub fn active(&self) -> ActiveDrain {
        ActiveDrain {
            name: self.name.clone(),
            scope: self.spec.scope.clone(),
            percent: self.spec.percent,
            over: self.spec.over,
            restore_over: self.spec.restore_over,
        }
    }
}

/// What a Drain says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainSpec {
    /// What is drained.
    pub scope: Scope,
    /// Which services; `None`: all.
    pub services: Option<Vec<ServiceId>>,
    /// How much of its capacity is taken away, 1 to 100.
    pub percent: u32,
    /// How long the way out takes.
    pub over: Duration,
    /// How long the way back takes.
    pub restore_over: Duration,
    /// From when; `None`: at once.
    pub start_time: Option<Timestamp>,
    /// Until when; `None`: until it is deleted.
    pub end_time: Option<Timestamp>,
    /// Goes on even if a service has nowhere left.
    pub force: bool,
    /// Why, for the people who find it.
    pub reason: String,
}

impl DrainSpec {
    /// Whether it is in force for `service` at `now`.
    #[must_use]
    pub fn is_active(&self, service: &ServiceId, now: Timestamp) -> bool {
        self.services.as_ref().is_none_or(|services| services.contains(service))
            && self.start_time.is_none_or(|start| start <= now)
            && self.end_time.is_none_or(|end| now < end)
    }
}
