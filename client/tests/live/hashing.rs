//! Calls of one key go to one endpoint, and a cluster that shares calls in another way keeps its connections.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use portolan_client::Channel;
use portolan_client::channel::{Picked, RequestHints};
use portolan_client::xds::balancing::{Balancing, Lookup, Ring, Weighting};
use portolan_client::xds::hashing::{HashOn, HashPolicy};
use portolan_client::xds::model::{Assignment, Resolution};
use portolan_client::xds::routing::Routing;
use tonic::Request;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{Backend, assignment, call, channel, connected, locality};

async fn call_of(channel: &Channel, user: &str, hint: Option<u64>) -> SocketAddr {
    let mut request = Request::new(HealthCheckRequest::default());
    request.metadata_mut().insert("x-user", user.parse().unwrap());
    request.extensions_mut().insert(RequestHints { hash: hint, ..RequestHints::default() });
    let response = HealthClient::new(channel.clone()).check(request).await.unwrap();
    response.extensions().get::<Picked>().unwrap().address
}

fn by_user(assignment: Assignment) -> Routing {
    let on = HashOn::Header { name: "x-user".to_owned(), rewrite: None };
    Routing::with(assignment, |forward| forward.hash = vec![HashPolicy { on, terminal: true }])
}

async fn places(channel: &Channel) -> BTreeMap<String, SocketAddr> {
    let mut places = BTreeMap::new();
    for user in (0..60).map(|i| format!("user-{i}")) {
        let at = call_of(channel, &user, None).await;
        assert_eq!(call_of(channel, &user, None).await, at, "{user}");
        places.insert(user, at);
    }
    places
}

#[tokio::test]
async fn one_header_is_one_endpoint_until_that_is_gone() {
    let mut backends = Backend::start_many(5).await;
    let addresses: Vec<SocketAddr> = backends.iter().map(|backend| backend.address).collect();
    for balancing in [Balancing::RingHash(Ring::default()), Balancing::Maglev(Lookup::default())] {
        let alive: Vec<SocketAddr> = backends.iter().map(|backend| backend.address).collect();
        let hashed = Assignment { balancing: vec![balancing], ..assignment(vec![vec![locality("a", 1, &addresses)]]) };
        let (channel, _source) = channel(by_user(hashed), alive.len()).await;
        let before = places(&channel).await;
        assert_eq!(before.values().collect::<BTreeSet<_>>().len(), alive.len(), "all of them have some");
        let hinted = call_of(&channel, "user-1", Some(9)).await;
        assert_eq!(call_of(&channel, "user-2", Some(9)).await, hinted, "the application's own key goes before");
        let mut gone = backends.pop().unwrap();
        gone.kill().await;
        connected(&channel, alive.len() - 1).await;
        let after = places(&channel).await;
        // Maglev moves a few whose endpoint stayed.
        let moved = after.iter().filter(|(user, at)| before[*user] != **at && before[*user] != gone.address).count();
        assert!(moved <= 6, "{moved} of 60 moved whose endpoint stayed");
    }
}

#[tokio::test]
async fn another_strategy_has_the_same_connections_and_nobody_waits() {
    let backends = Backend::start_many(3).await;
    let addresses: Vec<SocketAddr> = backends.iter().map(|backend| backend.address).collect();
    // A call that would wait fails.
    let shared = |balancing| Assignment {
        balancing: vec![balancing],
        max_pending_requests: Some(0),
        ..assignment(vec![vec![locality("a", 1, &addresses)]])
    };
    let accepted = || backends.iter().map(|backend| backend.behaviour.accepted.load(Relaxed)).sum::<u64>();
    let (channel, source) = channel(by_user(shared(Balancing::LeastRequest)), 3).await;
    let before = accepted();
    backends.iter().for_each(|backend| backend.behaviour.latency.store(20, Relaxed));
    for balancing in [
        Balancing::RingHash(Ring::default()),
        Balancing::RequestCost,
        Balancing::WeightedRoundRobin(Weighting::default()),
        Balancing::Maglev(Lookup::default()),
        Balancing::LeastRequest,
        Balancing::PeakEwma,
    ] {
        let open: Vec<_> = (0..6)
            .map(|_| {
                tokio::spawn({
                    let channel = channel.clone();
                    async move { call(&channel).await }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let last = channel.balancers();
        source.send_replace(Resolution::Routing(Arc::new(by_user(shared(balancing.clone())))));
        let name = format!("{balancing:?}").split('(').next().unwrap().to_owned();
        while !format!("{:?}", channel.balancers()).contains(&name) && balancing != Balancing::LeastRequest {
            call(&channel).await.unwrap();
        }
        for call in open {
            call.await.unwrap().unwrap();
        }
        for _ in 0..30 {
            call(&channel).await.unwrap();
        }
        assert!(Arc::ptr_eq(&last["checkout"], &channel.balancers()["checkout"]));
        assert_eq!(accepted(), before, "{balancing:?}");
    }
}
