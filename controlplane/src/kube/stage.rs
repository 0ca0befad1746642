//! What a node does in its cluster's Kubernetes, from start to end.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::Client;
use portolan_topology::names::ServicePort;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::events::Events;
use super::lease::{Claim, Lease, Timing};
use super::mcs::exports::Exports;
use super::{gateway, mcs, notes, policy};
use crate::admin::Admin;
use crate::source::kube::Notes;

/// The Lease of the node that writes for its cluster.
const LEASE: &str = "portolan";

/// A node at work in its cluster's Kubernetes, until it is dropped.
pub(crate) struct Stage {
    lease: Lease,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl Stage {
    /// Starts it. The Lease is in the client's namespace; `wanted` takes the endpoint lists that are needed for what is
    /// written; `notes` has what the owners of objects are told; `gateways` says whether
    /// those are watched.
    pub(crate) fn start(
        admin: &Arc<Admin>,
        client: &Client,
        exports: watch::Receiver<Arc<Exports>>,
        wanted: watch::Sender<BTreeSet<ServicePort>>,
        notes: watch::Receiver<Arc<Notes>>,
        gateways: bool,
        rng: &mut StdRng,
    ) -> Self {
        let identity = format!("{}-{:08x}", admin.node, rng.random::<u32>());
        let events = Events::start(client.clone(), identity.clone());
        let namespace = client.default_namespace().to_owned();
        let claim = Claim { namespace, name: LEASE.to_owned(), identity, timing: Timing::default() };
        let lease = Lease::start(client.clone(), claim);
        let policy = policy::run(admin.clone(), client.clone(), lease.standing(), events.clone());
        let told = notes::Inputs { client: client.clone(), lease: LEASE, notes, forbidden: admin.forbidden.kinds() };
        let told = notes::run(told, events.clone(), lease.standing());
        let inputs = mcs::writer::Inputs { admin: admin.clone(), client: client.clone(), exports, events, wanted };
        let services = mcs::writer::run(inputs, lease.standing());
        let (statuses, forbidden) = (admin.gateways.clone(), admin.forbidden.clone());
        let inputs = gateway::Inputs { client: client.clone(), statuses, forbidden, gateways };
        let routes = gateway::run(inputs, lease.standing());
        let tasks = [tokio::spawn(policy), tokio::spawn(told), tokio::spawn(services), tokio::spawn(routes)];
        Self { lease, tasks: tasks.into_iter().map(AbortOnDropHandle::new).collect() }
    }

    /// Ends it: nothing is written any more, then the Lease is given up.
    pub(crate) async fn stop(self) {
        drop(self.tasks);
        self.lease.release().await;
    }
}
