//! Who is connected and what they have: for `portolan clients` and metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use parking_lot::Mutex;
use portolan_topology::names::Locality;
use serde::Serialize;
use tokio::time::Instant;

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

/// Everybody who is connected.
#[derive(Debug, Default)]
pub struct ClientsRegistry {
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    last: u64,
    open: BTreeMap<u64, Arc<Mutex<Slot>>>,
}

#[derive(Debug)]
struct Slot {
    identity: Identity,
    connected: Instant,
    /// By kind: small, since there is one for each of thousands of streams.
    subscriptions: [Option<Subscription>; Kind::ALL.len()],
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

#[derive(Debug)]
struct Subscription {
    names: Arc<[Arc<str>]>,
    standing: Standing,
    nacked: Option<Instant>,
    /// Since when it has stood as it stands.
    since: Instant,
}

impl ClientsRegistry {
    /// Everybody, in the order of arrival.
    #[must_use]
    pub fn snapshot(&self) -> Vec<ClientState> {
        let slots: Vec<_> = self.streams.lock().open.iter().map(|(stream, slot)| (*stream, slot.clone())).collect();
        let now = Instant::now();
        slots.into_iter().map(|(stream, slot)| slot.lock().state(stream, now)).collect()
    }

    /// How many streams are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.streams.lock().open.len()
    }

    /// Whether nobody is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Enters a stream; it leaves when the guard goes.
    pub(super) fn enter(self: &Arc<Self>, identity: Identity) -> Registered {
        let slot = Slot { identity, connected: Instant::now(), subscriptions: Default::default() };
        let slot = Arc::new(Mutex::new(slot));
        let mut streams = self.streams.lock();
        streams.last += 1;
        let stream = streams.last;
        streams.open.insert(stream, slot.clone());
        Registered { registry: self.clone(), stream, slot }
    }
}

impl Slot {
    fn state(&self, stream: u64, now: Instant) -> ClientState {
        let Identity { node, class, user_agent, version, peer, locality } = self.identity.clone();
        ClientState {
            stream,
            node,
            class,
            user_agent,
            version,
            address: peer.address,
            identity: peer.identity,
            locality,
            connected_ms: milliseconds(self.connected, now),
            subscriptions: Kind::ALL
                .into_iter()
                .filter_map(|kind| Some((kind, self.subscriptions[kind as usize].as_ref()?.state(now))))
                .collect(),
        }
    }
}

impl Subscription {
    fn new(since: Instant) -> Self {
        Self { names: Arc::default(), standing: Standing::default(), nacked: None, since }
    }

    fn state(&self, now: Instant) -> SubscriptionState {
        let state = self.standing.state();
        let Standing { sent, accepted, nack } = self.standing.clone();
        let shown = |version: Option<Version>| version.map_or_else(Arc::default, |version| version.to_string().into());
        let (sent, accepted) = (shown(sent), shown(accepted));
        let nack_ms = self.nacked.map(|at| milliseconds(at, now));
        let state_ms = milliseconds(self.since, now);
        SubscriptionState { names: self.names.clone(), state, state_ms, sent, accepted, nack, nack_ms }
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
    slot: Arc<Mutex<Slot>>,
}

impl Registered {
    /// The stream's number.
    pub(super) fn stream(&self) -> u64 {
        self.stream
    }

    /// Notes how a subscription stands, and its names if they changed.
    pub(super) fn note(&self, kind: Kind, standing: Standing, names: Option<Vec<Arc<str>>>) {
        let mut slot = self.slot.lock();
        let now = Instant::now();
        let subscription = slot.subscriptions[kind as usize].get_or_insert_with(|| Subscription::new(now));
        if standing.nack != subscription.standing.nack {
            subscription.nacked = standing.nack.is_some().then_some(now);
        }
        let stands_as_before =
            (standing.state(), standing.accepted) == (subscription.standing.state(), subscription.standing.accepted);
        if !stands_as_before {
            subscription.since = now;
        }
        subscription.standing = standing;
        if let Some(names) = names {
            subscription.names = names.into();
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.streams.lock().open.remove(&self.stream);
    }
}
