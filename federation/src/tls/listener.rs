//! The accepting end of a port: a stream of connections that have proved who they are.
//!
//! Handshakes run beside each other, so that a slow one holds up nobody.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use portolan_topology::names::ClusterName;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::Connected;

use super::{HANDSHAKE_TIMEOUT, Refusal, Refusals};
use crate::identity::{IdentityError, SpiffeId};
use crate::net::{BoxStream, Gathered, Listener};

/// How many handshakes may run at once; more wait in the listen queue.
const HANDSHAKES: usize = 1024;
/// The wait after a failed accept: out of file descriptors, it would fail again at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The address that it came from.
    pub remote: SocketAddr,
    /// The SPIFFE id of its verified certificate, if it presented one that has one.
    pub spiffe: Option<SpiffeId>,
    /// The cluster that this id names within our trust domain.
    pub cluster: Option<ClusterName>,
}

/// Who may come in.
#[derive(Debug, Clone)]
pub enum Rule {
    /// Control planes only: TLS, and a certificate for a cluster of the trust domain.
    Peers {
        /// Our side of the handshake.
        tls: Arc<ServerConfig>,
        /// The trust domain.
        trust_domain: Arc<str>,
    },
    /// Whomever the TLS configuration lets in.
    Clients {
        /// Our side of the handshake.
        tls: Arc<ServerConfig>,
        /// The trust domain in which ids name clusters.
        trust_domain: Arc<str>,
    },
    /// Plain text.
    Plain,
}

/// A connection that was let in.
pub struct Accepted {
    io: Gathered<BoxStream>,
    peer: Arc<PeerIdentity>,
}

impl Accepted {
    /// Who it is.
    #[must_use]
    pub fn peer(&self) -> &PeerIdentity {
        &self.peer
    }
}

impl std::fmt::Debug for Accepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accepted").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connected for Accepted {
    type ConnectInfo = Arc<PeerIdentity>;

    fn connect_info(&self) -> Arc<PeerIdentity> {
        self.peer.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The connections of one port, for tonic's `serve_with_incoming`. Dropping it closes the port.
#[derive(Debug)]
pub struct Incoming {
    accepted: mpsc::Receiver<Accepted>,
    _accepting: AbortOnDropHandle<()>,
}

impl Incoming {
    /// Accepts from `listener` whomever `rule` lets in; the others go to `refusals`.
    #[must_use]
    pub fn new(listener: Box<dyn Listener>, rule: Rule, refusals: Arc<Refusals>) -> Self {
        let (sender, accepted) = mpsc::channel(64);
        let accepting = tokio::spawn(accept(listener, rule, refusals, sender));
        Self { accepted, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// The next connection.
    pub async fn next(&mut self) -> Option<Accepted> {
        self.accepted.recv().await
    }
}

impl futures::Stream for Incoming {
    type Item = io::Result<Accepted>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accepted.poll_recv(cx).map(|accepted| accepted.map(Ok))
    }
}

async fn accept(mut listener: Box<dyn Listener>, rule: Rule, refusals: Arc<Refusals>, sender: mpsc::Sender<Accepted>) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let (stream, remote) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let (rule, refusals, sender) = (rule.clone(), refusals.clone(), sender.clone());
        handshakes.spawn(async move {
            let _slot = slot;
            match admit(stream, remote, &rule).await {
                // The receiver is gone only when the port is closed.
                Ok(accepted) => drop(sender.send(accepted).await),
                Err((refusal, why)) => drop(refusals.refuse(remote.ip(), refusal, &why)),
            }
        });
    }
}

async fn admit(stream: BoxStream, remote: SocketAddr, rule: &Rule) -> Result<Accepted, (Refusal, String)> {
    let (tls, trust_domain, peers_only) = match rule {
        Rule::Plain => {
            let peer = Arc::new(PeerIdentity { remote, spiffe: None, cluster: None });
            return Ok(Accepted { io: Gathered::new(stream), peer });
        }
        Rule::Peers { tls, trust_domain } => (tls, trust_domain, true),
        Rule::Clients { tls, trust_domain } => (tls, trust_domain, false),
    };
    let handshake = TlsAcceptor::from(tls.clone()).accept(stream);
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
        .await
        .map_err(|_| (Refusal::HandshakeTimeout, "the TLS handshake took too long".to_owned()))?
        .map_err(|error| (Refusal::Handshake, format!("the TLS handshake failed: {error}")))?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let spiffe = match certificate.map(|certificate| SpiffeId::of_certificate(certificate)) {
        Some(Ok(id)) => Some(id),
        // A client may have a certificate that names it in another way.
        Some(Err(_)) if !peers_only => None,
        Some(Err(error)) => return Err((Refusal::Identity, error.to_string())),
        None => None,
    };
    let cluster = spiffe.as_ref().and_then(|id| id.cluster(trust_domain));
    if peers_only && cluster.is_none() {
        let why = match spiffe {
            Some(found) => {
                IdentityError::NotACluster { found, trust_domain: trust_domain.as_ref().to_owned() }.to_string()
            }
            None => "no certificate".to_owned(),
        };
        return Err((Refusal::Identity, why));
    }
    let io = Gathered::new(Box::new(stream) as BoxStream);
    Ok(Accepted { io, peer: Arc::new(PeerIdentity { remote, spiffe, cluster }) })
}
