//! The xDS resources that a service comes to: built from what the catalog serves, by kind of client, and encoded once.
//!
//! Everything but [`cache`] is a function of its arguments. Nothing here knows of streams, subscriptions or nonces.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

mod balancing;
pub mod build;
pub mod cache;
#[cfg(test)]
mod cache_tests;
pub mod class;
mod cluster;
mod endpoints;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod gateway;
mod listener;
mod matching;
pub mod name;
mod retry;
mod route;
mod server;
mod service_routes;
#[cfg(test)]
mod service_routes_tests;
mod shard;
#[cfg(test)]
mod tests;

/// The kinds of resource, in the order in which a change goes out: a route must not name a cluster before the
/// cluster and its endpoints are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    /// Cluster.
    Cds,
    /// ClusterLoadAssignment.
    Eds,
    /// Secret.
    Sds,
    /// Listener.
    Lds,
    /// RouteConfiguration.
    Rds,
}

impl Kind {
    /// All, in sending order.
    pub const ALL: [Kind; 5] = [Kind::Cds, Kind::Eds, Kind::Sds, Kind::Lds, Kind::Rds];

    /// Those that a service comes to.
    pub const OF_SERVICES: [Kind; 4] = [Kind::Cds, Kind::Eds, Kind::Lds, Kind::Rds];

    /// The type URL of its resources.
    #[must_use]
    pub fn type_url(self) -> &'static str {
        match self {
            Kind::Cds => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Kind::Eds => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Kind::Sds => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Kind::Lds => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Kind::Rds => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The message's name: the type URL without its host.
    #[must_use]
    pub fn message(self) -> &'static str {
        self.type_url().rsplit('/').next().unwrap_or_default()
    }

    /// The kind of a type URL; `None` for what Portolan does not serve.
    #[must_use]
    pub fn of_type_url(url: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// Whether a response gives the whole subscription, so that leaving a resource out deletes it.
    #[must_use]
    pub fn is_complete(self) -> bool {
        matches!(self, Kind::Cds | Kind::Lds)
    }
}

impl Kind {
    /// How people call it.
    #[must_use]
    pub fn acronym(self) -> &'static str {
        match self {
            Kind::Cds => "CDS",
            Kind::Eds => "EDS",
            Kind::Sds => "SDS",
            Kind::Lds => "LDS",
            Kind::Rds => "RDS",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.acronym())
    }
}

/// The version of a resource: a hash of its bytes, so that it is the same on every control plane and after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for Version {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// A resource in its wire form. Clones share the bytes.
#[derive(Debug, Clone)]
pub struct Encoded(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    name: Arc<str>,
    version: Version,
    /// See [`Encoded::field`].
    field: Bytes,
    /// The resource itself, at the end of `field`.
    bytes: Bytes,
}

/// The number of `type_url` in an `Any`, of `value` in it, and of the `Any` in what carries it: a `DiscoveryResponse` of
/// the state of the world, and a `Resource` of a delta response.
const TYPE_URL: u32 = 1;
const VALUE: u32 = 2;
const ANY: u32 = 2;

impl Encoded {
    /// Wraps the encoded message `bytes` of the resource `name`.
    #[must_use]
    pub fn new(kind: Kind, name: Arc<str>, bytes: &[u8]) -> Self {
        let url = kind.type_url();
        // Every key here is one byte.
        let any_len = 1 + encoded_len_varint(url.len() as u64) + url.len() + 1 + encoded_len_varint(bytes.len() as u64);
        let any_len = any_len + bytes.len();
        let mut field = Vec::with_capacity(1 + encoded_len_varint(any_len as u64) + any_len);
        encode_key(ANY, WireType::LengthDelimited, &mut field);
        encode_varint(any_len as u64, &mut field);
        encode_key(TYPE_URL, WireType::LengthDelimited, &mut field);
        encode_varint(url.len() as u64, &mut field);
        field.extend_from_slice(url.as_bytes());
        encode_key(VALUE, WireType::LengthDelimited, &mut field);
        encode_varint(bytes.len() as u64, &mut field);
        field.extend_from_slice(bytes);
        let field = Bytes::from(field);
        let version = Version(xxh3_64(bytes));
        let bytes = field.slice(field.len() - bytes.len()..);
        Self(Arc::new(Inner { kind, name, version, field, bytes }))
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The name under which it was asked for.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// The encoded message, without the `Any` around it.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// The encoded message in its `Any`, as the field 2 of whatever carries it: ready to be written into a response of
    /// the state of the world, or into a `Resource` of a delta response.
    #[must_use]
    pub fn field(&self) -> &Bytes {
        &self.0.field
    }
}

impl PartialEq for Encoded {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.kind == other.0.kind
                && self.0.version == other.0.version
                && self.0.name == other.0.name
                && self.0.bytes == other.0.bytes)
    }
}

/// What can be said of a resource now.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// Neither that it exists nor that it does not: left unanswered, and nothing that a client holds goes.
    Unknown,
    /// Known not to exist. Whoever cannot be told so is sent what stands for that, if anything does.
    Absent(Option<Encoded>),
    /// Here it is.
    Present(Encoded),
}
