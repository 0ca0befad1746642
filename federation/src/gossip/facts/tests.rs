//! Any order, any repetition, any loss that is made good: the same facts.

use std::sync::Arc;

use portolan_topology::names::ZoneName;
use portolan_topology::service::{Endpoint, Health, LocalService, LocalServices, Port};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::gossip::publish::{Outgoing, Publisher};
use crate::model::Local;

/// A cluster with some of the services `s0` to `s3`, each with so many endpoints in zone `z` (0: listed without any).
fn local(counts: &[Option<u8>]) -> Local {
    let services = counts.iter().enumerate().filter_map(|(n, count)| {
        let count = (*count)?;
        let id = ServiceId::new(format!("s{n}"), "shop").unwrap();
        let endpoint = |n: u8| Endpoint {
            address: ([10, 0, 0, n], 80).into(),
            weight: 1.try_into().unwrap(),
            health: Health::Ready,
            shard: None,
        };
        let zones = (count > 0).then(|| (ZoneName::new("z").ok(), (0..count).map(endpoint).collect()));
        let service = LocalService {
            id: id.clone(),
            ports: vec![Port { number: 80, name: None }],
            endpoints: [(80, zones.into_iter().collect())].into(),
            capacity: None,
            warmup: None,
        };
        Some((id, Arc::new(service)))
    });
    let services = LocalServices { synced: true, services: services.collect() };
    Local { services: Arc::new(services), topology_hash: 7, ..Local::default() }
}

/// What a publisher says in the lives that `history` describes: epochs, each with states one after another.
fn said(history: &[Vec<Vec<Option<u8>>>]) -> Vec<Incoming> {
    let mut all = Vec::new();
    for (epoch, states) in history.iter().enumerate() {
        let publisher = proto::Publisher { epoch: epoch as u64 + 1, incarnation: 100 + epoch as u64 };
        let mut publisher = Publisher::new(publisher);
        for state in states {
            all.extend(publisher.update(&local(state)).into_iter().map(incoming));
        }
    }
    all
}

fn incoming(Outgoing { key, value }: Outgoing) -> Incoming {
    let raw = value.encode_to_vec().into();
    Incoming { key, value, raw }
}

fn told(values: impl IntoIterator<Item = Incoming>) -> Facts {
    let mut facts = Facts::default();
    for value in values {
        facts.apply(value);
    }
    facts
}

/// The values that gossip would still have of the last life: the newest of each key.
fn newest_state(values: &[Incoming]) -> Vec<Incoming> {
    let epoch = values.iter().map(|value| version(&value.value).epoch).max();
    let mut newest = BTreeMap::new();
    for value in values.iter().filter(|value| Some(version(&value.value).epoch) == epoch) {
        newest.insert(value.key.clone(), value.clone());
    }
    newest.into_values().collect()
}

fn held(facts: &Facts) -> BTreeMap<Key, Body> {
    facts.live().map(|(key, body)| (key.clone(), body.clone())).collect()
}

fn histories() -> impl Strategy<Value = Vec<Vec<Vec<Option<u8>>>>> {
    let state = prop::collection::vec(prop::option::of(0u8..3), 4);
    prop::collection::vec(prop::collection::vec(state, 1..5), 1..4)
}

proptest! {
    #[test]
    fn any_order_with_repetitions_comes_to_the_same(
        (history, order) in histories().prop_flat_map(|history| {
            let values = said(&history);
            let twice: Vec<_> = values.iter().chain(&values).cloned().collect();
            (Just(history), Just(twice).prop_shuffle())
        })
    ) {
        let facts = told(order);
        let last = history.last().and_then(|states| states.last()).unwrap();
        prop_assert!(facts.agrees() && facts.complete());
        let mut fresh = Publisher::new(proto::Publisher { epoch: 1, incarnation: 1 });
        let expected: BTreeMap<_, _> = fresh
            .update(&local(last))
            .into_iter()
            .filter(|outgoing| outgoing.key != Key::Inventory)
            .map(|outgoing| (outgoing.key, outgoing.value.body.unwrap()))
            .collect();
        prop_assert_eq!(held(&facts), expected);
    }

    #[test]
    fn whatever_was_lost_a_look_at_the_whole_state_makes_good(
        (values, kept) in histories().prop_flat_map(|history| {
            let values = said(&history);
            let kept = prop::collection::vec(prop::bool::weighted(0.6), values.len());
            (Just(values), kept)
        })
    ) {
        let got = values.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(value, _)| value.clone());
        let mut facts = told(got);
        facts.reconcile(newest_state(&values));
        prop_assert!(facts.agrees() && facts.complete());
        prop_assert_eq!(held(&facts), held(&told(values)));
    }

    #[test]
    fn an_older_value_never_replaces_a_newer_one(history in histories()) {
        let values = said(&history);
        let mut facts = told(values.clone());
        let before = facts.clone();
        for value in values.into_iter().rev() {
            prop_assert!(!facts.apply(value));
        }
        prop_assert_eq!(facts, before);
    }

    #[test]
    fn the_disk_gives_back_the_same(history in histories(), seen in 0usize..60) {
        let facts = told(said(&history).into_iter().take(seen));
        let back = told(facts.raw().map(|(key, raw)| Incoming {
            key: key.clone(),
            value: proto::Value::decode(raw.clone()).unwrap(),
            raw: raw.clone(),
        }));
        prop_assert_eq!(held(&back), held(&facts));
        prop_assert_eq!(back.agrees(), facts.agrees());
    }
}

#[test]
fn an_older_epochs_facts_stand_until_the_newer_ones_are_complete() {
    let values = said(&[vec![vec![Some(2), Some(1)]], vec![vec![Some(2)]]]);
    let (older, newer): (Vec<_>, Vec<_>) = values.into_iter().partition(|value| version(&value.value).epoch == 1);
    let mut facts = told(older);
    let s1 = ServiceId::new("s1", "shop").unwrap();
    let mut newer = newer.into_iter().peekable();
    while let Some(value) = newer.next() {
        assert!(facts.stamp(&s1).is_some(), "s1 went before the newer inventory was complete");
        facts.apply(value);
        assert_eq!(facts.complete(), newer.peek().is_none());
    }
    assert_eq!(facts.stamp(&s1), None);
}

#[test]
fn a_second_publisher_of_the_same_epoch_is_not_heard() {
    let value = |incarnation, count| {
        let publisher = proto::Publisher { epoch: 5, incarnation };
        Publisher::new(publisher).update(&local(&[Some(count)])).into_iter().map(incoming)
    };
    let mut facts = told(value(1, 2));
    let before = facts.clone();
    for value in value(2, 3) {
        assert!(!facts.apply(value));
    }
    assert_eq!(facts, before);
}

#[test]
fn an_unsynced_source_publishes_no_inventory_and_takes_nothing_back() {
    let mut publisher = Publisher::new(proto::Publisher { epoch: 1, incarnation: 1 });
    let unsynced = Local { services: Arc::default(), ..local(&[]) };
    let keys = |outgoing: Vec<Outgoing>| outgoing.into_iter().map(|outgoing| outgoing.key).collect::<Vec<_>>();
    assert_eq!(keys(publisher.update(&unsynced)), [Key::About]);
    assert_eq!(publisher.update(&local(&[Some(1)])).last().unwrap().key, Key::Inventory);
    assert!(publisher.update(&unsynced).is_empty());
    assert!(publisher.update(&local(&[Some(1)])).is_empty(), "steady state gossips nothing");
}

#[test]
fn both_ends_stamp_a_service_alike() {
    let mut publisher = Publisher::new(proto::Publisher { epoch: 3, incarnation: 1 });
    let mut facts = Facts::default();
    for state in [[Some(2), Some(1)], [Some(2), Some(2)], [Some(1), None]] {
        let local = local(&state);
        for outgoing in publisher.update(&local) {
            facts.apply(incoming(outgoing));
        }
        let published = publisher.published(&local);
        for n in 0..2 {
            let service = ServiceId::new(format!("s{n}"), "shop").unwrap();
            assert_eq!(
                facts.stamp(&service).unwrap_or(ServiceStamp { version: Version { epoch: 3, sequence: 0 }, count: 0 }),
                published.stamp(&service)
            );
        }
    }
}
