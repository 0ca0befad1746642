//! The server's end of one xDS stream, as a state machine: requests and changes go in, responses come out.
//!
//! No I/O and no clock. Whoever drives it says what each subscribed resource is now ([`Stream::update`]) and takes what
//! there is to send ([`Stream::flush`]) when the client has room for it, so that a slow client skips to the newest.
//!
//! Here is what both variants share: the order of types, and the books ([`ledger`], [`subscription`]). What a request
//! means and what goes into a response is in [`super::sotw`] and [`super::delta`].

pub mod holding;
pub(super) mod ledger;
pub(super) mod refusal;
pub(super) mod subscription;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use crate::resources::name::assignment_of;
use crate::resources::{Encoded, Kind, Lookup, Version};
use holding::{Holding, SyncState};
use subscription::Subscription;

/// How many names one type of one stream may subscribe to.
pub const MAX_NAMES: usize = 10_000;

/// What a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// It answers nothing: a first request, or a subscription changed before the first answer came.
    Subscription,
    /// The client took a response.
    Ack,
    /// The client refused a response.
    Nack,
    /// It answers another response than it may, or one that never was. Nothing is sent because of it, unless it names
    /// something new: requests come in order, so even the names of a late one are newer than those before it.
    Stale,
}

/// What whoever drives the stream has to follow after a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Names to follow from now on; each needs a [`Stream::update`].
    pub added: Vec<Arc<str>>,
    /// Names to follow no longer.
    pub removed: Vec<Arc<str>>,
}

impl Changes {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// A request that ends the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// More names than a stream may have.
    #[error("{names} {kind} resources in one subscription: at most {MAX_NAMES} are served; use several streams")]
    TooManyNames {
        /// The type.
        kind: Kind,
        /// How many were asked for.
        names: usize,
    },
}

/// A response to send.
#[derive(Debug, Clone)]
pub struct Response {
    /// The type.
    pub kind: Kind,
    /// A hash of the whole subscription's content, whatever part of it the response carries.
    pub version: Version,
    /// Its number among the responses of its type on the stream; [`nonce`] is how a client is told.
    pub number: u64,
    /// The resources.
    pub resources: Vec<Encoded>,
    /// The names of resources that are gone. Only delta has a word for that.
    pub removed: Vec<Arc<str>>,
}

impl Response {
    /// Its nonce: its type and its number, so that an answer to another type's response is never taken for one to this.
    #[must_use]
    pub fn nonce(&self) -> String {
        format!("{}-{}", self.kind, self.number)
    }
}

/// The number in a nonce of `kind`'s responses.
fn number_of(kind: Kind, nonce: &str) -> Option<u64> {
    nonce.strip_prefix(kind.acronym())?.strip_prefix('-')?.parse().ok()
}

/// What a type's subscription looks like from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The version sent last; `None`: nothing was sent.
    pub sent: Option<Version>,
    /// The version accepted last.
    pub accepted: Option<Version>,
    /// The text of the last refusal, while what was refused is still current.
    pub nack: Option<Arc<str>>,
}

impl Standing {
    /// In one word.
    #[must_use]
    pub fn state(&self) -> SyncState {
        match (&self.nack, self.sent) {
            (Some(_), _) => SyncState::Nacked,
            (None, None) => SyncState::NotSent,
            (None, sent) if sent == self.accepted => SyncState::Synced,
            (None, Some(_)) => SyncState::Stale,
        }
    }
}

/// What a variant of the protocol makes of one type's requests and changes.
pub trait Variant: Default {
    /// A request, read.
    type Request<'a>: Copy;

    /// The type that a request is about.
    fn kind(request: Self::Request<'_>) -> Kind;

    /// Takes a request that came at `now`.
    fn request(&mut self, request: Self::Request<'_>, now: Instant) -> Result<(Meaning, Changes), RequestError>;

    /// What stands for `lookup` in this variant.
    fn update(&mut self, kind: Kind, name: &str, lookup: Lookup);

    /// The response that is due, if any. With `keep_absent`, what does not exist any more but is held stays for now.
    /// Names whose bytes change go to `changed`.
    fn respond(&mut self, kind: Kind, keep_absent: bool, changed: &mut BTreeSet<Arc<str>>) -> Option<Response>;

    /// What it keeps.
    fn subscription(&self) -> &Subscription;

    /// The same, to be changed.
    fn subscription_mut(&mut self) -> &mut Subscription;
}

fn bit(kind: Kind) -> u8 {
    1 << kind as u8
}

/// The server's end of one stream.
#[derive(Debug, Default)]
pub struct Stream<V> {
    kinds: [V; Kind::ALL.len()],
    /// The kinds that may have something to send, a bit each: the others' books need not be opened to know, and with
    /// thousands of streams those are never at hand.
    dirty: u8,
}

impl<V: Variant> Stream<V> {
    /// Takes a request that came at `now`.
    pub fn request(&mut self, request: V::Request<'_>, now: Instant) -> Result<(Meaning, Changes), RequestError> {
        let kind = V::kind(request);
        let meaning = self.kinds[kind as usize].request(request, now);
        self.look_at(kind);
        meaning
    }

    /// Says what a wildcard of `kind` stands for now. Until it is said, a wildcard is left unanswered.
    pub fn set_members(&mut self, kind: Kind, members: BTreeSet<Arc<str>>) -> Changes {
        let changes = self.kinds[kind as usize].subscription_mut().set_members(members);
        self.look_at(kind);
        changes
    }

    /// Says what a followed resource is now. One that is not followed is ignored.
    pub fn update(&mut self, kind: Kind, name: &str, lookup: Lookup) {
        self.kinds[kind as usize].update(kind, name, lookup);
        self.look_at(kind);
    }

    /// Whether [`Stream::flush`] may have something to send.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty != 0
    }

    /// The kinds of which [`Stream::flush`] may have something to send.
    pub fn dirty(&self) -> impl Iterator<Item = Kind> + use<V> {
        let dirty = self.dirty;
        Kind::ALL.into_iter().filter(move |kind| dirty & bit(*kind) != 0)
    }

    /// Notes whether `kind` has something to send: whatever changes its books must say so here.
    fn look_at(&mut self, kind: Kind) {
        if self.kinds[kind as usize].subscription().is_dirty() {
            self.dirty |= bit(kind);
        } else {
            self.dirty &= !bit(kind);
        }
    }

    fn respond(&mut self, kind: Kind, keep_absent: bool, changed: &mut BTreeSet<Arc<str>>) -> Option<Response> {
        if self.dirty & bit(kind) == 0 {
            return None;
        }
        let response = self.kinds[kind as usize].respond(kind, keep_absent, changed);
        self.look_at(kind);
        response
    }

    /// Everything that there is to send now, in the order in which it must go: CDS, EDS, SDS, LDS, RDS, and the removal of
    /// clusters last, when no route leads to them any more.
    pub fn flush(&mut self) -> Vec<Response> {
        let mut responses = Vec::new();
        let mut changed = BTreeSet::new();
        responses.extend(self.respond(Kind::Cds, true, &mut changed));
        if !changed.is_empty() {
            // An Envoy warms a changed cluster until its endpoints come again, even if they are the same.
            let changed = changed.into_iter().map(assignment_of).collect();
            self.kinds[Kind::Eds as usize].subscription_mut().ledger.send_again(&changed);
            self.look_at(Kind::Eds);
        }
        for kind in [Kind::Eds, Kind::Sds, Kind::Lds, Kind::Rds] {
            responses.extend(self.respond(kind, false, &mut BTreeSet::new()));
        }
        responses.extend(self.respond(Kind::Cds, false, &mut BTreeSet::new()));
        responses
    }

    /// The names of `kind` that are followed, sorted.
    #[must_use]
    pub fn names(&self, kind: Kind) -> Vec<Arc<str>> {
        self.kinds[kind as usize].subscription().ledger.names().cloned().collect()
    }

    /// What the client has of each resource of `kind`, by name.
    #[must_use]
    pub fn holdings(&self, kind: Kind) -> Vec<Holding> {
        self.kinds[kind as usize].subscription().ledger.holdings().collect()
    }

    /// How the subscription of `kind` stands.
    #[must_use]
    pub fn standing(&self, kind: Kind) -> Standing {
        self.kinds[kind as usize].subscription().ledger.standing()
    }
}
