//! The less loaded of two servers drawn at random, as tower and linkerd do it: by pending requests, and by peak EWMA.

use crate::draws::Draws;
use crate::policy::{Connected, Outcome, Policy};

/// `tower::balance::p2c` over `PendingRequests`.
pub(crate) struct TowerP2c {
    connected: Connected,
    draws: Draws,
    pending: Vec<u32>,
}

impl TowerP2c {
    pub(crate) fn new(servers: usize, draws: Draws) -> Self {
        Self { connected: Connected::new(servers), draws, pending: vec![0; servers] }
    }
}

/// The one of two with the lower cost.
fn choose(up: &[usize], draws: &mut Draws, mut cost: impl FnMut(usize) -> f64) -> Option<usize> {
    match up {
        [] => None,
        [only] => Some(*only),
        up => {
            let (one, other) = draws.two(up.len());
            Some(if cost(up[other]) < cost(up[one]) { up[other] } else { up[one] })
        }
    }
}

impl Policy for TowerP2c {
    fn pick(&mut self, _: f64, _: u32) -> Option<usize> {
        let picked = choose(self.connected.all(), &mut self.draws, |server| f64::from(self.pending[server]))?;
        self.pending[picked] += 1;
        Some(picked)
    }

    fn finished(&mut self, _: f64, _: u32, server: usize, _: Outcome) {
        self.pending[server] -= 1;
    }

    fn connected(&mut self, _: f64, server: usize, up: bool) {
        self.connected.set(server, up);
    }
}

/// `tower::load::PeakEwma` under the same choice: `cost = estimate × (pending + 1)`. A latency above the estimate
/// replaces it; one below moves it by `1 − e^(−t/τ)`, and so does the passing of time towards nothing.
pub(crate) struct PeakEwma {
    connected: Connected,
    draws: Draws,
    servers: Vec<Estimate>,
}

#[derive(Clone, Copy)]
struct Estimate {
    pending: u32,
    seconds: f64,
    at: f64,
}

/// Linkerd's defaults.
const DECAY: f64 = 10.0;
const UNKNOWN: f64 = 0.030;

impl Estimate {
    fn update(&mut self, now: f64, latency: f64) {
        if latency > self.seconds {
            self.seconds = latency;
        } else {
            let old = (-(now - self.at) / DECAY).exp();
            self.seconds = self.seconds * old + latency * (1.0 - old);
        }
        self.at = now;
    }
}

impl PeakEwma {
    pub(crate) fn new(servers: usize, draws: Draws) -> Self {
        let unknown = Estimate { pending: 0, seconds: UNKNOWN, at: 0.0 };
        Self { connected: Connected::new(servers), draws, servers: vec![unknown; servers] }
    }
}

impl Policy for PeakEwma {
    fn pick(&mut self, now: f64, _: u32) -> Option<usize> {
        let picked = choose(self.connected.all(), &mut self.draws, |server| {
            let estimate = &mut self.servers[server];
            estimate.update(now, 0.0);
            estimate.seconds * f64::from(estimate.pending + 1)
        })?;
        self.servers[picked].pending += 1;
        Some(picked)
    }

    fn finished(&mut self, now: f64, _: u32, server: usize, outcome: Outcome) {
        self.servers[server].pending -= 1;
        self.servers[server].update(now, outcome.latency);
    }

    fn connected(&mut self, now: f64, server: usize, up: bool) {
        self.connected.set(server, up);
        if up {
            let pending = self.servers[server].pending;
            self.servers[server] = Estimate { pending, seconds: UNKNOWN, at: now };
        }
    }
}
