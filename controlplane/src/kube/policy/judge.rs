//! What becomes of a policy object of Kubernetes. Pure.

use portolan_topology::names::ClusterName;
use portolan_topology::policy::{Owner, PolicyObject, PolicySet};
use portolan_topology::topology::Topology;

/// The object as the policy's reader took it, or why it did not.
pub(super) type Read = Result<PolicyObject, Verdict>;

/// What an object's owner is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is policy; how it stands is known by the control plane.
    Accepted,
    /// It is not.
    Refused {
        /// In one word.
        reason: &'static str,
        /// For people.
        message: String,
    },
}

impl Verdict {
    pub(super) fn refused(reason: &'static str, message: impl Into<String>) -> Self {
        // What another owns is a conflict, in the words of the objects' own API.
        let reason = if reason == "Owned" { "Conflicted" } else { reason };
        Self::Refused { reason, message: message.into() }
    }

    /// Whether policy takes no writes now, this one or another.
    pub(super) fn is_read_only(&self) -> bool {
        matches!(self, Self::Refused { reason: "ReadOnly", .. })
    }
}

/// What to do about an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Judged {
    /// Policy says so already, in our name.
    Holds,
    /// It must be written.
    ToWrite(Box<PolicyObject>),
    /// It is not taken.
    Not(Verdict),
}

/// Judges the object `key` of the Kubernetes of `cluster` against what policy holds.
pub(super) fn judge(key: &str, read: Read, set: &PolicySet, topology: &Topology, cluster: &ClusterName) -> Judged {
    if !topology.is_config(cluster) {
        return Judged::Not(not_config(topology, cluster));
    }
    let object = match read {
        Ok(object) => object,
        Err(verdict) => return Judged::Not(verdict),
    };
    match set.objects.get(key) {
        Some(stored) if stored.owner == Owner::Kubernetes(cluster.clone()) && stored.object == object => Judged::Holds,
        _ => Judged::ToWrite(Box::new(object)),
    }
}

fn not_config(topology: &Topology, cluster: &ClusterName) -> Verdict {
    let names: Vec<_> = topology.clusters().filter(|it| it.control_plane.config).map(|it| it.name.as_str()).collect();
    let mend = match names.as_slice() {
        [] => "the topology has none: `controlPlane: {config: true}` makes one".to_owned(),
        names => format!("those that are: {}", names.join(", ")),
    };
    Verdict::refused("NotAConfigCluster", format!("cluster {cluster} is not a config cluster of the topology; {mend}"))
}

/// The objects that were written for the Kubernetes of `cluster` and are `gone` from it. An object that is in conflict or
/// cannot be read is not gone: what it said last stands.
pub(super) fn gone(
    set: &PolicySet,
    topology: &Topology,
    cluster: &ClusterName,
    gone: impl Fn(&str) -> bool,
) -> Vec<String> {
    if !topology.is_config(cluster) {
        return Vec::new();
    }
    let ours = Owner::Kubernetes(cluster.clone());
    let keys = set.objects.iter().filter(|(_, stored)| stored.owner == ours).map(|(key, _)| key);
    keys.filter(|key| gone(key)).cloned().collect()
}
