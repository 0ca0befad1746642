//! What became of a client's calls, over all of its processes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

/// For how long lines are kept one by one.
const RECENT: Duration = Duration::from_secs(3);

/// Calls that ended, by backend or by error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Counts {
    /// By the backend that answered.
    pub answered: BTreeMap<String, u64>,
    /// By status and message.
    pub failed: BTreeMap<String, u64>,
}

impl Counts {
    /// One call that was answered.
    pub(super) fn one_answered(backend: String) -> Self {
        Self { answered: [(backend, 1)].into(), ..Self::default() }
    }

    /// One call that failed.
    pub(super) fn one_failed(error: String) -> Self {
        Self { failed: [(error, 1)].into(), ..Self::default() }
    }

    fn add(&mut self, more: &Self) {
        for (sum, more) in [(&mut self.answered, &more.answered), (&mut self.failed, &more.failed)] {
            for (key, count) in more {
                *sum.entry(key.clone()).or_default() += count;
            }
        }
    }

    /// What came after `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let less = |now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>| {
            let differences = now
                .iter()
                .map(|(key, count)| (key.clone(), count.saturating_sub(before.get(key).copied().unwrap_or_default())));
            differences.filter(|(_, count)| *count > 0).collect()
        };
        Self { answered: less(&self.answered, &before.answered), failed: less(&self.failed, &before.failed) }
    }

    /// How many were answered.
    pub(super) fn answers(&self) -> u64 {
        self.answered.values().sum()
    }

    /// How many failed.
    pub(super) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Which part of the answers came from backends whose names begin so, in percent; 0 without any.
    #[expect(clippy::cast_precision_loss, reason = "counts of one run")]
    pub(super) fn percent_from(&self, prefix: &str) -> f64 {
        let from: u64 = self.answered.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, count)| count).sum();
        from as f64 * 100.0 / self.answers().max(1) as f64
    }

    /// The errors, the most frequent first.
    pub(super) fn errors(&self) -> String {
        let mut errors: Vec<_> = self.failed.iter().collect();
        errors.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let shown: Vec<_> = errors.iter().take(2).map(|(error, count)| format!("{count} × {error}")).collect();
        shown.join("; ")
    }
}

/// A running count. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    total: Counts,
    recent: VecDeque<(Instant, Counts)>,
}

impl Tally {
    /// Adds calls that ended.
    pub(super) fn add(&self, counts: Counts) {
        let now = Instant::now();
        let mut state = self.0.lock();
        state.total.add(&counts);
        state.recent.push_back((now, counts));
        while state.recent.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > RECENT) {
            state.recent.pop_front();
        }
    }

    /// Everything so far.
    pub(super) fn total(&self) -> Counts {
        self.0.lock().total.clone()
    }

    /// What ended within the last `window`, at most [`RECENT`].
    pub(super) fn recent(&self, window: Duration) -> Counts {
        let now = Instant::now();
        let mut sum = Counts::default();
        for (_, counts) in self.0.lock().recent.iter().filter(|(at, _)| now.saturating_duration_since(*at) <= window) {
            sum.add(counts);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(answered: &[(&str, u64)]) -> Counts {
        Counts { answered: answered.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect(), ..Counts::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_recent_is_a_part_of_the_total() {
        let tally = Tally::default();
        tally.add(counts(&[("use1-a", 3)]));
        tokio::time::advance(Duration::from_secs(2)).await;
        let mark = tally.total();
        tally.add(counts(&[("use1-a", 1), ("usw2-a", 4)]));
        tally.add(Counts::one_failed("UNAVAILABLE: gone".into()));
        assert_eq!(tally.recent(Duration::from_secs(1)).answers(), 5);
        assert_eq!(tally.total().since(&mark), tally.recent(Duration::from_secs(1)));
        assert_eq!(tally.total().percent_from("use1"), 50.0);
        assert_eq!(tally.total().errors(), "1 × UNAVAILABLE: gone");
        assert_eq!(Counts::default().percent_from("use1"), 0.0);
    }
}
