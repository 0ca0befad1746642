//! An object's status: what the control plane says of it, in the shape of the API. Pure.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::super::conditions::dated;
use super::judge::Verdict;

/// What only people who ask a control plane are told: it is in no status.
const NOT_TOLD: [&str; 4] = ["createdRevision", "by", "at", "owner"];

/// The status to write over `before`; `None`: it says so already. `told` is what the control plane says of what policy
/// holds, which may be an older version of an object that is not accepted now.
pub(super) fn of(
    verdict: &Verdict,
    told: Option<&Value>,
    generation: Option<i64>,
    before: &Value,
    now: Timestamp,
) -> Option<Value> {
    let mut status = match (told, verdict) {
        (Some(Value::Object(told)), Verdict::Accepted) => told.clone(),
        _ => Map::new(),
    };
    for field in NOT_TOLD {
        status.remove(field);
    }
    let mut conditions: Vec<Value> = status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    if let Verdict::Refused { reason, message } = verdict {
        conditions = vec![json!({"type": "Accepted", "status": "False", "reason": reason, "message": message})];
    }
    let conditions = conditions.into_iter().map(|condition| dated(condition, generation, &before["conditions"], now));
    status.insert("conditions".to_owned(), conditions.collect());
    let revision = status.get("revision").and_then(Value::as_u64);
    let clusters = status.get("clusters").and_then(Value::as_array).cloned().unwrap_or_default();
    let clusters = clusters.into_iter().map(|cluster| reached(cluster, revision)).collect();
    status.insert("clusters".to_owned(), clusters);
    let status = Value::Object(status);
    (status != *before).then_some(status)
}

/// A cluster that has the object's revision has it, however many revisions of other objects it has applied since: the
/// status of one object does not change with each change of another.
fn reached(mut cluster: Value, revision: Option<u64>) -> Value {
    if let (Some(applied), Some(revision)) = (cluster["revision"].as_u64(), revision) {
        cluster["revision"] = applied.min(revision).into();
    }
    cluster
}
