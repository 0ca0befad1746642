//! The ramp of an endpoint that has just begun: Envoy's slow start.

use std::time::Duration;

use crate::xds::model::Warmup;

/// A latency so many times its peers' holds the ramp.
const SLOW: f32 = 2.0;

impl Warmup {
    /// The part of its share after it has been well for so long: `max(least, (well / window)^(1 / aggression))`.
    pub(super) fn fraction(&self, well: Duration) -> f64 {
        if self.window.is_zero() {
            return 1.0;
        }
        let passed = (well.as_secs_f64() / self.window.as_secs_f64()).min(1.0);
        passed.powf(1.0 / self.aggression).max(self.least)
    }

    /// The part of the window after which the fraction is this: for a server that says how warm it is.
    pub(super) fn time_of(&self, fraction: f64) -> f64 {
        fraction.clamp(0.0, 1.0).powf(self.aggression)
    }

    /// Whether it is much slower than its peers.
    pub(super) fn is_slow(&self, latency: Option<f32>, typical: Option<f32>) -> bool {
        latency.zip(typical).is_some_and(|(latency, typical)| latency > typical * SLOW)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_window_is_whole_at_once() {
        assert_eq!(Warmup { window: Duration::ZERO, ..Warmup::default() }.fraction(Duration::ZERO), 1.0);
    }

    #[test]
    fn the_time_of_a_steep_ramp_may_round_to_nothing_and_is_still_the_least() {
        let warmup = Warmup { aggression: 9.26, ..Warmup::default() };
        assert_eq!(warmup.fraction(warmup.window.mul_f64(warmup.time_of(0.01))), warmup.least);
    }

    proptest! {
        #[test]
        fn it_climbs_from_the_least_to_the_whole(window in 1u64..600, aggression in 0.1f64..10.0, least in 0.0f64..1.0) {
            let warmup = Warmup { window: Duration::from_secs(window), aggression, least };
            let fractions: Vec<f64> = (0..=20).map(|k| warmup.fraction(warmup.window * k / 20)).collect();
            prop_assert!(fractions.is_sorted());
            prop_assert!((fractions[0] - least).abs() < 1e-9);
            prop_assert_eq!(fractions[20], 1.0);
        }

        /// Of ramps whose times a duration can hold: 0.01^4 of the window is 600 ns.
        #[test]
        fn time_and_fraction_are_each_others_inverse(aggression in 0.2f64..4.0, fraction in 0.01f64..1.0) {
            let warmup = Warmup { aggression, least: 0.0, ..Warmup::default() };
            let back = warmup.fraction(warmup.window.mul_f64(warmup.time_of(fraction)));
            prop_assert!((back - fraction).abs() < 1e-3, "{back} {fraction}");
        }
    }
}
