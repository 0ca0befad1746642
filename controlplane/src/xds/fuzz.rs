//! Bytes as a hostile client would send them, through the decoders and the state machine of both variants. One entry
//! point for the fuzz target and for a property, so that the one proves that the other still works.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Buf;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use prost::Message;
use tokio::time::Instant;

use super::delta::{self, Delta};
use super::protocol::{Response, Stream};
use super::sotw::{self, StateOfTheWorld};
use super::wire::{self, Wire};
use crate::resources::{Encoded, Kind, Lookup};

/// Drives one stream with `bytes`: the first chooses the variant, the others are steps. Panics where the stream breaks
/// its word: it must take anything, answer in what reads back as it was meant, and have an end of what it says.
pub fn drive(bytes: &[u8]) {
    match bytes.split_first() {
        Some((variant, steps)) if variant % 2 == 0 => run::<StateOfTheWorld>(steps),
        Some((_, steps)) => run::<Delta>(steps),
        None => {}
    }
}

/// What only the variant knows.
trait Fuzzed: Wire {
    /// The answer to a response, with the names that it had.
    fn answer(stream: &mut Stream<Self>, response: &Response, error: Option<&str>);
    /// Reads what was written; gives its nonce and how much is in it.
    fn read_back(bytes: &[u8]) -> (String, usize);
}

impl Fuzzed for StateOfTheWorld {
    fn answer(stream: &mut Stream<Self>, response: &Response, error: Option<&str>) {
        let names: Vec<String> = response.resources.iter().map(|encoded| encoded.name().to_string()).collect();
        let (version_info, nonce) = (response.version.to_string(), response.nonce());
        let request =
            sotw::Request { kind: response.kind, version_info: &version_info, names: &names, nonce: &nonce, error };
        follow(stream, request);
    }

    fn read_back(bytes: &[u8]) -> (String, usize) {
        let read = DiscoveryResponse::decode(bytes).expect("what we write is a response");
        (read.nonce, read.resources.len())
    }
}

impl Fuzzed for Delta {
    fn answer(stream: &mut Stream<Self>, response: &Response, error: Option<&str>) {
        let (nonce, initial_versions) = (response.nonce(), Default::default());
        let request = delta::Request {
            kind: response.kind,
            subscribe: &[],
            unsubscribe: &[],
            initial_versions: &initial_versions,
            nonce: &nonce,
            error,
        };
        follow(stream, request);
    }

    fn read_back(bytes: &[u8]) -> (String, usize) {
        let read = DeltaDiscoveryResponse::decode(bytes).expect("what we write is a response");
        (read.nonce, read.resources.len())
    }
}

fn run<V: Fuzzed>(mut steps: &[u8]) {
    let mut stream = Stream::<V>::default();
    let mut last: Option<Response> = None;
    while steps.remaining() >= 2 {
        let (step, argument) = (steps.get_u8(), steps.get_u8());
        let kind = Kind::ALL[usize::from(argument % 4)];
        match step % 6 {
            0 | 1 => {
                let frame = steps.copy_to_bytes(usize::from(argument).min(steps.remaining()));
                // What does not decode ends the stream.
                let Ok(message) = V::Message::decode(frame) else { return };
                let kind = Kind::of_type_url(V::type_url(&message)).unwrap_or(kind);
                if !follow(&mut stream, V::read(&message, kind)) {
                    return;
                }
            }
            2 => last = flush(&mut stream).pop().or(last),
            3 => {
                if let Some(response) = &last {
                    let error = format!("{}: no", response.nonce());
                    V::answer(&mut stream, response, (argument % 3 == 0).then_some(error.as_str()));
                }
            }
            4 => {
                for name in stream.names(kind) {
                    stream.update(kind, &name, lookup(kind, &name, argument / 4));
                }
            }
            _ => {
                let members: BTreeSet<Arc<str>> = (0..argument / 4 % 4).map(|name| name.to_string().into()).collect();
                let changes = stream.set_members(kind, members);
                for name in changes.added {
                    stream.update(kind, &name, lookup(kind, &name, argument / 4));
                }
            }
        }
    }
    flush(&mut stream);
}

/// Takes a request. Says whether the stream goes on.
fn follow<V: Fuzzed>(stream: &mut Stream<V>, request: V::Request<'_>) -> bool {
    let kind = V::kind(request);
    let Ok((_, changes)) = stream.request(request, Instant::now()) else { return false };
    for name in changes.added {
        let content = name.len();
        stream.update(kind, &name, lookup(kind, &name, u8::try_from(content % 256).unwrap_or_default()));
    }
    true
}

fn lookup(kind: Kind, name: &Arc<str>, content: u8) -> Lookup {
    let encoded = || Encoded::new(kind, name.clone(), &[content]);
    match content % 5 {
        0 => Lookup::Unknown,
        1 => Lookup::Absent((kind != Kind::Cds).then(encoded)),
        _ => Lookup::Present(encoded()),
    }
}

fn flush<V: Fuzzed>(stream: &mut Stream<V>) -> Vec<Response> {
    let responses = stream.flush();
    assert!(responses.len() <= 5, "each type once, and clusters twice");
    assert!(stream.flush().is_empty(), "there is an end of it");
    for response in &responses {
        let mut bytes = Vec::new();
        wire::put::<V>(response, &mut bytes);
        assert_eq!(V::read_back(&bytes), (response.nonce(), response.resources.len()));
    }
    responses
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
    use proptest::prelude::*;

    use super::*;

    /// Frames that read as requests, so that the state machine is reached.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let word =
            || prop::sample::select(vec!["", "a", "b", "*", "0", "CDS-1", "EDS-1", "EDS-2"]).prop_map(str::to_owned);
        let names = move || prop::collection::vec(word(), 0..3);
        (any::<bool>(), word(), names(), names()).prop_map(|(delta, nonce, names, others)| {
            if delta {
                let request = DeltaDiscoveryRequest {
                    resource_names_subscribe: names,
                    resource_names_unsubscribe: others,
                    response_nonce: nonce,
                    ..DeltaDiscoveryRequest::default()
                };
                request.encode_to_vec()
            } else {
                let request =
                    DiscoveryRequest { resource_names: names, response_nonce: nonce, ..DiscoveryRequest::default() };
                request.encode_to_vec()
            }
        })
    }

    fn steps() -> impl Strategy<Value = Vec<u8>> {
        let request = (0..2_u8, frames()).prop_map(|(step, frame)| {
            let length = u8::try_from(frame.len()).unwrap_or(u8::MAX);
            [vec![step, length], frame].concat()
        });
        let other = (2..6_u8, any::<u8>()).prop_map(|(step, argument)| vec![step, argument]);
        let all = prop::collection::vec(prop_oneof![request, other], 0..60);
        (any::<u8>(), all).prop_map(|(variant, steps)| [vec![variant], steps.concat()].concat())
    }

    proptest! {
        #[test]
        fn a_stream_takes_anything(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drive(&bytes);
        }

        #[test]
        fn a_stream_takes_any_order_of_requests_and_changes(bytes in steps()) {
            drive(&bytes);
        }
    }
}
