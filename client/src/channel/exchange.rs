//! One attempt: the request goes to its endpoint, and the head of a response comes back, or does not.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};

use super::reason::Reason;
use super::upload::Upload;
use super::{Failure, Picked, error};
use crate::balancer::{Balancer, Endpoint, Outcome, Pick};
use crate::connection::{Owed, Slot};
use crate::load::OpenRequest;
use crate::orca::OrcaReport;

/// One attempt at its endpoint: counts as in flight until it is finished or dropped.
#[derive(Debug)]
pub(super) struct Attempt {
    pick: Pick<Slot>,
    reported: OpenRequest,
    owed: Option<Owed>,
    begun: Instant,
    pub(super) picked: Picked,
    pub(super) reason: Reason,
}

impl Attempt {
    pub(super) fn new(pick: Pick<Slot>, picked: Picked, reason: Reason) -> Self {
        let reported = OpenRequest::start(pick.endpoint().place().load.clone());
        Self { pick, reported, owed: None, begun: Instant::now(), picked, reason }
    }

    /// Where it goes.
    pub(super) fn endpoint(&self) -> &Arc<Endpoint<Slot>> {
        self.pick.endpoint()
    }

    /// The first byte of the answer has come.
    fn answered(&mut self) {
        self.pick.answered(self.begun.elapsed());
    }

    /// The attempt has ended with this status; `trailers` may tell the server's load.
    pub(super) fn finish(mut self, code: Code, trailers: &HeaderMap) {
        let report = OrcaReport::of(trailers);
        self.reported.finish(code == Code::Ok, report.as_ref());
        let outcome = if error::is_the_endpoints_fault(code) { Outcome::Failure } else { Outcome::Success };
        self.pick.finish(outcome, Some(self.begun.elapsed()), report.as_ref());
    }

    pub(super) fn out_of_time(&self) -> Status {
        let what = format!("{}: no answer before the deadline", self.picked.address);
        error::status(Code::DeadlineExceeded, Failure::Deadline, Some(self.picked.clone()), what)
    }

    fn failed(self, status: Status, untouched: bool, repeatable: bool) -> Failed {
        self.finish(status.code(), &HeaderMap::new());
        Failed { status, untouched, repeatable, too_slow: false }
    }
}

/// The head of a response, and what is still to be done.
pub(super) struct Answered {
    pub(super) response: Response<RecvStream>,
    pub(super) attempt: Attempt,
    /// Where the rest of the request goes.
    pub(super) stream: SendStream<Bytes>,
}

/// What came of an attempt that brought no response.
pub(super) struct Failed {
    pub(super) status: Status,
    /// No byte of it reached a living connection, or the server said that it did nothing.
    pub(super) untouched: bool,
    /// It may be repeated if the route says so.
    pub(super) repeatable: bool,
    /// It took longer than one attempt may: whatever its status, that is what a limit for one is for.
    pub(super) too_slow: bool,
}

/// What holds for each attempt of a call.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) service: &'a str,
    pub(super) balancer: &'a Balancer<Slot>,
    /// The call's. Its timer is the caller's.
    pub(super) deadline: Option<Instant>,
    /// How long one attempt may take.
    pub(super) limit: Option<Duration>,
}

impl Terms<'_> {
    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|at| Instant::now() >= at)
    }

    /// Nobody else shall pick an endpoint whose connection is gone, though its keeper may not have run yet.
    fn withdraw(&self, attempt: &Attempt) {
        self.balancer.withdraw(attempt.pick.endpoint(), Instant::now(), Slot::is_connected);
    }

    fn out_of_time(&self, picked: &Picked) -> Status {
        let what = format!("{}: no answer from {} before the deadline", self.service, picked.address);
        error::status(Code::DeadlineExceeded, Failure::Deadline, Some(picked.clone()), what)
    }
}

/// Sends the request and waits for the head of its response.
pub(super) async fn exchange(
    mut attempt: Attempt,
    request: Request<()>,
    upload: &mut Upload,
    terms: Terms<'_>,
) -> Result<Answered, Failed> {
    let claimed = {
        let mut claim = pin!(attempt.pick.endpoint().transport().claim());
        // The call's timer has this polled once more before it gives up: so the endpoint's health hears of it.
        poll_fn(|cx| match claim.as_mut().poll(cx) {
            Poll::Ready(claimed) => Poll::Ready(Some(claimed)),
            Poll::Pending if terms.is_late() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    };
    let (connection, owed) = match claimed {
        Some(Some(claimed)) => claimed,
        Some(None) => {
            let what = format!("{}: the connection has just ended", attempt.picked.address);
            let status = error::status(Code::Unavailable, Failure::Broken, Some(attempt.picked.clone()), what);
            terms.withdraw(&attempt);
            return Err(attempt.failed(status, true, true));
        }
        None => {
            let status = terms.out_of_time(&attempt.picked);
            return Err(attempt.failed(status, false, false));
        }
    };
    let (mut response, mut stream) = match connection.open(request).await {
        Ok(opened) => opened,
        Err(error) => {
            let status = error::broken(&error, &attempt.picked);
            attempt.pick.endpoint().transport().forget(&connection);
            terms.withdraw(&attempt);
            return Err(attempt.failed(status, true, true));
        }
    };
    // An old handle would keep a connection from closing when it is replaced.
    drop(connection);
    let owed = attempt.owed.insert(owed);
    let answer = poll_fn(|cx| {
        if let Poll::Ready(Err(status)) = upload.poll(cx, &mut stream) {
            return Poll::Ready(Err(status));
        }
        match Pin::new(&mut response).poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Ok(Some(answer))),
            Poll::Pending if terms.is_late() => Poll::Ready(Ok(None)),
            Poll::Pending => Poll::Pending,
        }
    });
    let answer = match terms.limit {
        None => answer.await,
        Some(limit) => match timeout(limit, answer).await {
            Ok(answered) => answered,
            Err(_) => {
                let what = format!("{}: no answer within {limit:?}, the limit of one try", attempt.picked.address);
                let picked = Some(attempt.picked.clone());
                let status = error::status(Code::DeadlineExceeded, Failure::Deadline, picked, what);
                return Err(Failed { too_slow: true, ..attempt.failed(status, false, true) });
            }
        },
    };
    match answer {
        Ok(None) => {
            let status = terms.out_of_time(&attempt.picked);
            Err(attempt.failed(status, false, false))
        }
        Ok(Some(Ok(response))) => {
            attempt.answered();
            Ok(Answered { response, attempt, stream })
        }
        Ok(Some(Err(error))) => {
            let refused = error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            let unprocessed = error.is_go_away() && error.is_remote();
            let untouched = refused || unprocessed || owed.nothing_left();
            let status = error::broken(&error, &attempt.picked);
            Err(attempt.failed(status, untouched, true))
        }
        // The caller's own error: no endpoint is to blame, and it would come again.
        Err(status) => Err(Failed { status, untouched: false, repeatable: false, too_slow: false }),
    }
}

/// The status of a response that has no body; `None` if more is to come.
pub(super) fn trailers_only(response: &Response<RecvStream>) -> Option<Code> {
    let status = Status::from_header_map(response.headers()).map(|status| status.code());
    if response.body().is_end_stream() { Some(status.unwrap_or(Code::Unknown)) } else { None }
}
