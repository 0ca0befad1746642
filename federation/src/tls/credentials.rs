//! A control plane's certificate, key and CA, from PEM files. Checked once, here: what is left can be used.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use portolan_topology::names::ClusterName;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::identity::{IdentityError, SpiffeId};

/// Where the PEM files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialFiles {
    /// Our certificate, followed by intermediates if there are any.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The certificates that we trust to sign others'.
    pub ca: PathBuf,
}

/// Why certificate files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read or holds no such thing.
    #[error("{}: expected {expected} in PEM: {why}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What it must hold.
        expected: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The certificate names nobody.
    #[error("{}: {source}; `portolan certs dev` makes certificates for a trial", file.display())]
    Identity {
        /// The certificate's file.
        file: PathBuf,
        /// What is wrong.
        source: IdentityError,
    },
    /// The parts do not fit together.
    #[error("{}: the certificate cannot be used: {why}", file.display())]
    Unusable {
        /// The certificate's file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// A certificate with its key, the identity that it gives, and whom we trust.
pub struct Credentials {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    id: SpiffeId,
    file: PathBuf,
}

impl Credentials {
    /// Reads and checks the files.
    pub fn from_files(files: &CredentialFiles) -> Result<Self, CredentialsError> {
        let read = |file: &PathBuf, expected| {
            std::fs::read(file).map_err(|error| CredentialsError::Unreadable {
                file: file.clone(),
                expected,
                why: error.to_string(),
            })
        };
        let chain = certificates(&read(&files.cert, "a certificate")?, &files.cert, "a certificate")?;
        let key = PrivateKeyDer::from_pem_slice(&read(&files.key, "a private key")?).map_err(|error| {
            CredentialsError::Unreadable { file: files.key.clone(), expected: "a private key", why: error.to_string() }
        })?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&read(&files.ca, "a CA certificate")?, &files.ca, "a CA certificate")? {
            roots.add(certificate).map_err(|error| CredentialsError::Unreadable {
                file: files.ca.clone(),
                expected: "a CA certificate",
                why: error.to_string(),
            })?;
        }
        let id = chain
            .first()
            .ok_or(IdentityError::MalformedCertificate)
            .and_then(|certificate| SpiffeId::of_certificate(certificate))
            .map_err(|source| CredentialsError::Identity { file: files.cert.clone(), source })?;
        let credentials = Self { roots: Arc::new(roots), chain, key, id, file: files.cert.clone() };
        // Whether the key fits the certificate shows only when they are put together.
        credentials.server(super::ClientCertificates::Required)?;
        Ok(credentials)
    }

    /// Whose certificate it is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Checks that it is `cluster`'s, in `trust_domain`.
    pub fn check(&self, trust_domain: &str, cluster: &ClusterName) -> Result<(), CredentialsError> {
        let identity = |source| CredentialsError::Identity { file: self.file.clone(), source };
        let expected = SpiffeId::of_cluster(trust_domain, cluster).map_err(identity)?;
        if self.id == expected {
            Ok(())
        } else {
            Err(identity(IdentityError::Other { found: self.id.clone(), expected }))
        }
    }

    pub(super) fn unusable(&self, why: String) -> CredentialsError {
        CredentialsError::Unusable { file: self.file.clone(), why }
    }
}

impl fmt::Debug for Credentials {
    /// Says whose they are, and nothing of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("id", &self.id).field("file", &self.file).finish_non_exhaustive()
    }
}

fn certificates(
    pem: &[u8],
    file: &std::path::Path,
    expected: &'static str,
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let unreadable = |why: String| CredentialsError::Unreadable { file: file.to_owned(), expected, why };
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| unreadable(error.to_string()))?;
    if certificates.is_empty() { Err(unreadable("there is none".to_owned())) } else { Ok(certificates) }
}
