//! The simulation: requests come at random times whatever becomes of them (open loop), to clients that each pick a
//! server. Simulated time; the same seed gives the same requests, machines and tenants to every strategy.

use std::collections::VecDeque;

use super::draws::Draws;
use super::measure::Measured;
use super::policy::{Outcome, Policy};
use super::server::{Probe, Report, Server};

/// A probe's way there and back, in seconds.
const PROBE: f64 = 0.001;
/// How long a failing server takes to fail, in seconds.
const FAILURE: f64 = 0.001;
const TICK: f64 = 0.1;

/// A machine's other tenants: what they leave to the server, in multiples of its allocation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// How often they want everything, so that the server has its allocation and no more.
    pub(crate) contended: f64,
    /// What they leave otherwise: evenly between these.
    pub(crate) room: (f64, f64),
    /// How long it stays so, in seconds on average.
    pub(crate) period: f64,
}

/// What happens to a server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Speed(f64),
    Die,
    /// Back from the dead, or a new one in its place: so many times slower at first.
    Start(f64),
    Failing(bool),
}

#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) clients: usize,
    pub(crate) machines: Vec<Machine>,
    /// A server is in the zone of its number modulo this.
    pub(crate) zones: usize,
    /// Cores that each server is promised.
    pub(crate) allocation: f64,
    /// Demand, in cores.
    pub(crate) demand: f64,
    /// The mean work of a request, in seconds of one core. Normal with as large a deviation, and never negative.
    pub(crate) work: f64,
    pub(crate) deadline: f64,
    /// In seconds. What begins before `from` is not measured.
    pub(crate) from: f64,
    pub(crate) until: f64,
    pub(crate) events: Vec<(f64, usize, Event)>,
    /// How late reports and probes come.
    pub(crate) stale: f64,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    client: usize,
    server: usize,
    work: f64,
    begun: f64,
    sent: f64,
    in_flight: u32,
    /// Told apart from an earlier one in the same slot.
    serial: u64,
}

/// The first of many servers' next ends: a tournament tree.
#[derive(Debug)]
struct Soonest {
    leaves: usize,
    tree: Vec<(f64, usize)>,
}

impl Soonest {
    fn new(n: usize) -> Self {
        let leaves = n.next_power_of_two();
        Self { leaves, tree: vec![(f64::INFINITY, 0); 2 * leaves] }
    }

    fn set(&mut self, at: usize, time: f64) {
        let mut node = self.leaves + at;
        self.tree[node] = (time, at);
        while node > 1 {
            node /= 2;
            let (left, right) = (self.tree[2 * node], self.tree[2 * node + 1]);
            self.tree[node] = if right.0 < left.0 { right } else { left };
        }
    }

    fn first(&self) -> (f64, usize) {
        self.tree[1]
    }
}

enum Said {
    Report(Report),
    Probe(Probe),
}

pub(crate) struct Simulation<'a> {
    scenario: &'a Scenario,
    servers: Vec<Server>,
    soonest: Soonest,
    clients: Vec<Box<dyn Policy>>,
    requests: Vec<Request>,
    free: Vec<u32>,
    serial: u64,
    deadlines: VecDeque<(f64, u32, u64)>,
    failures: VecDeque<(f64, u32, u64)>,
    asked: VecDeque<(f64, usize, usize)>,
    said: VecDeque<(f64, usize, usize, Said)>,
    tenants: Soonest,
    arrivals: Draws,
    chance: Draws,
    measured: Measured,
}

impl<'a> Simulation<'a> {
    pub(crate) fn new(scenario: &'a Scenario, seed: u64, clients: Vec<Box<dyn Policy>>) -> Self {
        let n = scenario.machines.len();
        let mut simulation = Self {
            scenario,
            servers: (0..n).map(|_| Server::new(scenario.allocation)).collect(),
            soonest: Soonest::new(n),
            clients,
            requests: Vec::new(),
            free: Vec::new(),
            serial: 0,
            deadlines: VecDeque::new(),
            failures: VecDeque::new(),
            asked: VecDeque::new(),
            said: VecDeque::new(),
            tenants: Soonest::new(n),
            arrivals: Draws::new(seed, 1),
            chance: Draws::new(seed, 2),
            measured: Measured::new(),
        };
        for server in 0..n {
            simulation.tenants(0.0, server);
        }
        simulation
    }

    pub(crate) fn run(mut self) -> Measured {
        let scenario = self.scenario;
        let mean_wait = scenario.mean_work() / scenario.demand;
        let mut arrival = self.arrivals.wait(mean_wait);
        let (mut tick, mut ticks) = (TICK, 0u64);
        let mut events = scenario.events.iter().peekable();
        loop {
            let deadline = self.deadlines.front().map_or(f64::INFINITY, |d| d.0);
            let failure = self.failures.front().map_or(f64::INFINITY, |f| f.0);
            let asked = self.asked.front().map_or(f64::INFINITY, |a| a.0);
            let said = self.said.front().map_or(f64::INFINITY, |s| s.0);
            let event = events.peek().map_or(f64::INFINITY, |e| e.0);
            let (end, ending) = self.soonest.first();
            let (tenant, changing) = self.tenants.first();
            let now = [arrival, deadline, failure, asked, said, event, end, tenant, tick]
                .into_iter()
                .fold(f64::INFINITY, f64::min);
            if now >= scenario.until {
                return self.measured;
            }
            if now == event {
                if let Some((_, server, event)) = events.next() {
                    self.happen(now, *server, *event);
                }
            } else if now == end {
                self.end(now, ending);
            } else if now == arrival {
                self.arrive(now);
                arrival = now + self.arrivals.wait(mean_wait);
            } else if now == deadline {
                self.out_of_time(now);
            } else if now == failure {
                self.fail(now);
            } else if now == asked {
                self.answer_probe(now);
            } else if now == said {
                self.hear(now);
            } else if now == tenant {
                self.tenants(now, changing);
            } else {
                self.sample(now);
                self.clients.iter_mut().for_each(|client| client.tick(now));
                ticks += 1;
                tick = (ticks + 1) as f64 * TICK;
                if ticks.is_multiple_of(10) {
                    self.measured.end_second();
                }
            }
        }
    }

    fn happen(&mut self, now: f64, server: usize, event: Event) {
        self.servers[server].advance(now);
        match event {
            Event::Speed(speed) => self.servers[server].set_speed(speed),
            Event::Failing(failing) => self.servers[server].failing = failing,
            Event::Die => {
                let lost = self.servers[server].die(now);
                self.clients.iter_mut().for_each(|client| client.connected(now, server, false));
                // As a transport does when a connection breaks: each goes to another server.
                for id in lost {
                    let request = self.requests[id as usize];
                    let outcome = Outcome { success: false, latency: now - request.sent };
                    self.clients[request.client].finished(now, id, server, outcome);
                    self.send(now, id);
                }
            }
            Event::Start(coldness) => {
                let replaced = self.servers[server].alive;
                self.servers[server].chill(coldness);
                self.servers[server].alive = true;
                for client in &mut self.clients {
                    if replaced { client.replaced(now, server) } else { client.connected(now, server, true) }
                }
            }
        }
        self.soonest.set(server, self.servers[server].next_end());
    }

    /// The tenants of a server's machine want something else from now on.
    fn tenants(&mut self, now: f64, server: usize) {
        let Machine { contended, room, period } = self.scenario.machines[server];
        let contended = self.chance.chance(contended);
        let room = self.chance.between(room.0, room.1);
        let room = if contended { 1.0 } else { room.max(1.0) };
        self.servers[server].set_cores(now, self.scenario.allocation * room);
        self.soonest.set(server, self.servers[server].next_end());
        self.tenants.set(server, now + self.chance.wait(period));
    }

    fn arrive(&mut self, now: f64) {
        let client = self.arrivals.below(self.clients.len());
        let work = loop {
            let work = self.arrivals.normal(self.scenario.work, self.scenario.work);
            if work > 0.0 {
                break work;
            }
        };
        self.serial += 1;
        let request = Request { client, server: 0, work, begun: now, sent: now, in_flight: 0, serial: self.serial };
        let id = match self.free.pop() {
            Some(id) => {
                self.requests[id as usize] = request;
                id
            }
            None => {
                self.requests.push(request);
                self.requests.len() as u32 - 1
            }
        };
        if now >= self.scenario.from {
            self.measured.requests += 1;
        }
        self.deadlines.push_back((now + self.scenario.deadline, id, request.serial));
        self.send(now, id);
    }

    fn send(&mut self, now: f64, id: u32) {
        let client = self.requests[id as usize].client;
        let Some(server) = self.clients[client].pick(now, id) else {
            self.close(id, false);
            return;
        };
        let request = &mut self.requests[id as usize];
        (request.server, request.sent, request.in_flight) = (server, now, self.servers[server].in_flight());
        if self.servers[server].failing {
            self.failures.push_back((now + FAILURE, id, request.serial));
        } else {
            self.servers[server].arrive(now, id, request.work);
            self.soonest.set(server, self.servers[server].next_end());
        }
        for probed in self.clients[client].probes(now) {
            self.asked.push_back((now + PROBE / 2.0, client, probed));
        }
    }

    fn end(&mut self, now: f64, server: usize) {
        let ended = self.servers[server].end(now);
        self.soonest.set(server, self.servers[server].next_end());
        let Some(id) = ended else { return };
        let request = self.requests[id as usize];
        self.servers[server].latencies.add(request.in_flight, now - request.sent);
        self.finish(now, id, true);
    }

    fn fail(&mut self, now: f64) {
        let Some((_, id, serial)) = self.failures.pop_front() else { return };
        let request = self.requests[id as usize];
        if request.serial == serial {
            self.servers[request.server].advance(now);
            self.servers[request.server].answered(false);
            // A failure is an answer, and a fast one: what makes a failing server attractive.
            self.servers[request.server].latencies.add(request.in_flight, now - request.sent);
            self.finish(now, id, false);
        }
    }

    fn out_of_time(&mut self, now: f64) {
        let Some((_, id, serial)) = self.deadlines.pop_front() else { return };
        let request = self.requests[id as usize];
        if request.serial == serial {
            self.servers[request.server].cancel(now, id);
            self.soonest.set(request.server, self.servers[request.server].next_end());
            let outcome = Outcome { success: false, latency: now - request.sent };
            self.clients[request.client].finished(now, id, request.server, outcome);
            if request.begun >= self.scenario.from {
                self.measured.latency(self.scenario.deadline);
            }
            self.close(id, false);
        }
    }

    /// The server's answer reaches its client.
    fn finish(&mut self, now: f64, id: u32, success: bool) {
        let request = self.requests[id as usize];
        let outcome = Outcome { success, latency: now - request.sent };
        let client = &mut self.clients[request.client];
        client.finished(now, id, request.server, outcome);
        let report = self.servers[request.server].report();
        if self.scenario.stale > 0.0 {
            self.said.push_back((now + self.scenario.stale, request.client, request.server, Said::Report(report)));
        } else {
            client.reported(now, request.server, report);
        }
        if success && request.begun >= self.scenario.from {
            self.measured.latency(now - request.begun);
        }
        self.close(id, success);
    }

    fn close(&mut self, id: u32, success: bool) {
        let request = &mut self.requests[id as usize];
        if !success && request.begun >= self.scenario.from {
            self.measured.errors += 1;
        }
        request.serial = 0;
        self.free.push(id);
    }

    fn answer_probe(&mut self, now: f64) {
        let Some((_, client, server)) = self.asked.pop_front() else { return };
        if self.servers[server].alive {
            let probe = self.servers[server].probe();
            // Reports and probes are as late as each other, so that one queue is in order.
            self.said.push_back((now + PROBE / 2.0 + self.scenario.stale, client, server, Said::Probe(probe)));
        }
    }

    fn hear(&mut self, now: f64) {
        let Some((_, client, server, said)) = self.said.pop_front() else { return };
        match said {
            Said::Report(report) => self.clients[client].reported(now, server, report),
            Said::Probe(probe) => self.clients[client].probed(now, server, probe),
        }
    }

    fn sample(&mut self, now: f64) {
        if now < self.scenario.from {
            return;
        }
        let alive = || self.servers.iter().filter(|server| server.alive && !server.failing);
        let mean = alive().map(|server| f64::from(server.in_flight())).sum::<f64>() / alive().count().max(1) as f64;
        if mean > 0.0 {
            let over: Vec<f64> = alive().map(|server| f64::from(server.in_flight()) / mean).collect();
            over.into_iter().for_each(|over| self.measured.load(over));
        }
    }
}

impl Scenario {
    /// Whatever starts in it is so many times slower at first.
    pub(crate) fn start_as_cold_as(&mut self, coldness: f64) {
        for (_, _, event) in &mut self.events {
            if let Event::Start(cold) = event {
                *cold = coldness;
            }
        }
    }

    /// The mean of a normal with deviation = mean, cut at 0: φ(1)/Φ(1) more.
    pub(crate) fn mean_work(&self) -> f64 {
        self.work * (1.0 + 0.241_970_7 / 0.841_344_7)
    }
}
