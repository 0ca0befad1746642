//! Where every call is kept until the verdict. A scenario's checks bound how many there can be.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::measure::{BackendId, Call, ClientId, EarlierAttempt};

/// How many different error messages are kept.
const KINDS_OF_ERRORS: usize = 20;

/// All calls of a run.
#[derive(Debug)]
pub struct Log {
    zero: Instant,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    calls: Vec<Call>,
    earlier: Vec<EarlierAttempt>,
    /// How often each message was seen.
    errors: BTreeMap<String, usize>,
    /// Whether calls are thrown away from now on.
    closed: bool,
    /// Up to where [`Log::live`] has looked.
    looked_at: usize,
}

/// What happened since somebody looked last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Live {
    /// Calls that succeeded, by client and who answered.
    pub answered: BTreeMap<(ClientId, BackendId), usize>,
    /// Calls that failed, by client.
    pub failed: BTreeMap<ClientId, usize>,
}

impl Log {
    pub(super) fn new(zero: Instant) -> Self {
        Self { zero, kept: Mutex::default() }
    }

    pub(super) fn since_zero(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.zero)
    }

    pub(super) fn push(
        &self,
        call: Call,
        earlier: impl Iterator<Item = (BackendId, Duration, Duration)>,
        error: Option<String>,
    ) {
        let mut kept = self.kept.lock();
        if kept.closed {
            return;
        }
        let index = kept.calls.len();
        kept.calls.push(call);
        kept.earlier.extend(earlier.map(|(backend, start, end)| EarlierAttempt { call: index, backend, start, end }));
        if let Some(error) = error
            && (kept.errors.len() < KINDS_OF_ERRORS || kept.errors.contains_key(&error))
        {
            *kept.errors.entry(error).or_default() += 1;
        }
    }

    /// What happened since the last time that this was asked.
    #[must_use]
    pub fn live(&self) -> Live {
        let mut kept = self.kept.lock();
        let mut live = Live::default();
        for call in &kept.calls[kept.looked_at..] {
            match call.backend.filter(|_| call.ok) {
                Some(backend) => *live.answered.entry((call.client, backend)).or_default() += 1,
                None => *live.failed.entry(call.client).or_default() += 1,
            }
        }
        kept.looked_at = kept.calls.len();
        live
    }

    /// All calls and earlier attempts, and every error with its count. What comes later is thrown away.
    #[must_use]
    pub fn take(&self) -> (Vec<Call>, Vec<EarlierAttempt>, BTreeMap<String, usize>) {
        let mut kept = self.kept.lock();
        kept.closed = true;
        kept.looked_at = 0;
        let Kept { calls, earlier, errors, .. } = &mut *kept;
        (std::mem::take(calls), std::mem::take(earlier), std::mem::take(errors))
    }
}
