//! What the watches have told so far, and what it comes to. Pure; time is handed in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::watcher::Event;
use portolan_topology::names::{ServiceId, ZoneName};
use portolan_topology::service::{LocalService, LocalServices};

use super::Notes;
use super::project::Projected;
use crate::source::SourceStatus;
use crate::source::objects::{Service, Slice, Surroundings};

/// What identifies an object of a type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name {
    /// Empty for objects that are in none.
    pub namespace: Box<str>,
    pub name: Box<str>,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{}", self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// An object, projected.
#[derive(Debug)]
pub(super) struct Object<P> {
    pub name: Name,
    pub uid: Option<Box<str>>,
    pub projected: Projected<P>,
}

/// A type that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Service,
    EndpointSlice,
    Node,
    Pod,
}

impl Kind {
    /// As the API server and RBAC name it.
    fn resource(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices.discovery.k8s.io",
            Self::Node => "nodes",
            Self::Pod => "pods",
        }
    }

    /// Its version and name in objects.
    fn type_(self) -> (&'static str, &'static str) {
        match self {
            Self::Service => ("v1", "Service"),
            Self::EndpointSlice => ("discovery.k8s.io/v1", "EndpointSlice"),
            Self::Node => ("v1", "Node"),
            Self::Pod => ("v1", "Pod"),
        }
    }

    /// Whether nothing can be said of any service without it.
    fn is_needed(self) -> bool {
        matches!(self, Self::Service | Self::EndpointSlice)
    }
}

/// Why a type cannot be watched just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// RBAC does not allow it.
    Forbidden(String),
    /// The API server answers something else than objects.
    Refused(String),
    /// There is no answer.
    Unreachable(String),
}

/// What one watch tells.
#[derive(Debug)]
pub(super) enum Update {
    Service(Event<Object<Service>>),
    Slice(Event<Object<Slice>>),
    Node(Event<Object<ZoneName>>),
    Pod(Event<Object<NonZeroU32>>),
    Failed(Kind, Failure),
    /// A request for objects of this type was answered as it should be.
    Answered(Kind),
}

impl Update {
    pub(super) fn services_failed(failure: Failure) -> Self {
        Self::Failed(Kind::Service, failure)
    }

    pub(super) fn slices_failed(failure: Failure) -> Self {
        Self::Failed(Kind::EndpointSlice, failure)
    }

    pub(super) fn nodes_failed(failure: Failure) -> Self {
        Self::Failed(Kind::Node, failure)
    }

    pub(super) fn pods_failed(failure: Failure) -> Self {
        Self::Failed(Kind::Pod, failure)
    }
}

/// What is wrong with or odd about an object.
#[derive(Debug, PartialEq)]
struct Note {
    uid: Option<Box<str>>,
    text: String,
}

/// The objects of one type.
#[derive(Debug)]
struct Kept<P> {
    objects: HashMap<Name, P>,
    notes: BTreeMap<Name, Note>,
    /// A listing that is not complete yet.
    listing: Option<(HashMap<Name, P>, BTreeMap<Name, Note>)>,
    listed: bool,
}

impl<P> Default for Kept<P> {
    fn default() -> Self {
        Self { objects: HashMap::new(), notes: BTreeMap::new(), listing: None, listed: false }
    }
}

/// An object that is not what it was: its name, what was kept of it, and what is.
type Change<P> = (Name, Option<P>, Option<P>);

impl<P: Clone + PartialEq> Kept<P> {
    fn take(&mut self, event: Event<Object<P>>) -> Vec<Change<P>> {
        match event {
            Event::Init => {
                self.listing = Some(Default::default());
                Vec::new()
            }
            Event::InitApply(Object { name, uid, projected }) => {
                let before = self.objects.get(&name);
                let (kept, note) = settled(projected, before);
                let (objects, notes) = self.listing.get_or_insert_default();
                notes.extend(note.map(|text| (name.clone(), Note { uid, text })));
                objects.extend(kept.map(|kept| (name, kept)));
                Vec::new()
            }
            Event::InitDone => {
                self.listed = true;
                let (objects, notes) = self.listing.take().unwrap_or_default();
                self.notes = notes;
                let mut before = std::mem::replace(&mut self.objects, objects);
                let now = self.objects.iter().filter_map(|(name, now)| {
                    let old = before.remove(name);
                    (old.as_ref() != Some(now)).then(|| (name.clone(), old, Some(now.clone())))
                });
                let mut changes: Vec<_> = now.collect();
                changes.extend(before.into_iter().map(|(name, gone)| (name, Some(gone), None)));
                changes
            }
            Event::Apply(Object { name, uid, projected }) => {
                let (kept, note) = settled(projected, self.objects.get(&name));
                match note {
                    Some(text) => drop(self.notes.insert(name.clone(), Note { uid, text })),
                    None => drop(self.notes.remove(&name)),
                }
                let before = match &kept {
                    Some(kept) => self.objects.insert(name.clone(), kept.clone()),
                    None => self.objects.remove(&name),
                };
                if before == kept { Vec::new() } else { vec![(name, before, kept)] }
            }
            Event::Delete(Object { name, .. }) => {
                self.notes.remove(&name);
                let before = self.objects.remove(&name);
                before.map(|before| (name, Some(before), None)).into_iter().collect()
            }
        }
    }
}

/// What is kept of an object, and what is to be told. Of one that cannot be used the last good state stands.
fn settled<P: Clone>(projected: Projected<P>, before: Option<&P>) -> (Option<P>, Option<String>) {
    let Projected { kept, mut odd } = projected;
    let kept = kept.unwrap_or_else(|wrong| {
        let stands = if before.is_some() { "its last good state stands" } else { "it is left out" };
        odd.insert(0, format!("{wrong}; {stands}"));
        before.cloned()
    });
    (kept, (!odd.is_empty()).then(|| odd.join("\n")))
}

/// Everything that is known, and what of it has not been joined yet.
#[derive(Debug)]
pub(super) struct State {
    name: String,
    pods_watched: bool,
    services: Kept<Service>,
    slices: Kept<Slice>,
    nodes: Kept<ZoneName>,
    pods: Kept<NonZeroU32>,
    around: Surroundings,
    slices_of: HashMap<ServiceId, BTreeSet<Name>>,
    failures: BTreeMap<Kind, (Failure, Timestamp)>,
    synced: bool,
    /// Whether `synced` or a service has changed since the last look.
    changed: bool,
    stale: BTreeSet<ServiceId>,
    shown: BTreeMap<ServiceId, Arc<LocalService>>,
}

impl State {
    pub(super) fn new(name: String, pods_watched: bool) -> Self {
        Self {
            name,
            pods_watched,
            services: Kept::default(),
            slices: Kept::default(),
            nodes: Kept::default(),
            pods: Kept::default(),
            around: Surroundings::default(),
            slices_of: HashMap::new(),
            failures: BTreeMap::new(),
            synced: false,
            changed: false,
            stale: BTreeSet::new(),
            shown: BTreeMap::new(),
        }
    }

    /// Takes what a watch tells. Says what a log should hold.
    pub(super) fn take(&mut self, update: Update, now: Timestamp) -> Vec<String> {
        let kind = update.kind();
        if let Update::Failed(_, failure) = update {
            return self.fail(kind, failure, now);
        }
        // The beginning of a listing is only a question; everything else is an answer.
        let mut told = Vec::new();
        if !update.is_question() && self.failures.remove(&kind).is_some() {
            told.push(format!("{}: {} are seen again", self.name, kind.resource()));
        }
        match update {
            Update::Service(event) => {
                let changes = self.services.take(event);
                self.stale.extend(changes.into_iter().filter_map(|(_, old, new)| Some(new.or(old)?.id)));
            }
            Update::Slice(event) => {
                for (name, old, new) in self.slices.take(event) {
                    self.move_slice(&name, old, new);
                }
            }
            Update::Node(event) => {
                for (name, _, zone) in self.nodes.take(event) {
                    match zone {
                        Some(zone) => drop(self.around.nodes.insert(name.name.into(), zone)),
                        None => drop(self.around.nodes.remove(&*name.name)),
                    }
                    // Rare, and most slices name their zones themselves.
                    self.stale.extend(self.slices_of.keys().cloned());
                }
            }
            Update::Pod(event) => {
                for (name, _, weight) in self.pods.take(event) {
                    self.weigh(name, weight);
                }
            }
            Update::Failed(..) | Update::Answered(_) => {}
        }
        self.settle();
        told
    }

    fn move_slice(&mut self, name: &Name, old: Option<Slice>, new: Option<Slice>) {
        let (old, new) = (old.map(|slice| slice.service), new.map(|slice| slice.service));
        if let Some(old) = old.filter(|old| Some(old) != new.as_ref()) {
            if let Some(slices) = self.slices_of.get_mut(&old) {
                slices.remove(name);
                if slices.is_empty() {
                    self.slices_of.remove(&old);
                }
            }
            self.stale.insert(old);
        }
        if let Some(new) = new {
            self.slices_of.entry(new.clone()).or_default().insert(name.clone());
            self.stale.insert(new);
        }
    }

    fn weigh(&mut self, pod: Name, weight: Option<NonZeroU32>) {
        let listed = self.slices.objects.iter().filter(|(slice, _)| slice.namespace == pod.namespace);
        let listed = listed
            .filter(|(_, slice)| slice.endpoints.iter().any(|endpoint| endpoint.pod.as_deref() == Some(&*pod.name)));
        self.stale.extend(listed.map(|(_, slice)| slice.service.clone()));
        let key = (pod.namespace.into(), pod.name.into());
        match weight {
            Some(weight) => drop(self.around.pods.insert(key, weight)),
            None => drop(self.around.pods.remove(&key)),
        }
    }

    fn fail(&mut self, kind: Kind, failure: Failure, now: Timestamp) -> Vec<String> {
        let since = self.failures.get(&kind).map_or(now, |(_, since)| *since);
        let news = self.failures.insert(kind, (failure.clone(), since)).is_none_or(|(before, _)| before != failure);
        self.settle();
        if news { vec![format!("{}: {}", self.name, spoken(kind, &failure))] } else { Vec::new() }
    }

    /// Synced once each type is listed, or is one that services do without and RBAC forbids. Once so it stays.
    fn settle(&mut self) {
        let listed = |kind| match kind {
            Kind::Service => self.services.listed,
            Kind::EndpointSlice => self.slices.listed,
            Kind::Node => self.nodes.listed,
            Kind::Pod => self.pods.listed || !self.pods_watched,
        };
        let forbidden = |kind| matches!(self.failures.get(&kind), Some((Failure::Forbidden(_), _)));
        let known = |kind: Kind| listed(kind) || (!kind.is_needed() && forbidden(kind));
        if !self.synced && [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::Pod].into_iter().all(known) {
            (self.synced, self.changed) = (true, true);
        }
    }

    /// What is to be shown now, if that is not what was shown last.
    pub(super) fn services(&mut self) -> Option<LocalServices> {
        // Before the first complete listings, part of a service may be all of it that has been seen.
        if !self.synced {
            return None;
        }
        for id in std::mem::take(&mut self.stale) {
            let name = Name { namespace: id.namespace().into(), name: id.name().into() };
            let joined = self.services.objects.get(&name).map(|service| {
                let slices = self.slices_of.get(&id).into_iter().flatten();
                let slices: Vec<_> = slices.filter_map(|slice| self.slices.objects.get(slice)).collect();
                self.around.local_service(service, &slices)
            });
            self.changed |= match joined {
                Some(joined) if self.shown.get(&id).is_some_and(|shown| **shown == joined) => false,
                Some(joined) => {
                    self.shown.insert(id, Arc::new(joined));
                    true
                }
                None => self.shown.remove(&id).is_some(),
            };
        }
        let changed = std::mem::take(&mut self.changed);
        changed.then(|| LocalServices { synced: true, services: self.shown.clone() })
    }

    pub(super) fn status(&self) -> SourceStatus {
        let errors =
            self.failures.iter().map(|(kind, (failure, _))| (kind.resource().to_owned(), spoken(*kind, failure)));
        let warning =
            |(kind, name, note): (Kind, &Name, &Note)| (format!("{} {name}", kind.type_().1), note.text.clone());
        SourceStatus {
            source: self.name.clone(),
            synced: self.synced,
            silent_since: self.failures.values().map(|(_, since)| *since).min(),
            errors: errors.collect(),
            warnings: self.noted().map(warning).collect(),
        }
    }

    /// What is wrong with or odd about objects, for those who look at them.
    pub(super) fn notes(&self) -> Notes {
        let note = |(kind, name, note): (Kind, &Name, &Note)| {
            let (api_version, kind) = kind.type_();
            let about = ObjectReference {
                api_version: Some(api_version.to_owned()),
                kind: Some(kind.to_owned()),
                namespace: (!name.namespace.is_empty()).then(|| name.namespace.to_string()),
                name: Some(name.name.to_string()),
                uid: note.uid.as_deref().map(str::to_owned),
                ..ObjectReference::default()
            };
            (about, note.text.clone())
        };
        self.noted().map(note).collect()
    }

    fn noted(&self) -> impl Iterator<Item = (Kind, &Name, &Note)> {
        let of = |kind, notes| -> (Kind, &BTreeMap<Name, Note>) { (kind, notes) };
        let all = [
            of(Kind::Service, &self.services.notes),
            of(Kind::EndpointSlice, &self.slices.notes),
            of(Kind::Node, &self.nodes.notes),
            of(Kind::Pod, &self.pods.notes),
        ];
        all.into_iter().flat_map(|(kind, notes)| notes.iter().map(move |(name, note)| (kind, name, note)))
    }
}

impl Update {
    fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::Slice(_) => Kind::EndpointSlice,
            Self::Node(_) => Kind::Node,
            Self::Pod(_) => Kind::Pod,
            Self::Failed(kind, _) | Self::Answered(kind) => *kind,
        }
    }

    fn is_question(&self) -> bool {
        matches!(
            self,
            Self::Service(Event::Init) | Self::Slice(Event::Init) | Self::Node(Event::Init) | Self::Pod(Event::Init)
        )
    }
}

fn spoken(kind: Kind, failure: &Failure) -> String {
    let resource = kind.resource();
    match failure {
        Failure::Forbidden(why) => format!("{resource} are forbidden: allow get, list and watch by RBAC ({why})"),
        Failure::Refused(why) => format!("{resource} cannot be watched: the API server answers {why}"),
        Failure::Unreachable(why) => format!("{resource} cannot be watched: {why}"),
    }
}

#[cfg(test)]
mod tests;
