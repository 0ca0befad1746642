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

    /// The calls that began before `until` with their earlier attempts, and every error with its count. What comes later is
    /// thrown away.
    #[must_use]
    pub fn take(&self, until: Duration) -> (Vec<Call>, Vec<EarlierAttempt>, BTreeMap<String, usize>) {
        let Kept { calls, earlier, errors, .. } = {
            let mut kept = self.kept.lock();
            std::mem::replace(&mut *kept, Kept { closed: true, ..Kept::default() })
        };
        let mut place = 0;
        let places: Vec<Option<usize>> = calls
            .iter()
            .map(|call| {
                let kept = call.start < until;
                place += usize::from(kept);
                kept.then(|| place - 1)
            })
            .collect();
        let calls = calls.into_iter().filter(|call| call.start < until).collect();
        let earlier = earlier
            .into_iter()
            .filter_map(|attempt| places[attempt.call].map(|call| EarlierAttempt { call, ..attempt }))
            .collect();
        (calls, earlier, errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(start: u64) -> Call {
        let start = Duration::from_millis(start);
        let backend = Some(BackendId(0));
        Call { client: ClientId(1), start, sent: start, end: start, backend, callee: None, ok: start.is_zero() }
    }

    #[tokio::test]
    async fn late_calls_go_and_attempts_stay_with_their_calls() {
        let log = Log::new(Instant::now());
        for start in [0, 500, 100] {
            let attempt = (BackendId(9), Duration::from_millis(start), Duration::from_millis(start));
            log.push(call(start), [attempt].into_iter(), Some("no".to_owned()));
        }
        let live = log.live();
        assert_eq!((live.answered[&(ClientId(1), BackendId(0))], live.failed[&ClientId(1)]), (1, 2));
        assert_eq!(log.live(), Live::default(), "nothing new");
        let (calls, earlier, errors) = log.take(Duration::from_millis(500));
        assert_eq!(calls, [call(0), call(100)]);
        let places: Vec<_> = earlier.iter().map(|attempt| (attempt.call, attempt.start.as_millis())).collect();
        assert_eq!(places, [(0, 0), (1, 100)]);
        assert_eq!(errors["no"], 3);
        log.push(call(1), std::iter::empty(), None);
        assert!(log.take(Duration::MAX).0.is_empty(), "closed");
    }
}
