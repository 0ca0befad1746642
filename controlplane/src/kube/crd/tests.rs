//! The definitions against what the policy's reader takes: one shape, said twice, must not drift apart.

use portolan_topology::policy::document::parse;
use serde_json::{Map, Value, json};

use super::*;

fn schema(crd: &CustomResourceDefinition) -> Value {
    let schema = crd.spec.versions[0].schema.as_ref().and_then(|schema| schema.open_api_v3_schema.clone());
    serde_json::to_value(schema.unwrap()).unwrap()["properties"]["spec"].clone()
}

/// A value that the schema takes, with every field that it knows.
fn fullest(schema: &Value) -> Value {
    if let Some(values) = schema["enum"].as_array() {
        return values[0].clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let properties = schema["properties"].as_object().cloned().unwrap_or_default();
            Value::Object(properties.iter().map(|(name, schema)| (name.clone(), fullest(schema))).collect())
        }
        Some("array") => json!([fullest(&schema["items"])]),
        Some("integer") => schema["minimum"].as_f64().map_or(json!(1), |least| json!(least as u64)),
        Some("number") => json!(1.5),
        Some("boolean") => json!(true),
        Some("string") if schema["pattern"] == DURATION => json!("5s"),
        Some("string") if schema["format"] == "date-time" => json!("2026-12-01T02:00:00Z"),
        Some("string") => json!("shop"),
        other => panic!("{other:?} in {schema}"),
    }
}

fn object(crd: &CustomResourceDefinition, spec: &Value) -> String {
    let mut metadata: Map<String, Value> = Map::from_iter([("name".to_owned(), json!("shop"))]);
    if crd.spec.scope == "Namespaced" {
        metadata.insert("namespace".to_owned(), json!("shop"));
    }
    let version = format!("{}/{}", crd.spec.group, crd.spec.versions[0].name);
    json!({"apiVersion": version, "kind": crd.spec.names.kind, "metadata": metadata, "spec": spec}).to_string()
}

/// What the schema lets through, the reader knows: it may refuse it as a whole, never as a field that is none.
#[test]
fn the_reader_knows_every_field_of_the_schema() {
    for crd in all() {
        let spec = fullest(&schema(&crd));
        let mistakes = parse("object", &object(&crd, &spec), None).err().map(|said| said.to_string());
        let mistakes = mistakes.unwrap_or_default();
        assert!(!mistakes.contains("unknown field"), "{}: {mistakes}", crd.spec.names.kind);
    }
}

/// What the reader keeps of an object, the schema knows: an API server would drop the rest in silence.
#[test]
fn the_schema_knows_every_field_that_the_reader_keeps() {
    let traffic = json!({
        "targetRefs": [{"group": "", "kind": "Service", "name": "checkout"}],
        "locality": {
            "preference": "Region", "targetUtilizationPercent": 70, "overprovisioningPercent": 150,
            "failover": [{"region": "us-west", "weight": 70}], "allowedRegions": ["us-west"],
            "failback": {"ramp": "60s", "holdDown": "30s"},
        },
        "capacity": {"requestsPerSecond": 200.5},
        "connection": {"maxRequests": 100},
        "timeout": "2s",
        "retry": {"attempts": 2, "on": ["UNAVAILABLE"], "backoff": {"base": "25ms", "max": "250ms"}},
    });
    let weights = json!({
        "targetRefs": [{"kind": "Namespace", "name": "shop"}],
        "locality": {"clusterWeights": [{"cluster": "use1-a", "weight": 90}]},
    });
    let drain = json!({
        "scope": {"region": "us-east"}, "services": ["checkout.shop"], "percent": 50, "over": "5m",
        "restoreOver": "10m", "startTime": "2026-12-01T02:00:00Z", "endTime": "2026-12-01T06:00:00Z", "force": true,
        "reason": "kernel upgrade",
    });
    let [drains, policies] = &all()[..] else { panic!() };
    for (crd, spec) in [(policies, traffic), (policies, weights), (drains, drain)] {
        let objects = parse("object", &object(crd, &spec), None).unwrap();
        covers(&schema(crd), &objects[0].to_json()["spec"], &crd.spec.names.kind);
    }
}

fn covers(schema: &Value, value: &Value, at: &str) {
    match value {
        Value::Object(fields) if schema["x-kubernetes-preserve-unknown-fields"] != true => {
            for (name, value) in fields {
                let known =
                    schema["properties"].get(name).unwrap_or_else(|| panic!("{at}.{name} is not in the schema"));
                covers(known, value, &format!("{at}.{name}"));
            }
        }
        Value::Array(items) => items.iter().for_each(|item| covers(&schema["items"], item, at)),
        Value::String(text) if !schema["enum"].is_null() => {
            assert!(schema["enum"].as_array().unwrap().contains(value), "{at}: {text}");
        }
        _ => {}
    }
}

/// The files that the chart and people install are these.
#[test]
fn the_files_in_deploy_are_what_the_code_derives() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    // A chart can read no file outside of its folder: it has a copy.
    for folder in ["deploy/crds", "deploy/helm/portolan/files/crds"] {
        for (name, text) in files().unwrap() {
            let there = std::fs::read_to_string(format!("{root}/{folder}/{name}")).unwrap_or_default();
            assert!(
                there == text,
                "{folder}/{name} is not what the code derives: write it with `portolan crds {folder}`"
            );
        }
    }
}

/// kubectl prints a warning for each field of a format that the API server does not know.
#[test]
fn every_format_is_one_that_an_api_server_knows() {
    fn formats(schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(fields) => {
                found.extend(fields.get("format").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| formats(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| formats(value, found)),
            _ => {}
        }
    }
    for crd in all() {
        let mut found = Vec::new();
        formats(&serde_json::to_value(&crd.spec.versions[0].schema).unwrap(), &mut found);
        assert!(!found.is_empty());
        for format in found {
            assert!(["int32", "int64", "float", "double", "date-time"].contains(&format.as_str()), "{format}");
        }
    }
}
