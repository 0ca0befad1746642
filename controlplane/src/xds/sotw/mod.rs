//! The state of the world: each request gives the whole subscription, and a response of clusters or listeners gives
//! everything that there is.

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::protocol::ledger::{Answered, Before, Current};
use super::protocol::subscription::Subscription;
use super::protocol::{self, Changes, MAX_NAMES, Meaning, RequestError, Response, Variant};
use crate::resources::{Kind, Lookup};

/// The server's end of one state-of-the-world stream.
pub type Stream = protocol::Stream<StateOfTheWorld>;

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

/// One type's subscription on a state-of-the-world stream.
#[derive(Debug, Default)]
pub struct StateOfTheWorld {
    /// Whether any request of the type came.
    begun: bool,
    /// Whether any named something: from then on an empty list means nothing, no longer everything.
    named: bool,
    subscription: Subscription,
}

impl Variant for StateOfTheWorld {
    type Request<'a> = Request<'a>;

    fn kind(request: Request<'_>) -> Kind {
        request.kind
    }

    fn request(&mut self, request: Request<'_>, now: Instant) -> Result<(Meaning, Changes), RequestError> {
        let Request { kind, names, nonce, .. } = request;
        if names.len() > MAX_NAMES {
            return Err(RequestError::TooManyNames { kind, names: names.len() });
        }
        let ledger = &mut self.subscription.ledger;
        let meaning = match (nonce.is_empty(), ledger.issued(kind, nonce)) {
            (true, _) => Meaning::Subscription,
            (false, None) => return Ok((Meaning::Stale, Changes::default())),
            (false, Some(number)) => match (ledger.answer(number, request.error, now), request.error) {
                (Answered::Earlier, _) => Meaning::Stale,
                (Answered::Last, Some(_)) => Meaning::Nack,
                (Answered::Last, None) => Meaning::Ack,
            },
        };
        let comes_back = !std::mem::replace(&mut self.begun, true) && !request.version_info.is_empty();
        let mut wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        self.named |= !names.is_empty();
        let wildcard = kind.is_complete() && (wanted.remove("*") || !self.named);
        let mut changes = Changes::default();
        let unwanted: Vec<_> =
            self.subscription.ledger.named().filter(|name| !wanted.contains(&***name)).cloned().collect();
        for name in unwanted {
            self.subscription.unname(&name, &mut changes);
        }
        self.subscription.set_wildcard(wildcard, comes_back, &mut changes);
        let before = if comes_back { Before::Something } else { Before::Nothing };
        for name in wanted {
            self.subscription.name(name, before, &mut changes);
        }
        Ok((meaning, changes))
    }

    /// There is no word for "gone": what stands for it is sent.
    fn update(&mut self, _: Kind, name: &str, lookup: Lookup) {
        let current = match lookup {
            Lookup::Unknown => Current::Unknown,
            Lookup::Absent(None) => Current::Absent,
            Lookup::Absent(Some(encoded)) | Lookup::Present(encoded) => Current::Present(encoded),
        };
        self.subscription.ledger.update(name, current);
    }

    fn respond(&mut self, kind: Kind, keep_absent: bool, changed: &mut BTreeSet<Arc<str>>) -> Option<Response> {
        let Subscription { ledger, .. } = &self.subscription;
        if !self.subscription.is_dirty() || self.subscription.must_wait() || (kind.is_complete() && ledger.must_wait())
        {
            return None;
        }
        let owed = self.subscription.take_owed();
        let ledger = &mut self.subscription.ledger;
        let due = ledger.take_due(keep_absent);
        let again = ledger.take_again();
        if !owed && due.is_empty() && again.is_empty() {
            return None;
        }
        changed.extend(due.iter().filter(|due| due.now.is_some()).map(|due| due.name.clone()));
        let doubt = ledger.take_doubtful().is_some();
        let resources = if kind.is_complete() || doubt {
            ledger.held()
        } else {
            let mut resources: Vec<_> = due.into_iter().filter_map(|due| due.now).collect();
            for held in again {
                if !resources.iter().any(|encoded| encoded.name() == held.name()) {
                    resources.push(held);
                }
            }
            resources
        };
        let (version, number) = ledger.send(resources.clone());
        Some(Response { kind, version, number, resources, removed: Vec::new() })
    }

    fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    fn subscription_mut(&mut self) -> &mut Subscription {
        &mut self.subscription
    }
}
