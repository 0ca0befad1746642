//! Whatever happens, what is served can be served.

use std::collections::HashSet;

use portolan_federation::model::RemoteList;
use portolan_topology::view::Liveness;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::served::{Served, ServedService};
use super::world::{World, list, query, zones};
use super::*;

/// Endpoints by zone, as text.
type InZones = Vec<(&'static str, Vec<String>)>;

/// The same as the world takes it.
type Borrowed<'a> = [(&'a str, &'a [&'a str])];

/// Something that happens to the one service there is.
#[derive(Debug, Clone)]
enum Event {
    Local(InZones),
    Facts(&'static str, InZones),
    List(&'static str, bool, InZones),
    Liveness(&'static str, Liveness, bool),
    Wait(u64),
}

/// Few addresses, so that they meet.
fn addresses() -> impl Strategy<Value = Vec<String>> {
    let address =
        (0..8_u8, any::<bool>()).prop_map(|(last, ready)| format!("10.0.0.{last}:80{}", if ready { "" } else { "!" }));
    prop::collection::btree_map(0..8_u8, address, 0..4).prop_map(|addresses| {
        let mut seen = HashSet::new();
        let texts = addresses.into_values().filter(|text| seen.insert(text.trim_end_matches('!').to_owned()));
        let mut texts: Vec<_> = texts.collect();
        texts.sort();
        texts
    })
}

fn in_zones(zones: &'static [&'static str]) -> impl Strategy<Value = InZones> {
    let one = |zone: &'static str| addresses().prop_map(move |addresses| (zone, addresses));
    zones.iter().map(|zone| one(zone)).collect::<Vec<_>>()
}

fn other() -> impl Strategy<Value = (&'static str, InZones)> {
    prop_oneof![
        in_zones(&["e1", "e2"]).prop_map(|zones| ("east-b", zones)),
        in_zones(&["w1"]).prop_map(|zones| ("west-a", zones)),
        in_zones(&["f1"]).prop_map(|zones| ("far-a", zones)),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let liveness =
        select(vec![Liveness::Fresh, Liveness::Suspect, Liveness::Stale, Liveness::Failed, Liveness::Isolated]);
    let event = prop_oneof![
        in_zones(&["e1", "e2"]).prop_map(Event::Local),
        other().prop_map(|(cluster, zones)| Event::Facts(cluster, zones)),
        (other(), any::<bool>()).prop_map(|((cluster, zones), synced)| Event::List(cluster, synced, zones)),
        (other(), liveness, any::<bool>())
            .prop_map(|((cluster, _), state, complete)| Event::Liveness(cluster, state, complete)),
        (0..90_u64).prop_map(Event::Wait),
    ];
    prop::collection::vec(event, 1..25)
}

fn apply(world: &mut World, event: Event) {
    fn borrowed(zones: &InZones) -> Vec<(&'static str, Vec<&str>)> {
        zones.iter().map(|(zone, texts)| (*zone, texts.iter().map(String::as_str).collect())).collect()
    }
    let all = |zones: &InZones, then: &mut dyn FnMut(&Borrowed<'_>)| {
        let zones = borrowed(zones);
        let zones: Vec<(&str, &[&str])> = zones.iter().map(|(zone, texts)| (*zone, texts.as_slice())).collect();
        then(&zones);
    };
    match event {
        Event::Local(of) => all(&of, &mut |of| world.local("a.shop", of)),
        Event::Facts(cluster, of) => all(&of, &mut |of| world.facts(cluster, "a.shop", of)),
        Event::List(cluster, synced, of) => {
            all(&of, &mut |of| world.list(cluster, "a.shop", RemoteList { synced, ..list(zones(of)) }));
        }
        Event::Liveness(cluster, state, complete) => world.told(cluster, |told| {
            told.liveness = state;
            told.complete = complete;
        }),
        Event::Wait(time) => world.wait(seconds(time)),
    }
}

fn check(served: &ServedService) -> Result<(), TestCaseError> {
    let mut localities = HashSet::new();
    let mut addresses = HashSet::new();
    for priority in &served.plan.priorities {
        prop_assert!(!priority.is_empty(), "a priority without localities");
        for planned in priority {
            prop_assert!(localities.insert(&planned.locality), "{} stands twice", planned.locality);
            let endpoints = served.endpoints.get(&planned.locality);
            prop_assert!(endpoints.is_some_and(|all| !all.is_empty()), "{} has no endpoints", planned.locality);
            for endpoint in endpoints.into_iter().flat_map(|all| all.iter()) {
                prop_assert!(addresses.insert(endpoint.address), "{} stands twice", endpoint.address);
            }
        }
    }
    prop_assert_eq!(served.endpoints.len(), localities.len(), "endpoints of a locality that is not in the plan");
    if let Some(first) = served.plan.priorities.first().filter(|first| !first[0].unhealthy) {
        let sum: f64 = first.iter().map(|planned| planned.share).sum();
        prop_assert!((sum - 1.0).abs() < 1e-6, "shares sum to {sum}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn what_is_served_can_be_served(events in events(), hold in prop::option::of(0..60_u64)) {
        let mut world = World::new();
        if let Some(hold) = hold {
            world.policy(&format!("loadBalancer: {{warmup: {{hold: {hold}s, window: 30s}}}}"));
        }
        let clients = ["e1/east-a", "e2/east-b", "w1/west-a", "f1/far-a"];
        let answers: Vec<_> = clients.iter().map(|client| world.watch(query("a.shop", client))).collect();
        for event in events {
            apply(&mut world, event);
            for answer in &answers {
                if let Served::Present(served) = &*answer.borrow() {
                    check(served)?;
                }
            }
        }
    }

    #[test]
    fn a_hold_leaves_no_client_without_an_endpoint(events in events(), hold in 1..60_u64) {
        let usable = |answer: &tokio::sync::watch::Receiver<Served>| match &*answer.borrow() {
            Served::Present(served) => served.is_usable(),
            _ => false,
        };
        let (mut plain, mut holding) = (World::new(), World::new());
        holding.policy(&format!("loadBalancer: {{warmup: {{hold: {hold}s, window: 30s}}}}"));
        let clients = ["e1/east-a", "e2/east-b", "w1/west-a", "f1/far-a"];
        let answers: Vec<_> = clients
            .iter()
            .map(|client| (plain.watch(query("a.shop", client)), holding.watch(query("a.shop", client))))
            .collect();
        for event in events {
            apply(&mut plain, event.clone());
            apply(&mut holding, event);
            for (plain, holding) in &answers {
                prop_assert!(!usable(plain) || usable(holding), "{:?}", shown(&holding.borrow()));
            }
        }
    }
}
