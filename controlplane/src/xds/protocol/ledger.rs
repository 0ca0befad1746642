//! What a client was sent of one type, and what it made of it. Knows neither requests nor responses: both variants of
//! the protocol keep their books here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::holding::{Holding, SyncState};
use super::refusal::{clip, mentions};
use super::{Standing, number_of};
use crate::resources::{Encoded, Kind, Version};

/// Unanswered responses that are remembered; older ones count as never answered.
const UNANSWERED: usize = 16;

/// The books of one type on one stream.
#[derive(Debug, Default)]
pub(in crate::xds) struct Ledger {
    /// Boxed: most subscriptions have one name, and a node of the map has room for eleven.
    entries: BTreeMap<Arc<str>, Box<Entry>>,
    /// Names that may differ from what was sent.
    dirty: BTreeSet<Arc<str>>,
    /// Names to send even if they do not differ.
    again: BTreeSet<Arc<str>>,
    /// Names of refused responses: nobody knows what the client holds of them, so the next response has them all.
    doubtful: BTreeSet<Arc<str>>,
    unanswered: VecDeque<Sent>,
    /// The number of the last response; 0: there was none.
    last: u64,
    /// The sum of the [`mark`]s of what is held: kept up with each change, whatever the number of names.
    content: u64,
    sent: Option<Version>,
    accepted: Option<Version>,
    nack: Option<Arc<str>>,
}

/// What a followed resource is now.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::xds) enum Current {
    Unknown,
    Absent,
    Present(Encoded),
}

/// A followed name.
#[derive(Debug)]
struct Entry {
    current: Current,
    /// `current` as it was when it was last looked at for sending.
    considered: Considered,
    /// What the client holds if it took everything that was sent.
    held: Option<Encoded>,
    /// What it accepted last.
    accepted: Option<Encoded>,
    /// When it accepted that, if on this stream.
    accepted_at: Option<Instant>,
    /// The version that it refused.
    rejected: Option<Version>,
    /// What it holds from an earlier stream, if anything.
    before: Before,
    /// Whether the client named it, and not only a wildcard.
    named: bool,
    /// Whether it stays only until its removal is sent.
    leaving: bool,
}

/// What a client holds from before the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::xds) enum Before {
    Nothing,
    /// It may hold something, of which nothing is known.
    Something,
    /// It says that it holds this version.
    Version(Version),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Considered {
    Never,
    Absent,
    Present(Version),
}

#[derive(Debug)]
struct Sent {
    number: u64,
    version: Version,
    resources: Vec<Encoded>,
    /// Names that were in it and are not followed any more. The client may still refuse it because of them.
    forgotten: Vec<Arc<str>>,
}

/// A name whose content for the client changed: to this, or to nothing.
#[derive(Debug)]
pub(in crate::xds) struct Due {
    pub(in crate::xds) name: Arc<str>,
    pub(in crate::xds) now: Option<Encoded>,
}

/// What became of the answer to a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::xds) enum Answered {
    /// It was to the last response.
    Last,
    /// It was to an earlier one.
    Earlier,
}

impl Entry {
    fn new(named: bool, before: Before) -> Self {
        Self {
            current: Current::Unknown,
            considered: Considered::Never,
            held: None,
            accepted: None,
            accepted_at: None,
            rejected: None,
            before,
            named,
            leaving: false,
        }
    }

    /// `None` while nothing is known: that is never a reason to send.
    fn known(&self) -> Option<Considered> {
        match &self.current {
            Current::Unknown => None,
            Current::Absent => Some(Considered::Absent),
            Current::Present(encoded) => Some(Considered::Present(encoded.version())),
        }
    }

    fn differs(&self) -> bool {
        self.known().is_some_and(|known| known != self.considered)
    }

    /// What the client should hold: for what it refused, the last that it accepted.
    fn wanted(&self) -> Option<Encoded> {
        match &self.current {
            Current::Unknown => self.held.clone(),
            Current::Absent => None,
            Current::Present(_) if self.is_refused() => self.accepted.clone(),
            Current::Present(encoded) => Some(encoded.clone()),
        }
    }

    /// Whether the client does without the current content, having refused it.
    fn is_refused(&self) -> bool {
        matches!(&self.current, Current::Present(encoded) if self.rejected == Some(encoded.version()))
    }

    fn holding(&self, name: &Arc<str>) -> Holding {
        let version = |encoded: &Option<Encoded>| encoded.as_ref().map(Encoded::version);
        let told_of_absence = self.considered == Considered::Absent && self.held.is_none();
        let wanted = self.wanted();
        let state = match &self.current {
            _ if self.is_refused() => SyncState::Nacked,
            Current::Absent if told_of_absence => SyncState::Synced,
            Current::Present(_) | Current::Unknown
                if wanted.is_some() && version(&wanted) == version(&self.accepted) =>
            {
                SyncState::Synced
            }
            _ if self.holds_something() => SyncState::Stale,
            _ => SyncState::NotSent,
        };
        let refused = match &self.current {
            Current::Present(encoded) if self.is_refused() => Some(encoded.clone()),
            _ => None,
        };
        Holding {
            name: name.clone(),
            state,
            accepted: self.accepted.clone().filter(|_| !told_of_absence),
            accepted_at: self.accepted_at.filter(|_| !told_of_absence),
            refused,
            absent: self.current == Current::Absent,
        }
    }

    fn holds_something(&self) -> bool {
        self.held.is_some() || self.before != Before::Nothing
    }

    /// Changes what the client is taken to hold, and the content's sum with it.
    fn hold(&mut self, encoded: Option<Encoded>, content: &mut u64) {
        *content = content.wrapping_sub(self.held.as_ref().map_or(0, mark));
        self.held = encoded;
        *content = content.wrapping_add(self.held.as_ref().map_or(0, mark));
    }
}

fn mark(encoded: &Encoded) -> u64 {
    xxh3_64_with_seed(encoded.name().as_bytes(), encoded.version().0)
}

impl Ledger {
    /// The names that are followed, sorted.
    pub(in crate::xds) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.iter().filter(|(_, entry)| !entry.leaving).map(|(name, _)| name)
    }

    /// What the client has of each name that is followed, by name.
    pub(in crate::xds) fn holdings(&self) -> impl Iterator<Item = Holding> {
        self.entries.iter().filter(|(_, entry)| !entry.leaving).map(|(name, entry)| entry.holding(name))
    }

    /// The names that the client gave itself, sorted.
    pub(in crate::xds) fn named(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.iter().filter(|(_, entry)| entry.named).map(|(name, _)| name)
    }

    /// Whether the client named it.
    pub(in crate::xds) fn is_named(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.named)
    }

    /// Follows `name`. Says whether it was not followed before.
    pub(in crate::xds) fn follow(&mut self, name: &Arc<str>, named: bool, before: Before) -> bool {
        let Some(entry) = self.entries.get_mut(name) else {
            self.entries.insert(name.clone(), Box::new(Entry::new(named, before)));
            return true;
        };
        entry.named |= named;
        // Followed already, and nothing sent yet: it must be removed like anything that the client holds.
        if before != Before::Nothing && entry.considered == Considered::Never && entry.before == Before::Nothing {
            entry.before = Before::Something;
        }
        if entry.leaving {
            entry.leaving = false;
            entry.current = Current::Unknown;
            // The client may have forgotten it meanwhile: what it once said that it holds says nothing any more.
            if entry.before != Before::Nothing {
                entry.before = Before::Something;
            }
            self.dirty.remove(name);
            return true;
        }
        false
    }

    /// Follows `name` no longer: the client forgets it, so we forget that it was sent.
    pub(in crate::xds) fn forget(&mut self, name: &str) {
        if let Some((name, mut entry)) = self.entries.remove_entry(name) {
            entry.hold(None, &mut self.content);
            self.dirty.remove(&name);
            self.again.remove(&name);
            self.doubtful.remove(&name);
            for sent in &mut self.unanswered {
                let before = sent.resources.len();
                sent.resources.retain(|encoded| *encoded.name() != name);
                if sent.resources.len() < before {
                    sent.forgotten.push(name.clone());
                }
            }
        }
    }

    /// Names that went out in a response that is not answered yet, and were forgotten since.
    pub(in crate::xds) fn given_up_under_way(&self) -> BTreeSet<Arc<str>> {
        self.unanswered.iter().flat_map(|sent| &sent.forgotten).cloned().collect()
    }

    /// Has the removal of `name` sent, and then follows it no longer. What was never sent needs no removal, unless the
    /// client `waits` to hear of it.
    pub(in crate::xds) fn leave(&mut self, name: &Arc<str>, waits: bool) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if !waits && !entry.holds_something() {
            return self.forget(name);
        }
        entry.named = false;
        entry.leaving = true;
        entry.current = Current::Absent;
        entry.considered = Considered::Never;
        self.dirty.insert(name.clone());
    }

    /// Only a wildcard asks for it from now on.
    pub(in crate::xds) fn unname(&mut self, name: &str) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.named = false;
        }
    }

    /// The client wants it anew, whatever it was sent.
    pub(in crate::xds) fn repeat(&mut self, name: &Arc<str>) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        // What is under way may still come to it.
        entry.before = if entry.holds_something() { Before::Something } else { Before::Nothing };
        entry.hold(None, &mut self.content);
        entry.considered = Considered::Never;
        if entry.differs() {
            self.dirty.insert(name.clone());
        }
    }

    /// Says what `name` is now.
    pub(in crate::xds) fn update(&mut self, name: &str, current: Current) {
        // Together, so that the name is the one allocation that the entry has.
        let Some(name) = self.entries.get_key_value(name).map(|(name, _)| name.clone()) else { return };
        let Some(entry) = self.entries.get_mut(&name).filter(|entry| !entry.leaving) else { return };
        entry.current = current;
        if entry.differs() {
            self.dirty.insert(name);
        } else {
            self.dirty.remove(&name);
        }
    }

    /// Whether the client holds something of `name`, from this stream or from one before.
    pub(in crate::xds) fn holds(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.holds_something())
    }

    pub(in crate::xds) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.again.is_empty()
    }

    /// Whether nothing is known yet of a name that only a wildcard asks for.
    pub(in crate::xds) fn awaits_members(&self) -> bool {
        self.entries.values().any(|entry| !entry.named && entry.current == Current::Unknown)
    }

    /// Whether silence about some name would take from the client what it may still need.
    pub(in crate::xds) fn must_wait(&self) -> bool {
        self.entries
            .values()
            .any(|entry| entry.before != Before::Nothing && entry.held.is_none() && entry.current == Current::Unknown)
    }

    /// Has those of `names` sent again that are followed.
    pub(in crate::xds) fn send_again(&mut self, names: &BTreeSet<Arc<str>>) {
        self.again.extend(names.iter().filter(|name| self.entries.contains_key(*name)).cloned());
    }

    /// What the client is to be told, by name; it counts as held from now on. With `keep_absent`, what is gone and was
    /// held stays for now.
    pub(in crate::xds) fn take_due(&mut self, keep_absent: bool) -> Vec<Due> {
        let mut due = Vec::new();
        let mut resumed = false;
        for name in std::mem::take(&mut self.dirty) {
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            if keep_absent && entry.holds_something() && entry.current == Current::Absent {
                self.dirty.insert(name);
                continue;
            }
            let first = entry.considered == Considered::Never;
            entry.considered = entry.known().unwrap_or(entry.considered);
            let now = entry.wanted();
            let before = std::mem::replace(&mut entry.before, Before::Nothing);
            let has_it = match (&now, before) {
                (Some(now), Before::Version(version)) => now.version() == version,
                _ => false,
            };
            if has_it {
                entry.accepted.clone_from(&now);
                resumed = true;
            }
            // Back to what the client holds, or to what it refused: nothing to tell. What is gone is told in doubt, too.
            let gone = entry.current == Current::Absent && before != Before::Nothing;
            let tell = !has_it && (first || gone || now != entry.held);
            if !tell && now.is_none() {
                entry.before = before;
            }
            entry.hold(now.clone(), &mut self.content);
            if entry.leaving {
                self.entries.remove(&name);
            }
            if tell {
                due.push(Due { name, now });
            }
        }
        // It took all of this on an earlier stream: nothing goes out that it could answer.
        if resumed && due.is_empty() && self.last == 0 {
            self.sent = Some(Version(self.content));
            self.accepted = self.sent;
        }
        due
    }

    /// What the client holds of the names to send again.
    pub(in crate::xds) fn take_again(&mut self) -> Vec<Encoded> {
        let names = std::mem::take(&mut self.again);
        names.iter().filter_map(|name| self.entries.get(name)?.held.clone()).collect()
    }

    /// What the client should hold of the names about which a refusal left doubt. `None`: there is none.
    pub(in crate::xds) fn take_doubtful(&mut self) -> Option<Vec<Encoded>> {
        let names = std::mem::take(&mut self.doubtful);
        let held = || names.iter().filter_map(|name| self.entries.get(name)?.held.clone()).collect();
        (!names.is_empty()).then(held)
    }

    /// Everything that the client should hold, by name.
    pub(in crate::xds) fn held(&self) -> Vec<Encoded> {
        self.entries.values().filter_map(|entry| entry.held.clone()).collect()
    }

    /// Notes that these resources go out. Gives the response's version and number.
    pub(in crate::xds) fn send(&mut self, resources: Vec<Encoded>) -> (Version, u64) {
        let version = Version(self.content);
        self.sent = Some(version);
        self.last += 1;
        if self.unanswered.len() == UNANSWERED {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back(Sent { number: self.last, version, resources, forgotten: Vec::new() });
        (version, self.last)
    }

    /// The number of the response with this nonce, if there was such a response.
    pub(in crate::xds) fn issued(&self, kind: Kind, nonce: &str) -> Option<u64> {
        number_of(kind, nonce).filter(|number| (1..=self.last).contains(number))
    }

    /// Notes what became of a response, be it the last or not.
    pub(in crate::xds) fn answer(&mut self, number: u64, error: Option<&str>, now: Instant) -> Answered {
        if let Some(position) = self.unanswered.iter().position(|sent| sent.number == number) {
            let sent = self.unanswered.drain(..=position).next_back();
            if let Some(sent) = sent {
                match error {
                    None => self.accept(sent, now),
                    Some(error) => self.reject(&sent, error),
                }
            }
            if self.unanswered.is_empty() {
                // Most streams are idle most of the time, and there are many.
                self.unanswered.shrink_to_fit();
            }
        }
        if number == self.last { Answered::Last } else { Answered::Earlier }
    }

    fn accept(&mut self, sent: Sent, now: Instant) {
        for encoded in sent.resources {
            if let Some(entry) = self.entries.get_mut(encoded.name()) {
                if entry.rejected == Some(encoded.version()) {
                    entry.rejected = None;
                }
                if entry.accepted.as_ref().map(Encoded::version) != Some(encoded.version()) {
                    entry.accepted_at = Some(now);
                }
                entry.accepted = Some(encoded);
            }
        }
        self.accepted = Some(sent.version);
        // It took what replaced the refused bytes; as long as those are what it should have, the refusal stands.
        if self.nack.is_some() && !self.entries.values().any(|entry| entry.is_refused()) {
            self.nack = None;
        }
    }

    fn reject(&mut self, sent: &Sent, error: &str) {
        self.nack = Some(clip(error).into());
        self.doubtful.extend(sent.resources.iter().map(|encoded| encoded.name().clone()));
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
                    entry.hold(entry.accepted.clone(), &mut self.content);
                    // Of an earlier response it may have taken this name and refused another.
                    if entry.held.is_none() {
                        entry.before = Before::Something;
                    }
                }
            }
        }
    }

    /// How it stands, seen from outside.
    pub(in crate::xds) fn standing(&self) -> Standing {
        Standing { sent: self.sent, accepted: self.accepted, nack: self.nack.clone() }
    }
}
