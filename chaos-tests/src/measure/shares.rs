//! Who got which part of the successful calls.

use std::collections::BTreeMap;

use portolan_topology::names::{ClusterName, Locality, RegionName};

use super::record::{Record, Selection};

/// Fractions of 1 of the successful calls.
#[derive(Debug, Clone, PartialEq)]
pub struct Shares<K> {
    /// By who answered; those who answered nothing are left out. The sum is 1 unless there were no calls.
    pub fractions: BTreeMap<K, f64>,
    /// How many calls are behind it.
    pub calls: usize,
}

impl<K: Ord> Shares<K> {
    /// The share of `key`; 0 if it answered nothing.
    pub fn of(&self, key: &K) -> f64 {
        self.fractions.get(key).copied().unwrap_or(0.0)
    }

    /// The largest difference from `wanted`, in points of a hundred. Keys that either leaves out count as 0.
    pub fn points_off(&self, wanted: &BTreeMap<K, f64>) -> f64 {
        let keys = self.fractions.keys().chain(wanted.keys());
        keys.map(|key| (self.of(key) - wanted.get(key).copied().unwrap_or(0.0)).abs() * 100.0).fold(0.0, f64::max)
    }
}

/// Shares of the selected calls by the answering backend's region.
#[must_use]
pub fn shares_by_region(record: &Record, selection: &Selection) -> Shares<RegionName> {
    shares(record, selection, |locality| &locality.region)
}

/// Shares of the selected calls by the answering backend's cluster.
#[must_use]
pub fn shares_by_cluster(record: &Record, selection: &Selection) -> Shares<ClusterName> {
    shares(record, selection, |locality| &locality.cluster)
}

fn shares<K: Ord + Clone>(record: &Record, selection: &Selection, key: impl Fn(&Locality) -> &K) -> Shares<K> {
    let mut by_backend = vec![0_usize; record.backends.len()];
    for call in record.select(selection).filter(|call| call.ok) {
        if let Some(backend) = call.backend {
            by_backend[usize::from(backend.0)] += 1;
        }
    }
    let calls: usize = by_backend.iter().sum();
    let mut fractions = BTreeMap::new();
    for (backend, count) in record.backends.iter().zip(by_backend).filter(|(_, count)| *count > 0) {
        *fractions.entry(key(&backend.locality).clone()).or_insert(0.0) += count as f64 / calls as f64;
    }
    Shares { fractions, calls }
}

/// The fraction of the selected successful calls that their own zone answered (in whichever cluster), and how many calls
/// are behind it. `None` without any.
#[must_use]
pub fn in_zone(record: &Record, selection: &Selection) -> Option<(f64, usize)> {
    let (mut inside, mut calls) = (0_usize, 0_usize);
    for call in record.select(selection).filter(|call| call.ok) {
        if let Some(backend) = call.backend {
            calls += 1;
            inside += usize::from(record.backend(backend).locality.zone == record.client(call.client).locality.zone);
        }
    }
    (calls > 0).then(|| (inside as f64 / calls as f64, calls))
}
