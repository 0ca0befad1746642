use std::time::Duration;

use super::*;
use crate::policy::document;

/// A set of the objects of `text`, each written one revision after the one before.
fn set(text: &str) -> PolicySet {
    let objects = document::parse("policies", text, None).unwrap_or_else(|refused| panic!("{refused}"));
    let stored = (1..).zip(objects).map(|(revision, object)| {
        let at = Timestamp::UNIX_EPOCH;
        (
            object.key(),
            StoredPolicy { object, owner: Default::default(), created: revision, revision, by: "test".to_owned(), at },
        )
    });
    PolicySet { revision: 9, objects: stored.collect() }
}

fn policy(name: &str, target: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: portolan.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{targetRefs: [{target}], {spec}}}\n"
    )
}

const NAMESPACE: &str = "{kind: Namespace, name: shop}";
const CHECKOUT: &str = "{kind: Service, name: checkout}";

fn effective(set: &PolicySet) -> EffectivePolicy {
    of_port(set, None)
}

fn of_port(set: &PolicySet, port: Option<&str>) -> EffectivePolicy {
    set.effective(&"checkout.shop".parse().unwrap(), port, Timestamp::UNIX_EPOCH)
}

#[test]
fn a_service_beats_its_namespace_top_level_field_by_field() {
    let namespace =
        policy("all", NAMESPACE, "timeout: 9s, retry: {attempts: 5}, locality: {targetUtilizationPercent: 50}");
    let service = policy("one", CHECKOUT, "timeout: 2s, locality: {preference: Region}, connection: {maxRequests: 7}");
    // Whichever came first.
    for text in [format!("{namespace}{service}"), format!("{service}{namespace}")] {
        let effective = effective(&set(&text));
        assert_eq!(effective.timeout, Some(Duration::from_secs(2)));
        assert_eq!(effective.retry.unwrap().attempts, 5);
        assert_eq!(effective.connection.max_requests, 7);
        // Not merged any deeper: the service's whole `locality` stands.
        assert_eq!(effective.locality.target_utilization_percent, 80);
    }
}

#[test]
fn a_port_beats_its_service_and_leaves_the_other_ports_alone() {
    let service = policy("one", CHECKOUT, "timeout: 2s, retry: {attempts: 5}");
    let port = policy("port", "{kind: Service, name: checkout, sectionName: admin}", "timeout: 9s");
    for text in [format!("{service}{port}"), format!("{port}{service}")] {
        let set = set(&text);
        let admin = of_port(&set, Some("admin"));
        assert_eq!((admin.timeout, admin.retry.unwrap().attempts), (Some(Duration::from_secs(9)), 5));
        for other in [None, Some("grpc")] {
            assert_eq!(of_port(&set, other).timeout, Some(Duration::from_secs(2)), "{other:?}");
        }
        assert!(conflicts(&set).is_empty(), "a port and its Service are two targets");
    }
}

#[test]
fn of_two_policies_on_one_target_only_the_older_holds() {
    let older = policy("zz-older", CHECKOUT, "timeout: 1s");
    let younger = policy("aa-younger", CHECKOUT, "timeout: 2s, retry: {attempts: 3}");
    let set = set(&format!("{older}{younger}"));
    let effective = effective(&set);
    assert_eq!((effective.timeout, effective.retry), (Some(Duration::from_secs(1)), None));
    let conflicts = conflicts(&set);
    assert_eq!(conflicts.keys().collect::<Vec<_>>(), ["TrafficPolicy/shop/aa-younger"]);
    assert_eq!(conflicts["TrafficPolicy/shop/aa-younger"][0].winner, "zz-older");
}

#[test]
fn a_namespace_and_a_service_do_not_conflict() {
    let text = policy("all", NAMESPACE, "timeout: 9s") + &policy("one", CHECKOUT, "timeout: 2s");
    assert!(conflicts(&set(&text)).is_empty());
}

#[test]
fn another_namespace_is_not_touched() {
    let set = set(&policy("all", NAMESPACE, "timeout: 9s"));
    assert_eq!(set.effective(&"checkout.bank".parse().unwrap(), None, Timestamp::UNIX_EPOCH).timeout, None);
}

#[test]
fn a_drain_is_in_force_between_its_times_and_for_its_services() {
    let text = "apiVersion: portolan.dev/v1alpha1\nkind: Drain\nmetadata: {name: d}\nspec: {scope: {zone: a}, reason: r, \
                services: [checkout.shop], startTime: '2026-12-01T02:00:00Z', endTime: '2026-12-01T06:00:00Z'}\n";
    let set = set(text);
    let drains =
        |service: &str, at: &str| set.effective(&service.parse().unwrap(), None, at.parse().unwrap()).drains.len();
    assert_eq!(drains("checkout.shop", "2026-12-01T01:59:59Z"), 0);
    assert_eq!(drains("checkout.shop", "2026-12-01T02:00:00Z"), 1);
    assert_eq!(drains("checkout.shop", "2026-12-01T06:00:00Z"), 0);
    assert_eq!(drains("cart.shop", "2026-12-01T03:00:00Z"), 0);
}

#[test]
fn a_record_of_a_newer_peer_reads_with_fields_that_nobody_here_knows() {
    let set = set(&policy("one", CHECKOUT, "timeout: 2s, retry: {attempts: 3}, locality: {preference: None}"));
    let mut record = serde_json::to_value(&set).unwrap();
    let read: PolicySet = serde_json::from_value(record.clone()).unwrap();
    assert_eq!(read, set);
    let stored = &mut record["objects"]["TrafficPolicy/shop/one"];
    stored["signature"] = "x".into();
    stored["object"]["spec"]["rollout"] = serde_json::json!({"regions": []});
    stored["object"]["spec"]["retry"]["budgetPercent"] = 20.into();
    assert_eq!(serde_json::from_value::<PolicySet>(record).unwrap(), set);
}
