//! Opening ports, and who may come in at those without TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use portolan_federation::net::{BoxStream, Listener, Net};
use portolan_federation::tls::{Refusal, Refusals};

use crate::config::Network;

/// A port that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address} for {purpose}: {source}; give another address with {flag}")]
pub struct PortError {
    address: SocketAddr,
    purpose: &'static str,
    flag: &'static str,
    source: io::Error,
}

/// Opens a port; says where it is, which matters where port 0 was asked for.
pub(crate) async fn open(
    net: &dyn Net,
    address: SocketAddr,
    purpose: &'static str,
    flag: &'static str,
) -> Result<(Box<dyn Listener>, SocketAddr), PortError> {
    let failed = |source| PortError { address, purpose, flag, source };
    let listener = net.listen(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// A listener that lets in certain networks alone.
pub(crate) struct Only {
    pub(crate) listener: Box<dyn Listener>,
    pub(crate) from: Vec<Network>,
    pub(crate) refusals: Arc<Refusals>,
}

#[async_trait]
impl Listener for Only {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)> {
        loop {
            let (stream, peer) = self.listener.accept().await?;
            if self.from.iter().any(|network| network.contains(peer.ip())) {
                return Ok((stream, peer));
            }
            self.refusals.refuse(peer.ip(), Refusal::Network, &"not in --xds-plaintext-from");
        }
    }
}

/// Lets axum accept from a listener of ours.
pub(crate) struct Http(pub(crate) Box<dyn Listener>);

impl axum::serve::Listener for Http {
    type Io = BoxStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoxStream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Out of file descriptors it would fail again at once.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
