//! What becomes of objects, and what their owners are told.

use jiff::Timestamp;
use portolan_topology::policy::document::parse;
use portolan_topology::policy::{Owner, PolicyObject, PolicySet, StoredPolicy};
use portolan_topology::topology::Topology;
use serde_json::{Value, json};

use super::judge::{Judged, Verdict, gone, judge};
use super::status;

const TOPOLOGY: &str = "
apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {name: test}
spec:
  regions:
    - name: us-east
      zones: [a]
      clusters:
        - {name: use1-a, controlPlane: {address: 127.0.0.1, voter: true, config: true}}
        - {name: use1-b, controlPlane: {address: 127.0.0.2}}
";

fn topology() -> Topology {
    Topology::parse("topology", TOPOLOGY).unwrap().0
}

fn drain(percent: u32) -> PolicyObject {
    let text = format!(
        "{{apiVersion: portolan.dev/v1alpha1, kind: Drain, metadata: {{name: d}}, \
         spec: {{reason: x, percent: {percent}, scope: {{region: us-east}}}}}}"
    );
    parse("test", &text, None).unwrap().remove(0)
}

fn set(object: PolicyObject, owner: Owner) -> PolicySet {
    let (by, at) = ("ada".to_owned(), Timestamp::UNIX_EPOCH);
    let stored = StoredPolicy { object, owner, created: 1, revision: 1, by, at };
    PolicySet { revision: 1, objects: [(stored.object.key(), stored)].into() }
}

fn of(cluster: &str) -> Owner {
    Owner::Kubernetes(cluster.parse().unwrap())
}

fn judged(set: &PolicySet, cluster: &str, object: PolicyObject) -> Judged {
    judge("Drain/d", Ok(object), set, &topology(), &cluster.parse().unwrap())
}

#[test]
fn what_policy_does_not_say_in_our_name_is_written() {
    assert_eq!(judged(&PolicySet::default(), "use1-a", drain(10)), Judged::ToWrite(Box::new(drain(10))));
    assert_eq!(judged(&set(drain(20), of("use1-a")), "use1-a", drain(10)), Judged::ToWrite(Box::new(drain(10))));
    assert_eq!(judged(&set(drain(10), of("use1-a")), "use1-a", drain(10)), Judged::Holds);
    // Whether another's may be taken over is for the one who writes to know.
    assert_eq!(judged(&set(drain(10), Owner::Admin), "use1-a", drain(10)), Judged::ToWrite(Box::new(drain(10))));
}

#[test]
fn a_cluster_that_is_no_config_cluster_is_told_which_are() {
    let Judged::Not(Verdict::Refused { reason, message }) = judged(&PolicySet::default(), "use1-b", drain(10)) else {
        panic!()
    };
    assert_eq!(reason, "NotAConfigCluster");
    assert_eq!(message, "cluster use1-b is not a config cluster of the topology; those that are: use1-a");
}

#[test]
fn only_what_was_ours_and_is_known_to_be_gone_is_removed() {
    let topology = topology();
    let gone =
        |set: &PolicySet, cluster: &str, is_gone: bool| gone(set, &topology, &cluster.parse().unwrap(), |_| is_gone);
    assert_eq!(gone(&set(drain(10), of("use1-a")), "use1-a", true), ["Drain/d"]);
    assert!(gone(&set(drain(10), of("use1-a")), "use1-a", false).is_empty());
    assert!(gone(&set(drain(10), Owner::Admin), "use1-a", true).is_empty());
    assert!(gone(&set(drain(10), of("use1-b")), "use1-a", true).is_empty());
    // Once it is no config cluster, its objects are others' to take over, not its to remove.
    assert!(gone(&set(drain(10), of("use1-b")), "use1-b", true).is_empty());
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn told(revision: u64) -> Value {
    json!({
        "revision": revision, "createdRevision": 1, "by": "x", "at": "1970-01-01T00:00:00Z", "phase": "Active",
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted"}],
        "clusters": [{"name": "use1-a", "revision": 9}, {"name": "use1-b"}],
    })
}

#[test]
fn a_status_has_the_api_s_shape_and_is_written_once() {
    let first = status::of(&Verdict::Accepted, Some(&told(4)), Some(3), &Value::Null, at(100)).unwrap();
    assert_eq!(
        first,
        json!({
            "revision": 4, "phase": "Active",
            "conditions": [{
                "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                "lastTransitionTime": "1970-01-01T00:01:40Z", "observedGeneration": 3,
            }],
            "clusters": [{"name": "use1-a", "revision": 4}, {"name": "use1-b"}],
        })
    );
    assert_eq!(status::of(&Verdict::Accepted, Some(&told(4)), Some(3), &first, at(200)), None);
    // Another object's change does not touch it.
    let mut later = told(4);
    later["clusters"][0]["revision"] = 12.into();
    assert_eq!(status::of(&Verdict::Accepted, Some(&later), Some(3), &first, at(200)), None);
}

#[test]
fn a_condition_keeps_its_time_until_its_status_changes() {
    let first = status::of(&Verdict::Accepted, Some(&told(4)), Some(3), &Value::Null, at(100)).unwrap();
    let refused = Verdict::refused("Owned", "it is somebody else's");
    let second = status::of(&refused, Some(&told(4)), Some(4), &first, at(200)).unwrap();
    let condition = &second["conditions"][0];
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("Conflicted")));
    assert_eq!(condition["lastTransitionTime"], "1970-01-01T00:03:20Z");
    assert_eq!(second["revision"], Value::Null);
    let reworded = Verdict::refused("Invalid", "now it is malformed");
    let third = status::of(&reworded, None, Some(5), &second, at(300)).unwrap();
    assert_eq!(third["conditions"][0]["lastTransitionTime"], "1970-01-01T00:03:20Z");
}
