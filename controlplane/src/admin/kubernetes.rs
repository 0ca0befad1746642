//! Policy objects that the cluster's Kubernetes has: the same checks as for those that people write here, in the cluster's
//! name, and how each stands.

use std::collections::BTreeMap;

use portolan_federation::policy::PolicyChange;
use portolan_topology::policy::document::parse;
use portolan_topology::policy::{Owner, PolicyObject};
use serde_json::Value;

use super::Admin;
use super::policy::{WriteOptions, Writer};
use super::refusal::{Refusal, without_places};

impl Admin {
    /// Reads an object as Kubernetes has it, and checks it against the topology in force.
    pub(crate) fn read_object(&self, key: &str, object: &Value) -> Result<PolicyObject, Refusal> {
        let topology = self.topology.borrow().clone();
        let objects = parse(key, &object.to_string(), Some(&topology)).map_err(|mistakes| without_places(&mistakes))?;
        match <[PolicyObject; 1]>::try_from(objects) {
            Ok([object]) => Ok(object),
            Err(objects) => Err(Refusal::invalid(format!("{} objects where one was expected", objects.len()))),
        }
    }

    /// Writes or removes in the name of our cluster's Kubernetes.
    pub(crate) async fn write_for_kubernetes(&self, change: PolicyChange) -> Result<(), Refusal> {
        let owner = Owner::Kubernetes(self.cluster.clone());
        let by = owner.to_string();
        self.write(change, &WriteOptions::default(), Writer { owner, by }).await.map(drop)
    }

    /// How each object stands, by key: what `status` of `portolan policy get` says.
    pub(crate) async fn policy_statuses(&self) -> BTreeMap<String, Value> {
        let statuses = self.read(false, |known| {
            let statuses = known.all().into_iter().map(|object| object["status"].clone());
            known.set.objects.keys().cloned().zip(statuses).collect()
        });
        // Nothing is asked of the leader: reading what this node has applied has no way to fail.
        statuses.await.unwrap_or_default()
    }
}
