//! How long after a kill the traffic of the killed scope's clients had moved elsewhere.

use std::time::Duration;

use portolan_topology::policy::Scope;

use super::record::{Record, Selection, Window};

/// The windows in which calls are looked at, counted from the kill.
pub const WINDOW: Duration = Duration::from_millis(200);

/// The part of a window's calls that must succeed elsewhere.
pub const MOVED_PERCENT: usize = 99;

/// From the kill (the begin of `after`) to the start of the first [`WINDOW`] in which, and in every later one of `after`,
/// at least 99% of the calls of the clients in `killed` succeed outside it. 0 is possible.
///
/// A window in which nobody called says nothing. `None`: it never happened, or nobody called at all.
#[must_use]
pub fn moved(record: &Record, killed: &Scope, after: Window) -> Option<Duration> {
    let count = after.length().as_nanos().div_ceil(WINDOW.as_nanos());
    let mut windows = vec![(0_usize, 0_usize); usize::try_from(count).unwrap_or(usize::MAX)];
    let selection = Selection::by_clients_in(after, killed);
    for call in record.select(&selection) {
        let (calls, elsewhere) = &mut windows[((call.start - after.from).as_nanos() / WINDOW.as_nanos()) as usize];
        *calls += 1;
        let outside = call.backend.is_some_and(|backend| !killed.contains(&record.backend(backend).locality));
        *elsewhere += usize::from(call.ok && outside);
    }
    if windows.iter().all(|(calls, _)| *calls == 0) {
        return None;
    }
    let still_there = windows.iter().rposition(|(calls, elsewhere)| elsewhere * 100 < calls * MOVED_PERCENT);
    let first = still_there.map_or(0, |last| last + 1);
    // After the last bad window at least one must have shown that calls succeed.
    windows[first..].iter().any(|(calls, _)| *calls > 0).then(|| WINDOW * u32::try_from(first).unwrap_or(u32::MAX))
}
