//! Delta: requests add and take away names, responses give what changed and what is gone.

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::time::Instant;

use super::protocol::ledger::{Before, Current};
use super::protocol::subscription::Subscription;
use super::protocol::{self, Changes, MAX_NAMES, Meaning, RequestError, Response, Variant};
use crate::resources::{Encoded, Kind, Lookup};

/// The server's end of one delta stream.
pub type Stream = protocol::Stream<Delta>;

/// A delta discovery request of a known type.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The type.
    pub kind: Kind,
    /// Names that the client wants from now on.
    pub subscribe: &'a [String],
    /// Names that it wants no longer.
    pub unsubscribe: &'a [String],
    /// On a type's first request: what the client holds from an earlier stream, by name, in which version.
    pub initial_versions: &'a HashMap<String, String>,
    /// The response that this answers; empty: none.
    pub nonce: &'a str,
    /// The reason for which it refuses that response.
    pub error: Option<&'a str>,
}

/// One type's subscription on a delta stream.
#[derive(Debug, Default)]
pub struct Delta {
    /// Whether any request of the type came.
    begun: bool,
    subscription: Subscription,
}

impl Delta {
    fn subscribe(&mut self, names: &[String], held: &HashMap<String, String>, changes: &mut Changes) {
        for name in names {
            let before = held.get(name).map_or(Before::Nothing, |version| before(version));
            let again = self.subscription.name(name, before, changes);
            // A name that only the wildcard gave so far is new to the client under its own name.
            if again || changes.added.last().is_none_or(|added| **added != **name) {
                self.subscription.ledger.repeat(&Arc::from(name.as_str()));
            }
        }
    }

    fn unsubscribe(&mut self, names: &[String], changes: &mut Changes) {
        for name in names {
            if !self.subscription.ledger.is_named(name) {
                continue;
            }
            let name = Arc::from(name.as_str());
            // The client forgot it, and a wildcard still owes it.
            if self.subscription.unname(&name, changes) {
                self.subscription.ledger.repeat(&name);
            }
        }
    }
}

/// A version that we never gave is something, but nothing that we know.
fn before(version: &str) -> Before {
    version.parse().map_or(Before::Something, Before::Version)
}

impl Variant for Delta {
    type Request<'a> = Request<'a>;

    fn kind(request: Request<'_>) -> Kind {
        request.kind
    }

    fn request(&mut self, request: Request<'_>, now: Instant) -> Result<(Meaning, Changes), RequestError> {
        let Request { kind, subscribe, unsubscribe, initial_versions, nonce, error } = request;
        let ledger = &mut self.subscription.ledger;
        if !subscribe.is_empty() || !initial_versions.is_empty() {
            let new = subscribe.iter().filter(|name| !ledger.is_named(name)).count();
            let names = (ledger.names().count() + new).max(initial_versions.len());
            if names > MAX_NAMES {
                return Err(RequestError::TooManyNames { kind, names });
            }
        }
        let meaning = match (nonce.is_empty(), ledger.issued(kind, nonce), error) {
            (true, ..) => Meaning::Subscription,
            (false, None, _) => Meaning::Stale,
            (false, Some(number), error) => {
                ledger.answer(number, error, now);
                if error.is_some() { Meaning::Nack } else { Meaning::Ack }
            }
        };
        let first = !std::mem::replace(&mut self.begun, true);
        let mut changes = Changes::default();
        let star = |names: &[String]| kind.is_complete() && names.iter().any(|name| name == "*");
        let (ours, theirs): (Vec<_>, Vec<_>) = (without_star(subscribe), without_star(unsubscribe));
        self.unsubscribe(&theirs, &mut changes);
        // A first request that names nothing asks for everything.
        if star(unsubscribe) {
            self.subscription.set_wildcard(false, false, &mut changes);
        } else if star(subscribe) || (kind.is_complete() && first && subscribe.is_empty()) {
            let new = !self.subscription.is_wildcard();
            self.subscription.set_wildcard(true, false, &mut changes);
            // What was given up while it was under way comes to the wildcard now: the client must hear if it is gone.
            for name in self.subscription.ledger.given_up_under_way().into_iter().filter(|_| new) {
                self.subscription.holds(&name, Before::Something, &mut changes);
            }
        }
        let nothing = HashMap::new();
        let held = if first { initial_versions } else { &nothing };
        self.subscribe(&ours, held, &mut changes);
        if self.subscription.is_wildcard() {
            for (name, version) in held.iter().filter(|(name, _)| !ours.contains(name)) {
                self.subscription.holds(name, before(version), &mut changes);
            }
        }
        Ok((meaning, changes))
    }

    fn update(&mut self, kind: Kind, name: &str, lookup: Lookup) {
        let ledger = &mut self.subscription.ledger;
        let current = match lookup {
            Lookup::Unknown => Current::Unknown,
            // To an Envoy that holds endpoints a removal changes nothing: it is told that there are none.
            Lookup::Absent(Some(none)) if kind == Kind::Eds && ledger.holds(name) => Current::Present(none),
            Lookup::Absent(_) => Current::Absent,
            Lookup::Present(encoded) => Current::Present(encoded),
        };
        ledger.update(name, current);
    }

    fn respond(&mut self, kind: Kind, keep_absent: bool, changed: &mut BTreeSet<Arc<str>>) -> Option<Response> {
        if !self.subscription.is_dirty() || self.subscription.must_wait() {
            return None;
        }
        let owed = self.subscription.take_owed();
        let ledger = &mut self.subscription.ledger;
        let due = ledger.take_due(keep_absent);
        let again = ledger.take_again();
        if !owed && due.is_empty() && again.is_empty() {
            return None;
        }
        let (mut resources, mut removed): (Vec<Encoded>, Vec<Arc<str>>) = (Vec::new(), Vec::new());
        for due in due {
            match due.now {
                Some(encoded) => {
                    changed.insert(due.name);
                    resources.push(encoded);
                }
                None => removed.push(due.name),
            }
        }
        let mut there: BTreeSet<Arc<str>> = resources.iter().map(|encoded| encoded.name().clone()).collect();
        let others = again.into_iter().chain(ledger.take_doubtful().unwrap_or_default());
        resources.extend(others.filter(|held| there.insert(held.name().clone())));
        let (version, number) = ledger.send(resources.clone());
        Some(Response { kind, version, number, resources, removed })
    }

    fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    fn subscription_mut(&mut self) -> &mut Subscription {
        &mut self.subscription
    }
}

fn without_star(names: &[String]) -> Vec<String> {
    names.iter().filter(|name| *name != "*").cloned().collect()
}
