//! Weighted round robin over what servers report, as gRPC computes it (proposal A58).
//!
//! `weight = rps / (utilization + eps / rps × penalty)`. A server's weight is used after the blackout period, until it
//! expires; who has none gets the mean of the others. Weights are taken up once per update period. Servers are passed
//! in turn, and each is taken as often as its weight against the largest (the "static stride" schedule).

use crate::draws::Draws;
use crate::policy::{Connected, Outcome, Policy};
use crate::server::Report;

const BLACKOUT: f64 = 10.0;
const EXPIRY: f64 = 180.0;
const UPDATE: f64 = 1.0;
const PENALTY: f64 = 1.0;
/// The largest weight of the schedule.
const SCALE: f64 = 65535.0;

#[derive(Clone, Copy)]
struct Weight {
    value: f64,
    /// When the first report came; `None`: none yet.
    since: Option<f64>,
    last: f64,
}

pub(crate) struct WeightedRoundRobin {
    connected: Connected,
    draws: Draws,
    weights: Vec<Weight>,
    /// Of the connected, in their order.
    schedule: Vec<u64>,
    sequence: u64,
    updated: f64,
}

impl WeightedRoundRobin {
    pub(crate) fn new(servers: usize, mut draws: Draws) -> Self {
        let none = Weight { value: 0.0, since: None, last: 0.0 };
        // Clients start out of step with each other, in their turn and in their updates.
        let (sequence, updated) = (draws.below(servers) as u64, -draws.fraction() * UPDATE);
        let connected = Connected::new(servers);
        Self { connected, draws, weights: vec![none; servers], schedule: Vec::new(), sequence, updated }
    }

    fn update(&mut self, now: f64) {
        let usable = |weight: &Weight| {
            let old_enough = weight.since.is_some_and(|since| now - since >= BLACKOUT);
            (old_enough && now - weight.last < EXPIRY && weight.value > 0.0).then_some(weight.value)
        };
        let weights: Vec<Option<f64>> = self.connected.all().iter().map(|at| usable(&self.weights[*at])).collect();
        let known: Vec<f64> = weights.iter().copied().flatten().collect();
        // With fewer than two weights it is plain round robin.
        let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
        let largest = known.iter().copied().fold(0.0, f64::max);
        let scaled = |weight: Option<f64>| ((weight.unwrap_or(mean) / largest * SCALE).round() as u64).max(1);
        let even = known.len() < 2;
        self.schedule = weights.into_iter().map(|weight| if even { SCALE as u64 } else { scaled(weight) }).collect();
        self.updated = now;
    }
}

impl Policy for WeightedRoundRobin {
    fn pick(&mut self, now: f64, _: u32) -> Option<usize> {
        let up = self.connected.all().len() as u64;
        if up == 0 {
            return None;
        }
        if self.schedule.len() as u64 != up || now - self.updated >= UPDATE {
            self.update(now);
        }
        loop {
            self.sequence += 1;
            let (at, generation) = ((self.sequence % up) as usize, self.sequence / up);
            let weight = self.schedule[at];
            // Each is offset, so that heavy ones do not all come in the same generation.
            let offset = SCALE as u64 / 2 * at as u64;
            if (weight * generation + offset) % SCALE as u64 >= SCALE as u64 - weight {
                return Some(self.connected.all()[at]);
            }
        }
    }

    fn finished(&mut self, _: f64, _: u32, _: usize, _: Outcome) {}

    fn reported(&mut self, now: f64, server: usize, report: Report) {
        if report.rps <= 0.0 || report.utilization <= 0.0 {
            return;
        }
        let weight = &mut self.weights[server];
        weight.since.get_or_insert(now);
        weight.last = now;
        weight.value = report.rps / (report.utilization + report.eps / report.rps * PENALTY);
    }

    fn connected(&mut self, now: f64, server: usize, up: bool) {
        self.connected.set(server, up);
        self.sequence = self.draws.bits() % 1_000_000;
        if up {
            self.weights[server].since = None;
        }
        self.update(now);
    }
}
