//! How slow the new endpoints of a locality have shown themselves: what one of them is like, the others probably are too.
//!
//! A deployment replaces many endpoints at once, and each may be cold. A client that has tried one or two of them and
//! waited long for the answer need not learn the same of each: it tries the others later, when other clients' requests
//! have warmed them. Pure.

use std::time::Duration;

/// The mean follows what is seen over so many answers.
const ANSWERS: f32 = 4.0;
/// The time that the untried wait is stretched at most so many times, so that each is tried in the end.
const MOST: f32 = 10.0;
/// So many times as long as the peers is not slow: answers differ.
const TOLERANCE: f32 = 2.0;

/// What those that were tried took, in multiples of what is typical; `None`: nobody has answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(in crate::balancer) struct Newcomers(Option<f32>);

impl Newcomers {
    /// After a look at them: what each took in this interval in seconds, where it answered. Without any it forgets.
    pub(in crate::balancer) fn after(self, took: impl Iterator<Item = Option<f32>>, typical: Option<f32>) -> Self {
        let mut any = false;
        let tried = took.inspect(|_| any = true).flatten().zip(std::iter::repeat(typical));
        let mean = tried.filter_map(|(took, typical)| Some(took / typical?)).fold(self.0, |mean, times| {
            let mean = mean.unwrap_or(times);
            Some(mean + (times - mean) / ANSWERS)
        });
        if any { Self(mean) } else { Self::default() }
    }

    /// What of the time that passed counts for those that wait to be tried.
    pub(super) fn slowed(self, passed: Duration) -> Duration {
        match self.0 {
            Some(times) if times > TOLERANCE => passed.div_f32(times.min(MOST)),
            _ => passed,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn after(newcomers: Newcomers, took: &[Option<f32>]) -> Newcomers {
        newcomers.after(took.iter().copied(), Some(0.1))
    }

    #[test]
    fn those_that_wait_do_so_longer_while_those_that_were_tried_are_slow() {
        let none = Newcomers::default();
        assert_eq!(none.slowed(SECOND), SECOND);
        let slow = after(none, &[None, Some(0.8), None]);
        assert!((slow.slowed(SECOND).as_secs_f32() - 0.125).abs() < 1e-3, "{slow:?}");
        assert_eq!(after(slow, &[None, None]), slow, "nobody answered: what was seen is remembered");
        let warm = (0..20).fold(slow, |newcomers, _| after(newcomers, &[None, Some(0.1)]));
        assert_eq!(warm.slowed(SECOND), SECOND);
        assert_eq!(after(slow, &[]), none, "none is new any more");
        assert_eq!(after(none, &[Some(0.15)]).slowed(SECOND), SECOND, "answers differ");
    }

    #[test]
    fn without_peers_nobody_is_slow() {
        assert_eq!(Newcomers::default().after([Some(9.0)].into_iter(), None), Newcomers::default());
    }

    proptest! {
        #[test]
        fn time_always_passes_and_never_faster(took in proptest::collection::vec(proptest::option::of(0f32..1e4), 0..9)) {
            let slowed = after(Newcomers::default(), &took).slowed(SECOND);
            prop_assert!(slowed >= SECOND / 11 && slowed <= SECOND, "{slowed:?}");
        }
    }
}
