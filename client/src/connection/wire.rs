//! The byte stream under HTTP/2, watched: when the peer was last heard, and how much was ever written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::dial::Transport;
use super::liveness::Seen;
use super::slot::Crowd;

/// What passes over one connection. Times are microseconds since `start`.
#[derive(Debug)]
pub(crate) struct Traffic {
    start: Instant,
    heard: AtomicU64,
    asked: AtomicU64,
    last_asked: AtomicU64,
    written: AtomicU64,
    open: AtomicUsize,
    /// How many streams the peer lets be open.
    limit: AtomicUsize,
    crowd: Arc<Crowd>,
    /// The watcher rests until a request is opened. This and `open` are ordered against each other: the watcher raises
    /// one and then reads the other, and so does a request.
    resting: AtomicBool,
    pub(crate) opened: Notify,
    pub(crate) first_heard: Notify,
}

impl Traffic {
    /// Nothing yet. `crowd` is told when a stream may be opened that might not before.
    pub(crate) fn new(crowd: Arc<Crowd>) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            heard: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            last_asked: AtomicU64::new(0),
            written: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            limit: AtomicUsize::new(usize::MAX),
            crowd,
            resting: AtomicBool::new(false),
            opened: Notify::new(),
            first_heard: Notify::new(),
        })
    }

    fn now(&self) -> u64 {
        // Never 0, which stands for "not yet".
        self.start.elapsed().as_micros() as u64 + 1
    }

    /// A request is about to be opened, unless as many are as the peer lets be: then this is false.
    pub(crate) fn ask(&self) -> bool {
        let limit = self.limit.load(Relaxed);
        let more = |open: usize| (open < limit).then(|| open + 1);
        if self.open.fetch_update(SeqCst, SeqCst, more).is_err() {
            return false;
        }
        let now = self.now();
        self.last_asked.store(now, Relaxed);
        if self.asked.load(Relaxed) <= self.heard.load(Relaxed) {
            self.asked.store(now, Relaxed);
        }
        if self.resting.swap(false, SeqCst) {
            self.opened.notify_one();
        }
        true
    }

    /// A request that was asked for has ended, however.
    pub(crate) fn end(&self) {
        self.open.fetch_sub(1, SeqCst);
        self.crowd.freed();
    }

    /// So many streams may be open from now on.
    pub(crate) fn limit(&self, limit: usize) {
        // Asked at every turn, and nearly always the same.
        let before = self.limit.load(Relaxed);
        if limit != before {
            self.limit.store(limit, SeqCst);
        }
        if limit > before {
            self.crowd.freed();
        }
    }

    /// How many requests are open, and how many may be.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.open.load(Relaxed), self.limit.load(Relaxed))
    }

    /// The watcher will look again only when [`Traffic::opened`] tells it.
    pub(crate) fn rest(&self) {
        self.resting.store(true, SeqCst);
    }

    pub(crate) fn seen(&self) -> Seen {
        let at = |micros: &AtomicU64| self.start + std::time::Duration::from_micros(micros.load(Relaxed));
        Seen {
            open: self.open.load(SeqCst),
            heard: at(&self.heard),
            asked: at(&self.asked),
            last_asked: at(&self.last_asked),
        }
    }

    /// How many bytes have ever left.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }
}

/// A transport that tells its [`Traffic`].
pub(crate) struct Wire {
    transport: Box<dyn Transport>,
    traffic: Arc<Traffic>,
}

impl Wire {
    pub(crate) fn new(transport: Box<dyn Transport>, traffic: Arc<Traffic>) -> Self {
        Self { transport, traffic }
    }

    fn check(&self) -> io::Result<()> {
        if self.transport.hung_up() {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the peer has closed the connection"));
        }
        Ok(())
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = written {
            self.traffic.written.fetch_add(n as u64, Relaxed);
        }
        written
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(cx, buf))?;
        if buf.filled().len() > before && self.traffic.heard.swap(self.traffic.now(), Relaxed) == 0 {
            self.traffic.first_heard.notify_one();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        let written = Pin::new(&mut self.transport).poll_write(cx, buf);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        let written = Pin::new(&mut self.transport).poll_write_vectored(cx, bufs);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
