//! A locality as the balancer keeps it: how many of its endpoints are usable, and the layout that picks draw from.
//!
//! A change of one endpoint costs the same in a locality of ten and of ten thousand: its cell says that it takes nothing,
//! and draws pass it over. Only when many of the layout are gone, or many are not yet in it, is it laid out anew.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::health::Newcomers;
use super::ramp::{FLOOR, Presence};
use super::shares::Stand;
use super::snapshot::Locality;
use crate::xds::model::{Failback, LocalityName};

/// Up to so many healthy endpoints, a locality is laid out anew at each change: that is exact, and costs nothing.
const SMALL: usize = 64;
/// A larger one is when so many times as many newcomers wait as are in it, or when their time has come.
const NEWCOMERS: usize = 8;

/// What one endpoint is to its locality.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// It may take requests.
    pub(super) usable: bool,
    /// It takes none, and nothing is under way that could soon change that.
    pub(super) dead: bool,
    /// It is in the layout.
    pub(super) laid: bool,
}

/// What it has been through: this outlasts an assignment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Past {
    pub(super) presence: Presence,
    /// What its endpoints typically took while it had its whole share, in seconds: a mean over ten looks or so.
    usual: Option<f32>,
    /// What they took since it is back, in seconds: a mean over four looks or so.
    since_back: Option<f32>,
    pub(super) newcomers: Newcomers,
}

/// An answer that takes so many times as long as it usually did is slow.
const SLOW: f32 = 2.0;
/// One that is back counts as so many times as slow as it was until its answers show what it is: processes that have just
/// begun are slow more often than not, and one quick answer says little.
const UNPROVEN: f32 = 3.0;
/// No answer counts as slower than so many times: one cold connection would else keep the share at the ramp's foot, and
/// nearly all of it would come in the ramp's last step.
const SLOWEST: f32 = 4.0;

impl Past {
    /// An interval of `passed` has gone by, in which its endpoints typically took so many seconds; `None`: nobody answered.
    pub(super) fn saw(&mut self, typical: Option<f32>, now: Instant, passed: Duration, failback: Failback) {
        match (self.presence, self.usual) {
            (Presence::Whole, usual) => (self.usual, self.since_back) = (follow(usual, typical, 10.0), None),
            (Presence::Returning { .. }, Some(usual)) => {
                let since = self.since_back.unwrap_or(usual * UNPROVEN);
                self.since_back = follow(Some(since), typical.map(|typical| typical.min(usual * SLOWEST)), 4.0);
                // Where nobody answered what is known counts.
                if typical.unwrap_or(since) > usual * SLOW {
                    self.presence = self.presence.hold_up(now, passed, failback);
                }
            }
            _ => self.since_back = None,
        }
    }

    /// How much of its share it may take: what it has climbed, less while it is slower than it was.
    ///
    /// One that is twice as slow has half the room, and a request that goes there takes twice as long. So its share is
    /// divided by the square of how many times slower it is, the less the further it has climbed: at the end of the ramp
    /// it is what its weight says, however slow it is then. Where latencies are not measured it is what it has climbed.
    pub(super) fn fraction(&self, now: Instant, failback: Failback) -> f64 {
        let climbed = self.presence.fraction(now, failback);
        match (self.presence, self.usual.zip(self.since_back)) {
            (Presence::Returning { .. }, Some((usual, since))) if climbed > FLOOR && since > usual => {
                let slower = f64::from(since / usual);
                (climbed / (1.0 + (slower * slower - 1.0) * (1.0 - climbed))).max(FLOOR)
            }
            _ => climbed,
        }
    }
}

/// A mean that follows what is seen over so many looks.
fn follow(mean: Option<f32>, seen: Option<f32>, looks: f32) -> Option<f32> {
    let Some(seen) = seen else { return mean };
    let mean = mean.unwrap_or(seen);
    Some(mean + (seen - mean) / looks)
}

#[derive(Debug)]
pub(super) struct Area<T> {
    /// The cluster that it is of: two of an aggregate may have the same locality.
    pub(super) cluster: Arc<str>,
    pub(super) name: LocalityName,
    pub(super) priority: u32,
    pub(super) weight: u32,
    pub(super) past: Past,
    /// What picks draw from; `None` while nothing is usable.
    pub(super) layout: Option<Arc<Locality<T>>>,
    /// How many endpoints may take requests by the assignment's word.
    healthy: usize,
    usable: usize,
    dead: usize,
    /// How many are in the layout, and how many of these are usable.
    laid: usize,
    laid_usable: usize,
}

impl<T> Area<T> {
    pub(super) fn new(cluster: Arc<str>, name: LocalityName, priority: u32, weight: u32, past: Past) -> Self {
        let (healthy, usable, dead, laid, laid_usable) = Default::default();
        Self { cluster, name, priority, weight, past, layout: None, healthy, usable, dead, laid, laid_usable }
    }

    /// A healthy endpoint is one of its.
    pub(super) fn join(&mut self, endpoint: Standing) {
        self.healthy += 1;
        self.enter(endpoint);
    }

    /// One of its healthy endpoints has changed.
    pub(super) fn change(&mut self, before: Standing, after: Standing) {
        self.usable -= usize::from(before.usable);
        self.dead -= usize::from(before.dead);
        self.laid -= usize::from(before.laid);
        self.laid_usable -= usize::from(before.laid && before.usable);
        self.enter(after);
    }

    fn enter(&mut self, Standing { usable, dead, laid }: Standing) {
        self.usable += usize::from(usable);
        self.dead += usize::from(dead);
        self.laid += usize::from(laid);
        self.laid_usable += usize::from(laid && usable);
    }

    pub(super) fn healthy(&self) -> usize {
        self.healthy
    }

    pub(super) fn usable(&self) -> usize {
        self.usable
    }

    pub(super) fn is_usable(&self) -> bool {
        self.usable > 0
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead == self.healthy
    }

    pub(super) fn stand(&self, fraction: f64) -> Stand {
        Stand { weight: self.weight, usable: self.is_usable(), fraction }
    }

    /// Usable endpoints that are not in the layout yet.
    pub(super) fn newcomers(&self) -> usize {
        self.usable - self.laid_usable
    }

    /// Whether picks need another layout now.
    pub(super) fn is_stale(&self) -> bool {
        let gone = self.laid - self.laid_usable;
        if self.healthy <= SMALL || self.usable == 0 {
            return gone > 0 || self.newcomers() > 0;
        }
        gone > self.laid_usable || self.newcomers() * NEWCOMERS > self.laid
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDLE: Standing = Standing { usable: false, dead: false, laid: false };
    const USABLE: Standing = Standing { usable: true, ..IDLE };
    const LAID: Standing = Standing { laid: true, ..USABLE };
    const DOWN: Standing = Standing { usable: false, dead: true, laid: true };

    fn area(healthy: usize) -> Area<()> {
        let mut area = Area::new(Arc::default(), LocalityName::default(), 0, 1, Past::default());
        (0..healthy).for_each(|_| area.join(IDLE));
        area
    }

    /// Lays it out again, as the state does.
    fn lay(area: &mut Area<()>, usable: usize) {
        (0..usable).for_each(|_| area.change(USABLE, LAID));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_back_slow_takes_its_share_back_slower() {
        let failback = Failback { ramp: Duration::from_secs(10), hold_down: Duration::ZERO };
        let start = Instant::now();
        let mut past = Past { presence: Presence::Whole, ..Past::default() };
        past.saw(Some(0.1), start, Duration::from_secs(1), failback);
        past.presence = Presence::Returning { since: start, flaps: 0 };
        let fraction = |mut past: Past, takes| {
            let now = (1..=8).map(|second| start + Duration::from_secs(second));
            let last = now.inspect(|now| past.saw(Some(takes), *now, Duration::from_secs(1), failback)).last().unwrap();
            past.presence.fraction(last, failback)
        };
        assert_eq!((fraction(past, 0.15), fraction(past, 0.3)), (0.8, 0.2));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_back_takes_little_until_it_is_as_fast_as_it_was() {
        let failback = Failback { ramp: Duration::from_secs(10), hold_down: Duration::ZERO };
        let mut start = Instant::now();
        let mut past = Past { presence: Presence::Whole, ..Past::default() };
        past.saw(Some(0.1), start, Duration::from_secs(1), failback);
        past.presence = Presence::Returning { since: start, flaps: 0 };
        // Seconds later its share is this much of what it has climbed to; whole when that is at its end.
        let mut after = |past: &mut Past, seconds, takes| {
            for _ in 0..seconds {
                start += Duration::from_secs(1);
                past.saw(takes, start, Duration::from_secs(1), failback);
            }
            let climbed = past.presence.fraction(start, failback);
            (past.fraction(start, failback) / climbed, climbed)
        };
        let unknown = after(&mut past, 5, None).0;
        assert!((0.12..0.2).contains(&unknown), "it has not answered: {unknown}");
        let slow = after(&mut past, 10, Some(0.5)).0;
        assert!(slow < unknown / 1.5, "{slow} {unknown}");
        let well = after(&mut past, 4, Some(0.1)).0;
        assert!((0.2..0.9).contains(&well), "a few quick answers are not enough: {well}");
        assert!(after(&mut past, 4, Some(0.1)).0 > 0.8);
        // It ends, however slow it is.
        assert_eq!(after(&mut past, 40, Some(10.0)), (1.0, 1.0));
    }

    proptest! {
        #[test]
        fn a_returning_ones_share_is_between_the_foot_and_what_it_has_climbed_to(
            usual in 1e-4f32..10.0,
            since in 1e-4f32..60.0,
            more in 1.0f32..10.0,
            climbed in 0u64..12_000,
        ) {
            let failback = Failback { ramp: Duration::from_secs(10), hold_down: Duration::from_secs(1) };
            let now = Instant::now();
            let presence = Presence::Returning { since: now, flaps: 0 };
            let at = now + Duration::from_millis(climbed);
            let fraction = |since| {
                let past = Past { presence, usual: Some(usual), since_back: Some(since), ..Past::default() };
                past.fraction(at, failback)
            };
            let whole = presence.fraction(at, failback);
            prop_assert!(fraction(since) <= whole);
            prop_assert!(fraction(since) >= whole.min(FLOOR));
            prop_assert!(fraction(since * more) <= fraction(since), "the slower the less");
            prop_assert!(climbed < 11_000 || fraction(since) == 1.0, "the ramp ends");
        }
    }

    proptest! {
        #[test]
        fn it_comes_back_as_a_ramp_whatever_its_answers_take(answers in proptest::collection::vec(answer(), 1..120)) {
            let failback = Failback { ramp: Duration::from_secs(20), hold_down: Duration::from_secs(3) };
            let second = Duration::from_secs(1);
            let mut now = Instant::now();
            let mut past = Past { presence: Presence::Whole, ..Past::default() };
            past.saw(Some(0.1), now, second, failback);
            past.presence = Presence::Returning { since: now, flaps: 0 };
            // Who answers nothing any more is at the end of it, too.
            let answers = answers.into_iter().chain(std::iter::repeat(None));
            let shares: Vec<f64> = answers
                .map_while(|typical| {
                    now += second;
                    past.saw(typical, now, second, failback);
                    past.presence = past.presence.observe(true, false, now, failback);
                    (past.presence != Presence::Whole).then(|| past.fraction(now, failback))
                })
                .collect();
            let begun = shares.iter().position(|share| *share > 0.05).unwrap();
            let done = shares.iter().rposition(|share| *share < 0.95).unwrap() + 1;
            prop_assert!(done - begun >= 10, "{begun} to {done}: {shares:?}");
        }
    }

    /// What its endpoints typically took in one second: nothing, as long as usual, or up to a thousand times as long.
    fn answer() -> impl proptest::strategy::Strategy<Value = Option<f32>> {
        prop_oneof![Just(None), Just(Some(0.1)), (0.0f32..3.0).prop_map(|power| Some(0.1 * 10.0f32.powf(power)))]
    }

    #[test]
    fn connecting_ten_thousand_lays_out_some_sixty_times() {
        let (mut area, mut layouts, mut slots) = (area(10_000), 0, 0);
        for usable in 1..=10_000 {
            area.change(IDLE, USABLE);
            if area.is_stale() {
                let newcomers = area.newcomers();
                lay(&mut area, newcomers);
                (layouts, slots) = (layouts + 1, slots + usable);
            }
        }
        assert!(layouts < 80, "{layouts}");
        assert!(slots < 100_000, "{slots}");
        assert!(area.newcomers() < 1300);
    }

    #[test]
    fn a_large_one_is_laid_out_again_when_half_is_gone_and_a_small_one_at_once() {
        for (healthy, first) in [(1000, 501), (64, 1)] {
            let mut area = area(healthy);
            (0..healthy).for_each(|_| area.change(IDLE, LAID));
            let stale = (1..=healthy).find(|_| {
                area.change(LAID, DOWN);
                area.is_stale()
            });
            assert_eq!(stale, Some(first));
        }
    }

    #[test]
    fn it_is_dead_when_all_are_and_usable_when_one_is() {
        let mut area = area(2);
        assert!(!area.is_dead() && !area.is_usable());
        area.change(IDLE, DOWN);
        assert!(!area.is_dead());
        area.change(IDLE, DOWN);
        assert!(area.is_dead());
        area.change(DOWN, LAID);
        assert!(area.is_usable() && !area.is_dead());
    }
}
