//! Endpoints that die, hang, leave and come back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portolan_client::channel::{CallError, CallObserver, Channel, Failure, Picked};
use portolan_client::xds::model::{EndpointHealth, Resolution};
use tokio::io::copy_bidirectional;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{Backend, any_port, assignment, call, channel, connected, listen, locality};

/// Before, during and after a kill.
const BEFORE: u8 = 0;
const AFTER: u8 = 2;

/// Calls, each with whether it was open during the kill.
type Calls = Vec<(bool, Result<Picked, Status>)>;

/// Calls without pause on several tasks until told to stop; each tells whether it was open during the kill.
struct Load {
    stop: Arc<AtomicBool>,
    phase: Arc<AtomicU8>,
    tasks: Vec<tokio::task::JoinHandle<Calls>>,
}

impl Load {
    fn start(channel: &Channel, tasks: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let phase = Arc::new(AtomicU8::new(BEFORE));
        let one = |_| {
            let (channel, stop, phase) = (channel.clone(), Arc::clone(&stop), Arc::clone(&phase));
            tokio::spawn(async move {
                let mut calls = Vec::new();
                while !stop.load(SeqCst) {
                    let opened = phase.load(SeqCst);
                    let outcome = call(&channel).await;
                    let open_during = opened != AFTER && phase.load(SeqCst) != BEFORE;
                    calls.push((open_during, outcome));
                }
                calls
            })
        };
        Self { tasks: (0..tasks).map(one).collect(), stop, phase }
    }

    async fn end(self) -> Calls {
        self.stop.store(true, SeqCst);
        let calls = futures::future::join_all(self.tasks).await;
        calls.into_iter().flat_map(Result::unwrap).collect()
    }
}

/// Waits until `calls` more calls have been made to a backend.
async fn served(backend: &Backend, calls: u64) {
    let until = backend.calls() + calls;
    while backend.calls() < until {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_priority_fails_no_call_but_those_open_at_the_kill_and_returns_as_a_ramp() {
    let mut near = Backend::start_many(2).await;
    let far = Backend::start().await;
    let (a, b) = (near[0].address, near[1].address);
    let tiers = vec![vec![locality("near", 1, &[a, b])], vec![locality("far", 1, &[far.address])]];
    let (channel, _source) = channel(assignment(tiers), 3).await;
    let load = Load::start(&channel, 8);
    served(&near[0], 50).await;
    served(&near[1], 50).await;
    assert_eq!(far.calls(), 0);
    load.phase.store(1, SeqCst);
    for backend in &mut near {
        backend.kill().await;
    }
    load.phase.store(AFTER, SeqCst);
    served(&far, 200).await;
    let calls = load.end().await;
    let failed: Vec<_> = calls.iter().filter(|(_, outcome)| outcome.is_err()).collect();
    assert!(failed.iter().all(|(open_during, _)| *open_during), "{failed:?}");
    for status in failed.iter().filter_map(|(_, outcome)| outcome.as_ref().err()) {
        assert_eq!(CallError::of(status).unwrap().failure, Failure::Broken, "{status:?}");
        let address = Picked::of(status).unwrap().address;
        assert!(address == a || address == b);
    }

    // They are back: nothing at first, then step by step, then everything.
    let _back = (Backend::start_at(a).await, Backend::start_at(b).await);
    let mut shares: Vec<f64> = Vec::new();
    while shares.last() != Some(&1.0) {
        let calls = futures::future::join_all((0..8).map(|_| async {
            let mut near = 0;
            for _ in 0..20 {
                near += u32::from(call(&channel).await.unwrap().priority == 0);
            }
            near
        }));
        shares.push(f64::from(calls.await.iter().sum::<u32>()) / 160.0);
    }
    assert_eq!(shares[0], 0.0, "held down: {shares:?}");
    let mut steps: Vec<u32> = shares.iter().map(|share| (share * 10.0) as u32).collect();
    steps.sort_unstable();
    steps.dedup();
    assert!(steps.len() >= 5, "a ramp: {shares:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_goodbye_costs_no_call() {
    let mut backends = Backend::start_many(2).await;
    let (a, b) = (backends[0].address, backends[1].address);
    let (channel, _source) = channel(assignment(vec![vec![locality("a", 1, &[a, b])]]), 2).await;
    let load = Load::start(&channel, 8);
    for _ in 0..3 {
        served(&backends[0], 50).await;
        backends[0].leave();
        served(&backends[1], 100).await;
        backends[0].kill().await;
        backends[0] = Backend::start_at(a).await;
        connected(&channel, 2).await;
    }
    let calls = load.end().await;
    let failed: Vec<_> = calls.iter().filter_map(|(_, outcome)| outcome.as_ref().err()).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test]
async fn the_only_endpoint_restarts_and_callers_wait_for_it_or_are_told() {
    let mut backend = Backend::start().await;
    let (channel, _source) = channel(assignment(vec![vec![locality("a", 1, &[backend.address])]]), 1).await;
    backend.kill().await;
    connected(&channel, 0).await;
    let status = loop {
        match call(&channel).await {
            Err(status) if CallError::of(&status).unwrap().failure == Failure::NoEndpoint => break status,
            _ => {}
        }
    };
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let start = format!(
        "checkout.shop: cluster checkout: connections to all 1 backends failing; last error: {}",
        backend.address
    );
    assert!(status.message().starts_with(&start), "{status:?}");
    let restarted = Instant::now();
    let _back = Backend::start_at(backend.address).await;
    connected(&channel, 1).await;
    assert!(restarted.elapsed() < Duration::from_secs(3), "{:?}", restarted.elapsed());
    call(&channel).await.unwrap();
}

#[tokio::test]
async fn who_accepts_and_says_nothing_is_never_picked() {
    let silent = listen(any_port()).await;
    let backend = Backend::start().await;
    let addresses = [silent.local_addr().unwrap(), backend.address];
    let (channel, _source) = channel(assignment(vec![vec![locality("a", 1, &addresses)]]), 1).await;
    for _ in 0..50 {
        assert_eq!(call(&channel).await.unwrap().address, backend.address);
    }
}

/// A way to a backend that can be frozen: then nothing passes, and nothing is closed, as with a stopped process.
async fn freezer(backend: SocketAddr) -> (SocketAddr, watch::Sender<bool>) {
    let listener = listen(any_port()).await;
    let address = listener.local_addr().unwrap();
    let (freeze, frozen) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut frozen = frozen.clone();
            tokio::spawn(async move {
                #[expect(clippy::disallowed_methods, reason = "the tests' own proxy uses real loopback sockets")]
                let mut far = tokio::net::TcpStream::connect(backend).await.unwrap();
                tokio::select! {
                    // A frozen peer lets not even the first bytes of a new connection through.
                    biased;
                    _ = frozen.wait_for(|frozen| *frozen) => {}
                    _ = copy_bidirectional(&mut near, &mut far) => return,
                }
                // Hold both ends open for good.
                std::future::pending::<()>().await;
            });
        }
    });
    (address, freeze)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_peer_is_given_up_within_seconds() {
    let backends = Backend::start_many(2).await;
    let (hangs, freeze) = freezer(backends[0].address).await;
    let addresses = [hangs, backends[1].address];
    let (channel, _source) = channel(assignment(vec![vec![locality("a", 1, &addresses)]]), 2).await;
    call(&channel).await.unwrap();
    freeze.send_replace(true);
    let start = Instant::now();
    // Callers that give up early must not keep the peer's death from being noticed.
    let picked: Arc<Mutex<Vec<Picked>>> = Arc::default();
    let calls = futures::future::join_all((0..40).map(|i| {
        let (mut client, picked) = (HealthClient::new(channel.clone()), Arc::clone(&picked));
        async move {
            let mut request = Request::new(HealthCheckRequest::default());
            request.extensions_mut().insert(CallObserver::new(move |to| picked.lock().unwrap().push(to.clone())));
            if i % 2 == 0 {
                request.set_timeout(Duration::from_millis(300));
            }
            client.check(request).await
        }
    }));
    let failed: Vec<_> = calls.await.into_iter().filter_map(Result::err).collect();
    let took = start.elapsed();
    assert!(took > Duration::from_millis(1900) && took < Duration::from_secs(5), "{took:?}");
    let to_hung = picked.lock().unwrap().iter().filter(|picked| picked.address == hangs).count();
    assert_eq!(failed.len(), to_hung);
    let failures: Vec<_> = failed.iter().map(|status| CallError::of(status).unwrap().failure).collect();
    assert!(failures.contains(&Failure::Broken) && failures.contains(&Failure::Deadline), "{failures:?}");
    assert!(failed.iter().all(|status| Picked::of(status).unwrap().address == hangs));
    for _ in 0..50 {
        assert_eq!(call(&channel).await.unwrap().address, backends[1].address);
    }
}

#[tokio::test]
async fn a_slow_answer_is_waited_for() {
    let backend = Backend::start().await;
    backend.behaviour.latency.store(3500, SeqCst);
    let (channel, _source) = channel(assignment(vec![vec![locality("a", 1, &[backend.address])]]), 1).await;
    call(&channel).await.unwrap();
    assert_eq!(backend.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_whose_health_flips_fast_is_connected_in_the_end() {
    let backend = Backend::start().await;
    let healthy = assignment(vec![vec![locality("a", 1, &[backend.address])]]);
    let mut unhealthy = healthy.clone();
    unhealthy.priorities[0][0].endpoints[0].health = EndpointHealth::Unhealthy;
    let (channel, source) = channel(healthy.clone(), 1).await;
    for _ in 0..50 {
        source.send_replace(Resolution::from(unhealthy.clone()));
        tokio::task::yield_now().await;
        source.send_replace(Resolution::from(healthy.clone()));
        tokio::task::yield_now().await;
    }
    connected(&channel, 1).await;
    channel.ready().await.unwrap();
    call(&channel).await.unwrap();
}
