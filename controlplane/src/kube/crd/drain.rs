//! `Drain`, as an API server keeps it.

#![allow(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "the derive writes a copy of each type inside of a function, and two columns may be of one type"
)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, DURATION, LABEL};

/// Takes a region, cluster or zone out of service, and gives it back.
#[derive(Debug, Clone, PartialEq, CustomResource, KubeSchema, Serialize, Deserialize)]
#[kube(
    group = "portolan.dev",
    version = "v1alpha1",
    kind = "Drain",
    status = "DrainStatus",
    category = "portolan",
    derive = "PartialEq",
    doc = "Takes a region, cluster or zone out of service, and gives it back.",
    printcolumn(name = "Scope", type_ = "string", json_path = ".spec.scope"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type=='Accepted')].status"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Percent", type_ = "integer", json_path = ".status.percent"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.startTime) || !has(self.endTime) || timestamp(self.startTime) < timestamp(self.endTime)")
    .message("`endTime` is not after `startTime`"))]
pub struct DrainSpec {
    /// What is drained: exactly one of `region`, `cluster` and `zone`.
    pub scope: Scope,
    /// For which services, as `NAME.NAMESPACE`; all of them if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1000), inner(length(max = 127)))]
    pub services: Option<Vec<String>>,
    /// How much of its capacity is taken away; 100 if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<u32>,
    /// How long the way out takes; `5m` if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION), length(min = 2, max = 32))]
    pub over: Option<String>,
    /// How long the way back takes; `10m` if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = DURATION), length(min = 2, max = 32))]
    pub restore_over: Option<String>,
    /// From when; at once if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"), length(max = 64))]
    pub start_time: Option<String>,
    /// When it ends by itself; never if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"), length(max = 64))]
    pub end_time: Option<String>,
    /// Whether it goes on even if a service has nowhere left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Why, for the people who find it.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('[^\\\\s]')").message("the reason is empty"))]
    pub reason: String,
}

/// What is drained.
#[derive(Debug, Clone, PartialEq, Eq, KubeSchema, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("[has(self.region), has(self.cluster), has(self.zone)].filter(given, given).size() == 1")
    .message("the scope names exactly one of `region`, `cluster` and `zone`"))]
pub struct Scope {
    /// A whole region.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = LABEL), length(max = 63))]
    pub region: Option<String>,
    /// A whole cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = LABEL), length(max = 63))]
    pub cluster: Option<String>,
    /// A zone, in every cluster that spans it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = LABEL), length(max = 63))]
    pub zone: Option<String>,
}

/// How a Drain stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DrainStatus {
    /// The revision of policy that wrote it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Where it is on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// How much is taken away by now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// What still arrives in what is drained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_requests_per_second: Option<u64>,
    /// What is so, or not.
    pub conditions: Vec<Condition>,
    /// What each cluster has applied.
    pub clusters: Vec<super::ClusterStatus>,
}
