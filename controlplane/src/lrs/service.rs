//! The gRPC service that takes load reports.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Locality as ProtoLocality;
use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterStats, EndpointLoadMetricStats, UnnamedEndpointLoadMetricStats, UpstreamEndpointStats, UpstreamLocalityStats,
};
use envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_server::{
    LoadReportingService, LoadReportingServiceServer,
};
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use envoy_types::pb::google::protobuf::Duration as ProtoDuration;
use futures::{Stream, StreamExt, stream};
use portolan_topology::names::{ClusterName, Locality};
use portolan_topology::topology::Topology;
use tokio::sync::watch;
use tonic::{Response, Status, Streaming};

use super::store::{LoadKey, LoadStore, MetricSum, Report, Reporter};
use crate::resources::name::ResourceName;
use crate::xds::place::Place;

/// How often clients report.
pub const INTERVAL: Duration = Duration::from_secs(2);
/// The largest report.
const MAX_REQUEST_BYTES: usize = 4 << 20;
/// A longer name of a metric is nonsense.
const MAX_METRIC_NAME: usize = 200;

/// The load reporting service of one control plane.
#[derive(Debug, Clone)]
pub struct LoadReports {
    store: Arc<LoadStore>,
    topology: watch::Receiver<Arc<Topology>>,
    cluster: ClusterName,
}

impl LoadReports {
    /// The service of `cluster`'s control plane, filling `store`.
    #[must_use]
    pub fn new(store: Arc<LoadStore>, topology: watch::Receiver<Arc<Topology>>, cluster: ClusterName) -> Self {
        Self { store, topology, cluster }
    }

    /// It as a gRPC service.
    #[must_use]
    pub fn service(self) -> LoadReportingServiceServer<Self> {
        LoadReportingServiceServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    fn take(&self, place: &Place, reporter: &mut Reporter, request: &LoadStatsRequest) {
        let topology = self.topology.borrow().clone();
        let Some(source) = place.locality(&topology, &self.cluster) else { return };
        let mut reported = BTreeSet::new();
        for stats in &request.cluster_stats {
            let interval = interval(stats);
            for upstream in &stats.upstream_locality_stats {
                let Some(key) = key(stats, upstream, &source, &topology) else {
                    self.store.drop_one();
                    continue;
                };
                let mut take = |key: LoadKey, report| {
                    reported.insert(key.clone());
                    reporter.report(key, report, interval);
                };
                for endpoint in &upstream.upstream_endpoint_stats {
                    match address(endpoint) {
                        Some(address) => {
                            take(LoadKey { endpoint: Some(address), ..key.clone() }, of_endpoint(endpoint))
                        }
                        None => self.store.drop_one(),
                    }
                }
                take(key, of_locality(upstream));
            }
        }
        reporter.nothing_else(&reported);
    }
}

/// The time that a report covers; ours if it does not say, or says nonsense.
fn interval(stats: &ClusterStats) -> Duration {
    let said = stats.load_report_interval.as_ref();
    said.and_then(|said| {
        Some(Duration::new(
            u64::try_from(said.seconds).ok()?,
            u32::try_from(said.nanos).ok().filter(|n| *n < 1_000_000_000)?,
        ))
    })
    .filter(|said| !said.is_zero())
    .unwrap_or(INTERVAL)
}

fn key(
    stats: &ClusterStats,
    upstream: &UpstreamLocalityStats,
    source: &Locality,
    topology: &Topology,
) -> Option<LoadKey> {
    let name: ResourceName = stats.cluster_name.parse().ok()?;
    let upstream = locality(upstream.locality.as_ref()?, topology)?;
    Some(LoadKey { service: name.service, source: source.clone(), upstream, endpoint: None })
}

fn of_locality(stats: &UpstreamLocalityStats) -> Report {
    // gRPC tells a server's plain figures in fields of their own.
    let plain = [
        ("cpu_utilization", &stats.cpu_utilization),
        ("mem_utilization", &stats.mem_utilization),
        ("application_utilization", &stats.application_utilization),
    ];
    let plain = plain.into_iter().filter_map(|(name, stats)| {
        let UnnamedEndpointLoadMetricStats { num_requests_finished_with_metric, total_metric_value } =
            stats.as_ref()?;
        Some((name, *num_requests_finished_with_metric, *total_metric_value))
    });
    Report {
        issued: stats.total_issued_requests,
        succeeded: stats.total_successful_requests,
        failed: stats.total_error_requests,
        in_progress: stats.total_requests_in_progress,
        metrics: metrics(plain.chain(named(&stats.load_metric_stats))),
    }
}

fn of_endpoint(stats: &UpstreamEndpointStats) -> Report {
    Report {
        issued: stats.total_issued_requests,
        succeeded: stats.total_successful_requests,
        failed: stats.total_error_requests,
        in_progress: stats.total_requests_in_progress,
        metrics: metrics(named(&stats.load_metric_stats)),
    }
}

fn named(stats: &[EndpointLoadMetricStats]) -> impl Iterator<Item = (&str, u64, f64)> {
    stats.iter().map(|it| (it.metric_name.as_str(), it.num_requests_finished_with_metric, it.total_metric_value))
}

/// What makes sense of what servers say: they and clients name and number it as they like.
fn metrics<'a>(told: impl Iterator<Item = (&'a str, u64, f64)>) -> Vec<(String, MetricSum)> {
    let sane = told.filter(|(name, requests, total)| {
        !name.is_empty() && name.len() <= MAX_METRIC_NAME && *requests > 0 && total.is_finite()
    });
    sane.map(|(name, requests, total)| (name.to_owned(), MetricSum { requests, total })).collect()
}

/// The address of an endpoint as we served it.
fn address(stats: &UpstreamEndpointStats) -> Option<SocketAddr> {
    let Some(Address::SocketAddress(address)) = &stats.address.as_ref()?.address else { return None };
    let Some(PortSpecifier::PortValue(port)) = address.port_specifier else { return None };
    Some(SocketAddr::new(address.address.parse().ok()?, u16::try_from(port).ok()?))
}

/// A locality as we served it: the cluster is the sub-zone.
fn locality(proto: &ProtoLocality, topology: &Topology) -> Option<Locality> {
    let zone = if proto.zone.is_empty() { None } else { Some(proto.zone.parse().ok()?) };
    topology.locality(&proto.sub_zone.parse().ok()?, zone.as_ref())
}

#[tonic::async_trait]
impl LoadReportingService for LoadReports {
    type StreamLoadStatsStream = Pin<Box<dyn Stream<Item = Result<LoadStatsResponse, Status>> + Send>>;

    async fn stream_load_stats(
        &self,
        request: tonic::Request<Streaming<LoadStatsRequest>>,
    ) -> Result<Response<Self::StreamLoadStatsStream>, Status> {
        let requests = request.into_inner();
        let reports = self.clone();
        // One response, after the request that says who it is; from then on the stream only listens.
        let begin = stream::once(async move { begin(reports, requests).await });
        let responses = begin.flat_map(|begun| match begun {
            Ok((reports, place, requests)) => {
                let first = stream::once(std::future::ready(Ok(settings())));
                first.chain(listen(reports, place, requests)).boxed()
            }
            Err(status) => stream::once(std::future::ready(Err(status))).boxed(),
        });
        Ok(Response::new(responses.boxed()))
    }
}

fn settings() -> LoadStatsResponse {
    LoadStatsResponse {
        send_all_clusters: true,
        load_reporting_interval: Some(ProtoDuration {
            seconds: i64::try_from(INTERVAL.as_secs()).unwrap_or(1),
            nanos: 0,
        }),
        report_endpoint_granularity: true,
        ..LoadStatsResponse::default()
    }
}

type Begun = (LoadReports, Place, Streaming<LoadStatsRequest>);

async fn begin(reports: LoadReports, mut requests: Streaming<LoadStatsRequest>) -> Result<Begun, Status> {
    let first =
        requests.message().await?.ok_or_else(|| Status::invalid_argument("the stream ended before it began"))?;
    let node = first.node.ok_or_else(|| Status::invalid_argument("the first report of a stream must carry a node"))?;
    Ok((reports, Place::of(&node), requests))
}

/// Takes reports until the client goes. Sends nothing, but ends with the status of a frame that is no report.
fn listen(
    reports: LoadReports,
    place: Place,
    mut requests: Streaming<LoadStatsRequest>,
) -> impl Stream<Item = Result<LoadStatsResponse, Status>> + Send {
    stream::once(async move {
        let mut reporter = reports.store.reporter();
        loop {
            match requests.message().await {
                Ok(Some(request)) => reports.take(&place, &mut reporter, &request),
                Ok(None) => return None,
                Err(status) => return Some(Err(status)),
            }
        }
    })
    .filter_map(std::future::ready)
}
