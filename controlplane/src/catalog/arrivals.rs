//! How long ago endpoints came, and what that means for what is served: a new one is held back, then warms up. Pure.
//!
//! At most half of a locality is held, the newest: those that have been there must not bear what was meant for many more.
//! So the oldest of a service that starts serve at once.
//!
//! New is what was not listed before, or has never been ready since it was. What stands in the first list of a service that
//! is read is not new: a restarted control plane would hold everything back. A restart forgets who was new.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_federation::model::Remote;
use portolan_topology::names::{ClusterName, Locality, ServiceId, ServicePort};
use portolan_topology::policy::Warmup;
use portolan_topology::service::{Endpoint, EndpointCounts, EndpointsByZone, Health, LocalServices};

use super::assemble::Assembled;

/// What came longer ago is not new, whatever a policy says.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// Shares grow by steps of this part of the window, so that other changes in between move nothing.
const STEPS: u32 = 20;

/// No step is shorter.
const SHORTEST_STEP: Duration = Duration::from_secs(1);

/// The endpoints that came while somebody was looking.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    ports: HashMap<ServicePort, HashMap<(ClusterName, SocketAddr), Arrival>>,
}

/// When an endpoint became ready for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    NotYet,
    At(Duration),
}

/// What is left of a service's endpoints and what they bear, and when that changes by itself.
pub(super) struct Aged {
    pub(super) assembled: Assembled,
    pub(super) changes_in: Duration,
}

impl Arrivals {
    /// Compares two snapshots of our own cluster's services.
    pub(super) fn local(&mut self, cluster: &ClusterName, old: &LocalServices, new: &LocalServices, now: Duration) {
        if !old.synced {
            return;
        }
        let nothing = EndpointsByZone::new();
        let gone = old.services.keys().filter(|id| !new.services.contains_key(*id));
        for service in gone {
            self.ports.retain(|port, all| {
                if port.service == *service {
                    all.retain(|(of, _), _| of != cluster);
                }
                !all.is_empty()
            });
        }
        for (id, service) in &new.services {
            let before = old.services.get(id);
            if before.is_some_and(|before| Arc::ptr_eq(before, service)) {
                continue;
            }
            for (port, endpoints) in &service.endpoints {
                let before = before.and_then(|before| before.endpoints.get(port)).unwrap_or(&nothing);
                self.note(port_of(id, *port), cluster, before, endpoints, now);
            }
        }
    }

    /// Compares two snapshots of what other clusters list. A list that is not whole tells nobody who is new.
    pub(super) fn remote(&mut self, old: &Remote, new: &Remote, now: Duration) {
        for ((cluster, port), list) in &new.lists {
            let Some(before) = old.lists.get(&(cluster.clone(), port.clone())) else { continue };
            if !Arc::ptr_eq(before, list) && before.synced {
                self.note(port.clone(), cluster, &before.endpoints, &list.endpoints, now);
            }
        }
    }

    fn note(
        &mut self,
        port: ServicePort,
        cluster: &ClusterName,
        old: &EndpointsByZone,
        new: &EndpointsByZone,
        now: Duration,
    ) {
        let listed: HashMap<SocketAddr, Health> =
            all(new).map(|endpoint| (endpoint.address, endpoint.health)).collect();
        let before: HashMap<SocketAddr, Health> =
            all(old).map(|endpoint| (endpoint.address, endpoint.health)).collect();
        let arrivals = self.ports.entry(port.clone()).or_default();
        arrivals.retain(|(of, address), arrival| {
            let old = matches!(arrival, Arrival::At(at) if now.saturating_sub(*at) > REMEMBERED);
            of != cluster || (listed.contains_key(address) && !old)
        });
        for (address, health) in listed {
            let key = (cluster.clone(), address);
            let arrival = if health == Health::Ready { Arrival::At(now) } else { Arrival::NotYet };
            match arrivals.get(&key) {
                Some(Arrival::NotYet) => drop(arrivals.insert(key, arrival)),
                None if !before.contains_key(&address) => drop(arrivals.insert(key, arrival)),
                Some(Arrival::At(_)) | None => {}
            }
        }
        if arrivals.is_empty() {
            self.ports.remove(&port);
        }
    }

    /// What `warmup` makes of a service port's endpoints. `None`: none of them is new.
    pub(super) fn age(
        &self,
        assembled: &Assembled,
        port: &ServicePort,
        warmup: &Warmup,
        now: Duration,
    ) -> Option<Aged> {
        let arrivals = self.ports.get(port)?;
        let mut aged = Aged { assembled: assembled.clone(), changes_in: Duration::MAX };
        for (locality, endpoints) in &assembled.endpoints {
            let ready = || endpoints.iter().filter(|endpoint| endpoint.health == Health::Ready);
            let age = |endpoint: &Endpoint| match arrivals.get(&(locality.cluster.clone(), endpoint.address)) {
                Some(Arrival::At(at)) => Some(now.saturating_sub(*at)).filter(|age| *age < warmup.whole()),
                Some(Arrival::NotYet) | None => None,
            };
            let mut new: Vec<_> = ready().filter_map(|endpoint| Some((age(endpoint)?, endpoint))).collect();
            if new.is_empty() {
                continue;
            }
            new.sort_by_key(|(age, endpoint)| (*age, endpoint.address));
            let held = new.iter().take_while(|(age, _)| *age < warmup.hold).count().min(ready().count() / 2);
            let (held, warming) = new.split_at(held);
            aged.leave_out(locality, &held.iter().map(|(_, endpoint)| (*endpoint).clone()).collect::<Vec<_>>());
            let mut cold = 0.0;
            for (age, endpoint) in warming {
                let (fraction, _) = step(warmup, *age);
                cold += f64::from(endpoint.weight.get()) * (1.0 - fraction);
            }
            if let Some(facts) = aged.assembled.view.localities.get_mut(locality) {
                facts.cold_weight = cold;
            }
            let next = new.iter().map(|(age, _)| step(warmup, *age).1);
            aged.changes_in = next.fold(aged.changes_in, Duration::min);
        }
        (aged.changes_in < Duration::MAX).then_some(aged)
    }
}

/// The part of its share that an endpoint of this age bears, and how long until that is another. One that should still
/// be held bears as much as at the end of its hold.
fn step(warmup: &Warmup, age: Duration) -> (f64, Duration) {
    let step = (warmup.window / STEPS).max(SHORTEST_STEP);
    let Some(warming) = age.checked_sub(warmup.hold) else {
        return (warmup.fraction(warmup.hold).unwrap_or(1.0), warmup.hold - age);
    };
    let steps = u32::try_from(warming.as_nanos() / step.as_nanos()).unwrap_or(u32::MAX);
    let reached = step.saturating_mul(steps);
    let fraction = warmup.fraction(warmup.hold.saturating_add(reached)).unwrap_or(1.0);
    (fraction, reached.saturating_add(step).min(warmup.window).saturating_sub(warming))
}

impl Aged {
    /// As if they were not listed: a place that grows has lost nothing.
    fn leave_out(&mut self, locality: &Locality, held: &[Endpoint]) {
        let Assembled { view, endpoints, .. } = &mut self.assembled;
        let (Some(listed), Some(facts)) = (endpoints.get_mut(locality), view.localities.get_mut(locality)) else {
            return;
        };
        listed.retain(|endpoint| held.iter().all(|held| held.address != endpoint.address));
        // Its facts may know of fewer than are listed already.
        let (left, counts) = (EndpointCounts::of(listed), &mut facts.endpoints);
        counts.ready = counts.ready.min(left.ready);
        counts.ready_weight = counts.ready_weight.min(left.ready_weight);
        counts.draining = counts.draining.min(left.draining);
        counts.total = counts.total.min(left.total).max(counts.ready);
    }
}

fn port_of(service: &ServiceId, port: u16) -> ServicePort {
    ServicePort { service: service.clone(), port }
}

fn all(endpoints: &EndpointsByZone) -> impl Iterator<Item = &Endpoint> {
    endpoints.values().flatten()
}
