//! Policy objects as people read them back: what they wrote, and what is known of how it stands. What is not known is
//! left out, never guessed. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use portolan_topology::names::ClusterName;
use portolan_topology::policy::document::check_against;
use portolan_topology::policy::{
    Conflict, DrainSpec, Owner, PolicyObject, PolicySet, StoredPolicy, TargetRef, conflicts,
};
use serde::Serialize;
use serde_json::Value;

use super::drain_progress::{Phase, Progress, progress};
use crate::catalog::Inputs;

/// What an object's status is made from.
pub(super) struct Known<'a> {
    /// What our own cluster has applied.
    pub(super) set: &'a PolicySet,
    pub(super) inputs: &'a Inputs,
    /// How many clients of our own cluster refuse what they were sent.
    pub(super) nacked: u32,
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
    owner: Option<String>,
    #[serde(flatten)]
    drain: Option<DrainStatus>,
    conditions: Vec<Condition>,
    clusters: Vec<ClusterStatus>,
}

/// How far a Drain has got.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DrainStatus {
    phase: Phase,
    percent: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining_requests_per_second: Option<u64>,
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

/// A cluster, the policy revision that it has applied, and how many of its clients refuse what they were sent; both once
/// it has said so.
#[derive(Serialize)]
struct ClusterStatus {
    name: ClusterName,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nacked: Option<u32>,
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
        let mut drain_status = None;
        if let PolicyObject::Drain(drain) = &stored.object {
            let progress = progress(self.inputs, self.set, stored, drain, self.now);
            conditions.push(drained(&drain.spec, &progress));
            drain_status = Some(DrainStatus {
                phase: progress.phase,
                percent: progress.percent,
                remaining_requests_per_second: progress.remaining.map(|rate| rate.round() as u64),
            });
        }
        let status = Status {
            revision: stored.revision,
            created_revision: stored.created,
            by: stored.by.clone(),
            at: stored.at,
            owner: (stored.owner != Owner::Admin).then(|| stored.owner.to_string()),
            drain: drain_status,
            conditions,
            clusters,
        };
        let mut object = stored.object.to_json();
        object["status"] = serde_json::to_value(status).unwrap_or_default();
        object
    }

    fn clusters(&self) -> Vec<ClusterStatus> {
        let said = |name: &ClusterName| match self.inputs.remote.clusters.get(name) {
            _ if *name == self.inputs.cluster => (Some(self.set.revision), Some(self.nacked)),
            Some(other) => (other.policy.map(|standing| standing.revision), other.nacked),
            None => (None, None),
        };
        let status = |name: &ClusterName| {
            let (revision, nacked) = said(name);
            ClusterStatus { name: name.clone(), revision, nacked }
        };
        self.inputs.topology.clusters().map(|cluster| status(&cluster.name)).collect()
    }

    /// The topology may have changed since the object was checked.
    fn unknown_names(&self, object: &PolicyObject) -> Option<Condition> {
        let mistakes = check_against(object, &self.inputs.topology).err()?;
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

/// Whether everything that the Drain is for is done: what is in its scope may be switched off.
fn drained(spec: &DrainSpec, progress: &Progress) -> Condition {
    let no = |reason, message| Condition { kind: "Drained", status: "False", reason, message };
    match progress.phase {
        Phase::Complete if !progress.stranded.is_empty() => {
            let services: Vec<_> = progress.stranded.iter().map(ToString::to_string).collect();
            no("NothingElse", Some(format!("serves on, with nothing else ready: {}", services.join(", "))))
        }
        Phase::Complete if spec.percent < 100 => no("Partial", Some(format!("takes {}% only", spec.percent))),
        Phase::Complete => Condition { kind: "Drained", status: "True", reason: "Drained", message: None },
        Phase::Pending => no("Pending", None),
        Phase::Ramping => no("Ramping", None),
        Phase::Restoring => no("Restoring", None),
        Phase::Ended => no("Ended", None),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use portolan_federation::model::{PolicyStanding, Remote, RemoteCluster, Role};
    use portolan_topology::policy::document::parse;
    use portolan_topology::topology::Topology;
    use portolan_topology::view::Liveness;
    use serde_json::json;

    use super::*;

    const TOPOLOGY: &str = "
apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {name: test}
spec:
  regions:
    - name: us-east
      zones: [a]
      clusters:
        - {name: use1-a, controlPlane: {address: 127.0.0.1, voter: true}}
        - {name: use1-b, controlPlane: {address: 127.0.0.2}}
";

    fn policy(name: &str) -> String {
        format!(
            "{{apiVersion: portolan.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: {name}, namespace: shop}}, \
             spec: {{targetRefs: [{{group: '', kind: Service, name: checkout}}], timeout: 2s}}}}"
        )
    }

    fn drain(spec: &str) -> String {
        format!(
            "{{apiVersion: portolan.dev/v1alpha1, kind: Drain, metadata: {{name: d}}, spec: {{reason: x, {spec}}}}}"
        )
    }

    /// The objects' status, `texts` written at the revisions 1, 2, … while `use1-b` has said that it applied `told`.
    fn statuses(texts: &[String], told: Option<u64>) -> Vec<Value> {
        let (topology, _) = Topology::parse("topology", TOPOLOGY).unwrap();
        let mut set = PolicySet::default();
        for text in texts {
            set.revision += 1;
            let object = parse("test", text, None).unwrap().remove(0);
            let (by, at) = ("ada".to_owned(), Timestamp::UNIX_EPOCH);
            let stored = StoredPolicy {
                object,
                owner: Default::default(),
                created: set.revision,
                revision: set.revision,
                by,
                at,
            };
            set.objects.insert(stored.object.key(), stored);
        }
        let other = RemoteCluster {
            name: "use1-b".parse().unwrap(),
            liveness: Liveness::Fresh,
            heard: None,
            complete: true,
            version: (1, 1),
            topology_hash: None,
            policy: told.map(|revision| PolicyStanding { revision, role: Role::Learner }),
            services: BTreeMap::new(),
            demand: BTreeMap::new(),
            nacked: told.map(|_| 3),
        };
        let clusters = [(other.name.clone(), Arc::new(other))].into();
        let inputs = Inputs {
            cluster: "use1-a".parse().unwrap(),
            topology: Arc::new(topology),
            local: Arc::default(),
            remote: Arc::new(Remote { clusters, lists: BTreeMap::new() }),
            policy: None,
            demand: Arc::default(),
            gateways: Arc::default(),
        };
        let now = Timestamp::UNIX_EPOCH + Duration::from_secs(1_000);
        let known = Known { set: &set, inputs: &inputs, nacked: 1, now };
        known.all().into_iter().map(|object| object["status"].clone()).collect()
    }

    fn condition(status: &Value, kind: &str) -> Value {
        let all = status["conditions"].as_array().unwrap();
        let mut found = all.iter().find(|one| one["type"] == kind).cloned().unwrap_or_default();
        found.as_object_mut().map(|found| found.remove("type"));
        found
    }

    #[test]
    fn what_everybody_has_is_programmed() {
        let status = statuses(&[policy("a")], Some(1)).remove(0);
        assert_eq!(
            status,
            json!({
                "revision": 1, "createdRevision": 1, "by": "ada", "at": "1970-01-01T00:00:00Z",
                "conditions": [
                    {"type": "Accepted", "status": "True", "reason": "Accepted"},
                    {"type": "Programmed", "status": "True", "reason": "AllClusters"},
                ],
                "clusters": [
                    {"name": "use1-a", "revision": 1, "nacked": 1}, {"name": "use1-b", "revision": 1, "nacked": 3},
                ],
            })
        );
    }

    #[test]
    fn what_somebody_lacks_is_pending_and_what_nobody_said_is_unknown() {
        let two = [policy("a"), drain("scope: {region: us-east}")];
        let [drain, policy] = &statuses(&two, Some(1))[..] else { panic!() };
        assert_eq!(condition(policy, "Programmed"), json!({"status": "True", "reason": "AllClusters"}));
        assert_eq!(
            condition(drain, "Programmed"),
            json!({"status": "False", "reason": "Pending", "message": "use1-b is at r1"})
        );
        let status = statuses(&two, None).remove(0);
        assert_eq!(
            condition(&status, "Programmed"),
            json!({"status": "Unknown", "reason": "NotHeard", "message": "nothing heard of use1-b"})
        );
        assert_eq!(status["clusters"][1], json!({"name": "use1-b"}));
    }

    #[test]
    fn the_younger_of_two_on_one_target_is_conflicted() {
        let [older, younger] = &statuses(&[policy("old"), policy("a-younger")], Some(2))[..] else { panic!() };
        let (older, younger) = if older["revision"] == 1 { (older, younger) } else { (younger, older) };
        assert_eq!(condition(older, "Accepted"), json!({"status": "True", "reason": "Accepted"}));
        assert_eq!(
            condition(younger, "Accepted"),
            json!({"status": "False", "reason": "Conflicted", "message": "old is older and holds for Service checkout"})
        );
    }

    #[test]
    fn a_name_that_left_the_topology_is_told() {
        let status = statuses(&[drain("scope: {region: eu-west}")], Some(1)).remove(0);
        let wanted = json!({"status": "False", "reason": "NotInTopology", "message": "unknown region `eu-west`"});
        assert_eq!(condition(&status, "ResolvedRefs"), wanted);
    }

    #[test]
    fn a_drain_says_how_far_it_is_and_whether_it_is_done() {
        for (spec, phase, percent, status, reason) in [
            ("", "Complete", 100, "True", "Drained"),
            ("percent: 50, ", "Complete", 50, "False", "Partial"),
            ("over: 2000s, ", "Ramping", 50, "False", "Ramping"),
            ("startTime: '1970-01-01T00:16:41Z', ", "Pending", 0, "False", "Pending"),
            ("endTime: '1970-01-01T00:16:40Z', restoreOver: 0s, ", "Ended", 0, "False", "Ended"),
        ] {
            let found = statuses(&[drain(&format!("{spec}scope: {{region: us-east}}"))], Some(1)).remove(0);
            assert_eq!((&found["phase"], &found["percent"]), (&json!(phase), &json!(percent)), "{spec}");
            let drained = condition(&found, "Drained");
            assert_eq!((&drained["status"], &drained["reason"]), (&json!(status), &json!(reason)), "{spec}");
            assert!(found.get("remainingRequestsPerSecond").is_none(), "nobody tells of demand");
        }
    }
}
