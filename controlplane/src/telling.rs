//! What this cluster tells the others, put together from the stages that know it.

use std::sync::Arc;
use std::time::Duration;

use portolan_federation::model::{Local, PolicyStanding};
use portolan_federation::policy;
use portolan_topology::service::LocalServices;
use portolan_topology::topology::Topology;
use tokio::sync::watch;

use crate::catalog::Demand;
use crate::kube::mcs::exports::Exports;
use crate::slots::changed;
use crate::xds::clients::ClientsRegistry;

/// How often refusing clients are counted: one that refuses and accepts by turns must not gossip each time.
const COUNT_EVERY: Duration = Duration::from_secs(2);

/// Where it comes from.
pub(crate) struct Telling {
    /// The cluster's services.
    pub(crate) services: watch::Receiver<Arc<LocalServices>>,
    /// Which of them are for others, and what is said of those.
    pub(crate) exports: watch::Receiver<Arc<Exports>>,
    /// What its clients ask for.
    pub(crate) demand: watch::Receiver<Arc<Demand>>,
    /// How many of its clients refuse what they were sent.
    pub(crate) nacked: watch::Receiver<u32>,
    /// The topology in force.
    pub(crate) topology: watch::Receiver<Arc<Topology>>,
    /// Where the cluster stands in the policy group.
    pub(crate) policy: watch::Receiver<policy::Standing>,
}

/// What is told, always the newest, until nobody listens.
pub(crate) fn start(of: Telling) -> watch::Receiver<Arc<Local>> {
    let Telling { mut services, mut exports, mut demand, mut nacked, mut topology, mut policy } = of;
    let (slot, receiver) = watch::channel(Arc::default());
    tokio::spawn(async move {
        loop {
            let exported = exports.borrow_and_update().clone();
            let local = Local {
                services: exported.of(&services.borrow_and_update()),
                exports: exported.services.clone(),
                demand: demand.borrow_and_update().as_ref().clone(),
                nacked: *nacked.borrow_and_update(),
                topology_hash: topology.borrow_and_update().hash,
                policy: standing(&policy.borrow_and_update()),
                // A control plane that ends says nothing of its cluster's endpoints.
                failed: false,
            };
            slot.send_replace(Arc::new(local));
            tokio::select! {
                () = changed(&mut services) => {}
                () = changed(&mut exports) => {}
                () = changed(&mut demand) => {}
                () = changed(&mut nacked) => {}
                () = changed(&mut topology) => {}
                () = changed(&mut policy) => {}
                () = slot.closed() => return,
            }
        }
    });
    receiver
}

fn standing(standing: &policy::Standing) -> Option<PolicyStanding> {
    standing.role.map(|role| PolicyStanding { revision: standing.revision, role })
}

/// Keeps in `slot` how many of `clients` refuse what they were sent, until nobody listens.
pub(crate) async fn count_nacked(clients: Arc<ClientsRegistry>, slot: watch::Sender<u32>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(COUNT_EVERY) => {}
            () = slot.closed() => return,
        }
        let nacked = clients.nacked();
        slot.send_if_modified(|told| std::mem::replace(told, nacked) != nacked);
    }
}
