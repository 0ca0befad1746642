//! The fleets and what happens to them.
//!
//! The load scenarios are those of Prequal's testbed: machines shared with other tenants, each server promised a tenth of
//! its machine, demand from 0.75 to 1.74 of what is promised in nine equal ratios. The paper does not publish its tenants;
//! ours: on a quarter of the machines they want everything nine tenths of the time, on the others a twentieth, and change
//! their mind every three seconds. The other scenarios change one thing each in a fleet with machines of its own.

use crate::sim::{Event, Machine, Scenario};

const CLIENTS: usize = 100;
pub(crate) const SERVERS: usize = 100;
/// Cores that a server is promised.
const CORES: f64 = 8.0;
/// Of the normal that the work of a request is drawn from, in seconds of one core.
const WORK: f64 = 0.080;
const DEADLINE: f64 = 5.0;
/// Weighted round robin believes reports after ten seconds; everyone is measured once that is over.
const FROM: f64 = 15.0;
const UNTIL: f64 = 45.0;

/// Demand over what is promised, as in the paper: each 10/9 of the one before.
pub(crate) const LOADS: [(&str, f64); 9] = [
    ("load-0.75", 0.75),
    ("load-0.83", 0.83),
    ("load-0.93", 0.93),
    ("load-1.03", 1.03),
    ("load-1.14", 1.14),
    ("load-1.27", 1.27),
    ("load-1.41", 1.41),
    ("load-1.57", 1.57),
    ("load-1.74", 1.74),
];

/// Machines that the servers have to themselves.
fn quiet(name: &'static str, load: f64) -> Scenario {
    let own = Machine { contended: 0.0, room: (1.0, 1.0), period: f64::INFINITY };
    Scenario {
        name,
        clients: CLIENTS,
        machines: vec![own; SERVERS],
        zones: 1,
        allocation: CORES,
        demand: load * CORES * SERVERS as f64,
        work: WORK,
        deadline: DEADLINE,
        from: FROM,
        until: UNTIL,
        events: Vec::new(),
        stale: 0.0,
    }
}

/// Machines with other tenants; `servers` of them for the demand of a hundred at `load`.
pub(crate) fn shared(name: &'static str, load: f64, servers: usize) -> Scenario {
    let busy = Machine { contended: 0.9, room: (1.0, 3.0), period: 3.0 };
    let usual = Machine { contended: 0.05, room: (2.0, 4.0), period: 3.0 };
    let machines = (0..servers).map(|at| if at % 4 == 0 { busy } else { usual }).collect();
    Scenario { machines, ..quiet(name, load) }
}

fn with(mut scenario: Scenario, events: impl IntoIterator<Item = (f64, usize, Event)>) -> Scenario {
    scenario.events.extend(events);
    scenario.events.sort_by(|a, b| a.0.total_cmp(&b.0));
    scenario
}

/// All of them, in the order of the report.
pub(crate) fn all() -> Vec<Scenario> {
    let mut all: Vec<Scenario> = LOADS.iter().map(|(name, load)| shared(name, *load, SERVERS)).collect();
    // Every other server works at half the speed: three quarters of the fleet's work is left for demand of 0.55.
    let half_slow = (0..SERVERS).step_by(2).map(|at| (0.0, at, Event::Speed(0.5)));
    all.push(with(quiet("half-slow", 0.55), half_slow));
    all.push(with(quiet("antagonist", 0.7), antagonist()));
    // A fifth of the fleet is replaced at once, eight times slower until it has warmed up.
    all.push(with(quiet("cold-pods", 0.7), (0..SERVERS).step_by(5).map(|at| (20.0, at, Event::Start(8.0)))));
    all.push(with(quiet("fast-failing-host", 0.7), [(18.0, 7, Event::Failing(true))]));
    let zone = || (0..SERVERS).step_by(3);
    let lost = zone().map(|at| (20.0, at, Event::Die));
    let back = zone().map(|at| (27.0, at, Event::Start(5.0)));
    let zones = Scenario { zones: 3, ..quiet("zone-lost-and-back", 0.5) };
    all.push(with(zones, lost.chain(back)));
    all.push(Scenario { stale: 1.0, ..shared("stale-1s", 0.93, SERVERS) });
    all.push(Scenario { stale: 5.0, ..shared("stale-5s", 0.93, SERVERS) });
    all
}

/// A noisy neighbour slows a tenth of the servers to 0.4 of their speed for five seconds, then another tenth.
fn antagonist() -> Vec<(f64, usize, Event)> {
    let turns = (UNTIL / 5.0) as usize;
    let tenth = |turn: usize| (turn % 10..SERVERS).step_by(10);
    let turn = |turn: usize| {
        let at = turn as f64 * 5.0;
        let slow = tenth(turn).map(move |server| (at, server, Event::Speed(0.4)));
        let fast = tenth(turn).map(move |server| (at + 5.0, server, Event::Speed(1.0)));
        slow.chain(fast)
    };
    (0..turns).flat_map(turn).collect()
}
