//! What the statuses of GatewayClasses, Gateways and routes should be, in the shape of the Gateway API. Pure. Each answers
//! what is to be written over `before`; `None`: it says so already.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::super::conditions::dated;
use crate::gateway::conditions::{Condition, GatewayStatus, ListenerStatus, ParentStatus};
use crate::gateway::objects::{CONTROLLER, GROUP, ParentRef};

/// Of a GatewayClass of ours.
pub(super) fn of_class(parameters: bool, generation: Option<i64>, before: &Value, now: Timestamp) -> Option<Value> {
    let condition = if parameters {
        let message = "`parametersRef` is not supported".to_owned();
        Condition { r#type: "Accepted".into(), status: false, reason: "InvalidParameters".into(), message }
    } else {
        Condition::holds("Accepted", "Accepted")
    };
    let wanted = conditions(&[condition], generation, &before["conditions"], now);
    changed(before, [("conditions", wanted)])
}

/// Of a Gateway of ours.
pub(super) fn of_gateway(told: &GatewayStatus, before: &Value, now: Timestamp) -> Option<Value> {
    let generation = told.observed_generation;
    let wanted = conditions(&told.conditions, generation, &before["conditions"], now);
    let listeners = told.listeners.iter().map(|listener| of_listener(listener, generation, before, now)).collect();
    changed(before, [("conditions", wanted), ("listeners", listeners)])
}

fn of_listener(told: &ListenerStatus, generation: Option<i64>, before: &Value, now: Timestamp) -> Value {
    let before = before["listeners"].as_array();
    let before = before.and_then(|all| all.iter().find(|listener| listener["name"] == told.name.as_str()));
    let before = before.map_or(&Value::Null, |listener| &listener["conditions"]);
    let kinds: Vec<Value> = told.supported_kinds.iter().map(|kind| json!({"group": GROUP, "kind": kind})).collect();
    json!({
        "name": told.name,
        "supportedKinds": kinds,
        "attachedRoutes": told.attached_routes,
        "conditions": conditions(&told.conditions, generation, before, now),
    })
}

/// Of a route, whose parents of ours are `told`. Entries of other controllers stay as and where they are.
pub(super) fn of_route(told: &[ParentStatus], before: &Value, now: Timestamp) -> Option<Value> {
    let there = before["parents"].as_array().map_or(&[][..], Vec::as_slice);
    let (ours, others): (Vec<&Value>, Vec<&Value>) =
        there.iter().partition(|entry| entry["controllerName"] == CONTROLLER);
    let wanted = told.iter().map(|told| {
        let parent = parent(&told.parent);
        let before = ours.iter().find(|entry| entry["parentRef"] == parent);
        let before = before.map_or(&Value::Null, |entry| &entry["conditions"]);
        json!({
            "parentRef": parent,
            "controllerName": CONTROLLER,
            "conditions": conditions(&told.conditions, told.observed_generation, before, now),
        })
    });
    let wanted: Vec<Value> = wanted.collect();
    if wanted.iter().eq(ours) {
        return None;
    }
    let parents: Vec<Value> = others.into_iter().cloned().chain(wanted).collect();
    Some(json!({"parents": parents}))
}

/// As the route names it, with what the API server fills in.
fn parent(of: &ParentRef) -> Value {
    let mut parent = Map::new();
    let mut put = |field: &str, value: Option<Value>| parent.extend(value.map(|value| (field.to_owned(), value)));
    let object = &of.object;
    put("group", Some(object.group.as_deref().unwrap_or(GROUP).into()));
    put("kind", Some(object.kind.as_deref().unwrap_or("Gateway").into()));
    put("namespace", object.namespace.as_deref().map(Value::from));
    put("name", Some(object.name.as_str().into()));
    put("sectionName", of.section_name.as_deref().map(Value::from));
    put("port", of.port.map(Value::from));
    Value::Object(parent)
}

/// Our conditions, after those of types that are not ours.
fn conditions(ours: &[Condition], generation: Option<i64>, before: &Value, now: Timestamp) -> Value {
    let is_ours = |entry: &&Value| ours.iter().any(|condition| entry["type"] == condition.r#type.as_str());
    let others = before.as_array().into_iter().flatten().filter(|entry| !is_ours(entry)).cloned();
    let ours = ours.iter().map(|condition| {
        let status = if condition.status { "True" } else { "False" };
        let said = json!({"type": condition.r#type, "status": status, "reason": condition.reason,
            "message": condition.message});
        dated(said, generation, before, now)
    });
    others.chain(ours).collect()
}

/// The fields that are not as they should be.
fn changed<const N: usize>(before: &Value, wanted: [(&str, Value); N]) -> Option<Value> {
    let other = wanted.into_iter().filter(|(field, value)| before[*field] != *value);
    let other: Map<String, Value> = other.map(|(field, value)| (field.to_owned(), value)).collect();
    (!other.is_empty()).then_some(Value::Object(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn told(status: bool, generation: i64) -> ParentStatus {
        let parent: ParentRef = serde_json::from_value(json!({"name": "edge", "sectionName": "web"})).unwrap();
        let condition = Condition { status, message: "so".into(), ..Condition::holds("Accepted", "Accepted") };
        ParentStatus { parent, observed_generation: Some(generation), conditions: vec![condition] }
    }

    #[test]
    fn entries_of_other_controllers_stay_and_ours_go_with_the_reference() {
        let other = json!({"parentRef": {"name": "edge"}, "controllerName": "example.com/other", "conditions": []});
        let before = json!({"parents": [other]});
        let first = of_route(&[told(true, 1)], &before, at(5)).unwrap();
        assert_eq!(first["parents"][0], other);
        let ours = &first["parents"][1];
        let parent = json!({"group": GROUP, "kind": "Gateway", "name": "edge", "sectionName": "web"});
        assert_eq!((&ours["parentRef"], &ours["controllerName"]), (&parent, &json!(CONTROLLER)));
        assert_eq!(ours["conditions"][0]["observedGeneration"], 1);
        // The others' order is not ours to mend.
        let turned = json!({"parents": [ours, other]});
        assert_eq!(of_route(&[told(true, 1)], &turned, at(9)), None, "nothing has changed");
        assert_eq!(of_route(&[], &first, at(9)).unwrap(), json!({"parents": [other]}));
        assert_eq!(of_route(&[], &before, at(9)), None);
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let first = of_route(&[told(true, 1)], &Value::Null, at(5)).unwrap();
        let time = |status: &Value| status["parents"][0]["conditions"][0]["lastTransitionTime"].clone();
        let second = of_route(&[told(true, 2)], &first, at(9)).unwrap();
        assert_eq!(time(&second), time(&first));
        let third = of_route(&[told(false, 2)], &second, at(9)).unwrap();
        assert_eq!(time(&third), "1970-01-01T00:00:09Z");
    }

    #[test]
    fn a_gateway_is_told_of_whole_and_of_its_listeners_once() {
        let listener = ListenerStatus {
            name: "web".into(),
            supported_kinds: vec!["HTTPRoute".into()],
            attached_routes: 2,
            conditions: vec![Condition::holds("Programmed", "Programmed")],
        };
        let told = GatewayStatus {
            observed_generation: Some(4),
            conditions: vec![Condition::holds("Accepted", "Accepted")],
            listeners: vec![listener],
        };
        let foreign = json!({"type": "example.com/Seen", "status": "True"});
        let waiting = json!({"type": "Accepted", "status": "Unknown", "reason": "Pending"});
        let written = of_gateway(&told, &json!({"conditions": [foreign, waiting]}), at(5)).unwrap();
        assert_eq!(written["conditions"][0], foreign);
        assert_eq!(
            (&written["conditions"][1]["status"], written["conditions"].as_array().unwrap().len()),
            (&json!("True"), 2)
        );
        assert_eq!(written["listeners"][0]["attachedRoutes"], 2);
        assert_eq!(written["listeners"][0]["supportedKinds"][0], json!({"group": GROUP, "kind": "HTTPRoute"}));
        assert_eq!(of_gateway(&told, &written, at(9)), None);
    }

    #[test]
    fn a_class_with_parameters_is_not_accepted() {
        let written = of_class(true, Some(1), &Value::Null, at(5)).unwrap();
        assert_eq!(
            (&written["conditions"][0]["status"], &written["conditions"][0]["reason"]),
            (&json!("False"), &json!("InvalidParameters"))
        );
        assert_eq!(of_class(true, Some(1), &written, at(9)), None);
    }
}
