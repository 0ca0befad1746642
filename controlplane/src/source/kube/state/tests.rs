use std::net::IpAddr;
use std::num::NonZeroU32;

use portolan_topology::names::ZoneName;
use portolan_topology::service::{Health, Port};
use proptest::prelude::*;

use super::*;
use crate::source::objects::{PodSettings, Service, Settings, SliceEndpoint, SlicePort};

fn name(name: &str) -> Name {
    Name { namespace: "shop".into(), name: name.into() }
}

fn object<P>(id: &str, kept: P) -> Object<P> {
    Object { name: name(id), uid: None, projected: Projected { kept: Ok(Some(kept)), odd: Vec::new() } }
}

fn bad<P>(id: &str) -> Object<P> {
    Object { name: name(id), uid: None, projected: Projected { kept: Err("it is broken".into()), odd: Vec::new() } }
}

fn service(id: &str, weight: Option<u32>) -> ServiceObject {
    let joined = Service {
        id: ServiceId::new(id, "shop").unwrap(),
        ports: vec![Port { number: 80, name: None }],
        settings: Settings { weight: weight.and_then(NonZeroU32::new), capacity: None, warmup: None, shard: None },
    };
    ServiceObject { joined, cleartext_http2: Vec::new() }
}

/// A slice of `of` with a Pod `p` behind its one endpoint, at 10.1.0.`last`.
fn slice(of: &str, last: u8, health: Health) -> Slice {
    let endpoint = SliceEndpoint {
        address: IpAddr::from([10, 1, 0, last]),
        zone: None,
        health,
        node: Some("n".into()),
        pod: Some("p".into()),
    };
    let ports = vec![SlicePort { name: None, number: 8080 }];
    Slice { service: ServiceId::new(of, "shop").unwrap(), ports, endpoints: vec![endpoint] }
}

fn listed<P>(make: fn(Event<Object<P>>) -> Update, objects: Vec<Object<P>>) -> Vec<Update> {
    let objects = objects.into_iter().map(Event::InitApply);
    [Event::Init].into_iter().chain(objects).chain([Event::InitDone]).map(make).collect()
}

fn take(state: &mut State, updates: impl IntoIterator<Item = Update>) {
    updates.into_iter().for_each(|update| drop(state.take(update, Timestamp::UNIX_EPOCH)));
}

/// One service `a` with one endpoint.
fn synced() -> State {
    let mut state = State::new("kube".into(), Watched::default());
    take(&mut state, listed(Update::Service, vec![object("a", service("a", None))]));
    take(&mut state, listed(Update::Slice, vec![object("a-1", slice("a", 1, Health::Ready))]));
    take(&mut state, listed(Update::Node, vec![]));
    state
}

/// `a.shop 10.1.0.1:8080 Ready 1`, one line an endpoint or service without.
fn shown(services: &LocalServices) -> Vec<String> {
    let mut lines = Vec::new();
    for (id, service) in &services.services {
        let endpoints: Vec<_> = service.endpoints[&80].values().flatten().collect();
        if endpoints.is_empty() {
            lines.push(id.to_string());
        }
        for endpoint in endpoints {
            lines.push(format!("{id} {} {:?} {}", endpoint.address, endpoint.health, endpoint.weight));
        }
    }
    lines
}

#[test]
fn nothing_is_shown_before_everything_is_listed() {
    let mut state = State::new("kube".into(), Watched::default());
    take(&mut state, listed(Update::Service, vec![object("a", service("a", None))]));
    assert_eq!(state.services(), None);
    take(&mut state, listed(Update::Slice, vec![object("a-1", slice("a", 1, Health::Ready))]));
    assert_eq!(state.services(), None);
    take(&mut state, listed(Update::Node, vec![]));
    assert_eq!(shown(&state.services().unwrap()), ["a.shop 10.1.0.1:8080 Ready 1"]);
    assert_eq!(state.services(), None, "told once");
}

#[test]
fn a_relist_counts_once_it_is_complete_and_one_that_breaks_never() {
    let mut state = synced();
    state.services();
    take(
        &mut state,
        [Update::Slice(Event::Init), Update::Failed(Kind::EndpointSlice, Failure::Unreachable("gone".into()))],
    );
    assert_eq!(state.services(), None);
    take(&mut state, listed(Update::Slice, vec![object("a-1", slice("a", 1, Health::Ready))]));
    assert_eq!(state.services(), None, "the same as before");
    take(&mut state, [Update::Slice(Event::Init)]);
    assert_eq!(state.services(), None);
    take(&mut state, [Update::Slice(Event::InitDone)]);
    assert_eq!(shown(&state.services().unwrap()), ["a.shop"]);
}

#[test]
fn slices_of_a_deleted_service_wait_for_it() {
    let mut state = synced();
    take(&mut state, [Update::Service(Event::Delete(object("a", service("a", None))))]);
    assert_eq!(shown(&state.services().unwrap()), Vec::<String>::new());
    take(&mut state, [Update::Service(Event::Apply(object("a", service("a", Some(3)))))]);
    assert_eq!(shown(&state.services().unwrap()), ["a.shop 10.1.0.1:8080 Ready 3"]);
}

#[test]
fn an_object_that_turns_bad_keeps_its_last_good_state_and_is_named() {
    let mut state = synced();
    state.services();
    take(&mut state, [Update::Slice(Event::Apply(bad("a-1"))), Update::Service(Event::Apply(bad("b")))]);
    assert_eq!(state.services(), None);
    let warnings = state.status().warnings;
    assert_eq!(warnings["EndpointSlice shop/a-1"], "it is broken; its last good state stands");
    assert_eq!(warnings["Service shop/b"], "it is broken; it is left out");
    // A relist of the same tells the same.
    take(&mut state, listed(Update::Slice, vec![bad("a-1")]));
    assert_eq!((state.services(), state.status().warnings), (None, warnings));
    take(&mut state, [Update::Slice(Event::Delete(bad("a-1"))), Update::Service(Event::Delete(bad("b")))]);
    assert_eq!(shown(&state.services().unwrap()), ["a.shop"]);
    assert!(state.status().warnings.is_empty());
}

#[test]
fn what_services_do_without_may_be_forbidden() {
    let mut state = State::new("kube".into(), Watched::default());
    take(&mut state, listed(Update::Service, vec![object("a", service("a", None))]));
    take(&mut state, [Update::Failed(Kind::Node, Failure::Forbidden("no".into()))]);
    assert_eq!(state.services(), None);
    take(&mut state, listed(Update::Slice, vec![]));
    assert!(state.services().unwrap().synced);
    let errors = state.status().errors;
    assert_eq!(errors["nodes"], "nodes are forbidden: allow get, list and watch by RBAC (no)");

    let mut state = State::new("kube".into(), Watched::default());
    take(&mut state, listed(Update::Service, vec![object("a", service("a", None))]));
    take(&mut state, listed(Update::Node, vec![]));
    take(&mut state, [Update::Failed(Kind::EndpointSlice, Failure::Forbidden("no".into()))]);
    assert_eq!(state.services(), None, "without slices nothing is known");
    assert!(!state.status().synced);
}

#[test]
fn silence_is_told_with_its_age_until_there_is_an_answer() {
    let mut state = synced();
    let [first, later] = [1, 2].map(|second| Timestamp::from_second(second).unwrap());
    let failure = || Update::Failed(Kind::EndpointSlice, Failure::Unreachable("connection refused".into()));
    assert_eq!(state.take(failure(), first).len(), 1);
    assert!(state.take(failure(), later).is_empty(), "told once");
    assert_eq!(state.status().silent_since, Some(first));
    take(&mut state, [Update::Slice(Event::Init)]);
    assert_eq!(state.status().silent_since, Some(first), "a question is no answer");
    // A watch that is taken up where it ended tells of no object.
    assert_eq!(
        state.take(Update::Answered(Kind::EndpointSlice), later),
        ["kube: endpointslices.discovery.k8s.io are seen again"]
    );
    assert_eq!(state.status().silent_since, None);
}

#[test]
fn weights_of_pods_and_zones_of_nodes_move_what_they_concern() {
    let mut state = synced();
    state.services();
    let weight = NonZeroU32::new(5).unwrap();
    take(&mut state, [Update::Pod(Event::Apply(object("p", PodSettings { weight: Some(weight), shard: None })))]);
    assert_eq!(shown(&state.services().unwrap()), ["a.shop 10.1.0.1:8080 Ready 5"]);
    let node = Name { namespace: "".into(), name: "n".into() };
    let zone: ZoneName = "z-1".parse().unwrap();
    let place = NodePlace { zone: zone.clone(), region: None };
    let projected = Projected { kept: Ok(Some(place)), odd: Vec::new() };
    take(&mut state, [Update::Node(Event::Apply(Object { name: node, uid: None, projected }))]);
    let services = state.services().unwrap();
    assert!(services.services.values().next().unwrap().endpoints[&80].contains_key(&Some(zone)));
}

#[derive(Debug, Clone)]
enum Op {
    Service(u8, Option<u32>),
    ServiceGone(u8),
    Slice(u8, u8, u8),
    SliceGone(u8),
    Look,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        (0..3_u8, proptest::option::of(1..5_u32)).prop_map(|(id, weight)| Op::Service(id, weight)),
        (0..3_u8).prop_map(Op::ServiceGone),
        (0..4_u8, 0..3_u8, 1..4_u8).prop_map(|(id, of, last)| Op::Slice(id, of, last)),
        (0..4_u8).prop_map(Op::SliceGone),
        Just(Op::Look),
    ];
    proptest::collection::vec(op, 0..40)
}

proptest! {
    /// However things came to be as they are, what is shown is what one listing of them would show.
    #[test]
    fn changes_come_to_the_same_as_a_listing(ops in ops()) {
        let (mut services, mut slices) = (BTreeMap::new(), BTreeMap::new());
        let mut state = State::new("kube".into(), Watched::default());
        take(&mut state, listed(Update::Service, vec![]));
        take(&mut state, listed(Update::Slice, vec![]));
        take(&mut state, listed(Update::Node, vec![]));
        let mut last = state.services().unwrap();
        for op in ops {
            let update = match op {
                Op::Service(id, weight) => {
                    let id = id.to_string();
                    services.insert(id.clone(), service(&id, weight));
                    Update::Service(Event::Apply(object(&id, service(&id, weight))))
                }
                Op::ServiceGone(id) => {
                    services.remove(&id.to_string());
                    Update::Service(Event::Delete(bad(&id.to_string())))
                }
                Op::Slice(id, of, at) => {
                    let (id, slice) = (id.to_string(), slice(&of.to_string(), at, Health::Ready));
                    slices.insert(id.clone(), slice.clone());
                    Update::Slice(Event::Apply(object(&id, slice)))
                }
                Op::SliceGone(id) => {
                    slices.remove(&id.to_string());
                    Update::Slice(Event::Delete(bad(&id.to_string())))
                }
                Op::Look => {
                    last = state.services().unwrap_or(last);
                    continue;
                }
            };
            take(&mut state, [update]);
        }
        last = state.services().unwrap_or(last);
        let mut fresh = State::new("kube".into(), Watched::default());
        take(&mut fresh, listed(Update::Service, services.iter().map(|(id, kept)| object(id, kept.clone())).collect()));
        take(&mut fresh, listed(Update::Slice, slices.iter().map(|(id, kept)| object(id, kept.clone())).collect()));
        take(&mut fresh, listed(Update::Node, vec![]));
        prop_assert_eq!(&last, &fresh.services().unwrap());
    }
}

#[test]
fn a_node_whose_region_contradicts_the_topology_is_named_and_its_zone_counts() {
    let topology = |region: &str| {
        let text = format!(
            "apiVersion: portolan.dev/v1alpha1\nkind: Topology\nmetadata: {{name: t}}\nspec:\n  regions:\n  - {{name: {region}, \
             zones: [z-1], clusters: [{{name: one, controlPlane: {{address: a.test, voter: true}}}}]}}\n"
        );
        Arc::new(Topology::parse("topology.yaml", &text).unwrap().0)
    };
    let node = |region: &str| {
        let name = Name { namespace: "".into(), name: "n".into() };
        let place = NodePlace { zone: "z-1".parse().unwrap(), region: Some(region.into()) };
        Object { name, uid: None, projected: Projected { kept: Ok(Some(place)), odd: Vec::new() } }
    };
    let mut state = synced();
    state.place(topology("east"));
    take(&mut state, [Update::Node(Event::Apply(node("west")))]);
    let warning = state.status().warnings["Node n"].clone();
    assert!(warning.contains("says `west`, and the topology has the zone z-1 in east"), "{warning}");
    assert_eq!(state.notes().objects[0].0.name.as_deref(), Some("n"));
    let shown = state.services().unwrap();
    let zones = &shown.services.values().next().unwrap().endpoints[&80];
    assert!(zones.contains_key(&Some("z-1".parse().unwrap())), "{zones:?}");
    state.place(topology("west"));
    assert!(state.status().warnings.is_empty());
    state.place(topology("east"));
    take(&mut state, [Update::Node(Event::Apply(node("east")))]);
    assert!(state.status().warnings.is_empty());
}
