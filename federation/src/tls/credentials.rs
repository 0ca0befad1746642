//! A control plane's certificate, key and CA, from PEM files: checked when they are read, and read again when they are
//! renewed. What does not fit is refused whole, and what was in force stays.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::RwLock;
use portolan_topology::names::ClusterName;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;

use super::current::{Current, OurCertificate, TheirCertificates};
use super::material::{Bytes, Material};
use super::{ClientCertificates, HTTP2, verify};
use crate::identity::{IdentityError, SpiffeId};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);

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

/// How a control plane's own certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateStatus {
    /// When the one in force expires.
    pub expires: Timestamp,
    /// Why the files, as they are now, are not in force.
    pub error: Option<String>,
}

/// A certificate with its key, the identity that it gives, and whom we trust.
#[derive(Debug)]
pub struct Credentials {
    files: CredentialFiles,
    id: SpiffeId,
    current: Current,
    status: watch::Sender<CertificateStatus>,
}

impl Credentials {
    /// Reads and checks the files.
    pub fn from_files(files: &CredentialFiles) -> Result<Self, CredentialsError> {
        let material = Material::check(Bytes::read(files)?, files)?;
        Ok(Self {
            files: files.clone(),
            id: material.id.clone(),
            status: watch::Sender::new(CertificateStatus { expires: material.expires, error: None }),
            current: Arc::new(RwLock::new(Arc::new(material))),
        })
    }

    /// Whose certificate it is.
    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<CertificateStatus> {
        self.status.subscribe()
    }

    /// Checks that it is `cluster`'s, in `trust_domain`.
    pub fn check(&self, trust_domain: &str, cluster: &ClusterName) -> Result<(), CredentialsError> {
        let expected = SpiffeId::of_cluster(trust_domain, cluster).map_err(|source| self.identity(source))?;
        self.must_be(&self.id, &expected)
    }

    /// Reads the files again. Says whether they hold something new, which is then in force for every handshake to come;
    /// connections that are open stay. Files that do not fit change nothing.
    pub fn reload(&self) -> Result<bool, CredentialsError> {
        let before = self.current.read().clone();
        let read = Bytes::read(&self.files).and_then(|bytes| {
            if bytes == before.bytes {
                return Ok(before.clone());
            }
            let material = Material::check(bytes, &self.files)?;
            self.must_be(&material.id, &self.id)?;
            Ok(Arc::new(material))
        });
        let expires = read.as_ref().map_or(before.expires, |material| material.expires);
        let status = CertificateStatus { expires, error: read.as_ref().err().map(ToString::to_string) };
        self.status.send_if_modified(|current| {
            let differs = *current != status;
            *current = status;
            differs
        });
        let material = read?;
        let new = !Arc::ptr_eq(&before, &material);
        *self.current.write() = material;
        Ok(new)
    }

    /// Follows the files for ever.
    pub async fn keep_current(self: Arc<Self>) {
        // Three small files: read here and now, so that a simulation reads them at the same moment every time.
        let mut said = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let reloaded = self.reload();
            let error = reloaded.as_ref().err().map(ToString::to_string);
            match &reloaded {
                Ok(true) => {
                    tracing::info!(expires = %self.status.borrow().expires, "the renewed certificate is in force")
                }
                Err(error) if said != Some(error.to_string()) => {
                    tracing::warn!(%error, "the certificate files do not fit; what was in force stays");
                }
                _ => {}
            }
            said = error;
        }
    }

    /// The server's side of a port: our certificate, and clients' checked against our CA, both as they are in force at
    /// each handshake.
    pub fn server(&self, clients: ClientCertificates) -> Result<Arc<ServerConfig>, CredentialsError> {
        let verifier = TheirCertificates { current: self.current.clone(), clients };
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| self.unusable(error.to_string()))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(OurCertificate(self.current.clone())));
        config.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(Arc::new(config))
    }

    /// The client's side towards one peer: only a certificate for `expected` is taken, whatever its DNS names.
    pub fn client(&self, expected: SpiffeId) -> Result<Arc<ClientConfig>, CredentialsError> {
        let material = self.current.read().clone();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = verify::OnlyThisPeer::new(material.roots.clone(), provider.clone(), expected);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| self.unusable(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(material.chain.clone(), material.key.clone_key())
            .map_err(|error| self.unusable(error.to_string()))?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(Arc::new(config))
    }

    /// The CA in force.
    #[cfg(test)]
    pub(super) fn roots(&self) -> Arc<rustls::RootCertStore> {
        self.current.read().roots.clone()
    }

    fn must_be(&self, found: &SpiffeId, expected: &SpiffeId) -> Result<(), CredentialsError> {
        if found == expected {
            return Ok(());
        }
        Err(self.identity(IdentityError::Other { found: found.clone(), expected: expected.clone() }))
    }

    fn identity(&self, source: IdentityError) -> CredentialsError {
        CredentialsError::Identity { file: self.files.cert.clone(), source }
    }

    fn unusable(&self, why: String) -> CredentialsError {
        CredentialsError::Unusable { file: self.files.cert.clone(), why }
    }
}
