//! TLS to endpoints, over whatever bytes another [`Dial`] brings. HTTP/2 is agreed upon by ALPN, or there is no connection.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::client::TlsStream;

use super::{Dial, Transport};

const HTTP2: &[u8] = b"h2";

/// Whom a channel takes for its service's endpoints, and who it is itself.
///
/// ```no_run
/// use portolan_client::Channel;
/// use portolan_client::connection::Tls;
///
/// # fn connect() -> Result<Channel, Box<dyn std::error::Error>> {
/// let tls = Tls::with_roots(&std::fs::read("/certs/ca.pem")?)?
///     .identity(&std::fs::read("/certs/tls.crt")?, &std::fs::read("/certs/tls.key")?)?
///     .server_name("checkout.example.com")?;
/// Ok(Channel::builder("xds:///checkout.shop").tls(tls).build()?)
/// # }
/// ```
#[derive(Clone)]
pub struct Tls {
    roots: Arc<RootCertStore>,
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// What was handed in is not what it should be.
    #[error("{what}: {problem}")]
    Pem {
        /// Roots, certificate chain or key.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificate and key are not of each other, or cannot be used.
    #[error("the client's certificate and key: {0}")]
    Identity(rustls::Error),
    /// Not a name that can stand in a certificate.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    Name(String),
}

impl Tls {
    /// Endpoints whose certificates come from one of these authorities, in PEM. The system's are not used.
    ///
    /// # Errors
    /// There is no certificate in it, or a broken one.
    pub fn with_roots(pem: &[u8]) -> Result<Self, TlsError> {
        let what = "the roots";
        let mut roots = RootCertStore::empty();
        for certificate in certificates(what, pem)? {
            roots.add(certificate).map_err(|error| TlsError::Pem { what, problem: error.to_string() })?;
        }
        let roots = Arc::new(roots);
        let config = config(&roots, None)?;
        Ok(Self { roots, config, server_name: None })
    }

    /// This client's certificate chain and private key, in PEM, for servers that ask for them.
    ///
    /// # Errors
    /// They cannot be read, or are not of each other.
    pub fn identity(self, chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates("the client's certificate chain", chain)?;
        let broken = |error: rustls::pki_types::pem::Error| TlsError::Pem {
            what: "the client's key",
            problem: format!("holds no private key: {error}"),
        };
        let key = PrivateKeyDer::from_pem_slice(key).map_err(broken)?;
        let config = config(&self.roots, Some((chain, key)))?;
        Ok(Self { config, ..self })
    }

    /// What the endpoints' certificates must name: a DNS name or an IP address. Unless this says otherwise, the service's
    /// name as it was dialled, without a port.
    ///
    /// # Errors
    /// No certificate can name that.
    pub fn server_name(self, name: &str) -> Result<Self, TlsError> {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
        Ok(Self { server_name: Some(name), ..self })
    }

    /// The same connections as `dial` makes, secured. `host`: the service's name.
    pub(crate) fn over(self, dial: Arc<dyn Dial>, host: &str) -> Arc<dyn Dial> {
        let of_host = || ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()).to_string());
        let name = self.server_name.map_or_else(of_host, Ok);
        Arc::new(Secured { dial, connector: self.config.into(), name })
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let wrong = |problem| TlsError::Pem { what, problem };
    let certificates = certificates.map_err(|error| wrong(format!("not PEM: {error}")))?;
    if certificates.is_empty() { Err(wrong("no certificate in it".to_owned())) } else { Ok(certificates) }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn config(roots: &Arc<RootCertStore>, identity: Option<Identity>) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(TlsError::Identity)?.with_root_certificates(Arc::clone(roots));
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(TlsError::Identity)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(Arc::new(config))
}

struct Secured {
    dial: Arc<dyn Dial>,
    connector: tokio_rustls::TlsConnector,
    name: Result<ServerName<'static>, String>,
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").field("dial", &self.dial).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Dial for Secured {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Transport>>> {
        Box::pin(async move {
            let name = self.name.clone().map_err(io::Error::other)?;
            let bytes = self.dial.dial(address).await?;
            let failed = |error| io::Error::other(format!("TLS: {error}"));
            let stream = self.connector.connect(name, bytes).await.map_err(failed)?;
            if stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
                return Err(io::Error::other("TLS: the server does not agree to HTTP/2 (ALPN)"));
            }
            Ok(Box::new(stream) as Box<dyn Transport>)
        })
    }
}

impl Transport for TlsStream<Box<dyn Transport>> {
    fn hung_up(&self) -> bool {
        self.get_ref().0.hung_up()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_says_which_and_why() {
        let issuer = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        let pem = issuer.cert.pem();
        let tls = Tls::with_roots(pem.as_bytes()).unwrap();
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for (error, text) in [
            (Tls::with_roots(b"").unwrap_err(), "the roots: no certificate in it"),
            (tls.clone().identity(b"", b"").unwrap_err(), "the client's certificate chain: no certificate in it"),
            (tls.clone().identity(pem.as_bytes(), b"").unwrap_err(), "the client's key: holds no private key"),
            (tls.clone().identity(pem.as_bytes(), other.as_bytes()).unwrap_err(), "the client's certificate and key: "),
            (tls.server_name("a b").unwrap_err(), "`a b` is neither a DNS name nor an IP address"),
        ] {
            assert!(error.to_string().starts_with(text), "{error}");
        }
    }
}
