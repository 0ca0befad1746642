//! Policy as Kubernetes objects: what the API server refuses by itself.

use std::time::Duration;

use anyhow::{bail, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use portolan_controlplane::kube::crd;
use serde_json::{Value, json};

use super::suite::{Check, Lab, eventually};

pub(super) fn checks() -> Vec<Check> {
    vec![
        Check::new("policy: the API server refuses what makes no sense, and says why", refuses),
        Check::new("policy: a whole object is kept as it was written", keeps),
    ]
}

/// Installs the definitions, and waits until their objects are served.
pub(super) async fn install(client: &Client) -> anyhow::Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in crd::all() {
        let name = definition.name_any();
        definitions.patch(&name, &PatchParams::apply("cargo-kube").force(), &Patch::Apply(&definition)).await?;
        eventually(&format!("{name} is established"), Duration::from_secs(20), || async {
            let status = definitions.get(&name).await?.status.unwrap_or_default();
            let conditions = status.conditions.unwrap_or_default();
            let established = conditions.iter().any(|it| it.type_ == "Established" && it.status == "True");
            Ok(established.then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// The objects of a kind: Drains, or the TrafficPolicies of `default`.
pub(super) fn objects(client: &Client, kind: &str) -> Api<DynamicObject> {
    match kind {
        "Drain" => Api::all_with(client.clone(), &ApiResource::erase::<crd::Drain>(&())),
        _ => Api::namespaced_with(client.clone(), "default", &ApiResource::erase::<crd::TrafficPolicy>(&())),
    }
}

/// An object as `kubectl create` would send it.
pub(super) fn object(kind: &str, name: &str, spec: &Value) -> anyhow::Result<DynamicObject> {
    let version = "portolan.dev/v1alpha1";
    let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec});
    Ok(serde_json::from_value(object)?)
}

async fn refuses(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server("one").await?;
    let client = server.client().await?;
    install(&client).await?;
    let drain = |more: Value| {
        let mut spec = json!({"scope": {"region": "us-east"}, "reason": "a check"});
        merge(&mut spec, more);
        ("Drain", spec)
    };
    let traffic = |more: Value| {
        let mut spec = json!({"targetRefs": [{"group": "", "kind": "Service", "name": "checkout"}]});
        merge(&mut spec, more);
        ("TrafficPolicy", spec)
    };
    let weights = json!([{"region": "a", "weight": 0}]);
    for ((kind, spec), said) in [
        (drain(json!({"scope": {"zone": "a"}})), "exactly one of `region`, `cluster` and `zone`"),
        (drain(json!({"reason": "  "})), "the reason is empty"),
        (drain(json!({"percent": 101})), "less than or equal to 100"),
        (drain(json!({"over": "five minutes"})), "spec.over"),
        (drain(json!({"startTime": "2026-12-01T06:00:00Z", "endTime": "2026-12-01T02:00:00Z"})), "is not after"),
        (traffic(json!({"targetRefs": []})), "at least 1 items"),
        (traffic(json!({"targetRefs": [{"kind": "Pod", "name": "x"}]})), "Unsupported value"),
        (traffic(json!({"targetRefs": [{"kind": "Namespace", "name": "x", "sectionName": "p"}]})), "only a Service"),
        (traffic(json!({"timeout": "0s"})), "fails every request"),
        (traffic(json!({"capacity": {}})), "exactly one of `requestsPerSecond`"),
        (traffic(json!({"capacity": {"requestsPerSecond": 0}})), "more than 0"),
        (traffic(json!({"locality": {"failover": weights}})), "every weight is zero"),
        (
            traffic(
                json!({"locality": {"failover": [{"region": "a", "weight": 1}], "clusterWeights": [{"cluster": "b", "weight": 1}]}}),
            ),
            "exclude each other",
        ),
        (traffic(json!({"locality": {"preference": "Planet"}})), "Unsupported value"),
        (traffic(json!({"retry": {"attempts": 0}})), "greater than or equal to 1"),
    ] {
        let sent = objects(&client, kind).create(&PostParams::default(), &object(kind, "bad", &spec)?).await;
        match sent {
            Err(kube::Error::Api(status)) if status.code == 422 => {
                ensure!(status.message.contains(said), "{spec} is refused with `{}`, not `{said}`", status.message);
            }
            Err(error) => return Err(error.into()),
            Ok(_) => bail!("{kind} {spec} is taken"),
        }
    }
    Ok(())
}

fn merge(spec: &mut Value, more: Value) {
    if let (Value::Object(spec), Value::Object(more)) = (spec, more) {
        // A scope is one of three: more of it stands beside what is there.
        for (field, value) in more {
            match (spec.get_mut(&field), value) {
                (Some(Value::Object(there)), Value::Object(value)) => there.extend(value),
                (_, value) => {
                    spec.insert(field, value);
                }
            }
        }
    }
}

/// Nothing of what the policy's reader knows is dropped in silence.
async fn keeps(lab: Lab) -> anyhow::Result<()> {
    let server = lab.api_server("one").await?;
    let client = server.client().await?;
    install(&client).await?;
    let traffic = json!({
        "targetRefs": [{"group": "", "kind": "Service", "name": "checkout", "sectionName": "grpc"}],
        "locality": {
            "preference": "Zone", "targetUtilizationPercent": 80, "overprovisioningPercent": 140,
            "failover": [{"region": "us-west", "weight": 70}], "allowedRegions": ["us-west"],
            "failback": {"ramp": "60s", "holdDown": "30s"},
        },
        "capacity": {"requestsPerSecond": 200.5},
        "loadBalancer": {"type": "RingHash", "ringHash": {"header": "user"}, "warmup": {"window": "60s"}},
        "connection": {"connectTimeout": "1s", "maxRequests": 100, "maxPendingRequests": 10},
        "outlierDetection": {"consecutiveErrors": 5, "interval": "1s", "baseEjectionTime": "10s",
            "maxEjectionPercent": 50, "ejectWholeLocality": true},
        "timeout": "2s",
        "retry": {"attempts": 2, "perTryTimeout": "500ms", "on": ["UNAVAILABLE"],
            "backoff": {"base": "25ms", "max": "250ms"}, "budgetPercent": 20},
        "rollout": {"regions": ["eu-west"], "interval": "10m"},
    });
    let drain = json!({
        "scope": {"region": "us-east"}, "services": ["checkout.shop"], "percent": 100, "over": "5m", "restoreOver": "10m",
        "startTime": "2026-12-01T02:00:00Z", "endTime": "2026-12-01T06:00:00Z", "force": false, "reason": "a check",
    });
    for (kind, spec) in [("TrafficPolicy", traffic), ("Drain", drain)] {
        let kept = objects(&client, kind).create(&PostParams::default(), &object(kind, "whole", &spec)?).await?;
        ensure!(kept.data["spec"] == spec, "{kind} was {spec} and is {}", kept.data["spec"]);
    }
    Ok(())
}
