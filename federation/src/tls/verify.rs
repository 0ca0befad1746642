//! The check of a dialled peer: a good chain, and exactly the SPIFFE id that we meant to reach.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::identity::{IdentityError, SpiffeId};

/// Takes a certificate only if our CA signed it for one given SPIFFE id. DNS and IP names do not count: peers are found
/// through addresses that may be anything.
#[derive(Debug)]
pub(super) struct OnlyThisPeer {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    expected: SpiffeId,
}

impl OnlyThisPeer {
    pub(super) fn new(roots: Arc<RootCertStore>, provider: Arc<CryptoProvider>, expected: SpiffeId) -> Self {
        Self { roots, provider, expected }
    }
}

impl ServerCertVerifier for OnlyThisPeer {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        let refused =
            |error: IdentityError| Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))));
        let found = SpiffeId::of_certificate(certificate).map_err(refused)?;
        if found == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(refused(IdentityError::Other { found, expected: self.expected.clone() }))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
