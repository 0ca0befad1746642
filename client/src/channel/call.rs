//! One call: attempts until one is answered, or none may follow.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use h2::RecvStream;
use http::header::{HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, Response, Uri, request};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Status, body::Body};
use tracing::Instrument as _;

use super::exchange::{Answered, Attempt, Failed, Terms, exchange, trailers_only};
use super::reason::{Cause, Reason};
use super::upload::Upload;
use super::{CallObserver, Core, Failure, Hedge, LastPick, Picked, RequestHints, ResponseBody, deadline, error};
use crate::balancer::{Pick, PickError, RequestInfo};
use crate::connection::Slot;
use crate::routing::{Head, Passed, Routed, RoutingError};
use crate::xds::model::Retry;

/// Transparent retries of one call. Each means that an endpoint had just died; so many at once mean something else.
const TRANSPARENT: u32 = 16;

const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("portolan-rust/", env!("CARGO_PKG_VERSION")));

pub(super) struct Call {
    pub(super) core: Arc<Core>,
    pub(super) routed: Routed<Slot>,
    head: request::Parts,
    pub(super) upload: Option<Upload>,
    pub(super) deadline: Option<Instant>,
    observer: Option<CallObserver>,
    hints: RequestHints,
    pub(super) hedge: Hedge,
    /// Endpoints that failed already.
    pub(super) tried: Vec<SocketAddr>,
    pub(super) attempts: u32,
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
    let observer = head.extensions.remove();
    let hints: RequestHints = head.extensions.remove().unwrap_or_default();
    let hedge = hints.hedge.unwrap_or(core.hedge);
    if hedge != Hedge::Never || routed.forward().is_some_and(|forward| forward.retry.is_some()) {
        routed.cluster.budget.earn(routed.cluster.retry_percent());
    }
    let upload = Some(Upload::new(body));
    let mut call = Call {
        core,
        routed,
        head,
        upload,
        deadline,
        observer,
        hints,
        hedge,
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
        let mut cause = Cause::First;
        loop {
            let attempt = self.pick(cause).await?;
            cause = Cause::Retry;
            let failed = match self.answer(attempt).await {
                Ok((response, attempt)) => {
                    let code = trailers_only(&response);
                    let wait = code.and_then(|code| self.may_retry(code, response.headers(), retries));
                    let Some(wait) = wait.filter(|_| self.restart()) else {
                        return Ok(self.respond(response, attempt, code));
                    };
                    attempt.finish(code.unwrap_or(Code::Unknown), response.headers());
                    drop(response);
                    retries += 1;
                    sleep(wait).await;
                    continue;
                }
                Err(failed) => failed,
            };
            if failed.untouched && untouched < TRANSPARENT && self.restart() {
                untouched += 1;
                cause = Cause::Untouched;
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

    /// What the strategy is told of the call.
    pub(super) fn info(&self) -> RequestInfo<'_> {
        let RequestHints { hash, cost, prefix, .. } = &self.hints;
        let prefix = prefix.as_deref().unwrap_or_default();
        RequestInfo { hash: hash.or(self.routed.hash), cost: *cost, prefix, avoid: &self.tried }
    }

    async fn pick(&mut self, cause: Cause) -> Result<Attempt, Status> {
        let request = self.info();
        let (service, cluster) = (&self.core.service, &*self.routed.cluster);
        let picked = match cluster.balancer.pick(&request) {
            Err(why) if why.may_pass() => {
                let _waits = cluster.wait().map_err(|limit| error::too_many_wait(service, limit))?;
                cluster.balancer.ready(&request).await
            }
            picked => picked,
        };
        let pick = picked.map_err(|why| error::no_endpoint(service, &why))?;
        Ok(self.begin(pick, cause))
    }

    /// An attempt at an endpoint that was picked.
    pub(super) fn begin(&mut self, pick: Pick<Slot>, cause: Cause) -> Attempt {
        self.attempts += 1;
        let picked = Picked {
            address: pick.endpoint().address(),
            locality: pick.endpoint().place().locality.clone(),
            priority: pick.priority(),
            attempts: self.attempts,
        };
        if let Some(observer) = &self.observer {
            observer.tell(&picked);
        }
        pick.endpoint().transport().tally.count(cause);
        let last = LastPick::new(&pick, picked.clone());
        let reason = Reason::new(cause, &last);
        self.core.remember(last);
        self.tried.push(picked.address);
        self.picked = Some(picked.clone());
        Attempt::new(pick.hold(), picked, reason)
    }

    /// Makes the attempt: the head of its response.
    pub(super) async fn attempt(&mut self, attempt: Attempt) -> Result<(Response<RecvStream>, Attempt), Failed> {
        let span = self.span(&attempt);
        let (request, limit) = (self.request(), self.limit());
        let Some(upload) = &mut self.upload else {
            let status = Status::internal("the request's body is gone");
            return Err(Failed { status, untouched: false, repeatable: false, too_slow: false });
        };
        let balancer = &*self.routed.cluster.balancer;
        let terms = Terms { service: &self.core.service, balancer, deadline: self.deadline, limit };
        let Answered { response, attempt, stream } = exchange(attempt, request, upload, terms).instrument(span).await?;
        if let Some(upload) = self.upload.take_if(|upload| !upload.is_done()) {
            upload.finish(stream);
        }
        Ok((response, attempt))
    }

    /// In which an attempt runs.
    pub(super) fn span(&self, attempt: &Attempt) -> tracing::Span {
        let Picked { address, locality, priority, attempts } = &attempt.picked;
        let (service, reason) = (&*self.core.service, &attempt.reason);
        tracing::debug_span!("attempt", service, %address, %locality, priority, attempts, %reason)
    }

    /// How long one attempt may take.
    pub(super) fn limit(&self) -> Option<Duration> {
        self.retry().and_then(|retry| retry.per_try_timeout)
    }

    pub(super) fn request(&self) -> Request<()> {
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
