//! Which share of the traffic each locality takes: from priorities, weights, and how far each has come back. Pure.

/// A locality as the arithmetic sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stand {
    /// Its weight within its priority.
    pub(crate) weight: u32,
    /// Whether it has an endpoint that could take a request.
    pub(crate) usable: bool,
    /// How much of its part it may take: 1 but while it comes back from the dead.
    pub(crate) fraction: f64,
}

impl Stand {
    fn is_whole(&self) -> bool {
        self.usable && self.fraction >= 1.0
    }

    fn is_returning(&self) -> bool {
        self.usable && self.fraction < 1.0
    }

    fn takes_something(&self) -> bool {
        self.usable && self.fraction > 0.0
    }
}

/// The localities' shares, in the order given. They sum to 1, or are all 0 when nothing is usable.
///
/// A priority takes everything that the ones above it leave. Within it, weights count among the usable alone, so that a
/// dead locality's part falls to its peers. A locality that comes back takes `fraction` of its part; the rest goes where
/// it would go without that locality: to the whole ones of its priority, else to the next priority. There, what comes
/// back takes only as much more as it has come back further: a zone and the region around it that were lost together
/// come back as one ramp, not as one on top of another. What nobody takes in the end goes to the first priority that has
/// begun to take something, else to the first that is usable: better too early than not at all.
pub(crate) fn shares(priorities: &[Vec<Stand>]) -> Vec<Vec<f64>> {
    let mut all: Vec<Vec<f64>> = priorities.iter().map(|tier| vec![0.0; tier.len()]).collect();
    let mut left = 1.0;
    for (tier, shares) in priorities.iter().zip(&mut all) {
        let total = weight(tier, |s| s.usable);
        if total == 0.0 {
            continue;
        }
        let part = |stand: &Stand| f64::from(stand.weight) / total * stand.fraction.max(0.0);
        let returned: f64 = tier.iter().filter(|s| s.is_returning()).map(part).sum();
        let taken = if tier.iter().any(Stand::is_whole) { left * returned } else { (returned - (1.0 - left)).max(0.0) };
        for (stand, share) in tier.iter().zip(shares.iter_mut()).filter(|(s, _)| s.is_returning() && returned > 0.0) {
            *share = taken * part(stand) / returned;
        }
        left -= taken;
        if spread(left, tier, shares, Stand::is_whole) {
            return all;
        }
    }
    let begun = priorities.iter().position(|tier| tier.iter().any(Stand::takes_something));
    let usable = priorities.iter().position(|tier| tier.iter().any(|s| s.usable));
    if let Some(at) = begun {
        spread(left, &priorities[at], &mut all[at], Stand::takes_something);
    } else if let Some(at) = usable {
        spread(left, &priorities[at], &mut all[at], |s| s.usable);
    }
    all
}

/// Adds `amount` to the shares of those chosen, by weight; false if there are none.
fn spread(amount: f64, tier: &[Stand], shares: &mut [f64], chosen: impl Fn(&Stand) -> bool) -> bool {
    let total = weight(tier, &chosen);
    for (stand, share) in tier.iter().zip(shares).filter(|(s, _)| chosen(s)) {
        *share += amount * f64::from(stand.weight) / total;
    }
    total > 0.0
}

/// The sum of weights of those chosen: exact, since 2³² localities of the largest weight stay far below 2⁵³ in practice.
fn weight(tier: &[Stand], chosen: impl Fn(&Stand) -> bool) -> f64 {
    tier.iter().filter(|s| chosen(s)).map(|s| f64::from(s.weight)).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(weight: u32) -> Stand {
        Stand { weight, usable: true, fraction: 1.0 }
    }

    fn dead(weight: u32) -> Stand {
        Stand { usable: false, ..whole(weight) }
    }

    fn back(weight: u32, fraction: f64) -> Stand {
        Stand { fraction, ..whole(weight) }
    }

    fn check(priorities: &[Vec<Stand>], expected: &[&[f64]]) {
        let shares = shares(priorities);
        for (got, want) in shares.iter().flatten().zip(expected.iter().copied().flatten()) {
            assert!((got - want).abs() < 1e-9, "{shares:?}, not {expected:?}");
        }
    }

    #[test]
    fn weights_split_the_first_usable_priority() {
        check(&[vec![whole(80), whole(20)], vec![whole(1)]], &[&[0.8, 0.2], &[0.0]]);
        check(&[vec![dead(1)], vec![whole(1), whole(3)]], &[&[0.0], &[0.25, 0.75]]);
    }

    #[test]
    fn a_dead_localitys_part_falls_to_its_peers() {
        check(&[vec![dead(50), whole(30), whole(20)], vec![whole(1)]], &[&[0.0, 0.6, 0.4], &[0.0]]);
    }

    #[test]
    fn what_a_returning_locality_leaves_goes_where_it_would_go_without_it() {
        check(&[vec![back(50, 0.1), whole(50)], vec![whole(1)]], &[&[0.05, 0.95], &[0.0]]);
        check(&[vec![back(1, 0.1)], vec![whole(1)]], &[&[0.1], &[0.9]]);
        check(
            &[vec![back(1, 0.1)], vec![dead(1)], vec![back(1, 0.5)], vec![whole(1)]],
            &[&[0.1], &[0.0], &[0.4], &[0.5]],
        );
    }

    #[test]
    fn a_region_that_was_lost_whole_comes_back_as_one_ramp() {
        for fraction in [0.0, 0.1, 0.5, 0.9] {
            let returning = vec![back(1, fraction)];
            let priorities = [returning.clone(), returning.clone(), returning, vec![whole(70), whole(30)]];
            let away = 1.0 - fraction;
            check(&priorities, &[&[fraction], &[0.0], &[0.0], &[0.7 * away, 0.3 * away]]);
        }
    }

    #[test]
    fn the_only_one_is_used_at_once() {
        check(&[vec![back(1, 0.0)], vec![dead(1)]], &[&[1.0], &[0.0]]);
        check(&[vec![back(1, 0.0)], vec![back(1, 0.3)]], &[&[0.0], &[1.0]]);
        check(&[vec![back(1, 0.3)], vec![back(1, 0.1)]], &[&[1.0], &[0.0]]);
    }

    fn stands() -> impl Strategy<Value = Vec<Vec<Stand>>> {
        let fraction = prop_oneof![Just(0.0), Just(1.0), 0.0..1.0];
        let stand = (1u32..1000, any::<bool>(), fraction);
        let stand = stand.prop_map(|(weight, usable, fraction)| Stand { weight, usable, fraction });
        proptest::collection::vec(proptest::collection::vec(stand, 1..4), 1..4)
    }

    proptest! {
        #[test]
        fn shares_sum_to_one_and_the_dead_take_nothing(priorities in stands()) {
            let shares = shares(&priorities);
            let sum: f64 = shares.iter().flatten().sum();
            let any = priorities.iter().flatten().any(|s| s.usable);
            prop_assert!((sum - if any { 1.0 } else { 0.0 }).abs() < 1e-9, "{sum}");
            for (stand, share) in priorities.iter().flatten().zip(shares.iter().flatten()) {
                prop_assert!(stand.usable || *share == 0.0);
                prop_assert!(*share >= 0.0);
            }
        }

        #[test]
        fn a_held_locality_takes_nothing_while_another_takes_something(priorities in stands()) {
            let shares = shares(&priorities);
            if priorities.iter().flatten().any(Stand::takes_something) {
                for (stand, share) in priorities.iter().flatten().zip(shares.iter().flatten()) {
                    prop_assert!(stand.fraction > 0.0 || *share == 0.0);
                }
            }
        }

        #[test]
        fn coming_back_further_never_means_less(priorities in stands(), more in 0.0f64..1.0) {
            // Of the first locality, while another is whole: the last resort may give all to one that has just begun.
            let mut further = priorities.clone();
            let Some(first) = further[0].first_mut().filter(|s| s.usable) else { return Ok(()) };
            first.fraction = first.fraction.max(more);
            let others_whole = priorities.iter().flatten().skip(1).any(Stand::is_whole);
            prop_assume!(others_whole);
            prop_assert!(shares(&further)[0][0] >= shares(&priorities)[0][0] - 1e-9);
        }
    }
}
