//! Each rule of delta by itself.

use std::sync::Arc;

use super::*;

fn resource(kind: Kind, name: &str, content: &str) -> Lookup {
    Lookup::Present(encoded(kind, name, content))
}

fn encoded(kind: Kind, name: &str, content: &str) -> Encoded {
    Encoded::new(kind, Arc::from(name), format!("{name}={content}").as_bytes())
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A stream and the nonce of the last response of each type.
#[derive(Default)]
struct Peer {
    stream: Stream,
    last: [Option<Response>; Kind::ALL.len()],
}

impl Peer {
    fn say(&mut self, kind: Kind, subscribe: &[&str], unsubscribe: &[&str], nonce: &str) -> (Meaning, Changes) {
        let request = Request {
            kind,
            subscribe: &names(subscribe),
            unsubscribe: &names(unsubscribe),
            initial_versions: &HashMap::new(),
            nonce,
            error: None,
        };
        self.stream.request(request, Instant::now()).unwrap()
    }

    fn subscribe(&mut self, kind: Kind, subscribe: &[&str]) -> Changes {
        self.say(kind, subscribe, &[], "").1
    }

    fn unsubscribe(&mut self, kind: Kind, unsubscribe: &[&str]) -> Changes {
        self.say(kind, &[], unsubscribe, "").1
    }

    fn come_back(&mut self, kind: Kind, subscribe: &[&str], held: &[(&str, String)]) -> Changes {
        let held = held.iter().map(|(name, version)| ((*name).to_owned(), version.clone())).collect();
        let request = Request {
            kind,
            subscribe: &names(subscribe),
            unsubscribe: &[],
            initial_versions: &held,
            nonce: "",
            error: None,
        };
        self.stream.request(request, Instant::now()).unwrap().1
    }

    fn answer(&mut self, kind: Kind, error: Option<&str>) -> Meaning {
        let nonce = self.last[kind as usize].as_ref().unwrap().nonce();
        let request =
            Request { kind, subscribe: &[], unsubscribe: &[], initial_versions: &HashMap::new(), nonce: &nonce, error };
        self.stream.request(request, Instant::now()).unwrap().0
    }

    fn set(&mut self, kind: Kind, name: &str, content: &str) {
        self.stream.update(kind, name, resource(kind, name, content));
    }

    fn absent(&mut self, kind: Kind, name: &str) {
        let stand_in = (kind != Kind::Cds).then(|| encoded(kind, name, "none"));
        self.stream.update(kind, name, Lookup::Absent(stand_in));
    }

    /// Flushes, and says what came: `CDS a=1 -b`.
    fn flush(&mut self) -> Vec<String> {
        let responses = self.stream.flush();
        let shown = responses.iter().map(show).collect();
        for response in responses {
            let kind = response.kind as usize;
            self.last[kind] = Some(response);
        }
        shown
    }
}

fn show(response: &Response) -> String {
    let contents = response.resources.iter().map(|encoded| String::from_utf8(encoded.bytes().to_vec()).unwrap());
    let removed = response.removed.iter().map(|name| format!("-{name}"));
    [response.kind.to_string()].into_iter().chain(contents).chain(removed).collect::<Vec<_>>().join(" ")
}

fn members(names: &[&str]) -> BTreeSet<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn only_what_changed_is_sent_of_any_type() {
    for kind in Kind::ALL {
        let mut peer = Peer::default();
        assert_eq!(peer.subscribe(kind, &["a", "b"]).added, ["a".into(), "b".into()]);
        assert_eq!(peer.flush(), NOTHING);
        peer.set(kind, "a", "1");
        assert_eq!(peer.flush(), [format!("{kind} a=1")], "silence about `b` takes nothing from anybody");
        peer.set(kind, "b", "1");
        assert_eq!(peer.flush(), [format!("{kind} b=1")]);
        assert_eq!(peer.answer(kind, None), Meaning::Ack);
        peer.set(kind, "b", "1");
        assert_eq!(peer.flush(), NOTHING);
        peer.set(kind, "b", "2");
        assert_eq!(peer.flush(), [format!("{kind} b=2")]);
    }
}

#[test]
fn a_name_known_not_to_exist_is_answered_with_its_removal() {
    for kind in Kind::ALL {
        let mut peer = Peer::default();
        peer.subscribe(kind, &["a"]);
        peer.absent(kind, "a");
        assert_eq!(peer.flush(), [format!("{kind} -a")]);
        assert_eq!(peer.flush(), NOTHING);
        peer.set(kind, "a", "1");
        assert_eq!(peer.flush(), [format!("{kind} a=1")], "late, but not too late");
    }
}

#[test]
fn what_is_gone_is_removed_and_endpoints_become_none() {
    for (kind, gone) in [(Kind::Cds, "CDS -a"), (Kind::Eds, "EDS a=none"), (Kind::Lds, "LDS -a"), (Kind::Rds, "RDS -a")]
    {
        let mut peer = Peer::default();
        peer.subscribe(kind, &["a"]);
        peer.set(kind, "a", "1");
        peer.flush();
        peer.absent(kind, "a");
        assert_eq!(peer.flush(), [gone], "to an Envoy a removal of endpoints means nothing");
    }
}

#[test]
fn types_go_out_in_the_order_in_which_they_need_each_other() {
    let mut peer = Peer::default();
    for kind in [Kind::Rds, Kind::Lds, Kind::Eds, Kind::Cds] {
        peer.subscribe(kind, &["a"]);
        peer.set(kind, "a", "1");
    }
    assert_eq!(peer.flush(), ["CDS a=1", "EDS a=1", "LDS a=1", "RDS a=1"]);
    peer.absent(Kind::Cds, "a");
    peer.set(Kind::Rds, "a", "2");
    assert_eq!(peer.flush(), ["RDS a=2", "CDS -a"], "removals last");
}

#[test]
fn endpoints_are_sent_again_after_their_cluster_changed() {
    let mut peer = Peer::default();
    for kind in [Kind::Cds, Kind::Eds] {
        peer.subscribe(kind, &["a", "b"]);
        peer.set(kind, "a", "1");
        peer.set(kind, "b", "1");
    }
    peer.flush();
    peer.set(Kind::Cds, "a", "2");
    assert_eq!(peer.flush(), ["CDS a=2", "EDS a=1"], "a delta Envoy does not even ask: it warms for 15 seconds");
    assert_eq!(peer.flush(), NOTHING);
}

#[test]
fn a_first_request_without_names_is_a_wildcard_for_clusters_and_listeners() {
    for kind in Kind::ALL {
        let mut peer = Peer::default();
        assert!(peer.subscribe(kind, &[]).added.is_empty());
        assert_eq!(peer.flush(), NOTHING, "it is not known yet what everything is");
        let changes = peer.stream.set_members(kind, members(&["a"]));
        if !kind.is_complete() {
            assert!(changes.is_empty(), "{kind}");
            continue;
        }
        assert_eq!(changes.added, ["a".into()]);
        assert_eq!(peer.flush(), NOTHING, "an Envoy takes the first answer for all that there is");
        peer.set(kind, "a", "1");
        assert_eq!(peer.flush(), [format!("{kind} a=1")]);
        // A later request without names is no wildcard and no end of one.
        assert!(peer.subscribe(kind, &[]).is_empty());
        assert_eq!(peer.stream.set_members(kind, members(&["b"])).removed, ["a".into()]);
        peer.set(kind, "b", "1");
        assert_eq!(peer.flush().join(" ").matches("-a").count(), 1);
    }
}

#[test]
fn an_empty_wildcard_is_answered_once() {
    let mut peer = Peer::default();
    peer.stream.set_members(Kind::Cds, members(&[]));
    peer.subscribe(Kind::Cds, &["*"]);
    assert_eq!(peer.flush(), ["CDS"], "or an Envoy waits 15 seconds");
    peer.answer(Kind::Cds, None);
    assert_eq!(peer.flush(), NOTHING);
}

#[test]
fn names_stand_beside_a_wildcard_and_outlive_it() {
    let mut peer = Peer::default();
    peer.stream.set_members(Kind::Cds, members(&["a", "b"]));
    peer.subscribe(Kind::Cds, &["*", "c", "a"]);
    for name in ["a", "b", "c"] {
        peer.set(Kind::Cds, name, "1");
    }
    assert_eq!(peer.flush(), ["CDS a=1 b=1 c=1"]);
    // Not named any more, but everything is still asked for: told again, since the client forgot it.
    assert!(peer.unsubscribe(Kind::Cds, &["a"]).is_empty());
    assert_eq!(peer.flush(), ["CDS a=1"]);
    let changes = peer.unsubscribe(Kind::Cds, &["*"]);
    assert_eq!((changes.added, changes.removed), (vec![], vec!["a".into(), "b".into()]));
    assert_eq!(peer.stream.names(Kind::Cds), ["c".into()]);
    assert_eq!(peer.flush(), NOTHING);
}

#[test]
fn a_client_that_came_back_with_everything_is_in_step_without_a_response() {
    let mut peer = Peer::default();
    let version = encoded(Kind::Eds, "a", "1").version().to_string();
    peer.come_back(Kind::Eds, &["a"], &[("a", version)]);
    peer.set(Kind::Eds, "a", "1");
    assert_eq!(peer.flush(), NOTHING);
    let standing = peer.stream.standing(Kind::Eds);
    assert!(standing.sent.is_some());
    assert_eq!(standing.sent, standing.accepted);
    peer.set(Kind::Eds, "a", "2");
    assert_eq!(peer.flush(), ["EDS a=2"]);
    assert_ne!(peer.stream.standing(Kind::Eds).sent, standing.accepted);
}

#[test]
fn what_the_client_still_holds_is_not_sent_again() {
    let version = |content: &str| encoded(Kind::Eds, "a", content).version().to_string();
    for (held, sent) in [(version("1"), vec![]), (version("0"), vec!["EDS a=1"]), ("nonsense".into(), vec!["EDS a=1"])]
    {
        let mut peer = Peer::default();
        assert_eq!(peer.come_back(Kind::Eds, &["a"], &[("a", held)]).added, ["a".into()]);
        assert_eq!(peer.flush(), NOTHING, "nothing is known yet, so nothing goes");
        peer.set(Kind::Eds, "a", "1");
        assert_eq!(peer.flush(), sent);
        peer.set(Kind::Eds, "a", "2");
        assert_eq!(peer.flush(), ["EDS a=2"]);
    }
}

#[test]
fn what_went_while_the_client_was_away_is_removed() {
    for (kind, gone) in [(Kind::Cds, "CDS -a"), (Kind::Eds, "EDS a=none"), (Kind::Rds, "RDS -a")] {
        let mut peer = Peer::default();
        peer.come_back(kind, &["a"], &[("a", "7".into())]);
        peer.absent(kind, "a");
        assert_eq!(peer.flush(), [gone]);
    }
}

#[test]
fn a_wildcard_that_comes_back_is_told_what_is_gone_and_what_is_new() {
    let version = encoded(Kind::Cds, "a", "1").version().to_string();
    for known_first in [true, false] {
        let mut peer = Peer::default();
        if known_first {
            peer.stream.set_members(Kind::Cds, members(&["a", "c"]));
        }
        peer.come_back(Kind::Cds, &[], &[("a", version.clone()), ("b", version.clone())]);
        if !known_first {
            assert_eq!(peer.flush(), NOTHING);
            peer.stream.set_members(Kind::Cds, members(&["a", "c"]));
        }
        peer.set(Kind::Cds, "a", "1");
        peer.set(Kind::Cds, "c", "1");
        let mut told = peer.flush();
        // The removal has a response of its own, after everything else.
        assert_eq!(told.pop().as_deref(), Some("CDS -b"), "known first: {known_first}");
        assert_eq!(told, if known_first { ["CDS a=1 c=1"] } else { ["CDS c=1"] });
    }
}

#[test]
fn a_name_that_comes_back_is_answered_whether_it_was_given_up_or_not() {
    for kind in Kind::ALL {
        let mut peer = Peer::default();
        peer.subscribe(kind, &["a"]);
        peer.set(kind, "a", "1");
        peer.flush();
        assert_eq!(peer.unsubscribe(kind, &["a"]).removed, ["a".into()]);
        assert_eq!(peer.flush(), NOTHING);
        assert_eq!(peer.subscribe(kind, &["a"]).added, ["a".into()]);
        peer.set(kind, "a", "1");
        assert_eq!(peer.flush(), [format!("{kind} a=1")]);
        assert!(peer.subscribe(kind, &["a"]).is_empty());
        assert_eq!(peer.flush(), [format!("{kind} a=1")], "asked for twice, answered twice");
    }
}

#[test]
fn what_a_client_came_back_with_counts_no_more_once_it_gave_the_name_up() {
    let mut peer = Peer::default();
    peer.stream.set_members(Kind::Cds, members(&[]));
    let version = encoded(Kind::Cds, "a", "1").version().to_string();
    peer.come_back(Kind::Cds, &["a", "*"], &[("a", version)]);
    peer.set(Kind::Cds, "a", "1");
    peer.unsubscribe(Kind::Cds, &["a"]);
    peer.subscribe(Kind::Cds, &["a"]);
    peer.set(Kind::Cds, "a", "1");
    assert_eq!(peer.flush(), ["CDS a=1"]);
}

#[test]
fn a_subscription_counts_whatever_its_nonce() {
    let mut peer = Peer::default();
    peer.subscribe(Kind::Eds, &["a"]);
    peer.set(Kind::Eds, "a", "1");
    peer.flush();
    for nonce in ["EDS-2", "CDS-1", "x", "EDS-18446744073709551616"] {
        let (meaning, changes) = peer.say(Kind::Eds, &["b"], &[], nonce);
        assert_eq!((meaning, changes.added), (Meaning::Stale, vec!["b".into()]), "{nonce}");
        assert_eq!(peer.say(Kind::Eds, &[], &["b"], nonce).1.removed, ["b".into()]);
    }
}

#[test]
fn an_answer_to_an_earlier_response_is_an_answer() {
    let mut peer = Peer::default();
    peer.subscribe(Kind::Eds, &["a", "b"]);
    peer.set(Kind::Eds, "a", "bad");
    peer.flush();
    let earlier = peer.last[Kind::Eds as usize].clone();
    peer.set(Kind::Eds, "b", "1");
    peer.flush();
    let later = std::mem::replace(&mut peer.last[Kind::Eds as usize], earlier);
    assert_eq!(peer.answer(Kind::Eds, Some("a: bad")), Meaning::Nack);
    peer.last[Kind::Eds as usize] = later;
    assert_eq!(peer.answer(Kind::Eds, None), Meaning::Ack);
    assert_eq!(peer.stream.standing(Kind::Eds).nack.as_deref(), Some("a: bad"), "it still does without `a`");
    peer.set(Kind::Eds, "a", "2");
    assert_eq!(peer.flush(), ["EDS a=2"]);
    peer.answer(Kind::Eds, None);
    assert_eq!(peer.stream.standing(Kind::Eds).nack, None);
}

#[test]
fn what_was_refused_is_not_repeated_and_what_came_with_it_is() {
    let mut peer = Peer::default();
    peer.subscribe(Kind::Eds, &["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        peer.set(Kind::Eds, name, "1");
    }
    peer.flush();
    peer.answer(Kind::Eds, None);
    peer.set(Kind::Eds, "a", "bad");
    peer.set(Kind::Eds, "b", "2");
    assert_eq!(peer.flush(), ["EDS a=bad b=2"]);
    for _ in 0..100 {
        peer.answer(Kind::Eds, Some("a: bad"));
        assert_eq!(peer.flush(), NOTHING);
    }
    peer.set(Kind::Eds, "c", "2");
    assert_eq!(peer.flush(), ["EDS c=2 a=1 b=2"], "nobody knows what it took of the refused response");
}

#[test]
fn more_names_than_are_served_are_refused() {
    let mut stream = Stream::default();
    let all: Vec<String> = (0..=MAX_NAMES).map(|number| format!("s{number}")).collect();
    let ask = |stream: &mut Stream, names: &[String]| {
        let request = Request {
            kind: Kind::Eds,
            subscribe: names,
            unsubscribe: &[],
            initial_versions: &HashMap::new(),
            nonce: "",
            error: None,
        };
        stream.request(request, Instant::now()).map(|(_, changes)| changes.added.len())
    };
    assert_eq!(ask(&mut stream, &all[..MAX_NAMES]), Ok(MAX_NAMES));
    assert_eq!(ask(&mut stream, &all[..MAX_NAMES]), Ok(0), "again the same");
    let names = MAX_NAMES + 1;
    assert_eq!(ask(&mut stream, &all[MAX_NAMES..]), Err(RequestError::TooManyNames { kind: Kind::Eds, names }));
}
