//! A second attempt beside a slow first one, when the caller asked for it: the first good answer wins.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::{Request, Response};
use tokio::time::{Instant, sleep};
use tracing::Instrument as _;

use super::call::Call;
use super::error;
use super::exchange::{Answered, Attempt, Failed, Terms, exchange, trailers_only};
use super::reason::Cause;
use super::upload::Upload;
use crate::routing::Passed;

/// Whether a call gets a second attempt at another endpoint, and when.
///
/// The server may then do what it is asked twice: only the caller knows whether it can. What a second attempt costs is
/// paid from the budget of the cluster's retries. The first good answer is the call's, and the other attempt is cancelled:
/// it counts neither as a success nor as a failure. Calls whose request is still being made when they begin, as those of a
/// client that streams, or larger than 64 KiB, have one attempt at a time.
///
/// ```
/// # use std::time::Duration;
/// # use portolan_client::channel::{Hedge, RequestHints};
/// let mut request = tonic::Request::new(());
/// let hedge = Some(Hedge::After(Duration::from_millis(50))); // what one call in twenty takes, say
/// request.extensions_mut().insert(RequestHints { hedge, ..RequestHints::default() });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hedge {
    /// One attempt at a time.
    #[default]
    Never,
    /// Another when the first has had no answer for so long.
    After(Duration),
}

impl Call {
    /// The head of the call's response: of this attempt or, if the caller wants that and it takes long, another beside it.
    pub(super) async fn answer(&mut self, attempt: Attempt) -> Result<(Response<RecvStream>, Attempt), Failed> {
        match self.hedge {
            Hedge::After(delay) if self.attempts == 1 => match self.upload.as_mut().and_then(Upload::whole) {
                Some(body) => self.hedged(attempt, delay, body).await,
                None => self.attempt(attempt).await,
            },
            _ => self.attempt(attempt).await,
        }
    }

    async fn hedged(
        &mut self,
        first: Attempt,
        delay: Duration,
        body: Vec<Bytes>,
    ) -> Result<(Response<RecvStream>, Attempt), Failed> {
        let (core, cluster) = (Arc::clone(&self.core), Arc::clone(&self.routed.cluster));
        let (service, balancer) = (&*core.service, &*cluster.balancer);
        let terms = Terms { service, balancer, deadline: self.deadline, limit: self.limit() };
        let (endpoint, begun) = (Arc::clone(first.endpoint()), Instant::now());
        let span = self.span(&first);
        let mut first = pin!(alone(first, self.request(), body.clone(), terms).instrument(span));
        tokio::select! {
            biased;
            done = &mut first => return done,
            () = sleep(delay) => {}
        }
        let Some((second, _paid)) = self.second() else { return first.await };
        let span = self.span(&second);
        let mut second = pin!(alone(second, self.request(), body, terms).instrument(span));
        tokio::select! {
            biased;
            done = &mut first => match useful(done) {
                Some(done) => done,
                None => second.await,
            },
            done = &mut second => match useful(done) {
                Some(done) => {
                    // Cancelled, it would look as if nothing had been wrong with it.
                    endpoint.unanswered(begun.elapsed());
                    done
                }
                None => first.await,
            },
        }
    }

    /// An attempt at another endpoint, if there is one and the cluster's retries can pay for it.
    fn second(&mut self) -> Option<(Attempt, Passed)> {
        let cluster = Arc::clone(&self.routed.cluster);
        let pick = cluster.balancer.pick(&self.info()).ok()?;
        if self.tried.contains(&pick.endpoint().address()) {
            return None;
        }
        let paid = cluster.retry()?;
        cluster.budget.spend().then(|| (self.begin(pick, Cause::Hedge), paid))
    }
}

/// An attempt that shares nothing with another one of its call.
async fn alone(
    attempt: Attempt,
    request: Request<()>,
    body: Vec<Bytes>,
    terms: Terms<'_>,
) -> Result<(Response<RecvStream>, Attempt), Failed> {
    let mut upload = Upload::of(body);
    let Answered { response, attempt, stream } = exchange(attempt, request, &mut upload, terms).await?;
    if !upload.is_done() {
        upload.finish(stream);
    }
    Ok((response, attempt))
}

/// What the first of two attempts brought, unless it is the endpoint's failure: then the other one may do better.
fn useful(
    done: Result<(Response<RecvStream>, Attempt), Failed>,
) -> Option<Result<(Response<RecvStream>, Attempt), Failed>> {
    match done {
        Ok((response, attempt)) => match trailers_only(&response) {
            Some(code) if error::is_the_endpoints_fault(code) => {
                attempt.finish(code, response.headers());
                None
            }
            _ => Some(Ok((response, attempt))),
        },
        // The caller's own.
        Err(failed) if !failed.repeatable => Some(Err(failed)),
        Err(_) => None,
    }
}
