//! One type's subscription on a state-of-the-world stream.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3Default;

use super::{Effects, MAX_NAMES, Meaning, Request, RequestError, Response, Standing};
use crate::resources::{Encoded, Kind, Lookup, Version};

/// Unanswered responses that are remembered; older ones count as never answered.
const UNANSWERED: usize = 16;
/// How much of a refusal is kept.
const NACK_TEXT: usize = 2_000;

#[derive(Debug, Default)]
pub(super) struct KindState {
    /// Whether any request of the type came.
    begun: bool,
    /// Whether any named something: from then on an empty list means nothing, no longer everything.
    named: bool,
    /// Whether it asks for everything.
    wildcard: bool,
    /// Whether an answer is owed even if there is nothing in it.
    owed: bool,
    /// Whether the next response must give everything: after a refusal nobody knows what the client holds.
    whole: bool,
    entries: BTreeMap<Arc<str>, Entry>,
    /// Names that may differ from what was sent.
    dirty: BTreeSet<Arc<str>>,
    /// Names to send even if they do not differ.
    again: BTreeSet<Arc<str>>,
    unanswered: VecDeque<Sent>,
    /// The number of the last response; 0: there was none.
    last_nonce: u64,
    sent_version: Arc<str>,
    accepted_version: Arc<str>,
    nack: Option<Arc<str>>,
}

/// A subscribed name.
#[derive(Debug)]
struct Entry {
    current: Lookup,
    /// `current` as it was when it was last looked at for sending.
    considered: Considered,
    /// What the client holds if it took everything that was sent.
    held: Option<Encoded>,
    /// What it accepted last.
    accepted: Option<Encoded>,
    /// The version that it refused.
    rejected: Option<Version>,
    /// Whether it may hold something from an earlier stream.
    may_hold: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Considered {
    Never,
    Absent,
    Present(Version),
}

#[derive(Debug)]
struct Sent {
    nonce: u64,
    version: Arc<str>,
    resources: Vec<Encoded>,
    /// Names that were in it and are not subscribed to any more. The client may still refuse it because of them.
    forgotten: Vec<Arc<str>>,
}

impl Entry {
    fn new(may_hold: bool) -> Self {
        Self {
            current: Lookup::Unknown,
            considered: Considered::Never,
            held: None,
            accepted: None,
            rejected: None,
            may_hold,
        }
    }

    /// `None` while nothing is known: that is never a reason to send.
    fn known(&self) -> Option<Considered> {
        match &self.current {
            Lookup::Unknown => None,
            Lookup::Absent => Some(Considered::Absent),
            Lookup::Present(encoded) => Some(Considered::Present(encoded.version())),
        }
    }

    fn differs(&self) -> bool {
        self.known().is_some_and(|known| known != self.considered)
    }

    /// What the client should hold: for what it refused, the last that it accepted.
    fn wanted(&self) -> Option<Encoded> {
        match &self.current {
            Lookup::Unknown => self.held.clone(),
            Lookup::Absent => None,
            Lookup::Present(encoded) if self.rejected == Some(encoded.version()) => self.accepted.clone(),
            Lookup::Present(encoded) => Some(encoded.clone()),
        }
    }

    /// Whether the client does without the current content, having refused it.
    fn is_refused(&self) -> bool {
        matches!(&self.current, Lookup::Present(encoded) if self.rejected == Some(encoded.version()))
    }

    /// Whether silence about it would take from the client what it may still need.
    fn must_not_be_left_out(&self) -> bool {
        self.may_hold && self.held.is_none() && matches!(self.current, Lookup::Unknown)
    }
}

impl KindState {
    pub(super) fn request(&mut self, request: Request<'_>) -> Result<Effects, RequestError> {
        let Request { kind, names, .. } = request;
        if names.len() > MAX_NAMES {
            return Err(RequestError::TooManyNames { kind, names: names.len() });
        }
        let nonce = match (request.nonce.is_empty(), self.issued(request)) {
            (true, _) => None,
            (false, Some(nonce)) => Some(nonce),
            (false, None) => {
                return Ok(Effects { meaning: Meaning::Stale, added: Vec::new(), removed: Vec::new() });
            }
        };
        let meaning = nonce.map_or(Meaning::Subscription, |nonce| self.answer(nonce, request.error));
        let may_hold = !self.begun && !request.version_info.is_empty();
        let mut wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        self.named |= !names.is_empty();
        let wildcard = kind.is_complete() && (wanted.remove("*") || !self.named);
        // Only what a gateway routes to would be an answer to a wildcard, and there are no gateways: nothing.
        self.owed |= wildcard && !self.wildcard;
        self.wildcard = wildcard;
        self.begun = true;
        let removed = self.unsubscribe(&wanted);
        let added = self.subscribe(&wanted, may_hold);
        Ok(Effects { meaning, added, removed })
    }

    /// The number of the response that a request answers, if there was such a response.
    fn issued(&self, request: Request<'_>) -> Option<u64> {
        let number = request.nonce.strip_prefix(&request.kind.to_string())?.strip_prefix('-')?.parse().ok()?;
        (1..=self.last_nonce).contains(&number).then_some(number)
    }

    /// Notes what became of the response `nonce`, be it the last or not.
    fn answer(&mut self, nonce: u64, error: Option<&str>) -> Meaning {
        if let Some(position) = self.unanswered.iter().position(|sent| sent.nonce == nonce) {
            let sent = self.unanswered.drain(..=position).next_back();
            if let Some(sent) = sent {
                match error {
                    None => self.accept(sent),
                    Some(error) => self.reject(&sent, error),
                }
            }
        }
        match error {
            _ if nonce != self.last_nonce => Meaning::Stale,
            Some(_) => Meaning::Nack,
            None => Meaning::Ack,
        }
    }

    fn accept(&mut self, sent: Sent) {
        for encoded in sent.resources {
            if let Some(entry) = self.entries.get_mut(encoded.name()) {
                if entry.rejected == Some(encoded.version()) {
                    entry.rejected = None;
                }
                entry.accepted = Some(encoded);
            }
        }
        self.accepted_version = sent.version;
        // It took what replaced the refused bytes; as long as those are what it should have, the refusal stands.
        if self.nack.is_some() && !self.entries.values().any(Entry::is_refused) {
            self.nack = None;
        }
    }

    fn reject(&mut self, sent: &Sent, error: &str) {
        self.nack = Some(clip(error).into());
        self.whole = true;
        let named: Vec<_> = sent.resources.iter().filter(|encoded| mentions(error, encoded.name())).collect();
        let blames_another = sent.forgotten.iter().any(|name| mentions(error, name));
        let suspects: Vec<_> = if named.is_empty() && !blames_another {
            let new = |encoded: &&Encoded| {
                self.entries
                    .get(encoded.name())
                    .is_some_and(|entry| entry.accepted.as_ref().map(Encoded::version) != Some(encoded.version()))
            };
            sent.resources.iter().filter(new).collect()
        } else {
            named
        };
        for encoded in suspects {
            if let Some(entry) = self.entries.get_mut(encoded.name()) {
                entry.rejected = Some(encoded.version());
                if entry.held.as_ref().map(Encoded::version) == Some(encoded.version()) {
                    entry.held.clone_from(&entry.accepted);
                }
            }
        }
    }

    fn unsubscribe(&mut self, wanted: &BTreeSet<&str>) -> Vec<Arc<str>> {
        let removed: Vec<_> = self.entries.keys().filter(|name| !wanted.contains(&***name)).cloned().collect();
        for name in &removed {
            // The client forgets it, so we forget that it was sent.
            self.entries.remove(name);
            self.dirty.remove(name);
            self.again.remove(name);
            for sent in &mut self.unanswered {
                let before = sent.resources.len();
                sent.resources.retain(|encoded| encoded.name() != name);
                if sent.resources.len() < before {
                    sent.forgotten.push(name.clone());
                }
            }
        }
        removed
    }

    fn subscribe(&mut self, wanted: &BTreeSet<&str>, may_hold: bool) -> Vec<Arc<str>> {
        let added: Vec<Arc<str>> =
            wanted.iter().filter(|name| !self.entries.contains_key(**name)).map(|name| Arc::from(*name)).collect();
        for name in &added {
            self.entries.insert(name.clone(), Entry::new(may_hold));
        }
        added
    }

    pub(super) fn update(&mut self, name: &str, lookup: Lookup) {
        let Some((name, entry)) = self.entries.get_key_value(name).map(|(name, _)| name.clone()).and_then(|name| {
            let entry = self.entries.get_mut(&name)?;
            Some((name, entry))
        }) else {
            return;
        };
        entry.current = lookup;
        if entry.differs() {
            self.dirty.insert(name);
        } else {
            self.dirty.remove(&name);
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.owed || !self.dirty.is_empty() || !self.again.is_empty()
    }

    /// Has the endpoints of `clusters` sent again, as far as they are subscribed to.
    pub(super) fn send_again(&mut self, clusters: &BTreeSet<Arc<str>>) {
        self.again.extend(clusters.iter().filter(|name| self.entries.contains_key(*name)).cloned());
    }

    /// The response that is due, if any. With `keep_absent`, what does not exist any more but is held stays for now.
    /// Names whose bytes change go to `changed`.
    pub(super) fn respond(
        &mut self,
        kind: Kind,
        keep_absent: bool,
        changed: &mut BTreeSet<Arc<str>>,
    ) -> Option<Response> {
        if !self.is_dirty() {
            return None;
        }
        if kind.is_complete() && self.entries.values().any(Entry::must_not_be_left_out) {
            return None;
        }
        let due: Vec<Arc<str>> = std::mem::take(&mut self.dirty).into_iter().collect();
        let whole = kind.is_complete() || self.whole;
        let mut send = std::mem::take(&mut self.owed);
        let mut resources = Vec::new();
        for name in due {
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            if keep_absent && entry.held.is_some() && entry.current == Lookup::Absent {
                self.dirty.insert(name);
                continue;
            }
            let first = entry.considered == Considered::Never;
            entry.considered = entry.known().unwrap_or(entry.considered);
            let wanted = entry.wanted();
            // Back to what the client holds, or to what it refused: nothing to tell.
            if wanted != entry.held || first {
                send = true;
                if wanted.is_some() {
                    changed.insert(name);
                }
                entry.held.clone_from(&wanted);
                if !whole {
                    resources.extend(wanted);
                }
            }
        }
        for name in std::mem::take(&mut self.again) {
            let held = self.entries.get(&name).and_then(|entry| entry.held.as_ref());
            if let Some(held) = held {
                send = true;
                if !whole && !resources.iter().any(|encoded| encoded.name() == held.name()) {
                    resources.push(held.clone());
                }
            }
        }
        if !send {
            return None;
        }
        if whole {
            self.whole = false;
            resources = self.entries.values().filter_map(|entry| entry.held.clone()).collect();
        }
        Some(self.sent(kind, resources))
    }

    fn sent(&mut self, kind: Kind, resources: Vec<Encoded>) -> Response {
        let version = self.version();
        self.sent_version = Arc::from(version.as_str());
        self.last_nonce += 1;
        if self.unanswered.len() == UNANSWERED {
            self.unanswered.pop_front();
        }
        let sent = Sent {
            nonce: self.last_nonce,
            version: self.sent_version.clone(),
            resources: resources.clone(),
            forgotten: Vec::new(),
        };
        self.unanswered.push_back(sent);
        Response { kind, version, nonce: format!("{kind}-{}", self.last_nonce), resources }
    }

    fn version(&self) -> String {
        let mut hash = Xxh3Default::new();
        for held in self.entries.values().filter_map(|entry| entry.held.as_ref()) {
            // With its length, so that two subscriptions never run together into one.
            hash.update(&(held.name().len() as u64).to_le_bytes());
            hash.update(held.name().as_bytes());
            hash.update(&held.version().0.to_le_bytes());
        }
        Version(hash.digest()).to_string()
    }

    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.entries.keys().cloned().collect()
    }

    pub(super) fn standing(&self) -> Standing {
        Standing { sent: self.sent_version.clone(), accepted: self.accepted_version.clone(), nack: self.nack.clone() }
    }
}

/// Whether `text` names `name`, and not only a longer name that has it in it.
pub(super) fn mentions(text: &str, name: &str) -> bool {
    let part_of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_' | '/');
    !name.is_empty()
        && text.match_indices(name).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            let mut after = text[at + name.len()..].chars();
            // Clients punctuate: `cluster checkout.shop:8080: bad` ends the name with a colon that no port follows.
            let next = after.next();
            let ends = match next {
                Some(':' | '.') => !after.next().is_some_and(|c| c.is_ascii_alphanumeric()),
                Some(c) => !part_of_a_name(c),
                None => true,
            };
            !before.is_some_and(part_of_a_name) && ends
        })
}

fn clip(text: &str) -> &str {
    let mut end = text.len().min(NACK_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
