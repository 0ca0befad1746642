//! One client's stream: follows what the client subscribed to, and gives the transport what is new.
//!
//! It runs inside the transport's own task: there is no task and no channel of its own. The transport asks for a
//! response when it has room for one; until then changes lie in the [`Inbox`], one latest-wins slot per resource.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::vec;

use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tonic::{Status, Streaming};
use tracing::{debug, warn};

use super::clients::{ClientState, Identity, Peer, Registered, Standings};
use super::counters::count;
use super::inbox::{Heard, Inbox};
use super::membership::{Joined, Membership};
use super::open::OpenStream;
use super::place::Place;
use super::protocol::holding::Holding;
use super::protocol::{Changes, Meaning, Response, Stream as Protocol};
use super::server::Shared;
use super::wire::Wire;
use crate::resources::cache::{Wanted, Watch, Watcher};
use crate::resources::gateway::is_own;
use crate::resources::{Kind, Lookup};

/// Changes that come within this time of the last response wait for its end, and go together.
const BATCH: Duration = Duration::from_millis(20);
/// A client that takes nothing for so long is cut off.
pub(super) const STALL: Duration = Duration::from_secs(60);
/// One that has not said who it is after so long is refused.
const ANONYMOUS: Duration = Duration::from_secs(60);

/// How a stream ends.
#[derive(Debug)]
enum End {
    /// The client went.
    Gone,
    /// It is told why.
    Status(Status),
}

/// The responses of one stream.
pub(super) struct ClientStream<V: Wire> {
    shared: Arc<Shared>,
    requests: Streaming<V::Message>,
    peer: Peer,
    /// The one type that it serves, if it does not serve all.
    only: Option<Kind>,
    phase: Phase<V>,
}

enum Phase<V: Wire> {
    /// The client has not said who it is. The timer is made once it is waited for.
    Unknown(Option<Pin<Box<Sleep>>>),
    Open(Arc<Session<V>>),
    Ended,
}

/// A stream whose client is known.
struct Session<V: Wire> {
    inbox: Arc<Inbox>,
    /// `None`: not begun, or cut off.
    state: Mutex<Option<State<V>>>,
}

struct State<V: Wire> {
    shared: Arc<Shared>,
    registered: Registered,
    connected: Instant,
    standings: Standings,
    only: Option<Kind>,
    place: Place,
    identity: Identity,
    inbox: Arc<Inbox>,
    watcher: Arc<dyn Watcher>,
    protocol: Protocol<V>,
    /// The gateway whose Envoy it is.
    membership: Option<Joined>,
    watches: HashMap<(Kind, Arc<str>), Watch>,
    /// Responses of one flush that the transport has not taken. Nothing newer is flushed before they went.
    waiting: vec::IntoIter<Response>,
    flush_at: Option<Instant>,
    last_flush: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<V: Wire> ClientStream<V> {
    pub(super) fn new(shared: Arc<Shared>, requests: Streaming<V::Message>, peer: Peer, only: Option<Kind>) -> Self {
        Self { shared, requests, peer, only, phase: Phase::Unknown(None) }
    }

    /// Waits for the first request, which says who the client is.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arc<Session<V>>, End>> {
        let shared = &self.shared;
        let refuse = |status| {
            count(&shared.counters.refused_streams);
            End::Status(status)
        };
        let Poll::Ready(first) = poll_request(shared, &mut self.requests, cx)? else {
            if let Phase::Unknown(limit) = &mut self.phase {
                ready!(limit.get_or_insert_with(|| Box::pin(sleep(ANONYMOUS))).as_mut().poll(cx));
            }
            let why = format!("no request came for {} s: the first says who the client is", ANONYMOUS.as_secs());
            return Poll::Ready(Err(refuse(Status::deadline_exceeded(why))));
        };
        let node = V::node(&first)
            .ok_or_else(|| refuse(Status::invalid_argument("the first request of a stream must carry a node")))?;
        let place = Place::of(node);
        let locality = place.locality(&shared.topology.borrow(), &shared.cluster).ok_or_else(|| {
            let own = &shared.cluster;
            refuse(Status::unavailable(format!("the topology has no cluster `{own}`, whose control plane this is")))
        })?;
        count(&shared.counters.streams);
        let identity = Identity::new(node, std::mem::take(&mut self.peer), locality);
        let inbox = Arc::new(Inbox::default());
        let mut protocol = Protocol::default();
        let membership =
            Membership::of(node, &identity.peer).map(|membership| membership.join(&shared.gateways, &inbox));
        if membership.is_none() {
            for kind in Kind::ALL.into_iter().filter(|kind| kind.is_complete()) {
                // Only what a gateway routes to would be an answer to a wildcard.
                let _ = protocol.set_members(kind, BTreeSet::new());
            }
        }
        let session = Arc::new(Session { inbox: inbox.clone(), state: Mutex::new(None) });
        let open: Weak<Session<V>> = Arc::downgrade(&session);
        let mut state = State {
            shared: shared.clone(),
            registered: shared.clients.enter(open),
            connected: Instant::now(),
            standings: Standings::default(),
            only: self.only,
            place,
            identity,
            watcher: inbox.clone(),
            inbox,
            protocol,
            membership,
            watches: HashMap::new(),
            waiting: vec::IntoIter::default(),
            flush_at: None,
            last_flush: None,
            timer: None,
        };
        state.follow_gateway();
        state.request(&first)?;
        *session.state.lock() = Some(state);
        Poll::Ready(Ok(session))
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response, End>> {
        if let Phase::Unknown(_) = self.phase {
            match self.poll_begin(cx) {
                Poll::Ready(Ok(opened)) => self.phase = Phase::Open(opened),
                Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let Phase::Open(session) = &self.phase else { return Poll::Ready(Err(End::Gone)) };
        let mut state = session.state.lock();
        let Some(state) = state.as_mut() else {
            let limit = STALL.as_secs();
            let why = format!("cut off: nothing was read for {limit} s; connect again");
            return Poll::Ready(Err(End::Status(Status::resource_exhausted(why))));
        };
        state.poll(&mut self.requests, cx)
    }
}

/// The next request. A frame that is none ends the stream with the transport's status.
fn poll_request<M>(shared: &Shared, requests: &mut Streaming<M>, cx: &mut Context<'_>) -> Poll<Result<M, End>> {
    requests.poll_next_unpin(cx).map(|next| match next {
        Some(Ok(request)) => Ok(request),
        None => Err(End::Gone),
        Some(Err(status)) if is_bad_frame(&status) => {
            count(&shared.counters.bad_frames);
            Err(End::Status(status))
        }
        Some(Err(_)) => Err(End::Gone),
    })
}

/// tonic's codes for a message that does not decode, and one that is too large. A broken connection is `Unknown` or
/// `Cancelled`.
fn is_bad_frame(status: &Status) -> bool {
    matches!(status.code(), tonic::Code::Internal | tonic::Code::OutOfRange | tonic::Code::ResourceExhausted)
}

impl<V: Wire> Unpin for ClientStream<V> {}

impl<V: Wire> Stream for ClientStream<V> {
    type Item = Result<Response, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Phase::Ended = this.phase {
            return Poll::Ready(None);
        }
        let Poll::Ready(response) = this.poll_response(cx) else { return Poll::Pending };
        Poll::Ready(match response {
            Ok(response) => Some(Ok(response)),
            Err(end) => {
                this.phase = Phase::Ended;
                match end {
                    End::Gone => None,
                    End::Status(status) => {
                        debug!(%status, "an xDS stream ended");
                        Some(Err(status))
                    }
                }
            }
        })
    }
}

impl<V: Wire> OpenStream for Session<V> {
    fn topology_moved(&self) {
        self.inbox.topology_moved();
    }

    fn shown(&self, now: Instant) -> Option<ClientState> {
        let state = self.state.lock();
        let State { registered, connected, standings, identity, protocol, .. } = state.as_ref()?;
        let of_kind = |kind| Some((kind, standings.shown(kind, protocol.names(kind), now)?));
        let subscriptions = Kind::ALL.into_iter().filter_map(of_kind).collect();
        Some(identity.shown(registered.stream(), *connected, subscriptions, now))
    }

    fn holdings(&self) -> Option<Vec<(Kind, Vec<Holding>)>> {
        let state = self.state.lock();
        let protocol = &state.as_ref()?.protocol;
        Some(Kind::ALL.map(|kind| (kind, protocol.holdings(kind))).into())
    }

    fn cut_if_stalled(&self) -> bool {
        self.inbox.stalled_for() >= STALL && self.state.lock().take().is_some()
    }
}

impl<V: Wire> State<V> {
    fn poll(&mut self, requests: &mut Streaming<V::Message>, cx: &mut Context<'_>) -> Poll<Result<Response, End>> {
        loop {
            if let Some(response) = self.waiting.next() {
                if self.waiting.len() == 0 {
                    // An idle stream keeps no room for responses.
                    self.waiting = vec::IntoIter::default();
                }
                count(&self.shared.counters.responses);
                self.inbox.handed_over();
                return Poll::Ready(Ok(response));
            }
            while let Poll::Ready(request) = poll_request(&self.shared, requests, cx) {
                self.request(&request?)?;
            }
            self.hear(cx)?;
            match self.flush_at {
                Some(at) if at <= Instant::now() => self.flush(),
                Some(at) => {
                    let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
                    if timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.timer = None;
                }
                None => return Poll::Pending,
            }
        }
    }

    fn request(&mut self, message: &V::Message) -> Result<(), End> {
        let counters = &self.shared.counters;
        count(&counters.requests);
        let type_url = V::type_url(message);
        let kind = match self.only {
            Some(only) if type_url.is_empty() => Some(only),
            only => Kind::of_type_url(type_url).filter(|kind| only.is_none_or(|only| only == *kind)),
        };
        let Some(kind) = kind else {
            // The protocol leaves unanswered what is not served.
            count(&counters.unknown_types);
            return Ok(());
        };
        let now = Instant::now();
        let (meaning, changes) = self.protocol.request(V::read(message, kind), now).map_err(|error| {
            count(&counters.refused_streams);
            End::Status(Status::resource_exhausted(error.to_string()))
        })?;
        match meaning {
            Meaning::Subscription => {}
            Meaning::Ack => count(&counters.acks),
            Meaning::Stale => count(&counters.stale_requests),
            Meaning::Nack => {
                count(&counters.nacks);
                let reason = V::error(message).map(|status| status.message.as_str());
                warn!(node = self.identity.node, %kind, reason, "a client refused a response");
            }
        }
        self.follow(kind, changes);
        self.note(kind, now);
        if self.protocol.is_dirty() {
            // A client waits for its answer.
            self.flush_at = Some(now);
            self.timer = None;
        }
        Ok(())
    }

    fn follow(&mut self, kind: Kind, changes: Changes) {
        for name in changes.removed {
            self.watches.remove(&(kind, name));
        }
        for name in changes.added {
            self.inbox.forget(kind, &name);
            if kind == Kind::Sds || (self.membership.is_some() && is_own(kind, &name)) {
                let lookup = self.membership.as_ref().map_or(Lookup::Absent(None), |joined| joined.lookup(kind, &name));
                self.protocol.update(kind, &name, lookup);
                continue;
            }
            let wanted = Wanted { kind, name: &name, client: &self.identity.locality, class: self.identity.class };
            let (lookup, watch) = self.shared.cache.watch(wanted, &self.watcher);
            self.protocol.update(kind, &name, lookup);
            if let Some(watch) = watch {
                self.watches.insert((kind, name), watch);
            }
        }
    }

    /// What the gateway came to, for everything that the client asks of it.
    fn follow_gateway(&mut self) {
        let Some(resources) = self.membership.as_ref().and_then(Joined::resources) else { return };
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_complete()) {
            let changes = self.protocol.set_members(kind, resources.members(kind));
            if !changes.is_empty() {
                self.follow(kind, changes);
                self.note(kind, Instant::now());
            }
        }
        for kind in Kind::ALL {
            for name in self.protocol.names(kind).into_iter().filter(|name| is_own(kind, name)) {
                let lookup = self.membership.as_ref().map_or(Lookup::Unknown, |joined| joined.lookup(kind, &name));
                self.protocol.update(kind, &name, lookup);
            }
        }
    }

    /// Takes what changed since the last time.
    fn hear(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let Heard { news, moved, gateway } = self.inbox.take(cx.waker());
        if moved {
            let locality = self.place.locality(&self.shared.topology.borrow(), &self.shared.cluster);
            if locality.as_ref() != Some(&self.identity.locality) {
                return Err(End::Status(Status::unavailable("the topology moved this client; connect again")));
            }
        }
        if news.is_empty() && gateway.is_none() {
            return Ok(());
        }
        if let (Some(resources), Some(joined)) = (gateway, &mut self.membership) {
            joined.take(resources);
            self.follow_gateway();
        }
        news.for_each(|(kind, name), lookup| self.protocol.update(kind, &name, lookup));
        if self.flush_at.is_none() && self.protocol.is_dirty() {
            let now = Instant::now();
            self.flush_at = Some(self.last_flush.map_or(now, |last| (last + BATCH).max(now)));
        }
        Ok(())
    }

    fn flush(&mut self) {
        self.flush_at = None;
        self.timer = None;
        let now = Instant::now();
        let before: Vec<_> = self.protocol.dirty().map(|kind| (kind, self.protocol.standing(kind).sent)).collect();
        self.waiting = self.protocol.flush().into_iter();
        if self.waiting.len() > 0 {
            self.last_flush = Some(now);
        }
        for response in 0..self.waiting.len() {
            self.note(self.waiting.as_slice()[response].kind, now);
        }
        for (kind, before) in before {
            // A client that came back may hold everything, so that there is nothing to send.
            if self.protocol.standing(kind).sent != before {
                self.note(kind, now);
            }
        }
    }

    /// Notes how the subscription of `kind` stands at `now`.
    fn note(&mut self, kind: Kind, now: Instant) {
        self.standings.note(kind, self.protocol.standing(kind), now);
        self.registered.set_nacks(self.standings.nacks());
    }
}
