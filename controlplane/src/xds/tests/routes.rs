//! The routes of services, on the stream of a client.

use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use prost::Message;

use super::SHOP;
use super::harness::Plane;
use crate::gateway::tests::planned;
use crate::resources::Kind;
use crate::resources::fixtures::served;

const WEB: &str = "web.shop:8080";

/// All calls of `checkout.shop` go to a Service.
fn leads_to(plane: &Plane, backend: &str) {
    let planned = planned(&format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: r, namespace: shop}}
spec: {{parentRefs: [{{group: '', kind: Service, name: checkout}}], rules: [{{backendRefs: [{{name: {backend}, port: 8080}}]}}]}}
"
    ));
    plane.server.services().replace_routes(&"use1-a".parse().unwrap(), planned.services);
}

/// The text of the one RouteConfiguration in a response.
fn text(response: &envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse) -> String {
    format!("{:?}", RouteConfiguration::decode(response.resources[0].value.as_slice()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_client_follows_the_routes_of_its_service_and_no_others() {
    let (plane, mut ads, plain) = Plane::serving(Kind::Rds).await;
    for service in ["web.shop", "a.shop"] {
        plane.catalog.say(service, &served(&["10.0.0.1:80"]));
    }
    let mut other = plane.open().await;
    other.subscribe(Kind::Rds, &[WEB]).await;
    other.take(Kind::Rds, &[WEB]).await;
    leads_to(&plane, "a");
    let routed = ads.take(Kind::Rds, &[SHOP]).await;
    assert!(text(&routed).contains("a.shop.svc.cluster.local:8080"), "{}", text(&routed));
    // What it names is there for whoever asks.
    for kind in [Kind::Cds, Kind::Eds] {
        let name = "a.shop.svc.cluster.local:8080";
        ads.subscribe(kind, &[name]).await;
        assert_eq!(ads.take(kind, &[name]).await.resources.len(), 1);
    }
    leads_to(&plane, "gone");
    let refused = ads.take(Kind::Rds, &[SHOP]).await;
    assert!(text(&refused).contains("no-backend"), "{}", text(&refused));
    // Nothing is said while nothing is known of a backend.
    leads_to(&plane, "late");
    ads.silent().await;
    plane.server.services().replace_routes(&"use1-a".parse().unwrap(), [].into());
    assert_eq!(text(&ads.take(Kind::Rds, &[SHOP]).await), text(&plain), "as it was without routes");
    other.silent().await;
}

#[tokio::test(start_paused = true)]
async fn until_it_is_known_which_services_have_routes_none_is_said_to_have_none() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    plane.server.services().withhold_routes();
    let mut ads = plane.open().await;
    ads.subscribe(Kind::Rds, &[SHOP]).await;
    ads.silent().await;
    leads_to(&plane, "a");
    assert!(text(&ads.take(Kind::Rds, &[SHOP]).await).contains("a.shop.svc.cluster.local:8080"));
}
