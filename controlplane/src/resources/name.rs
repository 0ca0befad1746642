//! The names of resources: what clients ask for, and what the resources call each other. The one place that reads and
//! writes them.
//!
//! | text | means |
//! |---|---|
//! | `checkout.shop` | the federated service, its first port |
//! | `checkout.shop:8080`, `checkout.shop:grpc` | the same, a port by number or name |
//! | `checkout.shop.svc.clusterset.local[:port]` | the same, as the Multi-Cluster Services API writes it |
//! | `checkout.shop.svc.cluster.local[:port]` | the endpoints of the client's own cluster alone |
//! | `http1/checkout.shop:8080` | of clusters alone: the same, by HTTP/1.1 |
//! | `no-backend` | of clusters and endpoints alone: nothing; calls that a route refuses go there |
//! | `xdstp://AUTHORITY/TYPE/NAME` | one of the above, asked of an authority of the client's bootstrap |
//!
//! A Listener has the asked name, whatever it is. Routes, clusters and endpoint assignments have the *canonical* form of
//! it, which is one of the forms above with the port's number: `checkout.shop:8080` or
//! `checkout.shop.svc.cluster.local:8080`. So the two do not move when a port is renamed or another becomes the first, the
//! same cluster serves every way of asking for it, and a client may ask for endpoints alone by the name it knows. What is
//! asked of an authority leads to names of the same authority: a client may know it at other servers than its usual ones.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use portolan_topology::names::{Locality, NameError, ServiceId};

use super::Kind;
use crate::catalog::served::{NameScope, PortRef, Query};

const CLUSTER_SUFFIX: &str = ".svc.cluster.local";
const CLUSTERSET_SUFFIX: &str = ".svc.clusterset.local";
const XDSTP: &str = "xdstp://";
const HTTP1: &str = "http1/";

/// The endpoint assignment of a cluster of this name: the same, however the cluster speaks.
#[must_use]
pub fn assignment_of(cluster: Arc<str>) -> Arc<str> {
    cluster.strip_prefix(HTTP1).map_or_else(|| cluster.clone(), Arc::from)
}

/// A cluster without endpoints: what is sent there is refused.
pub(super) const NOWHERE: &str = "no-backend";

/// [`NOWHERE`] as a cluster of `authority` is called.
#[must_use]
pub(super) fn nowhere(authority: Option<&str>) -> String {
    match authority {
        Some(authority) => format!("{XDSTP}{authority}/{}/{NOWHERE}", Kind::Cds.message()),
        None => NOWHERE.to_owned(),
    }
}

/// Whether `asked` is [`NOWHERE`], of some authority or none.
#[must_use]
pub(super) fn is_nowhere(asked: &str, kind: Kind) -> bool {
    let Some(rest) = asked.strip_prefix(XDSTP) else { return asked == NOWHERE };
    rest.split_once('/').is_some_and(|(_, typed)| typed == format!("{}/{NOWHERE}", kind.message()))
}

/// A name, read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResourceName {
    /// The service.
    pub service: ServiceId,
    /// Which of its ports.
    pub port: PortRef,
    /// How far it reaches.
    pub scope: NameScope,
    /// The authority of an `xdstp://` name.
    pub authority: Option<Arc<str>>,
    /// Whether a cluster is meant whose endpoints speak HTTP/1.1; HTTP/2 otherwise.
    pub http1: bool,
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
    /// An `xdstp://` name of another form.
    #[error("`{text}` is not xdstp://AUTHORITY/TYPE/NAME, with a TYPE such as envoy.config.listener.v3.Listener")]
    Xdstp {
        /// The name.
        text: String,
    },
}

impl ResourceName {
    /// The canonical form, once the port's number is known.
    #[must_use]
    pub fn canonical(&self, port: u16) -> ResourceName {
        ResourceName { port: PortRef::Number(port), ..self.clone() }
    }

    /// As a resource of `kind` is called.
    #[must_use]
    pub fn of_kind(&self, kind: Kind) -> String {
        // Endpoints and routes are the same however a cluster speaks.
        let protocol = if self.http1 && kind == Kind::Cds { HTTP1 } else { "" };
        match &self.authority {
            Some(authority) => format!("{XDSTP}{authority}/{}/{protocol}{self}", kind.message()),
            None => format!("{protocol}{self}"),
        }
    }

    /// Whether `asked`, which reads as this name, may name a resource of `kind`: an `xdstp://` name says of which it is.
    #[must_use]
    pub fn may_be_asked_as(&self, asked: &str, kind: Kind) -> bool {
        if self.http1 && kind != Kind::Cds {
            return false;
        }
        let typed = asked.strip_prefix(XDSTP).and_then(|rest| rest.split('/').nth(1));
        typed.is_none_or(|message| message == kind.message())
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
        if let Some(rest) = text.strip_prefix(XDSTP) {
            let malformed = || ResourceNameError::Xdstp { text: text.to_owned() };
            let mut parts = rest.splitn(3, '/');
            let (Some(authority), Some(message), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
                return Err(malformed());
            };
            let known = Kind::OF_SERVICES.into_iter().any(|kind| kind.message() == message);
            if !known || name.starts_with(XDSTP) {
                return Err(malformed());
            }
            return Ok(ResourceName { authority: Some(authority.into()), ..name.parse()? });
        }
        if let Some(rest) = text.strip_prefix(HTTP1).filter(|rest| !rest.contains('/')) {
            return Ok(ResourceName { http1: true, ..rest.parse()? });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, parse_port(port)?),
            None => (text, PortRef::First),
        };
        let (service, scope) = if let Some(service) = host.strip_suffix(CLUSTER_SUFFIX) {
            (service, NameScope::Cluster)
        } else {
            (host.strip_suffix(CLUSTERSET_SUFFIX).unwrap_or(host), NameScope::Federation)
        };
        Ok(ResourceName { service: service.parse()?, port, scope, authority: None, http1: false })
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

/// Without the authority: see [`ResourceName::of_kind`].
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
        let shop = |port, scope| ResourceName {
            service: "checkout.shop".parse().unwrap(),
            port,
            scope,
            authority: None,
            http1: false,
        };
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
    fn a_cluster_by_http1_has_the_endpoints_of_the_other() {
        let name = read("http1/checkout.shop:8080");
        assert_eq!(name.of_kind(Kind::Cds), "http1/checkout.shop:8080");
        assert_eq!(name.of_kind(Kind::Eds), "checkout.shop:8080");
        assert!(name.may_be_asked_as("http1/checkout.shop:8080", Kind::Cds));
        assert!(!name.may_be_asked_as("http1/checkout.shop:8080", Kind::Eds));
        assert!("http1/http1/checkout.shop".parse::<ResourceName>().is_err());
    }

    #[test]
    fn an_authority_stays_with_the_name_and_a_type_with_its_kind() {
        let text = "xdstp://east/envoy.config.listener.v3.Listener/checkout.shop:grpc";
        let name = read(text);
        assert_eq!(name.query(client()).service, "checkout.shop".parse().unwrap());
        let cluster = name.canonical(8080).of_kind(Kind::Cds);
        assert_eq!(cluster, "xdstp://east/envoy.config.cluster.v3.Cluster/checkout.shop:8080");
        assert!(name.may_be_asked_as(text, Kind::Lds) && !name.may_be_asked_as(text, Kind::Cds));
    }

    fn client() -> Locality {
        Locality { region: "us-east".parse().unwrap(), zone: None, cluster: "use1-a".parse().unwrap() }
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
            "xdstp://a/envoy.config.listener.v3.Listener",
            "xdstp://a/envoy.config.listener.v3.Listener/checkout",
            "xdstp://a/envoy.config.listener.v3.Listener/checkout.shop?zone=a",
            "xdstp://a/envoy.config.listener.v3.Listener/xdstp://a/envoy.config.listener.v3.Listener/a.b",
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
        let authority = prop::option::of("[a-z.]{0,8}");
        (label, label, port, scope, authority).prop_map(|(name, namespace, port, scope, authority)| ResourceName {
            service: ServiceId::new(name, namespace).unwrap(),
            port,
            scope,
            authority: authority.map(Arc::from),
            http1: false,
        })
    }

    proptest! {
        #[test]
        fn a_name_reads_back_as_itself(name in names()) {
            for kind in Kind::OF_SERVICES {
                let text = name.of_kind(kind);
                prop_assert!(name.may_be_asked_as(&text, kind));
                prop_assert_eq!(&read(&text), &name);
            }
        }

        #[test]
        fn two_ports_never_share_a_canonical_name(a in names(), b in names(), x in 1..=u16::MAX, y in 1..=u16::MAX) {
            let (a, b) = (a.canonical(x), b.canonical(y));
            prop_assert_eq!(a == b, a.of_kind(Kind::Cds) == b.of_kind(Kind::Cds));
        }

        #[test]
        fn reading_never_panics(text in "\\PC*") {
            let _ = text.parse::<ResourceName>();
        }
    }
}
