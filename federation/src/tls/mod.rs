//! TLS on the ports of a control plane: who may come in, and whom we take a dialled peer for.
//!
//! Peers always prove who they are, both ways; a peer's name is the SPIFFE id in its certificate, never its address.

mod credentials;
mod current;
mod listener;
mod material;
mod refusals;
#[cfg(test)]
mod tests;
mod verify;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{CertificateError, ClientConfig, OtherError};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

pub use credentials::{CertificateStatus, CredentialFiles, Credentials, CredentialsError};
pub use listener::{Accepted, Incoming, PeerIdentity, Rule};
pub use material::check_pair;
pub use refusals::{Refusal, Refusals};

use crate::net::{BoxStream, Net};

/// How long a handshake may take before it is given up.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The one protocol that every TLS port speaks.
const HTTP2: &[u8] = b"h2";

/// Whether xDS clients must have a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// A client without one is refused.
    #[default]
    Required,
    /// A client may come without; one that it presents must be good.
    Optional,
}

/// Dials `address` and finishes the handshake, within [`HANDSHAKE_TIMEOUT`] for both.
pub async fn dial(net: &dyn Net, config: Arc<ClientConfig>, address: &str) -> io::Result<BoxStream> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let handshake = async {
        let stream = net.dial(address).await?;
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(in_words)?;
        Ok(Box::new(stream) as BoxStream)
    };
    tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await?
}

/// What our own verifier says of a certificate, which rustls would show as a debug print.
fn in_words(error: io::Error) -> io::Error {
    let of_rustls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match of_rustls {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why)))) => {
            io::Error::new(error.kind(), why.to_string())
        }
        _ => error,
    }
}
