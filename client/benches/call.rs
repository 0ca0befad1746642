//! What a unary call through the balancing channel costs, against a bare tonic channel to the same server, interleaved.
//!
//! The server has a thread of its own. Latency is that of calls one after another, throughput that of 64 at a time. Prints
//! a table and, as its last line, one JSON object.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time, over real loopback sockets")]

use std::net::SocketAddr;
use std::time::Instant;

use portolan_client::channel::Options;
use portolan_client::xds::model::{AssignedEndpoint, Assignment, EndpointHealth, LocalityEndpoints, Resolution};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::transport::Endpoint;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::Service;

const ROUNDS: usize = 7;
const CALLS: usize = 4000;
const AT_ONCE: usize = 64;
const EACH: usize = 150;

/// One side's round: median microseconds of a call, and calls a second.
struct Round {
    p50: f64,
    throughput: f64,
}

async fn round<C>(client: &HealthClient<C>) -> Round
where
    C: Service<http::Request<Body>, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Clone + Send + 'static,
    C: tonic::client::GrpcService<Body, Future: Send, ResponseBody: http_body::Body<Data = bytes::Bytes> + Send>,
    <C as tonic::client::GrpcService<Body>>::ResponseBody: 'static,
    <<C as tonic::client::GrpcService<Body>>::ResponseBody as http_body::Body>::Error:
        Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let mut one = client.clone();
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let start = Instant::now();
        one.check(HealthCheckRequest::default()).await.expect("the server answers");
        times.push(start.elapsed().as_nanos() as f64 / 1000.0);
    }
    let start = Instant::now();
    let many = (0..AT_ONCE).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move {
            for _ in 0..EACH {
                client.check(HealthCheckRequest::default()).await.expect("the server answers");
            }
        })
    });
    for task in many.collect::<Vec<_>>() {
        task.await.expect("no call panics");
    }
    let throughput = (AT_ONCE * EACH) as f64 / start.elapsed().as_secs_f64();
    Round { p50: median(times), throughput }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A health server in a thread of its own.
fn server() -> SocketAddr {
    let (listening, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
            listening.send(listener.local_addr().expect("an address")).expect("somebody waits");
            let (_, health) = tonic_health::server::health_reporter();
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            tonic::transport::Server::builder().add_service(health).serve_with_incoming(incoming).await
        })
    });
    address.recv().expect("the server listens")
}

async fn ours(address: SocketAddr) -> (portolan_client::Channel, watch::Sender<Resolution>) {
    let endpoint = AssignedEndpoint { address, weight: 1, health: EndpointHealth::Healthy };
    let locality = LocalityEndpoints { locality: Default::default(), weight: 1, endpoints: vec![endpoint] };
    let assignment = Assignment {
        cluster: "bench".into(),
        priorities: vec![vec![locality]],
        max_requests: Some(100_000),
        ..Assignment::default()
    };
    let (source, resolutions) = watch::channel(Resolution::from(assignment));
    let channel = portolan_client::Channel::over("bench", resolutions, Options::new(1));
    channel.ready().await.expect("the server is up");
    (channel, source)
}

fn main() {
    let address = server();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let (channel, _source) = ours(address).await;
        let ours = HealthClient::new(channel);
        let bare = Endpoint::from_shared(format!("http://{address}")).expect("a URI").tcp_nodelay(true);
        let bare = HealthClient::new(bare.connect().await.expect("the server is up"));
        round(&ours).await;
        round(&bare).await;
        let mut rounds = Vec::new();
        for i in 0..ROUNDS {
            // Who goes first changes, since the machine may slow down or speed up within a round.
            let pair = if i % 2 == 0 {
                let ours = round(&ours).await;
                (ours, round(&bare).await)
            } else {
                let bare = round(&bare).await;
                (round(&ours).await, bare)
            };
            rounds.push(pair);
        }
        let of = |value: &dyn Fn(&(Round, Round)) -> f64| median(rounds.iter().map(value).collect());
        let (p50, bare_p50) = (of(&|(ours, _)| ours.p50), of(&|(_, bare)| bare.p50));
        let (rate, bare_rate) = (of(&|(ours, _)| ours.throughput), of(&|(_, bare)| bare.throughput));
        let p50_ratio = of(&|(ours, bare)| ours.p50 / bare.p50);
        let throughput_ratio = of(&|(ours, bare)| ours.throughput / bare.throughput);
        println!("{:>10} {:>10} {:>12}", "", "P50 µs", "CALLS/s");
        println!("{:>10} {p50:>10.1} {rate:>12.0}", "portolan");
        println!("{:>10} {bare_p50:>10.1} {bare_rate:>12.0}", "tonic");
        println!("{:>10} {p50_ratio:>10.3} {throughput_ratio:>12.3}", "ratio");
        println!("{}", serde_json::json!({"p50_ratio": p50_ratio, "throughput_ratio": throughput_ratio}));
    });
}
