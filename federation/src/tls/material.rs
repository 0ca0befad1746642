//! What certificate files hold, read and checked together: a certificate, its key, the identity that it gives, and whom
//! we trust.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{CredentialFiles, CredentialsError};
use crate::identity::{IdentityError, SpiffeId};

/// The files' bytes as they were read, to see a change by.
#[derive(PartialEq, Eq)]
pub(super) struct Bytes {
    cert: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
}

impl Bytes {
    pub(super) fn read(files: &CredentialFiles) -> Result<Self, CredentialsError> {
        let read = |file: &PathBuf, expected| {
            std::fs::read(file).map_err(|error| unreadable(file, expected, error.to_string()))
        };
        Ok(Self {
            cert: read(&files.cert, "a certificate")?,
            key: read(&files.key, "a private key")?,
            ca: read(&files.ca, "a CA certificate")?,
        })
    }
}

/// Files that fit together.
pub(super) struct Material {
    pub(super) bytes: Bytes,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    /// Chain and key, as a server presents them.
    pub(super) certified: Arc<CertifiedKey>,
    /// The check of clients' certificates against `roots`.
    pub(super) clients: Arc<dyn ClientCertVerifier>,
    pub(super) id: SpiffeId,
    /// When the certificate expires.
    pub(super) expires: Timestamp,
}

impl Material {
    pub(super) fn check(bytes: Bytes, files: &CredentialFiles) -> Result<Self, CredentialsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unusable = |why: String| CredentialsError::Unusable { file: files.cert.clone(), why };
        let chain = certificates(&bytes.cert, &files.cert, "a certificate")?;
        let key = PrivateKeyDer::from_pem_slice(&bytes.key)
            .map_err(|error| unreadable(&files.key, "a private key", error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&bytes.ca, &files.ca, "a CA certificate")? {
            roots.add(certificate).map_err(|error| unreadable(&files.ca, "a CA certificate", error.to_string()))?;
        }
        let roots = Arc::new(roots);
        let identity = |source| CredentialsError::Identity { file: files.cert.clone(), source };
        let leaf = chain.first().ok_or_else(|| identity(IdentityError::MalformedCertificate))?;
        let id = SpiffeId::of_certificate(leaf).map_err(identity)?;
        let expires = expiry(leaf).ok_or_else(|| identity(IdentityError::MalformedCertificate))?;
        // Whether the key fits the certificate shows only when they are put together.
        let certified = CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider)
            .map_err(|error| unusable(error.to_string()))?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { bytes, roots, chain, key, certified: Arc::new(certified), clients, id, expires })
    }
}

/// Whether a certificate chain and a private key, both PEM, can be presented together; otherwise why not.
pub fn check_pair(chain: &[u8], key: &[u8]) -> Result<(), String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the certificate is not PEM: {error}"))?;
    if chain.is_empty() {
        return Err("it holds no certificate".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the private key is not PEM: {error}"))?;
    let checked = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider());
    checked.map(drop).map_err(|error| format!("certificate and key do not fit: {error}"))
}

impl std::fmt::Debug for Material {
    /// Says whose it is, and nothing of the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("id", &self.id).field("expires", &self.expires).finish_non_exhaustive()
    }
}

fn expiry(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()
}

fn unreadable(file: &Path, expected: &'static str, why: String) -> CredentialsError {
    CredentialsError::Unreadable { file: file.to_owned(), expected, why }
}

fn certificates(
    pem: &[u8],
    file: &Path,
    expected: &'static str,
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(file, expected, error.to_string()))?;
    if certificates.is_empty() { Err(unreadable(file, expected, "there is none".to_owned())) } else { Ok(certificates) }
}
