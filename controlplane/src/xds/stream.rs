//! One client's stream: follows in the catalog what the client subscribed to, and sends it what is new.
//!
//! Changes lie in one latest-wins slot per resource until the client has room for them; there is no queue behind it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use futures::future::{AbortHandle, Abortable, Aborted, BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use portolan_topology::topology::Topology;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Status, Streaming};
use tracing::{debug, warn};

use super::clients::{Identity, Peer, Registered};
use super::counters::count;
use super::place::Place;
use super::server::Shared;
use super::sotw::{self, Meaning, Request, Response};
use crate::catalog::served::{Query, Served};
use crate::resources::Kind;
use crate::resources::name::ResourceName;

/// Changes that come within this time of the last response wait for its end, and go together.
const BATCH: Duration = Duration::from_millis(20);
/// A client that takes nothing for so long is cut off.
const STALL: Duration = Duration::from_secs(60);

/// How a stream ends.
#[derive(Debug)]
enum End {
    /// The client went.
    Gone,
    /// It is told why.
    Status(Status),
    /// It does not read, so it cannot be told.
    Stalled,
}

/// Runs one stream until it ends. `only` limits it to one type, for a service that serves but one.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut requests: Streaming<DiscoveryRequest>,
    responses: mpsc::Sender<Result<DiscoveryResponse, Status>>,
    peer: Peer,
    only: Option<Kind>,
) {
    let end = match begin(&shared, &mut requests, peer, only).await {
        Ok((mut stream, first)) => stream.serve(first, &mut requests, &responses).await,
        Err(end) => end,
    };
    match end {
        End::Gone => {}
        End::Stalled => count(&shared.counters.stalled_streams),
        End::Status(status) => {
            debug!(%status, "an xDS stream ended");
            // Whoever does not take this either is gone.
            let _ = timeout(STALL, responses.send(Err(status))).await;
        }
    }
}

/// Waits for the first request, which says who the client is.
async fn begin(
    shared: &Arc<Shared>,
    requests: &mut Streaming<DiscoveryRequest>,
    peer: Peer,
    only: Option<Kind>,
) -> Result<(ClientStream, DiscoveryRequest), End> {
    let first = next(shared, requests).await?;
    let refuse = |status| {
        count(&shared.counters.refused_streams);
        End::Status(status)
    };
    let Some(node) = &first.node else {
        return Err(refuse(Status::invalid_argument("the first request of a stream must carry a node")));
    };
    let place = Place::of(node);
    let locality = place.locality(&shared.topology.borrow(), &shared.cluster).ok_or_else(|| {
        let own = &shared.cluster;
        refuse(Status::unavailable(format!("the topology has no cluster `{own}`, whose control plane this is")))
    })?;
    let identity = Identity::new(node, peer, locality);
    count(&shared.counters.streams);
    let stream = ClientStream {
        topology: shared.topology.clone(),
        registered: shared.clients.enter(identity.clone()),
        shared: shared.clone(),
        only,
        place,
        identity,
        protocol: sotw::Stream::default(),
        followed: HashMap::new(),
        changes: FuturesUnordered::new(),
        waiting: VecDeque::new(),
    };
    Ok((stream, first))
}

/// The next request. A frame that is none ends the stream with the transport's status.
async fn next(shared: &Shared, requests: &mut Streaming<DiscoveryRequest>) -> Result<DiscoveryRequest, End> {
    match requests.message().await {
        Ok(Some(request)) => Ok(request),
        Ok(None) => Err(End::Gone),
        Err(status) if is_bad_frame(&status) => {
            count(&shared.counters.bad_frames);
            Err(End::Status(status))
        }
        Err(_) => Err(End::Gone),
    }
}

/// tonic's codes for a message that does not decode, and one that is too large. A broken connection is `Unknown` or
/// `Cancelled`.
fn is_bad_frame(status: &Status) -> bool {
    matches!(status.code(), tonic::Code::Internal | tonic::Code::OutOfRange | tonic::Code::ResourceExhausted)
}

/// A catalog slot that changed, and the wish to hear of it again.
type Change = Result<(Query, watch::Receiver<Served>), Aborted>;

struct ClientStream {
    shared: Arc<Shared>,
    topology: watch::Receiver<Arc<Topology>>,
    registered: Registered,
    only: Option<Kind>,
    place: Place,
    identity: Identity,
    protocol: sotw::Stream,
    followed: HashMap<Query, Followed>,
    changes: FuturesUnordered<BoxFuture<'static, Change>>,
    /// Responses of one flush that the transport has not taken. Nothing newer is flushed before they went.
    waiting: VecDeque<Response>,
}

/// A question to the catalog, and the resources that are made from its answer.
struct Followed {
    resources: HashMap<(Kind, Arc<str>), ResourceName>,
    /// Ends the wish to hear of changes.
    abort: AbortHandle,
    latest: Served,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

impl ClientStream {
    async fn serve(
        &mut self,
        first: DiscoveryRequest,
        requests: &mut Streaming<DiscoveryRequest>,
        responses: &mpsc::Sender<Result<DiscoveryResponse, Status>>,
    ) -> End {
        if let Err(status) = self.request(&first) {
            return End::Status(status);
        }
        let shared = self.shared.clone();
        let mut flush_at = Some(Instant::now());
        let mut last_flush: Option<Instant> = None;
        let mut stalled_at = Instant::now() + STALL;
        loop {
            if self.waiting.is_empty()
                && let Some(at) = flush_at
                && at <= Instant::now()
            {
                flush_at = None;
                self.flush();
                last_flush = Some(Instant::now());
                stalled_at = Instant::now() + STALL;
            }
            tokio::select! {
                biased;
                () = responses.closed() => return End::Gone,
                permit = responses.reserve(), if !self.waiting.is_empty() => {
                    let Ok(permit) = permit else { return End::Gone };
                    if let Some(response) = self.waiting.pop_front() {
                        permit.send(Ok(to_message(&response)));
                        count(&shared.counters.responses);
                        stalled_at = Instant::now() + STALL;
                    }
                }
                () = sleep_until(stalled_at), if !self.waiting.is_empty() => return End::Stalled,
                request = next(&shared, requests) => match request {
                    Ok(request) => match self.request(&request) {
                        // A client waits for its answer.
                        Ok(()) => flush_at = Some(Instant::now()),
                        Err(status) => return End::Status(status),
                    },
                    Err(end) => return end,
                },
                Some(change) = self.changes.next(), if !self.changes.is_empty() => {
                    self.changed(change);
                    // What changed together goes together.
                    while let Some(Some(change)) = self.changes.next().now_or_never() {
                        self.changed(change);
                    }
                    if self.protocol.is_dirty() && flush_at.is_none() {
                        flush_at = Some(last_flush.map_or_else(Instant::now, |last| last + BATCH));
                    }
                }
                Ok(()) = self.topology.changed() => {
                    let locality = self.place.locality(&self.topology.borrow_and_update(), &shared.cluster);
                    if locality.as_ref() != Some(&self.identity.locality) {
                        return End::Status(Status::unavailable("the topology moved this client; connect again"));
                    }
                }
                () = sleep_until(flush_at.unwrap_or_else(Instant::now)), if flush_at.is_some() && self.waiting.is_empty() => {}
            }
        }
    }

    fn request(&mut self, request: &DiscoveryRequest) -> Result<(), Status> {
        let counters = &self.shared.counters;
        count(&counters.requests);
        let kind = match self.only {
            Some(only) if request.type_url.is_empty() => Some(only),
            only => Kind::of_type_url(&request.type_url).filter(|kind| only.is_none_or(|only| only == *kind)),
        };
        let Some(kind) = kind else {
            // The protocol leaves unanswered what is not served.
            count(&counters.unknown_types);
            return Ok(());
        };
        let effects = self.protocol.request(Request {
            kind,
            version_info: &request.version_info,
            names: &request.resource_names,
            nonce: &request.response_nonce,
            error: request.error_detail.as_ref().map(|status| status.message.as_str()),
        });
        let effects = effects.map_err(|error| {
            count(&counters.refused_streams);
            Status::resource_exhausted(error.to_string())
        })?;
        match effects.meaning {
            Meaning::Subscription => {}
            Meaning::Ack => count(&counters.acks),
            Meaning::Stale => count(&counters.stale_requests),
            Meaning::Nack => {
                count(&counters.nacks);
                let reason = request.error_detail.as_ref().map(|status| status.message.as_str());
                warn!(node = self.identity.node, %kind, reason, "a client refused a response");
            }
        }
        let names_changed = !effects.added.is_empty() || !effects.removed.is_empty();
        self.unfollow(kind, effects.removed);
        for name in effects.added {
            self.follow(kind, name);
        }
        self.note(kind, names_changed);
        Ok(())
    }

    fn follow(&mut self, kind: Kind, name: Arc<str>) {
        let Ok(parsed) = name.parse::<ResourceName>() else {
            let absent =
                self.shared.cache.get(kind, &name, None, &Served::Absent, &self.identity.locality, self.identity.class);
            self.protocol.update(kind, &name, absent);
            return;
        };
        let query = parsed.query(self.identity.locality.clone());
        if !self.followed.contains_key(&query) {
            let mut slot = self.shared.catalog.watch(query.clone());
            let latest = slot.borrow_and_update().clone();
            let abort = self.listen(query.clone(), slot);
            self.followed.insert(query.clone(), Followed { resources: HashMap::new(), abort, latest });
        }
        if let Some(followed) = self.followed.get_mut(&query) {
            let lookup = self.shared.cache.get(
                kind,
                &name,
                Some(&parsed),
                &followed.latest,
                &self.identity.locality,
                self.identity.class,
            );
            self.protocol.update(kind, &name, lookup);
            followed.resources.insert((kind, name), parsed);
        }
    }

    fn unfollow(&mut self, kind: Kind, names: Vec<Arc<str>>) {
        let names: HashSet<Arc<str>> = names.into_iter().collect();
        for name in &names {
            let Ok(parsed) = name.parse::<ResourceName>() else { continue };
            let query = parsed.query(self.identity.locality.clone());
            if let Some(followed) = self.followed.get_mut(&query) {
                followed.resources.remove(&(kind, name.clone()));
                if followed.resources.is_empty() {
                    self.followed.remove(&query);
                }
            }
        }
    }

    /// Puts `slot` among what the stream waits for.
    fn listen(&mut self, query: Query, mut slot: watch::Receiver<Served>) -> AbortHandle {
        let (abort, registration) = AbortHandle::new_pair();
        let changed = async move {
            // A catalog that let go of the slot will say nothing more; what it said stands.
            if slot.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            (query, slot)
        };
        self.changes.push(Abortable::new(changed, registration).boxed());
        abort
    }

    fn changed(&mut self, change: Change) {
        let Ok((query, mut slot)) = change else { return };
        let latest = slot.borrow_and_update().clone();
        if !self.followed.contains_key(&query) {
            return;
        }
        let abort = self.listen(query.clone(), slot);
        let Some(followed) = self.followed.get_mut(&query) else { return };
        followed.abort = abort;
        followed.latest = latest;
        for ((kind, name), parsed) in &followed.resources {
            let lookup = self.shared.cache.get(
                *kind,
                name,
                Some(parsed),
                &followed.latest,
                &self.identity.locality,
                self.identity.class,
            );
            self.protocol.update(*kind, name, lookup);
        }
    }

    fn flush(&mut self) {
        self.waiting.extend(self.protocol.flush());
        for kind in Kind::ALL {
            if self.waiting.iter().any(|response| response.kind == kind) {
                self.note(kind, false);
            }
        }
    }

    fn note(&self, kind: Kind, names_changed: bool) {
        let names = names_changed.then(|| self.protocol.names(kind));
        self.registered.note(kind, self.protocol.standing(kind), names);
    }
}

fn to_message(response: &Response) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: response.version.clone(),
        resources: response.resources.iter().map(crate::resources::Encoded::to_any).collect(),
        type_url: response.kind.type_url().to_owned(),
        nonce: response.nonce.clone(),
        ..DiscoveryResponse::default()
    }
}
