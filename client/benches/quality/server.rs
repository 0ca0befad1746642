//! A server: requests share its cores, and its machine's other tenants decide how many it has.
//!
//! Processor sharing: each of `n` requests runs at `speed × min(1, cores / n)`. `done` is the work that a request which
//! was there all the time has received; a request ends when `done` reaches where it was when it came plus its own work.
//! So the order of completions is known, and an arrival costs one heap operation.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};

use super::measure::Latencies;

/// How fast the averages of what a server reports follow, in seconds.
const SMOOTHING: f64 = 1.0;

/// What a server says of itself with a response, as in ORCA.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Report {
    /// CPU used over CPU allocated; above 1 while the machine has room.
    pub(crate) utilization: f64,
    /// Requests answered per second.
    pub(crate) rps: f64,
    /// Requests failed per second.
    pub(crate) eps: f64,
}

/// What a server says to a probe, as in Prequal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    pub(crate) in_flight: u32,
    /// The median latency at about so many in flight, in seconds; `None`: it has not answered yet.
    pub(crate) latency: Option<f64>,
}

/// A number of seconds that has an order.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seconds(f64);

impl Eq for Seconds {}

impl PartialOrd for Seconds {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Seconds {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[derive(Debug)]
pub(crate) struct Server {
    /// The CPU that it is promised, in cores.
    allocation: f64,
    /// The cores that it can use now.
    cores: f64,
    /// How much work a core does in a second when the server is warm: 1 is normal.
    speed: f64,
    /// How many times slower its first request is; 1: it is never cold.
    coldness: f64,
    served: u32,
    pub(crate) alive: bool,
    pub(crate) failing: bool,
    now: f64,
    done: f64,
    ends: BinaryHeap<Reverse<(Seconds, u32)>>,
    /// Those of `ends` that are there no more.
    cancelled: HashSet<u32>,
    report: Report,
    pub(crate) latencies: Latencies,
}

/// A cold server has warmed up, all but a third, after so many requests.
const WARMING: f64 = 150.0;

impl Server {
    pub(crate) fn new(allocation: f64) -> Self {
        Self {
            allocation,
            cores: allocation,
            speed: 1.0,
            coldness: 1.0,
            served: 0,
            alive: true,
            failing: false,
            now: 0.0,
            done: 0.0,
            ends: BinaryHeap::new(),
            cancelled: HashSet::new(),
            report: Report { utilization: 0.0, rps: 0.0, eps: 0.0 },
            latencies: Latencies::default(),
        }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        (self.ends.len() - self.cancelled.len()) as u32
    }

    fn busy(&self) -> f64 {
        f64::from(self.in_flight()).min(self.cores)
    }

    /// The work that each request gets in a second.
    fn rate(&self) -> f64 {
        let warmth = 1.0 / (1.0 + (self.coldness - 1.0) * (-f64::from(self.served) / WARMING).exp());
        self.speed * warmth * (self.cores / f64::from(self.in_flight().max(1))).min(1.0)
    }

    /// Carries its work up to `now`.
    pub(crate) fn advance(&mut self, now: f64) {
        let passed = now - self.now;
        if passed > 0.0 {
            let old = (-passed / SMOOTHING).exp();
            self.report.utilization = self.report.utilization * old + self.busy() / self.allocation * (1.0 - old);
            self.report.rps *= old;
            self.report.eps *= old;
            self.done += passed * self.rate();
            self.now = now;
        }
    }

    pub(crate) fn set_cores(&mut self, now: f64, cores: f64) {
        self.advance(now);
        self.cores = cores;
    }

    pub(crate) fn set_speed(&mut self, speed: f64) {
        self.speed = speed;
    }

    /// As it comes from a restart: its first request is so many times slower.
    pub(crate) fn chill(&mut self, coldness: f64) {
        (self.coldness, self.served) = (coldness, 0);
        self.report = Report { utilization: 0.0, rps: 0.0, eps: 0.0 };
        self.latencies = Latencies::default();
    }

    pub(crate) fn arrive(&mut self, now: f64, request: u32, work: f64) {
        self.advance(now);
        self.ends.push(Reverse((Seconds(self.done + work), request)));
    }

    pub(crate) fn cancel(&mut self, now: f64, request: u32) {
        self.advance(now);
        self.cancelled.insert(request);
        self.skip_cancelled();
    }

    fn skip_cancelled(&mut self) {
        while let Some(Reverse((_, request))) = self.ends.peek()
            && self.cancelled.remove(request)
        {
            self.ends.pop();
        }
    }

    /// When the next request ends, if nothing changes before.
    pub(crate) fn next_end(&self) -> f64 {
        match self.ends.peek() {
            Some(Reverse((end, _))) => self.now + (end.0 - self.done).max(0.0) / self.rate(),
            None => f64::INFINITY,
        }
    }

    /// The request that ends now.
    pub(crate) fn end(&mut self, now: f64) -> Option<u32> {
        self.advance(now);
        let Reverse((_, request)) = self.ends.pop()?;
        self.served += 1;
        self.skip_cancelled();
        self.answered(true);
        Some(request)
    }

    pub(crate) fn answered(&mut self, well: bool) {
        self.report.rps += 1.0 / SMOOTHING;
        if !well {
            self.report.eps += 1.0 / SMOOTHING;
        }
    }

    /// Everybody that is there, who get no answer.
    pub(crate) fn die(&mut self, now: f64) -> Vec<u32> {
        self.advance(now);
        self.alive = false;
        let cancelled = std::mem::take(&mut self.cancelled);
        let mut lost: Vec<u32> = self.ends.drain().map(|Reverse((_, request))| request).collect();
        lost.retain(|request| !cancelled.contains(request));
        lost.sort_unstable();
        lost
    }

    pub(crate) fn report(&self) -> Report {
        self.report
    }

    pub(crate) fn probe(&self) -> Probe {
        let in_flight = self.in_flight();
        Probe { in_flight, latency: self.latencies.at(in_flight) }
    }
}
