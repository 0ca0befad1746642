//! The server's end of one state-of-the-world stream, as a state machine: requests and changes go in, responses come out.
//!
//! No I/O and no clock. Whoever drives it says what each subscribed resource is now ([`Stream::update`]) and takes what
//! there is to send ([`Stream::flush`]) when the client has room for it, so that a slow client skips to the newest.

mod kind_state;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::resources::{Encoded, Kind, Lookup};
use kind_state::KindState;

/// How many names one type of one stream may subscribe to.
pub const MAX_NAMES: usize = 10_000;

/// A discovery request of a known type.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The type.
    pub kind: Kind,
    /// The version that the client accepted last; on a new stream, on the one before.
    pub version_info: &'a str,
    /// Everything that it wants of the type.
    pub names: &'a [String],
    /// The response that this answers; empty: none.
    pub nonce: &'a str,
    /// The reason for which it refuses that response.
    pub error: Option<&'a str>,
}

/// What a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// It answers nothing: a first request, or a subscription changed before the first answer came.
    Subscription,
    /// The client took the last response.
    Ack,
    /// The client refused the last response.
    Nack,
    /// It answers another response than the last, or one that never was. Nothing is sent because of it, unless it names
    /// something new: requests come in order, so even the names of a late one are newer than those before it.
    Stale,
}

/// What whoever drives the stream has to do after a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Effects {
    /// What it meant.
    pub meaning: Meaning,
    /// Names to follow from now on; each needs an [`Stream::update`].
    pub added: Vec<Arc<str>>,
    /// Names to follow no longer.
    pub removed: Vec<Arc<str>>,
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
    pub version: String,
    /// Its type and its number among the responses of that type on the stream.
    pub nonce: String,
    /// The resources, by name.
    pub resources: Vec<Encoded>,
}

/// What a type's subscription looks like from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The version sent last; empty: nothing was sent.
    pub sent: Arc<str>,
    /// The version accepted last.
    pub accepted: Arc<str>,
    /// The text of the last refusal, while what was refused is still current.
    pub nack: Option<Arc<str>>,
}

/// The server's end of one stream.
#[derive(Debug, Default)]
pub struct Stream {
    kinds: [KindState; 4],
}

impl Stream {
    /// Takes a request.
    pub fn request(&mut self, request: Request<'_>) -> Result<Effects, RequestError> {
        self.kinds[request.kind as usize].request(request)
    }

    /// Says what a subscribed resource is now. One that is not subscribed to is ignored.
    pub fn update(&mut self, kind: Kind, name: &str, lookup: Lookup) {
        self.kinds[kind as usize].update(name, lookup);
    }

    /// Whether [`Stream::flush`] may have something to send.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.kinds.iter().any(KindState::is_dirty)
    }

    /// Everything that there is to send now, in the order in which it must go: CDS, EDS, LDS, RDS, and the removal of
    /// clusters last, when no route leads to them any more.
    pub fn flush(&mut self) -> Vec<Response> {
        let kinds = &mut self.kinds;
        let mut responses = Vec::new();
        let mut changed = BTreeSet::new();
        responses.extend(kinds[Kind::Cds as usize].respond(Kind::Cds, true, &mut changed));
        // An Envoy warms a changed cluster until its endpoints come again, even if they are the same.
        kinds[Kind::Eds as usize].send_again(&changed);
        for kind in [Kind::Eds, Kind::Lds, Kind::Rds] {
            responses.extend(kinds[kind as usize].respond(kind, false, &mut BTreeSet::new()));
        }
        responses.extend(kinds[Kind::Cds as usize].respond(Kind::Cds, false, &mut BTreeSet::new()));
        responses
    }

    /// The names of `kind` subscribed to, sorted.
    #[must_use]
    pub fn names(&self, kind: Kind) -> Vec<Arc<str>> {
        self.kinds[kind as usize].names()
    }

    /// How the subscription of `kind` stands.
    #[must_use]
    pub fn standing(&self, kind: Kind) -> Standing {
        self.kinds[kind as usize].standing()
    }
}
