//! A backend in a process of its own that is stopped (SIGSTOP): its kernel goes on accepting, and nobody answers.

use std::io::Read as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use portolan_client::balancer::LeastRequest;
use portolan_client::channel::{CallError, Channel, Failure, Picked};
use portolan_client::http::BalanceLayer;
use portolan_client::load::LoadRecorder;
use portolan_client::xds::model::Resolution;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tower::{Layer as _, ServiceExt as _};

use crate::hedges::hedged;
use crate::support::{Backend, assignment, balancer, call, channel, connected, locality};

/// The test below that is the process.
const PROGRAM: &str = "stopped::the_process_that_is_stopped";
const LISTENING: &str = "listening on ";

/// Killed when this is dropped.
struct Process {
    child: Child,
    address: SocketAddr,
    /// What else it says: were nobody there to hear it, it would end.
    _lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    async fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([PROGRAM, "--exact", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().expect("the process says where it listens");
            if let Some((_, address)) = line.split_once(LISTENING) {
                break address.parse().unwrap();
            }
        };
        Self { child, address, _lines: lines }
    }

    async fn signal(&self, signal: &str) {
        let id = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args([signal, &id]).status().await.unwrap().success());
    }
}

#[tokio::test]
#[ignore = "not a test but the process that the other one starts; it serves until its standard input ends"]
async fn the_process_that_is_stopped() {
    let backend = Backend::start_at(SocketAddr::from(([127, 10, 0, 1], 0))).await;
    println!("{LISTENING}{}", backend.address);
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
}

/// One request over HTTP: who answered it in time, if anybody.
async fn get<S, R>(client: &S) -> Option<SocketAddr>
where
    S: tower::Service<http::Request<Empty<Bytes>>, Response = http::Response<R>, Error: std::fmt::Debug> + Clone,
{
    let request = http::Request::get("http://checkout.shop/cart").body(Empty::new()).unwrap();
    let answer = tokio::time::timeout(Duration::from_millis(200), client.clone().oneshot(request)).await;
    Some(answer.ok()?.unwrap().extensions().get::<Picked>().unwrap().address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_layer_for_http_learns_of_a_stopped_process() {
    let (process, backend) = (Process::start().await, Backend::start().await);
    let addresses = [process.address, backend.address];
    let assignment = assignment(vec![vec![locality("a", 1, &addresses)]]);
    let (_source, resolutions) = tokio::sync::watch::channel(Resolution::from(assignment));
    let layer = BalanceLayer::over("checkout.shop", resolutions, LeastRequest, LoadRecorder::new(), 1);
    // A gRPC server answers a path that it does not know, too.
    let client = layer.layer(Client::builder(TokioExecutor::new()).http2_only(true).build_http());
    let asked = async { while get(&client).await != Some(process.address) {} };
    tokio::time::timeout(Duration::from_secs(40), asked).await.expect("both answer");
    process.signal("-STOP").await;
    // Whoever asks it waits in vain; soon hardly anybody does.
    let left_out = async {
        let mut in_a_row = 0;
        while in_a_row < 50 {
            in_a_row = if get(&client).await == Some(backend.address) { in_a_row + 1 } else { 0 };
        }
    };
    tokio::time::timeout(Duration::from_secs(40), left_out).await.expect("it is left out");
}

/// Calls until this endpoint has answered one; none may fail.
async fn asked(channel: &Channel, address: SocketAddr) {
    let until = async { while call(channel).await.unwrap().address != address {} };
    let done = tokio::time::timeout(Duration::from_secs(40), until).await;
    assert!(done.is_ok(), "{address} is not asked: {}", channel.explain());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_process_is_left_out_and_taken_back_when_it_goes_on() {
    let (process, backend) = (Process::start().await, Backend::start().await);
    let addresses = [process.address, backend.address];
    let (channel, _source) = channel(assignment(vec![vec![locality("a", 1, &addresses)]]), 2).await;
    asked(&channel, process.address).await;
    process.signal("-STOP").await;
    // Few at once, so that its failures are not enough to eject it: what leaves it out is its connection alone.
    let failed = loop {
        let calls = futures::future::join_all((0..4).map(|_| call(&channel))).await;
        let failed: Vec<_> = calls.into_iter().filter_map(Result::err).collect();
        if !failed.is_empty() {
            break failed;
        }
    };
    for status in &failed {
        assert_eq!(CallError::of(status).unwrap().failure, Failure::Broken, "{status:?}");
        assert_eq!(Picked::of(status).unwrap().address, process.address);
    }
    connected(&channel, 1).await;
    for _ in 0..100 {
        assert_eq!(call(&channel).await.unwrap().address, backend.address);
    }
    process.signal("-CONT").await;
    connected(&channel, 2).await;
    asked(&channel, process.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_with_a_second_attempt_do_not_notice_a_stopped_process() {
    let (process, backend) = (Process::start().await, Backend::start().await);
    let addresses = [process.address, backend.address];
    let (channel, _source) = channel(assignment(vec![vec![locality("a", 1, &addresses)]]), 2).await;
    asked(&channel, process.address).await;
    process.signal("-STOP").await;
    // Until its connection is given up, which takes two seconds: ten second attempts at most, as many as are saved.
    let mut second = 0;
    while balancer(&channel).wanted().iter().all(|endpoint| endpoint.transport().is_connected()) {
        // Its last answer may still have been under way.
        let picked = hedged(&channel, 200).await.unwrap();
        second += u32::from(picked.attempts == 2);
    }
    assert!(second > 0, "nobody asked the stopped one");
}
