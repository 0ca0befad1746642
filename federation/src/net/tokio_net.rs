//! The real network: TCP through tokio. The one place that opens sockets.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{BoxStream, Listener, Net};

/// How many connections may wait to be accepted. tokio's own 1024 overflows when thousands of clients come back at
/// once, and those refused return after 1, 3 and 7 seconds. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: u32 = 8192;

/// TCP through the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioNet;

#[async_trait]
impl Net for TokioNet {
    async fn dial(&self, address: &str) -> io::Result<BoxStream> {
        #[expect(clippy::disallowed_methods, reason = "this is the Net that is handed in")]
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    async fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restarted process must get its port back while old connections linger in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Box::new(socket.listen(BACKLOG)?))
    }

    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        #[expect(clippy::disallowed_methods, reason = "this is the Net that is handed in")]
        let mut addresses: Vec<_> = tokio::net::lookup_host(address).await?.collect();
        addresses.sort();
        addresses.dedup();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(addresses)
    }
}

#[async_trait]
impl Listener for TcpListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }

    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        // A connection that died in the queue shows here; the next read reports it.
        let _ = stream.set_nodelay(true);
        Ok((Box::new(stream), peer))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_pass_both_ways() {
        let mut listener = TokioNet.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (dialled, accepted) = tokio::join!(TokioNet.dial(&address), listener.accept());
        let (mut dialled, (mut accepted, _)) = (dialled.unwrap(), accepted.unwrap());
        dialled.write_all(b"ping").await.unwrap();
        let mut read = [0; 4];
        accepted.read_exact(&mut read).await.unwrap();
        accepted.write_all(&read).await.unwrap();
        dialled.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"ping");
    }

    #[tokio::test]
    async fn an_address_stands_for_itself_and_a_name_for_its_addresses() {
        let own = TokioNet.resolve("127.0.0.1:80").await.unwrap();
        assert_eq!(own, [SocketAddr::from(([127, 0, 0, 1], 80))]);
        let named = TokioNet.resolve("localhost:80").await.unwrap();
        assert!(named.iter().all(|address| address.ip().is_loopback() && address.port() == 80), "{named:?}");
        assert!(TokioNet.resolve("no-port").await.is_err());
    }

    #[tokio::test]
    async fn a_port_in_use_is_an_error() {
        let first = TokioNet.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let second = TokioNet.listen(first.local_addr().unwrap()).await;
        assert_eq!(second.err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
    }
}
