//! Gossip values: their place in the order of things, and their form on the wire.
//!
//! chitchat's values are text, ours are protobuf: each byte stands as the character with its number. Gossip is
//! compressed, so that this costs little.

use portolan_topology::names::ServiceId;
use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use super::key::Key;
use crate::proto;
use crate::proto::value::Body;

/// The format that we write, and the newest that we read.
pub(crate) const FORMAT: u32 = 1;
/// The longest value. Above some 64 KB one never replicates, and holds up every later key of its node.
pub(crate) const MAX_LEN: usize = 8 * 1024;

/// How new a value is: the publisher's epoch, then its sequence within. Never compared with a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub(crate) struct Version {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
}

/// Why a value is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    #[error("the value of `{key}` has {len} bytes; at most {MAX_LEN} can be gossiped")]
    TooLong { key: String, len: usize },
    #[error("the value is malformed: {0}")]
    Malformed(String),
    #[error("the value has format {0}; this version reads up to {FORMAT}")]
    Newer(u32),
}

/// A value as it is gossiped. Both directions check the size.
pub(crate) fn encode(key: &Key, value: &proto::Value) -> Result<String, ValueError> {
    let bytes = value.encode_to_vec();
    if bytes.len() > MAX_LEN {
        return Err(ValueError::TooLong { key: key.to_string(), len: bytes.len() });
    }
    Ok(bytes.into_iter().map(char::from).collect())
}

/// The bytes that a gossiped text stands for.
pub(crate) fn bytes(text: &str) -> Result<Vec<u8>, ValueError> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)))
        .collect::<Result<_, _>>()
        .map_err(|_| ValueError::Malformed("a character stands for no byte".to_owned()))
}

/// Reads a value.
pub(crate) fn decode(bytes: &[u8]) -> Result<proto::Value, ValueError> {
    let value = proto::Value::decode(bytes).map_err(|error| ValueError::Malformed(error.to_string()))?;
    match value.format {
        FORMAT if value.publisher.is_some() => Ok(value),
        FORMAT => Err(ValueError::Malformed("it has no publisher".to_owned())),
        newer => Err(ValueError::Newer(newer)),
    }
}

/// A value's place in the order.
pub(crate) fn version(value: &proto::Value) -> Version {
    Version { epoch: value.publisher.as_ref().map_or(0, |publisher| publisher.epoch), sequence: value.sequence }
}

/// What an inventory says: the number of facts that are not removed, and the wrapping sum of their hashes. The sum
/// does not depend on order, and follows a change without a look at the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sum {
    pub(crate) count: u64,
    hash: u64,
}

impl Sum {
    pub(crate) fn add(&mut self, key: &Key, sequence: u64) {
        self.count += 1;
        self.hash = self.hash.wrapping_add(hash(key, sequence));
    }

    pub(crate) fn remove(&mut self, key: &Key, sequence: u64) {
        self.count = self.count.saturating_sub(1);
        self.hash = self.hash.wrapping_sub(hash(key, sequence));
    }

    pub(crate) fn to_inventory(self) -> Body {
        Body::Inventory(proto::Inventory { count: self.count, hash: self.hash })
    }

    pub(crate) fn of_inventory(inventory: &proto::Inventory) -> Self {
        Self { count: inventory.count, hash: inventory.hash }
    }
}

fn hash(key: &Key, sequence: u64) -> u64 {
    xxh3_64(format!("{key}@{sequence}").as_bytes())
}

/// What the facts of one service come to: the newest version among its live ones and the endpoints that they count.
/// An endpoint list is believed whole if it says the same of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ServiceStamp {
    pub(crate) version: Version,
    pub(crate) count: u64,
}

impl ServiceStamp {
    /// Takes one more fact of the service into account.
    pub(crate) fn add(&mut self, version: Version, total: u32) {
        self.version = self.version.max(version);
        self.count += u64::from(total);
    }
}

/// The service that a fact is about.
pub(crate) fn service_of_fact(key: &Key) -> Option<&ServiceId> {
    match key {
        Key::Fact(service, _) => Some(service),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(body: Body) -> proto::Value {
        proto::Value {
            format: FORMAT,
            publisher: Some(proto::Publisher { epoch: 3, incarnation: u64::MAX }),
            sequence: 9,
            body: Some(body),
            signature: bytes::Bytes::new(),
        }
    }

    #[test]
    fn values_round_trip() {
        let value = value(Body::Demand(proto::Demand { requests_per_second: 812.5 }));
        let text = encode(&Key::About, &value).unwrap();
        assert_eq!(decode(&bytes(&text).unwrap()).unwrap(), value);
    }

    #[test]
    fn a_value_that_would_never_replicate_is_refused() {
        let port = |n| proto::Port { number: n, name: Some("a-name-of-some-length".into()) };
        let value = value(Body::Ports(proto::Ports { ports: (0..1000).map(port).collect(), export: None }));
        let error = encode(&Key::About, &value).unwrap_err();
        assert!(matches!(error, ValueError::TooLong { len, .. } if len > MAX_LEN), "{error}");
    }

    #[test]
    fn a_newer_format_is_left_alone() {
        let newer = proto::Value { format: FORMAT + 1, ..value(Body::Removed(proto::Removed {})) };
        assert_eq!(decode(&newer.encode_to_vec()), Err(ValueError::Newer(FORMAT + 1)));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            if let Ok(bytes) = bytes(&text) {
                let _ = decode(&bytes);
            }
        }

        #[test]
        fn a_sum_forgets_what_is_taken_out(sequences in proptest::collection::vec(0u64..9, 0..20)) {
            let mut sum = Sum::default();
            for sequence in &sequences { sum.add(&Key::About, *sequence); }
            for sequence in sequences.iter().rev() { sum.remove(&Key::About, *sequence); }
            prop_assert_eq!(sum, Sum::default());
        }
    }
}
