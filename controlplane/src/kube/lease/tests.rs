//! Candidates against a model of an API server, in any order of delays and losses; and the edge against one in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::candidate::{Act, Candidate, Record};
use super::{Claim, Lease, Standing, Timing};

/// One look of one candidate: when, and how long the answer, the write and its answer are under way.
#[derive(Debug, Clone)]
struct Look {
    who: usize,
    at: u64,
    read_millis: u64,
    answer_millis: u64,
    write_millis: u64,
    /// `None`: the answer to the write is lost.
    wrote_millis: Option<u64>,
}

fn looks() -> impl Strategy<Value = Vec<Look>> {
    let delay = || prop_oneof![3 => 0..20_u64, 1 => 0..12_000_u64];
    let look = (0..3_usize, 0..90_000_u64, delay(), delay(), delay(), proptest::option::weighted(0.8, delay()));
    let look = look.prop_map(|(who, at, read_millis, answer_millis, write_millis, wrote_millis)| Look {
        who,
        at,
        read_millis,
        answer_millis,
        write_millis,
        wrote_millis,
    });
    proptest::collection::vec(look, 1..120)
}

/// What happens next in the model.
enum Event {
    /// The server reads the object for a look.
    Read(Look),
    /// Its answer arrives.
    Answer(Look, Option<(Record, u64)>),
    /// A write arrives at the server, over the version that was read.
    Write { look: Look, over: Option<u64>, record: Record, sent: u64 },
    /// The answer to a write that was taken arrives.
    Wrote { who: usize, sent: u64 },
}

proptest! {
    /// Nobody holds what somebody else holds, whatever is late or lost.
    #[test]
    fn at_most_one_holds_it(looks in looks()) {
        let timing = Timing::default();
        let start = Instant::now();
        let time = |millis: u64| start + Duration::from_millis(millis);
        let mut candidates: Vec<_> = (0..3).map(|who| Candidate::new(who.to_string(), timing)).collect();
        let mut server: Option<(Record, u64)> = None;
        let (mut writes, mut order) = (0_u64, 0_u64);
        let mut events: BTreeMap<(u64, u64), Event> = BTreeMap::new();
        for look in looks {
            order += 1;
            events.insert((look.at + look.read_millis, order), Event::Read(look));
        }
        while let Some(((now, _), event)) = events.pop_first() {
            order += 1;
            match event {
                Event::Read(look) => {
                    events.insert((now + look.answer_millis, order), Event::Answer(look, server.clone()));
                }
                Event::Answer(look, found) => {
                    let act = candidates[look.who].next(found.as_ref().map(|(record, _)| record), time(now));
                    let transitions = match act {
                        Act::Create => 0,
                        Act::Take { transitions } => transitions,
                        Act::Wait => continue,
                    };
                    let record = Record {
                        holder: Some(look.who.to_string()),
                        duration: timing.duration,
                        transitions,
                        renewed: now.to_string(),
                    };
                    let over = found.map(|(_, version)| version);
                    let arrives = now + look.write_millis;
                    events.insert((arrives, order), Event::Write { look, over, record, sent: now });
                }
                Event::Write { look, over, record, sent } => {
                    if server.as_ref().map(|(_, version)| *version) != over {
                        continue;
                    }
                    writes += 1;
                    server = Some((record, writes));
                    if let Some(wrote_millis) = look.wrote_millis {
                        events.insert((now + wrote_millis, order), Event::Wrote { who: look.who, sent });
                    }
                }
                Event::Wrote { who, sent } => candidates[who].wrote(time(sent)),
            }
            let holders: Vec<_> = (0..3).filter(|who| candidates[*who].holds(time(now))).collect();
            prop_assert!(holders.len() <= 1, "{holders:?} hold it at {now} ms");
        }
    }
}

/// Leases in memory, with the optimistic concurrency of the real one. What a real server does, `cargo kube` shows; this
/// one can be cut off from one of its clients alone, and its time is the test's.
#[derive(Default)]
struct Server {
    object: Option<Value>,
    version: u64,
    cut: Vec<&'static str>,
}

fn client(server: &Arc<Mutex<Server>>, who: &'static str) -> Client {
    let server = server.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = server.clone();
        async move {
            let method = request.method().clone();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            if server.lock().cut.contains(&who) {
                std::future::pending::<()>().await;
            }
            let (code, body) = answer(&mut server.lock(), &method, serde_json::from_slice(&body).ok());
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    Client::new(service, "portolan-system")
}

fn answer(server: &mut Server, method: &Method, body: Option<Value>) -> (StatusCode, Value) {
    let failure = |code: StatusCode, reason: &str| {
        (code, json!({"kind": "Status", "status": "Failure", "reason": reason, "code": code.as_u16()}))
    };
    match (method, body, &server.object) {
        (&Method::GET, _, Some(object)) => (StatusCode::OK, object.clone()),
        (&Method::GET, _, None) => failure(StatusCode::NOT_FOUND, "NotFound"),
        (&Method::POST, Some(_), Some(_)) => failure(StatusCode::CONFLICT, "Conflict"),
        (&Method::PUT, Some(body), Some(object))
            if body["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] =>
        {
            failure(StatusCode::CONFLICT, "Conflict")
        }
        (_, Some(mut body), _) => {
            server.version += 1;
            body["metadata"]["resourceVersion"] = server.version.to_string().into();
            server.object = Some(body.clone());
            (StatusCode::OK, body)
        }
        (_, None, _) => failure(StatusCode::BAD_REQUEST, "BadRequest"),
    }
}

fn lease(server: &Arc<Mutex<Server>>, who: &'static str) -> Lease {
    let (namespace, name) = ("portolan-system".to_owned(), "portolan".to_owned());
    let claim = Claim { namespace, name, identity: who.to_owned(), timing: Timing::default() };
    Lease::start(client(server, who), claim)
}

async fn until(lease: &Lease, wanted: impl Fn(&Standing) -> bool) -> Standing {
    let mut standing = lease.standing();
    // Of the paused time, which runs for as long as somebody looks at the Lease again.
    let found = tokio::time::timeout(Duration::from_secs(600), standing.wait_for(|standing| wanted(standing))).await;
    found.unwrap_or_else(|_| panic!("{:?}", lease.standing().borrow())).unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn one_holds_it_and_the_other_says_who() {
    let server = Arc::new(Mutex::new(Server::default()));
    let first = lease(&server, "one");
    until(&first, |standing| standing.mine).await;
    let second = lease(&server, "two");
    let seen = until(&second, |standing| standing.holder.is_some()).await;
    assert_eq!((seen.mine, seen.holder.as_deref()), (false, Some("one")));
    // Many renewals later it is still the first's.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(first.standing().borrow().mine && !second.standing().borrow().mine);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_cut_off_stops_before_another_begins() {
    let server = Arc::new(Mutex::new(Server::default()));
    let first = lease(&server, "one");
    until(&first, |standing| standing.mine).await;
    let second = lease(&server, "two");
    until(&second, |standing| standing.holder.is_some()).await;
    server.lock().cut.push("one");
    let cut = Instant::now();
    until(&first, |standing| !standing.mine).await;
    assert!(!second.standing().borrow().mine);
    let taken = until(&second, |standing| standing.mine).await;
    assert_eq!(taken.transitions, 1);
    assert!(cut.elapsed() <= Duration::from_secs(15), "taken over after {:?}", cut.elapsed());
    // Back again, the first sees whose it is.
    server.lock().cut.clear();
    let seen = until(&first, |standing| standing.holder.as_deref() == Some("two")).await;
    assert!(!seen.mine);
}

#[tokio::test(start_paused = true)]
async fn what_is_released_is_taken_at_the_next_look() {
    let server = Arc::new(Mutex::new(Server::default()));
    let first = lease(&server, "one");
    until(&first, |standing| standing.mine).await;
    let second = lease(&server, "two");
    until(&second, |standing| standing.holder.is_some()).await;
    first.release().await;
    let released = Instant::now();
    until(&second, |standing| standing.mine).await;
    assert!(released.elapsed() <= Timing::default().interval, "{:?}", released.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_else_wrote_badly_is_waited_for_and_taken() {
    let server = Arc::new(Mutex::new(Server::default()));
    let spec = json!({"holderIdentity": "a stranger", "leaseDurationSeconds": -5, "leaseTransitions": -1});
    answer(&mut server.lock(), &Method::POST, Some(json!({"metadata": {"name": "portolan"}, "spec": spec})));
    let lease = lease(&server, "one");
    let began = Instant::now();
    until(&lease, |standing| standing.mine).await;
    assert!(began.elapsed() >= Timing::default().duration, "{:?}", began.elapsed());
}
