//! What is measured: a server's latencies by how busy it was, and a run's.

use hdrhistogram::Histogram;
use std::collections::{BTreeMap, VecDeque};

/// How many latencies a server keeps for each number of requests in flight.
const KEPT: usize = 9;

/// What a histogram holds at most: a minute in microseconds.
const MOST: u64 = 60_000_000;

/// A server's recent latencies by the requests in flight when each arrived: what it answers probes from.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    by_in_flight: BTreeMap<u32, VecDeque<f64>>,
}

impl Latencies {
    pub(crate) fn add(&mut self, in_flight: u32, latency: f64) {
        let recent = self.by_in_flight.entry(in_flight).or_default();
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(latency);
    }

    /// The median at `in_flight`, or at the nearest number that has been seen.
    pub(crate) fn at(&self, in_flight: u32) -> Option<f64> {
        let below = self.by_in_flight.range(..=in_flight).next_back();
        let above = self.by_in_flight.range(in_flight..).next();
        let nearest = match (below, above) {
            (Some(below), Some(above)) => {
                if in_flight - below.0 <= above.0 - in_flight {
                    below
                } else {
                    above
                }
            }
            (below, above) => below.or(above)?,
        };
        let mut sorted: Vec<f64> = nearest.1.iter().copied().collect();
        let middle = sorted.len() / 2;
        Some(*sorted.select_nth_unstable_by(middle, f64::total_cmp).1)
    }
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Measured {
    /// In microseconds. What passed its deadline counts with it; other failures do not count here.
    latencies: Histogram<u64>,
    /// Requests in flight at each server, over the mean of all at that moment, in thousandths.
    loads: Histogram<u64>,
    pub(crate) errors: u64,
    pub(crate) requests: u64,
    /// The 99th percentile of each second, in milliseconds: for the plots.
    pub(crate) by_second: Vec<f64>,
    second: Histogram<u64>,
}

impl Measured {
    pub(crate) fn new() -> Self {
        let histogram = || Histogram::new_with_max(MOST, 3).expect("its bounds are in order");
        Self {
            latencies: histogram(),
            loads: histogram(),
            errors: 0,
            requests: 0,
            by_second: Vec::new(),
            second: histogram(),
        }
    }

    pub(crate) fn latency(&mut self, seconds: f64) {
        self.latencies.saturating_record((seconds * 1e6) as u64);
        self.second.saturating_record((seconds * 1e6) as u64);
    }

    pub(crate) fn end_second(&mut self) {
        self.by_second.push(self.second.value_at_quantile(0.99) as f64 / 1e3);
        self.second.reset();
    }

    pub(crate) fn load(&mut self, over_mean: f64) {
        self.loads.saturating_record((over_mean * 1e3) as u64);
    }

    /// A quantile of the latencies, in milliseconds.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e3
    }

    pub(crate) fn p99_over_mean_load(&self) -> f64 {
        self.loads.value_at_quantile(0.99) as f64 / 1e3
    }
}
