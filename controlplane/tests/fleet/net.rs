//! The `Net` over turmoil: every socket of the fleet is simulated.

use std::future::pending;
use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use portolan_federation::net::{BoxStream, Listener, Net};
use tokio::time::Instant;
use turmoil::net::{TcpListener, TcpStream};

/// TCP through turmoil, on whichever host the caller runs.
pub struct SimNet;

#[async_trait]
impl Net for SimNet {
    async fn dial(&self, address: &str) -> io::Result<BoxStream> {
        let begun = Instant::now();
        match TcpStream::connect(address).await {
            Ok(stream) => Ok(Box::new(stream)),
            // A refusal needs a round trip. turmoil also refuses, and at once, what a partition swallows: a real network
            // would say nothing.
            Err(_) if begun.elapsed().is_zero() => pending().await,
            Err(error) => Err(error),
        }
    }

    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(SimListener(TcpListener::bind(address).await?)))
    }

    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = address.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
        let port = port.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(vec![SocketAddr::new(turmoil::lookup(host), port)])
    }
}

struct SimListener(TcpListener);

#[async_trait]
impl Listener for SimListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Box::new(stream), peer))
    }
}
