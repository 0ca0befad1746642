//! What becomes of requests changes who is picked: the balancer as a whole.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::tests::{OK, Shape, address, all_ready, assignment, balancer, down, report, shares_of};
use super::{Balancer, Outcome, RequestInfo, Status};
use crate::orca::OrcaReport;
use crate::xds::model::EndpointHealth;

const THREE: Shape<'_> = &[&[("a", 1, &[(1, 1, OK), (2, 1, OK), (3, 1, OK)])]];

/// Ends `n` picks, each as `end` says of its port.
fn serve(balancer: &Balancer, n: u32, end: impl Fn(u16) -> (Outcome, Duration)) {
    for _ in 0..n {
        let pick = balancer.pick(&RequestInfo::default()).unwrap();
        let (outcome, latency) = end(pick.endpoint().address().port());
        pick.finish(outcome, Some(latency), None);
    }
}

/// Seconds go by with picks in each.
async fn seconds(balancer: &Balancer, n: u32, end: impl Fn(u16) -> (Outcome, Duration)) {
    for _ in 0..n {
        serve(balancer, 200, &end);
        tokio::time::advance(Duration::from_secs(1)).await;
        balancer.tick(Instant::now());
    }
}

/// Nothing happens for so many seconds.
async fn idle(balancer: &Balancer, seconds: u64) {
    for _ in 0..seconds {
        tokio::time::advance(Duration::from_secs(1)).await;
        balancer.tick(Instant::now());
    }
}

/// How many of `n` requests that are open together are at one endpoint.
fn held_at(balancer: &Balancer, port: u16, n: u32) -> usize {
    let held: Vec<_> = (0..n).map(|_| balancer.pick(&RequestInfo::default()).unwrap().hold()).collect();
    held.iter().filter(|pick| pick.endpoint().address() == address(port)).count()
}

fn well(_: u16) -> (Outcome, Duration) {
    (Outcome::Success, Duration::from_millis(10))
}

fn ready(shape: Shape<'_>) -> Balancer {
    let balancer = balancer(shape);
    all_ready(&balancer);
    balancer.tick(Instant::now());
    balancer
}

#[tokio::test(start_paused = true)]
async fn the_slower_one_gets_less() {
    let balancer = ready(THREE);
    let end = |port| (Outcome::Success, Duration::from_millis(if port == 2 { 50 } else { 10 }));
    seconds(&balancer, 5, end).await;
    assert!(shares_of(&balancer, &[2, 1, 3], 3000)[0] < 0.05);
    // It is tried again, and found to be well.
    seconds(&balancer, 300, well).await;
    let second = held_at(&balancer, 2, 300);
    assert!((60..140).contains(&second), "{second} of 300");
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_at_once_attracts_nothing_is_ejected_and_proves_itself() {
    let balancer = ready(THREE);
    seconds(&balancer, 2, well).await;
    let fail = |port| if port == 2 { (Outcome::Failure, Duration::from_millis(1)) } else { well(port) };
    let failed = || balancer.wanted().iter().map(|endpoint| endpoint.outcomes().1).sum::<u64>();
    serve(&balancer, 1000, fail);
    assert!(failed() <= 3, "{}", failed());
    // Held requests leave it the least busy, until it has failed five times in a row.
    let mut held = Vec::new();
    while failed() < 5 {
        let pick = balancer.pick(&RequestInfo::default()).unwrap().hold();
        if pick.endpoint().address() == address(2) {
            pick.finish(Outcome::Failure, Some(Duration::from_millis(1)), None);
        } else {
            held.push(pick);
        }
    }
    drop(held);
    tokio::time::advance(Duration::from_secs(1)).await;
    balancer.tick(Instant::now());
    assert_eq!(shares_of(&balancer, &[2, 1, 3], 300)[0], 0.0);
    // Ten seconds later it gets one request at a time.
    idle(&balancer, 30).await;
    assert_eq!(held_at(&balancer, 2, 300), 1);
    seconds(&balancer, 90, well).await;
    assert!(balancer.wanted().iter().any(|it| it.address() == address(2) && it.outcomes().0 > 100));
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_among_others_begins_with_one_request() {
    let balancer = ready(&[&[("a", 1, &[(1, 1, OK), (2, 1, OK)])]]);
    seconds(&balancer, 2, well).await;
    balancer.assign(Arc::new(assignment(THREE)), Instant::now());
    report(&balancer, 3, &Status::Ready);
    let tried = (0..50).filter(|_| held_at(&balancer, 3, 10) > 0).count();
    assert!(tried < 40, "{tried} of 50: not every client at once");
    idle(&balancer, 20).await;
    assert_eq!(held_at(&balancer, 3, 100), 1);
    seconds(&balancer, 2, well).await;
    let early = held_at(&balancer, 3, 300);
    assert!((1..40).contains(&early), "{early}");
    seconds(&balancer, 70, well).await;
    let late = held_at(&balancer, 3, 300);
    assert!((80..120).contains(&late), "{late}");
}

#[tokio::test(start_paused = true)]
async fn ejection_and_warm_up_are_as_the_assignment_says() {
    let balancer = ready(&[&[("a", 1, &[(1, 1, OK), (2, 1, OK)])]]);
    let mut assignment = assignment(THREE);
    assignment.outlier_detection.consecutive_errors = 2;
    assignment.outlier_detection.base_ejection_time = Duration::from_secs(100);
    // Errors in a row do not wait for as long.
    assignment.outlier_detection.interval = Duration::from_secs(60);
    assignment.warmup.window = Duration::ZERO;
    balancer.assign(Arc::new(assignment), Instant::now());
    report(&balancer, 3, &Status::Ready);
    // Its first success is enough.
    seconds(&balancer, 2, well).await;
    let held: Vec<_> = (0..300).map(|_| balancer.pick(&RequestInfo::default()).unwrap().hold()).collect();
    let third = held.iter().filter(|pick| pick.endpoint().address() == address(3)).count();
    assert!((80..120).contains(&third), "{third}");
    // Two failures in a row are too many, for longer than by default.
    let mut failed = 0;
    for pick in held.into_iter().filter(|pick| pick.endpoint().address() == address(2)).take(2) {
        pick.finish(Outcome::Failure, Some(Duration::from_millis(10)), None);
        failed += 1;
    }
    assert_eq!(failed, 2);
    tokio::time::advance(Duration::from_secs(1)).await;
    balancer.tick(Instant::now());
    tokio::time::advance(Duration::from_secs(50)).await;
    balancer.tick(Instant::now());
    assert_eq!(shares_of(&balancer, &[2, 1, 3], 300)[0], 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_came_back_is_a_new_one() {
    let balancer = ready(THREE);
    seconds(&balancer, 2, well).await;
    report(&balancer, 3, &down());
    report(&balancer, 3, &Status::Ready);
    idle(&balancer, 20).await;
    assert_eq!(held_at(&balancer, 3, 100), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_out_of_reach_is_a_new_one_whatever_it_was_called_meanwhile() {
    let balancer = ready(THREE);
    seconds(&balancer, 2, well).await;
    report(&balancer, 3, &down());
    // The control plane hears of it, too: nobody connects to it until it is well again.
    let unwell = assignment(&[&[("a", 1, &[(1, 1, OK), (2, 1, OK), (3, 1, EndpointHealth::Unhealthy)])]]);
    balancer.assign(Arc::new(unwell), Instant::now());
    report(&balancer, 3, &Status::Idle);
    idle(&balancer, 20).await;
    balancer.assign(Arc::new(assignment(THREE)), Instant::now());
    report(&balancer, 3, &Status::Connecting);
    report(&balancer, 3, &Status::Ready);
    idle(&balancer, 20).await;
    assert_eq!(held_at(&balancer, 3, 100), 1);
    // Only that time: a connection that is replaced later is nothing new.
    serve(&balancer, 200, well);
    idle(&balancer, 100).await;
    report(&balancer, 3, &Status::Connecting);
    report(&balancer, 3, &Status::Ready);
    assert!(held_at(&balancer, 3, 99) > 20);
}

#[tokio::test(start_paused = true)]
async fn a_locality_that_fails_whole_is_ejected_whole() {
    let balancer = ready(&[&[("a", 1, &[(1, 1, OK), (2, 1, OK)])], &[("b", 1, &[(3, 1, OK)])]]);
    seconds(&balancer, 2, |port| if port < 3 { (Outcome::Failure, Duration::from_millis(1)) } else { well(port) })
        .await;
    assert_eq!(shares_of(&balancer, &[3, 1, 2], 100), [1.0, 0.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn many_new_ones_are_tried_later_when_the_first_that_were_are_slow() {
    async fn tried_in(seconds_of: u32, cold: Duration) -> usize {
        let ports: Vec<(u16, u32, _)> = (1..=60).map(|port| (port, 1, OK)).collect();
        let balancer = ready(&[&[("a", 1, &ports[..40])]]);
        seconds(&balancer, 2, well).await;
        balancer.assign(Arc::new(assignment(&[&[("a", 1, &ports)]])), Instant::now());
        (41..=60).for_each(|port| report(&balancer, port, &Status::Ready));
        let end = |port| (Outcome::Success, if port > 40 { cold } else { Duration::from_millis(10) });
        seconds(&balancer, seconds_of, end).await;
        balancer.wanted().iter().filter(|it| it.address().port() > 40 && it.outcomes().0 > 0).count()
    }
    let (warm, cold) = (tried_in(9, Duration::from_millis(10)).await, tried_in(9, Duration::from_millis(200)).await);
    assert!(warm >= 15 && cold >= 3 && cold * 4 <= warm * 3, "{warm} and {cold} of 20");
    assert_eq!(tried_in(200, Duration::from_millis(200)).await, 20, "each in the end");
}

#[tokio::test(start_paused = true)]
async fn a_locality_that_comes_back_slow_takes_little_of_its_share_until_it_is_well_and_all_in_the_end() {
    let balancer = ready(&[&[("a", 1, &[(1, 1, OK), (2, 1, OK)]), ("b", 1, &[(3, 1, OK), (4, 1, OK)])]]);
    seconds(&balancer, 3, well).await;
    (3..5).for_each(|port| report(&balancer, port, &down()));
    (3..5).for_each(|port| report(&balancer, port, &Status::Ready));
    let share = |balancer: &Balancer| balancer.explain(Instant::now())[1].share;
    let slow = |port| (Outcome::Success, Duration::from_millis(if port > 2 { 80 } else { 10 }));
    // Held down for three seconds; a ramp of ten that nothing slows would be at its end.
    seconds(&balancer, 14, slow).await;
    let held = share(&balancer);
    assert!(held > 0.0 && held < 0.05, "{held}");
    seconds(&balancer, 8, well).await;
    let better = share(&balancer);
    assert!(better > 2.0 * held, "{held} {better}");
    seconds(&balancer, 40, slow).await;
    assert!((share(&balancer) - 0.5).abs() < 1e-9, "the ramp ends, however slow it is");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_how_warm_it_is_gets_as_much() {
    let balancer = ready(&[&[("a", 1, &[(1, 1, OK), (2, 1, OK)])]]);
    seconds(&balancer, 2, well).await;
    balancer.assign(Arc::new(assignment(THREE)), Instant::now());
    report(&balancer, 3, &Status::Ready);
    seconds(&balancer, 20, well).await;
    let says = |warmth: f64| OrcaReport { named_metrics: [("warmth".into(), warmth)].into(), ..OrcaReport::default() };
    let third = || balancer.wanted().into_iter().find(|it| it.address() == address(3)).unwrap();
    let answer = |report: &OrcaReport| {
        loop {
            let pick = balancer.pick(&RequestInfo::default()).unwrap();
            let hit = pick.endpoint().address() == address(3);
            pick.finish(Outcome::Success, Some(Duration::from_millis(10)), hit.then_some(report));
            if hit {
                break;
            }
        }
    };
    for (warmth, factor) in [(0.5, 0.5), (0.2, 0.2), (0.0, 0.1), (7.0, 1.0)] {
        answer(&says(warmth));
        tokio::time::advance(Duration::from_secs(1)).await;
        balancer.tick(Instant::now());
        let got = third().seat.cell().admission().factor();
        assert!((got - factor).abs() < 1e-3, "{warmth}: {got}");
    }
}
