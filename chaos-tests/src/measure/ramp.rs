//! How slowly a returning scope took its share back.

use std::collections::BTreeSet;
use std::time::Duration;

use portolan_topology::policy::Scope;

use super::record::{Record, Selection, Window};

/// The windows in which the share is looked at: wide enough for some hundred calls.
const WINDOW: Duration = Duration::from_millis(500);

/// The ramp begins in the first window above this fraction of the clients' calls …
const BEGUN: f64 = 0.05;

/// … and ends in the first from which on every window is at or above this one.
const DONE: f64 = 0.95;

/// A ramp back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ramp {
    /// From the return (the begin of the window that was looked at) to the ramp's begin.
    pub begins_after: Duration,
    /// From the begin to the end of the ramp.
    pub took: Duration,
    /// How many different tenths, from the first to the ninth, the share was seen at on the way: 0 for a jump.
    pub steps: usize,
}

/// The ramp by which the clients in `returned` went back to it during `after`. `None`: they are not back.
#[must_use]
pub fn ramp(record: &Record, returned: &Scope, after: Window) -> Option<Ramp> {
    let count = after.length().as_nanos().div_ceil(WINDOW.as_nanos());
    let mut windows = vec![(0_usize, 0_usize); usize::try_from(count).unwrap_or(usize::MAX)];
    let selection = Selection::by_clients_in(after, returned);
    for call in record.select(&selection).filter(|call| call.ok) {
        let (calls, home) = &mut windows[((call.start - after.from).as_nanos() / WINDOW.as_nanos()) as usize];
        *calls += 1;
        let inside = call.backend.is_some_and(|backend| returned.contains(&record.backend(backend).locality));
        *home += usize::from(inside);
    }
    let shares: Vec<(u32, f64)> = (0..)
        .zip(windows)
        .filter(|(_, (calls, _))| *calls > 0)
        .map(|(index, (calls, home))| (index, home as f64 / calls as f64))
        .collect();
    let begin = shares.iter().position(|(_, share)| *share > BEGUN)?;
    let end = shares.iter().rposition(|(_, share)| *share < DONE).map_or(begin, |last| (last + 1).max(begin));
    let (begins, ends) = (shares[begin].0, shares.get(end)?.0);
    let tenths: BTreeSet<u32> = shares[begin..end].iter().map(|(_, share)| (share * 10.0).round() as u32).collect();
    Some(Ramp {
        begins_after: WINDOW * begins,
        took: WINDOW * (ends - begins),
        steps: tenths.into_iter().filter(|tenth| (1..=9).contains(tenth)).count(),
    })
}
