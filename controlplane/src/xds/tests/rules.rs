//! What real clients ask for and cannot do without, as they say it on the wire. docs/clients.md lists their rules, each with
//! the tests that hold it; [`every_rule_has_its_tests`] holds the list.

use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::google::rpc::Status as RpcStatus;
use portolan_topology::policy::{Connection, EffectivePolicy};
use prost::Message;

use super::harness::{Ads, Plane, node};
use super::{SHOP, addresses};
use crate::catalog::served::{Served, ServedService};
use crate::resources::Kind;
use crate::resources::fixtures::{place, served};

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

#[tokio::test(start_paused = true)]
async fn routes_and_endpoints_that_are_gone_are_said_to_be_none() {
    // Left out of a response, a cluster or a listener is deleted, and the others stay as they were.
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    let mut ads = plane.open().await;
    let asked = [(Kind::Cds, SHOP), (Kind::Eds, SHOP), (Kind::Rds, SHOP)];
    for (kind, name) in asked {
        ads.subscribe(kind, &[name]).await;
        ads.take(kind, &[name]).await;
    }
    plane.catalog.say("checkout.shop", &Served::Absent);
    let endpoints = ads.take(Kind::Eds, &[SHOP]).await;
    assert_eq!(ClusterLoadAssignment::decode(&*endpoints.resources[0].value).unwrap().endpoints, []);
    let routes = ads.take(Kind::Rds, &[SHOP]).await;
    assert_eq!(RouteConfiguration::decode(&*routes.resources[0].value).unwrap().virtual_hosts, []);
    assert_eq!(ads.take(Kind::Cds, &[SHOP]).await.resources, [], "the cluster goes, after the route to it");
}

#[tokio::test(start_paused = true)]
async fn control_planes_that_stand_in_for_each_other_serve_the_same_under_the_same_names() {
    // A grpc-go that began with the second subscribes at the first, when that is back, to the Listener alone, and holds on
    // to the other names.
    let asked = [(Kind::Cds, SHOP), (Kind::Eds, SHOP), (Kind::Lds, "checkout.shop"), (Kind::Rds, SHOP)];
    let mut said = Vec::new();
    for cluster in ["use1-a", "use1-b"] {
        let plane = Plane::of(cluster);
        plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
        let mut ads = plane.open().await;
        ads.node = Some(node("use1-a", "a"));
        let mut responses = Vec::new();
        for (kind, name) in asked {
            ads.subscribe(kind, &[name]).await;
            let response = ads.take(kind, &[name]).await;
            responses.push((response.version_info, response.resources));
        }
        assert!(plane.catalog.asked().iter().all(|query| query.client == place("a")), "{cluster}");
        said.push(responses);
    }
    assert_eq!(said[0], said[1]);
}

/// Where the tests of the rules stand.
const SOURCES: [&str; 8] = [
    include_str!("rules.rs"),
    include_str!("routes.rs"),
    include_str!("gateway.rs"),
    include_str!("../sotw/tests.rs"),
    include_str!("../delta/tests.rs"),
    include_str!("../../resources/tests.rs"),
    include_str!("../../resources/service_routes_tests.rs"),
    include_str!("../../../../docs/clients.md"),
];

#[test]
fn every_rule_has_its_tests() {
    let (sources, [docs]) = SOURCES.split_last_chunk().unwrap();
    let (_, rules) = docs.split_once("\n### What they ask of a server\n").unwrap();
    let rules = rules.split("\n### ").next().unwrap_or_default();
    let rows: Vec<&str> = rules.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    assert_eq!(rows.len(), 16);
    for (row, number) in rows.into_iter().zip(1..) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [told, _, tests] = &cells[..] else { panic!("{row}") };
        assert_eq!(told.parse(), Ok(number), "{row}");
        let tests: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{row}");
        for test in tests {
            assert!(sources.iter().any(|source| source.contains(&format!("fn {test}("))), "rule {number}: {test}");
        }
    }
}
