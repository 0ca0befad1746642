//! How slowly a returning scope took its share back.

use std::time::Duration;

use portolan_topology::policy::Scope;

use super::record::{ClientId, Record, Selection, Window};

/// The windows in which the share is looked at: wide enough for some hundred calls of all clients together.
const WINDOW: Duration = Duration::from_millis(500);

/// How many windows before and after a moment say how far the share rose there: a second each.
const RISE_OVER: usize = 2;

/// The ramp begins in the first window above this fraction of the calls …
const BEGUN: f64 = 0.05;

/// … and ends in the first from which on every window is at or above this one.
const DONE: f64 = 0.95;

/// A ramp back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ramp {
    /// From the return (the begin of the window that was looked at) to the first client's begin.
    pub begins_after: Duration,
    /// From the begin to the end of the ramp, of the client that was fastest: clients that jump one after another are no
    /// ramp.
    pub took: Duration,
    /// How many steps as large as the largest rise within a second would make the whole way, rounded down; all clients
    /// together. 1 for a jump.
    pub steps: usize,
}

/// The ramp by which the clients in `returned` went back to it during `after`. `None`: they are not all back.
#[must_use]
pub fn ramp(record: &Record, returned: &Scope, after: Window) -> Option<Ramp> {
    let ids = (0..).map(ClientId).zip(&record.clients);
    let mut ramps = Vec::new();
    for (client, _) in ids.filter(|(_, client)| returned.contains(&client.locality)) {
        ramps.push(begin_and_end(&shares(record, returned, after, Some(client)))?);
    }
    // Those who are back in the first moment jumped: what was before the return counts too.
    let before = WINDOW * u32::try_from(RISE_OVER).unwrap_or(0);
    let together = shares(record, returned, Window::new(after.from.saturating_sub(before), after.until), None);
    let means = |windows: &[(u32, f64)]| windows.iter().map(|(_, share)| share).sum::<f64>() / windows.len() as f64;
    let rises = together.windows(2 * RISE_OVER).map(|around| {
        let (before, after) = around.split_at(RISE_OVER);
        means(after) - means(before)
    });
    let largest = rises.fold(0.0, f64::max);
    Some(Ramp {
        begins_after: WINDOW * ramps.iter().map(|(begin, _)| *begin).min()?,
        took: WINDOW * ramps.iter().map(|(begin, end)| end - begin).min()?,
        // A little tolerance: 0.2 is a fifth, whatever its last digit.
        steps: (1.0 / largest.max(0.01) + 1e-9).floor() as usize,
    })
}

/// By window with calls: its place, and the share of the successful calls that went to `returned`.
fn shares(record: &Record, returned: &Scope, after: Window, client: Option<ClientId>) -> Vec<(u32, f64)> {
    let count = after.length().as_nanos().div_ceil(WINDOW.as_nanos());
    let mut windows = vec![(0_usize, 0_usize); usize::try_from(count).unwrap_or(usize::MAX)];
    let selection = Selection::by_clients_in(after, returned);
    let calls = record.select(&selection).filter(|call| call.ok && client.is_none_or(|client| client == call.client));
    for call in calls {
        let (calls, home) = &mut windows[((call.start - after.from).as_nanos() / WINDOW.as_nanos()) as usize];
        *calls += 1;
        let inside = call.backend.is_some_and(|backend| returned.contains(&record.backend(backend).locality));
        *home += usize::from(inside);
    }
    let with_calls = (0..).zip(windows).filter(|(_, (calls, _))| *calls > 0);
    with_calls.map(|(index, (calls, home))| (index, home as f64 / calls as f64)).collect()
}

/// The windows in which a ramp begins and ends.
fn begin_and_end(shares: &[(u32, f64)]) -> Option<(u32, u32)> {
    let begin = shares.iter().position(|(_, share)| *share > BEGUN)?;
    let end = shares.iter().rposition(|(_, share)| *share < DONE).map_or(begin, |last| (last + 1).max(begin));
    Some((shares[begin].0, shares.get(end)?.0))
}
