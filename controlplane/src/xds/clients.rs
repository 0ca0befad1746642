//! Who is connected and what they have: for `portolan clients` and metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use envoy_types::pb::envoy::config::core::v3::Node;
use parking_lot::Mutex;
use portolan_topology::names::Locality;
use serde::Serialize;
use tokio::time::Instant;

use super::open::OpenStream;
use super::protocol::Standing;
use super::protocol::holding::SyncState;
use crate::resources::class::{ClientClass, version_of};
use crate::resources::{Kind, Version};

/// Where a connection comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: Option<String>,
    /// The identity in its certificate.
    pub identity: Option<String>,
}

/// One client's stream, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientState {
    /// The stream's number, in the order of arrival.
    pub stream: u64,
    /// `node.id`.
    pub node: String,
    /// What it is taken for.
    pub class: ClientClass,
    /// `user_agent_name`.
    pub user_agent: String,
    /// `user_agent_version`.
    pub version: String,
    /// Its address.
    pub address: Option<String>,
    /// The identity in its certificate.
    pub identity: Option<String>,
    /// Where it is taken to be.
    pub locality: Locality,
    /// For how long it has been connected, in milliseconds.
    pub connected_ms: u64,
    /// Its subscriptions.
    pub subscriptions: BTreeMap<Kind, SubscriptionState>,
}

/// One type's subscription.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionState {
    /// The names subscribed to; empty for a wildcard.
    pub names: Arc<[Arc<str>]>,
    /// How it stands.
    pub state: SyncState,
    /// For how long it has stood so, in milliseconds; in sync, for how long with what it has.
    pub state_ms: u64,
    /// The version sent last.
    pub sent: Arc<str>,
    /// The version accepted last.
    pub accepted: Arc<str>,
    /// Why it refused what is current.
    pub nack: Option<Arc<str>>,
    /// How long ago, in milliseconds.
    pub nack_ms: Option<u64>,
}

/// Everybody who is connected. What a stream has is asked of it when somebody wants to know: it keeps nothing here but
/// its place.
#[derive(Default)]
pub struct ClientsRegistry {
    streams: Mutex<Streams>,
    /// Streams whose client refuses what it was sent.
    nacked: AtomicU32,
}

#[derive(Default)]
struct Streams {
    last: u64,
    open: BTreeMap<u64, Weak<dyn OpenStream>>,
}

/// What a stream said of itself in the beginning, and is taken for.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) node: String,
    pub(super) class: ClientClass,
    pub(super) user_agent: String,
    pub(super) version: String,
    pub(super) peer: Peer,
    pub(super) locality: Locality,
}

impl Identity {
    pub(super) fn new(node: &Node, peer: Peer, locality: Locality) -> Self {
        Self {
            node: node.id.clone(),
            class: ClientClass::of(node),
            user_agent: node.user_agent_name.clone(),
            version: version_of(node),
            peer,
            locality,
        }
    }
}

/// How a stream's subscriptions stand, and since when.
#[derive(Debug, Default)]
pub(super) struct Standings {
    kinds: [Option<Stands>; Kind::ALL.len()],
}

/// How one type's subscription stands.
#[derive(Debug)]
struct Stands {
    standing: Standing,
    nacked: Option<Instant>,
    /// Since when it has stood as it stands.
    since: Instant,
}

impl ClientsRegistry {
    /// Everybody, in the order of arrival.
    #[must_use]
    pub fn snapshot(&self) -> Vec<ClientState> {
        let now = Instant::now();
        self.all().into_iter().filter_map(|stream| stream.shown(now)).collect()
    }

    /// How many streams are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.streams.lock().open.len()
    }

    /// How many of them refuse something that they were sent.
    #[must_use]
    pub fn nacked(&self) -> u32 {
        self.nacked.load(Ordering::Relaxed)
    }

    /// Whether nobody is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The streams that are open, in the order of arrival. A stream that ends leaves under the registry's lock, so none
    /// may be let go of while that is held.
    pub(super) fn all(&self) -> Vec<Arc<dyn OpenStream>> {
        self.streams.lock().open.values().filter_map(Weak::upgrade).collect()
    }

    /// The stream of this number.
    pub(super) fn get(&self, stream: u64) -> Option<Arc<dyn OpenStream>> {
        self.streams.lock().open.get(&stream)?.upgrade()
    }

    /// Enters a stream; it leaves when the guard goes.
    pub(super) fn enter(self: &Arc<Self>, stream: Weak<dyn OpenStream>) -> Registered {
        let mut streams = self.streams.lock();
        streams.last += 1;
        let number = streams.last;
        streams.open.insert(number, stream);
        Registered { registry: self.clone(), stream: number, nacks: false }
    }
}

impl std::fmt::Debug for ClientsRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientsRegistry").field("streams", &self.len()).finish_non_exhaustive()
    }
}

impl Standings {
    /// Notes how the subscription of `kind` stands at `now`.
    pub(super) fn note(&mut self, kind: Kind, standing: Standing, now: Instant) {
        let new = || Stands { standing: Standing::default(), nacked: None, since: now };
        let stands = self.kinds[kind as usize].get_or_insert_with(new);
        if standing.nack != stands.standing.nack {
            stands.nacked = standing.nack.is_some().then_some(now);
        }
        let as_before = (standing.state(), standing.accepted) == (stands.standing.state(), stands.standing.accepted);
        if !as_before {
            stands.since = now;
        }
        stands.standing = standing;
    }

    /// Whether the client refuses something that it was sent.
    pub(super) fn nacks(&self) -> bool {
        self.kinds.iter().flatten().any(|stands| stands.standing.nack.is_some())
    }

    /// What is shown of the subscription of `kind`, which has these names; `None`: there is none.
    pub(super) fn shown(&self, kind: Kind, names: Vec<Arc<str>>, now: Instant) -> Option<SubscriptionState> {
        let Stands { standing, nacked, since } = self.kinds[kind as usize].as_ref()?;
        let state = standing.state();
        let Standing { sent, accepted, nack } = standing.clone();
        let shown = |version: Option<Version>| version.map_or_else(Arc::default, |version| version.to_string().into());
        let (sent, accepted) = (shown(sent), shown(accepted));
        let nack_ms = nacked.map(|at| milliseconds(at, now));
        let state_ms = milliseconds(*since, now);
        Some(SubscriptionState { names: names.into(), state, state_ms, sent, accepted, nack, nack_ms })
    }
}

impl Identity {
    /// What is shown of a stream of this number, which began at `connected`.
    pub(super) fn shown(
        &self,
        stream: u64,
        connected: Instant,
        subscriptions: BTreeMap<Kind, SubscriptionState>,
        now: Instant,
    ) -> ClientState {
        let Identity { node, class, user_agent, version, peer, locality } = self.clone();
        ClientState {
            stream,
            node,
            class,
            user_agent,
            version,
            address: peer.address,
            identity: peer.identity,
            locality,
            connected_ms: milliseconds(connected, now),
            subscriptions,
        }
    }
}

fn milliseconds(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_millis()).unwrap_or(u64::MAX)
}

/// A stream's own place in the registry.
#[derive(Debug)]
pub(super) struct Registered {
    registry: Arc<ClientsRegistry>,
    stream: u64,
    /// Whether it is counted among those that refuse something.
    nacks: bool,
}

impl Registered {
    /// The stream's number.
    pub(super) fn stream(&self) -> u64 {
        self.stream
    }

    /// Says whether the stream's client refuses something that it was sent.
    pub(super) fn set_nacks(&mut self, nacks: bool) {
        let count = &self.registry.nacked;
        match (std::mem::replace(&mut self.nacks, nacks), nacks) {
            (false, true) => count.fetch_add(1, Ordering::Relaxed),
            (true, false) => count.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.set_nacks(false);
        self.registry.streams.lock().open.remove(&self.stream);
    }
}
