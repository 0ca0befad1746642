//! Conditions of an object's status, as the Kubernetes API wants them. Pure.

use jiff::Timestamp;
use serde_json::Value;

/// A condition with what the API wants of each. It keeps its time while its status stays.
pub(super) fn dated(mut condition: Value, generation: Option<i64>, before: &Value, now: Timestamp) -> Value {
    let same = |old: &&Value| old["type"] == condition["type"] && old["status"] == condition["status"];
    let since = before.as_array().and_then(|before| before.iter().find(same));
    let since = since.map(|old| old["lastTransitionTime"].clone()).filter(Value::is_string);
    // An API server writes whole seconds.
    let now = now.round(jiff::Unit::Second).unwrap_or(now);
    condition["lastTransitionTime"] = since.unwrap_or_else(|| now.to_string().into());
    if condition["message"].is_null() {
        condition["message"] = "".into();
    }
    if let Some(generation) = generation {
        condition["observedGeneration"] = generation.into();
    }
    condition
}
