//! One node's view of a Lease, and what it does next. Pure: the time is told, the API server is the caller's.

use std::time::Duration;

use tokio::time::Instant;

use super::Timing;

/// What a Lease object says, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Record {
    /// Who holds it; `None`: it was released.
    pub(super) holder: Option<String>,
    /// How long it holds without being renewed.
    pub(super) duration: Duration,
    /// How often it has changed hands.
    pub(super) transitions: u32,
    /// Changes with each renewal: compared for being the same, and for nothing else.
    pub(super) renewed: String,
}

/// What a node does about a Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// It does not exist: make it, ours.
    Create,
    /// It is ours, or free, or has run out: write ourselves into it, over the version that was read.
    Take {
        /// How often it will have changed hands.
        transitions: u32,
    },
    /// Somebody else holds it.
    Wait,
}

/// A node that wants a Lease.
#[derive(Debug)]
pub(super) struct Candidate {
    identity: String,
    timing: Timing,
    /// What was read last, and when it was first read like that.
    seen: Option<(Record, Instant)>,
    /// When the request that renewed it last was sent. Earlier than it was written, so that we err on the safe side.
    renewed: Option<Instant>,
}

impl Candidate {
    pub(super) fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, seen: None, renewed: None }
    }

    /// What to do now that `found` was read. `now` is after the answer: a record counts as unchanged from when it was in
    /// our hands, never from before.
    pub(super) fn next(&mut self, found: Option<&Record>, now: Instant) -> Act {
        let Some(found) = found else {
            // Deleted: whoever makes it next holds it.
            (self.seen, self.renewed) = (None, None);
            return Act::Create;
        };
        let since = match &self.seen {
            Some((seen, since)) if seen == found => *since,
            _ => {
                self.seen = Some((found.clone(), now));
                now
            }
        };
        match &found.holder {
            Some(holder) if *holder == self.identity => Act::Take { transitions: found.transitions },
            Some(_) => {
                self.renewed = None;
                // A Lease without a duration is not for the taking: its holder may have meant ours.
                let duration = if found.duration.is_zero() { self.timing.duration } else { found.duration };
                if now.duration_since(since) < duration {
                    return Act::Wait;
                }
                Act::Take { transitions: found.transitions.saturating_add(1) }
            }
            None => Act::Take { transitions: found.transitions.saturating_add(1) },
        }
    }

    /// The API server took what we wrote with a request sent at `sent`.
    pub(super) fn wrote(&mut self, sent: Instant) {
        self.renewed = Some(sent);
    }

    /// It was given up.
    pub(super) fn released(&mut self) {
        self.renewed = None;
    }

    /// Until when it is ours unless it is renewed; `None`: it is not ours.
    pub(super) fn until(&self) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + self.timing.renew_limit)
    }

    /// Whether it is ours at `now`.
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.until().is_some_and(|until| now < until)
    }
}
