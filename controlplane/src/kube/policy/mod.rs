//! TrafficPolicies and Drains of the cluster's Kubernetes: into policy, if the topology names the cluster as a config
//! cluster, and their status back.
//!
//! One node of the cluster does it, the one that holds the Lease. [`judge`] and [`status`] are pure; here is what asks
//! and writes. An object that cannot be taken has a status that says why, and holds up no other.

mod judge;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use portolan_federation::policy::PolicyChange;
use serde_json::Value;
use tokio::sync::watch;

use self::judge::{Judged, Read, Verdict, gone, judge};
use super::events::Events;
use super::lease::Standing;
use super::mirror::Mirror;
use super::{FIELD_MANAGER, crd};
use crate::admin::Admin;

/// How often statuses are looked at when nothing else changed: what other clusters have applied comes by gossip.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A policy object as the API server has it.
#[derive(Debug)]
pub(super) struct Object {
    /// `TrafficPolicy/NAMESPACE/NAME` or `Drain/NAME`.
    key: String,
    kind: &'static str,
    namespace: Option<String>,
    name: String,
    uid: Option<String>,
    generation: Option<i64>,
    /// `apiVersion`, `kind`, `metadata` and `spec`, as the policy's reader takes them.
    document: Value,
    status: Value,
}

/// Follows the cluster's policy objects for as long as it runs; writes while the Lease is ours.
pub(crate) async fn run(admin: Arc<Admin>, client: Client, mut lease: watch::Receiver<Standing>, events: Events) {
    loop {
        if lease.wait_for(|standing| standing.mine).await.is_err() {
            return;
        }
        let writer = Writer::new(admin.clone(), client.clone(), events.clone());
        tokio::select! {
            () = writer.run() => {}
            _ = lease.wait_for(|standing| !standing.mine) => {}
        }
    }
}

struct Writer {
    admin: Arc<Admin>,
    client: Client,
    events: Events,
    policies: Mirror<Object>,
    drains: Mirror<Object>,
}

impl Writer {
    fn new(admin: Arc<Admin>, client: Client, events: Events) -> Self {
        let policies = Api::all_with(client.clone(), &ApiResource::erase::<crd::TrafficPolicy>(&()));
        let drains = Api::all_with(client.clone(), &ApiResource::erase::<crd::Drain>(&()));
        let config = watcher::Config::default;
        let policies =
            Mirror::start(policies, config(), &admin.forbidden, |object| Object::of("TrafficPolicy", object));
        let drains = Mirror::start(drains, config(), &admin.forbidden, |object| Object::of("Drain", object));
        Self { admin, client, events, policies, drains }
    }

    async fn run(mut self) {
        let mut set = self.admin.federation.policy().set();
        let mut topology = self.admin.topology.clone();
        loop {
            set.borrow_and_update();
            topology.borrow_and_update();
            self.reconcile().await;
            tokio::select! {
                () = self.policies.changed() => {}
                () = self.drains.changed() => {}
                _ = set.changed() => {}
                _ = topology.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    async fn reconcile(&mut self) {
        let (policies, drains) = (self.policies.now(), self.drains.now());
        let objects: BTreeMap<&str, &Object> = policies
            .objects
            .values()
            .chain(drains.objects.values())
            .map(|object| (object.key.as_str(), &**object))
            .collect();
        let topology = self.admin.topology.borrow().clone();
        let set = self.admin.federation.policy().set().borrow().clone();
        let cluster = &self.admin.cluster;
        let mut verdicts = BTreeMap::new();
        // Without a leader each write waits for one in vain: the first tells for all.
        let mut read_only = None;
        for (key, object) in &objects {
            let read = self.admin.read_object(key, &object.document);
            let read: Read = read.map_err(|refusal| Verdict::refused(refusal.reason(), refusal.to_string()));
            let verdict = match judge(key, read, &set, &topology, cluster) {
                Judged::Holds => Verdict::Accepted,
                Judged::Not(verdict) => verdict,
                Judged::ToWrite(object) => match &read_only {
                    Some(verdict) => Verdict::clone(verdict),
                    None => self.write(PolicyChange::Apply(vec![*object])).await,
                },
            };
            if verdict.is_read_only() {
                read_only = Some(verdict.clone());
            }
            verdicts.insert(*key, verdict);
        }
        let synced = |key: &str| if key.starts_with("Drain/") { drains.synced } else { policies.synced };
        for key in gone(&set, &topology, cluster, |key| synced(key) && !objects.contains_key(key)) {
            if let Verdict::Refused { message, .. } = self.write(PolicyChange::Delete(vec![key.clone()])).await {
                tracing::warn!(%key, %message, "the object is gone from Kubernetes and its policy stays for now");
            }
        }
        let statuses = self.admin.policy_statuses().await;
        for (key, object) in objects {
            self.tell(object, &verdicts[key], statuses.get(key)).await;
        }
    }

    async fn write(&self, change: PolicyChange) -> Verdict {
        match self.admin.write_for_kubernetes(change).await {
            Ok(()) => Verdict::Accepted,
            Err(refusal) => Verdict::refused(refusal.reason(), refusal.to_string()),
        }
    }

    /// Writes the object's status, if it is another than the one that it has.
    async fn tell(&self, object: &Object, verdict: &Verdict, told: Option<&Value>) {
        if let Verdict::Refused { reason, message } = verdict {
            let uid = object.uid.clone();
            self.events.warn(object.reference(uid), "NotAccepted", format!("{reason}: {message}"));
        }
        let status = status::of(verdict, told, object.generation, &object.status, Timestamp::now());
        let Some(status) = status else { return };
        let api: Api<DynamicObject> = match &object.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &object.resource()),
            None => Api::all_with(self.client.clone(), &object.resource()),
        };
        let mut patch = object.document.clone();
        if let Some(fields) = patch.as_object_mut() {
            fields.remove("spec");
            fields.insert("status".to_owned(), status);
        }
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        if let Err(error) = api.patch_status(&object.name, &parameters, &Patch::Apply(&patch)).await {
            // Deleted meanwhile, or told again at the next look.
            tracing::debug!(key = object.key, %error, "the status is not written");
        }
    }
}

impl Object {
    fn of(kind: &'static str, object: DynamicObject) -> Option<Self> {
        let (namespace, name) = (object.metadata.namespace, object.metadata.name?);
        let key = match &namespace {
            Some(namespace) => format!("{kind}/{namespace}/{name}"),
            None => format!("{kind}/{name}"),
        };
        let mut metadata = serde_json::json!({"name": name});
        if let Some(namespace) = &namespace {
            metadata["namespace"] = namespace.as_str().into();
        }
        let version = crd::Drain::api_version(&());
        let spec = object.data.get("spec").cloned().unwrap_or_default();
        let document = serde_json::json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec});
        let status = object.data.get("status").cloned().unwrap_or_default();
        let (uid, generation) = (object.metadata.uid, object.metadata.generation);
        Some(Self { key, kind, namespace, name, uid, generation, document, status })
    }

    fn resource(&self) -> ApiResource {
        match self.kind {
            "Drain" => ApiResource::erase::<crd::Drain>(&()),
            _ => ApiResource::erase::<crd::TrafficPolicy>(&()),
        }
    }

    fn reference(&self, uid: Option<String>) -> k8s_openapi::api::core::v1::ObjectReference {
        k8s_openapi::api::core::v1::ObjectReference {
            api_version: Some(crd::Drain::api_version(&()).into_owned()),
            kind: Some(self.kind.to_owned()),
            namespace: self.namespace.clone(),
            name: Some(self.name.clone()),
            uid,
            ..Default::default()
        }
    }
}
