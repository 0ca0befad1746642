//! One HTTP/2 connection: made, driven, watched for a dead peer, and drained when the server says goodbye.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use tokio::time::{Instant, sleep_until, timeout};

use super::dial::Dial;
use super::liveness::{Liveness, Step};
use super::slot::Crowd;
use super::wire::{Traffic, Wire};

/// Room for answers: per stream and per connection, so that one slow reader does not stop the others.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A connection that takes requests.
pub(crate) struct Connection {
    requests: SendRequest<Bytes>,
    traffic: Arc<Traffic>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("traffic", &self.traffic).finish_non_exhaustive()
    }
}

/// An answer that a peer owes: while this lives, its silence is counted against it.
#[derive(Debug)]
pub(crate) struct Owed {
    traffic: Arc<Traffic>,
    written_before: u64,
}

impl Owed {
    /// Whether nothing has left since just before this request was opened: then no byte of it reached anybody.
    pub(crate) fn nothing_left(&self) -> bool {
        self.traffic.written() == self.written_before
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.traffic.end();
    }
}

impl Connection {
    /// Room for one more request, if the peer leaves any.
    pub(super) fn claim(&self) -> Option<Owed> {
        let traffic = Arc::clone(&self.traffic);
        traffic.ask().then(|| Owed { written_before: traffic.written(), traffic })
    }

    /// How many requests are open, and how many may be.
    pub(super) fn load(&self) -> (usize, usize) {
        self.traffic.load()
    }

    /// Opens a stream, for which there is room.
    ///
    /// # Errors
    /// The connection is closed or closing: nothing was sent.
    pub(crate) async fn open(&self, head: http::Request<()>) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut requests = self.requests.clone().ready().await?;
        requests.send_request(head, false)
    }
}

/// The side of a connection that a task must run.
pub(crate) struct Driver {
    connection: h2::client::Connection<Wire, Bytes>,
    /// Tells that the peer said goodbye; gone once it has, since a connection ends only without handles.
    probe: Option<SendRequest<Bytes>>,
    pings: Option<PingPong>,
    liveness: Liveness,
    traffic: Arc<Traffic>,
}

/// Why [`Driver::run`] returned.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The peer takes no new requests; run the driver on until those that are open have ended.
    Goodbye,
    /// The connection is over, for this reason.
    Over(String),
    /// The peer answers nothing any more. Whoever answers there next may be another.
    Silent,
}

/// Connects, and waits until the peer has spoken HTTP/2: for all of it at most `limit`.
///
/// # Errors
/// A sentence that names what failed.
pub(crate) async fn connect(
    dial: &dyn Dial,
    address: std::net::SocketAddr,
    limit: Duration,
    crowd: Arc<Crowd>,
) -> Result<(Connection, Driver), String> {
    let attempt = async {
        let transport = dial.dial(address).await.map_err(|error| format!("{address}: connect: {error}"))?;
        let traffic = Traffic::new(crowd);
        let mut builder = h2::client::Builder::new();
        // A guard for servers, and a count over the connection's life: frames that answer cancelled calls count, and
        // after 1,024 of them a good connection would be closed with all that is open on it.
        builder.max_local_error_reset_streams(None);
        builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW).enable_push(false);
        let wire = Wire::new(transport, Arc::clone(&traffic));
        let broken = |error: h2::Error| format!("{address}: HTTP/2 handshake: {error}");
        let (requests, mut connection) = builder.handshake::<_, Bytes>(wire).await.map_err(broken)?;
        // A peer that accepts and says nothing is not connected: its settings come first, whatever it serves.
        tokio::select! {
            biased;
            () = traffic.first_heard.notified() => {}
            ended = &mut connection => {
                ended.map_err(broken)?;
                return Err(format!("{address}: HTTP/2 handshake: closed by the peer"));
            }
        }
        traffic.limit(connection.max_concurrent_send_streams());
        let pings = connection.ping_pong();
        let probe = Some(requests.clone());
        let driver = Driver { connection, probe, pings, liveness: Liveness::default(), traffic: Arc::clone(&traffic) };
        Ok((Connection { requests, traffic }, driver))
    };
    match timeout(limit, attempt).await {
        Ok(done) => done,
        Err(_) => Err(format!("{address}: no HTTP/2 connection within {limit:?}")),
    }
}

impl Driver {
    /// Runs the connection until it is over or the peer says goodbye; then it may be run on. Cancel-safe.
    pub(crate) async fn run(&mut self) -> Ended {
        loop {
            let step = self.liveness.step(Instant::now(), self.traffic.seen());
            match step {
                Step::Dead => return Ended::Silent,
                Step::Ping => {
                    if let Some(pings) = &mut self.pings
                        && let Err(error) = pings.send_ping(Ping::opaque())
                    {
                        return Ended::Over(error.to_string());
                    }
                    continue;
                }
                Step::Rest => self.traffic.rest(),
                Step::Until(_) => {}
            }
            // What was opened between the look and the rest must not be missed.
            if step == Step::Rest && self.liveness.step(Instant::now(), self.traffic.seen()) != Step::Rest {
                continue;
            }
            let wake = async {
                match step {
                    Step::Until(at) => sleep_until(at).await,
                    _ => self.traffic.opened.notified().await,
                }
            };
            let pong = poll_fn(|cx| match &mut self.pings {
                Some(pings) => pings.poll_pong(cx),
                None => Poll::Pending,
            });
            let connection = &mut self.connection;
            let traffic = &self.traffic;
            let probe = &mut self.probe;
            let driven = poll_fn(|cx| {
                if let Poll::Ready(result) = Pin::new(&mut *connection).poll(cx) {
                    return Poll::Ready(Ended::Over(match result {
                        Ok(()) => "closed by the peer".to_owned(),
                        Err(error) => error.to_string(),
                    }));
                }
                // Its settings may have changed.
                traffic.limit(connection.max_concurrent_send_streams());
                let said_goodbye = match probe {
                    Some(requests) => matches!(requests.poll_ready(cx), Poll::Ready(Err(_))),
                    None => false,
                };
                if said_goodbye {
                    *probe = None;
                    return Poll::Ready(Ended::Goodbye);
                }
                Poll::Pending
            });
            tokio::select! {
                ended = driven => return ended,
                pong = pong => match pong {
                    Ok(_) => self.liveness.answered(Instant::now()),
                    Err(error) => return Ended::Over(error.to_string()),
                },
                () = wake => {}
            }
        }
    }

    /// Lets open requests end, then closes. No handle to the connection may be left.
    pub(crate) async fn drain(mut self) {
        self.probe = None;
        while let Ended::Goodbye = self.run().await {}
    }
}
