//! The client's end of an aggregated state-of-the-world stream: what to ask for, what to answer, and what it all comes to.
//!
//! A pure state machine. Its driver tells it of streams, responses and timeouts, sends what [`SotwClient::next_request`]
//! gives until it gives nothing, and publishes [`SotwClient::take_changes`]. No clock: [`SotwClient::unanswered`] names what
//! the driver may time.
//!
//! Invariants: what was good stays until something good replaces it or the server that gave it says that it is gone; a
//! broken stream changes nothing; requests go out in the order LDS, RDS, CDS, EDS.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::envoy::service::status::v3::ClientStatusResponse;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status;

use super::model::Resolution;
use super::resolve::{Found, Inputs, Resolver};
use super::resources::cluster::Discovery;
use super::resources::listener::Routes;
use super::resources::{self, Decoded, Kind};
use super::status::{self, Standing};
use super::target::Target;

/// gRPC's status for a rejected response.
pub const INVALID_ARGUMENT: i32 = 3;

/// Which of the bootstrap's servers a stream leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerIndex(pub usize);

/// A client of one ADS stream at a time.
#[derive(Debug)]
pub struct SotwClient {
    node: Node,
    targets: BTreeMap<Target, TargetState>,
    types: [TypeState; 4],
    stream: Option<StreamState>,
    last_server: Option<ServerIndex>,
    changed: BTreeSet<Target>,
}

#[derive(Debug)]
struct StreamState {
    server: ServerIndex,
    keeps_deleted: bool,
    node_sent: bool,
}

#[derive(Debug)]
struct TargetState {
    resolution: Resolution,
    /// What the resolution was made from, so that it is not made again from the same.
    inputs: Option<Inputs>,
}

#[derive(Debug, Default)]
struct TypeState {
    /// The last version that was accepted, from this server.
    version: String,
    /// The last nonce on this stream.
    nonce: String,
    /// The names that were asked for on this stream; `None`: nothing was.
    asked: Option<BTreeSet<String>>,
    /// The answer that is owed to the last response.
    owed: Option<Result<(), String>>,
    entries: BTreeMap<String, Entry>,
}

/// A subscribed resource.
#[derive(Debug, Default)]
struct Entry {
    good: Option<Good>,
    /// Why there is nothing good; `None`: it is awaited.
    missing: Option<Missing>,
    /// The version that was refused last, and why, if nothing good came after it.
    refused: Option<(String, String)>,
    /// A whole response of the stream left it out, though its server had given it before.
    left_out: bool,
}

#[derive(Debug)]
struct Good {
    raw: Any,
    version: String,
    content: Decoded,
    server: ServerIndex,
    /// Whether this stream gave it.
    on_stream: bool,
}

#[derive(Debug)]
enum Missing {
    Absent,
    Rejected(String),
}

/// What became of a response, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It answers nothing that was asked; nothing was changed.
    Ignored,
    /// It was accepted.
    Accepted(Kind),
    /// At least one resource was refused; the others were taken.
    Rejected(Kind, String),
}

impl SotwClient {
    /// A client without targets. `node` goes with the first request of each stream.
    #[must_use]
    pub fn new(node: Node) -> Self {
        let (targets, changed) = (BTreeMap::new(), BTreeSet::new());
        Self { node, targets, types: Default::default(), stream: None, last_server: None, changed }
    }

    /// Wants a target.
    pub fn watch(&mut self, target: Target) {
        let fresh = || TargetState { resolution: Resolution::Pending, inputs: None };
        self.targets.entry(target).or_insert_with(fresh);
        self.settle();
    }

    /// Wants a target no more.
    pub fn unwatch(&mut self, target: &Target) {
        self.targets.remove(target);
        self.changed.remove(target);
        self.settle();
    }

    /// What a target comes to now.
    #[must_use]
    pub fn resolution(&self, target: &Target) -> Option<&Resolution> {
        self.targets.get(target).map(|state| &state.resolution)
    }

    /// What is held, awaited and refused, for client status discovery.
    #[must_use]
    pub fn status(&self) -> ClientStatusResponse {
        let standings = Kind::ALL.into_iter().flat_map(|kind| {
            let entries = self.types[kind as usize].entries.iter();
            entries.map(move |(name, entry)| Standing {
                kind,
                name,
                good: entry.good.as_ref().map(|good| (&good.raw, good.version.as_str())),
                absent: matches!(entry.missing, Some(Missing::Absent)),
                refused: entry.refused.as_ref().map(|(version, why)| (version.as_str(), why.as_str())),
            })
        });
        status::response(&self.node, standings)
    }

    /// The targets whose resolution changed since the last call, and what it is now.
    pub fn take_changes(&mut self) -> Vec<(Target, Resolution)> {
        let changed = std::mem::take(&mut self.changed);
        let now = changed.into_iter().filter_map(|target| {
            let resolution = self.targets.get(&target)?.resolution.clone();
            Some((target, resolution))
        });
        now.collect()
    }

    /// A stream to `server` is up. `keeps_deleted`: its resources stay when it leaves them out (`ignore_resource_deletion`).
    pub fn connected(&mut self, server: ServerIndex, keeps_deleted: bool) {
        self.disconnected();
        let same = self.last_server == Some(server);
        for state in &mut self.types {
            if !same {
                state.version.clear(); // Versions are one server's own.
            }
            for good in state.entries.values_mut().filter_map(|entry| entry.good.as_mut()) {
                good.on_stream = false;
            }
        }
        self.last_server = Some(server);
        self.stream = Some(StreamState { server, keeps_deleted, node_sent: false });
    }

    /// The stream broke. What is held stays.
    pub fn disconnected(&mut self) {
        self.stream = None;
        for state in &mut self.types {
            state.nonce.clear();
            state.asked = None;
            state.owed = None;
            for entry in state.entries.values_mut() {
                entry.left_out = false;
            }
        }
    }

    /// The next request to send on the stream, until there is none.
    pub fn next_request(&mut self) -> Option<DiscoveryRequest> {
        let stream = self.stream.as_mut()?;
        for kind in Kind::ALL {
            let state = &mut self.types[kind as usize];
            let same = match &state.asked {
                Some(asked) => asked.iter().eq(state.entries.keys()),
                None => state.entries.is_empty(),
            };
            if same && state.owed.is_none() {
                continue;
            }
            let error = state.owed.take().and_then(Result::err);
            let names: BTreeSet<String> = state.entries.keys().cloned().collect();
            // On a new stream, the version says "I hold all of this": only if that is so.
            let holds_all = state.entries.values().all(|entry| entry.good.is_some());
            let version_info = if state.asked.is_some() || holds_all { state.version.clone() } else { String::new() };
            let request = DiscoveryRequest {
                version_info,
                node: (!std::mem::replace(&mut stream.node_sent, true)).then(|| self.node.clone()),
                resource_names: names.iter().cloned().collect(),
                type_url: kind.type_url().to_owned(),
                response_nonce: state.nonce.clone(),
                error_detail: error.map(|message| Status { code: INVALID_ARGUMENT, message, details: Vec::new() }),
                ..DiscoveryRequest::default()
            };
            state.asked = Some(names);
            return Some(request);
        }
        None
    }

    /// A request with which to find out whether another server answers, on a stream of its own, while this one goes on.
    #[must_use]
    pub fn probe(&self) -> DiscoveryRequest {
        DiscoveryRequest {
            node: Some(self.node.clone()),
            resource_names: self.types[Kind::Listener as usize].entries.keys().cloned().collect(),
            type_url: Kind::Listener.type_url().to_owned(),
            ..DiscoveryRequest::default()
        }
    }

    /// Takes a response.
    pub fn received(&mut self, response: DiscoveryResponse) -> Outcome {
        let (Some(kind), Some(stream)) = (Kind::of(&response.type_url), &self.stream) else { return Outcome::Ignored };
        let state = &mut self.types[kind as usize];
        if state.asked.is_none() {
            return Outcome::Ignored;
        }
        let (given, errors) = state.take(kind, response.resources, &response.version_info, stream.server);
        if kind.is_complete_in_sotw() && !stream.keeps_deleted {
            state.leave_out(&given, stream.server);
        }
        state.nonce = response.nonce;
        let outcome = if errors.is_empty() {
            state.version = response.version_info;
            state.owed = Some(Ok(()));
            Outcome::Accepted(kind)
        } else {
            let message = format!("xDS response validation errors: [{}]", errors.join("; "));
            state.owed = Some(Err(message.clone()));
            Outcome::Rejected(kind, message)
        };
        self.settle();
        outcome
    }

    /// What was asked for on this stream and has not come, nor been said to be gone. gRPC waits 15 s for each.
    pub fn unanswered(&self) -> impl Iterator<Item = (Kind, &str)> {
        Kind::ALL.into_iter().flat_map(|kind| {
            let state = &self.types[kind as usize];
            let asked = state.asked.iter().flatten().filter(|name| {
                let entry = state.entries.get(*name);
                entry.is_some_and(|entry| entry.left_out || (entry.good.is_none() && entry.missing.is_none()))
            });
            asked.map(move |name| (kind, name.as_str()))
        })
    }

    /// A name that [`SotwClient::unanswered`] gave has stood there for too long: it does not exist.
    pub fn timed_out(&mut self, kind: Kind, name: &str) {
        let Some(entry) = self.types[kind as usize].entries.get_mut(name) else { return };
        if entry.left_out || entry.good.is_none() {
            *entry = Entry { missing: Some(Missing::Absent), ..Entry::default() };
            self.settle();
        }
    }

    /// Makes the subscriptions and the resolutions agree with what is held.
    fn settle(&mut self) {
        // A resolution that became complete lets go of what the one before it used.
        loop {
            self.subscribe_all();
            if !self.resolve() {
                return;
            }
        }
    }

    /// A resource can name others, so from the Listeners downwards.
    fn subscribe_all(&mut self) {
        self.subscribe(Kind::Listener, self.targets.keys().map(|target| target.name().to_owned()).collect());

        let listeners = self.types[Kind::Listener as usize].entries.values();
        let named = listeners.filter_map(|entry| match entry.good.as_ref().map(|good| &good.content) {
            Some(Decoded::Listener(listener)) => match &listener.routes {
                Routes::Named(name) => Some(name.clone()),
                Routes::Inline(_) => None,
            },
            _ => None,
        });
        let routes = named.collect();
        self.subscribe(Kind::RouteConfiguration, routes);

        let mut clusters = BTreeSet::new();
        for (target, state) in &self.targets {
            let resolver = Resolver::new(self);
            clusters.extend(resolver.clusters(target));
            // Until the next resolution is complete, the present one's clusters are kept: they serve on.
            if let Resolution::Routing(routing) = &state.resolution
                && resolver.is_incomplete(target)
            {
                clusters.extend(routing.clusters.keys().map(|name| name.to_string()));
                let leaves = routing.assignments().flat_map(|assignment| &assignment.leaves);
                clusters.extend(leaves.map(|leaf| leaf.cluster.to_string()));
            }
        }
        self.subscribe(Kind::Cluster, clusters);

        let services = self.types[Kind::Cluster as usize].entries.iter().filter_map(|(name, entry)| {
            let Decoded::Cluster(cluster) = &entry.good.as_ref()?.content else { return None };
            match &cluster.discovery {
                Discovery::Eds(service) if service.is_empty() => Some(name.clone()),
                Discovery::Eds(service) => Some(service.clone()),
                Discovery::Aggregate(_) => None,
            }
        });
        let services = services.collect();
        self.subscribe(Kind::ClusterLoadAssignment, services);
    }

    fn subscribe(&mut self, kind: Kind, wanted: BTreeSet<String>) {
        let entries = &mut self.types[kind as usize].entries;
        entries.retain(|name, _| wanted.contains(name));
        for name in wanted {
            entries.entry(name).or_default();
        }
    }

    /// Resolves each target anew from the resources that changed; whether any did. What is incomplete keeps what it was.
    fn resolve(&mut self) -> bool {
        let resolver = Resolver::new(self);
        let anew = |(target, state): (&Target, &TargetState)| {
            let (inputs, resolution) = resolver.resolve(target, (state.inputs.as_ref(), &state.resolution))?;
            let same = inputs.is_none() && state.inputs.is_none() && resolution == state.resolution;
            (!same).then(|| (target.clone(), inputs, resolution))
        };
        let results: Vec<_> = self.targets.iter().filter_map(anew).collect();
        let any = !results.is_empty();
        for (target, inputs, resolution) in results {
            let Some(state) = self.targets.get_mut(&target) else { continue };
            state.inputs = inputs;
            if state.resolution != resolution {
                state.resolution = resolution;
                self.changed.insert(target);
            }
        }
        any
    }

    /// How a resource stands, for the resolver.
    pub(super) fn find(&self, kind: Kind, name: &str) -> Found<'_> {
        match self.types[kind as usize].entries.get(name) {
            Some(Entry { good: Some(good), .. }) => Found::Good(&good.content),
            Some(Entry { missing: Some(Missing::Absent), .. }) => {
                Found::Missing("the control plane does not have it".into())
            }
            Some(Entry { missing: Some(Missing::Rejected(error)), .. }) => {
                Found::Missing(format!("it is invalid: {error}"))
            }
            Some(_) | None => Found::Awaited,
        }
    }
}

impl TypeState {
    /// Takes the resources of a response; returns the names that it gave, and the errors.
    fn take(
        &mut self,
        kind: Kind,
        resources: Vec<Any>,
        version: &str,
        server: ServerIndex,
    ) -> (BTreeSet<String>, Vec<String>) {
        let mut given = BTreeSet::new();
        let mut errors = Vec::new();
        for (i, any) in resources.into_iter().enumerate() {
            let decoded = resources::unwrap(any).and_then(|any| Ok((resources::decode(kind, &any)?, any)));
            let ((name, content), raw) = match decoded {
                Ok(it) => it,
                Err(invalid) => {
                    errors.push(format!("resource index {i}: {invalid}"));
                    continue;
                }
            };
            if !given.insert(name.clone()) {
                errors.push(format!("resource index {i}: duplicate resource name `{name}`"));
                continue;
            }
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            entry.left_out = false;
            match content {
                Ok(content) => entry.replace(raw, content, version, server),
                Err(invalid) => {
                    let error = format!("errors validating {kind} resource: [{invalid}]");
                    entry.refused = Some((version.to_owned(), error.clone()));
                    errors.push(format!("resource index {i}: {name}: {error}"));
                    if entry.good.is_none() {
                        entry.missing = Some(Missing::Rejected(invalid.to_string()));
                    }
                }
            }
        }
        (given, errors)
    }

    /// Takes note of what a whole response leaves out. What this stream gave is gone. What this server gave on an earlier
    /// stream may only not be known to it again yet, after a restart: that is left to the driver's clock. What another
    /// server gave says nothing.
    fn leave_out(&mut self, given: &BTreeSet<String>, server: ServerIndex) {
        for (_, entry) in self.entries.iter_mut().filter(|(name, _)| !given.contains(*name)) {
            match &entry.good {
                Some(good) if good.on_stream => *entry = Entry { missing: Some(Missing::Absent), ..Entry::default() },
                Some(good) => entry.left_out = good.server == server,
                None => {}
            }
        }
    }
}

impl Entry {
    fn replace(&mut self, raw: Any, content: Decoded, version: &str, server: ServerIndex) {
        (self.missing, self.refused) = (None, None);
        let version = version.to_owned();
        match &mut self.good {
            // The same again keeps its `Arc`s, so that nothing is resolved anew.
            Some(good) if good.raw == raw => (good.version, good.server, good.on_stream) = (version, server, true),
            good => *good = Some(Good { raw, version, content, server, on_stream: true }),
        }
    }
}

#[cfg(test)]
mod history;
#[cfg(test)]
mod tests;
