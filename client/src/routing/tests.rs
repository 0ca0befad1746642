//! The routes over clusters without a transport.

use std::borrow::Cow;

use super::*;
use crate::load::LoadRecorder;
use crate::xds::hashing::{HashOn, HashPolicy};
use crate::xds::matching::RouteMatch;
use crate::xds::model::{Assignment, Resolution};
use crate::xds::routing::{Forward, NoRoute, Route, Routing, Share};

struct Call;

impl RequestHead for Call {
    fn path(&self) -> &str {
        "/s/M"
    }
    fn header(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
}

fn split(weights: &[(&str, u32)]) -> Resolution {
    let shares = weights.iter().map(|(name, weight)| Share { cluster: (*name).into(), weight: *weight });
    let forward = Forward { clusters: shares.collect(), ..Forward::to("") };
    let routes = [Route { matches: RouteMatch::everything(), forward: Some(forward) }].into();
    let cluster = |name: &str| Arc::new(Assignment { cluster: name.into(), ..Assignment::default() });
    let clusters = weights.iter().map(|(name, _)| ((*name).into(), Ok(cluster(name)))).collect();
    Resolution::Routing(Arc::new(Routing { routes, clusters, timeout: None }))
}

/// A router that follows what is sent to it, and the task that does so.
fn router(first: Resolution) -> (Arc<Router<()>>, watch::Sender<Resolution>, AbortOnDrop) {
    let (source, resolutions) = watch::channel(first);
    let router = Arc::new(Router::new(7));
    let keeper = Box::new(|_: &_| -> crate::connection::Keep<()> { Box::new(|_, _| ()) });
    let parts = Parts { strategies: Strategies::default(), load: LoadRecorder::new(), seed: 7, subset: None, keeper };
    let task = AbortOnDrop::spawn(follow(resolutions, &router, parts));
    (router, source, task)
}

fn names(router: &Router<()>) -> Vec<String> {
    router.clusters().iter().map(|cluster| cluster.name.to_string()).collect()
}

#[tokio::test]
async fn a_split_is_obeyed() {
    const CALLS: u32 = 400_000;
    let (router, _source, _task) = router(split(&[("stable", 90), ("canary", 10)]));
    let to_canary = (0..CALLS).filter(|_| &*router.route(&Call).unwrap().cluster.name == "canary").count();
    let canary = to_canary as f64 / f64::from(CALLS);
    // Five standard deviations of so many fair draws.
    assert!((canary - 0.1).abs() < 0.0025, "{canary}");
}

#[tokio::test]
async fn a_cluster_that_stays_is_the_same_and_one_that_left_lives_as_long_as_a_call_holds_it() {
    let (router, source, _task) = router(split(&[("a", 1)]));
    let call = router.route(&Call).unwrap();
    let (a, gone) = (Arc::clone(&call.cluster), Arc::downgrade(&call.cluster));
    source.send_replace(split(&[("a", 1), ("b", 1)]));
    while names(&router) != ["a", "b"] {
        tokio::task::yield_now().await;
    }
    assert!(Arc::ptr_eq(&router.clusters()[0], &a), "with its endpoints, connections and counts");
    drop(a);
    source.send_replace(split(&[("b", 1)]));
    while names(&router) != ["b"] {
        tokio::task::yield_now().await;
    }
    assert!(gone.upgrade().is_some(), "the call is not over");
    drop(call);
    assert!(gone.upgrade().is_none());
}

#[tokio::test]
async fn a_call_has_the_hash_that_its_route_says() {
    let hashed = |on: Option<HashOn>| {
        let policies = on.map(|on| HashPolicy { on, terminal: false }).into_iter().collect();
        let assignment = Assignment { cluster: "a".into(), ..Assignment::default() };
        Resolution::Routing(Arc::new(Routing::with(assignment, |forward| forward.hash = policies)))
    };
    let (plain, _source, _task) = router(hashed(None));
    assert_eq!(plain.route(&Call).unwrap().hash, None);
    let absent = HashOn::Header { name: "user".to_owned(), rewrite: None };
    let (by_header, _source, _task) = router(hashed(Some(absent)));
    assert_eq!(by_header.route(&Call).unwrap().hash, None, "the call has no such header");
    let (by_channel, _source, _task) = router(hashed(Some(HashOn::Channel)));
    let one = by_channel.route(&Call).unwrap().hash;
    assert!(one.is_some() && by_channel.route(&Call).unwrap().hash == one);
    assert_ne!(Router::<()>::new(8).channel, by_channel.channel);
}

#[tokio::test]
async fn no_more_calls_are_tried_again_at_once_than_may_be() {
    let limited =
        |max_retries| Resolution::from(Assignment { cluster: "a".into(), max_retries, ..Assignment::default() });
    let (router, source, _task) = router(limited(Some(2)));
    let cluster = router.route(&Call).unwrap().cluster;
    let first = cluster.retry().unwrap();
    let _second = cluster.retry().unwrap();
    assert!(cluster.retry().is_none());
    drop(first);
    let _third = cluster.retry().unwrap();
    assert!(cluster.retry().is_none());
    source.send_replace(limited(None));
    while cluster.retry().is_none() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn calls_wait_for_the_first_routes_alone() {
    let (router, source, _task) = router(Resolution::Pending);
    assert_eq!(router.route(&Call).unwrap_err(), RoutingError::Pick(PickError::NoAssignment));
    let waiting = tokio::spawn({
        let router = Arc::clone(&router);
        async move { router.routed(&Call).await.map(|routed| routed.cluster.name.to_string()) }
    });
    tokio::task::yield_now().await;
    source.send_replace(split(&[("a", 1)]));
    assert_eq!(waiting.await.unwrap().as_deref(), Ok("a"));

    let nowhere = Routing { routes: [].into(), ..Assignment::default().into() };
    source.send_replace(Resolution::Routing(Arc::new(nowhere)));
    while router.route(&Call).is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(router.routed(&Call).await.unwrap_err(), RoutingError::Route(NoRoute::NoMatch));
}
