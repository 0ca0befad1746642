//! The state machine against a correct server, after whatever happened before.

use super::tests::{addresses, client, now, requests, response, target};
use super::*;
use crate::xds::fixtures::*;
use proptest::prelude::*;

/// A server's world: which services exist, and an endpoint each.
#[derive(Debug, Clone, Default)]
struct World {
    services: BTreeMap<u8, u8>,
}

impl World {
    fn resource(&self, kind: Kind, name: &str) -> Option<Any> {
        let key: u8 = name.trim_start_matches(char::is_alphabetic).parse().ok()?;
        let endpoint = self.services.get(&key);
        Some(match (kind, endpoint) {
            (Kind::Listener, None) => absent_listener(name),
            (Kind::Listener, Some(_)) => listener(name, &format!("r{key}")),
            (_, None) => return None,
            (Kind::RouteConfiguration, Some(_)) => routes(name, &format!("c{key}")),
            (Kind::Cluster, Some(_)) => cluster(name, &format!("e{key}")),
            (Kind::ClusterLoadAssignment, Some(endpoint)) => assignment(name, &[&format!("10.0.{key}.{endpoint}:80")]),
        })
    }
}

/// A correct server, on one stream.
#[derive(Default)]
struct Server {
    types: BTreeMap<Kind, Served>,
    nonces: u32,
}

#[derive(Default)]
struct Served {
    names: Vec<String>,
    nonce: String,
    sent: Option<Vec<Any>>,
}

impl Server {
    fn send(&mut self, client: &mut SotwClient, kind: Kind, resources: Vec<Any>) {
        self.nonces += 1;
        let nonce = self.nonces.to_string();
        if let Some(served) = self.types.get_mut(&kind) {
            served.nonce = nonce.clone();
        }
        client.received(response(kind, &nonce, &nonce, resources));
    }

    /// Hears and answers until neither side has anything to say.
    fn serve(&mut self, client: &mut SotwClient, world: &World) {
        for _ in 0..20 {
            let heard = requests(client);
            let quiet = heard.is_empty();
            for request in heard {
                let served = self.types.entry(Kind::of(&request.type_url).unwrap()).or_default();
                if request.response_nonce == served.nonce {
                    served.names = request.resource_names;
                }
            }
            let answers: Vec<_> = self
                .types
                .iter_mut()
                .filter_map(|(kind, served)| {
                    let resources: Vec<_> =
                        served.names.iter().filter_map(|name| world.resource(*kind, name)).collect();
                    if served.names.is_empty() {
                        served.sent = None;
                    } else if served.sent.as_ref() != Some(&resources) {
                        served.sent = Some(resources.clone());
                        return Some((*kind, resources));
                    }
                    None
                })
                .collect();
            if quiet && answers.is_empty() {
                return;
            }
            for (kind, resources) in answers {
                self.send(client, kind, resources);
            }
        }
        panic!("the two do not come to rest");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Watch(u8),
    Unwatch(u8),
    Connect(u8),
    Disconnect,
    Change(u8, Option<u8>),
    Serve,
    Garbage(u8, Vec<u8>),
    TimeOut,
}

fn step() -> impl Strategy<Value = Step> {
    let service = 0u8..4;
    prop_oneof![
        service.clone().prop_map(Step::Watch),
        service.clone().prop_map(Step::Unwatch),
        (0u8..2).prop_map(Step::Connect),
        Just(Step::Disconnect),
        (service, proptest::option::of(1u8..9)).prop_map(|(service, endpoint)| Step::Change(service, endpoint)),
        Just(Step::Serve),
        (0u8..4, proptest::collection::vec(any::<u8>(), 0..20)).prop_map(|(kind, bytes)| Step::Garbage(kind, bytes)),
        Just(Step::TimeOut),
    ]
}

proptest! {
    /// Whatever happened before: once a correct server was heard out, each target is what that server's world says.
    #[test]
    fn after_any_history_the_client_agrees_with_its_server(steps in proptest::collection::vec(step(), 0..50)) {
        let mut client = client();
        let mut world = World::default();
        let mut server = Server::default();
        let mut watched = BTreeSet::new();
        for step in steps {
            match step {
                Step::Watch(service) => { watched.insert(service); client.watch(target(&format!("l{service}"))); }
                Step::Unwatch(service) => { watched.remove(&service); client.unwatch(&target(&format!("l{service}"))); }
                Step::Connect(index) => {
                    server = Server::default();
                    client.connected(ServerIndex(index.into()), false);
                }
                Step::Disconnect => client.disconnected(),
                Step::Change(service, None) => { world.services.remove(&service); }
                Step::Change(service, Some(endpoint)) => { world.services.insert(service, endpoint); }
                Step::Serve => server.serve(&mut client, &world),
                Step::Garbage(kind, value) => {
                    let kind = Kind::ALL[usize::from(kind)];
                    let any = Any { type_url: kind.type_url().to_owned(), value };
                    server.send(&mut client, kind, vec![any]);
                    server.types.entry(kind).or_default().sent = None;
                }
                Step::TimeOut => {
                    let unanswered: Vec<_> = client.unanswered().map(|(kind, name)| (kind, name.to_owned())).collect();
                    for (kind, name) in unanswered {
                        client.timed_out(kind, &name);
                    }
                }
            }
        }
        // A new server: its answers are all that counts.
        client.connected(ServerIndex(7), false);
        Server::default().serve(&mut client, &world);
        for service in watched {
            let resolution = now(&client, &format!("l{service}"));
            match (world.services.get(&service), resolution) {
                (Some(endpoint), resolution) => prop_assert_eq!(addresses(&resolution), [format!("10.0.{service}.{endpoint}:80")]),
                (None, Resolution::NotFound { .. }) => {}
                (None, other) => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(client.unanswered().count(), 0);
    }
}
