//! A delta client as the protocol describes it, against a random history. Once nothing is under way, it holds what is
//! current.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// The resource becomes this: content 0 is absent, contents from 100 are refused by the client.
    Set(Kind, usize, u32),
    /// The client wants exactly these by name.
    Subscribe(Kind, BTreeSet<usize>),
    /// The client asks for everything, or no longer does.
    Wildcard(Kind, bool),
    /// Everything is this from now on.
    Members(Kind, BTreeSet<usize>),
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
    let complete = || prop::sample::select(vec![Kind::Cds, Kind::Lds]);
    let name = || 0..NAMES.len();
    let names = move || prop::collection::btree_set(name(), 0..4);
    let content = prop_oneof![1 => Just(0_u32), 6 => 1..4_u32, 2 => 100..103_u32];
    let step = prop_oneof![
        6 => (kind(), name(), content).prop_map(|(kind, name, content)| Step::Set(kind, name, content)),
        3 => (kind(), names()).prop_map(|(kind, names)| Step::Subscribe(kind, names)),
        1 => (complete(), any::<bool>()).prop_map(|(kind, on)| Step::Wildcard(kind, on)),
        1 => (complete(), names()).prop_map(|(kind, names)| Step::Members(kind, names)),
        5 => Just(Step::Flush),
        5 => Just(Step::Deliver),
        5 => Just(Step::Hear),
        1 => Just(Step::Reconnect),
    ];
    prop::collection::vec(step, 0..100)
}

/// A request on its way.
#[derive(Debug, Default)]
struct Asked {
    subscribe: Vec<String>,
    unsubscribe: Vec<String>,
    initial: HashMap<String, String>,
    nonce: String,
    error: Option<String>,
}

#[derive(Default)]
struct ClientKind {
    begun: bool,
    named: BTreeSet<usize>,
    wildcard: bool,
    holds: BTreeMap<String, (u32, String)>,
}

#[derive(Default)]
struct World {
    server: Stream,
    truth: BTreeMap<(Kind, usize), u32>,
    members: BTreeMap<Kind, BTreeSet<usize>>,
    client: [ClientKind; Kind::ALL.len()],
    under_way: VecDeque<Response>,
    requests: VecDeque<(Kind, Asked)>,
    accepted: BTreeSet<(Kind, String, u32)>,
}

fn is_bad(content: u32) -> bool {
    content >= 100
}

fn content_of(encoded: &Encoded) -> u32 {
    String::from_utf8(encoded.bytes().to_vec()).unwrap().rsplit('=').next().unwrap().parse().unwrap()
}

fn texts(names: impl IntoIterator<Item = usize>) -> Vec<String> {
    names.into_iter().map(|name| NAMES[name].to_owned()).collect()
}

impl World {
    fn lookup(&self, kind: Kind, name: usize) -> Lookup {
        let encoded = |content| Encoded::new(kind, NAMES[name].into(), format!("{}={content}", NAMES[name]).as_bytes());
        match self.truth.get(&(kind, name)) {
            None => Lookup::Unknown,
            Some(0) => Lookup::Absent((kind != Kind::Cds).then(|| encoded(0))),
            Some(content) => Lookup::Present(encoded(*content)),
        }
    }

    fn follow(&mut self, kind: Kind, changes: Changes) {
        for name in changes.added {
            let index = NAMES.iter().position(|known| **known == *name).unwrap();
            let lookup = self.lookup(kind, index);
            self.server.update(kind, &name, lookup);
        }
    }

    fn hear(&mut self) -> bool {
        let Some((kind, asked)) = self.requests.pop_front() else { return false };
        let request = Request {
            kind,
            subscribe: &asked.subscribe,
            unsubscribe: &asked.unsubscribe,
            initial_versions: &asked.initial,
            nonce: &asked.nonce,
            error: asked.error.as_deref(),
        };
        let (_, changes) = self.server.request(request, Instant::now()).unwrap();
        self.follow(kind, changes);
        true
    }

    fn deliver(&mut self) -> bool {
        let Some(response) = self.under_way.pop_front() else { return false };
        let kind = response.kind;
        let client = &mut self.client[kind as usize];
        let mut refused = None;
        for encoded in &response.resources {
            let (name, content) = (encoded.name().to_string(), content_of(encoded));
            let wanted = client.wildcard || client.named.iter().any(|wanted| NAMES[*wanted] == name);
            if is_bad(content) {
                refused = Some(format!("{name}: refused"));
            } else if wanted {
                self.accepted.insert((kind, name.clone(), content));
                client.holds.insert(name, (content, encoded.version().to_string()));
            }
        }
        for name in &response.removed {
            client.holds.remove(&**name);
        }
        let answer = Asked { nonce: response.nonce(), error: refused, ..Asked::default() };
        self.requests.push_back((kind, answer));
        true
    }

    fn say(&mut self, kind: Kind, subscribe: Vec<String>, unsubscribe: Vec<String>) {
        let client = &mut self.client[kind as usize];
        // A first request that names nothing would be a wildcard.
        if client.begun || !subscribe.is_empty() {
            client.begun = true;
            self.requests.push_back((kind, Asked { subscribe, unsubscribe, ..Asked::default() }));
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Set(kind, name, content) => {
                self.truth.insert((kind, name), content);
                let lookup = self.lookup(kind, name);
                self.server.update(kind, NAMES[name], lookup);
            }
            Step::Subscribe(kind, names) => {
                let client = &mut self.client[kind as usize];
                let added: Vec<usize> = names.difference(&client.named).copied().collect();
                let gone: Vec<usize> = client.named.difference(&names).copied().collect();
                client.holds.retain(|held, _| !gone.iter().any(|name| NAMES[*name] == held));
                client.named = names;
                self.say(kind, texts(added), texts(gone));
            }
            Step::Wildcard(kind, on) => {
                let client = &mut self.client[kind as usize];
                if client.wildcard == on {
                    return;
                }
                client.wildcard = on;
                if on {
                    self.say(kind, vec!["*".to_owned()], Vec::new());
                } else {
                    let named = client.named.clone();
                    client.holds.retain(|held, _| named.iter().any(|name| NAMES[*name] == held));
                    self.say(kind, Vec::new(), vec!["*".to_owned()]);
                }
            }
            Step::Members(kind, members) => {
                let names = members.iter().map(|name| Arc::from(NAMES[*name])).collect();
                self.members.insert(kind, members);
                let changes = self.server.set_members(kind, names);
                self.follow(kind, changes);
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
            Step::Reconnect => self.reconnect(),
        }
    }

    fn reconnect(&mut self) {
        self.server = Stream::default();
        self.under_way.clear();
        self.requests.clear();
        for (kind, members) in self.members.clone() {
            self.step(Step::Members(kind, members));
        }
        for kind in Kind::ALL {
            let client = &mut self.client[kind as usize];
            let mut subscribe = texts(client.named.iter().copied());
            if client.wildcard {
                subscribe.push("*".to_owned());
            }
            client.begun = !subscribe.is_empty();
            if client.begun {
                let initial = client.holds.iter().map(|(name, (_, version))| (name.clone(), version.clone())).collect();
                self.requests.push_back((kind, Asked { subscribe, initial, ..Asked::default() }));
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
            if !world.members.contains_key(&kind) {
                world.step(Step::Members(kind, BTreeSet::new()));
            }
            for name in 0..NAMES.len() {
                if !world.truth.contains_key(&(kind, name)) {
                    world.step(Step::Set(kind, name, 1));
                }
            }
        }
        world.settle();
        for kind in Kind::ALL {
            let client = &world.client[kind as usize];
            for (name, text) in NAMES.into_iter().enumerate() {
                let wanted = client.named.contains(&name) || client.wildcard && world.members[&kind].contains(&name);
                let (current, holds) = (world.truth[&(kind, name)], client.holds.get(text).map(|held| held.0));
                if !wanted {
                    prop_assert_eq!(holds, None, "{} {}", kind, text);
                } else if is_bad(current) {
                    // It refuses what is current: it keeps something that it took, or has nothing.
                    if let Some(holds) = holds {
                        prop_assert!(world.accepted.contains(&(kind, text.to_owned(), holds)));
                    }
                } else if current == 0 {
                    prop_assert!(matches!(holds, None | Some(0)), "{kind} {text}: {holds:?}");
                } else {
                    prop_assert_eq!(holds, Some(current), "{} {}", kind, text);
                }
            }
        }
    }
}
