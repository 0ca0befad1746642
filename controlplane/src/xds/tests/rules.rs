//! What real clients ask for and cannot do without, as they say it on the wire. The state machine's own tests have the
//! rest: the order of types, wildcards, refusals, endpoints that come again.

use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::google::rpc::Status as RpcStatus;
use portolan_topology::policy::{Connection, EffectivePolicy};
use prost::Message;

use super::harness::{Ads, Plane, node};
use super::{SHOP, addresses};
use crate::catalog::served::{Served, ServedService};
use crate::resources::Kind;
use crate::resources::fixtures::served;

/// A request as a client writes it, version and nonce as it has them.
async fn say(ads: &Ads, kind: Kind, names: &[&str], version: &str, nonce: &str) {
    let request = DiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        version_info: version.to_owned(),
        response_nonce: nonce.to_owned(),
        ..DiscoveryRequest::default()
    };
    ads.requests.send(request).await.unwrap();
}

/// `served`, with another limit of requests: that changes the cluster and nothing else.
fn limited(addresses: &[&str], max_requests: u32) -> Served {
    let Served::Present(service) = served(addresses) else { panic!() };
    let connection = Connection { max_requests, ..Connection::default() };
    let policy = EffectivePolicy { connection, ..EffectivePolicy::default() };
    Served::Present(ServedService { policy: policy.into(), ..(*service).clone() }.into())
}

#[tokio::test(start_paused = true)]
async fn envoy_is_sent_the_endpoints_of_a_changed_cluster_again_before_it_took_the_cluster() {
    let (plane, mut ads, _) = Plane::serving(Kind::Cds).await;
    ads.subscribe(Kind::Eds, &[SHOP]).await;
    let first = ads.take(Kind::Eds, &[SHOP]).await;
    plane.catalog.say("checkout.shop", &limited(&["10.0.0.1:80"], 7));
    assert_eq!(ads.next().await.unwrap().type_url, Kind::Cds.type_url());
    let again = ads.next().await.unwrap();
    assert_eq!((&again.type_url, &again.resources), (&first.type_url, &first.resources));
    assert_ne!(again.nonce, first.nonce);
}

#[tokio::test(start_paused = true)]
async fn requests_of_all_types_may_come_before_the_first_is_acknowledged() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    let mut ads = plane.open().await;
    let asked = [(Kind::Cds, SHOP), (Kind::Lds, "checkout.shop"), (Kind::Eds, SHOP), (Kind::Rds, SHOP)];
    for (kind, name) in asked {
        ads.subscribe(kind, &[name]).await;
    }
    let mut responses = Vec::new();
    for _ in asked {
        responses.push(ads.next().await.unwrap());
    }
    // Acknowledged in another order than they came in.
    for response in responses.iter().rev() {
        let (kind, name) = *asked.iter().find(|(kind, _)| kind.type_url() == response.type_url).unwrap();
        say(&ads, kind, &[name], &response.version_info, &response.nonce).await;
    }
    ads.silent().await;
    assert_eq!(plane.server.counts().acks, 4);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_by_its_error_alone_whatever_version_is_in_it() {
    for takes_the_version in [false, true] {
        let plane = Plane::start();
        plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
        let mut ads = plane.open().await;
        ads.subscribe(Kind::Cds, &[SHOP, "late.shop:80"]).await;
        let response = ads.next().await.unwrap();
        let request = DiscoveryRequest {
            type_url: Kind::Cds.type_url().to_owned(),
            resource_names: [SHOP, "late.shop:80"].map(str::to_owned).into(),
            // C-core and Envoy keep the old version, grpc-js says the new one.
            version_info: if takes_the_version { response.version_info } else { String::new() },
            response_nonce: response.nonce,
            error_detail: Some(RpcStatus { code: 14, message: "no".to_owned(), details: Vec::new() }),
            ..DiscoveryRequest::default()
        };
        ads.requests.send(request).await.unwrap();
        ads.silent().await;
        let counts = plane.server.counts();
        assert_eq!((counts.nacks, counts.acks), (1, 0), "{takes_the_version}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_given_up_and_comes_back_is_answered_in_each_library_s_words() {
    // C-core and grpc-js: the old nonce; grpc-go: that and the old version; grpc-java: that and no version.
    for keeps_version in [true, false] {
        let plane = Plane::start();
        plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
        let mut ads = plane.open().await;
        ads.subscribe(Kind::Eds, &[SHOP]).await;
        let first = ads.take(Kind::Eds, &[SHOP]).await;
        let version = if keeps_version { first.version_info.as_str() } else { "" };
        say(&ads, Kind::Eds, &[], version, &first.nonce).await;
        ads.silent().await;
        say(&ads, Kind::Eds, &[SHOP], version, &first.nonce).await;
        assert_eq!(addresses(&ads.take(Kind::Eds, &[SHOP]).await), ["10.0.0.1"], "{keeps_version}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_stream_that_says_what_it_held_is_answered_once_more() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    let mut ads = plane.open().await;
    ads.subscribe(Kind::Lds, &["checkout.shop"]).await;
    let first = ads.take(Kind::Lds, &["checkout.shop"]).await;
    drop(ads);
    let again = plane.open().await;
    let request = DiscoveryRequest {
        node: Some(node("", "a")),
        type_url: Kind::Lds.type_url().to_owned(),
        resource_names: vec!["checkout.shop".to_owned()],
        version_info: first.version_info.clone(),
        ..DiscoveryRequest::default()
    };
    again.requests.send(request).await.unwrap();
    let mut again = again;
    let second = again.next().await.unwrap();
    assert_eq!((second.version_info, second.resources), (first.version_info, first.resources));
}

#[tokio::test(start_paused = true)]
async fn of_a_service_all_is_answered_or_nothing() {
    // Every gRPC client freezes while a cluster that its route names, or that cluster's endpoints, are unanswered.
    let plane = Plane::start();
    let mut ads = plane.open().await;
    let asked = [(Kind::Cds, SHOP), (Kind::Eds, SHOP), (Kind::Lds, "checkout.shop"), (Kind::Rds, SHOP)];
    for (kind, name) in asked {
        ads.subscribe(kind, &[name]).await;
    }
    ads.silent().await;
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    for (kind, name) in asked {
        ads.take(kind, &[name]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_goes_and_comes_back_is_never_the_same_again_in_between() {
    // A grpc-js that was told of a deletion stays broken if identical content follows: it is told of other content.
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    let mut ads = plane.open().await;
    let asked = [(Kind::Eds, SHOP), (Kind::Lds, "checkout.shop"), (Kind::Rds, SHOP)];
    let mut before = Vec::new();
    for (kind, name) in asked {
        ads.subscribe(kind, &[name]).await;
        before.push(ads.take(kind, &[name]).await);
    }
    for served in [Served::Absent, served(&["10.0.0.1:80"])] {
        plane.catalog.say("checkout.shop", &served);
        for (before, (kind, name)) in before.iter_mut().zip(asked) {
            let now = ads.take(kind, &[name]).await;
            assert_eq!(now.resources.len(), 1, "{kind}");
            assert_ne!(now.resources, before.resources, "{kind}");
            *before = now;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_gone_has_a_listener_that_leads_nowhere() {
    // A Listener that is left out costs a gRPC client 15 seconds.
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &Served::Absent);
    let mut ads = plane.open().await;
    ads.subscribe(Kind::Lds, &["checkout.shop"]).await;
    let response = ads.take(Kind::Lds, &["checkout.shop"]).await;
    let listener = Listener::decode(&*response.resources[0].value).unwrap();
    assert!(listener.api_listener.is_some() && listener.address.is_none());
}
