//! The one place of this crate that opens sockets: real processes on real loopback addresses are its subject.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Listens at `address`, also just after another process did.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

/// Whether `address` can be listened at now.
#[must_use]
pub(crate) fn is_free(address: SocketAddr) -> bool {
    StdListener::bind(address).is_ok()
}

/// Whether this machine has `address` at all.
#[must_use]
pub(crate) fn has(address: IpAddr) -> bool {
    is_free(SocketAddr::new(address, 0))
}

/// Connects to `address`.
pub(crate) async fn connect(address: SocketAddr, within: Duration) -> io::Result<TcpStream> {
    #[expect(clippy::disallowed_methods, reason = "this is the crate's edge to the network")]
    let connecting = TcpStream::connect(address);
    tokio::time::timeout(within, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Whether somebody accepts connections at `address`.
pub(crate) async fn answers(address: SocketAddr) -> bool {
    connect(address, Duration::from_secs(1)).await.is_ok()
}

/// The status code of a request without a body.
pub(crate) async fn http_status(address: SocketAddr, method: &str, path: &str) -> io::Result<u16> {
    let talk = async {
        let mut stream = connect(address, Duration::from_secs(1)).await?;
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        // `HTTP/1.1 200`
        let mut line = [0; 12];
        stream.read_exact(&mut line).await?;
        let status = std::str::from_utf8(&line[9..]).ok().and_then(|digits| digits.parse().ok());
        status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))
    };
    tokio::time::timeout(Duration::from_secs(2), talk).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
