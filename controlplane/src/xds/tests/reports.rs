//! Load reports over gRPC.

use envoy_types::pb::envoy::config::core::v3::Locality as ProtoLocality;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterStats, UpstreamLocalityStats};
use envoy_types::pb::envoy::service::load_stats::v3::LoadStatsRequest;
use envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_client::LoadReportingServiceClient;
use envoy_types::pb::google::protobuf::Duration as ProtoDuration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::harness::{Plane, node, until};
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
    assert!(first.send_all_clusters);
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
async fn a_reporter_without_a_node_is_refused() {
    let plane = Plane::start();
    let mut client = LoadReportingServiceClient::new(plane.channel.clone());
    let report = futures::stream::iter([LoadStatsRequest::default()]);
    let mut settings = client.stream_load_stats(report).await.unwrap().into_inner();
    assert_eq!(settings.message().await.unwrap_err().code(), Code::InvalidArgument);
}
