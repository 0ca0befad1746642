//! The route's retries and timeout.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use portolan_client::channel::{CallError, Failure, Picked};
use portolan_client::xds::model::{Assignment, Retry};
use portolan_client::xds::routing::Routing;

use crate::support::{Backend, assignment, balancer, call, channel, locality};

fn retries(attempts: u32) -> Option<Retry> {
    let (base, max) = (Duration::from_millis(1), Duration::from_millis(10));
    let on = vec![tonic::Code::Unavailable as i32];
    Some(Retry { attempts, on, base, max, per_try_timeout: None })
}

fn retried(assignment: Assignment, retry: Option<Retry>) -> Routing {
    Routing::with(assignment, |forward| forward.retry = retry)
}

/// Two backends, of which the first answers UNAVAILABLE at once.
async fn one_of_two_fails() -> (Vec<Backend>, Assignment) {
    let backends = Backend::start_many(2).await;
    backends[0].behaviour.code.store(tonic::Code::Unavailable as i32, Relaxed);
    let addresses: Vec<_> = backends.iter().map(|b| b.address).collect();
    (backends, assignment(vec![vec![locality("a", 1, &addresses)]]))
}

#[tokio::test]
async fn without_retries_a_failure_is_the_callers() {
    let (backends, assignment) = one_of_two_fails().await;
    let (channel, _source) = channel(assignment, 2).await;
    let calls = futures::future::join_all((0..40).map(|_| call(&channel))).await;
    let failed = calls.iter().filter(|call| call.is_err()).count() as u64;
    assert!(failed > 5);
    assert_eq!(failed, backends[0].calls());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_says_unavailable_at_once_attracts_nothing() {
    let (backends, assignment) = one_of_two_fails().await;
    let (channel, _source) = channel(assignment, 2).await;
    let mut failed = 0;
    for _ in 0..50 {
        let calls = futures::future::join_all((0..20).map(|_| call(&channel))).await;
        failed += calls.iter().filter(|call| call.is_err()).count() as u64;
    }
    assert_eq!(failed, backends[0].calls());
    // By requests in flight alone it would get more than half of all, since it is never busy.
    assert!((1..=50).contains(&failed), "{failed} of 1000");
}

#[tokio::test]
async fn with_retries_another_endpoint_answers() {
    let (backends, assignment) = one_of_two_fails().await;
    let (channel, _source) = channel(retried(assignment, retries(1)), 2).await;
    let mut second = 0;
    for _ in 0..15 {
        let picked = call(&channel).await.unwrap();
        assert_eq!(picked.address, backends[1].address);
        second += u64::from(picked.attempts == 2);
    }
    assert!(second > 0);
    assert_eq!(second, backends[0].calls(), "each endpoint was asked once");
}

#[tokio::test]
async fn retries_stop_when_their_budget_is_spent() {
    let backend = Backend::start().await;
    backend.behaviour.code.store(tonic::Code::Unavailable as i32, Relaxed);
    let assignment = assignment(vec![vec![locality("a", 1, &[backend.address])]]);
    let (channel, _source) = channel(retried(assignment, retries(3)), 1).await;
    for _ in 0..100 {
        assert_eq!(call(&channel).await.unwrap_err().message(), "as told", "the server's own status comes through");
    }
    // 10 saved at the start and a fifth of the calls.
    assert!((125..=130).contains(&backend.calls()), "{}", backend.calls());
}

#[tokio::test]
async fn the_breaker_of_retries_stops_them_all() {
    let backend = Backend::start().await;
    backend.behaviour.code.store(tonic::Code::Unavailable as i32, Relaxed);
    let assignment = assignment(vec![vec![locality("a", 1, &[backend.address])]]);
    let broken = Assignment { max_retries: Some(0), ..assignment };
    let (channel, _source) = channel(retried(broken, retries(3)), 1).await;
    for _ in 0..5 {
        assert_eq!(call(&channel).await.unwrap_err().message(), "as told");
    }
    assert_eq!(backend.calls(), 5);
}

#[tokio::test]
async fn one_that_does_not_answer_in_the_time_of_one_try_is_not_waited_for() {
    let backends = Backend::start_many(2).await;
    backends[0].behaviour.latency.store(60_000, Relaxed);
    let addresses: Vec<_> = backends.iter().map(|b| b.address).collect();
    let retry = retries(1).map(|retry| Retry { per_try_timeout: Some(Duration::from_millis(50)), ..retry });
    let assignment = assignment(vec![vec![locality("a", 1, &addresses)]]);
    let (channel, _source) = channel(retried(assignment, retry), 2).await;
    let mut second = 0;
    for _ in 0..15 {
        let picked = call(&channel).await.unwrap();
        assert_eq!(picked.address, backends[1].address);
        second += u64::from(picked.attempts == 2);
    }
    assert!(second > 0, "somebody asked the slow one first");
}

#[tokio::test]
async fn a_call_without_another_try_says_whom_it_waited_for() {
    let backend = Backend::start().await;
    backend.behaviour.latency.store(60_000, Relaxed);
    // Two tries, both too slow.
    let retry = retries(1).map(|retry| Retry { per_try_timeout: Some(Duration::from_millis(20)), ..retry });
    let assignment = assignment(vec![vec![locality("a", 1, &[backend.address])]]);
    let (channel, _source) = channel(retried(assignment, retry), 1).await;
    let status = call(&channel).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    assert_eq!(status.message(), format!("{}: no answer within 20ms, the limit of one try", backend.address));
    assert_eq!(backend.calls(), 2);
}

#[tokio::test]
async fn other_codes_are_not_retried() {
    let backend = Backend::start().await;
    backend.behaviour.code.store(tonic::Code::Internal as i32, Relaxed);
    let assignment = assignment(vec![vec![locality("a", 1, &[backend.address])]]);
    let (channel, _source) = channel(retried(assignment, retries(3)), 1).await;
    assert_eq!(call(&channel).await.unwrap_err().code(), tonic::Code::Internal);
    assert_eq!(backend.calls(), 1);
}

#[tokio::test]
async fn the_routes_timeout_ends_a_call_and_says_who_did_not_answer() {
    let backend = Backend::start().await;
    backend.behaviour.latency.store(5000, Relaxed);
    let assignment = assignment(vec![vec![locality("a", 1, &[backend.address])]]);
    let timeout = Some(Duration::from_millis(200));
    let (channel, _source) = channel(Routing::with(assignment, |forward| forward.timeout = timeout), 1).await;
    let status = call(&channel).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    assert_eq!(status.message(), format!("checkout.shop: no answer from {} before the deadline", backend.address));
    assert_eq!(CallError::of(&status).unwrap().failure, Failure::Deadline);
    assert_eq!(Picked::of(&status).unwrap().address, backend.address);
    let endpoint = &balancer(&channel).wanted()[0];
    assert_eq!(endpoint.in_flight(), 0, "nothing stays in flight");
    assert_eq!(endpoint.outcomes(), (0, 1), "who does not answer in time has failed");
}
