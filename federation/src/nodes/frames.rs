//! What a publisher tells the nodes that follow it and what they tell it, between our types and the wire's. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::service::discovery::v3::Resource;
use portolan_topology::names::{ClusterName, ServicePort};
use portolan_topology::view::Liveness;
use prost::Message;

use super::{Demand, OfClients, Told};
use crate::gossip::facts::{Facts, Incoming};
use crate::gossip::key::Key;
use crate::gossip::value;
use crate::lists::resource::{self, Place};
use crate::lists::subscribe::ListEvent;
use crate::proto;
use crate::proto::follow_response::Frame;

/// What the clients of a node need of their cluster's publisher, and what that is to add up.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Needs {
    pub(crate) lists: BTreeSet<ServicePort>,
    pub(crate) clients: OfClients,
}

/// Facts of another cluster.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FactsOf {
    pub(crate) cluster: ClusterName,
    pub(crate) facts: Vec<Incoming>,
    /// Whether these are all that there are.
    pub(crate) whole: bool,
}

/// How much another cluster is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateOf {
    pub(crate) cluster: ClusterName,
    pub(crate) liveness: Liveness,
    pub(crate) quiet: Duration,
    pub(crate) heard: bool,
}

/// Why a frame is not taken. The rest of the stream goes on: a newer node may know more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} cannot be read: {why}")]
pub(crate) struct FrameError {
    what: &'static str,
    why: String,
}

fn unreadable(what: &'static str) -> impl FnOnce(String) -> FrameError {
    move |why| FrameError { what, why }
}

impl Needs {
    pub(crate) fn to_proto(&self) -> proto::Needs {
        proto::Needs {
            lists: self.lists.iter().map(ToString::to_string).collect(),
            demand: demand_to_proto(&self.clients.demand),
            nacked: self.clients.nacked,
        }
    }

    /// What cannot be read is left out: a newer node may need more.
    pub(crate) fn of_proto(needs: proto::Needs) -> Self {
        Self {
            lists: needs.lists.iter().filter_map(|name| name.parse().ok()).collect(),
            clients: OfClients { demand: demand_of_proto(needs.demand), nacked: needs.nacked },
        }
    }
}

fn demand_to_proto(demand: &Demand) -> Vec<proto::ZoneDemand> {
    let one = |((service, zone), rate): (&(_, Option<_>), &f64)| {
        let (service, zone): (&portolan_topology::names::ServiceId, &Option<portolan_topology::names::ZoneName>) =
            (service, zone);
        proto::ZoneDemand {
            service: service.to_string(),
            zone: zone.as_ref().map(ToString::to_string),
            requests_per_second: *rate,
        }
    };
    demand.iter().map(one).collect()
}

fn demand_of_proto(demand: Vec<proto::ZoneDemand>) -> Demand {
    let one = |demand: proto::ZoneDemand| {
        let zone = demand.zone.map(|zone| zone.parse()).transpose().ok()?;
        let rate = demand.requests_per_second;
        Some(((demand.service.parse().ok()?, zone), rate)).filter(|_| rate.is_finite() && rate >= 0.0)
    };
    demand.into_iter().filter_map(one).collect()
}

/// Everything that is held of a cluster's facts.
pub(crate) fn all_facts(cluster: &ClusterName, facts: &Facts) -> Frame {
    let stored = facts.raw().map(|(key, raw)| stored(key, raw)).collect();
    // What is held may be the first half of what there is: then it does not say what was removed.
    Frame::Facts(proto::ClusterFacts { cluster: cluster.to_string(), facts: stored, whole: facts.agrees() })
}

/// Values of a cluster that are new.
pub(crate) fn new_facts(cluster: &ClusterName, facts: Vec<proto::StoredFact>) -> Frame {
    Frame::Facts(proto::ClusterFacts { cluster: cluster.to_string(), facts, whole: false })
}

/// One value, as it was received.
pub(crate) fn stored(key: &Key, raw: &Bytes) -> proto::StoredFact {
    proto::StoredFact { key: key.to_string(), value: raw.clone() }
}

pub(crate) fn states(states: &[StateOf]) -> Frame {
    let states = states.iter().map(|state| proto::ClusterState {
        cluster: state.cluster.to_string(),
        liveness: match state.liveness {
            Liveness::Fresh => proto::Liveness::Fresh,
            Liveness::Suspect => proto::Liveness::Suspect,
            Liveness::Stale => proto::Liveness::Stale,
            Liveness::Failed => proto::Liveness::Failed,
            Liveness::Isolated => proto::Liveness::Isolated,
        }
        .into(),
        quiet_millis: u64::try_from(state.quiet.as_millis()).unwrap_or(u64::MAX),
        heard: state.heard,
    });
    Frame::States(proto::ClusterStates { states: states.collect() })
}

pub(crate) fn clients(total: &OfClients) -> Frame {
    let OfClients { demand, nacked } = total;
    Frame::Clients(proto::TotalOfClients { demand: demand_to_proto(demand), nacked: *nacked })
}

pub(crate) fn list(event: &ListEvent, place: &Place) -> Frame {
    let resource = event.list.as_ref().map(|(list, version)| {
        let resource = Resource { version: version.clone(), ..resource::encode(&event.port, list, place) };
        resource.encode_to_vec().into()
    });
    Frame::List(proto::ClusterList { cluster: event.cluster.to_string(), name: event.port.to_string(), resource })
}

/// Reads what a publisher tells; `None`: it is not the publisher's to tell.
pub(crate) fn told(frame: Frame) -> Result<Option<Told>, FrameError> {
    Ok(Some(match frame {
        Frame::Facts(facts) => Told::Facts(facts_of(facts)?),
        Frame::States(states) => Told::States(states.states.into_iter().filter_map(state_of).collect()),
        Frame::List(list) => Told::List(Box::new(list_of(list)?)),
        Frame::Clients(proto::TotalOfClients { demand, nacked }) => {
            Told::Clients(OfClients { demand: demand_of_proto(demand), nacked })
        }
        Frame::Standing(_) | Frame::Policy(_) => return Ok(None),
    }))
}

fn facts_of(said: proto::ClusterFacts) -> Result<FactsOf, FrameError> {
    let cluster = ClusterName::new(&said.cluster).map_err(|error| unreadable("a cluster's name")(error.to_string()))?;
    let all = said.facts.len();
    // A newer peer may have more kinds of keys and formats; what it says of those is left alone.
    let facts: Vec<_> = said
        .facts
        .into_iter()
        .filter_map(|fact| {
            let value = value::decode(&fact.value).ok()?;
            Some(Incoming { key: fact.key.parse().ok()?, value, raw: fact.value })
        })
        .collect();
    let whole = said.whole && facts.len() == all;
    Ok(FactsOf { cluster, facts, whole })
}

fn state_of(state: proto::ClusterState) -> Option<StateOf> {
    let liveness = match state.liveness() {
        proto::Liveness::Fresh => Liveness::Fresh,
        proto::Liveness::Suspect => Liveness::Suspect,
        proto::Liveness::Stale => Liveness::Stale,
        proto::Liveness::Failed => Liveness::Failed,
        proto::Liveness::Isolated => Liveness::Isolated,
        proto::Liveness::Unspecified => return None,
    };
    let quiet = Duration::from_millis(state.quiet_millis);
    Some(StateOf { cluster: ClusterName::new(&state.cluster).ok()?, liveness, quiet, heard: state.heard })
}

fn list_of(said: proto::ClusterList) -> Result<ListEvent, FrameError> {
    let cluster = ClusterName::new(&said.cluster).map_err(|error| unreadable("a cluster's name")(error.to_string()))?;
    let port: ServicePort =
        said.name.parse().map_err(|error| unreadable("a list's name")(format!("{}: {error}", said.name)))?;
    let list = match said.resource {
        None => None,
        Some(bytes) => {
            let resource = Resource::decode(bytes).map_err(|error| unreadable("a list")(error.to_string()))?;
            let (_, list) = resource::decode(&resource).map_err(|error| unreadable("a list")(error.to_string()))?;
            Some((list, resource.version))
        }
    };
    Ok(ListEvent { cluster, port, list })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::lists::resource::List;

    fn cluster(name: &str) -> ClusterName {
        ClusterName::new(name).unwrap()
    }

    fn of_clients() -> OfClients {
        let demand = BTreeMap::from([
            (("checkout.shop".parse().unwrap(), Some("us-1".parse().unwrap())), 12.5),
            (("cart.shop".parse().unwrap(), None), 0.0),
        ]);
        OfClients { demand, nacked: 3 }
    }

    #[test]
    fn what_all_clients_come_to_round_trips() {
        let Ok(Some(Told::Clients(read))) = told(clients(&of_clients())) else { panic!("no clients") };
        assert_eq!(read, of_clients());
    }

    #[test]
    fn needs_round_trip() {
        let needs = Needs { lists: ["checkout.shop:8080".parse().unwrap()].into(), clients: of_clients() };
        assert_eq!(Needs::of_proto(needs.to_proto()), needs);
    }

    #[test]
    fn a_demand_that_cannot_be_is_left_out() {
        let of = |service: &str, rate| proto::ZoneDemand {
            service: service.to_owned(),
            zone: None,
            requests_per_second: rate,
        };
        let said = vec![of("a.b", f64::NAN), of("a.b", -1.0), of("", 3.0), of("c.d", 4.0)];
        let read = Needs::of_proto(proto::Needs { lists: vec!["?".to_owned()], demand: said, nacked: 0 });
        assert_eq!(read.clients.demand, BTreeMap::from([(("c.d".parse().unwrap(), None), 4.0)]));
        assert!(read.lists.is_empty());
    }

    #[test]
    fn lists_and_their_absence_round_trip_with_their_version() {
        let place = Place { region: None, cluster: cluster("b") };
        let port: ServicePort = "checkout.shop:8080".parse().unwrap();
        for list in [None, Some((List { synced: true, ..List::default() }, "v7".to_owned()))] {
            let event = ListEvent { cluster: cluster("b"), port: port.clone(), list };
            let Ok(Some(Told::List(read))) = told(super::list(&event, &place)) else { panic!("no list") };
            assert_eq!(*read, event);
        }
    }

    #[test]
    fn facts_of_a_newer_node_are_not_taken_for_all() {
        let newer = proto::StoredFact { key: "later/a.b".to_owned(), value: Bytes::from_static(b"?") };
        let said = proto::ClusterFacts { cluster: "b".to_owned(), facts: vec![newer], whole: true };
        let Ok(Some(Told::Facts(read))) = told(Frame::Facts(said)) else { panic!("no facts") };
        assert_eq!(read, FactsOf { cluster: cluster("b"), facts: Vec::new(), whole: false });
    }

    proptest::proptest! {
        #[test]
        fn states_round_trip(quiet in 0_u64..1 << 40, heard: bool, kind in 0_usize..5) {
            let liveness =
                [Liveness::Fresh, Liveness::Suspect, Liveness::Stale, Liveness::Failed, Liveness::Isolated][kind];
            let state = StateOf { cluster: cluster("b"), liveness, quiet: Duration::from_millis(quiet), heard };
            let Ok(Some(Told::States(read))) = told(states(std::slice::from_ref(&state))) else { panic!("no states") };
            proptest::prop_assert_eq!(read, vec![state]);
        }
    }
}
