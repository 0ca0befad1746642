//! Who a peer is: SPIFFE ids, as they stand in the URI names of certificates. No I/O and no trust decision: a name is
//! worth what the certificate's chain is worth, and that is checked elsewhere.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use portolan_topology::names::ClusterName;
use x509_parser::extensions::{GeneralName, ParsedExtension};

const SCHEME: &str = "spiffe://";

/// Why a certificate or text gives no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The certificate cannot be parsed.
    #[error("the certificate is malformed")]
    MalformedCertificate,
    /// SPIFFE wants exactly one URI name.
    #[error(
        "the certificate has {found} SPIFFE ids among its URI names; expected one, such as spiffe://DOMAIN/cluster/NAME"
    )]
    NotOneId {
        /// How many there are.
        found: usize,
    },
    /// The text is no SPIFFE id.
    #[error("`{text}` is not a SPIFFE id: {why}")]
    Malformed {
        /// The text.
        text: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// It is well formed, but not the one that belongs here.
    #[error("the certificate is for {found}; expected {expected}")]
    Other {
        /// Whose certificate it is.
        found: SpiffeId,
        /// Whose it had to be.
        expected: SpiffeId,
    },
    /// It names no cluster of our trust domain.
    #[error("the certificate is for {found}; expected a cluster, spiffe://{trust_domain}/cluster/NAME")]
    NotACluster {
        /// Whose certificate it is.
        found: SpiffeId,
        /// Our trust domain.
        trust_domain: String,
    },
}

/// A SPIFFE id: `spiffe://TRUST-DOMAIN/PATH`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: Arc<str>,
    path: Arc<str>,
}

impl SpiffeId {
    /// The id of a cluster's control planes: `spiffe://TRUST-DOMAIN/cluster/NAME`.
    pub fn of_cluster(trust_domain: &str, cluster: &ClusterName) -> Result<Self, IdentityError> {
        format!("{SCHEME}{trust_domain}/cluster/{cluster}").parse()
    }

    /// The trust domain, as given.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The path, with its leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The cluster that it names within `trust_domain`.
    #[must_use]
    pub fn cluster(&self, trust_domain: &str) -> Option<ClusterName> {
        if *self.trust_domain != *trust_domain {
            return None;
        }
        ClusterName::new(self.path.strip_prefix("/cluster/")?).ok()
    }

    /// The one id in the URI names of a certificate (DER).
    pub fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (rest, certificate) =
            x509_parser::parse_x509_certificate(der).map_err(|_| IdentityError::MalformedCertificate)?;
        if !rest.is_empty() {
            return Err(IdentityError::MalformedCertificate);
        }
        let mut ids = Vec::new();
        for extension in certificate.extensions() {
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { continue };
            for name in &names.general_names {
                if let GeneralName::URI(uri) = name
                    && uri.starts_with(SCHEME)
                {
                    ids.push(*uri);
                }
            }
        }
        match ids.as_slice() {
            [id] => id.parse(),
            _ => Err(IdentityError::NotOneId { found: ids.len() }),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let malformed = |why| IdentityError::Malformed { text: text.to_owned(), why };
        // SPIFFE-ID, section 2: at most 2048 bytes; the trust domain has 1 to 255 of [a-z0-9.-_].
        if text.len() > 2048 {
            return Err(malformed("it is longer than 2048 bytes"));
        }
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| malformed("it does not begin with spiffe://"))?;
        let (trust_domain, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let sound = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if trust_domain.is_empty() || trust_domain.len() > 255 || !trust_domain.bytes().all(sound) {
            return Err(malformed("its trust domain has 1 to 255 lower-case letters, digits, `.`, `-` and `_`"));
        }
        let segment_is_sound = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        if !path.is_empty() && !path.split('/').skip(1).all(segment_is_sound) {
            return Err(malformed("its path has segments of letters, digits, `.`, `-` and `_`"));
        }
        Ok(Self { trust_domain: Arc::from(trust_domain), path: Arc::from(path) })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{SCHEME}{}{}", self.trust_domain, self.path))
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_round_trips_and_names_its_cluster() {
        let id: SpiffeId = "spiffe://production/cluster/use1-a".parse().unwrap();
        assert_eq!(id.to_string(), "spiffe://production/cluster/use1-a");
        assert_eq!(id.cluster("production"), Some(ClusterName::new("use1-a").unwrap()));
        assert_eq!(id.cluster("staging"), None);
        let client: SpiffeId = "spiffe://production/client/dev".parse().unwrap();
        assert_eq!(client.cluster("production"), None);
    }

    #[test]
    fn malformed_ids_are_refused() {
        for text in [
            "",
            "https://production/cluster/a",
            "spiffe://",
            "spiffe:///cluster/a",
            "spiffe://Production/cluster/a",
            "spiffe://production/cluster//a",
            "spiffe://production/cluster/../a",
            "spiffe://production/",
            "spiffe://user@production/cluster/a",
            "spiffe://production:443/cluster/a",
            "spiffe://production/cluster/a?x=1",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = SpiffeId::of_certificate(&bytes);
            let _ = String::from_utf8_lossy(&bytes).parse::<SpiffeId>();
        }
    }
}
