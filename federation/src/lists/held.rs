//! The emptiness guard: what becomes of one list when a newer one comes. Pure.
//!
//! A list whose publisher's source was synced, and whose stamp agrees with the gossiped facts, is believed, whatever its
//! size. Any other may add, not remove. What was removed in bulk stays for a while as a last resort, not ready.

use std::collections::BTreeMap;
use std::time::Duration;

use portolan_topology::names::ZoneName;
use portolan_topology::service::{Endpoint, EndpointsByZone, Health};
use tokio::time::Instant;

use super::resource::List;
use crate::gossip::value::ServiceStamp;
use crate::model::RemoteList;

/// How long what was removed in bulk stays.
pub(crate) const LAST_RESORT: Duration = Duration::from_secs(60);

/// What the facts say of a list's service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gossiped {
    /// The stamp of its facts; `None`: there are none.
    pub(crate) stamp: Option<ServiceStamp>,
    /// Whether all facts of the cluster are known, so that none means none.
    pub(crate) complete: bool,
}

/// What the publisher said last.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    /// Nothing since this process started.
    Nothing,
    List(List),
    /// That there is no such list.
    Absent,
}

/// One list of another cluster.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HeldList {
    said: Said,
    /// What is used.
    list: List,
    /// Removed in bulk, and until when each stays.
    leaving: BTreeMap<(Option<ZoneName>, Endpoint), Instant>,
}

impl HeldList {
    /// One of which nothing is known.
    pub(crate) fn new() -> Self {
        Self { said: Said::Nothing, list: List::default(), leaving: BTreeMap::new() }
    }

    /// One that was on disk.
    pub(crate) fn stored(list: List) -> Self {
        Self { list, ..Self::new() }
    }

    /// The publisher sent `list`.
    pub(crate) fn receive(&mut self, list: List) {
        // Its older self may still speak through a connection of its own.
        if list.stamp.version.epoch >= self.list.stamp.version.epoch {
            self.said = Said::List(list);
        }
    }

    /// The publisher says that there is no such list.
    pub(crate) fn absent(&mut self) {
        self.said = Said::Absent;
    }

    /// What the publisher said last, or what was on disk; `None`: that there is no such list.
    pub(crate) fn said(&self) -> Option<&List> {
        match &self.said {
            Said::Nothing => Some(&self.list),
            Said::List(list) => Some(list),
            Said::Absent => None,
        }
    }

    /// Brings what is used in line with what was said, as far as the facts allow. Says whether it changed. To be asked
    /// again when the facts change, and when [`HeldList::next`] comes.
    pub(crate) fn judge(&mut self, gossiped: Gossiped, now: Instant) -> bool {
        let leaving_before = self.leaving.len();
        self.leaving.retain(|_, until| *until > now);
        let mut changed = self.leaving.len() != leaving_before;
        let (list, believed) = match &self.said {
            Said::Nothing => return changed,
            Said::List(list) => (
                list.clone(),
                list.synced
                    && gossiped.stamp.unwrap_or_default().count == list.stamp.count
                    && (gossiped.stamp.map(|stamp| stamp.version) == Some(list.stamp.version)
                        || (gossiped.stamp.is_none() && gossiped.complete)),
            ),
            Said::Absent => {
                let list = List { endpoints: EndpointsByZone::new(), ..self.list.clone() };
                (list, gossiped.complete && gossiped.stamp.is_none())
            }
        };
        let endpoints = if believed {
            self.remember_bulk_removal(&list.endpoints, now);
            list.endpoints
        } else {
            merged(&self.list.endpoints, list.endpoints)
        };
        for (zone, endpoints) in &endpoints {
            for endpoint in endpoints {
                self.leaving.retain(|(z, leaving), _| z != zone || leaving.address != endpoint.address);
            }
        }
        let next = List { endpoints, ..list };
        if next != self.list {
            self.list = next;
            changed = true;
        }
        changed
    }

    /// When [`HeldList::judge`] has something to do though nothing came.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.leaving.values().min().copied()
    }

    /// Whether it is gone: nothing left, and the publisher says so.
    pub(crate) fn is_gone(&self) -> bool {
        self.said == Said::Absent && self.list.endpoints.is_empty() && self.leaving.is_empty()
    }

    /// What is used, those that are leaving aside.
    pub(crate) fn list(&self) -> &List {
        &self.list
    }

    /// Whether what is used is exactly what the publisher said, so that it need not say it again.
    pub(crate) fn is_as_said(&self) -> bool {
        matches!(&self.said, Said::List(said) if *said == self.list)
    }

    /// What the rest of the control plane sees.
    pub(crate) fn snapshot(&self) -> RemoteList {
        let mut endpoints = self.list.endpoints.clone();
        for (zone, endpoint) in self.leaving.keys() {
            let zone = endpoints.entry(zone.clone()).or_default();
            let at = zone.partition_point(|other| other.address < endpoint.address);
            zone.insert(at, Endpoint { health: Health::NotReady, ..endpoint.clone() });
        }
        let version = self.list.stamp.version;
        RemoteList { synced: self.list.synced, version: (version.epoch, version.sequence), endpoints }
    }

    /// More than half removed at once: perhaps not what was meant.
    fn remember_bulk_removal(&mut self, next: &EndpointsByZone, now: Instant) {
        let has = |zone: &Option<ZoneName>, endpoint: &Endpoint| {
            next.get(zone).is_some_and(|endpoints| {
                endpoints.binary_search_by_key(&endpoint.address, |endpoint| endpoint.address).is_ok()
            })
        };
        let all = || self.list.endpoints.iter().flat_map(|(zone, endpoints)| endpoints.iter().map(move |e| (zone, e)));
        let removed: Vec<_> = all()
            .filter(|(zone, endpoint)| !has(zone, endpoint))
            .map(|(zone, endpoint)| ((zone.clone(), endpoint.clone()), now + LAST_RESORT))
            .collect();
        if removed.len() * 2 > all().count() {
            self.leaving.extend(removed);
        }
    }
}

/// `before` with what `said` adds or changes.
fn merged(before: &EndpointsByZone, said: EndpointsByZone) -> EndpointsByZone {
    let mut merged = said;
    for (zone, endpoints) in before {
        let zone = merged.entry(zone.clone()).or_default();
        for endpoint in endpoints {
            if let Err(at) = zone.binary_search_by_key(&endpoint.address, |endpoint| endpoint.address) {
                zone.insert(at, endpoint.clone());
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::value::Version;

    const fn stamp(sequence: u64, count: u64) -> ServiceStamp {
        ServiceStamp { version: Version { epoch: 1, sequence }, count }
    }

    fn list(synced: bool, sequence: u64, hosts: &[u8]) -> List {
        let endpoint = |host: &u8| Endpoint {
            address: ([10, 0, 0, *host], 80).into(),
            weight: std::num::NonZeroU32::MIN,
            health: Health::Ready,
            shard: None,
        };
        let endpoints = (!hosts.is_empty()).then(|| (None, hosts.iter().map(endpoint).collect()));
        List { synced, stamp: stamp(sequence, hosts.len() as u64), endpoints: endpoints.into_iter().collect() }
    }

    fn facts(sequence: u64, count: u64) -> Gossiped {
        Gossiped { stamp: Some(stamp(sequence, count)), complete: true }
    }

    const NO_FACTS: Gossiped = Gossiped { stamp: None, complete: true };

    /// Hosts that take traffic, and those that are a last resort.
    fn hosts(held: &HeldList) -> (Vec<u8>, Vec<u8>) {
        let all: Vec<_> = held.snapshot().endpoints.into_values().flatten().collect();
        let of = |health| {
            let them = all.iter().filter(move |endpoint| endpoint.health == health);
            them.map(|endpoint| match endpoint.address.ip() {
                std::net::IpAddr::V4(ip) => ip.octets()[3],
                std::net::IpAddr::V6(_) => 0,
            })
            .collect()
        };
        (of(Health::Ready), of(Health::NotReady))
    }

    fn with(hosts: &[u8], now: Instant) -> HeldList {
        let mut held = HeldList::new();
        held.receive(list(true, 1, hosts));
        assert!(held.judge(facts(1, hosts.len() as u64), now));
        held
    }

    #[tokio::test]
    async fn a_believed_list_removes() {
        let now = Instant::now();
        let mut held = with(&[1, 2, 3], now);
        held.receive(list(true, 2, &[1, 2]));
        assert!(held.judge(facts(2, 2), now));
        assert_eq!(hosts(&held), (vec![1, 2], vec![]));
        assert!(!held.judge(facts(2, 2), now));
    }

    #[tokio::test]
    async fn any_other_list_adds_and_does_not_remove() {
        let now = Instant::now();
        for (said, gossiped, why) in [
            (list(false, 2, &[4]), facts(2, 1), "not synced"),
            (list(true, 2, &[4]), facts(1, 3), "the facts are older"),
            (list(true, 2, &[4]), facts(2, 9), "another count"),
            (list(true, 2, &[4]), NO_FACTS, "no facts, and yet an endpoint"),
        ] {
            let mut held = with(&[1, 2, 3], now);
            held.receive(said);
            assert!(held.judge(gossiped, now), "{why}");
            assert_eq!(hosts(&held), (vec![1, 2, 3, 4], vec![]), "{why}");
        }
    }

    #[tokio::test]
    async fn the_facts_may_come_after_the_list() {
        let now = Instant::now();
        let mut held = with(&[1, 2, 3], now);
        held.receive(list(true, 2, &[1, 2]));
        assert!(held.judge(facts(1, 3), now));
        assert_eq!(hosts(&held).0, [1, 2, 3]);
        assert!(held.judge(facts(2, 2), now));
        assert_eq!(hosts(&held).0, [1, 2]);
    }

    #[tokio::test]
    async fn what_is_removed_in_bulk_stays_as_a_last_resort() {
        let now = Instant::now();
        let mut held = with(&[1, 2, 3], now);
        held.receive(list(true, 2, &[]));
        assert!(held.judge(facts(2, 0), now));
        assert_eq!(hosts(&held), (vec![], vec![1, 2, 3]));
        // One comes back before its time is over.
        held.receive(list(true, 3, &[2]));
        assert!(held.judge(facts(3, 1), now));
        assert_eq!(hosts(&held), (vec![2], vec![1, 3]));
        assert_eq!(held.next(), Some(now + LAST_RESORT));
        assert!(held.judge(facts(3, 1), now + LAST_RESORT));
        assert_eq!(hosts(&held), (vec![2], vec![]));
    }

    #[tokio::test]
    async fn absence_is_believed_only_when_the_facts_know_it() {
        let now = Instant::now();
        let mut held = with(&[1], now);
        held.absent();
        assert!(!held.judge(facts(1, 1), now));
        assert!(!held.judge(Gossiped { stamp: None, complete: false }, now));
        assert_eq!(hosts(&held).0, [1]);
        assert!(held.judge(NO_FACTS, now) && !held.is_gone());
        assert!(held.judge(NO_FACTS, now + LAST_RESORT) && held.is_gone());
    }

    #[tokio::test]
    async fn an_older_epochs_list_is_not_taken() {
        let now = Instant::now();
        let mut held = HeldList::new();
        let newer = |hosts: &[u8]| List {
            stamp: ServiceStamp { version: Version { epoch: 2, sequence: 1 }, count: 1 },
            ..list(true, 1, hosts)
        };
        held.receive(newer(&[1]));
        held.judge(Gossiped { stamp: Some(newer(&[1]).stamp), complete: true }, now);
        held.receive(list(true, 99, &[7, 8]));
        assert!(!held.judge(facts(99, 2), now));
        assert_eq!(hosts(&held).0, [1]);
    }
}
