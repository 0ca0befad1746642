//! The four kinds of resources: decoded and validated as gRPC does it, into no more than a balancer needs.
//!
//! A field that gRPC's clients ignore is ignored here. A field that they obey and we do not yet is refused as "not
//! supported yet", so that the control plane hears of it. Nothing here keeps state.

mod balancing;
pub mod cluster;
pub mod endpoints;
pub mod listener;
mod outliers;
pub mod route;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{ConfigSource, config_source::ConfigSourceSpecifier};
use envoy_types::pb::envoy::service::discovery::v3::Resource;
use envoy_types::pb::google::protobuf::{Any, Duration as ProtoDuration};
use prost::Message;

use cluster::Cluster;
use endpoints::Endpoints;
use listener::Listener;
use route::RouteConfig;

/// A kind of resource. The order is the one in which they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// LDS.
    Listener,
    /// RDS.
    RouteConfiguration,
    /// CDS.
    Cluster,
    /// EDS.
    ClusterLoadAssignment,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Listener, Self::RouteConfiguration, Self::Cluster, Self::ClusterLoadAssignment];

    /// The type URL of its resources.
    #[must_use]
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::RouteConfiguration => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::ClusterLoadAssignment => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        }
    }

    /// The kind with this type URL.
    #[must_use]
    pub fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// Whether a response holds everything that is subscribed, so that what is left out is gone (LDS and CDS).
    #[must_use]
    pub const fn is_complete_in_sotw(self) -> bool {
        matches!(self, Self::Listener | Self::Cluster)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listener => "Listener",
            Self::RouteConfiguration => "RouteConfiguration",
            Self::Cluster => "Cluster",
            Self::ClusterLoadAssignment => "ClusterLoadAssignment",
        })
    }
}

/// A valid resource.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// LDS.
    Listener(Arc<Listener>),
    /// RDS.
    RouteConfiguration(Arc<RouteConfig>),
    /// CDS.
    Cluster(Arc<Cluster>),
    /// EDS.
    ClusterLoadAssignment(Arc<Endpoints>),
}

/// What is wrong with a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field:{field} error:{problem}")]
pub struct Invalid {
    /// The field's path.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Invalid {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// The same, below `field`.
    pub(crate) fn below(self, field: impl fmt::Display) -> Self {
        let field = if self.field.is_empty() { field.to_string() } else { format!("{field}.{}", self.field) };
        Self { field, ..self }
    }
}

const WRAPPER: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// Takes a resource out of its `Resource` wrapper, if it stands in one. Wrappers do not nest.
pub fn unwrap(any: Any) -> Result<Any, Invalid> {
    if any.type_url != WRAPPER {
        return Ok(any);
    }
    let wrapper: Resource = parse("", &any.value)?;
    wrapper.resource.ok_or_else(|| Invalid::new("resource", "the Resource wrapper is empty"))
}

/// The name of a resource and, if it is valid, its content.
pub type Named = (String, Result<Decoded, Invalid>);

/// Decodes an unwrapped resource, of which a [`Kind`] is expected. An error means that not even its name is known.
pub fn decode(kind: Kind, any: &Any) -> Result<Named, Invalid> {
    if any.type_url != kind.type_url() {
        return Err(Invalid::new("type_url", format!("`{}` among resources of {kind}", any.type_url)));
    }
    let (name, content) = match kind {
        Kind::Listener => {
            listener::decode(&any.value).map(|(name, it)| (name, it.map(Arc::new).map(Decoded::Listener)))?
        }
        Kind::RouteConfiguration => {
            route::decode(&any.value).map(|(name, it)| (name, it.map(Arc::new).map(Decoded::RouteConfiguration)))?
        }
        Kind::Cluster => {
            cluster::decode(&any.value).map(|(name, it)| (name, it.map(Arc::new).map(Decoded::Cluster)))?
        }
        Kind::ClusterLoadAssignment => endpoints::decode(&any.value)
            .map(|(name, it)| (name, it.map(Arc::new).map(Decoded::ClusterLoadAssignment)))?,
    };
    if name.is_empty() {
        return Err(Invalid::new("name", "must not be empty"));
    }
    Ok((name, content))
}

/// Parses a message.
fn parse<M: Message + Default>(field: &str, bytes: &[u8]) -> Result<M, Invalid> {
    M::decode(bytes).map_err(|error| Invalid::new(field, format!("cannot be parsed: {error}")))
}

/// Parses what an `Any` of this type holds.
fn parse_any<M: Message + Default>(field: &str, any: &Any, type_url: &str) -> Result<M, Invalid> {
    if any.type_url != type_url {
        return Err(Invalid::new(field, format!("unsupported type `{}`; expected `{type_url}`", any.type_url)));
    }
    parse(field, &any.value)
}

/// A duration that is not negative; protobuf's limit is ten thousand years.
fn duration(field: &str, proto: &ProtoDuration) -> Result<Duration, Invalid> {
    let seconds = u64::try_from(proto.seconds).ok().filter(|seconds| *seconds <= 315_576_000_000);
    let nanos = u32::try_from(proto.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Ok(Duration::new(seconds, nanos)),
        _ => Err(Invalid::new(field, format!("{} s {} ns is not a duration", proto.seconds, proto.nanos))),
    }
}

/// Refuses a configuration source other than this stream.
fn must_be_this_stream(field: &str, source: Option<&ConfigSource>) -> Result<(), Invalid> {
    match source.and_then(|source| source.config_source_specifier.as_ref()) {
        Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)) => Ok(()),
        _ => Err(Invalid::new(field, "must be ads or self")),
    }
}
