//! A request's body on its way out: it respects flow control, and can start again while little has been sent.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt as _;
use h2::SendStream;
use http_body::Body as _;
use tonic::{Status, body::Body};

/// What is kept of a body so that it can be sent again.
const KEPT: usize = 64 * 1024;
/// A first chunk of so many bytes is handed over without asking for capacity: most requests are one small message.
const SMALL: usize = 16 * 1024;

/// A request's body, and how far it has been sent.
pub(super) struct Upload {
    body: Body,
    /// The chunks that were read so far, while all of them fit.
    kept: Vec<Bytes>,
    kept_bytes: usize,
    replayable: bool,
    /// The body has no more chunks.
    ended: bool,
    /// How many of the kept chunks this attempt has taken.
    taken: usize,
    /// The chunk that is being sent, and whether it is the last one.
    sending: Option<(Bytes, bool)>,
    /// The chunk after that, if it was there already.
    peeked: Option<Result<Bytes, Status>>,
    begun: bool,
    done: bool,
}

impl Upload {
    pub(super) fn new(body: Body) -> Self {
        Self {
            body,
            kept: Vec::new(),
            kept_bytes: 0,
            replayable: true,
            ended: false,
            taken: 0,
            sending: None,
            peeked: None,
            begun: false,
            done: false,
        }
    }

    /// One that is these chunks, and all there.
    pub(super) fn of(chunks: Vec<Bytes>) -> Self {
        Self { kept: chunks, ended: true, ..Self::new(Body::empty()) }
    }

    /// All of it, if it is little and there already; asked before anything was sent. Otherwise nothing is lost.
    pub(super) fn whole(&mut self) -> Option<Vec<Bytes>> {
        let read = poll_fn(|cx| {
            while self.kept_bytes <= KEPT {
                match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        let Ok(chunk) = frame.into_data() else { continue };
                        self.kept_bytes += chunk.len();
                        self.kept.push(chunk);
                    }
                    Some(Err(status)) => {
                        self.peeked = Some(Err(status));
                        break;
                    }
                    None => {
                        self.ended = true;
                        break;
                    }
                }
            }
            Poll::Ready(())
        });
        read.now_or_never();
        (self.ended && self.kept_bytes <= KEPT).then(|| self.kept.clone())
    }

    /// Whether everything has been handed over.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Goes back to the start; false if that is not possible any more.
    pub(super) fn restart(&mut self) -> bool {
        if let Some(Err(_)) = self.peeked {
            return false;
        }
        (self.taken, self.sending, self.peeked, self.begun, self.done) = (0, None, None, false, false);
        self.replayable
    }

    /// The call is committed to this attempt: nothing need be kept.
    pub(super) fn commit(&mut self) {
        self.replayable = false;
        // What this attempt has not taken yet it still needs.
        self.kept.drain(..self.taken);
        self.taken = 0;
    }

    /// Goes on sending in a task of its own, while the response is read.
    pub(super) fn finish(mut self, mut stream: SendStream<Bytes>) {
        self.commit();
        tokio::spawn(async move {
            if poll_fn(|cx| self.poll(cx, &mut stream)).await.is_err() {
                stream.send_reset(h2::Reason::CANCEL);
            }
        });
    }

    /// Sends until everything is sent, or the peer wants no more.
    ///
    /// # Errors
    /// The body's own: the caller's encoder failed, say.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, stream: &mut SendStream<Bytes>) -> Poll<Result<(), Status>> {
        while !self.done {
            if self.sending.is_some() {
                ready!(self.poll_send(cx, stream));
                continue;
            }
            match self.poll_chunk(cx) {
                Poll::Ready(None) => {
                    // The peer may have reset the stream: its answer tells.
                    let _ = stream.send_data(Bytes::new(), true);
                    self.done = true;
                }
                Poll::Ready(Some(Ok(chunk))) => {
                    // With the end in the same frame, the server answers a frame earlier.
                    let next = self.poll_chunk(cx);
                    let last = matches!(next, Poll::Ready(None));
                    if let Poll::Ready(next) = next {
                        self.peeked = next;
                    }
                    self.sending = Some((chunk, last));
                }
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Err(status)),
                Poll::Pending => {
                    ready!(stream.poll_reset(cx)).ok();
                    self.done = true;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, stream: &mut SendStream<Bytes>) -> Poll<()> {
        let Some((chunk, last)) = &mut self.sending else { return Poll::Ready(()) };
        let now = if chunk.is_empty() || (!self.begun && chunk.len() <= SMALL) {
            chunk.len()
        } else {
            stream.reserve_capacity(chunk.len());
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(capacity)) => capacity.min(chunk.len()),
                Some(Err(_)) | None => {
                    self.done = true;
                    return Poll::Ready(());
                }
            }
        };
        self.begun = true;
        let part = chunk.split_to(now);
        let all = chunk.is_empty();
        let end = all && *last;
        if stream.send_data(part, end).is_err() || end {
            self.done = true;
        }
        if all {
            self.sending = None;
        }
        Poll::Ready(())
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        if let Some(peeked) = self.peeked.take() {
            return Poll::Ready(Some(peeked));
        }
        if let Some(chunk) = self.kept.get(self.taken) {
            self.taken += 1;
            return Poll::Ready(Some(Ok(chunk.clone())));
        }
        while !self.ended {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                // gRPC requests have no trailers; those of other protocols are dropped, as tonic's own channel would not.
                Some(Ok(frame)) => {
                    let Ok(chunk) = frame.into_data() else { continue };
                    self.keep(&chunk);
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => self.ended = true,
            }
        }
        Poll::Ready(None)
    }

    fn keep(&mut self, chunk: &Bytes) {
        if !self.replayable {
            return;
        }
        self.kept_bytes += chunk.len();
        if self.kept_bytes > KEPT {
            self.replayable = false;
            self.kept = Vec::new();
            self.taken = 0;
        } else {
            self.kept.push(chunk.clone());
            self.taken += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    fn body(chunks: Vec<Bytes>, goes_on: bool) -> Upload {
        let frames =
            futures::stream::iter(chunks.into_iter().map(|chunk| Ok::<_, Status>(http_body::Frame::data(chunk))));
        let frames: futures::stream::BoxStream<'_, _> = match goes_on {
            true => Box::pin(futures::StreamExt::chain(frames, futures::stream::pending())),
            false => Box::pin(frames),
        };
        Upload::new(Body::new(StreamBody::new(frames)))
    }

    fn rest(upload: &mut Upload) -> Vec<Bytes> {
        let mut all = Vec::new();
        while let Some(Some(Ok(chunk))) = poll_fn(|cx| upload.poll_chunk(cx)).now_or_never() {
            all.push(chunk);
        }
        all
    }

    #[test]
    fn a_little_body_that_is_there_is_known_whole_and_may_still_be_sent() {
        let chunks = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let mut upload = body(chunks.clone(), false);
        assert_eq!(upload.whole(), Some(chunks.clone()));
        assert_eq!(rest(&mut upload), chunks);
        assert!(upload.restart());
        assert_eq!(rest(&mut upload), chunks);
        assert_eq!(rest(&mut Upload::of(chunks.clone())), chunks);
    }

    #[test]
    fn one_that_goes_on_or_is_large_is_not_and_nothing_of_it_is_lost() {
        let chunks = vec![Bytes::from_static(b"one"); 3];
        let mut streams = body(chunks.clone(), true);
        assert_eq!(streams.whole(), None);
        assert_eq!(rest(&mut streams), chunks);
        let chunks = vec![Bytes::from(vec![7; KEPT / 2]); 5];
        let mut large = body(chunks.clone(), false);
        assert_eq!(large.whole(), None);
        assert_eq!(rest(&mut large), chunks);
        assert!(!large.restart());
    }
}
