//! Each rule of the protocol by itself.

use std::sync::Arc;

use super::*;
use crate::resources::Encoded;
use crate::xds::protocol::refusal::mentions;

fn resource(kind: Kind, name: &str, content: &str) -> Lookup {
    Lookup::Present(Encoded::new(kind, Arc::from(name), format!("{name}={content}").as_bytes()))
}

/// A stream and the nonce and version of the last response of each type, as a client keeps them.
#[derive(Default)]
struct Peer {
    stream: Stream,
    last: [Option<Response>; Kind::ALL.len()],
    accepted: [String; Kind::ALL.len()],
}

impl Peer {
    fn send(&mut self, kind: Kind, names: &[&str], error: Option<&str>) -> (Meaning, Changes) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let nonce = self.last[kind as usize].as_ref().map(|last| last.nonce()).unwrap_or_default();
        let version_info = &self.accepted[kind as usize];
        let request = Request { kind, version_info, names: &names, nonce: &nonce, error };
        self.stream.request(request, Instant::now()).unwrap()
    }

    fn subscribe(&mut self, kind: Kind, names: &[&str]) -> Changes {
        self.send(kind, names, None).1
    }

    fn ack(&mut self, kind: Kind, names: &[&str]) {
        self.accepted[kind as usize] = self.last[kind as usize].as_ref().unwrap().version.to_string();
        assert_eq!(self.send(kind, names, None).0, Meaning::Ack);
    }

    fn nack(&mut self, kind: Kind, names: &[&str], text: &str) {
        assert_eq!(self.send(kind, names, Some(text)).0, Meaning::Nack);
    }

    fn set(&mut self, kind: Kind, name: &str, content: &str) {
        self.stream.update(kind, name, resource(kind, name, content));
    }

    /// Flushes, and says what came: `CDS a=1 b=1`.
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
    [response.kind.to_string()].into_iter().chain(contents).collect::<Vec<_>>().join(" ")
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_subscription_is_answered_when_its_name_is_known_and_not_before() {
    let mut peer = Peer::default();
    assert_eq!(peer.subscribe(Kind::Eds, &["a", "b"]).added, ["a".into(), "b".into()]);
    assert_eq!(peer.flush(), NOTHING);
    peer.set(Kind::Eds, "a", "1");
    assert_eq!(peer.flush(), ["EDS a=1"]);
    peer.set(Kind::Eds, "b", "1");
    assert_eq!(peer.flush(), ["EDS b=1"], "endpoints may come in parts");
    peer.set(Kind::Eds, "b", "1");
    assert_eq!(peer.flush(), NOTHING, "what did not change is not sent");
}

#[test]
fn clusters_and_listeners_always_come_whole() {
    for kind in [Kind::Cds, Kind::Lds] {
        let mut peer = Peer::default();
        peer.subscribe(kind, &["a", "b"]);
        peer.set(kind, "a", "1");
        peer.set(kind, "b", "1");
        assert_eq!(peer.flush(), [format!("{kind} a=1 b=1")]);
        peer.set(kind, "b", "2");
        assert_eq!(peer.flush(), [format!("{kind} a=1 b=2")]);
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
}

#[test]
fn a_cluster_goes_only_after_the_route_that_led_to_it() {
    let mut peer = Peer::default();
    peer.subscribe(Kind::Cds, &["a", "b"]);
    peer.subscribe(Kind::Rds, &["r"]);
    for name in ["a", "b"] {
        peer.set(Kind::Cds, name, "1");
    }
    peer.set(Kind::Rds, "r", "to-a");
    peer.flush();
    peer.stream.update(Kind::Cds, "a", Lookup::Absent(None));
    peer.set(Kind::Cds, "b", "2");
    peer.set(Kind::Rds, "r", "to-b");
    assert_eq!(peer.flush(), ["CDS a=1 b=2", "RDS r=to-b", "CDS b=2"]);
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
    assert_eq!(peer.flush(), ["CDS a=2 b=1", "EDS a=1"], "or an Envoy warms for 15 seconds");
    peer.ack(Kind::Cds, &["a", "b"]);
    peer.ack(Kind::Eds, &["a", "b"]);
    assert_eq!(peer.flush(), NOTHING);
}

#[test]
fn endpoints_do_not_wait_for_their_clusters_acknowledgement() {
    let mut peer = Peer::default();
    for kind in [Kind::Cds, Kind::Eds] {
        peer.subscribe(kind, &["a"]);
        peer.set(kind, "a", "1");
    }
    peer.flush();
    peer.set(Kind::Eds, "a", "2");
    assert_eq!(peer.flush(), ["EDS a=2"], "an Envoy keeps its acknowledgement back until it has them");
}

#[test]
fn what_is_not_known_any_more_stays_as_it_was() {
    let mut peer = Peer::default();
    peer.subscribe(Kind::Cds, &["a", "b"]);
    peer.set(Kind::Cds, "a", "1");
    peer.set(Kind::Cds, "b", "1");
    peer.flush();
    peer.stream.update(Kind::Cds, "a", Lookup::Unknown);
    assert_eq!(peer.flush(), NOTHING);
    peer.set(Kind::Cds, "b", "2");
    assert_eq!(peer.flush(), ["CDS a=1 b=2"]);
}

#[test]
fn a_client_that_comes_back_keeps_what_we_do_not_know_yet() {
    let mut peer = Peer { accepted: std::array::from_fn(|_| "7".into()), ..Peer::default() };
    peer.subscribe(Kind::Cds, &["a", "b"]);
    peer.set(Kind::Cds, "a", "1");
    assert_eq!(peer.flush(), NOTHING, "an answer without `b` would delete it");
    peer.set(Kind::Cds, "b", "1");
    assert_eq!(peer.flush(), ["CDS a=1 b=1"]);
    // A name that is new on this stream was never held.
    peer.subscribe(Kind::Cds, &["a", "b", "c"]);
    peer.set(Kind::Cds, "a", "2");
    assert_eq!(peer.flush(), ["CDS a=2 b=1"]);
}

#[test]
fn a_client_that_comes_back_is_always_answered() {
    // It may have dropped a name and wanted it again while it was away: the version it names says nothing of that.
    let mut peer = Peer::default();
    peer.subscribe(Kind::Eds, &["a"]);
    peer.set(Kind::Eds, "a", "1");
    peer.flush();
    let version = peer.last[Kind::Eds as usize].as_ref().unwrap().version;
    let mut again = Peer::default();
    again.accepted[Kind::Eds as usize] = version.to_string();
    again.subscribe(Kind::Eds, &["a"]);
    again.set(Kind::Eds, "a", "1");
    assert_eq!(again.flush(), ["EDS a=1"]);
    assert_eq!(again.last[Kind::Eds as usize].as_ref().unwrap().version, version, "versions outlive the stream");
}

#[test]
fn a_known_absence_of_a_cluster_is_answered_with_nothing() {
    let mut peer = Peer::default();
    peer.subscribe(Kind::Cds, &["a"]);
    peer.stream.update(Kind::Cds, "a", Lookup::Absent(None));
    assert_eq!(peer.flush(), ["CDS"]);
    assert_eq!(peer.flush(), NOTHING);
}

#[test]
fn a_wildcard_is_answered_at_once_and_once() {
    let mut peer = Peer::default();
    peer.subscribe(Kind::Cds, &[]);
    assert_eq!(peer.flush(), NOTHING, "it is not known yet what everything is");
    peer.stream.set_members(Kind::Cds, BTreeSet::new());
    assert_eq!(peer.flush(), ["CDS"]);
    peer.ack(Kind::Cds, &[]);
    assert_eq!(peer.flush(), NOTHING);
    let mut named = Peer::default();
    named.stream.set_members(Kind::Lds, BTreeSet::new());
    named.subscribe(Kind::Lds, &["*"]);
    assert_eq!(named.flush(), ["LDS"]);
    named.ack(Kind::Lds, &["*"]);
    assert_eq!(named.flush(), NOTHING);
}

#[test]
fn a_wildcard_follows_what_everything_is() {
    let members = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<BTreeSet<Arc<str>>>();
    let mut peer = Peer::default();
    peer.stream.set_members(Kind::Cds, members(&["a", "b"]));
    assert_eq!(peer.subscribe(Kind::Cds, &[]).added, ["a".into(), "b".into()]);
    peer.set(Kind::Cds, "a", "1");
    assert_eq!(peer.flush(), NOTHING, "an Envoy takes the first answer for all that there is");
    peer.set(Kind::Cds, "b", "1");
    assert_eq!(peer.flush(), ["CDS a=1 b=1"]);
    peer.ack(Kind::Cds, &[]);
    let changes = peer.stream.set_members(Kind::Cds, members(&["b", "c"]));
    assert_eq!((changes.added, changes.removed), (vec!["c".into()], vec!["a".into()]));
    assert_eq!(peer.flush(), ["CDS b=1"]);
    peer.set(Kind::Cds, "c", "1");
    assert_eq!(peer.flush(), ["CDS b=1 c=1"]);
    peer.ack(Kind::Cds, &[]);
    // Names beside the wildcard, and then instead of it.
    assert_eq!(peer.subscribe(Kind::Cds, &["*", "d"]).added, ["d".into()]);
    assert_eq!(peer.subscribe(Kind::Cds, &["d"]).removed, ["b".into(), "c".into()]);
    peer.set(Kind::Cds, "d", "1");
    assert_eq!(peer.flush(), ["CDS d=1"]);
}

#[test]
fn an_empty_list_means_nothing_once_something_was_named() {
    let mut peer = Peer::default();
    peer.subscribe(Kind::Lds, &["a"]);
    peer.set(Kind::Lds, "a", "1");
    peer.flush();
    assert_eq!(peer.subscribe(Kind::Lds, &[]).removed, ["a".into()]);
    assert_eq!(peer.flush(), NOTHING);
}

#[test]
fn a_name_that_comes_back_on_the_old_nonce_is_answered() {
    for kind in Kind::ALL {
        let mut peer = Peer::default();
        peer.subscribe(kind, &["a"]);
        peer.set(kind, "a", "1");
        peer.flush();
        peer.ack(kind, &["a"]);
        peer.subscribe(kind, &[]);
        assert_eq!(peer.subscribe(kind, &["a"]).added, ["a".into()]);
        peer.set(kind, "a", "1");
        assert_eq!(peer.flush(), [format!("{kind} a=1")], "the client forgot it");
    }
}

#[test]
fn an_answer_to_an_older_response_is_no_answer_to_the_last() {
    let mut peer = Peer::default();
    peer.subscribe(Kind::Eds, &["a"]);
    peer.set(Kind::Eds, "a", "1");
    peer.flush();
    let old = peer.last[Kind::Eds as usize].clone();
    peer.set(Kind::Eds, "a", "2");
    peer.flush();
    let new = std::mem::replace(&mut peer.last[Kind::Eds as usize], old);
    assert_eq!(peer.send(Kind::Eds, &["a"], None), (Meaning::Stale, Changes::default()));
    assert_eq!(peer.flush(), NOTHING);
    let standing = peer.stream.standing(Kind::Eds);
    assert_ne!(standing.sent, standing.accepted);
    peer.last[Kind::Eds as usize] = new;
    peer.ack(Kind::Eds, &["a"]);
    assert_eq!(peer.flush(), NOTHING);
}

#[test]
fn requests_on_an_invented_nonce_change_nothing() {
    let mut peer = Peer::default();
    peer.subscribe(Kind::Eds, &["a"]);
    peer.set(Kind::Eds, "a", "1");
    peer.flush();
    for nonce in ["EDS-2", "EDS-0", "EDS--1", "EDS-", "CDS-1", "1", "x", "EDS-18446744073709551616"] {
        let names = ["b".to_owned()];
        let request = Request { kind: Kind::Eds, version_info: "", names: &names, nonce, error: Some("no") };
        assert_eq!(
            peer.stream.request(request, Instant::now()).unwrap(),
            (Meaning::Stale, Changes::default()),
            "{nonce}"
        );
    }
    assert_eq!(&*peer.stream.names(Kind::Eds), ["a".into()]);
    assert_eq!(peer.stream.standing(Kind::Eds).nack, None);
}

#[test]
fn a_name_that_went_and_came_back_while_a_response_was_under_way_is_answered() {
    for kind in [Kind::Eds, Kind::Rds] {
        let mut peer = Peer::default();
        peer.subscribe(kind, &["a", "b"]);
        peer.set(kind, "a", "1");
        peer.set(kind, "b", "1");
        peer.flush();
        peer.ack(kind, &["a", "b"]);
        let before = peer.last[kind as usize].clone();
        peer.set(kind, "b", "2");
        assert_eq!(peer.flush(), [format!("{kind} b=2")]);
        let under_way = std::mem::replace(&mut peer.last[kind as usize], before);
        peer.subscribe(kind, &["b"]);
        assert_eq!(peer.subscribe(kind, &["a", "b"]).added, ["a".into()], "the client forgot it, and will wait for it");
        peer.set(kind, "a", "1");
        peer.last[kind as usize] = under_way;
        peer.ack(kind, &["a", "b"]);
        assert_eq!(peer.flush(), [format!("{kind} a=1")]);
    }
}

#[test]
fn nonces_are_told_apart_by_type() {
    let mut peer = Peer::default();
    for kind in [Kind::Cds, Kind::Eds] {
        peer.subscribe(kind, &["a"]);
        peer.set(kind, "a", "1");
    }
    peer.flush();
    peer.last.swap(Kind::Cds as usize, Kind::Eds as usize);
    assert_eq!(peer.send(Kind::Cds, &["a"], None).0, Meaning::Stale);
    assert_eq!(peer.send(Kind::Eds, &["a"], None).0, Meaning::Stale);
}

#[test]
fn what_was_refused_is_not_repeated() {
    for kind in Kind::ALL {
        let mut peer = Peer::default();
        peer.subscribe(kind, &["a"]);
        peer.set(kind, "a", "bad");
        peer.flush();
        for _ in 0..100 {
            peer.send(kind, &["a"], Some("no"));
            assert_eq!(peer.flush(), NOTHING);
        }
        peer.set(kind, "a", "bad");
        assert_eq!(peer.flush(), NOTHING);
        assert_eq!(peer.stream.standing(kind).nack.as_deref(), Some("no"));
        peer.set(kind, "a", "good");
        assert_eq!(peer.flush(), [format!("{kind} a=good")]);
        peer.ack(kind, &["a"]);
        assert_eq!(peer.stream.standing(kind).nack, None);
    }
}

#[test]
fn after_a_refusal_the_next_response_is_whole_with_the_last_accepted_of_what_was_refused() {
    let mut peer = Peer::default();
    let names = ["a", "b", "c"];
    peer.subscribe(Kind::Eds, &names);
    for name in names {
        peer.set(Kind::Eds, name, "1");
    }
    peer.flush();
    peer.ack(Kind::Eds, &names);
    peer.set(Kind::Eds, "a", "bad");
    peer.set(Kind::Eds, "b", "2");
    peer.flush();
    peer.nack(Kind::Eds, &names, "resource a: weights of nothing");
    assert_eq!(peer.flush(), NOTHING);
    peer.set(Kind::Eds, "c", "2");
    assert_eq!(peer.flush(), ["EDS a=1 b=2 c=2"]);
    peer.ack(Kind::Eds, &names);
    assert!(peer.stream.standing(Kind::Eds).nack.is_some(), "it still does without the current `a`");
    peer.set(Kind::Eds, "a", "3");
    assert_eq!(peer.flush(), ["EDS a=3"]);
    peer.ack(Kind::Eds, &names);
    assert_eq!(peer.stream.standing(Kind::Eds).nack, None);
}

#[test]
fn a_refusal_that_names_nobody_is_of_all_that_was_new() {
    let mut peer = Peer::default();
    let names = ["a", "b", "c"];
    peer.subscribe(Kind::Cds, &names);
    for name in names {
        peer.set(Kind::Cds, name, "1");
    }
    peer.flush();
    peer.ack(Kind::Cds, &names);
    peer.set(Kind::Cds, "a", "2");
    peer.set(Kind::Cds, "b", "2");
    peer.flush();
    peer.nack(Kind::Cds, &names, "something is wrong");
    peer.set(Kind::Cds, "c", "2");
    assert_eq!(peer.flush(), ["CDS a=1 b=1 c=2"]);
}

#[test]
fn what_was_refused_and_never_accepted_is_left_out() {
    let mut peer = Peer::default();
    peer.subscribe(Kind::Cds, &["a", "b"]);
    peer.set(Kind::Cds, "a", "bad");
    peer.set(Kind::Cds, "b", "1");
    peer.flush();
    peer.nack(Kind::Cds, &["a", "b"], "cluster a: bad");
    peer.set(Kind::Cds, "b", "2");
    assert_eq!(peer.flush(), ["CDS b=2"]);
}

#[test]
fn a_refusal_of_an_older_response_is_still_heard() {
    let mut peer = Peer::default();
    peer.subscribe(Kind::Eds, &["a", "b"]);
    peer.set(Kind::Eds, "a", "bad");
    peer.set(Kind::Eds, "b", "1");
    peer.flush();
    let older = peer.last[Kind::Eds as usize].clone().unwrap();
    peer.set(Kind::Eds, "b", "2");
    assert_eq!(peer.flush(), ["EDS b=2"]);
    let names = ["a".to_owned(), "b".to_owned()];
    let late = Request {
        kind: Kind::Eds,
        version_info: "",
        names: &names,
        nonce: &older.nonce(),
        error: Some("resource a: bad"),
    };
    assert_eq!(peer.stream.request(late, Instant::now()).unwrap().0, Meaning::Stale);
    peer.ack(Kind::Eds, &["a", "b"]);
    peer.set(Kind::Eds, "b", "3");
    assert_eq!(peer.flush(), ["EDS b=3"]);
}

#[test]
fn a_refusal_of_what_is_not_wanted_any_more_blames_nothing_else() {
    let mut peer = Peer::default();
    peer.subscribe(Kind::Cds, &["a", "b"]);
    peer.set(Kind::Cds, "a", "bad");
    peer.set(Kind::Cds, "b", "1");
    let first = peer.stream.flush().remove(0);
    peer.subscribe(Kind::Cds, &["b", "c"]);
    peer.last[Kind::Cds as usize] = Some(first);
    peer.nack(Kind::Cds, &["b", "c"], "cluster a: bad");
    peer.set(Kind::Cds, "c", "1");
    assert_eq!(peer.flush(), ["CDS b=1 c=1"]);
}

#[test]
fn names_are_found_in_the_text_of_a_refusal_only_as_a_whole() {
    assert!(mentions("cluster checkout.shop:8080: bad", "checkout.shop:8080"));
    assert!(mentions("[checkout.shop:8080]", "checkout.shop:8080"));
    assert!(mentions("xds: checkout.shop. Try again", "checkout.shop"));
    assert!(!mentions("cluster checkout.shop:8080: bad", "checkout.shop"));
    assert!(!mentions("cluster checkout.shop:8080: bad", "checkout.shop:80"));
    assert!(!mentions("cluster my-checkout.shop: bad", "checkout.shop"));
    assert!(!mentions("anything", ""));
}

#[test]
fn a_subscription_has_a_limit() {
    let mut stream = Stream::default();
    let names: Vec<String> = (0..=MAX_NAMES).map(|number| format!("s{number}")).collect();
    let request = |names| Request { kind: Kind::Eds, version_info: "", names, nonce: "", error: None };
    assert_eq!(
        stream.request(request(&names), Instant::now()),
        Err(RequestError::TooManyNames { kind: Kind::Eds, names: MAX_NAMES + 1 })
    );
    assert!(stream.request(request(&names[..MAX_NAMES]), Instant::now()).is_ok());
}

#[test]
fn a_subscription_that_grows_before_its_first_answer_is_taken() {
    let mut peer = Peer::default();
    peer.subscribe(Kind::Lds, &["a"]);
    assert_eq!(peer.subscribe(Kind::Lds, &["a", "b"]).added, ["b".into()]);
    peer.set(Kind::Lds, "a", "1");
    peer.set(Kind::Lds, "b", "1");
    assert_eq!(peer.flush(), ["LDS a=1 b=1"]);
}
