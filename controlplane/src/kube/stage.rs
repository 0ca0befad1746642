//! What a node does in its cluster's Kubernetes, from start to end.

use std::sync::Arc;

use kube::Client;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio_util::task::AbortOnDropHandle;

use super::events::Events;
use super::lease::{Claim, Lease, Timing};
use super::policy;
use crate::admin::Admin;

/// The Lease of the node that writes for its cluster.
const LEASE: &str = "portolan";

/// A node at work in its cluster's Kubernetes, until it is dropped.
pub(crate) struct Stage {
    lease: Lease,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl Stage {
    /// Starts it. The Lease is in the client's namespace.
    pub(crate) fn start(admin: &Arc<Admin>, client: &Client, rng: &mut StdRng) -> Self {
        let identity = format!("{}-{:08x}", admin.node, rng.random::<u32>());
        let events = Events::start(client.clone(), identity.clone());
        let namespace = client.default_namespace().to_owned();
        let claim = Claim { namespace, name: LEASE.to_owned(), identity, timing: Timing::default() };
        let lease = Lease::start(client.clone(), claim);
        let policy = policy::run(admin.clone(), client.clone(), lease.standing(), events);
        Self { lease, tasks: vec![AbortOnDropHandle::new(tokio::spawn(policy))] }
    }

    /// Ends it: nothing is written any more, then the Lease is given up.
    pub(crate) async fn stop(self) {
        drop(self.tasks);
        self.lease.release().await;
    }
}
