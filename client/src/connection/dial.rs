//! Where connections come from: handed in, so that a whole fleet can run in one process.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Sent bytes that nobody acknowledges for so long end the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens connections to endpoints.
pub trait Dial: std::fmt::Debug + Send + Sync + 'static {
    /// Connects. The caller bounds the time.
    ///
    /// # Errors
    /// As the network says.
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Transport>>>;
}

/// A byte stream to an endpoint.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Whether the peer is known to have hung up, asked right before bytes are written.
    ///
    /// A runtime learns of a FIN or RST some time after the kernel does. What is written in between is lost, and whoever
    /// wrote it cannot know whether it was acted upon. This asks the kernel itself, so that such a request is known not
    /// to have reached anybody, and may be sent elsewhere.
    fn hung_up(&self) -> bool;
}

impl Transport for TcpStream {
    fn hung_up(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        match socket2::SockRef::from(self).peek(&mut byte) {
            Ok(n) => n == 0,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }
}

/// Plain TCP: no delay, and given up after 2 s of unacknowledged bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Dial for Tcp {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Transport>>> {
        Box::pin(async move {
            #[expect(clippy::disallowed_methods, reason = "this is the real network behind `Dial`")]
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            #[cfg(target_os = "linux")]
            socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(USER_TIMEOUT))?;
            Ok(Box::new(stream) as Box<dyn Transport>)
        })
    }
}
