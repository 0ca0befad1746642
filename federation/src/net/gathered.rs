//! Writes that follow close on each other go out as one.
//!
//! HTTP/2 hands each large frame to the socket by itself, and the streams of a connection become ready one by one: a
//! change that concerns a hundred of them would be a hundred system calls. Here a flush that follows close on another is
//! put off until everything that is ready to run has run once. Who flushes seldom is never put off.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Flushes that come closer together than this are gathered.
const CLOSE: Duration = Duration::from_micros(500);
/// Gathered bytes that are not held back any longer.
const ENOUGH: usize = 64 << 10;

/// A stream whose owner reads it whenever it is woken, as an HTTP/2 connection does: what was put off is written then.
pub(crate) struct Gathered<T> {
    io: T,
    /// What is put off.
    waiting: BytesMut,
    gathering: bool,
    /// Whether anything was written since the last flush.
    written: bool,
    /// How many flushes were put off since the last that was not.
    put_off: u32,
    last_flush: Option<Instant>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Gathered<T> {
    pub(crate) fn new(io: T) -> Self {
        Self { io, waiting: BytesMut::new(), gathering: false, written: false, put_off: 0, last_flush: None }
    }

    /// Writes what was put off.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Ends what was put off.
    fn poll_put_off(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_waiting(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        // An idle connection keeps no buffer.
        self.waiting = BytesMut::new();
        // One alone gained nothing by its wait.
        self.gathering = self.put_off > 1;
        self.put_off = 0;
        Poll::Ready(Ok(()))
    }

    /// Makes room for more; gives the room.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.waiting.len() >= ENOUGH {
            let written = self.poll_waiting(cx)?;
            if written.is_pending() && self.waiting.len() >= ENOUGH {
                return Poll::Pending;
            }
        }
        if self.waiting.is_empty() {
            self.waiting.reserve(ENOUGH);
        }
        Poll::Ready(Ok(ENOUGH - self.waiting.len()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.put_off > 0
            && let Poll::Ready(Err(error)) = self.poll_put_off(cx)
        {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gathered<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.written = true;
        if !self.gathering && self.waiting.is_empty() {
            return Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        }
        let room = ready!(self.poll_room(cx))?;
        let before = self.waiting.len();
        for buf in bufs {
            let left = room - (self.waiting.len() - before);
            self.waiting.extend_from_slice(&buf[..buf.len().min(left)]);
        }
        Poll::Ready(Ok(self.waiting.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathering && self.written {
            self.written = false;
            self.put_off += 1;
            if self.put_off == 1 {
                // To be polled again, behind all that is ready now.
                cx.waker().wake_by_ref();
            }
            return Poll::Ready(Ok(()));
        }
        if self.put_off > 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_waiting(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        if std::mem::take(&mut self.written) {
            let now = Instant::now();
            self.gathering = self.last_flush.replace(now).is_some_and(|last| now < last + CLOSE);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_put_off(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    /// Remembers what was written and flushed; takes `room` bytes.
    #[derive(Default)]
    struct Socket {
        writes: Vec<Vec<u8>>,
        flushed: usize,
        room: usize,
    }

    impl AsyncRead for Socket {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Socket {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let taken = buf.len().min(self.room);
            if taken == 0 {
                return Poll::Pending;
            }
            self.room -= taken;
            self.writes.push(buf[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushed = self.writes.len();
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A gathered socket, driven as an HTTP/2 connection does.
    struct Case {
        gathered: Gathered<Socket>,
        woken: Arc<Woken>,
    }

    impl Case {
        fn new() -> Self {
            let socket = Socket { room: usize::MAX, ..Socket::default() };
            Self { gathered: Gathered::new(socket), woken: Arc::default() }
        }

        fn with<R>(&mut self, poll: impl FnOnce(Pin<&mut Gathered<Socket>>, &mut Context<'_>) -> R) -> R {
            let waker = Waker::from(self.woken.clone());
            poll(Pin::new(&mut self.gathered), &mut Context::from_waker(&waker))
        }

        /// One frame.
        fn send(&mut self, frame: &[u8]) {
            assert!(matches!(self.with(|io, cx| io.poll_write(cx, frame)), Poll::Ready(Ok(n)) if n == frame.len()));
            assert!(self.with(AsyncWrite::poll_flush).is_ready());
        }

        /// A turn of the connection: it looks for something to read.
        fn turn(&mut self) {
            assert!(self.with(|io, cx| io.poll_read(cx, &mut ReadBuf::new(&mut [0; 8]))).is_pending());
        }

        fn writes(&self) -> Vec<&str> {
            self.gathered.io.writes.iter().map(|write| std::str::from_utf8(write).unwrap()).collect()
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_flushes_seldom_waits_for_nothing() {
        let mut case = Case::new();
        for _ in 0..3 {
            case.send(b"frame");
            tokio::time::advance(CLOSE).await;
        }
        assert_eq!((case.writes().len(), case.gathered.io.flushed, case.woken()), (3, 3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn flushes_that_follow_close_on_each_other_go_out_as_one_in_the_next_turn() {
        let mut case = Case::new();
        for frame in ["a", "b", "c", "d", "e"] {
            case.send(frame.as_bytes());
        }
        assert_eq!((case.writes(), case.woken()), (vec!["a", "b"], 1), "and it asks for that turn");
        case.turn();
        assert_eq!((case.writes(), case.gathered.io.flushed), (vec!["a", "b", "cde"], 3));
        case.turn();
        assert_eq!((case.writes().len(), case.woken()), (3, 1), "nothing is left");
        // A frame alone, later: it gained nothing by being put off, so the next is not.
        case.send(b"f");
        case.turn();
        tokio::time::advance(CLOSE).await;
        case.send(b"g");
        assert_eq!((case.writes(), case.woken()), (vec!["a", "b", "cde", "f", "g"], 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_put_off_has_a_limit_and_a_socket_that_takes_nothing_holds_up_the_writer() {
        let mut case = Case::new();
        case.send(b"a");
        case.send(b"b");
        case.gathered.io.room = 0;
        let frame = vec![b'x'; ENOUGH];
        case.send(&frame);
        assert!(case.with(|io, cx| io.poll_write(cx, b"y")).is_pending(), "no more is taken");
        case.turn();
        case.gathered.io.room = ENOUGH / 2;
        assert!(case.with(|io, cx| io.poll_write(cx, b"y")).is_ready(), "as soon as there is room");
        case.gathered.io.room = usize::MAX;
        case.turn();
        let sent: Vec<u8> = case.gathered.io.writes.concat();
        assert_eq!(sent, [b"ab".as_slice(), &frame, b"y"].concat(), "all of it, in order");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_put_off_goes_before_the_end() {
        let mut case = Case::new();
        for frame in ["a", "b", "c"] {
            case.send(frame.as_bytes());
        }
        assert!(case.with(AsyncWrite::poll_shutdown).is_ready());
        assert_eq!(case.writes(), ["a", "b", "c"]);
    }
}
