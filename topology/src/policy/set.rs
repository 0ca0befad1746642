//! All policy objects of the federation, as the Raft state machine holds them: a pure map with revisions.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ActiveDrain, Drain, EffectivePolicy, TargetRef, TrafficPolicy};
use crate::names::ServiceId;

/// A policy object of any kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum PolicyObject {
    /// A TrafficPolicy.
    TrafficPolicy(TrafficPolicy),
    /// A Drain.
    Drain(Drain),
}

impl PolicyObject {
    /// `TrafficPolicy/NAMESPACE/NAME` or `Drain/NAME`: what identifies it in the federation.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::TrafficPolicy(policy) => format!("TrafficPolicy/{}/{}", policy.namespace, policy.name),
            Self::Drain(drain) => format!("Drain/{}", drain.name),
        }
    }
}

/// An object with its history's last entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredPolicy {
    /// The object.
    pub object: PolicyObject,
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
    /// What the objects come to for `service` at `now`: a Service's policy beats its Namespace's field by field, and of
    /// two on the same target the older wins.
    #[must_use]
    pub fn effective(&self, service: &ServiceId, now: Timestamp) -> EffectivePolicy {
        let mut effective = EffectivePolicy::default();
        let by_name = |policy: &TrafficPolicy| {
            policy
                .spec
                .target_refs
                .iter()
                .any(|target| matches!(target, TargetRef::Service { name, .. } if name == service.name()))
        };
        let mut policies: Vec<_> = self
            .objects
            .values()
            .filter_map(|stored| match &stored.object {
                PolicyObject::TrafficPolicy(policy) if policy.targets(service) => Some((stored.created, policy)),
                _ => None,
            })
            .collect();
        // What is applied last wins: namespaces before services, younger before older.
        policies.sort_by_key(|(created, policy)| (by_name(policy), std::cmp::Reverse(*created)));
        for (_, policy) in policies {
            if let Some(locality) = &policy.spec.locality {
                effective.locality = locality.clone();
            }
            if let Some(capacity) = policy.spec.capacity {
                effective.capacity = Some(capacity);
            }
        }
        for stored in self.objects.values() {
            if let PolicyObject::Drain(drain) = &stored.object
                && drain.spec.is_active(service, now)
            {
                effective.drains.push(ActiveDrain {
                    name: drain.name.clone(),
                    scope: drain.spec.scope.clone(),
                    percent: drain.spec.percent,
                    over: drain.spec.over,
                    restore_over: drain.spec.restore_over,
                });
            }
        }
        effective
    }
}
