//! What the watches have told so far, and what it comes to. Pure; time is handed in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::watcher::Event;
use portolan_topology::names::ServiceId;
use portolan_topology::service::{LocalService, LocalServices};
use portolan_topology::topology::Topology;

use super::Notes;
use super::gateways::{self, Gateways, Seen};
use super::kind::Kind;
use super::project::{NodePlace, Projected, ServiceObject};
use crate::gateway::objects::GatewayObjects;
use crate::source::SourceStatus;
use crate::source::objects::{NODE_REGION, PodSettings, Slice, Surroundings};

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

/// Why a type cannot be watched just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// RBAC does not allow it.
    Forbidden(String),
    /// The API server has no such type: it may be installed.
    Missing,
    /// The API server answers something else than objects.
    Refused(String),
    /// There is no answer.
    Unreachable(String),
}

/// What one watch tells.
#[derive(Debug)]
pub(super) enum Update {
    Service(Event<Object<ServiceObject>>),
    Slice(Event<Object<Slice>>),
    Node(Event<Object<NodePlace>>),
    Pod(Event<Object<PodSettings>>),
    Gateways(Seen),
    Failed(Kind, Failure),
    /// A request for objects of this type was answered as it should be.
    Answered(Kind),
}

/// What is wrong with or odd about an object.
#[derive(Debug, PartialEq)]
pub(super) struct Note {
    uid: Option<Box<str>>,
    text: String,
}

/// A note with its object.
pub(super) type Noted<'a> = (Kind, &'a Name, &'a Note);

/// The objects of one type.
#[derive(Debug)]
pub(super) struct Kept<P> {
    pub objects: HashMap<Name, P>,
    pub notes: BTreeMap<Name, Note>,
    /// A listing that is not complete yet.
    listing: Option<(HashMap<Name, P>, BTreeMap<Name, Note>)>,
    pub listed: bool,
}

impl<P> Default for Kept<P> {
    fn default() -> Self {
        Self { objects: HashMap::new(), notes: BTreeMap::new(), listing: None, listed: false }
    }
}

/// An object that is not what it was: its name, what was kept of it, and what is.
pub(super) type Change<P> = (Name, Option<P>, Option<P>);

impl<P: Clone + PartialEq> Kept<P> {
    pub(super) fn take(&mut self, event: Event<Object<P>>) -> Vec<Change<P>> {
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

/// What is watched besides services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Watched {
    pub pods: bool,
    pub gateways: bool,
}

/// Everything that is known, and what of it has not been joined yet.
#[derive(Debug)]
pub(super) struct State {
    name: String,
    watched: Watched,
    services: Kept<ServiceObject>,
    slices: Kept<Slice>,
    nodes: Kept<NodePlace>,
    topology: Option<Arc<Topology>>,
    /// Nodes whose label of the region contradicts the topology, in words.
    misplaced: BTreeMap<Name, String>,
    pods: Kept<PodSettings>,
    gateways: Gateways,
    around: Surroundings,
    slices_of: HashMap<ServiceId, BTreeSet<Name>>,
    failures: BTreeMap<Kind, (Failure, Timestamp)>,
    synced: bool,
    /// Whether `synced` or a service has changed since the last look.
    changed: bool,
    stale: BTreeSet<ServiceId>,
    shown: BTreeMap<ServiceId, Arc<LocalService>>,
    gateways_synced: bool,
    /// The same for what gateways are made from.
    gateways_changed: bool,
}

impl State {
    pub(super) fn new(name: String, watched: Watched) -> Self {
        Self {
            name,
            watched,
            services: Kept::default(),
            slices: Kept::default(),
            nodes: Kept::default(),
            topology: None,
            misplaced: BTreeMap::new(),
            pods: Kept::default(),
            gateways: Gateways::default(),
            around: Surroundings::default(),
            slices_of: HashMap::new(),
            failures: BTreeMap::new(),
            synced: false,
            changed: false,
            stale: BTreeSet::new(),
            shown: BTreeMap::new(),
            gateways_synced: false,
            gateways_changed: false,
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
                for (_, old, new) in self.services.take(event) {
                    let http2 = |service: &Option<ServiceObject>| {
                        service.as_ref().map_or_else(Vec::new, |service| service.cleartext_http2.clone())
                    };
                    self.gateways_changed |= http2(&old) != http2(&new);
                    self.stale.extend(new.or(old).map(|service| service.joined.id));
                }
            }
            Update::Slice(event) => {
                for (name, old, new) in self.slices.take(event) {
                    self.move_slice(&name, old, new);
                }
            }
            Update::Node(event) => {
                for (name, _, place) in self.nodes.take(event) {
                    self.misplaced.remove(&name);
                    let misplaced = place.as_ref().and_then(|place| self.misplaced(&name, place));
                    self.misplaced.extend(misplaced);
                    match place {
                        Some(place) => drop(self.around.nodes.insert(name.name.into(), place.zone)),
                        None => drop(self.around.nodes.remove(&*name.name)),
                    }
                    // Rare, and most slices name their zones themselves.
                    self.stale.extend(self.slices_of.keys().cloned());
                }
            }
            Update::Pod(event) => {
                for (name, _, settings) in self.pods.take(event) {
                    self.heed(name, settings);
                }
            }
            Update::Gateways(seen) => self.gateways_changed |= self.gateways.take(seen),
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

    fn heed(&mut self, pod: Name, settings: Option<PodSettings>) {
        let listed = self.slices.objects.iter().filter(|(slice, _)| slice.namespace == pod.namespace);
        let listed = listed
            .filter(|(_, slice)| slice.endpoints.iter().any(|endpoint| endpoint.pod.as_deref() == Some(&*pod.name)));
        self.stale.extend(listed.map(|(_, slice)| slice.service.clone()));
        let key = (pod.namespace.into(), pod.name.into());
        match settings {
            Some(settings) => drop(self.around.pods.insert(key, settings)),
            None => drop(self.around.pods.remove(&key)),
        }
    }

    fn fail(&mut self, kind: Kind, failure: Failure, now: Timestamp) -> Vec<String> {
        let since = self.failures.get(&kind).map_or(now, |(_, since)| *since);
        let news = self.failures.insert(kind, (failure.clone(), since)).is_none_or(|(before, _)| before != failure);
        self.settle();
        let never_there = failure == Failure::Missing && !self.listed(kind);
        if news && !never_there { vec![format!("{}: {}", self.name, spoken(kind, &failure))] } else { Vec::new() }
    }

    /// Takes in which region each zone is.
    pub(super) fn place(&mut self, topology: Arc<Topology>) {
        self.topology = Some(topology);
        self.misplaced = self.nodes.objects.iter().filter_map(|(name, node)| self.misplaced(name, node)).collect();
    }

    /// A Node whose label of the region contradicts the topology's word on its zone, which is what counts.
    fn misplaced(&self, name: &Name, NodePlace { zone, region }: &NodePlace) -> Option<(Name, String)> {
        let said = region.as_deref()?;
        let known = &self.topology.as_ref()?.region_of_zone(zone)?.name;
        let wrong = || {
            format!(
                "its label {NODE_REGION} says `{said}`, and the topology has the zone {zone} in {known}, which counts: \
                 change the label, or the topology"
            )
        };
        (said != known.as_str()).then(|| (name.clone(), wrong()))
    }

    fn listed(&self, kind: Kind) -> bool {
        match kind {
            Kind::Service => self.services.listed,
            Kind::EndpointSlice => self.slices.listed,
            Kind::Node => self.nodes.listed,
            Kind::Pod => self.pods.listed || !self.watched.pods,
            of_gateways => self.gateways.listed(of_gateways),
        }
    }

    /// Synced once each type is listed, or is one that services do without and RBAC forbids. Once so it stays. What
    /// gateways are made from counts apart.
    fn settle(&mut self) {
        let failure = |kind| self.failures.get(&kind).map(|(failure, _)| failure);
        let forbidden = |kind| matches!(failure(kind), Some(Failure::Forbidden(_)));
        let known = |kind: Kind| self.listed(kind) || (!kind.is_needed() && forbidden(kind));
        let synced = [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::Pod].into_iter().all(known);
        let absent = |kind: Kind| failure(kind) == Some(&Failure::Missing);
        // Routes of Services are read wherever that is allowed; who wants gateways says so, and waits for it.
        let allowed = |kind: Kind| self.watched.gateways || !forbidden(kind);
        let of_services = gateways::OF_SERVICES.into_iter().all(|kind| known(kind) || absent(kind) || !allowed(kind));
        let of_gateways = gateways::OF_GATEWAYS.into_iter().all(|kind| known(kind) || absent(kind));
        let ready = self.services.listed && of_services && (of_gateways || !self.watched.gateways);
        if synced && !self.synced {
            (self.synced, self.changed) = (true, true);
        }
        if ready && !self.gateways_synced {
            (self.gateways_synced, self.gateways_changed) = (true, true);
        }
    }

    /// What gateways are made from, if that is not what was shown last.
    pub(super) fn gateways(&mut self) -> Option<GatewayObjects> {
        if !self.gateways_synced || !std::mem::take(&mut self.gateways_changed) {
            return None;
        }
        let services = self.services.objects.iter();
        Some(self.gateways.objects(services.map(|(name, service)| (name, service.cleartext_http2.as_slice()))))
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
                self.around.local_service(&service.joined, &slices)
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
        // A type that was never there is no failure.
        let failures = || self.failures.iter().filter(|(kind, (it, _))| *it != Failure::Missing || self.listed(**kind));
        let errors = failures().map(|(kind, (failure, _))| (kind.resource().to_owned(), spoken(*kind, failure)));
        let warning = |(kind, name, note): Noted<'_>| (format!("{} {name}", kind.type_().1), note.text.clone());
        let misplaced = self.misplaced.iter().map(|(name, text)| (format!("Node {name}"), text.clone()));
        SourceStatus {
            source: self.name.clone(),
            synced: self.synced,
            silent_since: failures().map(|(_, (_, since))| *since).min(),
            errors: errors.collect(),
            warnings: self.noted().map(warning).chain(misplaced).collect(),
        }
    }

    /// What is wrong with or odd about objects, for those who look at them.
    pub(super) fn notes(&self) -> Notes {
        let reference = |kind: Kind, name: &Name, uid: Option<&str>| {
            let (api_version, kind) = kind.type_();
            ObjectReference {
                api_version: Some(api_version.to_owned()),
                kind: Some(kind.to_owned()),
                namespace: (!name.namespace.is_empty()).then(|| name.namespace.to_string()),
                name: Some(name.name.to_string()),
                uid: uid.map(str::to_owned),
                ..ObjectReference::default()
            }
        };
        let note = |(kind, name, note): Noted<'_>| (reference(kind, name, note.uid.as_deref()), note.text.clone());
        // A Node is known by its name alone to who describes it.
        let misplaced = self.misplaced.iter();
        let misplaced = misplaced.map(|(name, text)| (reference(Kind::Node, name, Some(&name.name)), text.clone()));
        let forbidden = self.failures.iter().filter(|(_, (failure, _))| matches!(failure, Failure::Forbidden(_)));
        let forbidden = forbidden.map(|(kind, (failure, _))| (kind.resource().to_owned(), spoken(*kind, failure)));
        Notes { objects: misplaced.chain(self.noted().map(note)).collect(), forbidden: forbidden.collect() }
    }

    fn noted(&self) -> impl Iterator<Item = Noted<'_>> {
        let of = |kind, notes| -> (Kind, &BTreeMap<Name, Note>) { (kind, notes) };
        let all = [
            of(Kind::Service, &self.services.notes),
            of(Kind::EndpointSlice, &self.slices.notes),
            of(Kind::Node, &self.nodes.notes),
            of(Kind::Pod, &self.pods.notes),
        ];
        let of_services = all.into_iter();
        let of_services =
            of_services.flat_map(|(kind, notes)| notes.iter().map(move |(name, note)| (kind, name, note)));
        of_services.chain(self.gateways.noted())
    }
}

impl Update {
    fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::Slice(_) => Kind::EndpointSlice,
            Self::Node(_) => Kind::Node,
            Self::Pod(_) => Kind::Pod,
            Self::Gateways(seen) => seen.kind(),
            Self::Failed(kind, _) | Self::Answered(kind) => *kind,
        }
    }

    fn is_question(&self) -> bool {
        match self {
            Self::Gateways(seen) => seen.is_question(),
            other => matches!(
                other,
                Self::Service(Event::Init)
                    | Self::Slice(Event::Init)
                    | Self::Node(Event::Init)
                    | Self::Pod(Event::Init)
            ),
        }
    }
}

fn spoken(kind: Kind, failure: &Failure) -> String {
    let resource = kind.resource();
    match failure {
        Failure::Forbidden(why) => format!("{resource} are forbidden: allow get, list and watch by RBAC ({why})"),
        Failure::Missing => format!("{resource} are no longer known to the API server; what was seen of them stands"),
        Failure::Refused(why) => format!("{resource} cannot be watched: the API server answers {why}"),
        Failure::Unreachable(why) => format!("{resource} cannot be watched: {why}"),
    }
}

#[cfg(test)]
mod tests;
