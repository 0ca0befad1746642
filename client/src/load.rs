//! What load reports count: requests by (cluster, EDS service, locality), as LRS wants them.
//!
//! The balancer asks for a locality's counters once, when it builds a snapshot, and keeps the `Arc`: counting a request
//! is two relaxed atomic additions, without a lock. The reporter drains them. Nothing here sends anything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::orca::OrcaReport;
use crate::xds::model::LocalityName;

/// A locality's servers may name so many metrics; further ones are not counted: names come from outside.
const MOST_METRICS: usize = 64;

/// A cluster as load reports name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReportedCluster {
    /// The xDS cluster's name.
    pub cluster: Arc<str>,
    /// Its EDS service name; empty if it has none.
    pub eds_service: Arc<str>,
}

/// The counters of all localities of one process. A clone counts into the same place.
#[derive(Debug, Clone, Default)]
pub struct LoadRecorder {
    localities: Arc<Mutex<Localities>>,
}

type Localities = BTreeMap<(ReportedCluster, LocalityName), Counted>;

/// A locality's counters, and whether its balancer still holds them: what a balancer let go is reported once more,
/// then forgotten.
#[derive(Debug)]
struct Counted {
    live: Weak<LocalityLoad>,
    totals: Arc<Totals>,
}

#[derive(Debug, Default)]
struct Totals {
    issued: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
    /// Since the beginning, never drained: `started - ended` is what is open.
    started: AtomicU64,
    ended: AtomicU64,
    /// What servers said of their load, by metric. Locked for requests whose trailers hold a report, and for those alone.
    metrics: Mutex<BTreeMap<String, MetricSum>>,
}

/// A metric over the requests whose servers told it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MetricSum {
    /// How many told it.
    pub requests: u64,
    /// The sum of what they told.
    pub total: f64,
}

/// One locality's counters, as the balancer holds them.
#[derive(Debug, Default)]
pub struct LocalityLoad {
    totals: Arc<Totals>,
}

/// What one locality counted since the last drain.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalityReport {
    /// Which.
    pub locality: LocalityName,
    /// Requests that began since then.
    pub issued: u64,
    /// Requests that ended well since then.
    pub succeeded: u64,
    /// Requests that ended badly since then.
    pub failed: u64,
    /// Requests that are open now.
    pub in_progress: u64,
    /// What servers said of their load (ORCA), by metric: `cpu_utilization`, `mem_utilization`,
    /// `application_utilization`, `named_metrics.NAME`, `utilization.NAME`, and request costs by their bare name.
    pub metrics: BTreeMap<String, MetricSum>,
}

impl LocalityReport {
    fn is_empty(&self) -> bool {
        self.issued == 0 && self.succeeded == 0 && self.failed == 0 && self.in_progress == 0
    }
}

impl LocalityLoad {
    /// A request was sent to this locality. Each attempt counts.
    pub fn started(&self) {
        self.totals.started.fetch_add(1, Relaxed);
        self.totals.issued.fetch_add(1, Relaxed);
    }

    /// A request that [`LocalityLoad::started`] counted has ended.
    pub fn finished(&self, success: bool) {
        let outcome = if success { &self.totals.succeeded } else { &self.totals.failed };
        outcome.fetch_add(1, Relaxed);
        self.totals.ended.fetch_add(1, Relaxed);
    }

    /// A server said this of its load, in the trailers of a request that this locality answered.
    pub fn told(&self, report: &OrcaReport) {
        let plain = [
            ("cpu_utilization", report.cpu_utilization),
            ("mem_utilization", report.mem_utilization),
            ("application_utilization", report.application_utilization),
        ];
        // Zero is what an absent field reads as.
        let plain = plain.into_iter().filter(|(_, value)| *value != 0.0).map(|(name, value)| (name.to_owned(), value));
        let named = report.named_metrics.iter().map(|(name, value)| (format!("named_metrics.{name}"), *value));
        let parts = report.utilization.iter().map(|(name, value)| (format!("utilization.{name}"), *value));
        let costs = report.request_cost.iter().map(|(name, value)| (name.clone(), *value));
        let mut metrics = self.totals.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, value) in plain.chain(named).chain(parts).chain(costs) {
            if metrics.len() >= MOST_METRICS && !metrics.contains_key(&name) {
                continue;
            }
            let sum = metrics.entry(name).or_default();
            sum.requests += 1;
            sum.total += value;
        }
    }
}

/// A request that is counted at its locality, if that is reported. What nobody finishes counts as failed.
#[derive(Debug)]
pub(crate) struct OpenRequest(Option<Arc<LocalityLoad>>);

impl OpenRequest {
    pub(crate) fn start(load: Option<Arc<LocalityLoad>>) -> Self {
        if let Some(load) = &load {
            load.started();
        }
        Self(load)
    }

    /// It has ended, with what its server said of its load.
    pub(crate) fn finish(&mut self, success: bool, report: Option<&OrcaReport>) {
        if let Some(load) = self.0.take() {
            if let Some(report) = report {
                load.told(report);
            }
            load.finished(success);
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.finish(false, None);
    }
}

impl LoadRecorder {
    /// A recorder without localities.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The counters of one locality: the same ones for the same names, as long as somebody holds them. Takes a lock:
    /// ask when a snapshot is built, not for each request.
    #[must_use]
    pub fn locality(&self, cluster: &Arc<str>, eds_service: &Arc<str>, locality: &LocalityName) -> Arc<LocalityLoad> {
        let reported = ReportedCluster { cluster: cluster.clone(), eds_service: eds_service.clone() };
        let mut localities = self.localities.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = localities
            .entry((reported, locality.clone()))
            .or_insert_with(|| Counted { live: Weak::new(), totals: Arc::default() });
        counted.live.upgrade().unwrap_or_else(|| {
            let load = Arc::new(LocalityLoad { totals: counted.totals.clone() });
            counted.live = Arc::downgrade(&load);
            load
        })
    }

    /// What was counted since the last drain, by cluster, without localities that saw nothing. The clusters that
    /// `wanted` refuses are not drained.
    pub fn drain(&self, wanted: impl Fn(&ReportedCluster) -> bool) -> BTreeMap<ReportedCluster, Vec<LocalityReport>> {
        let mut report: BTreeMap<ReportedCluster, Vec<LocalityReport>> = BTreeMap::new();
        let mut localities = self.localities.lock().unwrap_or_else(PoisonError::into_inner);
        localities.retain(|(cluster, locality), counted| {
            if !wanted(cluster) {
                return true;
            }
            // Whether it is held is asked first: whoever let go before that has counted everything already.
            let held = counted.live.strong_count() > 0;
            let line = counted.totals.drain(locality.clone());
            if !line.is_empty() {
                report.entry(cluster.clone()).or_default().push(line);
            }
            held
        });
        report
    }
}

impl Totals {
    fn drain(&self, locality: LocalityName) -> LocalityReport {
        // Ends before starts: a request that begins and ends between the two reads counts as open, never as less than none.
        let ended = self.ended.load(Relaxed);
        LocalityReport {
            locality,
            issued: self.issued.swap(0, Relaxed),
            succeeded: self.succeeded.swap(0, Relaxed),
            failed: self.failed.swap(0, Relaxed),
            in_progress: self.started.load(Relaxed).saturating_sub(ended),
            metrics: std::mem::take(&mut *self.metrics.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (Arc<str>, Arc<str>, LocalityName) {
        let locality = LocalityName { region: "us".into(), zone: "a".into(), sub_zone: "one".into() };
        ("cluster".into(), "service".into(), locality)
    }

    #[test]
    fn counts_are_drained_once_and_open_requests_stay() {
        let recorder = LoadRecorder::new();
        let (cluster, service, locality) = names();
        let load = recorder.locality(&cluster, &service, &locality);
        for _ in 0..5 {
            load.started();
        }
        load.finished(true);
        load.finished(true);
        load.finished(false);

        let report = recorder.drain(|_| true);
        let lines: Vec<_> = report.values().flatten().cloned().collect();
        assert_eq!(
            lines,
            [LocalityReport {
                locality: locality.clone(),
                issued: 5,
                succeeded: 2,
                failed: 1,
                in_progress: 2,
                metrics: BTreeMap::new()
            }]
        );

        load.finished(true);
        let report = recorder.drain(|_| true);
        let lines: Vec<_> = report.values().flatten().cloned().collect();
        assert_eq!(
            lines,
            [LocalityReport { locality, issued: 0, succeeded: 1, failed: 0, in_progress: 1, metrics: BTreeMap::new() }]
        );
    }

    #[test]
    fn what_servers_say_of_their_load_is_summed_by_metric() {
        let recorder = LoadRecorder::new();
        let (cluster, service, locality) = names();
        let load = recorder.locality(&cluster, &service, &locality);
        load.started();
        for cpu_utilization in [0.5, 0.25] {
            let named_metrics = [("queue".to_owned(), 2.0)].into();
            load.told(&OrcaReport { cpu_utilization, named_metrics, ..OrcaReport::default() });
        }
        for i in 0..1000 {
            load.told(&OrcaReport { request_cost: [(format!("cost-{i}"), 1.0)].into(), ..OrcaReport::default() });
        }
        let report = recorder.drain(|_| true);
        let metrics = &report.values().next().unwrap()[0].metrics;
        assert_eq!(metrics["cpu_utilization"], MetricSum { requests: 2, total: 0.75 });
        assert_eq!(metrics["named_metrics.queue"], MetricSum { requests: 2, total: 4.0 });
        assert_eq!(metrics.len(), MOST_METRICS, "names from outside do not fill the memory");
        assert!(recorder.drain(|_| true).values().next().unwrap()[0].metrics.is_empty());
    }

    #[test]
    fn the_same_locality_has_the_same_counters() {
        let recorder = LoadRecorder::new();
        let (cluster, service, locality) = names();
        let one = recorder.locality(&cluster, &service, &locality);
        let other = recorder.clone().locality(&cluster, &service, &locality);
        one.started();
        other.started();
        assert_eq!(recorder.drain(|_| true).values().flatten().map(|line| line.issued).sum::<u64>(), 2);
    }

    #[test]
    fn what_a_balancer_let_go_is_reported_once_more_then_forgotten() {
        let recorder = LoadRecorder::new();
        let (cluster, service, locality) = names();
        let load = recorder.locality(&cluster, &service, &locality);
        load.started();
        load.finished(true);
        drop(load);
        assert_eq!(recorder.drain(|_| true).len(), 1);
        assert!(recorder.localities.lock().unwrap().is_empty());
    }

    #[test]
    fn a_cluster_that_is_not_asked_for_keeps_its_counts() {
        let recorder = LoadRecorder::new();
        let (cluster, service, locality) = names();
        let load = recorder.locality(&cluster, &service, &locality);
        load.started();
        assert!(recorder.drain(|_| false).is_empty());
        assert_eq!(recorder.drain(|reported| &*reported.cluster == "cluster").len(), 1);
    }
}
