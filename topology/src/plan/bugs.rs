//! Bugs on purpose, in tests alone: each makes one stage of the planner wrong in one way that a property must catch.
//!
//! Every stage that can be spoilt hands its result through [`spoilt`] on its way out.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

use super::Plan;
use super::history::Sight;
use super::pace::{Decision, Step};
use super::sites::Site;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// Endpoints count as ready when they are listed.
    CountsUnready,
    /// Load splits the wrong way round: the fewer are ready, the more a place gets.
    PrefersTheSick,
    /// Drains are not heeded.
    IgnoresDrains,
    /// What is warming up bears its whole share.
    OverlooksTheCold,
    /// The last locality with a share is dropped, and its share with it.
    ForgetsAShare,
    /// The first priority has no locality.
    LeavesAGap,
    /// The nearest locality is a fallback for itself.
    PlacesTwice,
    /// The last priority is left out.
    LosesAPriority,
    /// The order depends on how often the planner was asked.
    CountsItsCalls,
    /// Weights are not scaled.
    HugeWeights,
    /// What must not be used is not marked so.
    ForgetsTheUnhealthy,
    /// Losses go unnoticed, so that no recovery follows them.
    OverlooksLosses,
    /// A place that is back counts as back for ever.
    TrustsAtOnce,
    /// A drain counts as complete from its start.
    DrainsAtOnce,
    /// What must move at once moves a part of the way.
    Dawdles,
    /// Moves never stop half-way.
    GoesAllTheWay,
}

thread_local! {
    static SEEDED: Cell<Option<Bug>> = const { Cell::new(None) };
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

/// Runs `test` with `bug` in the planner of this thread.
pub(super) fn with<T>(bug: Option<Bug>, test: impl FnOnce() -> T) -> T {
    struct Cure;
    impl Drop for Cure {
        fn drop(&mut self) {
            SEEDED.set(None);
        }
    }
    SEEDED.set(bug);
    let _cure = Cure;
    test()
}

/// `result` with the seeded bug, if it is one of its stage.
pub(super) fn spoilt<T: Spoil>(mut result: T) -> T {
    if let Some(bug) = SEEDED.get() {
        result.apply(bug);
    }
    result
}

/// What a bug can spoil.
pub(super) trait Spoil {
    /// Makes it wrong in `bug`'s way, or leaves it alone.
    fn apply(&mut self, bug: Bug);
}

impl Spoil for Vec<Site<'_>> {
    fn apply(&mut self, bug: Bug) {
        for site in self {
            match bug {
                Bug::CountsUnready => site.weight = f64::from(site.total),
                Bug::PrefersTheSick if site.weight > 0.0 => {
                    site.weight = 1.0 / site.weight;
                    site.capacity = site.capacity.map(f64::recip);
                }
                Bug::IgnoresDrains => site.drain = None,
                Bug::OverlooksTheCold if site.weight > 0.0 => site.weight = f64::from(site.ready),
                _ => {}
            }
        }
    }
}

impl Spoil for Plan {
    fn apply(&mut self, bug: Bug) {
        match bug {
            Bug::ForgetsAShare => {
                self.priorities.first_mut().map(Vec::pop);
                self.priorities.retain(|priority| !priority.is_empty());
            }
            Bug::LeavesAGap => self.priorities.insert(0, Vec::new()),
            Bug::PlacesTwice => {
                let again = self.priorities.first().cloned();
                self.priorities.extend(again);
            }
            Bug::LosesAPriority => {
                self.priorities.pop();
            }
            Bug::CountsItsCalls => {
                CALLS.set(CALLS.get() + 1);
                if CALLS.get().is_multiple_of(3) {
                    self.priorities.iter_mut().for_each(|priority| priority.reverse());
                }
            }
            Bug::HugeWeights => {
                self.priorities.iter_mut().flatten().for_each(|place| place.weight = NonZeroU32::MAX);
            }
            Bug::ForgetsTheUnhealthy => {
                self.priorities.iter_mut().flatten().for_each(|place| place.unhealthy = false);
            }
            _ => {}
        }
    }
}

impl Spoil for Sight<'_> {
    fn apply(&mut self, bug: Bug) {
        match bug {
            Bug::OverlooksLosses => (self.ready, self.worse) = (true, false),
            Bug::TrustsAtOnce => self.recovering = Some(Duration::from_secs(100_000)),
            Bug::DrainsAtOnce => self.drained_already = true,
            _ => {}
        }
    }
}

impl Spoil for Decision {
    fn apply(&mut self, bug: Bug) {
        match bug {
            Bug::Dawdles if matches!(self.step, Step::All) => self.step = Step::PartOfTheWay,
            Bug::GoesAllTheWay => self.step = Step::All,
            _ => {}
        }
    }
}
