//! The network as everything here sees it: dial, listen, and what names stand for. Handed in, so that a whole fleet can run in one process.
//!
//! Nothing but an implementation of [`Net`] opens a socket. TLS is above it.

mod gathered;
mod tokio_net;

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use gathered::Gathered;
pub use tokio_net::TokioNet;

/// A byte stream to somebody.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A stream of whatever kind.
pub type BoxStream = Box<dyn Stream>;

/// Dial, listen, resolve.
#[async_trait]
pub trait Net: Send + Sync + 'static {
    /// Connects to `HOST:PORT`.
    async fn dial(&self, address: &str) -> io::Result<BoxStream>;
    /// Listens at `address`; port 0 takes a free one.
    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>>;
    /// The addresses that `HOST:PORT` stands for: at least one, sorted, each once.
    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>>;
}

/// A listening socket.
#[async_trait]
pub trait Listener: Send + 'static {
    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// The next connection and its peer.
    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)>;
}
