//! The one part of a kubelet that no API server can stand in for: its end of a port-forward. The API server dials it as it
//! dials a real one, over TLS, and hands it the client's WebSocket; it speaks `v4.channel.k8s.io`, as kubelets do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_util::task::AbortOnDropHandle;

use crate::sockets;

const PROTOCOL: &str = "v4.channel.k8s.io";
/// The channels of the one port that is forwarded.
const DATA: u8 = 0;
const ERROR: u8 = 1;

/// A running one; it ends with this value.
#[derive(Debug)]
pub(super) struct Kubelet {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Kubelet {
    /// Listens at a free port of `address` and forwards to whatever Pod, by name, `pods` has.
    pub(super) fn start(address: SocketAddr, pods: BTreeMap<String, SocketAddr>) -> anyhow::Result<Self> {
        let listener = sockets::listen(address).context("the kubelet cannot listen")?;
        let (address, acceptor, pods) = (listener.local_addr()?, TlsAcceptor::from(tls()?), Arc::new(pods));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, pods) = (acceptor.clone(), Arc::clone(&pods));
                tokio::spawn(async move {
                    let mut path = String::new();
                    let stream = acceptor.accept(stream).await?;
                    #[expect(clippy::result_large_err, reason = "the crate's own callback type")]
                    let greet = |request: &Request, response| greeting(request, response, &mut path);
                    let socket = tokio_tungstenite::accept_hdr_async(stream, greet).await?;
                    forward(socket, &path, &pods).await
                });
            }
        });
        Ok(Self { address, _task: AbortOnDropHandle::new(task) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A certificate that nobody checks: an API server without a CA for kubelets takes any.
fn tls() -> anyhow::Result<Arc<ServerConfig>> {
    let made = rcgen::generate_simple_self_signed(["kubelet".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    Ok(Arc::new(config))
}

#[expect(clippy::result_large_err, reason = "the crate's own callback type")]
fn greeting(request: &Request, mut response: Response, path: &mut String) -> Result<Response, ErrorResponse> {
    *path = request.uri().to_string();
    response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(PROTOCOL));
    Ok(response)
}

/// Copies between the WebSocket and the Pod that `/portForward/NAMESPACE/POD?port=PORT` names.
async fn forward<S>(
    mut socket: WebSocketStream<S>,
    path: &str,
    pods: &BTreeMap<String, SocketAddr>,
) -> anyhow::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (path, query) = path.split_once('?').context("no port")?;
    let port: u16 = query.split('&').find_map(|pair| pair.strip_prefix("port=")).context("no port")?.parse()?;
    let [low, high] = port.to_le_bytes();
    // Each channel begins with the port that it belongs to.
    for channel in [DATA, ERROR] {
        socket.send(Message::binary(vec![channel, low, high])).await?;
    }
    let pod = path.rsplit('/').next().unwrap_or_default();
    let reached = match pods.get(pod) {
        Some(address) => sockets::connect(*address, Duration::from_secs(1)).await,
        None => Err(std::io::ErrorKind::NotFound.into()),
    };
    let mut stream = match reached {
        Ok(stream) => stream,
        Err(error) => {
            let why = format!("\u{1}error forwarding port {port} to pod {pod}: {error}");
            socket.send(Message::binary(why.into_bytes())).await?;
            return close(socket).await;
        }
    };
    let mut buffer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => match read? {
                0 => return close(socket).await,
                read => socket.send(Message::binary([&[DATA], &buffer[..read]].concat())).await?,
            },
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) if bytes.first() == Some(&DATA) => stream.write_all(&bytes[1..]).await?,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(()),
            },
        }
    }
}

/// Says goodbye and reads to the end: to leave with something unread would reset the connection, and the API server may
/// then drop what was said last.
async fn close<S>(mut socket: WebSocketStream<S>) -> anyhow::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    socket.close(None).await?;
    while let Some(Ok(_)) = socket.next().await {}
    Ok(())
}
