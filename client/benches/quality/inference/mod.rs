//! The strategies for inference against plain P2C: a generated trace of conversations on simulated model servers.
//!
//! Time to first token is what people wait for; the prompts' tokens found in a server's cache are what saves its work.
//! Gateways run the real balancer, each with the sessions that are connected to it.

mod server;
mod trace;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use portolan_client::balancer::strategies::{PrefixAffinity, RequestCost};
use portolan_client::balancer::{
    Balancer, Chosen, Cost, LeastRequest, Member, Outcome, Pick, RequestInfo, Status, Strategy,
};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use self::server::{Done, Server};
use self::trace::{Prompt, Trace};
use crate::draws::Draws;
use crate::ours;

const GATEWAYS: usize = 4;
const SERVERS: usize = 16;
const SEED: u64 = 42;
/// In seconds; what comes before `FROM` fills caches and is not measured.
const FROM: f64 = 60.0;
const UNTIL: f64 = 360.0;
/// What a gateway expects an answer to be: it cannot know.
const EXPECTED: u32 = 200;
/// New sessions a second: the second is about what servers can bear without their caches.
const LOADS: [(&str, f64); 2] = [("inference-steady", 4.0), ("inference-busy", 7.0)];

/// The better of two by requests in flight, and nothing else.
#[derive(Debug)]
struct TwoChoices;

impl Strategy for TwoChoices {
    type Node = ();
    type Table = ();

    fn node(&self, _: std::net::SocketAddr) {}

    fn table(&self, _: &[Member<()>]) {}
}

const NAMES: [&str; 4] = ["p2c", "default", "request_cost", "prefix_affinity"];

fn strategy(name: &str) -> Chosen {
    match name {
        "p2c" => TwoChoices.into(),
        "request_cost" => RequestCost.into(),
        "prefix_affinity" => PrefixAffinity::default().into(),
        _ => LeastRequest.into(),
    }
}

/// What a run came to.
struct Measured {
    /// In milliseconds.
    first_token: Histogram<u64>,
    tokens: u64,
    cached: u64,
}

/// The runs of one load.
pub(crate) struct Results(Vec<(&'static str, Vec<(&'static str, Measured)>)>);

/// Runs every strategy on the same traces.
pub(crate) fn run() -> Results {
    let runs = |rate| NAMES.into_iter().map(|name| (name, Run::new(name, rate).run())).collect();
    Results(LOADS.into_iter().map(|(load, rate)| (load, runs(rate))).collect())
}

impl Results {
    pub(crate) fn table(&self) -> String {
        let mut table = "SCENARIO            STRATEGY         FIRST TOKEN P50 ms    P99 ms   FROM CACHE".to_owned();
        for (load, runs) in &self.0 {
            for (name, measured) in runs {
                let (p50, p99, hits) = (measured.quantile(0.5), measured.quantile(0.99), measured.hits() * 100.0);
                // Writing to a string cannot fail.
                let _ = write!(table, "\n{load:20}{name:20}{p50:15}{p99:10}{hits:12.1}%");
            }
        }
        table
    }

    pub(crate) fn json(&self) -> Value {
        let of = |measured: &Measured| {
            let (p50, p99) = (measured.quantile(0.5), measured.quantile(0.99));
            json!({"ttft_p50_ms": p50, "ttft_p99_ms": p99, "cache_hits": measured.hits()})
        };
        let load = |(load, runs): &(&str, Vec<(&str, Measured)>)| {
            let strategies: Map<String, Value> =
                runs.iter().map(|(name, measured)| ((*name).to_owned(), of(measured))).collect();
            json!({"name": load, "strategies": strategies})
        };
        self.0.iter().map(load).collect()
    }
}

impl Measured {
    fn quantile(&self, quantile: f64) -> u64 {
        self.first_token.value_at_quantile(quantile)
    }

    /// The part of the prompts' tokens that was in a cache.
    fn hits(&self) -> f64 {
        self.cached as f64 / self.tokens.max(1) as f64
    }
}

/// What happens next; the order of the variants decides among what happens at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Begins,
    /// A session's next turn.
    Turn(usize),
    /// A server's next step, unless something changed there since.
    Server(usize, u64),
    Tick,
}

struct Open {
    session: usize,
    prompt: Prompt,
    begun: f64,
    pick: Pick<()>,
}

struct Run {
    trace: Trace,
    gateways: Vec<Balancer>,
    servers: Vec<Server>,
    open: HashMap<u64, Open>,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    start: Instant,
    requests: u64,
    measured: Measured,
}

/// Nanoseconds have an order.
fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

impl Run {
    fn new(name: &str, sessions_per_second: f64) -> Self {
        let start = Instant::now();
        let gateway = |at: usize| {
            let balancer = Balancer::new(strategy(name), Draws::new(SEED, 1000 + at as u64).bits());
            balancer.assign(Arc::new(ours::assignment(SERVERS, 1)), start);
            balancer.wanted().iter().for_each(|endpoint| balancer.report(endpoint, Status::Ready, start));
            balancer
        };
        let first_token = Histogram::new_with_max(600_000, 3).expect("its bounds are in order");
        let mut run = Self {
            trace: Trace::new(SEED, sessions_per_second),
            gateways: (0..GATEWAYS).map(gateway).collect(),
            servers: (0..SERVERS).map(|_| Server::default()).collect(),
            open: HashMap::new(),
            events: BinaryHeap::new(),
            start,
            requests: 0,
            measured: Measured { first_token, tokens: 0, cached: 0 },
        };
        run.at(0.0, Event::Begins);
        run.at(1.0, Event::Tick);
        run
    }

    fn at(&mut self, seconds: f64, event: Event) {
        self.events.push(Reverse((nanos(seconds), event)));
    }

    fn run(mut self) -> Measured {
        while let Some(Reverse((at, event))) = self.events.pop() {
            let now = at as f64 / 1e9;
            if now >= UNTIL {
                break;
            }
            match event {
                Event::Begins => {
                    let session = self.trace.begin();
                    self.ask(now, session);
                    let wait = self.trace.next_session();
                    self.at(now + wait, Event::Begins);
                }
                Event::Turn(session) => self.ask(now, session),
                Event::Server(server, version) if self.servers[server].version() == version => {
                    if let Some(done) = self.servers[server].step(now) {
                        self.done(now, done);
                    }
                    self.wake(server);
                }
                Event::Server(..) => {}
                Event::Tick => {
                    let instant = self.start + Duration::from_secs_f64(now);
                    for gateway in &self.gateways {
                        gateway.tick(instant);
                    }
                    self.at(now + 1.0, Event::Tick);
                }
            }
        }
        self.measured
    }

    /// A session's next prompt goes out.
    fn ask(&mut self, now: f64, session: usize) {
        let prompt = self.trace.prompt(session);
        let cost = Cost { first: prompt.tokens(), rest: EXPECTED };
        let prefix: Vec<u64> = prompt.prefixes.iter().map(|(hash, _)| *hash).collect();
        let pick =
            self.gateways[session % GATEWAYS].pick(&RequestInfo { cost, prefix: &prefix, ..RequestInfo::default() });
        let pick = pick.expect("no server is ever lost here").hold();
        let server = usize::from(pick.endpoint().address().port()) - 1;
        self.requests += 1;
        let cached = self.servers[server].ask(now, self.requests, &prompt);
        if now >= FROM {
            self.measured.tokens += u64::from(prompt.tokens());
            self.measured.cached += u64::from(cached);
        }
        self.open.insert(self.requests, Open { session, prompt, begun: now, pick });
        self.wake(server);
    }

    fn wake(&mut self, server: usize) {
        if let Some(at) = self.servers[server].next_step() {
            let version = self.servers[server].version();
            self.at(at, Event::Server(server, version));
        }
    }

    fn done(&mut self, now: f64, done: Done) {
        match done {
            Done::FirstToken(request) => {
                let Some(open) = self.open.get_mut(&request) else { return };
                open.pick.answered(Duration::from_secs_f64(now - open.begun));
                if open.begun >= FROM {
                    self.measured.first_token.saturating_record(((now - open.begun) * 1e3) as u64);
                }
            }
            Done::Answer(request) => {
                let Some(open) = self.open.remove(&request) else { return };
                open.pick.finish(Outcome::Success, Some(Duration::from_secs_f64(now - open.begun)), None);
                if let Some(wait) = self.trace.answered(open.session, &open.prompt) {
                    self.at(now + wait, Event::Turn(open.session));
                }
            }
        }
    }
}
