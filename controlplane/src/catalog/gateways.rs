//! What gateways' names resolve to: clients get addresses, never names, so the control plane asks the resolver for them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_federation::net::Net;
use portolan_topology::names::ClusterName;
use portolan_topology::topology::Topology;
use tokio::sync::watch;

/// How often names are looked up again.
const REFRESH: Duration = Duration::from_secs(30);

/// The gateways that may be needed: those of the clusters on other networks. Siblings' clients share our network.
fn needed(topology: &Topology, own: &ClusterName) -> BTreeSet<String> {
    let network = topology.cluster(own).map(|cluster| &cluster.network);
    let others = topology.clusters().filter(|cluster| Some(&cluster.network) != network);
    others.flat_map(|cluster| cluster.gateways.iter().cloned()).collect()
}

/// Keeps `resolved` up to date, until nobody listens. A name that stops resolving keeps its last addresses.
pub(super) async fn run(
    own: ClusterName,
    net: Arc<dyn Net>,
    mut topology: watch::Receiver<Arc<Topology>>,
    resolved: watch::Sender<Arc<BTreeMap<String, Vec<SocketAddr>>>>,
) {
    loop {
        let names = needed(&topology.borrow_and_update(), &own);
        let before = resolved.borrow().clone();
        let mut now = BTreeMap::new();
        for name in names {
            let addresses = lookup(&*net, &name).await;
            match (addresses, before.get(&name)) {
                (Some(addresses), _) => {
                    now.insert(name, addresses);
                }
                (None, Some(addresses)) => {
                    now.insert(name, addresses.clone());
                }
                (None, None) => {}
            }
        }
        resolved.send_if_modified(|current| {
            let differs = **current != now;
            if differs {
                *current = Arc::new(now);
            }
            differs
        });
        tokio::select! {
            changed = topology.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(REFRESH) => {}
            () = resolved.closed() => return,
        }
    }
}

async fn lookup(net: &dyn Net, name: &str) -> Option<Vec<SocketAddr>> {
    match net.resolve(name).await {
        Ok(addresses) => Some(addresses),
        Err(error) => {
            tracing::warn!(gateway = name, %error, "cannot resolve the gateway; its last addresses stand");
            None
        }
    }
}
