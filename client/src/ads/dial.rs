//! From a server of the bootstrap to an HTTP/2 channel: TCP, TLS if its credentials say so, and keep-alive.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint};

use crate::xds::bootstrap::{ChannelCreds, ServerConfig};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that is silent is asked this often whether it lives, and given up after the time below.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that are not acknowledged for this long end the connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);

/// A byte stream to a server.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Where sockets come from.
pub trait Connect: Send + Sync + 'static {
    /// Connects to `HOST:PORT`.
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Stream>>>;
}

/// The real network.
#[derive(Debug, Clone, Copy)]
pub struct Tcp;

impl Connect for Tcp {
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            #[expect(
                clippy::disallowed_methods,
                reason = "the real network's one dial; everything else goes through Connect"
            )]
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            #[cfg(target_os = "linux")]
            socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// Why a server cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// A file of the bootstrap's credentials.
    #[error("{file}: {problem}; the bootstrap's {field} names it")]
    Credentials {
        /// The bootstrap's field.
        field: &'static str,
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The certificate and key do not make an identity, or the host's name cannot stand in a certificate.
    #[error("TLS to {server}: {problem}")]
    Tls {
        /// The server.
        server: String,
        /// What is wrong.
        problem: String,
    },
    /// It was reached, but does not answer.
    #[error("{server} was reached but does not answer: {problem}")]
    Mute {
        /// The server.
        server: String,
        /// What came instead.
        problem: String,
    },
    /// The connection.
    #[error("cannot connect to {server}: {problem}")]
    Transport {
        /// The server.
        server: String,
        /// Why.
        problem: String,
    },
}

/// Connects to a server. The credentials' files are read each time, so that renewed certificates are taken.
pub(super) async fn dial(server: ServerConfig, connect: Arc<dyn Connect>) -> Result<Channel, DialError> {
    let tls = match &server.creds {
        ChannelCreds::Insecure => None,
        ChannelCreds::Tls { ca, identity } => {
            let read = |field, path: &std::path::Path| Credentials { field, path: path.to_owned() }.read();
            let ca = read("ca_certificate_file", ca).await?;
            let identity = match identity {
                Some((chain, key)) => {
                    Some((read("certificate_file", chain).await?, read("private_key_file", key).await?))
                }
                None => None,
            };
            Some(tls(&server, &ca, identity.as_ref())?)
        }
    };
    let failed = |problem: String| DialError::Transport { server: server.uri.clone(), problem };
    let uri = |scheme: &str| {
        let uri = format!("{scheme}://{}", server.address());
        uri.parse::<http::Uri>().map_err(|error| failed(error.to_string()))
    };
    // To tonic the connection is plain text, since TLS is made below; requests say what it is.
    let origin = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from(uri("http")?)
        .origin(uri(origin)?)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let address = server.address();
    let connector = tower::service_fn(move |_: http::Uri| {
        let (connect, address, tls) = (connect.clone(), address.clone(), tls.clone());
        async move {
            let stream = connect.connect(address).await?;
            let stream: Box<dyn Stream> = match tls {
                None => stream,
                Some((connector, name)) => Box::new(connector.connect(name, stream).await?),
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    endpoint.connect_with_connector(connector).await.map_err(|error| failed(causes(&error)))
}

type Tls = (tokio_rustls::TlsConnector, ServerName<'static>);

fn tls(server: &ServerConfig, ca: &Pem, identity: Option<&(Pem, Pem)>) -> Result<Tls, DialError> {
    let wrong = |problem: String| DialError::Tls { server: server.uri.clone(), problem };
    let mut roots = RootCertStore::empty();
    for certificate in ca.certificates()? {
        roots.add(certificate).map_err(|error| ca.wrong(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| wrong(error.to_string()))?.with_root_certificates(roots);
    let mut config = match identity {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain.certificates()?, key.private_key()?)
            .map_err(|error| chain.wrong(error.to_string()))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(server.host.clone()).map_err(|error| wrong(error.to_string()))?;
    Ok((Arc::new(config).into(), name))
}

struct Credentials {
    field: &'static str,
    path: std::path::PathBuf,
}

struct Pem {
    from: Credentials,
    bytes: Vec<u8>,
}

impl Credentials {
    async fn read(self) -> Result<Pem, DialError> {
        match tokio::fs::read(&self.path).await {
            Ok(bytes) => Ok(Pem { from: self, bytes }),
            Err(error) => Err(self.wrong(format!("cannot be read: {error}"))),
        }
    }

    fn wrong(&self, problem: String) -> DialError {
        DialError::Credentials { field: self.field, file: self.path.display().to_string(), problem }
    }
}

impl Pem {
    fn wrong(&self, problem: String) -> DialError {
        self.from.wrong(problem)
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, DialError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        let certificates = certificates.map_err(|error| self.wrong(format!("not PEM: {error}")))?;
        if certificates.is_empty() {
            return Err(self.wrong("holds no certificate".to_owned()));
        }
        Ok(certificates)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, DialError> {
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| self.wrong(format!("holds no private key: {error}")))
    }
}

/// An error with what caused it: tonic's own text is only "transport error".
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
