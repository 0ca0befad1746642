//! The `Net` over turmoil: every socket of the fleet is simulated.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use portolan_federation::net::{BoxStream, Listener, Net};
use tokio::time::Instant;
use turmoil::net::{TcpListener, TcpStream};

/// TCP through turmoil, on whichever host the caller runs.
///
/// A host called `service-NAME` is what a Kubernetes Service is: each dial goes to the next of its [`BACKENDS`].
pub struct SimNet;

/// The hosts behind a Service, after `plane-NAME`.
const BACKENDS: [&str; 3] = ["", "-1", "-2"];
static TURN: AtomicUsize = AtomicUsize::new(0);

#[async_trait]
impl Net for SimNet {
    async fn dial(&self, address: &str) -> io::Result<BoxStream> {
        if let Some(service) = address.strip_prefix("service-") {
            let (name, port) = service.split_once(':').ok_or(io::ErrorKind::InvalidInput)?;
            let turn = TURN.fetch_add(1, Ordering::Relaxed);
            let backend = BACKENDS[turn % BACKENDS.len()];
            return self.dial(&format!("plane-{name}{backend}:{port}")).await;
        }
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
