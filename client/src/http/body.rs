//! A response's body: the request counts as in flight until it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::probe::Probe;
use crate::balancer::{Endpoint, Outcome, Pick};
use crate::load::{LocalityLoad, OpenRequest};
use crate::orca::OrcaReport;

/// A request at its endpoint, and what its end must tell.
#[derive(Debug)]
pub(super) struct Guard {
    pick: Pick<Probe>,
    reported: OpenRequest,
    begun: Instant,
    /// What its end means unless it breaks off.
    outcome: Outcome,
    report: Option<OrcaReport>,
}

impl Guard {
    pub(super) fn new(pick: Pick<Probe>, reported: Option<Arc<LocalityLoad>>) -> Self {
        Self {
            pick,
            reported: OpenRequest::start(reported),
            begun: Instant::now(),
            outcome: Outcome::Success,
            report: None,
        }
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint<Probe>> {
        self.pick.endpoint()
    }

    /// The head of the response has come. A server's error is the endpoint's fault, a client's is not.
    pub(super) fn answered(mut self, status: StatusCode) -> Self {
        self.pick.answered(self.begun.elapsed());
        if status.is_server_error() {
            self.outcome = Outcome::Failure;
        }
        self
    }

    pub(super) fn finish(mut self, outcome: Outcome) {
        self.reported.finish(outcome != Outcome::Failure, self.report.as_ref());
        self.pick.finish(outcome, Some(self.begun.elapsed()), self.report.as_ref());
    }
}

/// A body whose end is the request's.
#[derive(Debug)]
pub struct CountedBody<R> {
    body: R,
    /// Until the end.
    guard: Option<Guard>,
}

impl<R: Body> CountedBody<R> {
    pub(super) fn new(body: R, guard: Guard) -> Self {
        let mut counted = Self { body, guard: Some(guard) };
        // Of a body that is empty nobody need read the end.
        if counted.body.is_end_stream() {
            counted.end(false);
        }
        counted
    }
}

impl<R> CountedBody<R> {
    fn end(&mut self, broken: bool) {
        if let Some(guard) = self.guard.take() {
            let outcome = if broken { Outcome::Failure } else { guard.outcome };
            guard.finish(outcome);
        }
    }

    fn read(&mut self, trailers: &HeaderMap) {
        if let Some(guard) = &mut self.guard {
            guard.report = OrcaReport::of(trailers);
        }
    }
}

impl<R> Drop for CountedBody<R> {
    fn drop(&mut self) {
        // Nobody reads on; what was answered was answered.
        if let Some(guard) = self.guard.take() {
            let outcome = if guard.outcome == Outcome::Failure { Outcome::Failure } else { Outcome::Cancelled };
            guard.finish(outcome);
        }
    }
}

impl<R: Body + Unpin> Body for CountedBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.read(trailers);
                }
                if self.body.is_end_stream() {
                    self.end(false);
                }
            }
            Some(Err(_)) => self.end(true),
            None => self.end(false),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
