//! Sums over the last seconds, in buckets of one second each. Pure: whoever adds says which second it is.

use std::time::Duration;

/// The time that a window holds.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// The seconds of a window, and the one that is not over yet.
const BUCKETS: usize = WINDOW.as_secs() as usize + 1;

/// What was added within the last [`WINDOW`].
#[derive(Debug, Clone, Default)]
pub(super) struct Window<T> {
    /// `second % BUCKETS` is the place; the second in it tells whose it is. Seconds begin after [`WINDOW`], so that an
    /// empty bucket is of none.
    buckets: [(u64, T); BUCKETS],
}

impl<T: Copy + Default> Window<T> {
    /// The bucket of the second `now`, to be added to.
    pub(super) fn at(&mut self, now: u64) -> &mut T {
        let (second, bucket) = &mut self.buckets[usize::try_from(now).unwrap_or_default() % BUCKETS];
        if *second != now {
            (*second, *bucket) = (now, T::default());
        }
        bucket
    }

    /// What was added within the window up to now: its last second is not over yet, so it is up to a second short.
    pub(super) fn recent(&self, now: u64) -> impl Iterator<Item = T> {
        self.buckets.iter().filter(move |(second, _)| second + WINDOW.as_secs() > now).map(|(_, bucket)| *bucket)
    }

    /// What was added in the whole seconds of the window before `now`: what a rate is made of.
    pub(super) fn complete(&self, now: u64) -> impl Iterator<Item = T> {
        self.buckets
            .iter()
            .filter(move |(second, _)| second + WINDOW.as_secs() >= now && *second < now)
            .map(|(_, bucket)| *bucket)
    }
}
