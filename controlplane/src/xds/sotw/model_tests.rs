//! A client as the protocol describes it, against a random history. Once nothing is under way, it holds what is current.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::resources::Encoded;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// The resource becomes this: content 0 is absent, contents from 100 are refused by the client.
    Set(Kind, usize, u32),
    /// The server loses track of it.
    Forget(Kind, usize),
    /// The client wants exactly these, and says so with the nonce that it has.
    Subscribe(Kind, BTreeSet<usize>),
    /// The server sends what there is.
    Flush,
    /// The client takes the oldest response that is under way to it, and answers.
    Deliver,
    /// The server takes the oldest request that is under way to it.
    Hear,
    /// The connection breaks: what was under way is lost, the client keeps what it holds and asks again.
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = || prop::sample::select(&Kind::ALL[..]);
    let name = || 0..NAMES.len();
    let content = prop_oneof![1 => Just(0_u32), 6 => 1..4_u32, 2 => 100..103_u32];
    let step = prop_oneof![
        6 => (kind(), name(), content).prop_map(|(kind, name, content)| Step::Set(kind, name, content)),
        1 => (kind(), name()).prop_map(|(kind, name)| Step::Forget(kind, name)),
        3 => (kind(), prop::collection::btree_set(name(), 0..4)).prop_map(|(kind, names)| Step::Subscribe(kind, names)),
        5 => Just(Step::Flush),
        5 => Just(Step::Deliver),
        5 => Just(Step::Hear),
        1 => Just(Step::Reconnect),
    ];
    prop::collection::vec(step, 0..100)
}

/// A request's type, version, names, nonce and error.
type Asked = (Kind, String, Vec<String>, String, Option<String>);

/// Requests of nobody's making: plausible words in implausible places.
fn requests() -> impl Strategy<Value = Vec<Asked>> {
    let words =
        ["", "a", "b", "*", "CDS-1", "EDS-2", "LDS-1", "00", "EDS--1", "18446744073709551616", "ä\u{0}", "a: b"];
    let word = move || prop::sample::select(words.to_vec()).prop_map(str::to_owned);
    let names = prop::collection::vec(word(), 0..5);
    let kind = prop::sample::select(&Kind::ALL[..]);
    prop::collection::vec((kind, word(), names, word(), prop::option::of(word())), 0..40)
}

#[derive(Default)]
struct ClientKind {
    wanted: BTreeSet<usize>,
    holds: BTreeMap<String, u32>,
    nonce: String,
    version: String,
    ever_named: bool,
}

#[derive(Default)]
struct World {
    server: Stream,
    truth: BTreeMap<(Kind, usize), Option<u32>>,
    client: [ClientKind; Kind::ALL.len()],
    under_way: VecDeque<Response>,
    requests: VecDeque<Asked>,
    /// The contents that the client ever took, by resource.
    accepted: BTreeSet<(Kind, String, u32)>,
}

fn is_bad(content: u32) -> bool {
    content >= 100
}

fn content_of(encoded: &Encoded) -> u32 {
    String::from_utf8(encoded.bytes().to_vec()).unwrap().rsplit('=').next().unwrap().parse().unwrap()
}

impl World {
    fn lookup(&self, kind: Kind, name: usize) -> Lookup {
        match self.truth.get(&(kind, name)) {
            None | Some(None) => Lookup::Unknown,
            // As the builder does it: only a cluster is ever absent.
            Some(Some(0)) if kind == Kind::Cds => Lookup::Absent(None),
            Some(Some(content)) => {
                let bytes = format!("{}={content}", NAMES[name]).into_bytes();
                Lookup::Present(Encoded::new(kind, Arc::from(NAMES[name]), &bytes))
            }
        }
    }

    fn request(&mut self, kind: Kind, error: Option<&str>) {
        let client = &mut self.client[kind as usize];
        client.ever_named |= !client.wanted.is_empty();
        if !client.ever_named {
            return;
        }
        let names: Vec<String> = client.wanted.iter().map(|name| NAMES[*name].to_owned()).collect();
        let request = (kind, client.version.clone(), names, client.nonce.clone(), error.map(str::to_owned));
        self.requests.push_back(request);
    }

    fn hear(&mut self) -> bool {
        let Some((kind, version_info, names, nonce, error)) = self.requests.pop_front() else { return false };
        let request =
            Request { kind, version_info: &version_info, names: &names, nonce: &nonce, error: error.as_deref() };
        let (_, changes) = self.server.request(request, Instant::now()).unwrap();
        for name in changes.added {
            let index = NAMES.iter().position(|known| **known == *name).unwrap();
            let lookup = self.lookup(kind, index);
            self.server.update(kind, &name, lookup);
        }
        true
    }

    fn deliver(&mut self) -> bool {
        let Some(response) = self.under_way.pop_front() else { return false };
        let kind = response.kind;
        let client = &mut self.client[kind as usize];
        client.nonce = response.nonce();
        let mut refused = None;
        let mut there = BTreeSet::new();
        for encoded in &response.resources {
            let (name, content) = (encoded.name().to_string(), content_of(encoded));
            there.insert(name.clone());
            if is_bad(content) {
                refused = Some(format!("resource {name}: refused"));
            } else if client.wanted.iter().any(|wanted| NAMES[*wanted] == name) {
                self.accepted.insert((kind, name.clone(), content));
                client.holds.insert(name, content);
            }
        }
        if kind.is_complete() {
            client.holds.retain(|name, _| there.contains(name));
        }
        if refused.is_none() {
            client.version = response.version.to_string();
        }
        self.request(kind, refused.as_deref());
        true
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Set(kind, name, content) => {
                self.truth.insert((kind, name), Some(content));
                let lookup = self.lookup(kind, name);
                self.server.update(kind, NAMES[name], lookup);
            }
            Step::Forget(kind, name) => {
                // Only what was never known can be unknown to a server that keeps what it knows.
                if self.truth.get(&(kind, name)).is_none_or(Option::is_none) {
                    self.truth.insert((kind, name), None);
                    self.server.update(kind, NAMES[name], Lookup::Unknown);
                }
            }
            Step::Subscribe(kind, names) => {
                let client = &mut self.client[kind as usize];
                client.holds.retain(|name, _| names.iter().any(|wanted| NAMES[*wanted] == name));
                client.wanted = names;
                self.request(kind, None);
            }
            Step::Flush => {
                let responses = self.server.flush();
                self.under_way.extend(responses);
            }
            Step::Deliver => {
                self.deliver();
            }
            Step::Hear => {
                self.hear();
            }
            Step::Reconnect => {
                self.server = Stream::default();
                self.under_way.clear();
                self.requests.clear();
                for kind in Kind::ALL {
                    let client = &mut self.client[kind as usize];
                    client.nonce.clear();
                    // gRPC has no stream for what it does not want.
                    client.ever_named = !client.wanted.is_empty();
                    if client.ever_named {
                        self.request(kind, None);
                    }
                }
            }
        }
    }

    /// Lets everything that is under way arrive. Fails if that never ends.
    fn settle(&mut self) {
        for _ in 0..100 {
            while self.hear() {}
            self.step(Step::Flush);
            if self.under_way.is_empty() {
                return;
            }
            while self.deliver() {}
        }
        panic!("server and client talk for ever");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn in_the_end_a_client_holds_what_is_current(steps in steps()) {
        let mut world = World::default();
        for step in steps {
            world.step(step);
        }
        // Everything becomes known in the end.
        for kind in Kind::ALL {
            for name in 0..NAMES.len() {
                if world.truth.get(&(kind, name)).copied().flatten().is_none() {
                    world.step(Step::Set(kind, name, 1));
                }
            }
        }
        world.settle();
        for kind in Kind::ALL {
            let client = &world.client[kind as usize];
            for name in &client.wanted {
                let current = world.truth[&(kind, *name)].unwrap();
                let holds = client.holds.get(NAMES[*name]).copied();
                if is_bad(current) {
                    // It refuses what is current: it keeps something that it took, or has nothing.
                    if let Some(holds) = holds {
                        prop_assert!(world.accepted.contains(&(kind, NAMES[*name].to_owned(), holds)));
                    }
                } else if current == 0 && kind == Kind::Cds {
                    prop_assert_eq!(holds, None, "{} {}", kind, NAMES[*name]);
                } else {
                    prop_assert_eq!(holds, Some(current), "{} {}", kind, NAMES[*name]);
                }
            }
        }
    }

    #[test]
    fn a_cluster_is_never_taken_away_before_the_routes_that_go_out_with_it(steps in steps()) {
        let mut world = World::default();
        for step in steps {
            if let Step::Flush = step {
                let responses = world.server.flush();
                let position = |kind: Kind| responses.iter().position(|response| response.kind == kind);
                let last_cds = responses.iter().rposition(|response| response.kind == Kind::Cds);
                for (earlier, later) in [(Kind::Cds, Kind::Eds), (Kind::Eds, Kind::Lds), (Kind::Lds, Kind::Rds)] {
                    if let (Some(earlier_at), Some(later_at)) = (position(earlier), position(later)) {
                        // A CDS that only removes is alone, and last.
                        prop_assert!(earlier_at < later_at || (earlier == Kind::Cds && last_cds == Some(responses.len() - 1)));
                    }
                }
                world.under_way.extend(responses);
            } else {
                world.step(step);
            }
        }
    }

    #[test]
    fn hostile_requests_never_panic(
        requests in requests(),
    ) {
        let mut stream = Stream::default();
        for (kind, version_info, names, nonce, error) in &requests {
            let request = Request { kind: *kind, version_info, names, nonce, error: error.as_deref() };
            for name in stream.request(request, Instant::now()).unwrap().1.added {
                stream.update(*kind, &name, Lookup::Present(Encoded::new(*kind, name.clone(), name.as_bytes())));
            }
            let sent = stream.flush();
            prop_assert!(sent.len() <= 5);
        }
    }
}
