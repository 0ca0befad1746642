//! The certificate in force, as rustls asks for it at each handshake: so that a renewed one is presented, and a new CA
//! trusted, on ports that are open already. Decides nothing: what is in force was checked when it was read.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::ClientCertificates;
use super::material::Material;

/// What is in force now.
pub(super) type Current = Arc<RwLock<Arc<Material>>>;

/// Presents our certificate.
#[derive(Debug)]
pub(super) struct OurCertificate(pub(super) Current);

impl ResolvesServerCert for OurCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().certified.clone())
    }
}

/// Checks clients' certificates against the CA in force. It hints at no CA, since the hint could not change with it.
#[derive(Debug)]
pub(super) struct TheirCertificates {
    pub(super) current: Current,
    pub(super) clients: ClientCertificates,
}

impl TheirCertificates {
    fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.current.read().clients.clone()
    }
}

impl ClientCertVerifier for TheirCertificates {
    fn client_auth_mandatory(&self) -> bool {
        self.clients == ClientCertificates::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verifier().verify_client_cert(certificate, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier().supported_verify_schemes()
    }
}
