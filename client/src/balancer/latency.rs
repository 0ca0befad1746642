//! How slow an endpoint is beside its peers, as this balancer has seen it: what the default strategy multiplies requests
//! in flight by.
//!
//! Underneath is an exponentially weighted mean of latencies over about [`MEMORY`] seconds. No clock is read where requests
//! end: a sample's weight comes from how many there are in a second, which is counted from one [`Latency::settle`] to the
//! next. A failure multiplies the mean, so that an endpoint that fails in a millisecond does not attract what it fails.
//! Without samples it goes back to what is typical, so that whoever was slow once is tried again.
//!
//! Only what is slow beyond [`TOLERANCE`] counts. Among endpoints that are about as fast a strict order would send all light
//! traffic to one of them; they share it instead. Until the first settling all count alike, or whoever answers first, over
//! a connection that is still cold, would have all others' requests fall on those that have not answered yet.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A sample's weight falls to 1/e in about so many seconds.
const MEMORY: f32 = 1.5;
/// The largest weight of one sample.
const LARGEST: f32 = 0.3;
/// An estimate nobody adds to is this much of its way (in orders of magnitude) nearer to the typical one each second.
const FORGOTTEN: f32 = 0.05;
/// What a failure multiplies the estimate by, up to the most, in seconds.
const FAILURE: f32 = 4.0;
const MOST: f32 = 60.0;
/// Before it begins: a unit, of which failures make multiples.
const UNKNOWN: f32 = 1.0;
/// A mean so many times that of the good ones among the peers is not slow.
const TOLERANCE: f32 = 1.25;

/// Seconds as `f32` bits above; then the samples since the last settling, whether it has begun, and the samples of the
/// interval before.
#[derive(Debug)]
pub(super) struct Latency {
    parts: AtomicU64,
    /// What the good ones among the peers take, in seconds: `f32` bits; 0: not known.
    good: AtomicU32,
}

/// What is known of the peers' latency, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Peers {
    /// The median.
    pub(super) typical: Option<f32>,
    /// The lowest decile: not the median, or nobody would be slow when half of all are.
    pub(super) good: Option<f32>,
}

impl Peers {
    pub(super) fn of(latencies: impl Iterator<Item = f32>) -> Self {
        let mut sorted: Vec<f32> = latencies.collect();
        sorted.sort_unstable_by(f32::total_cmp);
        Self { typical: sorted.get(sorted.len() / 2).copied(), good: sorted.get(sorted.len() / 10).copied() }
    }
}

const BEGUN: u64 = 1 << 15;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Parts {
    seconds: f32,
    begun: bool,
    now: u16,
    /// Below 2^15.
    before: u16,
}

impl Parts {
    const NEW: Self = Self { seconds: UNKNOWN, begun: false, now: 0, before: 0 };

    fn pack(self) -> u64 {
        let begun = if self.begun { BEGUN } else { 0 };
        u64::from(self.seconds.to_bits()) << 32 | u64::from(self.now) << 16 | begun | u64::from(self.before)
    }

    fn of(word: u64) -> Self {
        Self {
            seconds: f32::from_bits((word >> 32) as u32),
            begun: word & BEGUN != 0,
            now: (word >> 16) as u16,
            before: word as u16 & (BEGUN as u16 - 1),
        }
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self { parts: AtomicU64::new(Parts::NEW.pack()), good: AtomicU32::new(0) }
    }
}

impl Latency {
    /// How many times slower it is than its peers are by and large: 1 or more.
    pub(super) fn slowness(&self) -> f32 {
        let (parts, good) = (self.parts(), f32::from_bits(self.good.load(Relaxed)));
        match parts.begun {
            true if good > 0.0 => (parts.seconds / (good * TOLERANCE)).max(1.0),
            true => 1.0,
            false => parts.seconds / UNKNOWN,
        }
    }

    /// Its mean by samples of late, `seen` being those of the last second; `None`: there were none. In seconds.
    pub(super) fn fresh(&self, seen: Option<f32>) -> Option<f32> {
        let parts = self.parts();
        if parts.begun { (parts.now > 0 || parts.before > 0).then_some(parts.seconds) } else { seen }
    }

    /// A request was answered after so long.
    pub(super) fn answered(&self, after: Duration) {
        self.update(|parts| {
            let (now, sample) = (parts.now.saturating_add(1), after.as_secs_f32().clamp(1e-6, MOST));
            let weight = (1.0 / (MEMORY * f32::from(now.max(parts.before)))).min(LARGEST);
            let step = if parts.begun { weight * (sample - parts.seconds) } else { 0.0 };
            Parts { seconds: parts.seconds + step, now, ..parts }
        });
    }

    /// A request was not answered within so long. That tells only of one that is thought to be faster.
    pub(super) fn at_least(&self, after: Duration) {
        let parts = self.parts();
        if parts.begun && after.as_secs_f32() > parts.seconds {
            self.answered(after);
        }
    }

    /// A request failed after so long, if that is known.
    pub(super) fn failed(&self, after: Option<Duration>) {
        self.update(|parts| {
            let least = after.filter(|_| parts.begun).map_or(0.0, |after| after.as_secs_f32());
            let seconds = (parts.seconds.max(least) * FAILURE).min(MOST);
            Parts { seconds, now: parts.now.saturating_add(1), ..parts }
        });
    }

    /// A second has passed. `seen`: the mean of its successes in it, in seconds, if there were any.
    pub(super) fn settle(&self, seen: Option<f32>, peers: &Peers) {
        self.good.store(peers.good.unwrap_or(0.0).to_bits(), Relaxed);
        self.update(|parts| {
            let begins = seen.or(peers.typical).filter(|_| !parts.begun);
            let seconds = match (begins, peers.typical) {
                // What failures have made of it until now stays a multiple.
                (Some(first), _) => (first * parts.seconds / UNKNOWN).min(MOST),
                (None, Some(typical)) if parts.now == 0 => parts.seconds * (typical / parts.seconds).powf(FORGOTTEN),
                _ => parts.seconds,
            };
            let begun = parts.begun || begins.is_some();
            Parts { seconds, begun, now: 0, before: parts.now.min(BEGUN as u16 - 1) }
        });
    }

    /// It may be another process: what is typical is as good as what was seen.
    pub(super) fn forget(&self, typical: Option<f32>) {
        let new = typical.map_or(Parts::NEW, |seconds| Parts { seconds, begun: true, ..Parts::NEW });
        self.parts.store(new.pack(), Relaxed);
    }

    fn parts(&self) -> Parts {
        Parts::of(self.parts.load(Relaxed))
    }

    /// Two threads at once may lose a sample, and nothing else.
    fn update(&self, change: impl Fn(Parts) -> Parts) {
        self.parts.store(change(self.parts()).pack(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOBODY: Peers = Peers { typical: None, good: None };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn peers(seconds: f32) -> Peers {
        Peers::of([seconds].into_iter())
    }

    fn begun(seconds: f32) -> Latency {
        let latency = Latency::default();
        latency.settle(Some(seconds), &NOBODY);
        latency
    }

    #[test]
    fn what_was_not_answered_yet_is_a_lower_bound() {
        let latency = begun(0.1);
        latency.at_least(ms(50));
        assert_eq!(latency.fresh(Some(0.1)), None, "no sample");
        latency.at_least(ms(1000));
        assert!(latency.fresh(None).unwrap() > 0.3);
    }

    #[test]
    fn it_begins_with_the_first_mean_and_a_change_is_followed() {
        let latency = Latency::default();
        latency.answered(ms(10));
        assert_eq!((latency.slowness(), latency.fresh(Some(0.01))), (1.0, Some(0.01)));
        latency.settle(Some(0.01), &peers(0.5));
        assert_eq!((latency.slowness(), latency.fresh(None)), (1.0, Some(0.01)));
        for _ in 0..10 {
            (0..50).for_each(|_| latency.answered(ms(50)));
            latency.settle(None, &peers(0.01));
        }
        assert!((latency.slowness() - 4.0).abs() < 0.2, "{}", latency.slowness());
    }

    #[test]
    fn who_was_not_asked_begins_with_what_is_typical() {
        let latency = Latency::default();
        latency.settle(None, &NOBODY);
        assert!(!latency.parts().begun);
        latency.settle(None, &peers(0.2));
        assert_eq!((latency.parts().seconds, latency.fresh(None)), (0.2, None));
    }

    #[test]
    fn who_is_about_as_fast_as_the_good_ones_is_not_slow() {
        for (its, slowness) in [(0.05, 1.0), (0.1, 1.0), (0.125, 1.0), (0.25, 2.0)] {
            let latency = begun(its);
            latency.answered(Duration::from_secs_f32(its));
            latency.settle(None, &peers(0.1));
            assert!((latency.slowness() - slowness).abs() < 1e-3, "{its}: {}", latency.slowness());
        }
    }

    #[test]
    fn the_slow_half_is_slow() {
        let half = Peers::of((0..10).map(|at| if at % 2 == 0 { 0.1 } else { 0.2 }));
        assert_eq!(half.good, Some(0.1));
    }

    #[test]
    fn many_samples_a_second_remember_no_shorter_than_few() {
        let latency = begun(0.01);
        (0..1000).for_each(|_| latency.answered(ms(10)));
        latency.settle(None, &NOBODY);
        // A tenth of a second of ten times slower answers.
        (0..100).for_each(|_| latency.answered(ms(100)));
        assert!(latency.parts().seconds < 0.02, "{:?}", latency.parts());
    }

    #[test]
    fn a_fast_failure_repels_and_is_forgotten() {
        let latency = begun(0.1);
        latency.settle(None, &peers(0.1));
        latency.failed(Some(ms(1)));
        assert!((latency.slowness() - FAILURE / TOLERANCE).abs() < 1e-3, "{}", latency.slowness());
        for _ in 0..300 {
            latency.settle(None, &peers(0.1));
        }
        assert_eq!(latency.slowness(), 1.0);
    }

    #[test]
    fn a_failure_before_the_beginning_counts_on() {
        let latency = Latency::default();
        latency.failed(Some(ms(1)));
        assert_eq!(latency.slowness(), FAILURE);
        latency.settle(None, &peers(0.1));
        assert!((latency.parts().seconds - 0.4).abs() < 1e-6, "{:?}", latency.parts());
    }

    proptest! {
        #[test]
        fn it_stays_among_what_it_has_seen(
            first in 1u64..5000, samples in proptest::collection::vec((1u64..5000, any::<bool>()), 1..100),
        ) {
            let latency = begun(ms(first).as_secs_f32());
            let (mut low, mut high) = (ms(first).as_secs_f32(), ms(first).as_secs_f32());
            for (sample, settle) in samples {
                latency.answered(ms(sample));
                low = low.min(ms(sample).as_secs_f32());
                high = high.max(ms(sample).as_secs_f32());
                prop_assert!((low * 0.999..=high * 1.001).contains(&latency.parts().seconds));
                if settle {
                    latency.settle(None, &NOBODY);
                }
            }
        }

        #[test]
        fn parts_are_kept(seconds in 1e-6f32..60.0, begun: bool, now: u16, before in 0u16..1 << 15) {
            let parts = Parts { seconds, begun, now, before };
            prop_assert_eq!(Parts::of(parts.pack()), parts);
        }
    }
}
