//! Load reports over gRPC.

use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, Locality as ProtoLocality, SocketAddress, address};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterStats, EndpointLoadMetricStats, UnnamedEndpointLoadMetricStats, UpstreamEndpointStats, UpstreamLocalityStats,
};
use envoy_types::pb::envoy::service::load_stats::v3::LoadStatsRequest;
use envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_client::LoadReportingServiceClient;
use envoy_types::pb::google::protobuf::Duration as ProtoDuration;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::harness::{Plane, node, until};
use crate::lrs::store::MetricSum;
use crate::resources::fixtures::place;

fn stats(cluster: &str, zone: &str, issued: u64) -> ClusterStats {
    let locality = ProtoLocality { region: "us-east".into(), zone: zone.into(), sub_zone: "use1-a".into() };
    ClusterStats {
        cluster_name: cluster.to_owned(),
        load_report_interval: Some(ProtoDuration { seconds: 2, nanos: 0 }),
        upstream_locality_stats: vec![UpstreamLocalityStats {
            locality: Some(locality),
            total_issued_requests: issued,
            total_successful_requests: issued,
            total_requests_in_progress: 1,
            ..UpstreamLocalityStats::default()
        }],
        ..ClusterStats::default()
    }
}

#[tokio::test(start_paused = true)]
async fn reports_become_demand_by_service_and_source_zone() {
    let plane = Plane::start();
    let mut client = LoadReportingServiceClient::new(plane.channel.clone());
    let (reports, outgoing) = mpsc::channel(4);
    reports.send(LoadStatsRequest { node: Some(node("", "a")), ..LoadStatsRequest::default() }).await.unwrap();
    let mut settings = client.stream_load_stats(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let first = settings.message().await.unwrap().unwrap();
    assert!(first.send_all_clusters && first.report_endpoint_granularity);
    assert_eq!(first.load_reporting_interval.unwrap().seconds, 2);
    let report = LoadStatsRequest {
        cluster_stats: vec![
            stats("checkout.shop:8080", "a", 60),
            stats("checkout.shop.svc.cluster.local:8080", "b", 40),
            stats("not a service", "a", 1),
            stats("checkout.shop:8080", "Not A Zone", 1),
        ],
        ..LoadStatsRequest::default()
    };
    reports.send(report).await.unwrap();
    until("they are in", || plane.loads.reports() == 2).await;
    assert_eq!(plane.loads.dropped(), 2);
    let demand = plane.loads.snapshot().demand();
    assert_eq!(demand[&("checkout.shop".parse().unwrap(), place("a"))], 50.0);
    drop(reports);
    until("what it had open went with it", || {
        plane.loads.snapshot().by_upstream().values().all(|load| load.in_progress == 0)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_and_what_servers_say_of_their_load_are_kept() {
    let plane = Plane::start();
    let mut client = LoadReportingServiceClient::new(plane.channel.clone());
    let metric = |name: &str, requests, total| EndpointLoadMetricStats {
        metric_name: name.to_owned(),
        num_requests_finished_with_metric: requests,
        total_metric_value: total,
    };
    let endpoint = |host: &str, failed| UpstreamEndpointStats {
        address: Some(Address {
            address: Some(address::Address::SocketAddress(SocketAddress {
                address: host.to_owned(),
                port_specifier: Some(PortSpecifier::PortValue(9090)),
                ..SocketAddress::default()
            })),
        }),
        total_issued_requests: 10,
        total_error_requests: failed,
        ..UpstreamEndpointStats::default()
    };
    let mut report = stats("checkout.shop:8080", "a", 20);
    let upstream = &mut report.upstream_locality_stats[0];
    upstream.upstream_endpoint_stats = vec![endpoint("10.0.0.1", 0), endpoint("10.0.0.2", 10), endpoint("a name", 0)];
    upstream.cpu_utilization =
        Some(UnnamedEndpointLoadMetricStats { num_requests_finished_with_metric: 4, total_metric_value: 2.0 });
    upstream.load_metric_stats = vec![
        metric("named_metrics.queue", 4, 10.0),
        metric("named_metrics.nonsense", 1, f64::NAN),
        metric("named_metrics.of_nobody", 0, 1.0),
        metric("", 1, 1.0),
    ];
    let node = LoadStatsRequest { node: Some(node("", "a")), ..LoadStatsRequest::default() };
    let report = LoadStatsRequest { cluster_stats: vec![report], ..LoadStatsRequest::default() };
    let requests = futures::stream::iter([node, report]).chain(futures::stream::pending());
    let _settings = client.stream_load_stats(requests).await.unwrap();
    until("they are in", || plane.loads.reports() == 3).await;
    assert_eq!(plane.loads.dropped(), 1, "an endpoint without an address");
    let snapshot = plane.loads.snapshot();
    let load = snapshot.loads.values().next().unwrap();
    assert_eq!(load.metrics["cpu_utilization"], MetricSum { requests: 4, total: 2.0 });
    assert_eq!(load.metrics["named_metrics.queue"], MetricSum { requests: 4, total: 10.0 });
    assert_eq!(load.metrics.len(), 2, "{:?}", load.metrics);
    let failed: Vec<_> = snapshot.endpoints.iter().map(|(key, load)| (key.endpoint.unwrap(), load.failed)).collect();
    assert_eq!(failed, [("10.0.0.1:9090".parse().unwrap(), 0), ("10.0.0.2:9090".parse().unwrap(), 10)]);
}

#[tokio::test(start_paused = true)]
async fn a_reporter_without_a_node_is_refused() {
    let plane = Plane::start();
    let mut client = LoadReportingServiceClient::new(plane.channel.clone());
    let report = futures::stream::iter([LoadStatsRequest::default()]);
    let mut settings = client.stream_load_stats(report).await.unwrap().into_inner();
    assert_eq!(settings.message().await.unwrap_err().code(), Code::InvalidArgument);
}
