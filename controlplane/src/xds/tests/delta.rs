//! Delta over gRPC.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::envoy::service::endpoint::v3::endpoint_discovery_service_client::EndpointDiscoveryServiceClient;
use envoy_types::pb::google::rpc::Status as RpcStatus;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::SHOP;
use super::harness::{Plane, node, until};
use crate::catalog::served::Served;
use crate::resources::Kind;
use crate::resources::fixtures::served;
use crate::xds::protocol::holding::SyncState;

/// A raw delta client.
pub(super) struct DeltaAds {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

pub(super) fn request(kind: Kind, subscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(node("", "a")),
        type_url: kind.type_url().to_owned(),
        resource_names_subscribe: subscribe.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

impl DeltaAds {
    pub(super) async fn open(plane: &Plane) -> Self {
        let (requests, outgoing) = mpsc::channel(16);
        let mut client = AggregatedDiscoveryServiceClient::new(plane.channel.clone());
        let responses = client.delta_aggregated_resources(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        Self { requests, responses }
    }

    pub(super) async fn send(&self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        self.responses.message().await?.ok_or_else(|| Status::ok("the stream ended"))
    }

    /// The next response, which is acknowledged: its type, what is in it, and what is gone.
    pub(super) async fn take(&mut self) -> (Kind, Vec<String>, Vec<String>) {
        let response = self.next().await.unwrap();
        let kind = Kind::of_type_url(&response.type_url).unwrap();
        self.send(DeltaDiscoveryRequest { response_nonce: response.nonce, ..request(kind, &[]) }).await;
        (kind, response.resources.into_iter().map(|it| it.name).collect(), response.removed_resources)
    }
}

pub(super) fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn every_type_is_served_changed_and_removed() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    let mut ads = DeltaAds::open(&plane).await;
    for kind in Kind::OF_SERVICES {
        let name = if kind == Kind::Lds { "checkout.shop" } else { SHOP };
        ads.send(request(kind, &[name])).await;
        assert_eq!(ads.take().await, (kind, owned(&[name]), vec![]));
    }
    plane.catalog.say("checkout.shop", &served(&["10.0.0.2:80"]));
    assert_eq!(ads.take().await, (Kind::Eds, owned(&[SHOP]), vec![]), "nothing else changed");
    plane.catalog.say("checkout.shop", &Served::Absent);
    let mut gone = Vec::new();
    for _ in 0..4 {
        gone.push(ads.take().await);
    }
    gone.sort_by_key(|(kind, ..)| *kind);
    let (cds, eds) = ((Kind::Cds, vec![], owned(&[SHOP])), (Kind::Eds, owned(&[SHOP]), vec![]));
    assert_eq!(gone, [cds, eds, (Kind::Lds, vec![], owned(&["checkout.shop"])), (Kind::Rds, vec![], owned(&[SHOP]))]);
}

#[tokio::test(start_paused = true)]
async fn an_absent_name_is_answered_at_once_and_a_wildcard_with_nothing() {
    let plane = Plane::start();
    plane.catalog.say("nothing.shop", &Served::Absent);
    let mut ads = DeltaAds::open(&plane).await;
    ads.send(request(Kind::Cds, &[])).await;
    assert_eq!(ads.take().await, (Kind::Cds, vec![], vec![]));
    ads.send(request(Kind::Eds, &["nothing.shop", "no name at all"])).await;
    assert_eq!(ads.take().await, (Kind::Eds, vec![], owned(&["no name at all", "nothing.shop"])));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_is_sent_what_it_lacks() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    let mut ads = DeltaAds::open(&plane).await;
    ads.send(request(Kind::Eds, &[SHOP])).await;
    let resource = ads.next().await.unwrap().resources.remove(0);
    drop(ads);
    let mut again = DeltaAds::open(&plane).await;
    let held = HashMap::from([(SHOP.to_owned(), resource.version)]);
    again.send(DeltaDiscoveryRequest { initial_resource_versions: held, ..request(Kind::Eds, &[SHOP]) }).await;
    again.send(request(Kind::Lds, &["checkout.shop"])).await;
    assert_eq!(again.take().await.0, Kind::Lds, "the endpoints are as they were");
    plane.catalog.say("checkout.shop", &served(&["10.0.0.2:80"]));
    assert_eq!(again.take().await, (Kind::Eds, owned(&[SHOP]), vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_shows_and_is_counted() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    let mut ads = DeltaAds::open(&plane).await;
    ads.send(request(Kind::Eds, &[SHOP])).await;
    let nonce = ads.next().await.unwrap().nonce;
    let error = RpcStatus { code: 13, message: "I do not like it".to_owned(), details: Vec::new() };
    ads.send(DeltaDiscoveryRequest { response_nonce: nonce, error_detail: Some(error), ..request(Kind::Eds, &[]) })
        .await;
    let state = || plane.server.clients().snapshot()[0].subscriptions[&Kind::Eds].state;
    until("it is refused", || state() == SyncState::Nacked).await;
    assert_eq!(plane.server.counts().nacks, 1);
}

#[tokio::test(start_paused = true)]
async fn endpoints_alone_by_delta() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    let mut client = EndpointDiscoveryServiceClient::new(plane.channel.clone());
    let (requests, outgoing) = mpsc::channel(1);
    let without_type = DeltaDiscoveryRequest { type_url: String::new(), ..request(Kind::Eds, &["checkout.shop"]) };
    requests.send(without_type).await.unwrap();
    let mut responses = client.delta_endpoints(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let response = responses.message().await.unwrap().unwrap();
    let any = response.resources[0].resource.as_ref().unwrap();
    assert_eq!(ClusterLoadAssignment::decode(any.value.as_slice()).unwrap().cluster_name, "checkout.shop");
}

#[tokio::test(start_paused = true)]
async fn polling_is_refused_with_a_word_of_what_to_do() {
    let plane = Plane::start();
    let mut client = EndpointDiscoveryServiceClient::new(plane.channel.clone());
    let status = client.fetch_endpoints(tonic::Request::new(Default::default())).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("open a stream"), "{status}");
}
