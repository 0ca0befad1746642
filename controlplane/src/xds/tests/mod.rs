//! The server with real gRPC between it and its clients.

mod bad_input;
mod delta;
mod gateway;
mod harness;
mod reports;
mod routes;
mod rules;
mod rust_client;
mod status;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use envoy_types::pb::envoy::service::endpoint::v3::endpoint_discovery_service_client::EndpointDiscoveryServiceClient;
use portolan_client::xds::model::Resolution;
use portolan_client::xds::sotw::{ServerIndex, SotwClient};
use prost::Message;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::protocol::holding::SyncState;
use crate::catalog::served::Served;
use crate::resources::Kind;
use crate::resources::fixtures::{place, place_in, served};
use harness::{Ads, Plane, node, until};

const SHOP: &str = "checkout.shop:8080";

/// The addresses in an EDS response with one resource.
fn addresses(response: &DiscoveryResponse) -> Vec<String> {
    let assignment = ClusterLoadAssignment::decode(response.resources[0].value.as_slice()).unwrap();
    let endpoints = assignment.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints);
    endpoints.map(|endpoint| format!("{:?}", endpoint.host_identifier)).map(|text| host(&text)).collect()
}

/// `10.0.0.1` out of the debug form of an address.
fn host(text: &str) -> String {
    text.split('"').find(|part| part.contains('.')).unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn our_own_client_gets_from_a_name_to_its_endpoints_and_follows_them() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    let mut client = SotwClient::new(node("", "a"));
    let target: portolan_client::xds::target::Target = "xds:///checkout.shop".parse().unwrap();
    client.watch(target.clone());
    let mut ads = plane.open().await;
    client.connected(ServerIndex(0), false);
    let mut current = vec!["10.0.0.1:80".to_owned()];
    for wanted in [vec!["10.0.0.1:80"], vec!["10.0.0.1:80", "10.0.0.2:80"], vec![]] {
        if wanted != current {
            plane.catalog.say("checkout.shop", &served(&wanted));
        }
        loop {
            while let Some(request) = client.next_request() {
                ads.requests.send(request).await.unwrap();
            }
            if let Some(Resolution::Routing(routing)) = client.resolution(&target) {
                let localities = routing.assignments().flat_map(|it| it.priorities.iter().flatten());
                current = localities.flat_map(|it| &it.endpoints).map(|it| it.address.to_string()).collect();
                if current == wanted {
                    break;
                }
            }
            client.received(ads.next().await.unwrap());
        }
    }
    plane.catalog.say("checkout.shop", &Served::Absent);
    while !matches!(client.resolution(&target), Some(Resolution::NotFound { .. })) {
        client.received(ads.next().await.unwrap());
        while let Some(request) = client.next_request() {
            ads.requests.send(request).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_changed_is_sent() {
    let (plane, mut ads, _) = Plane::serving(Kind::Cds).await;
    ads.subscribe(Kind::Eds, &[SHOP]).await;
    let first = ads.take(Kind::Eds, &[SHOP]).await;
    plane.catalog.say("checkout.shop", &served(&["10.0.0.2:80"]));
    let second = ads.take(Kind::Eds, &[SHOP]).await;
    assert_eq!(addresses(&second), ["10.0.0.2"]);
    assert_ne!(first.version_info, second.version_info);
    // The same content in a new snapshot.
    plane.catalog.say("checkout.shop", &served(&["10.0.0.2:80"]));
    ads.silent().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_known_yet_is_left_unanswered() {
    let plane = Plane::start();
    let mut ads = plane.open().await;
    ads.subscribe(Kind::Lds, &["checkout.shop"]).await;
    ads.silent().await;
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    ads.take(Kind::Lds, &["checkout.shop"]).await;
    plane.catalog.say("checkout.shop", &Served::NotYet);
    ads.silent().await;
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_none_is_answered_at_once() {
    let plane = Plane::start();
    let mut ads = plane.open().await;
    ads.subscribe(Kind::Lds, &["no such thing"]).await;
    let response = ads.take(Kind::Lds, &["no such thing"]).await;
    assert_eq!(response.resources.len(), 1);
    assert!(plane.catalog.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_any_more_is_let_go() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    let mut ads = plane.open().await;
    ads.subscribe(Kind::Lds, &["checkout.shop"]).await;
    ads.take(Kind::Lds, &["checkout.shop"]).await;
    ads.subscribe(Kind::Eds, &[SHOP]).await;
    ads.take(Kind::Eds, &[SHOP]).await;
    assert_eq!(plane.catalog.listeners(), 2);
    ads.subscribe(Kind::Lds, &[]).await;
    until("the listener's slot is let go", || plane.catalog.listeners() == 1).await;
    plane.catalog.say("checkout.shop", &served(&["10.0.0.2:80"]));
    ads.take(Kind::Eds, &[SHOP]).await;
    drop(ads);
    until("the rest goes with the stream", || plane.catalog.listeners() == 0).await;
    assert!(plane.server.clients().is_empty());
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_fast_go_together() {
    let (plane, mut ads, _) = Plane::serving(Kind::Eds).await;
    let before = plane.server.counts().responses;
    for last in 2..=100 {
        plane.catalog.say("checkout.shop", &served(&[&format!("10.0.0.{last}:80")]));
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    while addresses(&ads.take(Kind::Eds, &[SHOP]).await) != ["10.0.0.100"] {}
    // 99 changes over 99 ms, in batches of 20 ms.
    let sent = plane.server.counts().responses - before;
    assert!(sent <= 8, "{sent}");
}

#[tokio::test(start_paused = true)]
async fn a_change_is_encoded_once_whatever_the_number_of_streams() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    let mut streams: Vec<Ads> = Vec::new();
    for _ in 0..50 {
        let mut ads = plane.open().await;
        ads.subscribe(Kind::Eds, &[SHOP]).await;
        ads.take(Kind::Eds, &[SHOP]).await;
        streams.push(ads);
    }
    let before = plane.server.encodes();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.2:80"]));
    for ads in &mut streams {
        assert_eq!(addresses(&ads.take(Kind::Eds, &[SHOP]).await), ["10.0.0.2"]);
    }
    assert_eq!(plane.server.encodes() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_is_where_its_node_and_the_topology_say() {
    for (cluster, zone, expected) in [
        ("", "a", place_in("use1-a", "a")),
        ("use1-b", "b", place_in("use1-b", "b")),
        ("nobody-knows", "b", place_in("use1-a", "b")),
        ("use1-b", "mars", place_in("use1-b", "")),
        ("Not A Name", "Nor This", place_in("use1-a", "")),
    ] {
        let plane = Plane::start();
        let mut ads = plane.open().await;
        ads.node = Some(node(cluster, zone));
        ads.subscribe(Kind::Eds, &[SHOP]).await;
        until("it asked", || !plane.catalog.asked().is_empty()).await;
        assert_eq!(plane.catalog.asked()[0].client, expected);
        assert_eq!(plane.server.clients().snapshot()[0].locality, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_the_topology_moves_is_told_to_connect_again() {
    let plane = Plane::start();
    let mut ads = plane.open().await;
    ads.node = Some(node("use1-b", "b"));
    ads.subscribe(Kind::Eds, &[SHOP]).await;
    until("it is in", || !plane.server.clients().is_empty()).await;
    plane.topology.send_modify(|topology| {
        let mut next = (**topology).clone();
        next.hash += 1;
        *topology = next.into();
    });
    ads.silent().await;
    plane.topology.send_modify(|topology| {
        let mut next = (**topology).clone();
        next.regions[0].clusters.pop();
        *topology = next.into();
    });
    assert_eq!(ads.next().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn clients_show_what_they_have() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    let mut ads = plane.open().await;
    ads.subscribe(Kind::Eds, &[SHOP]).await;
    let state = || plane.server.clients().snapshot()[0].subscriptions[&Kind::Eds].clone();
    let first = ads.next().await.unwrap();
    assert_eq!((state().state, &*state().sent), (SyncState::Stale, first.version_info.as_str()));
    ads.subscribe(Kind::Eds, &[SHOP]).await;
    until("it is acknowledged", || state().state == SyncState::Synced).await;
    plane.catalog.say("checkout.shop", &served(&["10.0.0.2:80"]));
    ads.next().await.unwrap();
    ads.send(Kind::Eds.type_url(), &[SHOP], Some("I do not like it")).await;
    until("it is refused", || state().state == SyncState::Nacked).await;
    tokio::time::advance(std::time::Duration::from_secs(3)).await;
    let client = plane.server.clients().snapshot().remove(0);
    assert_eq!((client.node.as_str(), client.user_agent.as_str(), &client.locality), ("test", "gRPC Go", &place("a")));
    assert_eq!(client.subscriptions[&Kind::Eds].nack.as_deref(), Some("I do not like it"));
    assert!(client.subscriptions[&Kind::Eds].nack_ms.unwrap() >= 3_000);
    assert!(client.subscriptions[&Kind::Eds].state_ms >= 3_000);
    let shown = serde_json::to_value(&client).unwrap();
    assert_eq!(shown["subscriptions"]["EDS"]["state"], "NACKED");
    assert_eq!(plane.server.counts().nacks, 1);
}

#[tokio::test(start_paused = true)]
async fn endpoints_alone_for_whoever_wants_just_those() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    let mut client = EndpointDiscoveryServiceClient::new(plane.channel.clone());
    let request = envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest {
        node: Some(node("", "a")),
        resource_names: vec!["checkout.shop".to_owned()],
        ..Default::default()
    };
    let (requests, outgoing) = tokio::sync::mpsc::channel(1);
    requests.send(request).await.unwrap();
    let mut responses = client.stream_endpoints(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let response = responses.message().await.unwrap().unwrap();
    let assignment = ClusterLoadAssignment::decode(response.resources[0].value.as_slice()).unwrap();
    assert_eq!(assignment.cluster_name, "checkout.shop", "the name as asked");
}

#[tokio::test(start_paused = true)]
async fn a_wildcard_is_answered_with_nothing() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    let mut ads = plane.open().await;
    ads.subscribe(Kind::Cds, &[]).await;
    let response = ads.take(Kind::Cds, &[]).await;
    assert!(response.resources.is_empty());
    ads.subscribe(Kind::Cds, &[SHOP]).await;
    let response = ads.take(Kind::Cds, &[SHOP]).await;
    assert_eq!(Cluster::decode(response.resources[0].value.as_slice()).unwrap().name, SHOP);
}
