//! Prequal (Wydrowski, Kleinberg, Rumble, Archer: "Load is not what you should balance", NSDI 2024), with asynchronous
//! probes and the paper's parameters.
//!
//! Each request sends probes to servers drawn at random; the answers (requests in flight, latency) stay in a small pool.
//! An answer is *hot* if its requests in flight are above a quantile of those seen lately. The coldest in latency among
//! the cold is picked; if all are hot, the one with the fewest requests in flight. What the paper does not publish, its
//! guard against servers that fail fast, is not here.

use std::collections::VecDeque;

use crate::draws::Draws;
use crate::policy::{Connected, Outcome, Policy};
use crate::server::Probe;

const POOL: usize = 16;
const PROBES_PER_REQUEST: f64 = 3.0;
const REMOVED_PER_REQUEST: usize = 1;
/// An answer this old is not used, in seconds.
const OLDEST: f64 = 1.0;
/// The net rate at which probes exceed uses and removals.
const DELTA: f64 = 1.0;
/// 2^-0.25: above this quantile an answer is hot.
const HOT: f64 = 0.840_9;
/// Requests in flight of so many answers are remembered, to know their quantiles.
const REMEMBERED: usize = 128;
/// With fewer answers than this the choice is random.
const FEWEST: usize = 2;

#[derive(Clone, Copy)]
struct Answer {
    server: usize,
    in_flight: u32,
    latency: f64,
    at: f64,
    uses: f64,
}

pub(crate) struct Prequal {
    connected: Connected,
    draws: Draws,
    pool: Vec<Answer>,
    seen: VecDeque<u32>,
    owed: f64,
    remove_oldest: bool,
}

impl Prequal {
    pub(crate) fn new(servers: usize, draws: Draws) -> Self {
        let connected = Connected::new(servers);
        Self { connected, draws, pool: Vec::new(), seen: VecDeque::new(), owed: 0.0, remove_oldest: false }
    }

    /// At how many requests in flight a server is hot.
    fn threshold(&self) -> u32 {
        let mut sorted: Vec<u32> = self.seen.iter().copied().collect();
        if sorted.is_empty() {
            return u32::MAX;
        }
        let at = ((sorted.len() - 1) as f64 * HOT) as usize;
        *sorted.select_nth_unstable(at).1
    }

    fn best(&self, threshold: u32) -> Option<usize> {
        let cold = |answer: &&Answer| answer.in_flight <= threshold;
        let by_latency = |a: &&Answer, b: &&Answer| a.latency.total_cmp(&b.latency);
        let best = self.pool.iter().filter(cold).min_by(by_latency);
        let best = best.or_else(|| self.pool.iter().min_by_key(|answer| answer.in_flight))?;
        self.pool.iter().position(|answer| std::ptr::eq(answer, best))
    }

    /// One answer goes with each request, by turns the oldest and the worst, so that the pool does not fill with bad ones.
    fn remove(&mut self, threshold: u32) {
        self.remove_oldest = !self.remove_oldest;
        let pool = || self.pool.iter().enumerate();
        let gone = if self.remove_oldest {
            pool().min_by(|a, b| a.1.at.total_cmp(&b.1.at))
        } else if pool().any(|(_, answer)| answer.in_flight > threshold) {
            pool().max_by_key(|(_, answer)| answer.in_flight)
        } else {
            pool().max_by(|a, b| a.1.latency.total_cmp(&b.1.latency))
        };
        if let Some((at, _)) = gone {
            self.pool.swap_remove(at);
        }
    }

    /// How often an answer may be used, so that the pool neither dries up nor grows old.
    fn reuses(&self) -> f64 {
        let kept = 1.0 - POOL as f64 / self.connected.all().len().max(POOL + 1) as f64;
        let gained = kept * PROBES_PER_REQUEST - REMOVED_PER_REQUEST as f64;
        if gained > 0.0 { ((1.0 + DELTA) / gained).max(1.0) } else { f64::INFINITY }
    }
}

impl Policy for Prequal {
    fn pick(&mut self, now: f64, _: u32) -> Option<usize> {
        self.pool.retain(|answer| now - answer.at < OLDEST);
        let up = self.connected.all();
        if up.is_empty() {
            return None;
        }
        if self.pool.len() < FEWEST {
            return Some(up[self.draws.below(up.len())]);
        }
        let threshold = self.threshold();
        let at = self.best(threshold)?;
        let server = self.pool[at].server;
        // It has one more from now on, as far as this client knows.
        self.pool[at].in_flight += 1;
        self.pool[at].uses += 1.0;
        let reuses = self.reuses();
        let allowed = reuses.floor() + if self.draws.chance(reuses.fract()) { 1.0 } else { 0.0 };
        if self.pool[at].uses >= allowed {
            self.pool.swap_remove(at);
        }
        for _ in 0..REMOVED_PER_REQUEST {
            self.remove(threshold);
        }
        Some(server)
    }

    fn probes(&mut self, _: f64) -> Vec<usize> {
        self.owed += PROBES_PER_REQUEST;
        let up = self.connected.all();
        let mut probed = Vec::new();
        while self.owed >= 1.0 {
            self.owed -= 1.0;
            let server = up[self.draws.below(up.len())];
            if !probed.contains(&server) {
                probed.push(server);
            }
        }
        probed
    }

    fn probed(&mut self, now: f64, server: usize, probe: Probe) {
        if self.connected.all().binary_search(&server).is_err() {
            return;
        }
        if self.seen.len() == REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back(probe.in_flight);
        // Of a server that has answered nobody yet nothing is known: it counts as middling.
        let middling = || {
            let mut latencies: Vec<f64> = self.pool.iter().map(|answer| answer.latency).collect();
            let middle = latencies.len() / 2;
            if latencies.is_empty() { 0.0 } else { *latencies.select_nth_unstable_by(middle, f64::total_cmp).1 }
        };
        let latency = probe.latency.unwrap_or_else(middling);
        self.pool.retain(|answer| answer.server != server);
        if self.pool.len() == POOL {
            let oldest = (0..POOL).min_by(|a, b| self.pool[*a].at.total_cmp(&self.pool[*b].at));
            if let Some(oldest) = oldest {
                self.pool.swap_remove(oldest);
            }
        }
        self.pool.push(Answer { server, in_flight: probe.in_flight, latency, at: now, uses: 0.0 });
    }

    fn finished(&mut self, _: f64, _: u32, _: usize, _: Outcome) {}

    fn connected(&mut self, _: f64, server: usize, up: bool) {
        self.connected.set(server, up);
        self.pool.retain(|answer| answer.server != server);
    }
}
