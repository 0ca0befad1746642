//! The real balancer in the simulation, as the channel drives it: one for each client, with simulated time handed in.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use portolan_client::balancer::{Balancer, Endpoint, LeastRequest, Outcome, Pick, RequestInfo, Status};
use portolan_client::xds::model::{
    AssignedEndpoint, Assignment, EndpointHealth, Failback, LocalityEndpoints, LocalityName,
};
use tokio::time::Instant;

use crate::draws::Draws;
use crate::policy::{self, Policy};

pub(crate) struct Ours {
    balancer: Balancer,
    endpoints: Vec<Arc<Endpoint<()>>>,
    open: HashMap<u32, Pick<()>>,
    start: Instant,
}

/// Zones that are localities of one priority; a lost one takes its share back within ten seconds, after three.
pub(crate) fn assignment(servers: usize, zones: usize) -> Assignment {
    let endpoint = |server: usize| AssignedEndpoint {
        address: ([127, 0, 0, 1], 1 + server as u16).into(),
        weight: 1,
        health: EndpointHealth::Healthy,
    };
    let zone = |zone: usize| LocalityEndpoints {
        locality: LocalityName { zone: zone.to_string().into(), ..LocalityName::default() },
        weight: (zone..servers).step_by(zones).count() as u32,
        endpoints: (zone..servers).step_by(zones).map(endpoint).collect(),
    };
    Assignment {
        cluster: "simulated".into(),
        priorities: vec![(0..zones).map(zone).collect()],
        failback: Failback { ramp: Duration::from_secs(10), hold_down: Duration::from_secs(3) },
        ..Assignment::default()
    }
}

impl Ours {
    pub(crate) fn new(servers: usize, zones: usize, mut draws: Draws) -> Self {
        let (balancer, start) = (Balancer::new(LeastRequest, draws.bits()), Instant::now());
        balancer.assign(Arc::new(assignment(servers, zones)), start);
        let mut endpoints = balancer.wanted();
        endpoints.sort_by_key(|endpoint| endpoint.address().port());
        for endpoint in &endpoints {
            balancer.report(endpoint, Status::Ready, start);
        }
        Self { balancer, endpoints, open: HashMap::new(), start }
    }

    fn at(&self, now: f64) -> Instant {
        self.start + Duration::from_secs_f64(now)
    }
}

impl Policy for Ours {
    fn pick(&mut self, _: f64, request: u32) -> Option<usize> {
        let pick = self.balancer.pick(&RequestInfo::default()).ok()?.hold();
        let server = usize::from(pick.endpoint().address().port()) - 1;
        self.open.insert(request, pick);
        Some(server)
    }

    fn finished(&mut self, _: f64, request: u32, _: usize, outcome: policy::Outcome) {
        if let Some(pick) = self.open.remove(&request) {
            let latency = Duration::from_secs_f64(outcome.latency);
            let outcome = if outcome.success { Outcome::Success } else { Outcome::Failure };
            pick.finish(outcome, Some(latency), None);
        }
    }

    fn connected(&mut self, now: f64, server: usize, up: bool) {
        let status = if up { Status::Ready } else { Status::Down("the connection was reset".into()) };
        self.balancer.report(&self.endpoints[server], status, self.at(now));
    }

    fn tick(&mut self, now: f64) {
        self.balancer.tick(self.at(now));
    }
}
