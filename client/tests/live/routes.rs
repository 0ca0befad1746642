//! Calls go where their route leads: by method, by weight, nowhere; and a cluster that left the routes ends in peace.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use portolan_client::Channel;
use portolan_client::channel::{CallError, Failure, Options};
use portolan_client::xds::matching::{Pattern, RouteMatch, TextMatch};
use portolan_client::xds::model::{Assignment, Resolution};
use portolan_client::xds::routing::{Forward, NoCluster, Route, Routing, Share};
use tokio::sync::watch;

use crate::support::{Backend, assignment, call, locality};

fn cluster(name: &str, backend: &Backend) -> Assignment {
    Assignment { cluster: name.into(), ..assignment(vec![vec![locality("a", 1, &[backend.address])]]) }
}

fn split(shares: &[(&str, u32)]) -> Forward {
    let share = |(cluster, weight): &(&str, u32)| Share { cluster: (*cluster).into(), weight: *weight };
    Forward { clusters: shares.iter().map(share).collect(), ..Forward::to("") }
}

fn everything(forward: Option<Forward>) -> Route {
    Route { matches: RouteMatch::everything(), forward }
}

fn on(path: &str, forward: Option<Forward>) -> Route {
    let path = TextMatch { pattern: Pattern::Exact(path.to_owned()), ignore_case: false };
    Route { matches: RouteMatch { path, ..RouteMatch::everything() }, forward }
}

fn routing(routes: Vec<Route>, clusters: Vec<Assignment>) -> Routing {
    let clusters = clusters.into_iter().map(|it| (Arc::clone(&it.cluster), Ok(Arc::new(it)))).collect();
    Routing { routes: routes.into(), clusters, timeout: None }
}

fn over(routing: Routing) -> (Channel, watch::Sender<Resolution>) {
    let (source, resolutions) = watch::channel(Resolution::Routing(Arc::new(routing)));
    (Channel::over("checkout.shop", resolutions, Options::new(5)), source)
}

const CHECK: &str = "/grpc.health.v1.Health/Check";

#[tokio::test]
async fn a_call_goes_to_the_cluster_of_the_first_route_that_fits() {
    let (health, rest) = (Backend::start().await, Backend::start().await);
    let clusters = vec![cluster("health", &health), cluster("rest", &rest)];
    let routes = vec![on(CHECK, Some(Forward::to("health"))), everything(Some(Forward::to("rest")))];
    let (channel, source) = over(routing(routes, clusters.clone()));
    assert_eq!(call(&channel).await.unwrap().address, health.address);
    let routes = vec![on("/other.Service/Method", Some(Forward::to("health"))), everything(Some(Forward::to("rest")))];
    source.send_replace(Resolution::Routing(Arc::new(routing(routes, clusters))));
    while call(&channel).await.unwrap().address != rest.address {}
    let explained = channel.explain().to_string();
    assert!(explained.contains("\ncluster health\n") && explained.contains("\ncluster rest\n"), "{explained}");
}

#[tokio::test]
async fn weighted_clusters_share_as_they_weigh() {
    let backends = Backend::start_many(2).await;
    let clusters = vec![cluster("stable", &backends[0]), cluster("canary", &backends[1])];
    let (channel, _source) = over(routing(vec![everything(Some(split(&[("stable", 90), ("canary", 10)])))], clusters));
    const CALLS: u64 = 4000;
    for _ in 0..CALLS / 20 {
        for done in futures::future::join_all((0..20).map(|_| call(&channel))).await {
            done.unwrap();
        }
    }
    assert_eq!(backends[0].calls() + backends[1].calls(), CALLS);
    // Four standard deviations of so many fair draws; the router's own test holds it to a quarter of a percent.
    let canary = backends[1].calls() as f64 / CALLS as f64;
    assert!((canary - 0.1).abs() < 0.02, "{canary}");
}

#[tokio::test]
async fn a_call_without_a_route_fails_in_grpcs_words_and_so_does_one_without_a_cluster() {
    let backend = Backend::start().await;
    let rest = || vec![cluster("rest", &backend)];
    let other = on("/other.Service/Method", Some(Forward::to("rest")));
    for (routes, failure, message) in [
        (vec![other.clone()], Failure::NoRoute, "checkout.shop: No matching route found in xDS route config"),
        (vec![on(CHECK, None), other], Failure::NoRoute, "checkout.shop: Matching route has inappropriate action"),
    ] {
        let (channel, _source) = over(routing(routes, rest()));
        let status = call(&channel).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (tonic::Code::Unavailable, message));
        assert_eq!(CallError::of(&status).unwrap().failure, failure);
    }
    let why = NoCluster { resource: "Cluster `gone`".into(), reason: "the control plane does not have it".into() };
    let mut missing =
        routing(vec![on(CHECK, Some(Forward::to("gone"))), everything(Some(Forward::to("rest")))], rest());
    missing.clusters.insert("gone".into(), Err(why));
    let (channel, _source) = over(missing);
    let status = call(&channel).await.unwrap_err();
    assert_eq!(status.message(), "checkout.shop: Cluster `gone`: the control plane does not have it");
    assert_eq!(CallError::of(&status).unwrap().failure, Failure::NoEndpoint);
    channel.ready().await.expect("the other cluster is there");
}

#[tokio::test]
async fn a_cluster_that_left_the_routes_finishes_what_it_has() {
    let (old, new) = (Backend::start().await, Backend::start().await);
    old.behaviour.latency.store(300, Relaxed);
    let (channel, source) = over(cluster("old", &old).into());
    let open = tokio::spawn({
        let channel = channel.clone();
        async move { call(&channel).await }
    });
    while old.calls() == 0 {
        tokio::task::yield_now().await;
    }
    source.send_replace(cluster("new", &new).into());
    while channel.balancers().contains_key("old") {
        tokio::task::yield_now().await;
    }
    assert_eq!(call(&channel).await.unwrap().address, new.address);
    assert_eq!(open.await.unwrap().unwrap().address, old.address);
    assert_eq!((old.calls(), new.calls()), (1, 1));
    let names: BTreeMap<_, _> = channel.balancers();
    assert_eq!(names.keys().map(|name| &**name).collect::<Vec<_>>(), ["new"]);
}
