//! Latency percentiles, exact: by nearest rank over all successful calls.

use std::time::Duration;

use super::record::{Record, Selection};

/// The 99th percentile of the selected successful calls, and how many they are. `None` without any.
#[must_use]
pub fn p99(record: &Record, selection: &Selection) -> Option<(Duration, usize)> {
    let mut latencies: Vec<_> =
        record.select(selection).filter(|call| call.ok).map(|call| call.end - call.start).collect();
    let calls = latencies.len();
    percentile(&mut latencies, 99).map(|latency| (latency, calls))
}

/// The `percent`th percentile by nearest rank; `latencies` is reordered. `None` if it is empty.
#[must_use]
pub fn percentile(latencies: &mut [Duration], percent: usize) -> Option<Duration> {
    let rank = (latencies.len() * percent).div_ceil(100).max(1);
    (rank <= latencies.len()).then(|| *latencies.select_nth_unstable(rank - 1).1)
}
