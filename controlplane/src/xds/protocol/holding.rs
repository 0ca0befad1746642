//! What a client has of each resource, seen from outside.

use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;

use crate::resources::Encoded;

/// How a subscription, or one resource of it, stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SyncState {
    /// Nothing was sent yet.
    NotSent,
    /// The client accepted what was sent last.
    Synced,
    /// It has not answered what was sent last.
    Stale,
    /// It refused what is current.
    Nacked,
}

/// One resource, as a client has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Holding {
    /// Its name.
    pub name: Arc<str>,
    /// How it stands.
    pub state: SyncState,
    /// What the client took last and goes on with. `None`: nothing, or it knows that there is nothing any more.
    pub accepted: Option<Encoded>,
    /// When it took that; `None` if that was on an earlier stream.
    pub accepted_at: Option<Instant>,
    /// What it refused, as long as that is current.
    pub refused: Option<Encoded>,
    /// Whether the resource is known not to exist.
    pub absent: bool,
}
