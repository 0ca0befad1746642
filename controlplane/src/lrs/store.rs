//! What clients report of their load, over the last seconds.
//!
//! Counts lie in buckets of a second; a rate is the sum of the last [`WINDOW`] over its length, or over what there is of it
//! while the first reports come in. Bounded: what is silent for a window goes, and there are at most [`MAX_SERIES`] series.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use portolan_topology::names::{Locality, ServiceId};
use tokio::time::Instant;

/// The time over which rates are measured.
pub const WINDOW: Duration = Duration::from_secs(WINDOW_SECONDS as u64);
const WINDOW_SECONDS: usize = 10;
/// How many (service, source, upstream) are kept; more are dropped and counted.
pub const MAX_SERIES: usize = 100_000;

/// Whose traffic, to where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadKey {
    /// The service called.
    pub service: ServiceId,
    /// Where the callers are.
    pub source: Locality,
    /// Where the endpoints are.
    pub upstream: Locality,
}

/// What one report says of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Requests begun since the last report.
    pub issued: u64,
    /// Requests ended well since the last report.
    pub succeeded: u64,
    /// Requests ended otherwise since the last report.
    pub failed: u64,
    /// Requests open now.
    pub in_progress: u64,
}

/// The load of one key over the last window.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// Requests begun per second.
    pub issued_per_second: f64,
    /// Requests ended well within the window.
    pub succeeded: u64,
    /// Requests ended otherwise within the window.
    pub failed: u64,
    /// Requests open, by the last report of each client that is still connected.
    pub in_progress: u64,
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
    /// By key.
    pub loads: BTreeMap<LoadKey, Load>,
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
    /// Sums by second; `second % WINDOW_SECONDS` is the place, `second` tells whose it is.
    buckets: [Bucket; WINDOW_SECONDS],
    in_progress: u64,
    /// The last second with a report.
    last: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    second: u64,
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
        LoadSnapshot { loads: series.iter().map(|(key, series)| (key.clone(), series.load(now))).collect() }
    }

    /// How many reports of a key were taken.
    #[must_use]
    pub fn reports(&self) -> u64 {
        self.reports.load(Ordering::Relaxed)
    }

    /// How many were dropped: names that are none, places outside the topology, too many series.
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

    /// Whole seconds since the origin, from one window on, so that no bucket's second is 0 before it is used.
    fn now(&self) -> u64 {
        self.origin.elapsed().as_secs() + WINDOW.as_secs()
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
        if series.len() >= MAX_SERIES && !series.contains_key(&key) {
            series.retain(|_, series| !series.is_silent(now));
            if series.len() >= MAX_SERIES {
                drop(series);
                store.drop_one();
                return;
            }
        }
        store.reports.fetch_add(1, Ordering::Relaxed);
        let one = series.entry(key.clone()).or_insert_with(|| Series::new(now, interval));
        one.add(now, report);
        let before = self.in_progress.insert(key, report.in_progress).unwrap_or_default();
        one.in_progress = one.in_progress.saturating_sub(before).saturating_add(report.in_progress);
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
        Self { since: now - covered, buckets: Default::default(), in_progress: 0, last: now }
    }

    fn add(&mut self, now: u64, report: Report) {
        let bucket = &mut self.buckets[usize::try_from(now).unwrap_or_default() % WINDOW_SECONDS];
        if bucket.second != now {
            *bucket = Bucket { second: now, ..Bucket::default() };
        }
        bucket.issued = bucket.issued.saturating_add(report.issued);
        bucket.succeeded = bucket.succeeded.saturating_add(report.succeeded);
        bucket.failed = bucket.failed.saturating_add(report.failed);
        self.last = now;
    }

    fn is_silent(&self, now: u64) -> bool {
        self.in_progress == 0 && now - self.last >= WINDOW.as_secs()
    }

    fn load(&self, now: u64) -> Load {
        let recent = self.buckets.iter().filter(|bucket| bucket.second + WINDOW.as_secs() > now);
        let (mut issued, mut load) = (0_u64, Load { in_progress: self.in_progress, ..Load::default() });
        for bucket in recent {
            issued = issued.saturating_add(bucket.issued);
            load.succeeded = load.succeeded.saturating_add(bucket.succeeded);
            load.failed = load.failed.saturating_add(bucket.failed);
        }
        let covered = (now - self.since).clamp(1, WINDOW.as_secs());
        #[expect(clippy::cast_precision_loss, reason = "a count beyond 2^53 in ten seconds is a lie anyway")]
        let rate = issued as f64 / covered as f64;
        load.issued_per_second = rate;
        load
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
        LoadKey { service: "checkout.shop".parse().unwrap(), source: locality(source), upstream: locality(upstream) }
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
            let load = store.snapshot().loads[&key("a", "b")];
            assert!((load.issued_per_second - 100.0).abs() < 1e-9, "round {round}: {load:?}");
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
        let upstream = snapshot.by_upstream()[&(service, key("a", "c").upstream)];
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
        let load = store.snapshot().loads[&key("a", "b")];
        assert_eq!(load.in_progress, 9);
        assert!(load.hangs());
        drop(other);
        assert_eq!(store.snapshot().loads[&key("a", "b")].in_progress, 5);
        one.nothing_else(&BTreeSet::new());
        assert_eq!(store.snapshot(), LoadSnapshot::default());
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
    }
}
