//! A record as figures over time, for the plots.

use std::collections::BTreeMap;
use std::time::Duration;

use portolan_topology::names::RegionName;

use crate::measure::{Record, percentile};

/// About so many points fit a plot.
const POINTS: u32 = 200;
/// No window is shorter: it needs some calls.
const SHORTEST: Duration = Duration::from_millis(200);

/// All series of a run, over windows of one length.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    /// The length of a window.
    pub(super) window: Duration,
    /// By the clients' region: successful calls by the answering region, by window.
    pub(super) answered: BTreeMap<RegionName, BTreeMap<RegionName, Vec<usize>>>,
    /// Failed calls by window.
    pub(super) failed: Vec<usize>,
    /// Calls by window.
    pub(super) calls: Vec<usize>,
    /// Median latency by window; `None` without successful calls.
    pub(super) p50: Vec<Option<Duration>>,
    /// 99th percentile of latency by window.
    pub(super) p99: Vec<Option<Duration>>,
}

impl Series {
    pub(super) fn new(record: &Record, duration: Duration) -> Self {
        let window = (duration / POINTS).max(SHORTEST);
        let count = usize::try_from(duration.as_nanos().div_ceil(window.as_nanos())).unwrap_or(1).max(1);
        let mut answered: BTreeMap<RegionName, BTreeMap<RegionName, Vec<usize>>> = BTreeMap::new();
        for client in &record.clients {
            answered.entry(client.locality.region.clone()).or_default();
        }
        let (mut failed, mut calls) = (vec![0; count], vec![0; count]);
        let mut latencies: Vec<Vec<Duration>> = vec![Vec::new(); count];
        for call in &record.calls {
            let index = usize::try_from(call.start.as_nanos() / window.as_nanos()).unwrap_or(usize::MAX).min(count - 1);
            calls[index] += 1;
            let Some(backend) = call.backend.filter(|_| call.ok) else {
                failed[index] += usize::from(!call.ok);
                continue;
            };
            latencies[index].push(call.end - call.start);
            let from = &record.client(call.client).locality.region;
            let to = &record.backend(backend).locality.region;
            let by_region = answered.entry(from.clone()).or_default();
            by_region.entry(to.clone()).or_insert_with(|| vec![0; count])[index] += 1;
        }
        let p50 = latencies.iter_mut().map(|window| percentile(window, 50)).collect();
        let p99 = latencies.iter_mut().map(|window| percentile(window, 99)).collect();
        Self { window, answered, failed, calls, p50, p99 }
    }
}
