//! What clients report of their load, over the last seconds.
//!
//! A rate is the sum of the last [`WINDOW`] of whole seconds over its length, or, while there is less, what the reports
//! said over the time that they cover.
//! Bounded: what is silent for a window goes, and there are at most [`MAX_SERIES`] series with [`MAX_METRICS`] each.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use portolan_topology::names::{Locality, ServiceId};
use tokio::time::Instant;

use super::window::{WINDOW, Window};

/// How many (service, source, upstream, endpoint) are kept; more are dropped and counted.
pub const MAX_SERIES: usize = 100_000;
/// Above this many, series of single endpoints are dropped, so that they never crowd out those of localities.
const MAX_WITH_ENDPOINTS: usize = MAX_SERIES / 2;
/// How many metrics of servers a series keeps: servers name them.
pub const MAX_METRICS: usize = 64;

/// Whose traffic, to where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadKey {
    /// The service called.
    pub service: ServiceId,
    /// Where the callers are.
    pub source: Locality,
    /// Where the endpoints are.
    pub upstream: Locality,
    /// The one endpoint, of a client that reports each (Envoy); `None`: all of the locality together.
    pub endpoint: Option<SocketAddr>,
}

/// What servers said of their load (ORCA), over the requests whose responses told it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MetricSum {
    /// How many told it.
    pub requests: u64,
    /// The sum of what they told.
    pub total: f64,
}

impl MetricSum {
    fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.total += other.total;
    }
}

/// What one report says of one key.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Requests begun since the last report.
    pub issued: u64,
    /// Requests ended well since the last report.
    pub succeeded: u64,
    /// Requests ended otherwise since the last report.
    pub failed: u64,
    /// Requests open now.
    pub in_progress: u64,
    /// What servers said of their load, by metric: `cpu_utilization`, `named_metrics.NAME`.
    pub metrics: Vec<(String, MetricSum)>,
}

/// The load of one key over the last window.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Load {
    /// Requests begun per second.
    pub issued_per_second: f64,
    /// Requests ended well within the window.
    pub succeeded: u64,
    /// Requests ended otherwise within the window.
    pub failed: u64,
    /// Requests open, by the last report of each client that is still connected.
    pub in_progress: u64,
    /// What servers said of their load within the window, by metric.
    pub metrics: BTreeMap<String, MetricSum>,
}

impl Load {
    /// Whether requests stay open and none ends: the sign of a place that takes connections and answers nothing.
    #[must_use]
    pub fn hangs(&self) -> bool {
        self.in_progress > 0 && self.succeeded == 0 && self.failed == 0
    }
}

/// Everything reported, at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadSnapshot {
    /// Of localities.
    pub loads: BTreeMap<LoadKey, Load>,
    /// Of single endpoints. Their requests are in `loads`, too.
    pub endpoints: BTreeMap<LoadKey, Load>,
}

impl LoadSnapshot {
    /// First attempts per second by service and source: what clients want, wherever it goes.
    #[must_use]
    pub fn demand(&self) -> BTreeMap<(ServiceId, Locality), f64> {
        let mut demand = BTreeMap::new();
        for (key, load) in &self.loads {
            *demand.entry((key.service.clone(), key.source.clone())).or_default() += load.issued_per_second;
        }
        demand
    }

    /// What becomes of requests by service and destination, over all sources.
    #[must_use]
    pub fn by_upstream(&self) -> BTreeMap<(ServiceId, Locality), Load> {
        let mut upstreams: BTreeMap<_, Load> = BTreeMap::new();
        for (key, load) in &self.loads {
            let sum = upstreams.entry((key.service.clone(), key.upstream.clone())).or_default();
            sum.issued_per_second += load.issued_per_second;
            sum.succeeded += load.succeeded;
            sum.failed += load.failed;
            sum.in_progress += load.in_progress;
        }
        upstreams
    }
}

/// The store.
#[derive(Debug)]
pub struct LoadStore {
    origin: Instant,
    series: Mutex<BTreeMap<LoadKey, Series>>,
    reports: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Series {
    /// The second, since the store's origin, that the first report covers.
    since: u64,
    counts: Window<Counts>,
    metrics: BTreeMap<String, Window<MetricSum>>,
    in_progress: u64,
    /// The last second with a report.
    last: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    issued: u64,
    succeeded: u64,
    failed: u64,
}

impl Default for LoadStore {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            series: Mutex::default(),
            reports: AtomicU64::default(),
            dropped: AtomicU64::default(),
        }
    }
}

impl LoadStore {
    /// Everything reported within the last window.
    #[must_use]
    pub fn snapshot(&self) -> LoadSnapshot {
        let now = self.now();
        let mut series = self.series.lock();
        series.retain(|_, series| !series.is_silent(now));
        let all = series.iter().map(|(key, series)| (key.clone(), series.load(now)));
        let (loads, endpoints) = all.partition(|(key, _)| key.endpoint.is_none());
        LoadSnapshot { loads, endpoints }
    }

    /// How many reports of a key were taken.
    #[must_use]
    pub fn reports(&self) -> u64 {
        self.reports.load(Ordering::Relaxed)
    }

    /// How many were dropped: names that are none, places outside the topology, too many series or metrics.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// A client's end of the store. What it has open counts until this goes.
    #[must_use]
    pub fn reporter(self: &Arc<Self>) -> Reporter {
        Reporter { store: self.clone(), in_progress: BTreeMap::new() }
    }

    /// Whole seconds since the origin, from beyond one window on, so that an empty bucket, of second 0, is never recent.
    fn now(&self) -> u64 {
        self.origin.elapsed().as_secs() + WINDOW.as_secs() + 1
    }
}

/// What one client reports through.
#[derive(Debug)]
pub struct Reporter {
    store: Arc<LoadStore>,
    /// What its last reports said is open.
    in_progress: BTreeMap<LoadKey, u64>,
}

impl Reporter {
    /// Takes one report, for the `interval` that it covers.
    pub fn report(&mut self, key: LoadKey, report: Report, interval: Duration) {
        let store = &self.store;
        let now = store.now();
        let mut series = store.series.lock();
        let room = if key.endpoint.is_some() { MAX_WITH_ENDPOINTS } else { MAX_SERIES };
        if series.len() >= room && !series.contains_key(&key) {
            series.retain(|_, series| !series.is_silent(now));
            if series.len() >= room {
                drop(series);
                store.drop_one();
                return;
            }
        }
        store.reports.fetch_add(1, Ordering::Relaxed);
        let one = series.entry(key.clone()).or_insert_with(|| Series::new(now, interval));
        let before = self.in_progress.insert(key, report.in_progress).unwrap_or_default();
        one.in_progress = one.in_progress.saturating_sub(before).saturating_add(report.in_progress);
        if one.add(now, report) > 0 {
            store.drop_one();
        }
    }

    /// Whatever it has open where its report of now names nothing has ended: clients leave out what is all zero.
    pub fn nothing_else(&mut self, reported: &BTreeSet<LoadKey>) {
        let gone: Vec<LoadKey> = self.in_progress.keys().filter(|key| !reported.contains(key)).cloned().collect();
        for key in gone {
            self.take_back(&key);
        }
    }

    fn take_back(&mut self, key: &LoadKey) {
        let Some(open) = self.in_progress.remove(key) else { return };
        if let Entry::Occupied(mut series) = self.store.series.lock().entry(key.clone()) {
            let series = series.get_mut();
            series.in_progress = series.in_progress.saturating_sub(open);
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        for key in self.in_progress.keys().cloned().collect::<Vec<_>>() {
            self.take_back(&key);
        }
    }
}

impl Series {
    fn new(now: u64, interval: Duration) -> Self {
        let covered = interval.as_secs().clamp(1, WINDOW.as_secs());
        Self { since: now - covered, counts: Window::default(), metrics: BTreeMap::new(), in_progress: 0, last: now }
    }

    /// Adds a report. Says how many of its metrics were left out, because there are too many.
    fn add(&mut self, now: u64, report: Report) -> usize {
        let counts = self.counts.at(now);
        counts.issued = counts.issued.saturating_add(report.issued);
        counts.succeeded = counts.succeeded.saturating_add(report.succeeded);
        counts.failed = counts.failed.saturating_add(report.failed);
        self.last = now;
        let mut left_out = 0;
        for (name, sum) in report.metrics {
            if self.metrics.len() >= MAX_METRICS && !self.metrics.contains_key(&name) {
                self.metrics.retain(|_, window| window.recent(now).any(|sum| sum.requests > 0));
                if self.metrics.len() >= MAX_METRICS {
                    left_out += 1;
                    continue;
                }
            }
            self.metrics.entry(name).or_default().at(now).add(sum);
        }
        left_out
    }

    fn is_silent(&self, now: u64) -> bool {
        self.in_progress == 0 && now - self.last >= WINDOW.as_secs()
    }

    fn load(&self, now: u64) -> Load {
        let mut load =
            Load { issued_per_second: self.issued_per_second(now), in_progress: self.in_progress, ..Load::default() };
        for counts in self.counts.recent(now) {
            load.succeeded = load.succeeded.saturating_add(counts.succeeded);
            load.failed = load.failed.saturating_add(counts.failed);
        }
        for (name, window) in &self.metrics {
            let mut sum = MetricSum::default();
            window.recent(now).for_each(|told| sum.add(told));
            if sum.requests > 0 {
                load.metrics.insert(name.clone(), sum);
            }
        }
        load
    }

    fn issued_per_second(&self, now: u64) -> f64 {
        let sum = |issued: u64, counts: Counts| issued.saturating_add(counts.issued);
        let (issued, covered) = if now - self.since <= WINDOW.as_secs() {
            (self.counts.recent(now).fold(0, sum), (self.last - self.since).max(1))
        } else {
            (self.counts.complete(now).fold(0, sum), WINDOW.as_secs())
        };
        #[expect(clippy::cast_precision_loss, reason = "a count beyond 2^53 in ten seconds is a lie anyway")]
        let rate = issued as f64 / covered as f64;
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    fn key(source: &str, upstream: &str) -> LoadKey {
        let locality = |zone: &str| Locality {
            region: "us-east".parse().unwrap(),
            zone: Some(zone.parse().unwrap()),
            cluster: "use1-a".parse().unwrap(),
        };
        LoadKey {
            service: "checkout.shop".parse().unwrap(),
            source: locality(source),
            upstream: locality(upstream),
            endpoint: None,
        }
    }

    fn issued(issued: u64) -> Report {
        Report { issued, succeeded: issued, ..Report::default() }
    }

    const EVERY: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn a_steady_rate_reads_as_itself_from_the_first_report_on() {
        let store = Arc::new(LoadStore::default());
        let mut client = store.reporter();
        for round in 0..20 {
            advance(EVERY).await;
            client.report(key("a", "b"), issued(200), EVERY);
            let load = &store.snapshot().loads[&key("a", "b")];
            assert!((load.issued_per_second - 100.0).abs() < 1e-9, "round {round}: {load:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_rate_reads_as_itself_whenever_it_is_looked_at() {
        // Looks and reports may keep the same distance for ever.
        for phase in (0..2000).step_by(100).map(Duration::from_millis) {
            let store = Arc::new(LoadStore::default());
            let mut client = store.reporter();
            advance(phase).await;
            for round in 0..20 {
                client.report(key("a", "b"), issued(200), EVERY);
                for _ in 0..20 {
                    let load = &store.snapshot().loads[&key("a", "b")];
                    assert!((load.issued_per_second - 100.0).abs() < 1e-9, "{phase:?}, round {round}: {load:?}");
                    advance(EVERY / 20).await;
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn demand_is_summed_over_destinations_and_failures_over_sources() {
        let store = Arc::new(LoadStore::default());
        let mut client = store.reporter();
        advance(EVERY).await;
        client.report(key("a", "b"), issued(20), EVERY);
        client.report(key("a", "c"), Report { issued: 60, failed: 60, ..Report::default() }, EVERY);
        client.report(key("d", "c"), Report { issued: 10, failed: 10, ..Report::default() }, EVERY);
        let snapshot = store.snapshot();
        let service: ServiceId = "checkout.shop".parse().unwrap();
        assert_eq!(snapshot.demand()[&(service.clone(), key("a", "b").source)], 40.0);
        let upstream = &snapshot.by_upstream()[&(service, key("a", "c").upstream)];
        assert_eq!((upstream.failed, upstream.succeeded), (70, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_silent_for_a_window_is_forgotten() {
        let store = Arc::new(LoadStore::default());
        let mut client = store.reporter();
        client.report(key("a", "b"), issued(20), EVERY);
        advance(WINDOW - EVERY).await;
        assert_eq!(store.snapshot().loads.len(), 1);
        advance(EVERY).await;
        assert_eq!(store.snapshot(), LoadSnapshot::default());
    }

    #[tokio::test(start_paused = true)]
    async fn open_requests_that_never_end_are_a_hang_until_the_client_goes() {
        let store = Arc::new(LoadStore::default());
        let (mut one, mut other) = (store.reporter(), store.reporter());
        let open = |in_progress| Report { in_progress, ..Report::default() };
        one.report(key("a", "b"), open(3), EVERY);
        other.report(key("a", "b"), open(4), EVERY);
        one.report(key("a", "b"), open(5), EVERY);
        advance(WINDOW * 2).await;
        let load = store.snapshot().loads[&key("a", "b")].clone();
        assert_eq!(load.in_progress, 9);
        assert!(load.hangs());
        drop(other);
        assert_eq!(store.snapshot().loads[&key("a", "b")].in_progress, 5);
        one.nothing_else(&BTreeSet::new());
        assert_eq!(store.snapshot(), LoadSnapshot::default());
    }

    fn of_endpoint(number: u8) -> LoadKey {
        LoadKey { endpoint: Some(([10, 0, 0, number], 80).into()), ..key("a", "b") }
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_stand_apart_and_count_once() {
        let store = Arc::new(LoadStore::default());
        let mut client = store.reporter();
        client.report(key("a", "b"), issued(20), EVERY);
        client.report(of_endpoint(1), issued(15), EVERY);
        client.report(of_endpoint(2), Report { issued: 5, failed: 5, ..Report::default() }, EVERY);
        let snapshot = store.snapshot();
        assert_eq!(snapshot.demand().into_values().collect::<Vec<_>>(), [10.0]);
        assert_eq!(snapshot.endpoints[&of_endpoint(2)].failed, 5);
        assert_eq!((snapshot.loads.len(), snapshot.endpoints.len()), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_servers_say_is_summed_over_the_window() {
        let store = Arc::new(LoadStore::default());
        let mut client = store.reporter();
        let told = |requests, total| Report {
            metrics: vec![("named_metrics.queue".to_owned(), MetricSum { requests, total })],
            ..issued(requests)
        };
        client.report(key("a", "b"), told(2, 3.0), EVERY);
        advance(EVERY).await;
        client.report(key("a", "b"), told(1, 6.0), EVERY);
        let metrics = store.snapshot().loads[&key("a", "b")].metrics.clone();
        assert_eq!(metrics["named_metrics.queue"], MetricSum { requests: 3, total: 9.0 });
        advance(WINDOW - EVERY).await;
        let metrics = store.snapshot().loads[&key("a", "b")].metrics.clone();
        assert_eq!(metrics["named_metrics.queue"], MetricSum { requests: 1, total: 6.0 });
    }

    #[tokio::test(start_paused = true)]
    async fn metrics_are_bounded_and_make_room_once_they_are_silent() {
        let store = Arc::new(LoadStore::default());
        let mut client = store.reporter();
        let named = |names: std::ops::Range<usize>| Report {
            metrics: names.map(|name| (format!("m{name}"), MetricSum { requests: 1, total: 1.0 })).collect(),
            ..issued(1)
        };
        client.report(key("a", "b"), named(0..MAX_METRICS + 5), EVERY);
        assert_eq!(store.snapshot().loads[&key("a", "b")].metrics.len(), MAX_METRICS);
        assert_eq!(store.dropped(), 1);
        advance(WINDOW).await;
        client.report(key("a", "b"), named(MAX_METRICS..MAX_METRICS + 5), EVERY);
        assert_eq!(store.snapshot().loads[&key("a", "b")].metrics.len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn series_are_bounded() {
        let store = Arc::new(LoadStore::default());
        let mut client = store.reporter();
        for number in 0..MAX_SERIES + 5 {
            let mut key = key("a", "b");
            key.service = ServiceId::new(format!("s{number}"), "shop").unwrap();
            client.report(key, issued(1), EVERY);
        }
        assert_eq!(store.snapshot().loads.len(), MAX_SERIES);
        assert_eq!(store.dropped(), 5);
        client.report(of_endpoint(1), issued(1), EVERY);
        assert_eq!((store.snapshot().endpoints.len(), store.dropped()), (0, 6), "endpoints first");
    }
}
