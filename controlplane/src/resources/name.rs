//! The names of resources: what clients ask for, and what the resources call each other. The one place that reads and
//! writes them.
//!
//! | text | means |
//! |---|---|
//! | `checkout.shop` | the federated service, its first port |
//! | `checkout.shop:8080`, `checkout.shop:grpc` | the same, a port by number or name |
//! | `checkout.shop.svc.clusterset.local[:port]` | the same, as the Multi-Cluster Services API writes it |
//! | `checkout.shop.svc.cluster.local[:port]` | the endpoints of the client's own cluster alone |
//!
//! A Listener has the asked name, whatever it is. Routes, clusters and endpoint assignments have the *canonical* form of
//! it, which is one of the forms above with the port's number: `checkout.shop:8080` or
//! `checkout.shop.svc.cluster.local:8080`. So the two do not move when a port is renamed or another becomes the first, the
//! same cluster serves every way of asking for it, and a client may ask for endpoints alone by the name it knows.

use std::fmt;
use std::str::FromStr;

use portolan_topology::names::{Locality, NameError, ServiceId};

use crate::catalog::served::{NameScope, PortRef, Query};

const CLUSTER_SUFFIX: &str = ".svc.cluster.local";
const CLUSTERSET_SUFFIX: &str = ".svc.clusterset.local";

/// A name, read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResourceName {
    /// The service.
    pub service: ServiceId,
    /// Which of its ports.
    pub port: PortRef,
    /// How far it reaches.
    pub scope: NameScope,
}

/// Why a text names nothing that could be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceNameError {
    /// The part before the port.
    #[error(transparent)]
    Service(#[from] NameError),
    /// The part after the colon.
    #[error("`{text}` is not a port: expected a number from 1 to 65535 or a port's name")]
    Port {
        /// The text after the colon.
        text: String,
    },
}

impl ResourceName {
    /// The canonical form, once the port's number is known.
    #[must_use]
    pub fn canonical(&self, port: u16) -> ResourceName {
        ResourceName { port: PortRef::Number(port), ..self.clone() }
    }

    /// What to ask the catalog for a client at `client`.
    #[must_use]
    pub fn query(&self, client: Locality) -> Query {
        Query { service: self.service.clone(), port: self.port.clone(), scope: self.scope, client }
    }
}

impl FromStr for ResourceName {
    type Err = ResourceNameError;

    fn from_str(text: &str) -> Result<Self, ResourceNameError> {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, parse_port(port)?),
            None => (text, PortRef::First),
        };
        let (service, scope) = if let Some(service) = host.strip_suffix(CLUSTER_SUFFIX) {
            (service, NameScope::Cluster)
        } else {
            (host.strip_suffix(CLUSTERSET_SUFFIX).unwrap_or(host), NameScope::Federation)
        };
        Ok(ResourceName { service: service.parse()?, port, scope })
    }
}

/// A port's name has a letter (an IANA service name), so that it is never taken for a number.
fn parse_port(text: &str) -> Result<PortRef, ResourceNameError> {
    let malformed = || ResourceNameError::Port { text: text.to_owned() };
    if text.bytes().all(|b| b.is_ascii_digit()) {
        // A leading zero would make two names of one port.
        return match text.parse() {
            Ok(number) if number > 0 && !text.starts_with('0') => Ok(PortRef::Number(number)),
            _ => Err(malformed()),
        };
    }
    let well_formed = text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if well_formed { Ok(PortRef::Name(text.to_owned())) } else { Err(malformed()) }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.service)?;
        if self.scope == NameScope::Cluster {
            f.write_str(CLUSTER_SUFFIX)?;
        }
        match &self.port {
            PortRef::First => Ok(()),
            PortRef::Number(number) => write!(f, ":{number}"),
            PortRef::Name(name) => write!(f, ":{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> ResourceName {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_that_a_client_may_write() {
        let shop = |port, scope| ResourceName { service: "checkout.shop".parse().unwrap(), port, scope };
        for (text, port, scope) in [
            ("checkout.shop", PortRef::First, NameScope::Federation),
            ("checkout.shop:8080", PortRef::Number(8080), NameScope::Federation),
            ("checkout.shop:grpc", PortRef::Name("grpc".into()), NameScope::Federation),
            ("checkout.shop.svc.clusterset.local", PortRef::First, NameScope::Federation),
            ("checkout.shop.svc.clusterset.local:8080", PortRef::Number(8080), NameScope::Federation),
            ("checkout.shop.svc.cluster.local", PortRef::First, NameScope::Cluster),
            ("checkout.shop.svc.cluster.local:grpc-2", PortRef::Name("grpc-2".into()), NameScope::Cluster),
        ] {
            assert_eq!(read(text), shop(port, scope), "{text}");
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for text in [
            "",
            "checkout",
            "checkout.shop:",
            "checkout.shop:0",
            "checkout.shop:080",
            "checkout.shop:65536",
            "checkout.shop:8080:1",
            "checkout.shop:-grpc",
            "Checkout.shop",
            "checkout.shop.example.com",
            "checkout.shop.svc.cluster.local.",
            ".svc.cluster.local",
            "grpc/server?xds.resource.listening_address=0.0.0.0:50051",
            "xdstp://a/b/c",
            "*",
            "\u{0}",
        ] {
            assert!(text.parse::<ResourceName>().is_err(), "{text:?}");
        }
    }

    fn names() -> impl Strategy<Value = ResourceName> {
        let label = "[a-z]([a-z0-9-]{0,8}[a-z0-9])?";
        let port = prop_oneof![
            Just(PortRef::First),
            (1..=u16::MAX).prop_map(PortRef::Number),
            "[a-z]([a-z0-9-]{0,8}[a-z0-9])?".prop_map(PortRef::Name),
        ];
        let scope = prop_oneof![Just(NameScope::Federation), Just(NameScope::Cluster)];
        (label, label, port, scope).prop_map(|(name, namespace, port, scope)| ResourceName {
            service: ServiceId::new(name, namespace).unwrap(),
            port,
            scope,
        })
    }

    proptest! {
        #[test]
        fn a_name_reads_back_as_itself(name in names()) {
            prop_assert_eq!(read(&name.to_string()), name);
        }

        #[test]
        fn two_ports_never_share_a_canonical_name(a in names(), b in names(), x in 1..=u16::MAX, y in 1..=u16::MAX) {
            let (a, b) = (a.canonical(x), b.canonical(y));
            prop_assert_eq!(a == b, a.to_string() == b.to_string());
        }

        #[test]
        fn reading_never_panics(text in "\\PC*") {
            let _ = text.parse::<ResourceName>();
        }
    }
}
