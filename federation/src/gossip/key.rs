//! Gossip keys: one fact each, its subject in its name.

use std::fmt;
use std::str::FromStr;

use portolan_topology::names::{ServiceId, ZoneName};

/// What a value is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// Endpoints of a service in a zone (`None`: the source names none).
    Fact(ServiceId, Option<ZoneName>),
    /// A service's ports.
    Ports(ServiceId),
    /// First attempts of the cluster's clients in a zone.
    Demand(ServiceId, Option<ZoneName>),
    /// The cluster itself.
    About,
    /// How many of the above there are, and a hash over them.
    Inventory,
}

/// The text is no key that we know. A newer peer may have more kinds: such keys are left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a known gossip key")]
pub(crate) struct UnknownKey(String);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut by_zone = |kind: &str, service: &ServiceId, zone: &Option<ZoneName>| match zone {
            Some(zone) => write!(f, "{kind}/{service}/{zone}"),
            None => write!(f, "{kind}/{service}"),
        };
        match self {
            Self::Fact(service, zone) => by_zone("fact", service, zone),
            Self::Demand(service, zone) => by_zone("demand", service, zone),
            Self::Ports(service) => write!(f, "ports/{service}"),
            Self::About => f.write_str("about"),
            Self::Inventory => f.write_str("inventory"),
        }
    }
}

impl FromStr for Key {
    type Err = UnknownKey;

    fn from_str(text: &str) -> Result<Self, UnknownKey> {
        let unknown = || UnknownKey(text.to_owned());
        let mut parts = text.split('/');
        let kind = parts.next().unwrap_or_default();
        let service = parts.next().map(|part| part.parse::<ServiceId>().map_err(|_| unknown())).transpose()?;
        let zone = parts.next().map(|part| part.parse::<ZoneName>().map_err(|_| unknown())).transpose()?;
        if parts.next().is_some() {
            return Err(unknown());
        }
        match (kind, service, zone) {
            ("fact", Some(service), zone) => Ok(Self::Fact(service, zone)),
            ("demand", Some(service), zone) => Ok(Self::Demand(service, zone)),
            ("ports", Some(service), None) => Ok(Self::Ports(service)),
            ("about", None, None) => Ok(Self::About),
            ("inventory", None, None) => Ok(Self::Inventory),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip() {
        for text in [
            "fact/checkout.shop/us-east-1a",
            "fact/checkout.shop",
            "demand/a.b/c",
            "demand/a.b",
            "ports/a.b",
            "about",
            "inventory",
        ] {
            assert_eq!(text.parse::<Key>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_unknown() {
        for text in
            ["", "fact", "fact/", "fact/checkout", "fact/a.b/", "fact/a.b/c/d", "ports/a.b/c", "about/a.b", "later/a.b"]
        {
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
    }
}
