//! The layer around hyper's client, against hyper servers.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portolan_client::balancer::{Balancer, LeastRequest};
use portolan_client::channel::Picked;
use portolan_client::http::{BalanceLayer, HttpError, Probe};
use portolan_client::load::LoadRecorder;
use portolan_client::xds::model::{Assignment, Resolution};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tower::{Layer, ServiceExt};

use crate::support::{any_port, assignment, listen, locality};

/// Answers with this status, and with the host that it was asked for.
async fn server(status: StatusCode) -> (SocketAddr, AbortHandle) {
    let listener = listen(any_port()).await;
    let address = listener.local_addr().unwrap();
    let answer = move |request: Request<Incoming>| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        Ok::<_, std::convert::Infallible>(
            Response::builder().status(status).body(Full::new(Bytes::from(host))).unwrap(),
        )
    };
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), hyper::service::service_fn(answer));
            connections.spawn(connection);
        }
    });
    (address, task.abort_handle())
}

fn layer(assignment: Assignment) -> (BalanceLayer, watch::Sender<Resolution>) {
    let (source, resolutions) = watch::channel(Resolution::from(assignment));
    (BalanceLayer::over("checkout.shop", resolutions, LeastRequest, LoadRecorder::new(), 1), source)
}

fn balancer(layer: &BalanceLayer) -> Arc<Balancer<Probe>> {
    layer.balancers().into_values().next().unwrap()
}

fn get() -> Request<Empty<Bytes>> {
    Request::get("/cart").body(Empty::new()).unwrap()
}

#[tokio::test]
async fn requests_are_balanced_and_keep_their_host() {
    let servers = [server(StatusCode::OK).await, server(StatusCode::OK).await];
    let addresses = servers.each_ref().map(|(address, _)| *address);
    let (layer, _source) = layer(assignment(vec![vec![locality("a", 1, &addresses)]]));
    let client = layer.layer(Client::builder(TokioExecutor::new()).build_http());
    let mut seen = std::collections::HashMap::<_, u32>::new();
    let mut held = Vec::new();
    for _ in 0..40 {
        let response = client.clone().oneshot(get()).await.unwrap();
        *seen.entry(response.extensions().get::<Picked>().unwrap().address).or_default() += 1;
        held.push(response);
    }
    assert_eq!(balancer(&layer).wanted().iter().map(|e| e.in_flight()).sum::<u32>(), 40, "until a body is read");
    for response in held {
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "checkout.shop");
    }
    // The first few may have gone where a connection could be made first.
    assert!(seen.values().all(|n| (15..=25).contains(n)), "{seen:?}");
    let endpoints = balancer(&layer).wanted();
    assert!(endpoints.iter().all(|endpoint| endpoint.in_flight() == 0));
    assert_eq!(endpoints.iter().map(|endpoint| endpoint.outcomes().0).sum::<u64>(), 40);
}

#[tokio::test]
async fn a_servers_errors_are_counted_and_a_dead_endpoint_is_left_alone() {
    let (failing, _task) = server(StatusCode::INTERNAL_SERVER_ERROR).await;
    let (dying, task) = server(StatusCode::OK).await;
    let (layer, _source) = layer(assignment(vec![vec![locality("a", 1, &[failing, dying])]]));
    let client = layer.layer(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http());
    let mut changes = balancer(&layer).changes();
    let usable = || balancer(&layer).explain(tokio::time::Instant::now()).first().map_or(0, |line| line.usable);
    while usable() < 2 {
        changes.changed().await.unwrap();
    }
    task.abort();
    let mut refused = 0;
    for _ in 0..100 {
        match client.clone().oneshot(get()).await {
            Ok(response) => assert_eq!(response.extensions().get::<Picked>().unwrap().address, failing),
            Err(HttpError::Client { address, .. }) => {
                assert_eq!(address, dying);
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused <= 3, "one request finds out, the others go elsewhere: {refused}");
    let failed = balancer(&layer).wanted().iter().find(|e| e.address() == failing).unwrap().outcomes().1;
    assert!(failed >= 97, "{failed}");
}

#[tokio::test]
async fn a_service_without_endpoints_says_so_at_once() {
    let (layer, _source) = layer(assignment(Vec::new()));
    let client = layer.layer(Client::builder(TokioExecutor::new()).build_http());
    let error = client.oneshot(get()).await.unwrap_err();
    assert_eq!(error.to_string(), "checkout.shop: cluster checkout: no healthy endpoint among 0");
}
