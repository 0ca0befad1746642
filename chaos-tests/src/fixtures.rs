//! A scenario and a run made by hand, for the tests of verdicts and reports.

use std::time::Duration;

use portolan_topology::names::Locality;
use portolan_topology::topology::Topology;

use crate::measure::{Backend, BackendId, Call, Client, ClientId, Death, Record};
use crate::scenario::{Scenario, builtin, parse};
use crate::verdict::{Observed, StepTime};

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A region is killed at 10 s and restarted at 25 s; the run ends at 50 s.
pub(crate) fn scenario(expectations: &[&str]) -> Scenario {
    let topology = Topology::parse("topology.yaml", builtin::TOPOLOGY).unwrap().0;
    let text = format!(
        "apiVersion: portolan.dev/v1alpha1
kind: Scenario
metadata: {{name: by-hand}}
spec:
  select: {{lost: {{region: first}}}}
  services: [{{name: checkout.shop, port: 8080, backendsPerZone: 1}}]
  clients: [{{service: checkout.shop, rate: 500}}]
  steps:
    - {{name: kill, at: 10s, kill: {{scope: $lost}}}}
    - {{name: restart, at: 25s, restart: {{scope: $lost}}}}
  duration: 50s
  expect: [{}]
",
        expectations.join(",\n           ")
    );
    parse("by-hand.yaml", &text, &topology).unwrap_or_else(|refused| panic!("{refused}"))
}

/// One client and one backend in each region. The client of us-east calls 500 times a second, the others 100 times. After
/// the kill its calls fail for 520 ms while two more were in flight; then 70% go west. From 30 s to 40 s they come home.
pub(crate) fn region_loss() -> Observed {
    let place = |region: &str, zone: &str, cluster: &str| Locality {
        region: region.parse().unwrap(),
        zone: Some(zone.parse().unwrap()),
        cluster: cluster.parse().unwrap(),
    };
    let places = [
        place("us-east", "us-east-1a", "use1-a"),
        place("us-west", "us-west-2a", "usw2-a"),
        place("eu-west", "eu-west-1a", "euw1-a"),
    ];
    let service = || "checkout.shop".parse().unwrap();
    let mut calls: Vec<Call> = (0..25_000_u64)
        .map(|index| {
            let start = index * 2;
            // Shuffled by a step prime to 100, so that shares are even at every moment.
            let ticket = (index * 37) % 100;
            let away = if ticket % 10 < 7 { 1 } else { 2 };
            let home_percent = start.saturating_sub(30_000) / 100;
            let (backend, ok) = match start {
                ..10_000 => (0, true),
                10_000..10_520 => (0, false),
                10_520..30_000 => (away, true),
                _ => (if (index * 59) % 100 < home_percent { 0 } else { away }, true),
            };
            call(0, start, backend, ok)
        })
        .collect();
    for client in [1, 2] {
        calls.extend((0..5_000_u64).map(|index| call(client, index * 10, client, true)));
    }
    Observed {
        record: Record {
            clients: places.iter().map(|at| Client { service: service(), locality: at.clone() }).collect(),
            backends: places
                .iter()
                .map(|at| Backend {
                    name: format!("checkout-{}", at.cluster),
                    service: service(),
                    locality: at.clone(),
                    removed: None,
                })
                .collect(),
            calls,
            earlier: Vec::new(),
            // Long enough for all the failed calls to be in flight.
            deaths: vec![Death { backend: BackendId(0), killed: ms(10_000), gone: ms(10_520) }],
        },
        steps: vec![StepTime { began: ms(10_000), done: ms(10_520) }, StepTime { began: ms(25_000), done: ms(26_000) }],
        duration: ms(50_000),
        ..Observed::default()
    }
}

fn call(client: u16, start: u64, backend: u16, ok: bool) -> Call {
    Call {
        client: ClientId(client),
        start: ms(start),
        sent: ms(start),
        end: ms(start + 5),
        backend: Some(BackendId(backend)),
        callee: None,
        ok,
    }
}
