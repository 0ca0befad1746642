//! All policy objects of the federation, as the Raft state machine holds them: a pure map with revisions.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Drain, EffectivePolicy, TargetRef, TrafficPolicy};
use crate::names::{ClusterName, ServiceId};

/// A policy object of any kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum PolicyObject {
    /// A TrafficPolicy.
    TrafficPolicy(Box<TrafficPolicy>),
    /// A Drain.
    Drain(Drain),
}

impl PolicyObject {
    /// `TrafficPolicy/NAMESPACE/NAME` or `Drain/NAME`: what identifies it in the federation.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::TrafficPolicy(policy) => traffic_key(policy),
            Self::Drain(drain) => format!("Drain/{}", drain.name),
        }
    }
}

/// Who alone may change an object: what two ways of writing it would otherwise fight for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// People, through the admin interface of any control plane.
    #[default]
    Admin,
    /// The object of the same name in the Kubernetes of this cluster.
    Kubernetes(ClusterName),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin => f.write_str("the admin interface"),
            Self::Kubernetes(cluster) => write!(f, "the Kubernetes of cluster {cluster}"),
        }
    }
}

/// An object with its history's last entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredPolicy {
    /// The object.
    pub object: PolicyObject,
    /// Who alone may change it.
    #[serde(default)]
    pub owner: Owner,
    /// The revision (log index) that wrote it first: the older of two policies on one target wins.
    pub created: u64,
    /// The revision that wrote it last.
    pub revision: u64,
    /// Who wrote it last.
    pub by: String,
    /// When, by the writer's clock; for people, never compared.
    pub at: Timestamp,
}

/// All policy objects at one revision.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicySet {
    /// The revision of the last change.
    pub revision: u64,
    /// The objects by [`PolicyObject::key`].
    pub objects: BTreeMap<String, StoredPolicy>,
}

impl PolicySet {
    /// What the objects come to at `now` for the port of `service` that is called `port`: a port's policy beats its
    /// Service's, and that its Namespace's, top-level field by top-level field; of two on the same target only the older
    /// holds. `None`: for a port without a name, and for what is asked of all ports.
    #[must_use]
    pub fn effective(&self, service: &ServiceId, port: Option<&str>, now: Timestamp) -> EffectivePolicy {
        let mut effective = EffectivePolicy::default();
        let by_namespace = self
            .oldest(service, |target| matches!(target, TargetRef::Namespace { name } if name == service.namespace()));
        let by_name = |wanted: Option<&str>| {
            self.oldest(service, |target| {
                let TargetRef::Service { name, section_name } = target else { return false };
                name == service.name() && section_name.as_deref() == wanted
            })
        };
        let by_port = port.and_then(|port| by_name(Some(port)));
        // What is applied last wins.
        for policy in by_namespace.into_iter().chain(by_name(None)).chain(by_port) {
            let spec = &policy.spec;
            if let Some(locality) = &spec.locality {
                effective.locality = locality.clone();
            }
            effective.capacity = spec.capacity.or(effective.capacity);
            effective.timeout = spec.timeout.or(effective.timeout);
            effective.retry = spec.retry.clone().or(effective.retry);
            effective.connection = spec.connection.unwrap_or(effective.connection);
            // A block beats a block whole, and one without `warmup` says nothing of it.
            if let Some(balancer) = &spec.load_balancer {
                (effective.strategy, effective.warmup) = (balancer.strategy, balancer.warmup);
                effective.hash_header.clone_from(&balancer.hash_header);
            }
            effective.outlier_detection = spec.outlier_detection.or(effective.outlier_detection);
        }
        for stored in self.objects.values() {
            if let PolicyObject::Drain(drain) = &stored.object
                && drain.spec.is_active(service, now)
            {
                effective.drains.push(drain.active());
            }
        }
        effective
    }

    /// The policy that holds for `service` through one of its targets: the oldest.
    fn oldest(&self, service: &ServiceId, through: impl Fn(&TargetRef) -> bool) -> Option<&TrafficPolicy> {
        self.by_age()
            .find(|policy| policy.namespace == service.namespace() && policy.spec.target_refs.iter().any(&through))
    }

    /// All traffic policies, the oldest first.
    fn by_age(&self) -> impl Iterator<Item = &TrafficPolicy> {
        let mut policies: Vec<_> = self
            .objects
            .iter()
            .filter_map(|(key, stored)| match &stored.object {
                PolicyObject::TrafficPolicy(policy) => Some((stored.created, key, &**policy)),
                PolicyObject::Drain(_) => None,
            })
            .collect();
        policies.sort_by_key(|(created, key, _)| (*created, *key));
        policies.into_iter().map(|(_, _, policy)| policy)
    }
}

/// Two policies on one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The target.
    pub target: TargetRef,
    /// The name of the older policy, in the same namespace, which holds.
    pub winner: String,
}

/// The policies that do not hold for some of their targets because an older one does, by [`PolicyObject::key`].
#[must_use]
pub fn conflicts(set: &PolicySet) -> BTreeMap<String, Vec<Conflict>> {
    let mut holders: HashMap<(&str, &TargetRef), &str> = HashMap::new();
    let mut conflicts: BTreeMap<String, Vec<Conflict>> = BTreeMap::new();
    for policy in set.by_age() {
        for target in &policy.spec.target_refs {
            let winner = *holders.entry((&policy.namespace, target)).or_insert(&policy.name);
            if winner != policy.name {
                let conflict = Conflict { target: target.clone(), winner: winner.to_owned() };
                conflicts.entry(traffic_key(policy)).or_default().push(conflict);
            }
        }
    }
    conflicts
}

fn traffic_key(policy: &TrafficPolicy) -> String {
    format!("TrafficPolicy/{}/{}", policy.namespace, policy.name)
}

#[cfg(test)]
mod tests;
