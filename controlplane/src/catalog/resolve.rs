//! What a name means now: which port of which service, or nothing, or not known yet. Absence is said only when it is
//! known: our own source is synced, policy is loaded, and each other cluster was heard or is known dead, or `settle`
//! is over.

use std::time::Duration;

use portolan_federation::model::RemoteCluster;
use portolan_topology::names::ClusterName;
use portolan_topology::service::Port;
use portolan_topology::view::Liveness;

use super::core::PlanKey;
use super::inputs::Inputs;
use super::served::{NameScope, PortRef, Query};

/// The longest wait for other clusters before an unknown name is called absent.
pub(super) const SETTLE: Duration = Duration::from_secs(30);

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Port(u16),
    Absent,
    NotYet,
}

/// What `query` names. `age` is since this control plane's start.
pub(super) fn resolve(inputs: &Inputs, query: &Query, age: Duration) -> Meaning {
    match find(inputs, query) {
        Some(port) => Meaning::Port(port),
        None if absence_is_known(inputs, query, age) => Meaning::Absent,
        None => Meaning::NotYet,
    }
}

/// The port, from the nearest that has the service: our own source, then the other clusters by name, then lists that
/// outlived the facts they came with.
fn find(inputs: &Inputs, query: &Query) -> Option<u16> {
    let in_scope = |cluster: &ClusterName| query.scope == NameScope::Federation || *cluster == query.client.cluster;
    if in_scope(&inputs.cluster)
        && let Some(service) = inputs.local.services.get(&query.service)
        && let Some(port) = pick(&service.ports, &query.port)
    {
        return Some(port);
    }
    let mut told = others(inputs).filter(|cluster| in_scope(&cluster.name));
    told.find_map(|cluster| pick(&cluster.services.get(&query.service)?.ports, &query.port)).or_else(|| {
        let listed = inputs.remote.lists.iter().filter(|((cluster, port), list)| {
            in_scope(cluster) && port.service == query.service && list.endpoints.values().any(|all| !all.is_empty())
        });
        let ports = listed.map(|((_, port), _)| port.port);
        match &query.port {
            PortRef::First => ports.min(),
            PortRef::Number(number) => ports.into_iter().find(|port| port == number),
            PortRef::Name(_) => None,
        }
    })
}

/// What the port of `key` is called, by the nearest cluster that has it: our own, then the others by name.
pub fn port_name<'a>(inputs: &'a Inputs, key: &PlanKey) -> Option<&'a str> {
    let own = inputs.local.services.get(&key.service).map(|service| service.ports.as_slice());
    let told = others(inputs).filter_map(|cluster| Some(cluster.services.get(&key.service)?.ports.as_slice()));
    own.into_iter().chain(told).flatten().find(|port| port.number == key.port)?.name.as_deref()
}

fn pick(ports: &[Port], wanted: &PortRef) -> Option<u16> {
    let port = match wanted {
        PortRef::First => ports.first(),
        PortRef::Number(number) => ports.iter().find(|port| port.number == *number),
        PortRef::Name(name) => ports.iter().find(|port| port.name.as_deref() == Some(name)),
    };
    port.map(|port| port.number)
}

/// The other clusters of which we know something.
pub(super) fn others(inputs: &Inputs) -> impl Iterator<Item = &RemoteCluster> {
    inputs.remote.clusters.values().map(AsRef::as_ref).filter(|cluster| cluster.name != inputs.cluster)
}

fn absence_is_known(inputs: &Inputs, query: &Query, age: Duration) -> bool {
    let settled = age >= SETTLE;
    let heard = |name: &ClusterName| {
        *name == inputs.cluster
            || inputs
                .remote
                .clusters
                .get(name)
                .is_some_and(|cluster| cluster.complete || cluster.liveness == Liveness::Failed)
    };
    match query.scope {
        // What our own source has not shown yet is never called absent, however long that takes.
        NameScope::Cluster if query.client.cluster == inputs.cluster => inputs.local.synced,
        NameScope::Cluster => heard(&query.client.cluster) || settled,
        NameScope::Federation => {
            let all_heard = inputs.policy.is_some() && inputs.topology.clusters().all(|cluster| heard(&cluster.name));
            inputs.local.synced && (all_heard || settled)
        }
    }
}
