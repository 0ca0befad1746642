//! The conditions of GatewayClasses, Gateways and their routes, written where their owners look.
//!
//! [`status`] says what an object's status should be, without I/O; [`run`] makes it so, on the node that holds the Lease.
//! Of a route's `parents` only the entries of our controller are ours; no other is touched, and an object whose status
//! says what it should is not written.

mod status;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;

use self::status::{of_class, of_gateway, of_route};
use super::lease::Standing;
use super::mirror::{Forbidden, Mirror, Name};
use crate::gateway::conditions::Statuses;
use crate::gateway::objects::{CONTROLLER, ObjectName, RouteKind};
use crate::source::kube::Kind;

/// Changes are gathered for this long.
const GATHER: Duration = Duration::from_millis(200);
/// When something could not be written, all is looked at again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// An object, as far as its status goes.
#[derive(Debug)]
struct Seen {
    version: Option<String>,
    generation: Option<i64>,
    /// Of a GatewayClass: whether it has parameters.
    parameters: bool,
    status: Value,
}

impl Seen {
    fn of(object: DynamicObject) -> Self {
        let (spec, status) = (object.data.get("spec"), object.data.get("status"));
        Self {
            version: object.metadata.resource_version,
            generation: object.metadata.generation,
            parameters: spec.is_some_and(|spec| !spec["parametersRef"].is_null()),
            status: status.cloned().unwrap_or_default(),
        }
    }
}

/// Writes what `statuses` says while the Lease is ours, for as long as it runs.
pub(super) async fn run(
    client: Client,
    statuses: watch::Receiver<Arc<Statuses>>,
    forbidden: Forbidden,
    mut lease: watch::Receiver<Standing>,
) {
    while lease.wait_for(|standing| standing.mine).await.is_ok() {
        tokio::select! {
            () = Writer::new(client.clone(), statuses.clone(), &forbidden).run() => {}
            _ = lease.wait_for(|standing| !standing.mine) => {}
        }
    }
}

struct Writer {
    client: Client,
    statuses: watch::Receiver<Arc<Statuses>>,
    classes: Mirror<Seen>,
    gateways: Mirror<Seen>,
    http_routes: Mirror<Seen>,
    grpc_routes: Mirror<Seen>,
}

impl Writer {
    fn new(client: Client, statuses: watch::Receiver<Arc<Statuses>>, forbidden: &Forbidden) -> Self {
        let mirror = |kind: Kind, project| {
            Mirror::start(
                Api::all_with(client.clone(), &kind.api_resource()),
                watcher::Config::default(),
                forbidden,
                project,
            )
        };
        let all = |object: DynamicObject| Some(Seen::of(object));
        let ours = |object: DynamicObject| {
            let ours = object.data.get("spec").is_some_and(|spec| spec["controllerName"] == CONTROLLER);
            ours.then(|| Seen::of(object))
        };
        Self {
            classes: mirror(Kind::GatewayClass, ours),
            gateways: mirror(Kind::Gateway, all),
            http_routes: mirror(Kind::HttpRoute, all),
            grpc_routes: mirror(Kind::GrpcRoute, all),
            statuses,
            client,
        }
    }

    async fn run(mut self) {
        loop {
            let done = self.reconcile().await;
            tokio::select! {
                () = tokio::time::sleep(AGAIN_AFTER), if !done => {}
                changed = self.statuses.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = self.classes.changed() => {}
                () = self.gateways.changed() => {}
                () = self.http_routes.changed() => {}
                () = self.grpc_routes.changed() => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Returns whether nothing is left to be tried again.
    async fn reconcile(&mut self) -> bool {
        let statuses = self.statuses.borrow_and_update().clone();
        let now = Timestamp::now();
        let mut done = true;
        for (name, seen) in &self.classes.now().objects {
            let wanted = of_class(seen.parameters, seen.generation, &seen.status, now);
            done &= self.write(Kind::GatewayClass, name, seen, wanted).await;
        }
        // Before anything was planned, nothing is known of any of them.
        if !statuses.synced {
            return done;
        }
        for (name, seen) in &self.gateways.now().objects {
            if let Some(told) = statuses.gateways.get(&ObjectName::new(&name.0, &name.1)) {
                done &= self.write(Kind::Gateway, name, seen, of_gateway(told, &seen.status, now)).await;
            }
        }
        let routes = [
            (Kind::HttpRoute, RouteKind::Http, self.http_routes.now()),
            (Kind::GrpcRoute, RouteKind::Grpc, self.grpc_routes.now()),
        ];
        for (of, kind, routes) in routes {
            for (name, seen) in &routes.objects {
                let told = statuses.routes.get(&(kind, ObjectName::new(&name.0, &name.1)));
                let wanted = of_route(told.map_or(&[], Vec::as_slice), &seen.status, now);
                done &= self.write(of, name, seen, wanted).await;
            }
        }
        done
    }

    /// Writes a status, if there is one to write. The object must still be the one that was seen: lists are replaced
    /// whole, and another controller may have put its own entry in.
    async fn write(&self, kind: Kind, name: &Name, seen: &Seen, status: Option<Value>) -> bool {
        let Some(status) = status else { return true };
        let api: Api<DynamicObject> = match name.0.as_str() {
            "" => Api::all_with(self.client.clone(), &kind.api_resource()),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &kind.api_resource()),
        };
        let patch = json!({"metadata": {"resourceVersion": seen.version}, "status": status});
        match api.patch_status(&name.1, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => true,
            // It has changed or gone: the watch tells, and then it is looked at again.
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => true,
            Err(error) => {
                tracing::warn!(kind = kind.type_().1, namespace = name.0, name = name.1, %error, "the status is not written");
                false
            }
        }
    }
}
