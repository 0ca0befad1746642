//! The Rust client on a real stream, over real sockets: it follows a policy while it makes calls.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use portolan_client::Channel;
use portolan_client::channel::Picked;
use portolan_client::xds::bootstrap::{Bootstrap, Origin};
use portolan_topology::policy::{EffectivePolicy, Strategy};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Request;
use tonic::transport::Server;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::harness::Plane;
use crate::catalog::served::Served;
use crate::resources::fixtures::served;
use crate::xds::server::transport;

#[expect(clippy::disallowed_methods, reason = "the test's own servers listen on real loopback sockets")]
async fn listen() -> (SocketAddr, TcpListenerStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), TcpListenerStream::new(listener))
}

async fn backend() -> String {
    let (address, incoming) = listen().await;
    let (_reporter, service) = tonic_health::server::health_reporter();
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    address.to_string()
}

async fn call(channel: &Channel, session: &str) -> SocketAddr {
    let mut request = Request::new(HealthCheckRequest::default());
    request.metadata_mut().insert("x-session", session.parse().unwrap());
    let response = HealthClient::new(channel.clone()).check(request).await.unwrap();
    response.extensions().get::<Picked>().unwrap().address
}

/// Where each of some sessions went in several calls.
async fn places(channel: &Channel) -> BTreeMap<String, BTreeSet<SocketAddr>> {
    let mut places: BTreeMap<String, BTreeSet<SocketAddr>> = BTreeMap::new();
    for _ in 0..8 {
        for session in (0..20).map(|i| format!("session-{i}")) {
            let at = call(channel, &session).await;
            places.entry(session).or_default().insert(at);
        }
    }
    places
}

#[tokio::test]
async fn it_sends_one_session_to_one_endpoint_as_soon_as_a_policy_says_so() {
    let plane = Plane::start();
    let (address, incoming) = listen().await;
    tokio::spawn(transport().add_service(plane.server.aggregated()).serve_with_incoming(incoming));
    let backends = [backend().await, backend().await, backend().await];
    let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
    let under = |strategy: Strategy| {
        let Served::Present(service) = served(&backends) else { unreachable!("it is made so") };
        let hash_header = strategy.keyed_by().map(|_| "x-session".to_owned());
        let policy = EffectivePolicy { strategy, hash_header, ..EffectivePolicy::default() };
        let mut service = Arc::unwrap_or_clone(service);
        service.policy = Arc::new(policy);
        Served::Present(Arc::new(service))
    };
    plane.catalog.say("checkout.shop", &under(Strategy::LeastRequest));
    let bootstrap = format!(
        r#"{{"xds_servers": [{{"server_uri": "{address}", "channel_creds": [{{"type": "insecure"}}]}}],
            "node": {{"id": "test", "cluster": "use1-a", "locality": {{"region": "us-east", "zone": "a"}}}}}}"#
    );
    let bootstrap = Bootstrap::parse(&bootstrap, Origin::Variable).unwrap();
    let channel = Channel::builder("xds:///checkout.shop").bootstrap(bootstrap).seed(7).build().unwrap();
    channel.ready().await.unwrap();
    let anywhere = places(&channel).await;
    assert!(anywhere.values().any(|at| at.len() > 1), "it goes by load: {anywhere:?}");
    let balancers = channel.balancers();
    for strategy in [Strategy::RingHash, Strategy::Maglev] {
        plane.catalog.say("checkout.shop", &under(strategy));
        while !format!("{:?}", channel.balancers()).contains(&format!("Erased({}", strategy.as_str())) {
            call(&channel, "meanwhile").await;
        }
        let kept = places(&channel).await;
        assert!(kept.values().all(|at| at.len() == 1), "{strategy:?}: {kept:?}");
        assert!(kept.values().flatten().collect::<BTreeSet<_>>().len() > 1, "{strategy:?}: {kept:?}");
    }
    assert!(balancers.iter().all(|(name, balancer)| Arc::ptr_eq(balancer, &channel.balancers()[name])));
}
