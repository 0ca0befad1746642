//! One call: attempts until one is answered, or none may follow.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::header::{HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, Response, Uri, request};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Code, Status, body::Body};
use tracing::Instrument as _;

use super::upload::Upload;
use super::{CallObserver, Core, Failure, LastPick, Picked, RequestHints, ResponseBody, deadline, error};
use crate::balancer::{Outcome, Pick, PickError, RequestInfo};
use crate::connection::{Owed, Slot};
use crate::load::OpenRequest;
use crate::orca::OrcaReport;
use crate::routing::{Head, Passed, Routed, RoutingError};
use crate::xds::model::Retry;

/// Transparent retries of one call. Each means that an endpoint had just died; so many at once mean something else.
const TRANSPARENT: u32 = 16;

const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("portolan-rust/", env!("CARGO_PKG_VERSION")));

/// One attempt at its endpoint: counts as in flight until it is finished or dropped.
#[derive(Debug)]
pub(super) struct Attempt {
    pick: Pick<Slot>,
    reported: OpenRequest,
    owed: Option<Owed>,
    begun: Instant,
    pub(super) picked: Picked,
}

impl Attempt {
    /// The first byte of the answer has come.
    pub(super) fn answered(&mut self) {
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
}

/// What came of an attempt that brought no response.
struct Failed {
    status: Status,
    /// No byte of it reached a living connection, or the server said that it did nothing.
    untouched: bool,
    /// It may be repeated if the route says so.
    repeatable: bool,
    /// It took longer than one attempt may: whatever its status, that is what a limit for one is for.
    too_slow: bool,
}

struct Call {
    core: Arc<Core>,
    routed: Routed<Slot>,
    head: request::Parts,
    upload: Option<Upload>,
    deadline: Option<Instant>,
    observer: Option<CallObserver>,
    hints: RequestHints,
    /// Endpoints that failed already.
    tried: Vec<SocketAddr>,
    attempts: u32,
    picked: Option<Picked>,
    /// Among those of its cluster that are tried again, from its first retry on.
    retrying: Option<Passed>,
}

pub(super) async fn run(core: Arc<Core>, request: Request<Body>) -> Result<Response<ResponseBody>, Status> {
    let begun = Instant::now();
    let (mut head, body) = request.into_parts();
    let routed = route(&core, &head, begun).await?;
    let deadline = deadline::timeout(&mut head.headers, routed.timeout).map(|allowed| begun + allowed);
    prepare(&mut head, &core)?;
    if routed.forward().is_some_and(|forward| forward.retry.is_some()) {
        routed.cluster.budget.earn(routed.cluster.retry_percent());
    }
    let observer = head.extensions.remove();
    let hints = head.extensions.remove().unwrap_or_default();
    let upload = Some(Upload::new(body));
    let mut call = Call {
        core,
        routed,
        head,
        upload,
        deadline,
        observer,
        hints,
        tried: Vec::new(),
        attempts: 0,
        picked: None,
        retrying: None,
    };
    match deadline {
        None => call.attempts().await,
        Some(at) => match timeout_at(at, call.attempts()).await {
            Ok(done) => done,
            Err(_) => Err(call.out_of_time()),
        },
    }
}

/// Where the call goes. As long as no route is known, it waits until its caller's deadline.
async fn route(core: &Core, head: &request::Parts, begun: Instant) -> Result<Routed<Slot>, Status> {
    let seen = Head { uri: &head.uri, headers: &head.headers };
    let routed = match core.router.route(&seen) {
        Err(RoutingError::Pick(PickError::NoAssignment)) => match deadline::callers(&head.headers) {
            None => core.router.routed(&seen).await,
            Some(allowed) => {
                let routed = timeout_at(begun + allowed, core.router.routed(&seen)).await;
                routed.map_err(|_| {
                    let why = PickError::NoAssignment;
                    let what = format!("{}: the deadline passed before an endpoint was ready: {why}", core.service);
                    error::status(Code::DeadlineExceeded, Failure::Deadline, None, what)
                })?
            }
        },
        routed => routed,
    };
    routed.map_err(|why| error::no_way(&core.service, &why))
}

/// A request as it goes out: an absolute URI and our name.
fn prepare(head: &mut request::Parts, core: &Core) -> Result<(), Status> {
    let mut uri = std::mem::take(&mut head.uri).into_parts();
    uri.scheme = Some(core.scheme.clone());
    uri.authority.get_or_insert_with(|| core.authority.clone());
    head.uri = Uri::from_parts(uri).map_err(|error| Status::internal(format!("the request's URI: {error}")))?;
    head.version = http::Version::HTTP_2;
    head.headers.entry(USER_AGENT).or_insert(AGENT);
    Ok(())
}

impl Call {
    async fn attempts(&mut self) -> Result<Response<ResponseBody>, Status> {
        let mut untouched = 0;
        let mut retries = 0;
        loop {
            let attempt = self.pick().await?;
            let Picked { address, locality, priority, attempts } = &attempt.picked;
            let service = &*self.core.service;
            let span = tracing::debug_span!("attempt", service, %address, %locality, priority, attempts);
            let address = *address;
            let failed = match self.attempt(attempt).instrument(span).await {
                Ok((response, attempt)) => {
                    let code = trailers_only(&response);
                    let wait = code.and_then(|code| self.may_retry(code, response.headers(), retries));
                    let Some(wait) = wait.filter(|_| self.restart()) else {
                        return Ok(self.respond(response, attempt, code));
                    };
                    attempt.finish(code.unwrap_or(Code::Unknown), response.headers());
                    drop(response);
                    retries += 1;
                    self.tried.push(address);
                    sleep(wait).await;
                    continue;
                }
                Err(failed) => failed,
            };
            self.tried.push(address);
            if failed.untouched && untouched < TRANSPARENT && self.restart() {
                untouched += 1;
                continue;
            }
            let wait = match failed.too_slow {
                true => self.wait_before(None, retries),
                false => self.may_retry(failed.status.code(), &HeaderMap::new(), retries),
            };
            match wait.filter(|_| failed.repeatable && self.restart()) {
                Some(wait) => {
                    retries += 1;
                    sleep(wait).await;
                }
                None => return Err(failed.status),
            }
        }
    }

    async fn pick(&mut self) -> Result<Attempt, Status> {
        let RequestHints { hash, cost, prefix } = &self.hints;
        let prefix = prefix.as_deref().unwrap_or_default();
        let request = RequestInfo { hash: hash.or(self.routed.hash), cost: *cost, prefix, avoid: &self.tried };
        let (service, cluster) = (&self.core.service, &*self.routed.cluster);
        let picked = match cluster.balancer.pick(&request) {
            Err(why) if why.may_pass() => {
                let _waits = cluster.wait().map_err(|limit| error::too_many_wait(service, limit))?;
                cluster.balancer.ready(&request).await
            }
            picked => picked,
        };
        let pick = picked.map_err(|why| error::no_endpoint(service, &why))?;
        self.attempts += 1;
        let place = pick.endpoint().place();
        let picked = Picked {
            address: pick.endpoint().address(),
            locality: place.locality.clone(),
            priority: pick.priority(),
            attempts: self.attempts,
        };
        if let Some(observer) = &self.observer {
            observer.tell(&picked);
        }
        self.core.remember(LastPick::new(&pick, picked.clone()));
        self.picked = Some(picked.clone());
        let pick = pick.hold();
        Ok(Attempt {
            pick,
            reported: OpenRequest::start(place.load.clone()),
            owed: None,
            begun: Instant::now(),
            picked,
        })
    }

    /// Sends the request and waits for the head of its response.
    async fn attempt(&mut self, mut attempt: Attempt) -> Result<(Response<RecvStream>, Attempt), Failed> {
        let Some(connection) = attempt.pick.endpoint().transport().connection() else {
            let what = format!("{}: the connection has just ended", attempt.picked.address);
            let status = error::status(Code::Unavailable, Failure::Broken, Some(attempt.picked.clone()), what);
            self.withdraw(&attempt);
            return Err(Self::failed(attempt, status, true, true));
        };
        let opened = connection.open(self.request()).await;
        let (mut response, mut stream, owed) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let status = error::broken(&error, &attempt.picked);
                attempt.pick.endpoint().transport().forget(&connection);
                self.withdraw(&attempt);
                return Err(Self::failed(attempt, status, true, true));
            }
        };
        // An old handle would keep a connection from closing when it is replaced.
        drop(connection);
        let owed = attempt.owed.insert(owed);
        let limit = self.retry().and_then(|retry| retry.per_try_timeout);
        let Some(upload) = &mut self.upload else {
            let status = Status::internal("the request's body is gone");
            return Err(Self::failed(attempt, status, false, false));
        };
        let deadline = self.deadline;
        let answer = poll_fn(|cx| {
            if let Poll::Ready(Err(status)) = upload.poll(cx, &mut stream) {
                return Poll::Ready(Err(status));
            }
            match Pin::new(&mut response).poll(cx) {
                Poll::Ready(answer) => Poll::Ready(Ok(Some(answer))),
                // The call's timer has this polled once more before it gives up: so the endpoint's health hears of it.
                Poll::Pending if deadline.is_some_and(|at| Instant::now() >= at) => Poll::Ready(Ok(None)),
                Poll::Pending => Poll::Pending,
            }
        });
        let answer = match limit {
            None => answer.await,
            Some(limit) => match timeout(limit, answer).await {
                Ok(answered) => answered,
                Err(_) => {
                    let what = format!("{}: no answer within {limit:?}, the limit of one try", attempt.picked.address);
                    let picked = Some(attempt.picked.clone());
                    let status = error::status(Code::DeadlineExceeded, Failure::Deadline, picked, what);
                    let failed = Self::failed(attempt, status, false, true);
                    return Err(Failed { too_slow: true, ..failed });
                }
            },
        };
        match answer {
            Ok(None) => {
                let status = self.out_of_time();
                Err(Self::failed(attempt, status, false, false))
            }
            Ok(Some(Ok(response))) => {
                attempt.answered();
                self.finish_upload(stream);
                Ok((response, attempt))
            }
            Ok(Some(Err(error))) => {
                let refused =
                    error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
                let unprocessed = error.is_go_away() && error.is_remote();
                let untouched = refused || unprocessed || owed.nothing_left();
                let status = error::broken(&error, &attempt.picked);
                Err(Self::failed(attempt, status, untouched, true))
            }
            // The caller's own error: no endpoint is to blame, and it would come again.
            Err(status) => Err(Failed { status, untouched: false, repeatable: false, too_slow: false }),
        }
    }

    /// Nobody else shall pick an endpoint whose connection is gone, though its keeper may not have run yet.
    fn withdraw(&self, attempt: &Attempt) {
        let endpoint = attempt.pick.endpoint();
        self.routed.cluster.balancer.withdraw(endpoint, Instant::now(), Slot::is_connected);
    }

    fn failed(attempt: Attempt, status: Status, untouched: bool, repeatable: bool) -> Failed {
        attempt.finish(status.code(), &HeaderMap::new());
        Failed { status, untouched, repeatable, too_slow: false }
    }

    fn request(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.head.uri.clone();
        *request.version_mut() = self.head.version;
        *request.headers_mut() = self.head.headers.clone();
        if self.attempts > 1 {
            request.headers_mut().insert(PREVIOUS_ATTEMPTS, HeaderValue::from(self.attempts - 1));
        }
        request
    }

    /// A client that streams goes on sending while the response is read.
    fn finish_upload(&mut self, mut stream: SendStream<Bytes>) {
        if let Some(mut upload) = self.upload.take_if(|upload| !upload.is_done()) {
            upload.commit();
            tokio::spawn(async move {
                if poll_fn(|cx| upload.poll(cx, &mut stream)).await.is_err() {
                    stream.send_reset(h2::Reason::CANCEL);
                }
            });
        }
    }

    /// What the route says of retries.
    fn retry(&self) -> Option<&Retry> {
        self.routed.forward()?.retry.as_ref()
    }

    fn restart(&mut self) -> bool {
        self.upload.as_mut().is_some_and(Upload::restart)
    }

    /// How long to wait before a retry; `None` if there may be none.
    fn may_retry(&mut self, code: Code, headers: &HeaderMap, retries: u32) -> Option<Duration> {
        let retry = self.retry()?;
        if !retry.on.contains(&(code as i32)) || code == Code::Ok {
            return None;
        }
        let pushback = match headers.get(&PUSHBACK) {
            // What is negative or malformed means: do not retry.
            Some(pushback) => Some(Duration::from_millis(pushback.to_str().ok()?.parse().ok()?)),
            None => None,
        };
        self.wait_before(pushback, retries)
    }

    /// How long to wait before a retry, unless the server said; `None` if there have been enough, of this call or of all.
    fn wait_before(&mut self, pushback: Option<Duration>, retries: u32) -> Option<Duration> {
        let &Retry { attempts, base, max, .. } = self.retry()?;
        let cluster = &self.routed.cluster;
        if retries >= attempts {
            return None;
        }
        let retrying = match self.retrying.take() {
            Some(retrying) => retrying,
            None => cluster.retry()?,
        };
        if !cluster.budget.spend() {
            return None;
        }
        self.retrying = Some(retrying);
        let most = base.saturating_mul(1 << retries.min(20)).min(max);
        Some(pushback.unwrap_or_else(|| most.mul_f64(cluster.balancer.rng().fraction())))
    }

    fn respond(&self, response: Response<RecvStream>, attempt: Attempt, code: Option<Code>) -> Response<ResponseBody> {
        let (mut head, stream) = response.into_parts();
        head.extensions.insert(attempt.picked.clone());
        let attempt = match code {
            Some(code) => {
                attempt.finish(code, &head.headers);
                None
            }
            None => Some(attempt),
        };
        Response::from_parts(head, ResponseBody::new(stream, attempt, self.deadline))
    }

    fn out_of_time(&self) -> Status {
        let service = &self.core.service;
        let what = match &self.picked {
            Some(picked) => format!("{service}: no answer from {} before the deadline", picked.address),
            None => match self.routed.cluster.balancer.pick(&RequestInfo::default()) {
                Err(why) => format!("{service}: the deadline passed before an endpoint was ready: {why}"),
                Ok(_) => format!("{service}: the deadline passed before an endpoint was ready"),
            },
        };
        error::status(Code::DeadlineExceeded, Failure::Deadline, self.picked.clone(), what)
    }
}

/// The status of a response that has no body; `None` if more is to come.
fn trailers_only(response: &Response<RecvStream>) -> Option<Code> {
    let status = Status::from_header_map(response.headers()).map(|status| status.code());
    if response.body().is_end_stream() { Some(status.unwrap_or(Code::Unknown)) } else { None }
}
