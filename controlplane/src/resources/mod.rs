//! The xDS resources that a service comes to: built from what the catalog serves, by kind of client, and encoded once.
//!
//! Everything but [`cache`] is a function of its arguments. Nothing here knows of streams, subscriptions or nonces.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::google::protobuf::Any;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

pub mod build;
pub mod cache;
pub mod class;
mod cluster;
mod endpoints;
#[cfg(test)]
pub(crate) mod fixtures;
mod listener;
pub mod name;
mod route;
mod server;
#[cfg(test)]
mod tests;

/// The four kinds of resource, in the order in which a change goes out: a route must not name a cluster before the
/// cluster and its endpoints are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    /// Cluster.
    Cds,
    /// ClusterLoadAssignment.
    Eds,
    /// Listener.
    Lds,
    /// RouteConfiguration.
    Rds,
}

impl Kind {
    /// All, in sending order.
    pub const ALL: [Kind; 4] = [Kind::Cds, Kind::Eds, Kind::Lds, Kind::Rds];

    /// The type URL of its resources.
    #[must_use]
    pub fn type_url(self) -> &'static str {
        match self {
            Kind::Cds => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Kind::Eds => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
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

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Cds => "CDS",
            Kind::Eds => "EDS",
            Kind::Lds => "LDS",
            Kind::Rds => "RDS",
        })
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

/// A resource in its wire form. Clones share the bytes.
#[derive(Debug, Clone)]
pub struct Encoded(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    name: Arc<str>,
    version: Version,
    bytes: Bytes,
}

impl Encoded {
    /// Wraps the encoded message `bytes` of the resource `name`.
    #[must_use]
    pub fn new(kind: Kind, name: Arc<str>, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(Arc::new(Inner { kind, name, version: Version(xxh3_64(&bytes)), bytes }))
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

    /// It as a message for a response.
    #[must_use]
    pub fn to_any(&self) -> Any {
        Any { type_url: self.0.kind.type_url().to_owned(), value: self.0.bytes.to_vec() }
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
    /// Known not to exist.
    Absent,
    /// Here it is.
    Present(Encoded),
}
