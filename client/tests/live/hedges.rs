//! Second attempts beside slow first ones.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::future::join_all;
use portolan_client::channel::{Channel, Hedge, Options, Picked, RequestHints};
use portolan_client::xds::model::{Assignment, Resolution};
use tokio::sync::watch;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{Backend, assignment, balancer, call, channel, connected, locality};

fn over(backends: &[Backend]) -> Assignment {
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    assignment(vec![vec![locality("a", 1, &addresses)]])
}

/// One call with a second attempt after so many milliseconds.
pub(crate) async fn hedged(channel: &Channel, after: u64) -> Result<Picked, Status> {
    let mut request = Request::new(HealthCheckRequest::default());
    let hedge = Some(Hedge::After(Duration::from_millis(after)));
    request.extensions_mut().insert(RequestHints { hedge, ..RequestHints::default() });
    let response = HealthClient::new(channel.clone()).check(request).await?;
    Ok(response.extensions().get::<Picked>().unwrap().clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_endpoint_answers_for_a_slow_one_and_nothing_stays_of_the_loser() {
    let backends = Backend::start_many(2).await;
    backends[0].behaviour.latency.store(60_000, Relaxed);
    let (channel, _source) = channel(over(&backends), 2).await;
    let until_three_were_hedged = async {
        while backends[0].calls() < 3 {
            let picked = hedged(&channel, 20).await.unwrap();
            assert_eq!(picked.address, backends[1].address);
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(30), until_three_were_hedged).await;
    assert!(done.is_ok(), "{} hedged", backends[0].calls());
    for endpoint in balancer(&channel).wanted() {
        assert_eq!(endpoint.in_flight(), 0);
        let slow = endpoint.address() == backends[0].address;
        assert_eq!(endpoint.outcomes(), if slow { (0, 0) } else { (backends[1].calls(), 0) });
    }
    let metrics = channel.metrics();
    let endpoints = &metrics.clusters[0].endpoints;
    let [slow, quick] = [0, 1].map(|i: usize| endpoints.iter().find(|it| it.address == backends[i].address).unwrap());
    assert_eq!((slow.picks, slow.succeeded, slow.failed, slow.hedges), (3, 0, 0, 0));
    assert_eq!((quick.picks, quick.succeeded, quick.retries, quick.hedges), (backends[1].calls(), quick.picks, 0, 3));
    assert!(endpoints.iter().all(|it| it.ready && !it.ejected && it.in_flight == 0 && it.connections == 1));
    assert_eq!(metrics.clusters[0].localities[0].usable, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_attempts_stop_when_their_budget_is_spent() {
    let backends = Backend::start_many(2).await;
    backends.iter().for_each(|backend| backend.behaviour.latency.store(300, Relaxed));
    let (source, resolutions) = watch::channel(Resolution::from(over(&backends)));
    let options = Options { hedge: Hedge::After(Duration::from_millis(1)), ..Options::new(11) };
    let channel = Channel::over("checkout.shop", resolutions, options);
    connected(&channel, 2).await;
    let calls = join_all((0..100).map(|_| call(&channel))).await;
    assert!(calls.iter().all(Result::is_ok));
    // 10 saved at the start and a fifth of the calls.
    let asked = backends.iter().map(Backend::calls).sum::<u64>();
    assert!((111..=130).contains(&asked), "{asked}");
    drop(source);
}

#[tokio::test]
async fn without_another_endpoint_there_is_no_second_attempt() {
    let backends = Backend::start_many(1).await;
    backends[0].behaviour.latency.store(50, Relaxed);
    let (channel, _source) = channel(over(&backends), 1).await;
    assert_eq!(hedged(&channel, 1).await.unwrap().attempts, 1);
    assert_eq!(backends[0].calls(), 1);
}

#[tokio::test]
async fn one_that_answers_before_its_time_has_no_second_attempt() {
    let backends = Backend::start_many(2).await;
    let (channel, _source) = channel(over(&backends), 2).await;
    for _ in 0..20 {
        assert_eq!(hedged(&channel, 60_000).await.unwrap().attempts, 1);
    }
    assert_eq!(backends.iter().map(Backend::calls).sum::<u64>(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_of_one_of_the_two_waits_for_the_other() {
    let backends = Backend::start_many(2).await;
    for backend in &backends {
        backend.behaviour.latency.store(200, Relaxed);
    }
    // Whichever is asked first, one of the two answers UNAVAILABLE, sooner or later than the other.
    backends[0].behaviour.latency.store(100, Relaxed);
    backends[0].behaviour.code.store(Code::Unavailable as i32, Relaxed);
    let (channel, _source) = channel(over(&backends), 2).await;
    for _ in 0..6 {
        assert_eq!(hedged(&channel, 1).await.unwrap().address, backends[1].address);
    }
    let failing = balancer(&channel).wanted().into_iter().find(|it| it.address() == backends[0].address).unwrap();
    assert!(failing.outcomes().1 > 0, "and it is counted");
}
