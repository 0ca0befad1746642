use super::*;
use crate::xds::fixtures::assignment;
use crate::xds::resources::Kind;
use proptest::prelude::*;

const TYPE: &str = Kind::ClusterLoadAssignment.type_url();

fn client() -> DeltaClient {
    DeltaClient::new(TYPE, Node { id: "n".to_owned(), ..Node::default() })
}

fn resource(name: &str, version: &str) -> Resource {
    let resource = Some(assignment(name, &["10.0.0.1:80"]));
    Resource { name: name.to_owned(), version: version.to_owned(), resource, ..Resource::default() }
}

fn response(nonce: &str, resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: TYPE.to_owned(),
        nonce: nonce.to_owned(),
        resources,
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn valid(_: &str, _: &Any) -> Result<(), String> {
    Ok(())
}

#[test]
fn a_stream_says_nothing_until_something_is_wanted() {
    let mut client = client();
    assert_eq!(client.connected(), None, "an empty first request would be a wildcard");
    let first = client.subscribe(["b", "a", "a"]).unwrap();
    assert_eq!(first.resource_names_subscribe, ["a", "b"]);
    assert_eq!(first.node.as_ref().unwrap().id, "n");
    let second = client.subscribe(["a", "c"]).unwrap();
    assert_eq!((second.resource_names_subscribe, second.node), (vec!["c".to_owned()], None));
    assert_eq!(client.subscribe(["a"]), None);
    assert_eq!(client.unsubscribe(["a", "never"]).unwrap().resource_names_unsubscribe, ["a"]);
    assert_eq!(client.unsubscribe(["a"]), None);
}

#[test]
fn updates_and_removals_are_told_and_acknowledged() {
    let mut client = client();
    client.subscribe(["a", "b"]);
    client.connected().unwrap();
    let mut sent = resource("a", "1");
    sent.metadata = Some(Default::default());
    let (events, reply) =
        client.received(response("n1", vec![sent.clone(), resource("unwanted", "1")], &["b", "other"]), valid);
    assert_eq!(events, [DeltaEvent::Updated(Box::new(sent)), DeltaEvent::Removed { name: "b".to_owned() }]);
    let reply = reply.unwrap();
    assert_eq!((reply.response_nonce.as_str(), reply.error_detail), ("n1", None));
    assert_eq!(client.known_versions().clone(), [("a".to_owned(), "1".to_owned())].into());
}

#[test]
fn what_is_refused_keeps_its_old_version() {
    let mut client = client();
    client.subscribe(["a", "b"]);
    client.connected().unwrap();
    client.received(response("n1", vec![resource("a", "1")], &[]), valid);
    let refuse_a = |name: &str, _: &Any| if name == "a" { Err("priority gap".to_owned()) } else { Ok(()) };
    let empty = Resource { resource: None, ..resource("b", "3") };
    let (events, reply) =
        client.received(response("n2", vec![resource("a", "2"), empty, resource("b", "4")], &[]), refuse_a);
    assert!(matches!(&events[0], DeltaEvent::Rejected { name, reason } if name == "a" && reason == "priority gap"));
    assert!(matches!(&events[1], DeltaEvent::Rejected { name, .. } if name == "b"));
    assert!(matches!(&events[2], DeltaEvent::Updated(resource) if resource.version == "4"));
    let reply = reply.unwrap();
    let error = reply.error_detail.unwrap();
    assert_eq!((reply.response_nonce.as_str(), error.code), ("n2", INVALID_ARGUMENT));
    assert!(error.message.contains("a: priority gap") && error.message.contains("b: "), "{}", error.message);
    assert_eq!(client.known_versions()["a"], "1");
}

#[test]
fn a_new_stream_names_what_is_held() {
    let mut client = client();
    client.assume_held("kept", "k");
    client.assume_held("unwanted", "u");
    client.subscribe(["kept", "a"]);
    let first = client.connected().unwrap();
    assert_eq!(first.initial_resource_versions, [("kept".to_owned(), "k".to_owned())].into());
    client.received(response("n1", vec![resource("a", "1")], &["kept"]), valid);
    client.disconnected();
    assert_eq!(client.received(response("late", vec![resource("a", "2")], &[]), valid), (vec![], None));
    assert_eq!(client.subscribe(["b"]), None);
    let again = client.connected().unwrap();
    assert_eq!(again.resource_names_subscribe, ["a", "b", "kept"]);
    assert_eq!(again.initial_resource_versions, [("a".to_owned(), "1".to_owned())].into());
    assert!(again.node.is_some() && again.response_nonce.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Subscribe(u8),
    Unsubscribe(u8),
    Connect,
    Disconnect,
    Update(u8, u8, bool),
    Remove(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0u8..5;
    prop_oneof![
        name.clone().prop_map(Step::Subscribe),
        name.clone().prop_map(Step::Unsubscribe),
        Just(Step::Connect),
        Just(Step::Disconnect),
        (name.clone(), any::<u8>(), any::<bool>()).prop_map(|(name, version, good)| Step::Update(name, version, good)),
        name.prop_map(Step::Remove),
    ]
}

proptest! {
    /// A server that follows the requests knows, at every moment of a stream, exactly what is wanted; and each response that
    /// it may send is answered on its nonce.
    #[test]
    fn the_server_always_knows_what_is_wanted(steps in proptest::collection::vec(step(), 0..60)) {
        let mut client = client();
        let mut server: Option<BTreeSet<String>> = None;
        let follow = |server: &mut Option<BTreeSet<String>>, request: Option<DeltaDiscoveryRequest>| {
            if let (Some(known), Some(request)) = (server.as_mut(), request) {
                known.extend(request.resource_names_subscribe);
                for gone in request.resource_names_unsubscribe {
                    known.remove(&gone);
                }
            }
        };
        for (i, step) in steps.into_iter().enumerate() {
            match step {
                Step::Subscribe(name) => { let request = client.subscribe([name.to_string()]); follow(&mut server, request); }
                Step::Unsubscribe(name) => { let request = client.unsubscribe([name.to_string()]); follow(&mut server, request); }
                Step::Connect => { server = Some(BTreeSet::new()); let request = client.connected(); follow(&mut server, request); }
                Step::Disconnect => { server = None; client.disconnected(); }
                Step::Update(name, version, good) => {
                    let sent = response(&i.to_string(), vec![resource(&name.to_string(), &version.to_string())], &[]);
                    let (_, reply) = client.received(sent, |_, _| if good { Ok(()) } else { Err("bad".to_owned()) });
                    if let Some(reply) = reply {
                        prop_assert_eq!(reply.response_nonce, i.to_string());
                    }
                }
                Step::Remove(name) => { client.received(response("r", vec![], &[&name.to_string()]), valid); }
            }
            if let Some(known) = &server {
                prop_assert_eq!(known, client.subscribed());
            }
            prop_assert!(client.known_versions().keys().all(|name| client.subscribed().contains(name)));
        }
    }
}
