//! A response's body: the request counts as in flight until it ends, and its end tells the outcome.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status};

use super::error;
use super::exchange::Attempt;

/// The body of a response.
#[derive(Debug)]
pub struct ResponseBody {
    stream: RecvStream,
    /// Until the end; dropped before, the call was cancelled.
    attempt: Option<Attempt>,
    deadline: Option<Pin<Box<Sleep>>>,
    data_is_over: bool,
}

impl ResponseBody {
    pub(super) fn new(stream: RecvStream, attempt: Option<Attempt>, deadline: Option<Instant>) -> Self {
        Self { stream, attempt, deadline: deadline.map(|at| Box::pin(sleep_until(at))), data_is_over: false }
    }

    fn fail(&mut self, failed: impl FnOnce(&Attempt) -> Status) -> Option<Result<Frame<Bytes>, Status>> {
        let attempt = self.attempt.take()?;
        let status = failed(&attempt);
        attempt.finish(status.code(), &HeaderMap::new());
        Some(Err(status))
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_is_over {
            if let Some(data) = ready!(self.stream.poll_data(cx)) {
                return Poll::Ready(Some(data.and_then(|data| {
                    // It is in the caller's hands: the server may send as much again.
                    self.stream.flow_control().release_capacity(data.len())?;
                    Ok(Frame::data(data))
                })));
            }
            self.data_is_over = true;
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.attempt.is_none() {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = this.poll_stream(cx) else {
            if let Some(deadline) = &mut this.deadline {
                ready!(deadline.as_mut().poll(cx));
                return Poll::Ready(this.fail(Attempt::out_of_time));
            }
            return Poll::Pending;
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref()
                    && let Some(attempt) = this.attempt.take()
                {
                    let code = Status::from_header_map(trailers).map_or(Code::Unknown, |status| status.code());
                    attempt.finish(code, trailers);
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => this.fail(|attempt| error::broken(&error, &attempt.picked)),
            None => {
                if let Some(attempt) = this.attempt.take() {
                    attempt.finish(Code::Unknown, &HeaderMap::new());
                }
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.attempt.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
