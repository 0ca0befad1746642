//! `TrafficPolicy`, as an API server keeps it.

#![allow(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "the derive writes a copy of each type inside of a function, and two columns may be of one type"
)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClusterStatus, Condition, DURATION, LABEL};

/// How a service's traffic is placed, balanced and protected.
#[derive(Debug, Clone, PartialEq, CustomResource, KubeSchema, Serialize, Deserialize)]
#[kube(
    group = "portolan.dev",
    version = "v1alpha1",
    kind = "TrafficPolicy",
    plural = "trafficpolicies",
    status = "TrafficPolicyStatus",
    namespaced,
    category = "portolan",
    derive = "PartialEq",
    doc = "How a service's traffic is placed, balanced and protected.",
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type=='Accepted')].status"),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Programmed')].status"
    ),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".status.revision"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicySpec {
    /// What it is for, in its own namespace.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Where traffic goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// What one ready endpoint of weight 1 can serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// How endpoints are picked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// Limits of what is open at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
    /// When an endpoint is taken for broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    /// The whole time that a request may take, retries included.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION), length(min = 2, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('[1-9]')").message("a timeout of zero fails every request"))]
    pub timeout: Option<String>,
    /// What is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// In which order regions take a change of this policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// What a policy is for.
#[derive(Debug, Clone, PartialEq, Eq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.kind == 'Service' || !has(self.sectionName)").message("only a Service has ports to name"))]
pub struct TargetRef {
    /// The API group: the core group, `""`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [""]))]
    pub group: Option<String>,
    /// `Service`, or `Namespace` for all services of the policy's own.
    #[schemars(extend("enum" = ["Service", "Namespace"]))]
    pub kind: String,
    /// Its name.
    #[schemars(regex(pattern = LABEL), length(max = 63))]
    pub name: String,
    /// A port's name; all ports if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub section_name: Option<String>,
}

/// Where traffic goes.
#[derive(Debug, Clone, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.failover) || !has(self.clusterWeights)")
    .message("`failover` and `clusterWeights` exclude each other: cluster weights stand instead of tiers"))]
pub struct Locality {
    /// How far traffic stays near; `Zone` if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Zone", "Region", "None"]))]
    pub preference: Option<String>,
    /// A tier spills above this; 80 if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub target_utilization_percent: Option<u32>,
    /// Used where demand is unknown; 140 if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 1000))]
    pub overprovisioning_percent: Option<u32>,
    /// Instead of the topology's failover.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    #[x_kube(validation = Rule::new("self.exists(target, target.weight > 0)").message("every weight is zero"))]
    pub failover: Option<Vec<WeightedRegion>>,
    /// Never beyond these regions, even when all are down.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), inner(regex(pattern = LABEL), length(max = 63)))]
    pub allowed_regions: Option<Vec<String>>,
    /// Instead of tiers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = Rule::new("self.exists(target, target.weight > 0)").message("every weight is zero"))]
    pub cluster_weights: Option<Vec<WeightedCluster>>,
    /// How traffic comes back to what was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failback: Option<Failback>,
}

/// A region's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WeightedRegion {
    /// The region.
    #[schemars(regex(pattern = LABEL), length(max = 63))]
    pub region: String,
    /// Its weight against the others.
    pub weight: u32,
}

/// A cluster's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WeightedCluster {
    /// The cluster.
    #[schemars(regex(pattern = LABEL), length(max = 63))]
    pub cluster: String,
    /// Its weight against the others; 0 takes its traffic away.
    pub weight: u32,
}

/// How traffic comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failback {
    /// From nothing to all in this time; `60s` if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION), length(min = 2, max = 32))]
    pub ramp: Option<String>,
    /// How long a place must have been back before it takes traffic; `30s` if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION), length(min = 2, max = 32))]
    pub hold_down: Option<String>,
}

/// What one ready endpoint of weight 1 can serve: one of the two.
#[derive(Debug, Clone, PartialEq, KubeSchema, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.requestsPerSecond) != has(self.concurrentRequests)")
    .message("exactly one of `requestsPerSecond` and `concurrentRequests`"))]
pub struct Capacity {
    /// Requests a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self > 0.0").message("`requestsPerSecond` is more than 0"))]
    pub requests_per_second: Option<f64>,
    /// Requests at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub concurrent_requests: Option<u32>,
}

/// How endpoints are picked. The settings of a type stand in the block of its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// Which; `LeastRequest` if it is left out.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["LeastRequest", "RoundRobin", "WeightedRoundRobin", "PeakEwma", "RingHash", "Maglev",
        "HotCold", "RequestCost", "PrefixAffinity", "Custom"]))]
    pub kind: Option<String>,
    /// Settings of `LeastRequest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_request: Option<Settings>,
    /// Settings of `RoundRobin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_robin: Option<Settings>,
    /// Settings of `WeightedRoundRobin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weighted_round_robin: Option<Settings>,
    /// Settings of `PeakEwma`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_ewma: Option<Settings>,
    /// Settings of `RingHash`, whose `header` names where a call's key is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring_hash: Option<Settings>,
    /// Settings of `Maglev`, whose `header` names where a call's key is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maglev: Option<Settings>,
    /// Settings of `HotCold`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hot_cold: Option<Settings>,
    /// Settings of `RequestCost`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_cost: Option<Settings>,
    /// Settings of `PrefixAffinity`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_affinity: Option<Settings>,
    /// Settings of `Custom`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom: Option<Settings>,
    /// How a new endpoint is warmed up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Settings>,
}

/// Settings that the policy's reader checks: an API server keeps them as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct Settings {
    /// Whatever they are.
    #[serde(flatten)]
    #[schemars(skip)]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// Limits of what is open at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// How long a connection may take to open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION), length(min = 2, max = 32))]
    pub connect_timeout: Option<String>,
    /// Requests in flight of one client to the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_requests: Option<u32>,
    /// Requests that wait for a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_pending_requests: Option<u32>,
}

/// When an endpoint is taken for broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutlierDetection {
    /// After so many errors in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub consecutive_errors: Option<u32>,
    /// How often it is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION), length(min = 2, max = 32))]
    pub interval: Option<String>,
    /// For how long the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION), length(min = 2, max = 32))]
    pub base_ejection_time: Option<String>,
    /// At most so many of a locality.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_ejection_percent: Option<u32>,
    /// Whether a locality that is dead as a whole is ejected as one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eject_whole_locality: Option<bool>,
}

/// What is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// How often, beyond the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts: Option<u32>,
    /// How long one may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION), length(min = 2, max = 32))]
    pub per_try_timeout: Option<String>,
    /// After which gRPC statuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(max = 32)))]
    pub on: Option<Vec<String>>,
    /// How long between two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// At most so many retries for a hundred requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub budget_percent: Option<u32>,
}

/// How long between two attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backoff {
    /// The first; `25ms` if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION), length(min = 2, max = 32))]
    pub base: Option<String>,
    /// The longest; `250ms` if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION), length(min = 2, max = 32))]
    pub max: Option<String>,
}

/// In which order regions take a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rollout {
    /// The regions, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), inner(length(max = 63)))]
    pub regions: Option<Vec<String>>,
    /// How long between two.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION), length(min = 2, max = 32))]
    pub interval: Option<String>,
}

/// How a TrafficPolicy stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicyStatus {
    /// The revision of policy that wrote it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// What is so, or not.
    pub conditions: Vec<Condition>,
    /// What each cluster has applied.
    pub clusters: Vec<ClusterStatus>,
}
