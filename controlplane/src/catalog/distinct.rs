//! An address stands in one locality of an assignment: the nearer tier keeps it. gRPC clients refuse an assignment
//! that names one twice, and two clusters that list the same pod have overlapping address ranges, which somebody must
//! be told of.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;

use portolan_topology::names::Locality;
use portolan_topology::plan::Plan;
use portolan_topology::service::{Endpoint, EndpointCounts};
use serde::{Deserialize, Serialize};

use super::assemble::Assembled;

/// An address that two localities list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Duplicate {
    /// The address.
    pub address: SocketAddr,
    /// The nearer locality, which keeps it.
    pub kept: Locality,
    /// The farther one, which is served without it.
    pub dropped: Locality,
}

/// Whether any address stands in two localities.
pub(super) fn has_duplicates(endpoints: &BTreeMap<Locality, Vec<Endpoint>>) -> bool {
    let mut seen = HashSet::with_capacity(endpoints.values().map(Vec::len).sum());
    !endpoints.values().flatten().all(|endpoint| seen.insert(endpoint.address))
}

/// Takes each address that stands twice away from the farther locality, as `plan` ranks them, and from the counts.
pub(super) fn keep_nearest(assembled: &mut Assembled, plan: &Plan) -> Vec<Duplicate> {
    let mut ranked: Vec<_> =
        plan.priorities.iter().flatten().map(|planned| (&planned.tier, &planned.locality)).collect();
    ranked.sort();
    // What the plan leaves out is farthest.
    let omitted = assembled.endpoints.keys().filter(|locality| !ranked.iter().any(|(_, ranked)| ranked == locality));
    let order: Vec<Locality> = ranked.iter().map(|(_, locality)| *locality).chain(omitted).cloned().collect();
    let mut holders: HashMap<SocketAddr, Locality> = HashMap::new();
    let mut duplicates = Vec::new();
    for locality in order {
        let Some(endpoints) = assembled.endpoints.get_mut(&locality) else { continue };
        let mut dropped = Vec::new();
        endpoints.retain(|endpoint| match holders.get(&endpoint.address) {
            None => {
                holders.insert(endpoint.address, locality.clone());
                true
            }
            Some(kept) => {
                let (address, kept) = (endpoint.address, kept.clone());
                duplicates.push(Duplicate { address, kept, dropped: locality.clone() });
                dropped.push(endpoint.clone());
                false
            }
        });
        if dropped.is_empty() {
            continue;
        }
        if endpoints.is_empty() {
            assembled.endpoints.remove(&locality);
            assembled.view.localities.remove(&locality);
        } else if let Some(facts) = assembled.view.localities.get_mut(&locality) {
            subtract(&mut facts.endpoints, EndpointCounts::of(&dropped));
        }
    }
    duplicates.sort();
    duplicates
}

fn subtract(counts: &mut EndpointCounts, dropped: EndpointCounts) {
    counts.total = counts.total.saturating_sub(dropped.total);
    counts.ready = counts.ready.saturating_sub(dropped.ready);
    counts.draining = counts.draining.saturating_sub(dropped.draining);
    counts.ready_weight = counts.ready_weight.saturating_sub(dropped.ready_weight);
}
