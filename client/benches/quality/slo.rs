//! How many servers hold one p99 at the same load: what people save when they move to another strategy.

use crate::scenarios;
use crate::strategies::Strategy;

/// The service level: p99 under so many milliseconds, and no more than one request in ten thousand failed. An idle fleet's
/// p99 is some 280 ms, the slowest requests' own work.
pub(crate) const P99_MS: f64 = 350.0;
/// What a hundred servers are promised, and a little more.
pub(crate) const LOAD: f64 = 1.03;
const FEWEST: usize = 40;
const MOST: usize = 640;
/// To so many servers exactly.
const STEP: usize = 4;

/// By strategy; `None`: more than the most that were tried.
pub(crate) fn pods(seed: u64) -> Vec<(Strategy, Option<usize>)> {
    Strategy::ALL.into_iter().map(|strategy| (strategy, fewest(strategy, seed))).collect()
}

fn holds(strategy: Strategy, seed: u64, servers: usize) -> bool {
    let scenario = scenarios::shared("slo", LOAD, servers);
    let measured = strategy.run(&scenario, seed);
    measured.quantile_ms(0.99) <= P99_MS && measured.errors * 10_000 <= measured.requests
}

/// By bisection: more servers are never worse, but for chance.
fn fewest(strategy: Strategy, seed: u64) -> Option<usize> {
    if !holds(strategy, seed, MOST) {
        return None;
    }
    let (mut too_few, mut enough) = (FEWEST - STEP, MOST);
    while enough - too_few > STEP {
        let middle = too_few + (enough - too_few) / 2 / STEP * STEP;
        if holds(strategy, seed, middle) { enough = middle } else { too_few = middle }
    }
    Some(enough)
}
