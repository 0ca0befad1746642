//! From a target's Listener to its endpoints: one [`Resolution`] out of the four resources, made whole or not at all.
//!
//! Only reads what the stream's state machine holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::model::{Assignment, Leaf, Resolution};
use super::resources::cluster::{Cluster, Discovery};
use super::resources::endpoints::Endpoints;
use super::resources::listener::{Listener, Routes};
use super::resources::route::RouteConfig;
use super::resources::{Decoded, Kind};
use super::routing::{NoCluster, Route, Routing};
use super::sotw::SotwClient;
use super::target::Target;

/// How a resource stands.
pub(super) enum Found<'a> {
    Good(&'a Decoded),
    /// There is none, and why.
    Missing(String),
    /// Its answer has not come.
    Awaited,
}

/// What a routing was made from.
#[derive(Debug, Clone)]
pub(super) struct Inputs {
    listener: Arc<Listener>,
    routes: Option<Arc<RouteConfig>>,
    clusters: BTreeMap<Arc<str>, Result<Vec<Part>, NoCluster>>,
}

/// What an assignment was made from: the cluster itself, or each cluster of an aggregate that is there, in order.
#[derive(Debug, Clone)]
struct Part {
    name: Arc<str>,
    cluster: Arc<Cluster>,
    endpoints: Arc<Endpoints>,
}

impl Part {
    /// As load reports name it.
    fn eds_service(&self) -> Arc<str> {
        match &self.cluster.discovery {
            Discovery::Eds(service) => service.as_str().into(),
            Discovery::Aggregate(_) => Arc::default(),
        }
    }

    fn same(&self, other: &Self) -> bool {
        self.name == other.name
            && Arc::ptr_eq(&self.cluster, &other.cluster)
            && Arc::ptr_eq(&self.endpoints, &other.endpoints)
    }
}

fn all_same(these: &[Part], others: &[Part]) -> bool {
    these.len() == others.len() && these.iter().zip(others).all(|(one, other)| one.same(other))
}

impl Inputs {
    fn same(&self, other: &Self) -> bool {
        let routes = match (&self.routes, &other.routes) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        routes
            && Arc::ptr_eq(&self.listener, &other.listener)
            && self.clusters.len() == other.clusters.len()
            && self.clusters.iter().zip(&other.clusters).all(|((name, one), (others, other))| {
                name == others
                    && match (one, other) {
                        (Ok(one), Ok(other)) => all_same(one, other),
                        (one, other) => one.as_ref().err() == other.as_ref().err(),
                    }
            })
    }
}

/// So many clusters stand in each other at most, the leaf with them: as in gRPC.
const DEEPEST: usize = 16;

/// What a cluster turned out to be.
enum Discovered<'a> {
    Leaf(Part),
    Aggregate(&'a [Arc<str>]),
}

/// What a cluster is made of.
#[derive(Default)]
struct Collected {
    parts: Vec<Part>,
    /// Why one of its clusters is not among them.
    missing: Option<NoCluster>,
    seen: BTreeSet<Arc<str>>,
}

/// Why there is no routing, or no assignment.
enum Stop {
    /// Something has not come.
    Awaited,
    /// Nothing will come.
    NotFound(NoCluster),
}

pub(super) struct Resolver<'a> {
    held: &'a SotwClient,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(held: &'a SotwClient) -> Self {
        Self { held }
    }

    /// The clusters that a target's routes lead to, aggregates and theirs, as far as that is known.
    pub(super) fn clusters(&self, target: &Target) -> BTreeSet<String> {
        let mut clusters = BTreeSet::new();
        let Ok((listener, named)) = self.listener(target) else { return clusters };
        let Ok(routes) = routes(target, &listener, named.as_deref()) else { return clusters };
        let mut todo: Vec<&str> = names(routes).map(|name| &**name).collect();
        while let Some(name) = todo.pop() {
            if clusters.insert(name.to_owned())
                && let Found::Good(Decoded::Cluster(cluster)) = self.held.find(Kind::Cluster, name)
                && let Discovery::Aggregate(of) = &cluster.discovery
            {
                todo.extend(of.iter().map(|name| &**name));
            }
        }
        clusters
    }

    /// Whether something that a target needs has not come.
    pub(super) fn is_incomplete(&self, target: &Target) -> bool {
        matches!(self.inputs(target), Err(Stop::Awaited))
    }

    /// What a target comes to; `None`: it is incomplete, or made from the same inputs as before. `before`: what it came to
    /// until now, and from which inputs.
    pub(super) fn resolve(
        &self,
        target: &Target,
        before: (Option<&Inputs>, &Resolution),
    ) -> Option<(Option<Inputs>, Resolution)> {
        match self.inputs(target) {
            Ok(inputs) if before.0.is_some_and(|before| before.same(&inputs)) => None,
            Ok(inputs) => {
                let routing = routing(target, &inputs, before)?;
                Some((Some(inputs), Resolution::Routing(Arc::new(routing))))
            }
            Err(Stop::NotFound(NoCluster { resource, reason })) => {
                Some((None, Resolution::NotFound { resource, reason }))
            }
            Err(Stop::Awaited) => None,
        }
    }

    /// All that a target needs. A cluster that there is none of fails its own calls; without any there is no service.
    fn inputs(&self, target: &Target) -> Result<Inputs, Stop> {
        let (listener, named) = self.listener(target)?;
        let mut clusters = BTreeMap::new();
        for name in names(routes(target, &listener, named.as_deref())?) {
            if clusters.contains_key(name) {
                continue;
            }
            let parts = match self.parts(name) {
                Ok(parts) => Ok(parts),
                Err(Stop::NotFound(missing)) => Err(missing),
                Err(Stop::Awaited) => return Err(Stop::Awaited),
            };
            clusters.insert(Arc::clone(name), parts);
        }
        if clusters.values().all(Result::is_err)
            && let Some(Err(missing)) = clusters.values().next()
        {
            return Err(Stop::NotFound(missing.clone()));
        }
        Ok(Inputs { listener, routes: named, clusters })
    }

    /// An aggregate is as good as those of its clusters that are there; it must have one.
    fn parts(&self, name: &Arc<str>) -> Result<Vec<Part>, Stop> {
        let mut collected = Collected::default();
        self.collect(name, &mut Vec::new(), &mut collected)?;
        match collected.missing.filter(|_| collected.parts.is_empty()) {
            Some(missing) => Err(Stop::NotFound(missing)),
            None => Ok(collected.parts),
        }
    }

    /// Collects the parts of a cluster: what comes twice counts where it came first. `above`: the aggregates that it is in.
    fn collect<'n>(&self, name: &'n Arc<str>, above: &mut Vec<&'n str>, collected: &mut Collected) -> Result<(), Stop>
    where
        'a: 'n,
    {
        if above.contains(&&**name) {
            return Err(not_found(Kind::Cluster, name, "it is an aggregate that holds itself".to_owned()));
        }
        if above.len() >= DEEPEST {
            let reason = format!("it stands below more than {} aggregates", DEEPEST - 1);
            return Err(not_found(Kind::Cluster, name, reason));
        }
        if !collected.seen.insert(Arc::clone(name)) {
            return Ok(());
        }
        match self.discovered(name) {
            Ok(Discovered::Leaf(part)) => collected.parts.push(part),
            Ok(Discovered::Aggregate(of)) => {
                above.push(name);
                of.iter().try_for_each(|name| self.collect(name, above, collected))?;
                above.pop();
            }
            Err(Stop::NotFound(why)) => {
                collected.missing.get_or_insert(why);
            }
            Err(Stop::Awaited) => return Err(Stop::Awaited),
        }
        Ok(())
    }

    fn discovered(&self, name: &Arc<str>) -> Result<Discovered<'a>, Stop> {
        let Decoded::Cluster(cluster) = self.need(Kind::Cluster, name)? else { return Err(Stop::Awaited) };
        let service = match &cluster.discovery {
            Discovery::Aggregate(of) => return Ok(Discovered::Aggregate(of)),
            Discovery::Eds(service) if service.is_empty() => &**name,
            Discovery::Eds(service) => service.as_str(),
        };
        let Decoded::ClusterLoadAssignment(endpoints) = self.need(Kind::ClusterLoadAssignment, service)? else {
            return Err(Stop::Awaited);
        };
        let (cluster, endpoints) = (Arc::clone(cluster), Arc::clone(endpoints));
        Ok(Discovered::Leaf(Part { name: Arc::clone(name), cluster, endpoints }))
    }

    /// The Listener, and the RouteConfiguration if it is one of its own.
    fn listener(&self, target: &Target) -> Result<(Arc<Listener>, Option<Arc<RouteConfig>>), Stop> {
        let Decoded::Listener(listener) = self.need(Kind::Listener, target.name())? else { return Err(Stop::Awaited) };
        match &listener.routes {
            Routes::Inline(_) => Ok((listener.clone(), None)),
            Routes::Named(name) => match self.need(Kind::RouteConfiguration, name)? {
                Decoded::RouteConfiguration(routes) => Ok((listener.clone(), Some(routes.clone()))),
                _ => Err(Stop::Awaited),
            },
        }
    }

    fn need(&self, kind: Kind, name: &str) -> Result<&'a Decoded, Stop> {
        match self.held.find(kind, name) {
            Found::Good(content) => Ok(content),
            Found::Missing(reason) => Err(not_found(kind, name, reason)),
            Found::Awaited => Err(Stop::Awaited),
        }
    }
}

/// The routes of a target; at least one of them leads to a cluster.
fn routes<'r>(
    target: &Target,
    listener: &'r Listener,
    named: Option<&'r RouteConfig>,
) -> Result<&'r Arc<[Route]>, Stop> {
    let (kind, name, config) = match (&listener.routes, named) {
        (Routes::Inline(config), _) => (Kind::Listener, target.name(), config),
        (Routes::Named(name), Some(config)) => (Kind::RouteConfiguration, name.as_str(), config),
        (Routes::Named(_), None) => return Err(Stop::Awaited),
    };
    let reason = match config.find(target.name()) {
        Some(host) if names(&host.routes).next().is_some() => return Ok(&host.routes),
        Some(_) => format!("no route leads to a cluster: the control plane knows no service `{}`", target.name()),
        None if config.virtual_hosts.is_empty() => {
            format!("it has no virtual host: the control plane knows no service `{}`", target.name())
        }
        None => format!("it has no virtual host for `{}`", target.name()),
    };
    Err(not_found(kind, name, reason))
}

/// The clusters that routes lead to, some of them perhaps more than once.
fn names(routes: &[Route]) -> impl Iterator<Item = &Arc<str>> {
    let forwards = routes.iter().filter_map(|route| route.forward.as_ref());
    forwards.flat_map(|forward| &forward.clusters).map(|share| &share.cluster)
}

/// An assignment that would be made from the same parts as before is kept.
fn routing(target: &Target, inputs: &Inputs, before: (Option<&Inputs>, &Resolution)) -> Option<Routing> {
    let kept = |name: &Arc<str>, parts: &[Part]| {
        let (Some(inputs), Resolution::Routing(routing)) = before else { return None };
        let same = inputs.clusters.get(name)?.as_ref().is_ok_and(|before| all_same(before, parts));
        routing.clusters.get(name).filter(|_| same)?.as_ref().ok().cloned()
    };
    let made = |(name, parts): (&Arc<str>, &Result<Vec<Part>, NoCluster>)| {
        let made = parts.as_ref().map_err(NoCluster::clone);
        let made = made.map(|parts| kept(name, parts).unwrap_or_else(|| Arc::new(assignment(name, parts))));
        (Arc::clone(name), made)
    };
    Some(Routing {
        routes: Arc::clone(routes(target, &inputs.listener, inputs.routes.as_deref()).ok()?),
        clusters: inputs.clusters.iter().map(made).collect(),
        timeout: inputs.listener.timeout.filter(|timeout| !timeout.is_zero()),
    })
}

/// Of an aggregate, the priorities of its clusters in a row. What else is said of a cluster is the first one's: its limits
/// hold for all of them together, since they are one to whoever calls.
fn assignment(name: &Arc<str>, parts: &[Part]) -> Assignment {
    let Some(first) = parts.first() else {
        return Assignment { cluster: Arc::clone(name), ..Assignment::default() };
    };
    let is_aggregate = first.name != *name;
    let leaf = |part: &Part| Leaf {
        cluster: Arc::clone(&part.name),
        eds_service: part.eds_service(),
        report_load: part.cluster.report_load,
        priorities: part.endpoints.priorities.len(),
    };
    let cluster = &first.cluster;
    Assignment {
        cluster: Arc::clone(name),
        eds_service: if is_aggregate { Arc::default() } else { first.eds_service() },
        leaves: if is_aggregate { parts.iter().map(leaf).collect() } else { Vec::new() },
        priorities: parts.iter().flat_map(|part| part.endpoints.priorities.iter().cloned()).collect(),
        max_requests: cluster.max_requests,
        max_pending_requests: cluster.max_pending_requests,
        connect_timeout: cluster.connect_timeout,
        outlier_detection: cluster.outlier_detection,
        balancing: cluster.balancing.clone(),
        warmup: cluster.warmup,
        failback: cluster.failback,
        max_retries: cluster.max_retries,
        retry_percent: cluster.retry_percent,
        report_load: cluster.report_load,
    }
}

fn not_found(kind: Kind, name: &str, reason: String) -> Stop {
    Stop::NotFound(NoCluster { resource: format!("{kind} `{name}`").into(), reason: reason.into() })
}
