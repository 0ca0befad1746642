//! A backend in a process of its own that is stopped (SIGSTOP): its kernel goes on accepting, and nobody answers.

use std::io::Read as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use portolan_client::channel::{CallError, Channel, Failure, Picked};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

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
        let picked = hedged(&channel, 200).await.unwrap();
        assert_eq!(picked.address, backend.address);
        second += u32::from(picked.attempts == 2);
    }
    assert!(second > 0, "nobody asked the stopped one");
}
