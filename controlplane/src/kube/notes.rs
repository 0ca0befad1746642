//! Tells the owners of objects what the source cannot use of them, and those of the installation what RBAC forbids, as
//! Events, on the node that holds the Lease. What is forbidden is said of the Lease itself: it is always there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Api, Client};
use tokio::sync::watch;

use super::events::Events;
use super::lease::Standing;
use crate::source::kube::Notes;

/// What is still wrong is said again, for Events are forgotten after an hour.
const AGAIN_AFTER: Duration = Duration::from_secs(600);
/// The reason of each: what is used of the object, and what is not, the note says.
const REASON: &str = "Invalid";
/// The reason of what RBAC does not allow.
const FORBIDDEN: &str = "Forbidden";

/// What there is to be told.
pub(super) struct Inputs {
    /// Reads the Lease, which is in its namespace.
    pub(super) client: Client,
    /// The Lease's name.
    pub(super) lease: &'static str,
    /// What the source has to say.
    pub(super) notes: watch::Receiver<Arc<Notes>>,
    /// What else may not be watched, by kind.
    pub(super) forbidden: watch::Receiver<BTreeMap<String, String>>,
}

/// Says them while the Lease is ours, for as long as it runs.
pub(super) async fn run(mut inputs: Inputs, events: Events, mut lease: watch::Receiver<Standing>) {
    while lease.wait_for(|standing| standing.mine).await.is_ok() {
        let now = inputs.notes.borrow_and_update().clone();
        for (about, note) in &now.objects {
            events.warn_in_turn(about.clone(), REASON, note).await;
        }
        let others = inputs.forbidden.borrow_and_update().clone();
        let others = others.iter().filter(|(kind, _)| !now.forbidden.contains_key(*kind)).map(|(_, note)| note);
        let forbidden: BTreeSet<&String> = now.forbidden.values().chain(others).collect();
        if !forbidden.is_empty() {
            let about = inputs.about().await;
            for note in forbidden {
                events.warn_in_turn(about.clone(), FORBIDDEN, note).await;
            }
        }
        tokio::select! {
            changed = inputs.notes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Ok(()) = inputs.forbidden.changed() => {}
            () = tokio::time::sleep(AGAIN_AFTER) => {}
        }
    }
}

impl Inputs {
    /// The Lease. Without its uid `kubectl describe` would not show the Event.
    async fn about(&self) -> ObjectReference {
        let namespace = self.client.default_namespace();
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        ObjectReference {
            api_version: Some("coordination.k8s.io/v1".to_owned()),
            kind: Some("Lease".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(self.lease.to_owned()),
            uid: leases.get(self.lease).await.ok().and_then(|lease| lease.metadata.uid),
            ..ObjectReference::default()
        }
    }
}
