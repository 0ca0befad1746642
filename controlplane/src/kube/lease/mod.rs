//! A Lease: which of a cluster's nodes does what only one may do.
//!
//! [`candidate`] decides, without I/O; [`holder`] asks the API server. Wall clocks are never compared: a Lease has run
//! out when it has not changed for its duration *by the watcher's own clock*, and its holder stops before that by its
//! own. So two nodes never hold it at once, however far their clocks are apart. The times written into the object are for
//! people.

mod candidate;
mod holder;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use holder::Lease;

/// How long a Lease lasts and how often it is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Others take it when it has not changed for this long. Whole seconds: the object has no finer ones.
    pub duration: Duration,
    /// The holder gives up when it could not renew for this long; less than `duration`.
    pub renew_limit: Duration,
    /// How often the holder renews, and the others look.
    pub interval: Duration,
}

impl Default for Timing {
    /// Another node takes over within 12 s of its holder's death: the duration, and one look.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(10),
            renew_limit: Duration::from_secs(7),
            interval: Duration::from_secs(2),
        }
    }
}

/// What a Lease is about, and who asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who asks: unique among *processes*, so that a node that restarts does not take itself for the one it was.
    pub identity: String,
    /// How long it lasts.
    pub timing: Timing,
}

/// How a Lease stands, as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Whether we hold it. Turns false before anybody else can hold it.
    pub mine: bool,
    /// Who holds it, when that was last read; `None`: nobody, or not known.
    pub holder: Option<String>,
    /// How often it has changed hands: each holder has a higher one than every holder before, until somebody deletes the
    /// object.
    pub transitions: u32,
    /// Why it could not be read or written the last time, if that failed.
    pub error: Option<String>,
}
