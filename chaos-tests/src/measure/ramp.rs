//! How slowly a returning scope took its share back.

use std::time::Duration;

use portolan_topology::policy::Scope;

use super::record::{ClientId, Record, Selection, Window};

/// The windows in which one client's share is looked at: wide enough for some calls of each.
const WINDOW: Duration = Duration::from_millis(500);

/// The windows in which all clients' share is looked at, for its levels.
const NARROW: Duration = Duration::from_millis(200);

/// A client's ramp begins in the first window above this fraction of its calls …
const BEGUN: f64 = 0.05;

/// … and ends in the first from which on every window is at or above this one.
const DONE: f64 = 0.95;

/// Levels are this far apart.
const STEP: f64 = 0.1;

/// A ramp back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ramp {
    /// From the return (the begin of the window that was looked at) to the first client's begin.
    pub begins_after: Duration,
    /// From the begin to the end of the ramp, of the client that was fastest: clients that jump one after another are no
    /// ramp.
    pub took: Duration,
    /// How many levels between nothing and all, at least a tenth apart, the share of all clients together was seen at.
    pub steps: usize,
}

/// The ramp by which the clients in `returned` went back to it during `after`. `None`: they are not all back.
#[must_use]
pub fn ramp(record: &Record, returned: &Scope, after: Window) -> Option<Ramp> {
    let ids = (0..).map(ClientId).zip(&record.clients);
    let mut ramps = Vec::new();
    for (client, _) in ids.filter(|(_, client)| returned.contains(&client.locality)) {
        ramps.push(begin_and_end(&shares(record, returned, after, WINDOW, Some(client)))?);
    }
    let together = shares(record, returned, after, NARROW, None);
    Some(Ramp {
        begins_after: WINDOW * ramps.iter().map(|(begin, _)| *begin).min()?,
        took: WINDOW * ramps.iter().map(|(begin, end)| end - begin).min()?,
        steps: levels(&rising(together.iter().map(|share| share.home))),
    })
}

/// A window with calls.
struct Share {
    /// Its place.
    index: u32,
    /// The fraction of its successful calls that went home.
    home: f64,
}

fn shares(record: &Record, returned: &Scope, after: Window, width: Duration, client: Option<ClientId>) -> Vec<Share> {
    let count = after.length().as_nanos().div_ceil(width.as_nanos());
    let mut windows = vec![(0_usize, 0_usize); usize::try_from(count).unwrap_or(usize::MAX)];
    let selection = Selection::by_clients_in(after, returned);
    let calls = record.select(&selection).filter(|call| call.ok && client.is_none_or(|client| client == call.client));
    for call in calls {
        let (calls, home) = &mut windows[((call.start - after.from).as_nanos() / width.as_nanos()) as usize];
        *calls += 1;
        let inside = call.backend.is_some_and(|backend| returned.contains(&record.backend(backend).locality));
        *home += usize::from(inside);
    }
    let with_calls = (0..).zip(windows).filter(|(_, (calls, _))| *calls > 0);
    with_calls.map(|(index, (calls, home))| Share { index, home: home as f64 / calls as f64 }).collect()
}

/// The windows in which a ramp begins and ends.
fn begin_and_end(shares: &[Share]) -> Option<(u32, u32)> {
    let begin = shares.iter().position(|share| share.home > BEGUN)?;
    let end = shares.iter().rposition(|share| share.home < DONE).map_or(begin, |last| (last + 1).max(begin));
    Some((shares[begin].index, shares.get(end)?.index))
}

/// The rising curve that is nearest to `values` (isotonic regression, by pooling adjacent violators): what a noisy ramp
/// comes to without its noise.
fn rising(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for value in values {
        let mut pool = (value, 1);
        while let Some((mean, count)) = pools.pop_if(|(mean, _)| *mean > pool.0) {
            let both = pool.1 + count;
            pool = ((pool.0 * pool.1 as f64 + mean * count as f64) / both as f64, both);
        }
        pools.push(pool);
    }
    pools.into_iter().flat_map(|(mean, count)| std::iter::repeat_n(mean, count)).collect()
}

/// How many values of a rising curve, at least [`STEP`] apart, lie between nothing and all.
fn levels(curve: &[f64]) -> usize {
    let mut last = 0.0;
    let mut count = 0;
    for value in curve.iter().take_while(|value| **value < DONE) {
        if *value >= last + STEP {
            last = *value;
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_rising_curve_pools_what_falls() {
        assert_eq!(rising([0.0, 0.5, 0.25, 0.75, 0.5, 1.0].into_iter()), [0.0, 0.375, 0.375, 0.625, 0.625, 1.0]);
        assert_eq!(rising([1.0, 0.5, 0.0].into_iter()), [0.5, 0.5, 0.5]);
    }

    #[test]
    fn a_noisy_plateau_is_one_level() {
        let noisy = [0.0, 0.48, 0.55, 0.52, 0.46, 0.53, 0.5, 1.0, 1.0];
        assert_eq!(levels(&rising(noisy.into_iter())), 1);
    }
}
