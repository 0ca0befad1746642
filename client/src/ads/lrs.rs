//! Reports load over LRS to the server of the ADS stream: what the balancer counted, as often and for which clusters the
//! server asks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{Locality, Node};
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterStats, EndpointLoadMetricStats, UpstreamLocalityStats};
use envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_client::LoadReportingServiceClient;
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use envoy_types::pb::google::protobuf::Duration as ProtoDuration;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::backoff::Backoff;
use crate::load::{LoadRecorder, LocalityReport, MetricSum, ReportedCluster};

/// A server that asks for reports more often gets them as often as this.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// A running report. It ends when this is dropped.
pub(super) struct Reporter {
    reported: watch::Sender<BTreeSet<Arc<str>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reporter {
    pub(super) fn start(
        channel: Channel,
        mut node: Node,
        load: LoadRecorder,
        reported: BTreeSet<Arc<str>>,
        random: StdRng,
    ) -> Self {
        node.client_features.push("envoy.lrs.supports_send_all_clusters".to_owned());
        let (reported, receiver) = watch::channel(reported);
        let task = tokio::spawn(Report { channel, node, load, reported: receiver }.run(random));
        Self { reported, task }
    }

    /// Reports these clusters from now on.
    pub(super) fn report(&self, clusters: BTreeSet<Arc<str>>) {
        self.reported.send_if_modified(|held| {
            let changed = *held != clusters;
            *held = clusters;
            changed
        });
    }
}

struct Report {
    channel: Channel,
    node: Node,
    load: LoadRecorder,
    /// The clusters whose CDS resource wants a report.
    reported: watch::Receiver<BTreeSet<Arc<str>>>,
}

/// What the server asks for.
#[derive(Debug, PartialEq)]
struct Wish {
    interval: Duration,
    all: bool,
    clusters: BTreeSet<String>,
}

impl Wish {
    fn of(response: LoadStatsResponse) -> Self {
        let wanted = response.load_reporting_interval.unwrap_or_default();
        let (seconds, nanos) = (u64::try_from(wanted.seconds).unwrap_or(0), u32::try_from(wanted.nanos).unwrap_or(0));
        // A year and beyond is never; more would overflow a clock.
        let interval = Duration::from_secs(seconds.min(31_536_000)) + Duration::from_nanos(u64::from(nanos));
        Self {
            interval: interval.max(SHORTEST_INTERVAL),
            all: response.send_all_clusters,
            clusters: response.clusters.into_iter().collect(),
        }
    }
}

impl Report {
    async fn run(self, mut random: StdRng) {
        let mut backoff = Backoff::new(Instant::now());
        loop {
            let mut answered = false;
            let ended = self.stream(&mut answered).await;
            tracing::debug!(
                reason = ended.err().as_ref().map_or("it was closed", Status::message),
                "the load report ended"
            );
            if answered {
                backoff.succeeded();
            }
            backoff.failed(Instant::now(), &mut random);
            sleep_until(backoff.not_before()).await;
        }
    }

    async fn stream(&self, answered: &mut bool) -> Result<(), Status> {
        // One report waits at most: a server that does not read gets the next counts in one.
        let (requests, sent) = mpsc::channel(1);
        let hello = LoadStatsRequest { node: Some(self.node.clone()), cluster_stats: Vec::new() };
        requests.try_send(hello).map_err(|_| Status::internal("the first report does not fit"))?;
        let mut client = LoadReportingServiceClient::new(self.channel.clone());
        let mut wishes = client.stream_load_stats(ReceiverStream::new(sent)).await?.into_inner();
        let Some(first) = wishes.message().await? else { return Ok(()) };
        *answered = true;
        let mut wish = Wish::of(first);
        while let Some(next) = self.report_until_asked_anew(&wish, &requests, &mut wishes).await? {
            wish = next;
        }
        Ok(())
    }

    async fn report_until_asked_anew(
        &self,
        wish: &Wish,
        requests: &mpsc::Sender<LoadStatsRequest>,
        wishes: &mut Streaming<LoadStatsResponse>,
    ) -> Result<Option<Wish>, Status> {
        let mut last = Instant::now();
        let mut ticks = interval_at(last + wish.interval, wish.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut was_empty = false;
        loop {
            tokio::select! {
                answer = wishes.message() => return Ok(answer?.map(Wish::of)),
                _ = ticks.tick() => {
                    let Ok(place) = requests.try_reserve() else { continue };
                    let now = Instant::now();
                    let cluster_stats = self.drain(wish, now - last);
                    last = now;
                    let empty = cluster_stats.is_empty();
                    // One empty report says that it has become quiet; more of them say nothing.
                    if !(empty && was_empty) {
                        place.send(LoadStatsRequest { node: None, cluster_stats });
                    }
                    was_empty = empty;
                }
            }
        }
    }

    fn drain(&self, wish: &Wish, elapsed: Duration) -> Vec<ClusterStats> {
        let reported = self.reported.borrow();
        let wanted =
            |it: &ReportedCluster| reported.contains(&it.cluster) && (wish.all || wish.clusters.contains(&*it.cluster));
        let interval = ProtoDuration {
            seconds: i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(elapsed.subsec_nanos()).unwrap_or(0),
        };
        let stats = self.load.drain(wanted).into_iter().map(|(cluster, localities)| ClusterStats {
            cluster_name: cluster.cluster.to_string(),
            cluster_service_name: cluster.eds_service.to_string(),
            upstream_locality_stats: localities.into_iter().map(locality_stats).collect(),
            load_report_interval: Some(interval),
            ..ClusterStats::default()
        });
        stats.collect()
    }
}

fn locality_stats(report: LocalityReport) -> UpstreamLocalityStats {
    UpstreamLocalityStats {
        locality: Some(Locality {
            region: report.locality.region.to_string(),
            zone: report.locality.zone.to_string(),
            sub_zone: report.locality.sub_zone.to_string(),
        }),
        total_successful_requests: report.succeeded,
        total_requests_in_progress: report.in_progress,
        total_error_requests: report.failed,
        total_issued_requests: report.issued,
        load_metric_stats: report.metrics.into_iter().map(metric).collect(),
        ..UpstreamLocalityStats::default()
    }
}

fn metric((metric_name, MetricSum { requests, total }): (String, MetricSum)) -> EndpointLoadMetricStats {
    EndpointLoadMetricStats { metric_name, num_requests_finished_with_metric: requests, total_metric_value: total }
}
