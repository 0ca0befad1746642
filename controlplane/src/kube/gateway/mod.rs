//! The conditions of GatewayClasses, Gateways and their routes, written where their owners look.
//!
//! [`status`] says what an object's status should be, without I/O; [`run`] makes it so, on the node that holds the Lease.
//! Of a route's `parents` only the entries of our controller are ours; no other is touched, and an object whose status
//! says what it should is not written.

mod status;

use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
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

/// What it needs.
pub(super) struct Inputs {
    pub(super) client: Client,
    /// What became of each object.
    pub(super) statuses: watch::Receiver<Arc<Statuses>>,
    /// Where kinds go that RBAC forbids.
    pub(super) forbidden: Forbidden,
    /// Whether gateways are watched, and not the routes of Services alone.
    pub(super) gateways: bool,
}

/// Writes what is said of each while the Lease is ours, for as long as it runs.
pub(super) async fn run(inputs: Inputs, mut lease: watch::Receiver<Standing>) {
    while lease.wait_for(|standing| standing.mine).await.is_ok() {
        tokio::select! {
            () = Writer::new(&inputs).run() => {}
            _ = lease.wait_for(|standing| !standing.mine) => {}
        }
    }
}

/// The status to write to an object; `None`: it says so already, or nothing is to be said of it.
fn wanted(statuses: &Statuses, kind: Kind, name: &Name, seen: &Seen, now: Timestamp) -> Option<Value> {
    let object = || ObjectName::new(&name.0, &name.1);
    let of = |route: RouteKind| {
        let told = statuses.routes.get(&(route, object()));
        of_route(told.map_or(&[], Vec::as_slice), &seen.status, now)
    };
    match kind {
        Kind::GatewayClass => of_class(seen.parameters, seen.generation, &seen.status, now),
        Kind::Gateway => of_gateway(statuses.gateways.get(&object())?, &seen.status, now),
        Kind::HttpRoute => of(RouteKind::Http),
        Kind::GrpcRoute => of(RouteKind::Grpc),
        _ => None,
    }
}

struct Writer {
    client: Client,
    statuses: watch::Receiver<Arc<Statuses>>,
    mirrors: Vec<(Kind, Mirror<Seen>)>,
}

impl Writer {
    fn new(inputs: &Inputs) -> Self {
        let Inputs { client, statuses, forbidden, gateways } = inputs;
        let all = |object: DynamicObject| Some(Seen::of(object));
        let ours = |object: DynamicObject| {
            let ours = object.data.get("spec").is_some_and(|spec| spec["controllerName"] == CONTROLLER);
            ours.then(|| Seen::of(object))
        };
        let mirror = |kind: Kind| {
            let api = Api::all_with(client.clone(), &kind.api_resource());
            let project = if kind == Kind::GatewayClass { ours } else { all };
            (kind, Mirror::start(api, watcher::Config::default(), forbidden, project))
        };
        let kinds: &[Kind] = if *gateways { &[Kind::GatewayClass, Kind::Gateway] } else { &[] };
        let mirrors = kinds.iter().chain(&[Kind::HttpRoute, Kind::GrpcRoute]).map(|kind| mirror(*kind)).collect();
        Self { client: client.clone(), statuses: statuses.clone(), mirrors }
    }

    async fn run(mut self) {
        loop {
            let done = self.reconcile().await;
            let seen = select_all(self.mirrors.iter_mut().map(|(_, mirror)| Box::pin(mirror.changed())));
            tokio::select! {
                () = tokio::time::sleep(AGAIN_AFTER), if !done => {}
                changed = self.statuses.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                _ = seen => {}
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// Returns whether nothing is left to be tried again.
    async fn reconcile(&mut self) -> bool {
        let statuses = self.statuses.borrow_and_update().clone();
        let now = Timestamp::now();
        let mut done = true;
        let seen: Vec<_> = self.mirrors.iter_mut().map(|(kind, mirror)| (*kind, mirror.now())).collect();
        for (kind, mirrored) in seen {
            // Before anything was planned, nothing is known of any but the classes.
            if !statuses.synced && kind != Kind::GatewayClass {
                continue;
            }
            for (name, seen) in &mirrored.objects {
                if let Some(status) = wanted(&statuses, kind, name, seen, now) {
                    done &= self.write(kind, name, seen, status).await;
                }
            }
        }
        done
    }

    /// Writes a status. The object must still be the one that was seen: lists are replaced whole, and another controller
    /// may have put its own entry in.
    async fn write(&self, kind: Kind, name: &Name, seen: &Seen, status: Value) -> bool {
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
