//! How long a pick takes, against `tower::balance::p2c` with pending requests, side by side in one run.
//!
//! Our picks have what a service in use has: unequal weights, and a tenth of the endpoints in their slow start. The guard
//! is dropped at once in both. Prints a table and, as its last line, one JSON object.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use portolan_client::balancer::{Admission, Balancer, LeastRequest, RequestInfo, Status};
use portolan_client::xds::model::{AssignedEndpoint, Assignment, EndpointHealth, LocalityEndpoints};
use tower::Service;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PendingRequests};

const SIZES: [usize; 3] = [10, 1000, 10_000];
const ROUNDS: usize = 11;
const PICKS: u32 = 500_000;
const TOWER_PICKS: u32 = 100_000;

fn balancer(endpoints: usize) -> Balancer {
    let endpoint = |i: usize| AssignedEndpoint {
        address: SocketAddr::from(([10, 0, (i >> 8) as u8, i as u8], 80)),
        weight: 1 + i as u32 % 4,
        health: EndpointHealth::Healthy,
    };
    let endpoints = (0..endpoints).map(endpoint).collect();
    let locality = LocalityEndpoints { locality: Default::default(), weight: 1, endpoints };
    let assignment = Assignment {
        cluster: "bench".into(),
        priorities: vec![vec![locality]],
        max_requests: Some(100_000),
        ..Assignment::default()
    };
    let balancer = Balancer::new(LeastRequest, 42);
    let now = tokio::time::Instant::now();
    balancer.assign(Arc::new(assignment), now);
    for (i, endpoint) in balancer.wanted().iter().enumerate() {
        balancer.report(endpoint, Status::Ready, now);
        if i % 10 == 0 {
            balancer.admit(endpoint, Admission::fraction(0.5), now);
        }
    }
    balancer
}

/// Nanoseconds a pick.
fn picks(balancer: &Balancer, n: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..n {
        let pick = balancer.pick(&RequestInfo::default()).expect("endpoints are ready");
        black_box(pick.endpoint().address());
    }
    start.elapsed().as_nanos() as f64 / f64::from(n)
}

/// The same for picks that are held, as those of a request that lasts.
fn held_picks(balancer: &Balancer, n: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..n {
        let pick = balancer.pick(&RequestInfo::default()).expect("endpoints are ready").hold();
        black_box(pick.endpoint().address());
    }
    start.elapsed().as_nanos() as f64 / f64::from(n)
}

/// Nanoseconds a pick when every one of these threads picks; each from the balancer given to it.
fn threads(balancers: &[&Balancer]) -> f64 {
    let barrier = Barrier::new(balancers.len());
    let times: Vec<f64> = std::thread::scope(|scope| {
        let barrier = &barrier;
        let run = |balancer| {
            scope.spawn(move || {
                picks(balancer, PICKS / 20);
                barrier.wait();
                picks(balancer, PICKS)
            })
        };
        let running: Vec<_> = balancers.iter().copied().map(run).collect();
        running.into_iter().map(|thread| thread.join().expect("no pick panics")).collect()
    });
    times.iter().sum::<f64>() / times.len() as f64
}

/// An endpoint that answers at once.
#[derive(Clone)]
struct Echo(SocketAddr);

impl Service<()> for Echo {
    type Response = SocketAddr;
    type Error = Infallible;
    type Future = Ready<Result<SocketAddr, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(self.0))
    }
}

type Tower = Balance<ServiceList<Vec<PendingRequests<Echo>>>, ()>;

fn tower(endpoints: usize) -> Tower {
    let echo = |i: usize| Echo(SocketAddr::from(([10, 0, (i >> 8) as u8, i as u8], 80)));
    let service = |i| PendingRequests::new(echo(i), CompleteOnResponse::default());
    Balance::new(ServiceList::new::<()>((0..endpoints).map(service).collect()))
}

/// Nanoseconds from readiness, which picks, to the end of a call that is answered at once.
fn tower_picks(balance: &mut Tower, n: u32) -> f64 {
    let mut cx = Context::from_waker(Waker::noop());
    let start = Instant::now();
    for _ in 0..n {
        while balance.poll_ready(&mut cx).is_pending() {}
        let mut answer = pin!(balance.call(()));
        while black_box(answer.as_mut().poll(&mut cx)).is_pending() {}
    }
    start.elapsed().as_nanos() as f64 / f64::from(n)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One size: medians of our time, tower's, and their ratio within a round.
struct Line {
    ours: f64,
    tower: f64,
    ratio: f64,
}

fn compare(endpoints: usize) -> Line {
    let (balancer, mut tower) = (balancer(endpoints), tower(endpoints));
    picks(&balancer, PICKS / 10);
    tower_picks(&mut tower, TOWER_PICKS / 10);
    let round = |_| (picks(&balancer, PICKS), tower_picks(&mut tower, TOWER_PICKS));
    let rounds: Vec<(f64, f64)> = (0..ROUNDS).map(round).collect();
    Line {
        ours: median(rounds.iter().map(|(ours, _)| *ours).collect()),
        tower: median(rounds.iter().map(|(_, tower)| *tower).collect()),
        ratio: median(rounds.iter().map(|(ours, tower)| ours / tower).collect()),
    }
}

fn main() {
    let lines = SIZES.map(compare);
    println!("{:>10} {:>10} {:>12} {:>8}", "ENDPOINTS", "PICK ns", "TOWER ns", "RATIO");
    for (endpoints, Line { ours, tower, ratio }) in SIZES.iter().zip(&lines) {
        println!("{endpoints:>10} {ours:>10.1} {tower:>12.1} {ratio:>8.3}");
    }

    // One balancer for two threads, against a balancer for each: the same loop, sharing nothing.
    let (shared, other) = (balancer(1000), balancer(1000));
    let round = |_| {
        let one = threads(&[&shared]);
        let together = 2.0 * one / threads(&[&shared, &shared]);
        let apart = 2.0 * one / threads(&[&shared, &other]);
        (together, apart, together / apart)
    };
    let rounds: Vec<(f64, f64, f64)> = (0..ROUNDS).map(round).collect();
    let together = median(rounds.iter().map(|(together, ..)| *together).collect());
    let apart = median(rounds.iter().map(|(_, apart, _)| *apart).collect());
    let two_threads = median(rounds.iter().map(|(.., ratio)| *ratio).collect());
    println!(
        "two threads at 1000 endpoints: {together:.2}× of one; sharing nothing: {apart:.2}×; ratio {two_threads:.3}"
    );

    let held = median((0..ROUNDS).map(|_| held_picks(&shared, PICKS)).collect());
    println!("a pick that is held, at 1000 endpoints: {held:.1} ns");
    let counted = allocation_counter::measure(|| {
        black_box(picks(&shared, PICKS));
    });
    let allocations = counted.count_total as f64 / f64::from(PICKS);
    println!("allocations: {} in {PICKS} picks", counted.count_total);

    let [ten, thousand, ten_thousand] = lines;
    let json = serde_json::json!({
        "tower_ratio_10": ten.ratio, "tower_ratio_1000": thousand.ratio, "tower_ratio_10000": ten_thousand.ratio,
        "ns_10": ten.ours, "ns_1000": thousand.ours, "ns_10000": ten_thousand.ours,
        "ns_held_1000": held, "two_threads_ratio": two_threads, "allocations_per_pick": allocations,
    });
    println!("{json}");
}
