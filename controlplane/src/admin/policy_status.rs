//! Policy objects as people read them back: what they wrote, and what is known of how it stands. What is not known is
//! left out, never guessed. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use portolan_federation::model::Remote;
use portolan_topology::names::ClusterName;
use portolan_topology::policy::document::check_against;
use portolan_topology::policy::{Conflict, DrainSpec, PolicyObject, PolicySet, StoredPolicy, TargetRef, conflicts};
use portolan_topology::topology::Topology;
use serde::Serialize;
use serde_json::Value;

/// What an object's status is made from.
pub(super) struct Known<'a> {
    pub(super) set: &'a PolicySet,
    pub(super) topology: &'a Topology,
    /// Our own cluster: what it has applied is `set`.
    pub(super) cluster: &'a ClusterName,
    pub(super) remote: &'a Remote,
    pub(super) now: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    revision: u64,
    created_revision: u64,
    by: String,
    at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<&'static str>,
    conditions: Vec<Condition>,
    clusters: Vec<ClusterStatus>,
}

#[derive(Serialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: &'static str,
    status: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// A cluster, and the policy revision that it has applied, once it has said so.
#[derive(Serialize)]
struct ClusterStatus {
    name: ClusterName,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
}

impl Known<'_> {
    /// All objects, by key.
    pub(super) fn all(&self) -> Vec<Value> {
        let conflicts = conflicts(self.set);
        self.set.objects.iter().map(|(key, stored)| self.object(key, stored, &conflicts)).collect()
    }

    /// One object; `None`: it does not exist.
    pub(super) fn one(&self, key: &str) -> Option<Value> {
        Some(self.object(key, self.set.objects.get(key)?, &conflicts(self.set)))
    }

    fn object(&self, key: &str, stored: &StoredPolicy, conflicts: &BTreeMap<String, Vec<Conflict>>) -> Value {
        let clusters = self.clusters();
        let mut conditions = vec![accepted(conflicts.get(key).map(Vec::as_slice).unwrap_or_default())];
        conditions.extend(self.unknown_names(&stored.object));
        conditions.push(programmed(stored.revision, &clusters));
        let status = Status {
            revision: stored.revision,
            created_revision: stored.created,
            by: stored.by.clone(),
            at: stored.at,
            phase: match &stored.object {
                PolicyObject::Drain(drain) => Some(phase(&drain.spec, self.now)),
                PolicyObject::TrafficPolicy(_) => None,
            },
            conditions,
            clusters,
        };
        let mut object = stored.object.to_json();
        object["status"] = serde_json::to_value(status).unwrap_or_default();
        object
    }

    fn clusters(&self) -> Vec<ClusterStatus> {
        let revision = |name: &ClusterName| match self.remote.clusters.get(name) {
            _ if name == self.cluster => Some(self.set.revision),
            other => other?.policy.map(|standing| standing.revision),
        };
        let names = self.topology.clusters().map(|cluster| &cluster.name);
        names.map(|name| ClusterStatus { name: name.clone(), revision: revision(name) }).collect()
    }

    /// The topology may have changed since the object was checked.
    fn unknown_names(&self, object: &PolicyObject) -> Option<Condition> {
        let mistakes = check_against(object, self.topology).err()?;
        let said: Vec<_> = mistakes.iter().map(|mistake| mistake.message.clone()).collect();
        Some(Condition {
            kind: "ResolvedRefs",
            status: "False",
            reason: "NotInTopology",
            message: Some(said.join("; ")),
        })
    }
}

fn accepted(conflicts: &[Conflict]) -> Condition {
    if conflicts.is_empty() {
        return Condition { kind: "Accepted", status: "True", reason: "Accepted", message: None };
    }
    let said: Vec<_> = conflicts.iter().map(conflict).collect();
    Condition { kind: "Accepted", status: "False", reason: "Conflicted", message: Some(said.join("; ")) }
}

/// What a conflict means, in words.
pub(super) fn conflict(conflict: &Conflict) -> String {
    let target = match &conflict.target {
        TargetRef::Service { name, section_name: None } => format!("Service {name}"),
        TargetRef::Service { name, section_name: Some(port) } => format!("port {port} of Service {name}"),
        TargetRef::Namespace { name } => format!("Namespace {name}"),
    };
    format!("{} is older and holds for {target}", conflict.winner)
}

fn programmed(revision: u64, clusters: &[ClusterStatus]) -> Condition {
    let condition = |status, reason, message| Condition { kind: "Programmed", status, reason, message };
    let behind: Vec<_> = clusters.iter().filter(|cluster| cluster.revision.is_some_and(|r| r < revision)).collect();
    let unheard: Vec<_> = clusters.iter().filter(|cluster| cluster.revision.is_none()).collect();
    if !behind.is_empty() {
        let at = |cluster: &&ClusterStatus| match cluster.revision {
            Some(revision) => format!("{} is at r{revision}", cluster.name),
            None => cluster.name.to_string(),
        };
        let message = behind.iter().map(at).collect::<Vec<_>>().join(", ");
        return condition("False", "Pending", Some(message));
    }
    if !unheard.is_empty() {
        let names: Vec<_> = unheard.iter().map(|cluster| cluster.name.to_string()).collect();
        return condition("Unknown", "NotHeard", Some(format!("nothing heard of {}", names.join(", "))));
    }
    condition("True", "AllClusters", None)
}

fn phase(drain: &DrainSpec, now: Timestamp) -> &'static str {
    if drain.start_time.is_some_and(|start| now < start) {
        "Pending"
    } else if drain.end_time.is_some_and(|end| end <= now) {
        "Ended"
    } else {
        "Active"
    }
}
