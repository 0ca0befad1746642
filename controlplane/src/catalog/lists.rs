//! Which of another cluster's endpoints are believed: the emptiness guard. Pure; time is handed in.
//!
//! A synced list that agrees with the gossiped facts is taken as it is, whatever its size. Any other may add endpoints
//! and change their health, but remove none: an empty answer from a control plane that has just started must not look
//! like the end of a service. What a believed list removes in bulk stays for a while as a last resort.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_federation::model::{Remote, RemoteCluster, RemoteList};
use portolan_topology::names::{ClusterName, ServicePort};
use portolan_topology::service::{Endpoint, EndpointsByZone, Health};

/// For how long endpoints that went away in bulk are still served, as unhealthy.
pub(super) const LAST_RESORT: Duration = Duration::from_secs(60);

/// A list as it is used.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Accepted {
    raw: Arc<RemoteList>,
    /// The endpoints that count.
    pub(super) endpoints: Arc<EndpointsByZone>,
    /// Endpoints that went away in bulk, all [`Health::NotReady`], and until when they are served.
    pub(super) last_resort: Option<(Arc<EndpointsByZone>, Duration)>,
}

/// All lists as they are used, by cluster and port.
#[derive(Debug, Default)]
pub(super) struct Lists {
    accepted: BTreeMap<(ClusterName, ServicePort), Accepted>,
}

impl Lists {
    /// Takes over what `remote` holds. Lists that it no longer holds are forgotten: nobody asks for them.
    pub(super) fn update(&mut self, remote: &Remote, now: Duration) {
        self.accepted.retain(|key, _| remote.lists.contains_key(key));
        for (key, list) in &remote.lists {
            let cluster = remote.clusters.get(&key.0);
            match self.accepted.get_mut(key) {
                None => {
                    let endpoints = Arc::new(list.endpoints.clone());
                    let first = Accepted { raw: list.clone(), endpoints, last_resort: None };
                    self.accepted.insert(key.clone(), first);
                }
                Some(accepted) => accepted.take(list, is_believed(list, cluster.map(AsRef::as_ref), &key.1), now),
            }
        }
    }

    /// The list of one port in one cluster, if it is here.
    pub(super) fn get(&self, cluster: &ClusterName, port: &ServicePort) -> Option<&Accepted> {
        // A tuple of references cannot look up a tuple of values; two short clones are cheaper than a second map.
        self.accepted.get(&(cluster.clone(), port.clone()))
    }

    /// Every list that is here.
    pub(super) fn keys(&self) -> impl Iterator<Item = &(ClusterName, ServicePort)> {
        self.accepted.keys()
    }

    /// Ends last resorts whose time is over; says whose.
    pub(super) fn expire(&mut self, now: Duration) -> BTreeSet<ServicePort> {
        let mut expired = BTreeSet::new();
        for ((_, port), accepted) in &mut self.accepted {
            if accepted.last_resort.as_ref().is_some_and(|(_, until)| *until <= now) {
                accepted.last_resort = None;
                expired.insert(port.clone());
            }
        }
        expired
    }

    /// When the next last resort ends.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        self.accepted.values().filter_map(|accepted| Some(accepted.last_resort.as_ref()?.1)).min()
    }
}

impl Accepted {
    fn take(&mut self, list: &Arc<RemoteList>, believed: bool, now: Duration) {
        if Arc::ptr_eq(&self.raw, list) && (!believed || *self.endpoints == list.endpoints) {
            return;
        }
        self.raw = list.clone();
        if !believed {
            let merged = add_only(&self.endpoints, &list.endpoints);
            if merged != *self.endpoints {
                self.endpoints = Arc::new(merged);
            }
            return;
        }
        let removed = removed(&self.endpoints, &list.endpoints);
        let count = |endpoints: &EndpointsByZone| endpoints.values().map(Vec::len).sum::<usize>();
        if 2 * count(&removed) > count(&self.endpoints) {
            self.last_resort = Some((Arc::new(removed), now + LAST_RESORT));
        } else if let Some((kept, until)) = self.last_resort.take() {
            // What has come back is served by the list itself.
            let kept = self::removed(&kept, &list.endpoints);
            self.last_resort = (!kept.is_empty()).then(|| (Arc::new(kept), until));
        }
        self.endpoints = Arc::new(list.endpoints.clone());
    }
}

/// Whether `list` may remove endpoints: its publisher's source was synced, it is of the publisher's present epoch, and
/// it has as many endpoints as the facts say. Facts count a service's first port; another port's list need only not
/// be empty where the service is not.
fn is_believed(list: &RemoteList, cluster: Option<&RemoteCluster>, port: &ServicePort) -> bool {
    let Some(cluster) = cluster else { return false };
    if !list.synced || !cluster.complete || list.version.0 != cluster.version.0 {
        return false;
    }
    let listed = list.endpoints.values().map(Vec::len).sum::<usize>() as u64;
    let Some(service) = cluster.services.get(&port.service) else { return listed == 0 };
    let told = service.zones.values().map(|fact| u64::from(fact.endpoints.total)).sum::<u64>();
    let is_first = service.ports.first().is_none_or(|first| first.number == port.port);
    if is_first { listed == told } else { listed > 0 || told == 0 }
}

/// `old`, with the endpoints of `new` added or replaced.
fn add_only(old: &EndpointsByZone, new: &EndpointsByZone) -> EndpointsByZone {
    let addresses = addresses(new);
    let mut merged = new.clone();
    for (zone, endpoints) in old {
        let kept = endpoints.iter().filter(|endpoint| !addresses.contains(&endpoint.address)).cloned();
        merged.entry(zone.clone()).or_default().extend(kept);
    }
    for endpoints in merged.values_mut() {
        endpoints.sort();
    }
    merged.retain(|_, endpoints| !endpoints.is_empty());
    merged
}

/// The endpoints of `old` whose addresses `new` does not have, as not ready.
fn removed(old: &EndpointsByZone, new: &EndpointsByZone) -> EndpointsByZone {
    let addresses = addresses(new);
    let gone = |endpoints: &Vec<Endpoint>| -> Vec<Endpoint> {
        let gone = endpoints.iter().filter(|endpoint| !addresses.contains(&endpoint.address));
        gone.map(|endpoint| Endpoint { health: Health::NotReady, ..endpoint.clone() }).collect()
    };
    old.iter().map(|(zone, endpoints)| (zone.clone(), gone(endpoints))).filter(|(_, gone)| !gone.is_empty()).collect()
}

fn addresses(endpoints: &EndpointsByZone) -> BTreeSet<SocketAddr> {
    endpoints.values().flatten().map(|endpoint| endpoint.address).collect()
}
