//! What the Envoy of a gateway is served: what its gateway routes to, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::google::protobuf::{Struct, Value, value};

use super::delta::{DeltaAds, owned, request};
use super::harness::{Plane, node};
use crate::gateway::tests::{GATEWAY, planned};
use crate::resources::Kind;
use crate::resources::fixtures::served;
use crate::resources::gateway::GatewayResources;
use crate::xds::membership;

/// An Envoy that says that it belongs to `shop/edge`.
fn envoy() -> Node {
    let gateway = Value { kind: Some(value::Kind::StringValue("shop/edge".to_owned())) };
    let metadata = Struct { fields: [(membership::GATEWAY.to_owned(), gateway)].into() };
    Node { user_agent_name: "envoy".to_owned(), metadata: Some(metadata), ..node("", "a") }
}

fn asks(kind: Kind, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { node: Some(envoy()), ..request(kind, names) }
}

/// A gateway with one route to the port 8080 of a ServiceImport.
fn leads_to(plane: &Plane, service: &str) {
    let backend = format!("{{group: multicluster.x-k8s.io, kind: ServiceImport, name: {service}, port: 8080}}");
    let planned = planned(&format!(
        "{GATEWAY}---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r, namespace: shop}}
spec: {{parentRefs: [{{name: edge}}], rules: [{{backendRefs: [{backend}]}}]}}
"
    ));
    let resources = |plan| Arc::new(GatewayResources::new(plan, &planned.pending, &|_| Arc::default()));
    let all: BTreeMap<_, _> = planned.gateways.iter().map(|(name, plan)| (name.clone(), resources(plan))).collect();
    plane.server.gateways().replace(all);
}

#[tokio::test(start_paused = true)]
async fn a_wildcard_holds_what_the_gateway_routes_to_and_follows_it() {
    let plane = Plane::start();
    for service in ["checkout.shop", "web.shop", "other.shop"] {
        plane.catalog.say(service, &served(&["10.0.0.1:80"]));
    }
    let mut ads = DeltaAds::open(&plane).await;
    ads.send(asks(Kind::Cds, &[])).await;
    // What gateways there are is not known yet: an empty answer would take everything from an Envoy that comes back.
    ads.send(asks(Kind::Eds, &["other.shop:8080"])).await;
    assert_eq!(ads.take().await, (Kind::Eds, owned(&["other.shop:8080"]), vec![]));
    leads_to(&plane, "checkout");
    assert_eq!(ads.take().await, (Kind::Cds, owned(&["http1/checkout.shop:8080"]), vec![]));
    ads.send(asks(Kind::Eds, &["checkout.shop:8080"])).await;
    assert_eq!(ads.take().await, (Kind::Eds, owned(&["checkout.shop:8080"]), vec![]));
    ads.send(asks(Kind::Lds, &[])).await;
    assert_eq!(ads.take().await, (Kind::Lds, owned(&["shop/edge/8080"]), vec![]));
    ads.send(asks(Kind::Rds, &["shop/edge/8080"])).await;
    assert_eq!(ads.take().await, (Kind::Rds, owned(&["shop/edge/8080"]), vec![]));

    leads_to(&plane, "web");
    assert_eq!(ads.take().await, (Kind::Cds, owned(&["http1/web.shop:8080"]), vec![]));
    assert_eq!(ads.take().await, (Kind::Rds, owned(&["shop/edge/8080"]), vec![]));
    assert_eq!(
        ads.take().await,
        (Kind::Cds, vec![], owned(&["http1/checkout.shop:8080"])),
        "when no route leads there"
    );

    plane.server.gateways().replace(BTreeMap::new());
    let mut gone = [ads.take().await, ads.take().await, ads.take().await];
    gone.sort();
    assert_eq!(gone[0], (Kind::Cds, vec![], owned(&["http1/web.shop:8080"])));
    assert_eq!(gone[1], (Kind::Lds, vec![], owned(&["shop/edge/8080"])));
    assert_eq!(gone[2], (Kind::Rds, vec![], owned(&["shop/edge/8080"])));
}

#[tokio::test(start_paused = true)]
async fn a_route_to_what_is_not_known_yet_is_not_said_yet() {
    let plane = Plane::start();
    let mut ads = DeltaAds::open(&plane).await;
    leads_to(&plane, "late");
    ads.send(asks(Kind::Rds, &["shop/edge/8080"])).await;
    ads.send(asks(Kind::Lds, &[])).await;
    assert_eq!(ads.take().await, (Kind::Lds, owned(&["shop/edge/8080"]), vec![]));
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    leads_to(&plane, "checkout");
    assert_eq!(ads.take().await, (Kind::Rds, owned(&["shop/edge/8080"]), vec![]));
}

#[tokio::test(start_paused = true)]
async fn whoever_shows_no_right_to_them_gets_no_private_keys() {
    let plane = Plane::start();
    leads_to(&plane, "checkout");
    let mut ads = DeltaAds::open(&plane).await;
    ads.send(asks(Kind::Sds, &["shop/edge-cert"])).await;
    assert_eq!(ads.take().await, (Kind::Sds, vec![], owned(&["shop/edge-cert"])));
    // Nor does one that belongs to no gateway.
    let mut ads = DeltaAds::open(&plane).await;
    ads.send(request(Kind::Sds, &["shop/edge-cert"])).await;
    assert_eq!(ads.take().await, (Kind::Sds, vec![], owned(&["shop/edge-cert"])));
}
