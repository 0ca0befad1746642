//! A strategy of one's own: endpoints are compared by the work that they have, not by the number of their requests.
//!
//! Needs no control plane: ten thousand requests, one in ten a hundred times as large, over ten endpoints, by the default
//! and by this strategy. `cargo run --example strategy`
#![expect(clippy::print_stdout, reason = "a program of its own")]

use std::collections::VecDeque;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use portolan_client::balancer::{
    Balancer, Chosen, Cost, End, LeastRequest, Member, Outcome, RequestInfo, Status, Strategy,
};
use portolan_client::xds::model::{AssignedEndpoint, Assignment, EndpointHealth, LocalityEndpoints};

/// The less work of two.
#[derive(Debug)]
struct LeastWork;

impl Strategy for LeastWork {
    type Node = Arc<AtomicU64>;
    type Table = ();

    fn node(&self, _: SocketAddr) -> Self::Node {
        Arc::default()
    }

    fn table(&self, _: &[Member<Self::Node>]) {}

    fn load(&self, work: &Self::Node, _in_flight: u32, _: &RequestInfo<'_>) -> f64 {
        work.load(Relaxed) as f64
    }

    fn started(&self, work: &Self::Node, request: &RequestInfo<'_>) {
        work.fetch_add(request.cost.rest.into(), Relaxed);
    }

    fn ended(&self, work: &Self::Node, end: &End<'_>) {
        work.fetch_sub(end.cost.rest.into(), Relaxed);
    }
}

/// The most work that an endpoint had at once, over the mean.
fn worst(strategy: impl Into<Chosen>) -> Result<f64, Box<dyn Error>> {
    let endpoint = |port| AssignedEndpoint {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        weight: 1,
        health: EndpointHealth::Healthy,
    };
    let locality =
        LocalityEndpoints { locality: Default::default(), weight: 1, endpoints: (1..=10).map(endpoint).collect() };
    let assignment =
        Assignment { cluster: "example".into(), priorities: vec![vec![locality]], ..Assignment::default() };
    let balancer: Balancer = Balancer::new(strategy, 7);
    let now = tokio::time::Instant::now();
    balancer.assign(Arc::new(assignment), now);
    balancer.wanted().iter().for_each(|endpoint| balancer.report(endpoint, Status::Ready, now));
    let mut open = VecDeque::new();
    let mut work = [0u64; 11];
    let (mut most, mut sum) = (0, 0);
    for i in 0..10_000u32 {
        let cost = if i % 10 == 0 { 100 } else { 1 };
        let request = RequestInfo { cost: Cost { first: 0, rest: cost }, ..RequestInfo::default() };
        let pick = balancer.pick(&request)?.hold();
        work[usize::from(pick.endpoint().address().port())] += u64::from(cost);
        open.push_back((pick, cost));
        // A hundred are open at a time.
        if open.len() > 100
            && let Some((ended, cost)) = open.pop_front()
        {
            work[usize::from(ended.endpoint().address().port())] -= u64::from(cost);
            ended.finish(Outcome::Success, None, None);
        }
        most = most.max(work.iter().copied().max().unwrap_or(0));
        sum += work.iter().sum::<u64>() / 10;
    }
    Ok(most as f64 / (sum as f64 / 10_000.0))
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("the most work of an endpoint, over the mean:");
    println!("least request  {:.2}", worst(LeastRequest)?);
    println!("least work     {:.2}", worst(LeastWork)?);
    Ok(())
}
