//! Sums over the last seconds, in buckets of one second each. Pure: whoever adds says which second it is.

use std::time::Duration;

/// The time that a window holds.
pub(super) const WINDOW: Duration = Duration::from_secs(SECONDS as u64);
const SECONDS: usize = 10;

/// What was added within the last [`WINDOW`].
#[derive(Debug, Clone, Default)]
pub(super) struct Window<T> {
    /// `second % SECONDS` is the place; the second in it tells whose it is. Seconds begin at [`WINDOW`], so that an empty
    /// bucket is of none.
    buckets: [(u64, T); SECONDS],
}

impl<T: Copy + Default> Window<T> {
    /// The bucket of the second `now`, to be added to.
    pub(super) fn at(&mut self, now: u64) -> &mut T {
        let (second, bucket) = &mut self.buckets[usize::try_from(now).unwrap_or_default() % SECONDS];
        if *second != now {
            (*second, *bucket) = (now, T::default());
        }
        bucket
    }

    /// What was added within the window before `now`.
    pub(super) fn recent(&self, now: u64) -> impl Iterator<Item = T> {
        self.buckets.iter().filter(move |(second, _)| second + WINDOW.as_secs() > now).map(|(_, bucket)| *bucket)
    }
}
