//! The names that every part of Portolan shares: regions, zones, clusters, services and localities.
//!
//! A name is checked once, where it enters, and is cheap to clone from then on.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is not a DNS label or subdomain.
    #[error("`{text}` is not a {kind} name: {why}")]
    Malformed {
        /// What the text was meant to name, such as `region`.
        kind: &'static str,
        /// The text as given.
        text: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// A service was not written as `service.namespace`.
    #[error("`{text}` is not a service: expected SERVICE.NAMESPACE, such as `checkout.shop`")]
    NotAService {
        /// The text as given.
        text: String,
    },
}

pub(crate) fn check_label(kind: &'static str, text: &str) -> Result<(), NameError> {
    let malformed = |why| Err(NameError::Malformed { kind, text: text.to_owned(), why });
    if text.is_empty() {
        return malformed("it is empty");
    }
    if text.len() > 63 {
        return malformed("it is longer than 63 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return malformed("only lower-case letters, digits and `-` may stand in it");
    }
    if text.starts_with('-') || text.ends_with('-') {
        return malformed("it begins or ends with `-`");
    }
    Ok(())
}

/// Checks a name of labels with dots between them, such as `shop.example`.
pub(crate) fn check_subdomain(kind: &'static str, text: &str) -> Result<(), NameError> {
    if text.len() > 253 {
        return Err(NameError::Malformed { kind, text: text.to_owned(), why: "it is longer than 253 characters" });
    }
    text.split('.').try_for_each(|label| check_label(kind, label))
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` as a DNS label.
            pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
                check_label($kind, text.as_ref())?;
                Ok(Self(Arc::from(text.as_ref())))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}

label!(
    /// A region of the topology file, such as `us-east`.
    RegionName, "region"
);
label!(
    /// A zone, unique in the whole topology, such as `us-east-1a`.
    ZoneName, "zone"
);
label!(
    /// A Kubernetes cluster, such as `use1-a`.
    ClusterName, "cluster"
);
label!(
    /// A network: clusters on one network reach each other's pods directly.
    NetworkName, "network"
);
label!(
    /// A control-plane process of a cluster, such as `portolan-0`.
    NodeName, "node"
);

impl NetworkName {
    /// The network of clusters that name none.
    #[must_use]
    pub fn default_network() -> Self {
        Self(Arc::from("default"))
    }
}

/// A service, the same in all clusters: `checkout.shop` is the Service `checkout` of namespace `shop`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceId {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl ServiceId {
    /// Checks both parts as DNS labels.
    pub fn new(name: impl AsRef<str>, namespace: impl AsRef<str>) -> Result<Self, NameError> {
        check_label("service", name.as_ref())?;
        check_label("namespace", namespace.as_ref())?;
        Ok(Self { name: Arc::from(name.as_ref()), namespace: Arc::from(namespace.as_ref()) })
    }

    /// The Service's own name, `checkout`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace, `shop`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.name, self.namespace))
    }
}

impl fmt::Debug for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}.{}\"", self.name, self.namespace)
    }
}

impl FromStr for ServiceId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('.') {
            Some((name, namespace)) if !namespace.contains('.') => Self::new(name, namespace),
            _ => Err(NameError::NotAService { text: text.to_owned() }),
        }
    }
}

impl TryFrom<String> for ServiceId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ServiceId> for String {
    fn from(service: ServiceId) -> String {
        service.to_string()
    }
}

/// One port of a service: what an endpoint list is made for. Written `checkout.shop:8080`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ServicePort {
    /// The service.
    pub service: ServiceId,
    /// The Service's port number (not the pods' target port).
    pub port: u16,
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

impl FromStr for ServicePort {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let not_a_service = || NameError::NotAService { text: text.to_owned() };
        let (service, port) = text.rsplit_once(':').ok_or_else(not_a_service)?;
        Ok(Self { service: service.parse()?, port: port.parse().map_err(|_| not_a_service())? })
    }
}

/// Where endpoints or clients are. Its xDS form is (region, zone, `sub_zone` = cluster): two clusters may share a zone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Locality {
    /// The region.
    pub region: RegionName,
    /// The zone; `None` for a cluster reached through its gateways, and for endpoints whose zone nobody knows.
    pub zone: Option<ZoneName>,
    /// The cluster.
    pub cluster: ClusterName,
}

impl fmt::Display for Locality {
    /// `us-east-1a/use1-a`, or `us-east/use1-a` where the zone is not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.zone.as_ref().map_or(self.region.as_str(), ZoneName::as_str);
        f.pad(&format!("{place}/{}", self.cluster))
    }
}

impl fmt::Debug for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
