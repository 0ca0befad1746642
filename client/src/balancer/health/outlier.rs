//! Who is ejected: endpoints that fail in a row, fail more than their peers, or take far longer.
//!
//! The rules are Envoy's (consecutive errors, failure percentage, success rate), with one more for latency, and one
//! difference: the most that may be ejected protects against ejecting what others would have to carry, so it does not
//! hold for a locality of which every endpoint fails in a row while another serves.

use super::Interval;
use crate::balancer::latency::Peers;
use crate::xds::model::OutlierDetection;

/// Peers are compared where at least so many had enough requests in the interval.
const PEERS: usize = 5;
const ENOUGH: u32 = 20;
/// An endpoint that fails this part of its requests is out.
const FAILURE_PERCENT: u32 = 85;
/// So many deviations below the mean success rate are too many.
const DEVIATIONS: f64 = 1.9;
/// A mean latency so many times the peers' median is too long.
const TIMES_SLOWER: f32 = 10.0;

/// An endpoint of the locality that is judged.
#[derive(Debug, Clone, Copy)]
pub(in crate::balancer) struct Member {
    pub(in crate::balancer) interval: Interval,
    pub(in crate::balancer) ejected: bool,
}

/// Which endpoints of a locality are to be ejected now. `others`: whether another locality could serve instead.
pub(in crate::balancer) fn judge(members: &[Member], others: bool, limits: &OutlierDetection) -> Vec<bool> {
    let mut out = vec![false; members.len()];
    let in_a_row = |member: &Member| member.interval.consecutive >= limits.consecutive_errors;
    if limits.eject_whole_locality && others && members.iter().all(|member| member.ejected || in_a_row(member)) {
        return members.iter().map(|member| !member.ejected).collect();
    }
    let most = (members.len() * limits.max_ejection_percent as usize / 100).max(1);
    // The last one is never ejected: with nobody to take its part, a poor answer is better than none.
    let most = most.min(members.len().saturating_sub(1));
    let mut ejected = members.iter().filter(|member| member.ejected).count();
    let usual = Usual::of(members);
    // The worst first, since there may not be room for all.
    let mut order: Vec<usize> = (0..members.len()).filter(|at| !members[*at].ejected).collect();
    order.sort_by_key(|at| std::cmp::Reverse(members[*at].interval.consecutive));
    for at in order {
        if ejected >= most {
            break;
        }
        if in_a_row(&members[at]) || usual.exclude(&members[at].interval) {
            out[at] = true;
            ejected += 1;
        }
    }
    out
}

/// What is usual among the endpoints that had enough requests.
struct Usual {
    enough: bool,
    /// A success rate below this is too low.
    least_success: f64,
    median_latency: Option<f32>,
}

fn requests(interval: &Interval) -> u32 {
    interval.succeeded + interval.failed
}

fn success(interval: &Interval) -> f64 {
    f64::from(interval.succeeded) / f64::from(requests(interval).max(1))
}

impl Usual {
    fn of(members: &[Member]) -> Self {
        let judged = || members.iter().filter(|m| !m.ejected && requests(&m.interval) >= ENOUGH).map(|m| m.interval);
        let n = judged().count();
        let mean = judged().map(|interval| success(&interval)).sum::<f64>() / n.max(1) as f64;
        let variance = judged().map(|interval| (success(&interval) - mean).powi(2)).sum::<f64>() / n.max(1) as f64;
        let median_latency = Peers::of(judged().filter_map(|interval| interval.latency)).typical;
        Self { enough: n >= PEERS, least_success: mean - DEVIATIONS * variance.sqrt(), median_latency }
    }

    fn exclude(&self, interval: &Interval) -> bool {
        if !self.enough || requests(interval) < ENOUGH {
            return false;
        }
        let failing = interval.failed * 100 >= requests(interval) * FAILURE_PERCENT;
        let below = interval.failed > 0 && success(interval) < self.least_success;
        let slow = interval.latency.zip(self.median_latency).is_some_and(|(its, median)| its > median * TIMES_SLOWER);
        failing || below || slow
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(succeeded: u32, failed: u32, consecutive: u32) -> Member {
        let interval = Interval { succeeded, failed, consecutive, latency: Some(0.01), ..Interval::default() };
        Member { interval, ejected: false }
    }

    fn ejected(members: &[Member], others: bool) -> Vec<usize> {
        let out = judge(members, others, &OutlierDetection::default());
        (0..members.len()).filter(|at| out[*at]).collect()
    }

    #[test]
    fn five_failures_in_a_row_eject() {
        let well = member(30, 0, 0);
        assert_eq!(ejected(&[well, member(0, 5, 5), well, member(0, 4, 4)], false), [1]);
    }

    #[test]
    fn one_that_fails_or_lags_among_peers_is_ejected() {
        let mut members = vec![member(100, 0, 0); 10];
        members[3] = member(60, 40, 1);
        members[7].interval.latency = Some(0.2);
        assert_eq!(ejected(&members, false), [3, 7]);
        members[5].interval.latency = Some(0.09);
        assert_eq!(ejected(&members, false), [3, 7], "nine times is not ten");
    }

    #[test]
    fn peers_that_all_fail_alike_stay() {
        assert!(ejected(&vec![member(80, 20, 1); 10], false).is_empty());
    }

    #[test]
    fn the_most_holds_but_for_a_dead_locality_that_others_can_replace() {
        let dead = vec![member(0, 9, 9); 6];
        assert_eq!(ejected(&dead, false).len(), 3);
        assert_eq!(ejected(&dead, true).len(), 6);
        let mut one_lives = dead.clone();
        one_lives[2] = member(9, 0, 0);
        assert_eq!(ejected(&one_lives, true).len(), 3);
        assert!(ejected(&[member(0, 9, 9)], false).is_empty(), "the only one stays");
        assert_eq!(ejected(&[member(0, 9, 9)], true), [0]);
    }

    proptest! {
        #[test]
        fn never_more_than_the_most(stats in proptest::collection::vec((0u32..200, 0u32..200, 0u32..9, any::<bool>()), 1..30)) {
            let members: Vec<Member> =
                stats.iter().map(|(s, f, row, ejected)| Member { ejected: *ejected, ..member(*s, *f, *row) }).collect();
            let out = judge(&members, false, &OutlierDetection::default());
            let before = members.iter().filter(|m| m.ejected).count();
            let more = out.iter().filter(|out| **out).count();
            prop_assert!(more == 0 || before + more <= (members.len() / 2).max(1));
            prop_assert!(out.iter().zip(&members).all(|(out, m)| !(*out && m.ejected)));
        }
    }
}
