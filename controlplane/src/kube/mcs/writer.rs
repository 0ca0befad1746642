//! Makes the cluster's ServiceImports, EndpointSlices and export conditions what the plan says, on the node that holds the
//! Lease. Server-side apply, and nothing that is not ours is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, ObjectReference};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use portolan_topology::names::{ServiceId, ServicePort};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::super::FIELD_MANAGER;
use super::super::conditions::dated;
use super::super::events::Events;
use super::super::lease::Standing;
use super::super::mirror::{Mirror, Mirrored, Name};
use super::exports::{Declared, Exports, Shape, declarations, shape, validity};
use super::plan::{Plan, Seen, plan, wanted};
use super::{GROUP, MANAGED_BY, SERVICE_NAME, SLICE_MANAGED_BY, SOURCE_CLUSTER, US, service_export, service_import};
use crate::admin::Admin;

/// Changes are gathered for this long: what a rolling restart changes is not written pod by pod.
const GATHER: Duration = Duration::from_millis(200);
/// When something could not be written that the API server did not refuse, all is looked at again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What the writer needs to know.
pub(crate) struct Inputs {
    pub(crate) admin: Arc<Admin>,
    pub(crate) client: Client,
    pub(crate) exports: watch::Receiver<Arc<Exports>>,
    pub(crate) events: Events,
    /// Where to say which endpoint lists are needed.
    pub(crate) wanted: watch::Sender<BTreeSet<ServicePort>>,
}

/// Writes while the Lease is ours, for as long as it runs.
pub(crate) async fn run(inputs: Inputs, mut lease: watch::Receiver<Standing>) {
    loop {
        if lease.wait_for(|standing| standing.mine).await.is_err() {
            return;
        }
        tokio::select! {
            () = Writer::new(&inputs).run() => {}
            _ = lease.wait_for(|standing| !standing.mine) => {}
        }
        inputs.wanted.send_replace(BTreeSet::new());
    }
}

/// What we wrote of an object, as far as it is compared: the API server adds to the rest.
type Written = Value;

struct Writer<'a> {
    inputs: &'a Inputs,
    namespaces: Mirror<()>,
    services: Mirror<Shape>,
    declared: Mirror<Declared>,
    imports: Mirror<Written>,
    slices: Mirror<Written>,
    /// Whether everything was known of every cluster once: a new writer removes nothing before.
    settled: bool,
}

impl<'a> Writer<'a> {
    fn new(inputs: &'a Inputs) -> Self {
        let client = || inputs.client.clone();
        let ours = |label: &str| watcher::Config::default().labels(&format!("{label}={US}"));
        let namespaces: Api<Namespace> = Api::all(client());
        let slices: Api<EndpointSlice> = Api::all(client());
        let imports: Api<DynamicObject> = Api::all_with(client(), &service_import());
        let forbidden = &inputs.admin.forbidden;
        Self {
            inputs,
            namespaces: Mirror::start(namespaces, watcher::Config::default(), forbidden, |_| Some(())),
            services: Mirror::start(Api::all(client()), watcher::Config::default(), forbidden, shape),
            declared: declarations(&inputs.client, forbidden),
            imports: Mirror::start(imports, ours(MANAGED_BY), forbidden, |import| serde_json::to_value(import).ok()),
            slices: Mirror::start(slices, ours(SLICE_MANAGED_BY), forbidden, |slice| serde_json::to_value(slice).ok()),
            settled: false,
        }
    }

    async fn run(mut self) {
        let mut remote = self.inputs.admin.federation.remote();
        let mut local = self.inputs.admin.source.services.clone();
        let mut topology = self.inputs.admin.topology.clone();
        let mut exports = self.inputs.exports.clone();
        loop {
            remote.borrow_and_update();
            local.borrow_and_update();
            topology.borrow_and_update();
            exports.borrow_and_update();
            let done = self.reconcile().await;
            tokio::select! {
                () = tokio::time::sleep(AGAIN_AFTER), if !done => {}
                _ = remote.changed() => {}
                _ = local.changed() => {}
                _ = topology.changed() => {}
                _ = exports.changed() => {}
                () = self.namespaces.changed() => {}
                () = self.services.changed() => {}
                () = self.declared.changed() => {}
                () = self.imports.changed() => {}
                () = self.slices.changed() => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Returns whether nothing is left to be tried again.
    async fn reconcile(&mut self) -> bool {
        let (namespaces, imports, slices) = (self.namespaces.now(), self.imports.now(), self.slices.now());
        let (services, declared) = (self.services.now(), self.declared.now());
        // Without the API's own kinds there is nothing to be written, and of what is not read nothing is known.
        if !(namespaces.synced && imports.synced && slices.synced) {
            return true;
        }
        let names: BTreeSet<String> = namespaces.objects.keys().map(|(_, name)| name.clone()).collect();
        let admin = &self.inputs.admin;
        let (topology, remote) = (admin.topology.borrow().clone(), admin.federation.remote().borrow().clone());
        let (exports, local) = (self.inputs.exports.borrow().clone(), admin.source.services.borrow().clone());
        let wanted = wanted(&remote, &names);
        self.inputs.wanted.send_if_modified(|before| {
            let changed = *before != wanted;
            *before = wanted;
            changed
        });
        let plan = plan(&Seen {
            cluster: &admin.cluster,
            topology: &topology,
            namespaces: &names,
            exports: &exports,
            local: &local,
            remote: &remote,
        });
        self.settled |= plan.knows_all();
        let mut done = self.apply_all(&service_import(), &plan.imports, &imports).await;
        done &= self.tell_clusters(&plan, &imports).await;
        done &= self.apply_all(&ApiResource::erase::<EndpointSlice>(&()), &plan.slices, &slices).await;
        if self.settled {
            done &= self.remove(&plan, &imports, &slices).await;
        }
        if services.synced {
            for (name, export) in &declared.objects {
                done &= self.tell_export(name, export, services.objects.get(name).map(AsRef::as_ref), &plan).await;
            }
        }
        done
    }

    /// Writes what is not there yet, or not as it should be.
    async fn apply_all(
        &self,
        resource: &ApiResource,
        wanted: &BTreeMap<Name, Value>,
        there: &Mirrored<Written>,
    ) -> bool {
        let mut done = true;
        for (name, object) in wanted {
            if there.objects.get(name).is_some_and(|there| is_written(there, object)) {
                continue;
            }
            let api: Api<DynamicObject> = Api::namespaced_with(self.inputs.client.clone(), &name.0, resource);
            let parameters = PatchParams::apply(FIELD_MANAGER).force();
            if let Err(error) = api.patch(&name.1, &parameters, &Patch::Apply(object)).await {
                // One that is refused (an address that no slice may have) does not hold up the others.
                tracing::warn!(kind = resource.kind, namespace = name.0, name = name.1, %error, "the object is not written");
                if is_refusal(&error) {
                    let about = reference(resource, name, None);
                    self.inputs.events.warn(about, "NotWritten", format!("the API server refuses it: {error}"));
                } else {
                    done = false;
                }
            }
        }
        done
    }

    /// Writes which clusters an import comes from.
    async fn tell_clusters(&self, plan: &Plan, imports: &Mirrored<Written>) -> bool {
        let mut done = true;
        for (name, clusters) in &plan.clusters {
            let status = json!({"clusters": clusters.iter().map(|name| json!({"cluster": name})).collect::<Vec<_>>()});
            let Some(there) = imports.objects.get(name) else { continue };
            if there["status"]["clusters"] != status["clusters"] {
                done &= self.patch_status(&service_import(), name, &status).await;
            }
        }
        done
    }

    /// Removes what is ours and not in the plan, where that is known to be right.
    async fn remove(&self, plan: &Plan, imports: &Mirrored<Written>, slices: &Mirrored<Written>) -> bool {
        let mut done = true;
        for (name, slice) in slices.objects.iter().filter(|(name, _)| !plan.slices.contains_key(*name)) {
            let labels = &slice["metadata"]["labels"];
            let label = |label: &str| labels[label].as_str().unwrap_or_default().to_owned();
            if plan.may_remove_slice(&label(SOURCE_CLUSTER), &(name.0.clone(), label(SERVICE_NAME))) {
                done &= self.delete(&ApiResource::erase::<EndpointSlice>(&()), name).await;
            }
        }
        for name in imports.objects.keys().filter(|name| !plan.imports.contains_key(*name)) {
            if plan.may_remove_import() {
                done &= self.delete(&service_import(), name).await;
            }
        }
        done
    }

    async fn delete(&self, resource: &ApiResource, name: &Name) -> bool {
        let api: Api<DynamicObject> = Api::namespaced_with(self.inputs.client.clone(), &name.0, resource);
        match api.delete(&name.1, &DeleteParams::default()).await {
            Ok(_) => {
                tracing::info!(kind = resource.kind, namespace = name.0, name = name.1, "removed: nobody exports it");
                true
            }
            // Somebody was faster.
            Err(kube::Error::Api(status)) if status.code == 404 => true,
            Err(error) => {
                tracing::warn!(kind = resource.kind, namespace = name.0, name = name.1, %error, "not removed");
                is_refusal(&error)
            }
        }
    }

    /// Writes the conditions of one of our own exports.
    async fn tell_export(&self, name: &Name, export: &Declared, service: Option<&Shape>, plan: &Plan) -> bool {
        let (valid, reason, message) = validity(service);
        let word = |is: bool| if is { "True" } else { "False" };
        let id: Option<ServiceId> = format!("{}.{}", name.1, name.0).parse().ok();
        let conflict = id.and_then(|id| plan.conflicts.get(&id));
        let mut conditions =
            vec![json!({"type": "Valid", "status": word(valid), "reason": reason, "message": message})];
        let (reason, message) = match conflict {
            Some(conflict) => ("Conflicted", conflict.as_str()),
            None => ("NoConflicts", ""),
        };
        let status = word(conflict.is_some());
        conditions.push(json!({"type": "Conflict", "status": status, "reason": reason, "message": message}));
        if !valid || conflict.is_some() {
            let said = conditions.iter().filter_map(|condition| condition["message"].as_str());
            let note = said.filter(|said| !said.is_empty()).collect::<Vec<_>>().join("; ");
            let about = reference(&service_export(), name, export.uid.clone());
            self.inputs.events.warn(about, if valid { "Conflict" } else { "Invalid" }, note);
        }
        let before = &export.status["conditions"];
        let now = Timestamp::now();
        let conditions: Vec<Value> = conditions.into_iter().map(|it| dated(it, None, before, now)).collect();
        let there = before.as_array().into_iter().flatten();
        let told = conditions.iter().all(|wanted| there.clone().any(|there| there == wanted));
        told || self.patch_status(&service_export(), name, &json!({"conditions": conditions})).await
    }

    async fn patch_status(&self, resource: &ApiResource, name: &Name, status: &Value) -> bool {
        let api: Api<DynamicObject> = Api::namespaced_with(self.inputs.client.clone(), &name.0, resource);
        let metadata = json!({"name": name.1, "namespace": name.0});
        let version = format!("{GROUP}/v1alpha1");
        let patch = json!({"apiVersion": version, "kind": resource.kind, "metadata": metadata, "status": status});
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch_status(&name.1, &parameters, &Patch::Apply(&patch)).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(kind = resource.kind, namespace = name.0, name = name.1, %error, "the status is not written");
                is_refusal(&error)
            }
        }
    }
}

/// Whether the same would be refused again: of everything else it may be tried again.
fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && ![409, 429].contains(&status.code))
}

fn reference(resource: &ApiResource, name: &Name, uid: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some(resource.api_version.clone()),
        kind: Some(resource.kind.clone()),
        namespace: Some(name.0.clone()),
        name: Some(name.1.clone()),
        uid,
        ..ObjectReference::default()
    }
}

/// Whether an object is as it is wanted. Its type is not compared: a listing does not repeat it for each object.
fn is_written(there: &Value, wanted: &Value) -> bool {
    let fields = wanted.as_object().into_iter().flatten().filter(|(name, _)| *name != "apiVersion" && *name != "kind");
    fields.into_iter().all(|(name, wanted)| there.get(name).is_some_and(|there| contains(there, wanted)))
}

/// Whether `there` says everything that `wanted` says. Lists are compared as wholes, member by member.
fn contains(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| there.get(name).is_some_and(|there| contains(there, wanted)))
        }
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len() && there.iter().zip(wanted).all(|(there, wanted)| contains(there, wanted))
        }
        (there, wanted) => there == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_adds_is_no_difference() {
        let wanted =
            json!({"kind": "EndpointSlice", "metadata": {"name": "x"}, "endpoints": [{"addresses": ["10.0.0.1"]}]});
        let mut there = wanted.clone();
        there["metadata"]["uid"] = "1".into();
        there["kind"] = json!(null);
        there["endpoints"][0]["nodeName"] = json!(null);
        assert!(is_written(&there, &wanted));
        there["endpoints"][0]["addresses"][0] = "10.0.0.2".into();
        assert!(!is_written(&there, &wanted));
        let fewer = json!({"metadata": {"name": "x"}, "endpoints": []});
        assert!(!contains(&there, &fewer) && !contains(&fewer, &wanted));
    }
}
