//! Endpoints that flap are held back: one that turned unready [`DOWNS`] times within [`WITHIN`] is shown as not ready
//! for [`FIRST`] after it last went down, twice as long each time it does so again, [`LONGEST`] at most. Losing
//! readiness is never held back. Pure; time is handed in.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_topology::names::ServiceId;
use portolan_topology::service::{Health, LocalService, LocalServices};

const DOWNS: usize = 3;
const WITHIN: Duration = Duration::from_secs(10);
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// What has been quiet for this long is forgotten.
const FORGET: Duration = Duration::from_secs(10 * 60);

/// What an endpoint has been through.
#[derive(Debug, Default)]
struct Past {
    /// When it turned unready, the last few times.
    downs: VecDeque<Duration>,
    /// For how long it was held back last.
    penalty: Option<Duration>,
    /// Until when it is held back.
    until: Duration,
}

/// Holds flapping endpoints back.
#[derive(Debug, Default)]
pub(super) struct Damper {
    given: BTreeMap<ServiceId, Arc<LocalService>>,
    shown: BTreeMap<ServiceId, Arc<LocalService>>,
    pasts: HashMap<(ServiceId, SocketAddr), Past>,
}

impl Damper {
    /// What is to be shown of `local` at `now`. Services that did not change keep their allocation.
    pub(super) fn take(&mut self, local: &LocalServices, now: Duration) -> LocalServices {
        for (id, service) in &local.services {
            if let Some(before) = self.given.get(id).filter(|before| !Arc::ptr_eq(before, service)) {
                for address in turned_unready(before, service) {
                    self.pasts.entry((id.clone(), address)).or_default().down(now);
                }
            }
        }
        self.given = local.services.clone();
        self.show(local.synced, now)
    }

    /// What is to be shown of what was taken last, at a later moment.
    pub(super) fn show(&mut self, synced: bool, now: Duration) -> LocalServices {
        self.pasts.retain(|_, past| past.downs.back().is_some_and(|last| now < *last + FORGET));
        let held: BTreeSet<(&ServiceId, SocketAddr)> =
            self.pasts.iter().filter(|(_, past)| now < past.until).map(|((id, address), _)| (id, *address)).collect();
        let shown = self.given.iter().map(|(id, service)| {
            let shown = if held.iter().any(|(of, _)| *of == id) {
                let shown = without(service, |address| held.contains(&(id, address)));
                let same = self.shown.get(id).filter(|same| ***same == shown).cloned();
                same.unwrap_or_else(|| Arc::new(shown))
            } else {
                service.clone()
            };
            (id.clone(), shown)
        });
        self.shown = shown.collect();
        LocalServices { synced, services: self.shown.clone() }
    }

    /// When the next endpoint is let back.
    pub(super) fn next(&self, now: Duration) -> Option<Duration> {
        self.pasts.values().map(|past| past.until).filter(|until| *until > now).min()
    }

    /// The endpoints that are held back, and until when.
    pub(super) fn held(&self, now: Duration) -> BTreeMap<(ServiceId, SocketAddr), Duration> {
        let held = self.pasts.iter().filter(|(_, past)| now < past.until);
        held.map(|(key, past)| (key.clone(), past.until)).collect()
    }
}

impl Past {
    fn down(&mut self, now: Duration) {
        self.downs.push_back(now);
        if self.downs.len() > DOWNS {
            self.downs.pop_front();
        }
        let flaps = self.downs.len() == DOWNS && self.downs.front().is_some_and(|first| now <= *first + WITHIN);
        if flaps {
            // Counted anew from here, so that the next penalty has a cause of its own.
            self.downs = VecDeque::from([now]);
            let penalty = self.penalty.map_or(FIRST, |before| (2 * before).min(LONGEST));
            self.penalty = Some(penalty);
            self.until = now + penalty;
        } else if now < self.until {
            self.until = now + self.penalty.unwrap_or(FIRST);
        }
    }
}

/// `service` with those endpoints not ready that are `held`.
fn without(service: &LocalService, held: impl Fn(SocketAddr) -> bool) -> LocalService {
    let mut shown = service.clone();
    let all = shown.endpoints.values_mut().flat_map(BTreeMap::values_mut).flatten();
    for endpoint in all.filter(|endpoint| endpoint.health == Health::Ready && held(endpoint.address)) {
        endpoint.health = Health::NotReady;
    }
    shown
}

/// The addresses that were ready and are listed as something else now.
fn turned_unready(before: &LocalService, now: &LocalService) -> BTreeSet<SocketAddr> {
    let with = |service: &LocalService, ready: bool| -> BTreeSet<SocketAddr> {
        let all = service.endpoints.values().flat_map(BTreeMap::values).flatten();
        // Draining is on its way out, and does not come back.
        let wanted = if ready { Health::Ready } else { Health::NotReady };
        all.filter(|endpoint| endpoint.health == wanted).map(|endpoint| endpoint.address).collect()
    };
    with(before, true).intersection(&with(now, false)).copied().collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use portolan_topology::service::{Endpoint, Port};

    use super::*;

    const A: &str = "10.0.0.1:80";
    const B: &str = "10.0.0.2:80";

    fn services(ready: &[(&str, bool)]) -> LocalServices {
        let id: ServiceId = "a.shop".parse().unwrap();
        let endpoint = |(address, ready): &(&str, bool)| Endpoint {
            address: address.parse().unwrap(),
            weight: NonZeroU32::MIN,
            health: if *ready { Health::Ready } else { Health::NotReady },
            shard: None,
        };
        let zones = [(None, ready.iter().map(endpoint).collect())].into();
        let ports = vec![Port { number: 80, name: None }];
        let service =
            LocalService { id: id.clone(), ports, endpoints: [(80, zones)].into(), capacity: None, warmup: None };
        LocalServices { synced: true, services: [(id, Arc::new(service))].into() }
    }

    fn ready(shown: &LocalServices) -> Vec<String> {
        let all = shown.services.values().flat_map(|service| service.endpoints.values().flat_map(BTreeMap::values));
        let ready = all.flatten().filter(|endpoint| endpoint.health == Health::Ready);
        ready.map(|endpoint| endpoint.address.to_string()).collect()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1_000 + seconds)
    }

    /// Down and up again at each of these moments; `B` is well all the time. What is ready after the last.
    fn flap(damper: &mut Damper, moments: &[u64]) -> Vec<String> {
        let mut shown = damper.take(&services(&[(A, true), (B, true)]), at(moments[0]));
        for moment in moments {
            shown = damper.take(&services(&[(A, false), (B, true)]), at(*moment));
            assert_eq!(ready(&shown), [B], "losing readiness is not held back");
            shown = damper.take(&services(&[(A, true), (B, true)]), at(*moment));
        }
        ready(&shown)
    }

    #[test]
    fn twice_is_no_flapping_and_three_times_is() {
        assert_eq!(flap(&mut Damper::default(), &[0, 5]), [A, B]);
        assert_eq!(flap(&mut Damper::default(), &[0, 5, 11]), [A, B], "the first is too long ago");
        let mut damper = Damper::default();
        assert_eq!(flap(&mut damper, &[0, 5, 10]), [B]);
        assert_eq!(damper.next(at(10)), Some(at(20)));
        assert_eq!(ready(&damper.show(true, at(19))), [B]);
        assert_eq!(ready(&damper.show(true, at(20))), [A, B]);
        assert_eq!(damper.next(at(20)), None);
    }

    #[test]
    fn the_penalty_doubles_up_to_its_limit_and_is_forgotten() {
        let mut damper = Damper::default();
        let mut now = 0;
        for penalty in [10, 20, 40, 80, 160, 300, 300] {
            flap(&mut damper, &[now, now + 1, now + 2]);
            assert_eq!(damper.next(at(now + 2)), Some(at(now + 2 + penalty)));
            now += 2 + penalty;
        }
        now += 601;
        damper.show(true, at(now));
        flap(&mut damper, &[now, now + 1, now + 2]);
        assert_eq!(damper.next(at(now + 2)), Some(at(now + 12)));
    }

    #[test]
    fn going_down_while_held_back_holds_it_back_anew() {
        let mut damper = Damper::default();
        flap(&mut damper, &[0, 1, 2]);
        flap(&mut damper, &[11]);
        assert_eq!(damper.next(at(11)), Some(at(21)));
    }

    #[test]
    fn what_is_not_held_back_is_the_same_allocation() {
        let mut damper = Damper::default();
        let given = services(&[(A, true)]);
        let shown = damper.take(&given, at(0));
        let id: ServiceId = "a.shop".parse().unwrap();
        assert!(Arc::ptr_eq(&given.services[&id], &shown.services[&id]));
    }

    #[test]
    fn a_pod_that_goes_away_and_one_that_drains_do_not_flap() {
        let mut damper = Damper::default();
        for moment in 0..5 {
            damper.take(&services(&[(A, true), (B, true)]), at(moment));
            damper.take(&services(&[(B, true)]), at(moment));
        }
        assert_eq!(ready(&damper.take(&services(&[(A, true), (B, true)]), at(5))), [A, B]);
    }
}
