//! A service that lives on while all its endpoints are replaced, and one some of whose endpoints never work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use portolan_client::Channel;
use tokio::net::{TcpListener, TcpSocket};
use tonic::Status;

use crate::support::{Backend, any_port, assignment, balancer, call, channel, connected, listen, locality};

/// Calls without pause on several tasks until told to stop; how many were made, and those that failed.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<(u64, Vec<Status>)>>,
}

impl Load {
    fn start(channel: &Channel, tasks: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let one = |_| {
            let (channel, stop) = (channel.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let (mut calls, mut failed) = (0, Vec::new());
                while !stop.load(SeqCst) {
                    calls += 1;
                    failed.extend(call(&channel).await.err());
                }
                (calls, failed)
            })
        };
        Self { tasks: (0..tasks).map(one).collect(), stop }
    }

    async fn end(self) -> (u64, Vec<Status>) {
        self.stop.store(true, SeqCst);
        let mut all = (0, Vec::new());
        for ended in futures::future::join_all(self.tasks).await {
            let (calls, failed) = ended.unwrap();
            all.0 += calls;
            all.1.extend(failed);
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_all_endpoints_fails_no_call() {
    let mut backends = Backend::start_many(4).await;
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let (channel, _source) = channel(assignment(vec![vec![locality("a", 1, &addresses)]]), 4).await;
    let load = Load::start(&channel, 6);
    for at in 0..backends.len() {
        // As a process does at SIGTERM: it says goodbye, ends what is open, and is gone.
        backends[at].leave();
        connected(&channel, 3).await;
        let endpoints = balancer(&channel).wanted();
        let endpoint = endpoints.iter().find(|endpoint| endpoint.address() == addresses[at]).unwrap();
        while endpoint.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
        backends[at].kill().await;
        backends[at] = Backend::start_at(addresses[at]).await;
        connected(&channel, 4).await;
        while backends[at].calls() < 20 {
            tokio::task::yield_now().await;
        }
    }
    let (calls, failed) = load.end().await;
    assert!(failed.is_empty(), "{} of {calls}: {:?}", failed.len(), failed.first());
}

/// Accepts, and resets the connection at once.
async fn resetting() -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener: TcpListener = listen(any_port()).await;
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            socket.set_zero_linger().unwrap();
            drop(socket);
        }
    });
    (address, task)
}

#[tokio::test]
async fn endpoints_that_refuse_or_reset_connections_cost_no_call() {
    // Held but not listened on, so that no other test's server comes to listen there.
    let held = TcpSocket::new_v4().unwrap();
    held.bind(any_port()).unwrap();
    let refusing = held.local_addr().unwrap();
    let (resetting, task) = resetting().await;
    let backend = Backend::start().await;
    let addresses = [refusing, resetting, backend.address];
    let (channel, _source) = channel(assignment(vec![vec![locality("a", 1, &addresses)]]), 1).await;
    for _ in 0..200 {
        assert_eq!(call(&channel).await.unwrap().address, backend.address);
    }
    let explained = channel.explain();
    assert_eq!((explained.clusters[0].localities[0].usable, explained.clusters[0].localities[0].healthy), (1, 3));
    assert_eq!(explained.last.unwrap().picked.address, backend.address);
    task.abort();
}

#[tokio::test]
async fn an_explanation_reads_as_a_table_and_a_sentence() {
    let (near, far) = (Backend::start().await, Backend::start().await);
    let tiers = vec![vec![locality("near", 1, &[near.address])], vec![locality("far", 1, &[far.address])]];
    let (channel, _source) = channel(assignment(tiers), 2).await;
    assert!(channel.explain().to_string().ends_with("nothing was picked yet"));
    call(&channel).await.unwrap();
    let text = channel.explain().to_string();
    let wanted = format!(
        "\
checkout.shop
PRIORITY  LOCALITY                USABLE   SHARE  BECAUSE
       0  region/near/cluster        1/1  100.0%  its weight in the highest priority that is alive
       1  region/far/cluster         1/1    0.0%  a higher priority takes everything
last pick: {} in region/near/cluster, priority 0, attempt 1: 1 in flight; compared with no other",
        near.address
    );
    assert_eq!(text, wanted);
}
