use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::{ProptestConfig, proptest};
use tokio::time::Instant;

use super::{
    Admission, Balancer, Candidates, Choice, Cost, End, LeastRequest, Member, Outcome, PickError, RequestInfo, Status,
    Strategy,
};
use crate::xds::model::{AssignedEndpoint, Assignment, EndpointHealth, Failback, LocalityEndpoints, LocalityName};

/// Localities as (name, weight, endpoints as (port, weight, health)), by priority.
pub(super) type Shape<'a> = &'a [&'a [(&'a str, u32, &'a [(u16, u32, EndpointHealth)])]];

const ANY: RequestInfo<'_> = RequestInfo { hash: None, cost: Cost { first: 0, rest: 0 }, prefix: &[], avoid: &[] };
pub(super) const OK: EndpointHealth = EndpointHealth::Healthy;
const FAILBACK: Failback = Failback { ramp: Duration::from_secs(10), hold_down: Duration::from_secs(3) };

pub(super) fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub(super) fn assignment(shape: Shape<'_>) -> Assignment {
    let endpoint = |(port, weight, health): &(u16, u32, EndpointHealth)| AssignedEndpoint {
        address: address(*port),
        weight: *weight,
        health: *health,
    };
    let locality = |(zone, weight, endpoints): &(&str, u32, &[(u16, u32, EndpointHealth)])| LocalityEndpoints {
        locality: LocalityName { region: "r".into(), zone: (*zone).into(), sub_zone: "c".into() },
        weight: *weight,
        endpoints: endpoints.iter().map(endpoint).collect(),
    };
    Assignment {
        cluster: "checkout".into(),
        priorities: shape.iter().map(|tier| tier.iter().map(locality).collect()).collect(),
        failback: FAILBACK,
        ..Assignment::default()
    }
}

pub(super) fn balancer(shape: Shape<'_>) -> Balancer {
    let balancer = Balancer::new(LeastRequest, 7);
    balancer.assign(Arc::new(assignment(shape)), Instant::now());
    balancer
}

pub(super) fn report(balancer: &Balancer, port: u16, status: &Status) {
    for endpoint in balancer.wanted().iter().filter(|e| e.address() == address(port)) {
        balancer.report(endpoint, status.clone(), Instant::now());
    }
}

pub(super) fn all_ready(balancer: &Balancer) {
    for endpoint in balancer.wanted() {
        balancer.report(&endpoint, Status::Ready, Instant::now());
    }
}

pub(super) fn down() -> Status {
    Status::Down("refused".into())
}

/// The share of each port in `n` picks that end at once.
pub(super) fn shares_of(balancer: &Balancer, ports: &[u16], n: u32) -> Vec<f64> {
    let mut seen = vec![0u32; ports.len()];
    for _ in 0..n {
        let port = balancer.pick(&ANY).unwrap().endpoint().address().port();
        seen[ports.iter().position(|p| *p == port).unwrap()] += 1;
    }
    seen.iter().map(|n_i| f64::from(*n_i) / f64::from(n)).collect()
}

fn near(got: &[f64], wanted: &[f64]) {
    assert!(got.iter().zip(wanted).all(|(g, w)| (g - w).abs() < 0.02), "{got:?}, not {wanted:?}");
}

#[tokio::test(start_paused = true)]
async fn weights_of_localities_and_endpoints_are_kept() {
    let endpoints: Shape = &[&[("a", 80, &[(1, 1, OK), (2, 3, OK)]), ("b", 20, &[(3, 1, OK)])]];
    let balancer = balancer(endpoints);
    all_ready(&balancer);
    near(&shares_of(&balancer, &[1, 2, 3], 20_000), &[0.2, 0.6, 0.2]);
}

#[tokio::test(start_paused = true)]
async fn only_ready_and_healthy_endpoints_are_picked() {
    let (draining, unhealthy) = (EndpointHealth::Draining, EndpointHealth::Unhealthy);
    let balancer = balancer(&[&[("a", 1, &[(1, 1, OK), (2, 1, draining), (3, 1, unhealthy), (4, 1, OK)])]]);
    assert_eq!(balancer.pick(&ANY).unwrap_err(), PickError::Connecting { cluster: "checkout".into() });
    assert_eq!(balancer.wanted().len(), 2, "nobody connects to what may take nothing");
    report(&balancer, 1, &Status::Ready);
    near(&shares_of(&balancer, &[1], 100), &[1.0]);
    report(&balancer, 4, &Status::Ready);
    report(&balancer, 1, &Status::Connecting);
    near(&shares_of(&balancer, &[4], 100), &[1.0]);
}

#[tokio::test(start_paused = true)]
async fn errors_say_why() {
    let balancer = Balancer::<()>::new(LeastRequest, 1);
    assert_eq!(balancer.pick(&ANY).unwrap_err(), PickError::NoAssignment);
    balancer.assign(Arc::new(assignment(&[&[("a", 1, &[(1, 1, EndpointHealth::Unhealthy)])]])), Instant::now());
    assert_eq!(balancer.pick(&ANY).unwrap_err().to_string(), "cluster checkout: no healthy endpoint among 1");
    balancer.assign(Arc::new(assignment(&[&[("a", 1, &[(1, 1, OK)])]])), Instant::now());
    report(&balancer, 1, &down());
    let text = balancer.pick(&ANY).unwrap_err().to_string();
    assert_eq!(text, "cluster checkout: connections to all 1 backends failing; last error: refused");
}

#[tokio::test(start_paused = true)]
async fn the_next_priority_takes_over_when_one_is_dead() {
    let balancer = balancer(&[&[("a", 1, &[(1, 1, OK)])], &[("b", 7, &[(2, 1, OK)]), ("c", 3, &[(3, 1, OK)])]]);
    all_ready(&balancer);
    assert_eq!(balancer.pick(&ANY).unwrap().priority(), 0);
    report(&balancer, 1, &Status::Connecting);
    near(&shares_of(&balancer, &[2, 3], 20_000), &[0.7, 0.3]);
    assert_eq!(balancer.pick(&ANY).unwrap().priority(), 1);
    report(&balancer, 1, &Status::Ready);
    assert_eq!(balancer.pick(&ANY).unwrap().priority(), 0, "a connection that was replaced is no death");
}

#[tokio::test(start_paused = true)]
async fn a_returning_locality_ramps() {
    let balancer = balancer(&[&[("a", 1, &[(1, 1, OK)])], &[("b", 1, &[(2, 1, OK)])]]);
    all_ready(&balancer);
    report(&balancer, 1, &down());
    report(&balancer, 1, &Status::Ready);
    near(&shares_of(&balancer, &[1, 2], 1000), &[0.0, 1.0]);
    let foot = Instant::now() + FAILBACK.hold_down;
    let mut steps = Vec::new();
    while let Some(due) = balancer.tick(Instant::now()).filter(|due| *due <= foot + FAILBACK.ramp) {
        tokio::time::advance(due - Instant::now()).await;
        balancer.tick(Instant::now());
        steps.push((Instant::now(), shares_of(&balancer, &[1, 2], 5000)[0]));
    }
    for (at, share) in &steps {
        let climbed = at.saturating_duration_since(foot).as_secs_f64() / FAILBACK.ramp.as_secs_f64();
        assert!((share - climbed).abs() < 0.035, "{climbed} {steps:?}");
    }
    assert!(steps.iter().filter(|(at, _)| *at > foot).count() >= 20, "{steps:?}");
    assert_eq!(steps.last().unwrap().1, 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_returning_locality_is_used_at_once_if_it_is_all_there_is() {
    let balancer = balancer(&[&[("a", 1, &[(1, 1, OK)])], &[("b", 1, &[(2, 1, OK)])]]);
    all_ready(&balancer);
    report(&balancer, 1, &down());
    report(&balancer, 2, &down());
    assert!(matches!(balancer.pick(&ANY), Err(PickError::Unreachable { healthy: 2, .. })));
    report(&balancer, 2, &Status::Ready);
    assert_eq!(balancer.pick(&ANY).unwrap().priority(), 1);
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_count_and_survive_a_new_assignment() {
    let shape: Shape = &[&[("a", 1, &[(1, 1, OK), (2, 1, OK)])]];
    let balancer = balancer(shape);
    all_ready(&balancer);
    let held: Vec<_> = (0..10).map(|_| balancer.pick(&ANY).unwrap()).collect();
    let at = |port| held.iter().filter(|p| p.endpoint().address() == address(port)).count();
    assert_eq!((at(1), at(2)), (5, 5), "two choices of two even out exactly");
    balancer.assign(Arc::new(assignment(&[&[("b", 1, &[(1, 1, OK), (2, 1, OK), (3, 1, OK)])]])), Instant::now());
    report(&balancer, 3, &Status::Ready);
    let first = balancer.pick(&ANY).unwrap();
    assert_eq!(&*first.endpoint().place().locality.zone, "b");
    let more: Vec<_> = (0..4).map(|_| balancer.pick(&ANY).unwrap()).collect();
    let third = more.iter().chain([&first]).filter(|p| p.endpoint().address() == address(3)).count();
    assert!(third <= 1, "the new one proves itself first: {third}");
    let one = Arc::clone(held[0].endpoint());
    let before = one.in_flight();
    drop(held);
    assert_eq!(one.in_flight(), before - 5);
    more.into_iter().next().unwrap().finish(Outcome::Failure, None, None);
    first.finish(Outcome::Success, None, None);
}

#[tokio::test(start_paused = true)]
async fn the_breaker_opens_at_its_limit() {
    let balancer = Balancer::<()>::new(LeastRequest, 1);
    let limited = Assignment { max_requests: Some(2), ..assignment(&[&[("a", 1, &[(1, 1, OK)])]]) };
    balancer.assign(Arc::new(limited), Instant::now());
    all_ready(&balancer);
    let held = (balancer.pick(&ANY).unwrap(), balancer.pick(&ANY).unwrap());
    assert_eq!(balancer.pick(&ANY).unwrap_err(), PickError::Overloaded { cluster: "checkout".into(), limit: 2 });
    drop(held);
    let pick = balancer.pick(&ANY).unwrap();
    assert_eq!(pick.endpoint().ledger.open(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_another_endpoint_if_there_is_one() {
    let balancer = balancer(&[&[("a", 99, &[(1, 1000, OK), (2, 1, OK)]), ("b", 1, &[(3, 1, OK)])]]);
    all_ready(&balancer);
    for _ in 0..200 {
        assert_eq!(
            balancer.pick(&RequestInfo { avoid: &[address(1), address(3)], ..ANY }).unwrap().endpoint().address(),
            address(2)
        );
    }
    assert!(
        balancer.pick(&RequestInfo { avoid: &[address(1), address(2), address(3)], ..ANY }).is_ok(),
        "else one that was tried"
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_served_when_an_endpoint_is_ready_or_told_when_none_will_be() {
    let balancer = Arc::new(balancer(&[&[("a", 1, &[(1, 1, OK)])]]));
    let wait = || {
        let balancer = Arc::clone(&balancer);
        tokio::spawn(async move { balancer.ready(&ANY).await.map(|pick| pick.endpoint().address()) })
    };
    let waiting = wait();
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    report(&balancer, 1, &Status::Ready);
    assert_eq!(waiting.await.unwrap().unwrap(), address(1));
    report(&balancer, 1, &Status::Connecting);
    let waiting = wait();
    tokio::task::yield_now().await;
    report(&balancer, 1, &down());
    assert!(matches!(waiting.await.unwrap(), Err(PickError::Unreachable { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_large_assignment_is_connected_tier_by_tier() {
    let many: Vec<_> = (1..=150).map(|port| (port, 1, OK)).collect();
    let balancer = balancer(&[
        &[("a", 1, &many)],
        &[("b", 1, &[(1001, 1, OK)])],
        &[("c", 1, &[(2001, 1, OK); 1])],
        &[("d", 1, &(3001..=3100).map(|port| (port, 1, OK)).collect::<Vec<_>>())],
    ]);
    assert_eq!(balancer.wanted().len(), 151, "the first and the one below it");
    for endpoint in balancer.wanted() {
        balancer.report(&endpoint, down(), Instant::now());
    }
    assert_eq!(balancer.wanted().len(), 150 + 1 + 1 + 100, "further down, since all above is dead");
}

#[test]
fn picks_from_many_threads_leave_nothing_in_flight() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let balancer = Arc::new(balancer(&[&[("a", 1, &[(1, 1, OK), (2, 2, OK), (3, 1, OK)])]]));
        all_ready(&balancer);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in 0..5000 {
                        let pick = balancer.pick(&ANY).unwrap();
                        let pick = if i % 3 == 0 { pick.hold() } else { pick };
                        if i % 2 == 0 { pick.finish(Outcome::Success, None, None) } else { drop(pick) }
                    }
                });
            }
            // Meanwhile the endpoints change.
            for round in 0..50u16 {
                report(&balancer, 1 + round % 2, if round % 4 < 2 { &Status::Connecting } else { &Status::Ready });
            }
        });
        let endpoints = balancer.wanted();
        assert!(endpoints.iter().all(|e| e.in_flight() == 0));
        assert_eq!(endpoints.iter().map(|e| e.outcomes().0).sum::<u64>(), 4 * 2500);
        all_ready(&balancer);
        assert_eq!(balancer.pick(&ANY).unwrap().endpoint().ledger.open(), 1);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn two_choices_keep_loads_close(n in 2u16..30, seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let endpoints: Vec<_> = (1..=n).map(|port| (port, 1, OK)).collect();
            let balancer = Balancer::<()>::new(LeastRequest, seed);
            balancer.assign(Arc::new(assignment(&[&[("a", 1, &endpoints)]])), Instant::now());
            all_ready(&balancer);
            let held: Vec<_> = (0..u32::from(n) * 20).map(|_| balancer.pick(&ANY).unwrap()).collect();
            let most = held.iter().map(|p| p.endpoint().in_flight()).max().unwrap();
            // One choice would reach 20 + √(2·20·ln n) ≈ 31 here; two stay within log log n, however many are held.
            assert!(most <= 24, "{most}");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_start_takes_its_fraction_and_an_ejected_endpoint_nothing() {
    let balancer = balancer(&[&[("a", 1, &[(1, 1, OK), (2, 1, OK), (3, 2, OK)])]]);
    all_ready(&balancer);
    let third = balancer.wanted().into_iter().find(|e| e.address() == address(3)).unwrap();
    balancer.admit(&third, Admission::fraction(0.25), Instant::now());
    near(&shares_of(&balancer, &[1, 2, 3], 20_000), &[0.4, 0.4, 0.2]);
    let held: Vec<_> = (0..500).map(|_| balancer.pick(&ANY).unwrap()).collect();
    assert!((90..=110).contains(&third.in_flight()), "{}: under load as well", third.in_flight());
    drop(held);
    balancer.admit(&third, Admission::CLOSED, Instant::now());
    near(&shares_of(&balancer, &[1, 2, 3], 20_000), &[0.5, 0.5, 0.0]);
    balancer.admit(&third, Admission::ONE_AT_A_TIME, Instant::now());
    let held: Vec<_> = (0..50).map(|_| balancer.pick(&ANY).unwrap()).collect();
    assert_eq!(third.in_flight(), 1);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_locality_whose_endpoints_are_all_ejected_is_dead() {
    let balancer = balancer(&[&[("a", 1, &[(1, 1, OK)])], &[("b", 1, &[(2, 1, OK)])]]);
    all_ready(&balancer);
    for endpoint in balancer.wanted().iter().filter(|e| e.address() == address(1)) {
        balancer.admit(endpoint, Admission::CLOSED, Instant::now());
    }
    assert_eq!(balancer.pick(&ANY).unwrap().priority(), 1);
}

/// Sends everything to the endpoint of the greatest port, and remembers what it was told.
#[derive(Debug, Default)]
struct Greatest {
    told: Arc<Mutex<Vec<String>>>,
}

impl Strategy for Greatest {
    type Node = SocketAddr;
    type Table = usize;

    fn node(&self, address: SocketAddr) -> SocketAddr {
        address
    }

    fn table(&self, members: &[Member<SocketAddr>]) -> usize {
        (0..members.len()).max_by_key(|at| members[*at].node.port()).unwrap()
    }

    fn choose(&self, _: &Candidates<'_, SocketAddr>, greatest: &usize, _: &RequestInfo<'_>) -> Choice {
        Choice { at: *greatest, over: None }
    }

    fn affinity(&self, request: &RequestInfo<'_>) -> Option<u64> {
        request.hash
    }

    fn started(&self, node: &SocketAddr, request: &RequestInfo<'_>) {
        self.told.lock().unwrap().push(format!("start {} {}", node.port(), request.cost.rest));
    }

    fn answered(&self, node: &SocketAddr, after: Duration, _: Cost) {
        self.told.lock().unwrap().push(format!("first {} {after:?}", node.port()));
    }

    fn ended(&self, node: &SocketAddr, end: &End<'_>) {
        let End { outcome, cost, answered, .. } = end;
        self.told.lock().unwrap().push(format!("end {} {outcome:?} {} {answered}", node.port(), cost.rest));
    }
}

#[tokio::test(start_paused = true)]
async fn a_strategy_of_ones_own_chooses_and_is_told() {
    let told = Arc::default();
    let balancer = Balancer::<()>::new(Greatest { told: Arc::clone(&told) }, 1);
    balancer.assign(
        Arc::new(assignment(&[&[("a", 1, &[(1, 1, OK), (9, 1, OK), (4, 1, OK)]), ("b", 1, &[(3, 1, OK)])]])),
        Instant::now(),
    );
    all_ready(&balancer);
    let ask = RequestInfo { hash: Some(0), cost: Cost { first: 0, rest: 5 }, ..ANY };
    let mut pick = balancer.pick(&ask).unwrap().hold();
    pick.answered(Duration::from_secs(1));
    pick.answered(Duration::from_secs(2));
    pick.finish(Outcome::Success, None, None);
    drop(balancer.pick(&RequestInfo { hash: Some(u64::MAX), ..ANY }).unwrap());
    let expected = ["start 9 5", "first 9 1s", "end 9 Success 5 true", "start 3 0", "end 3 Cancelled 0 false"];
    assert_eq!(*told.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_change_in_a_large_locality_lays_nothing_out_anew() {
    let many: Vec<_> = (1..=1000).map(|port| (port, 1, OK)).collect();
    let balancer = balancer(&[&[("a", 1, &many)]]);
    all_ready(&balancer);
    let late = balancer.tick(Instant::now()).expect("some newcomers wait for others");
    tokio::time::advance(late - Instant::now()).await;
    let look = balancer.tick(Instant::now()).expect("what became of requests is looked at now and then");
    assert!(look > Instant::now(), "nothing else is due");
    let (before, version) = (balancer.snapshot.load_full(), balancer.wanted_version());
    (1..=400).for_each(|port| report(&balancer, port, &down()));
    let third = balancer.wanted().into_iter().find(|e| e.address() == address(900)).unwrap();
    balancer.admit(&third, Admission::fraction(0.5), Instant::now());
    assert!(Arc::ptr_eq(&before, &balancer.snapshot.load_full()));
    assert_eq!(balancer.wanted_version(), version);
    let mut seen = vec![0; 1001];
    (0..20_000).for_each(|_| seen[usize::from(balancer.pick(&ANY).unwrap().endpoint().address().port())] += 1);
    assert!(seen[1..=400].iter().all(|n| *n == 0));
    assert!(seen[401..].iter().all(|n| *n > 0), "every other takes its part");
    (401..=600).for_each(|port| report(&balancer, port, &down()));
    assert!(!Arc::ptr_eq(&before, &balancer.snapshot.load_full()), "half of them are gone");
    (1..=1000).for_each(|port| report(&balancer, port, &down()));
    assert!(matches!(balancer.pick(&ANY), Err(PickError::Unreachable { healthy: 1000, .. })));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_stands_twice_is_one_endpoint() {
    let balancer = balancer(&[&[("a", 1, &[(1, 1, OK), (1, 1, OK)]), ("b", 1, &[(1, 1, OK)])]]);
    all_ready(&balancer);
    assert_eq!(&*balancer.pick(&ANY).unwrap().endpoint().place().locality.zone, "a");
    report(&balancer, 1, &down());
    assert!(balancer.pick(&ANY).is_err());
}
