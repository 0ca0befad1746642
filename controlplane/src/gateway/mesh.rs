//! Routes whose parent is a Service or a ServiceImport: they steer the clients of that service, with no proxy between.
//! Pure; the same objects give the same routes and the same conditions everywhere.
//!
//! What only a proxy can do is refused, since most clients have none.

use std::collections::BTreeMap;
use std::sync::Arc;

use portolan_topology::names::ServiceId;

use super::backends::{Access, IMPORT};
use super::conditions::{Fault, ParentStatus, Statuses, condition};
use super::objects::{GROUP, GatewayObjects, HeaderModifier, Object, ObjectName, ParentRef, RouteKind, RouteSpec};
use super::plan::{Action, Attachment, Backend, Forward, Known, Matching, RoutePlan, ServiceRoute, ServiceRoutes};
use super::route::{JudgedRoute, judge_route};
use super::rules::{AnyRule, Rank, Rule, RuleAction};
use crate::catalog::served::{NameScope, PortRef};

/// The routes of each service that has any, with what is said of them added to `statuses`. `known` says what there is of
/// a service.
pub(super) fn routes(
    objects: &GatewayObjects,
    known: &dyn Fn(&Backend) -> Known,
    statuses: &mut Statuses,
) -> BTreeMap<ServiceId, Arc<ServiceRoutes>> {
    let mut services = BTreeMap::new();
    // Of the two kinds on one port this one counts: it says more of gRPC.
    attach_all(&objects.grpc_routes, objects, known, &mut services, statuses);
    attach_all(&objects.http_routes, objects, known, &mut services, statuses);
    services.into_iter().map(|(service, making)| (service, Arc::new(making.done()))).collect()
}

/// The routes of a service in the making.
#[derive(Default)]
struct Making {
    attached: Vec<(RouteKind, Attachment)>,
    entries: Vec<Entry>,
}

struct Entry {
    rank: Rank,
    /// Among equals: its route's, then its rule's and its own place.
    place: (usize, usize, usize),
    route: ServiceRoute,
}

impl Making {
    fn done(mut self) -> ServiceRoutes {
        self.entries.sort_by(|a, b| a.rank.cmp(&b.rank).then(a.place.cmp(&b.place)));
        ServiceRoutes {
            attached: self.attached.into_iter().map(|(_, attachment)| attachment).collect(),
            routes: self.entries.into_iter().map(|entry| entry.route).collect(),
        }
    }
}

/// A parent that is a service.
struct Parent {
    service: ServiceId,
    attachment: Attachment,
}

fn attach_all<R: AnyRule>(
    routes: &BTreeMap<ObjectName, Arc<Object<RouteSpec<R>>>>,
    objects: &GatewayObjects,
    known: &dyn Fn(&Backend) -> Known,
    services: &mut BTreeMap<ServiceId, Making>,
    statuses: &mut Statuses,
) {
    let mut by_age: Vec<_> = routes.iter().collect();
    by_age.sort_by_key(|(_, route)| route.metadata.seniority());
    for (place, (name, route)) in by_age.into_iter().enumerate() {
        let parents: Vec<_> = route.spec.parent_refs.iter().filter(|parent| is_service(parent)).collect();
        if parents.is_empty() {
            continue;
        }
        let judged = judge_route(name, &route.spec, objects, Access::Open, known);
        let steered = steered(&route.spec, &judged);
        let told = parents.into_iter().map(|parent| {
            let accepted = read(name, parent, known).and_then(|parent| {
                let rules = steered.as_ref().map_err(Clone::clone)?;
                attach(R::KIND, place, &parent, rules, known, services)
            });
            let accepted = condition("Accepted", accepted.err().as_ref());
            let resolved = condition("ResolvedRefs", judged.resolved.as_ref());
            let observed_generation = route.metadata.generation;
            ParentStatus { parent: parent.clone(), observed_generation, conditions: vec![accepted, resolved] }
        });
        let told: Vec<_> = told.collect();
        statuses.routes.entry((R::KIND, name.clone())).or_default().extend(told);
    }
}

/// A Service that lacks its group is meant, too: it is told so.
fn is_service(parent: &ParentRef) -> bool {
    let group = parent.object.group.as_deref().unwrap_or(GROUP);
    match parent.object.kind.as_deref() {
        Some("Service") => group.is_empty() || group == GROUP,
        Some(kind) => (group, kind) == IMPORT,
        None => false,
    }
}

fn read(route: &ObjectName, parent: &ParentRef, known: &dyn Fn(&Backend) -> Known) -> Result<Parent, Fault> {
    let kind = parent.object.kind.as_deref().unwrap_or_default();
    let namespace = parent.object.namespace.as_deref().unwrap_or(&route.namespace);
    let name = ObjectName::new(namespace, &parent.object.name);
    if parent.object.group.as_deref().unwrap_or(GROUP) == GROUP {
        return Err(unsupported(format!(
            "the group of a Service is `\"\"`, which must be said: expected {{group: \"\", kind: Service, name: {}}}",
            name.name
        )));
    }
    if name.namespace != route.namespace {
        let message = format!(
            "a route for the {kind} {name} must stand in the namespace {namespace}: from another it would concern only that namespace's clients, and clients do not say theirs"
        );
        return Err(unsupported(message));
    }
    if parent.section_name.is_some() {
        return Err(unsupported(format!("`sectionName` of a {kind} is not supported yet: expected `port`")));
    }
    let no_match = |message| Fault::new("NoMatchingParent", message);
    let service = ServiceId::new(&*name.name, &*name.namespace).map_err(|error| no_match(error.to_string()))?;
    let imported = kind != "Service";
    let scope = if imported { NameScope::Federation } else { NameScope::Cluster };
    let port = parent.port.map_or(PortRef::First, PortRef::Number);
    if known(&Backend { service: service.clone(), port, scope }) == Known::Absent {
        let port = parent.port.map_or(String::new(), |port| format!(" with the port {port}"));
        return Err(no_match(format!("there is no {kind} {name}{port}")));
    }
    Ok(Parent { service, attachment: Attachment { port: parent.port, imported } })
}

/// The rules with where their calls go, unless something in them needs a proxy.
fn steered<'a, R>(spec: &RouteSpec<R>, judged: &'a JudgedRoute) -> Result<Vec<(&'a Rule, &'a Forward)>, Fault> {
    if !spec.hostnames.is_empty() {
        return Err(unsupported("`hostnames` mean nothing for a Service: its own name is what clients call"));
    }
    let rules = judged.rules.as_ref().map_err(Clone::clone)?;
    rules.iter().map(|rule| steer(rule).map(|forward| (rule, forward))).collect()
}

fn steer(rule: &Rule) -> Result<&Forward, Fault> {
    let RuleAction::Forward(forward) = &rule.action else { return Err(needs_a_proxy("RequestRedirect")) };
    if forward.host.is_some() || forward.path.is_some() {
        return Err(needs_a_proxy("URLRewrite"));
    }
    for (filter, modifier) in
        [("RequestHeaderModifier", &rule.request_headers), ("ResponseHeaderModifier", &rule.response_headers)]
    {
        if *modifier != HeaderModifier::default() {
            return Err(needs_a_proxy(filter));
        }
    }
    for (_, Matching { query, headers, .. }) in &rule.matches {
        if !query.is_empty() {
            return Err(unsupported("`queryParams` match nothing: the calls of a Service's clients have no query"));
        }
        if let Some(binary) = headers.iter().find(|header| header.name.ends_with("-bin")) {
            return Err(unsupported(format!("gRPC clients match no binary header, such as `{}`", binary.name)));
        }
    }
    Ok(forward)
}

fn attach(
    kind: RouteKind,
    place: usize,
    parent: &Parent,
    rules: &[(&Rule, &Forward)],
    known: &dyn Fn(&Backend) -> Known,
    services: &mut BTreeMap<ServiceId, Making>,
) -> Result<(), Fault> {
    let Parent { service, attachment } = parent;
    let conflict = services
        .get(service)
        .is_some_and(|making| making.attached.iter().any(|(other, at)| *other != kind && at.overlaps(*attachment)));
    if conflict {
        let message = format!("a GRPCRoute is attached to {service}, and beside one no HTTPRoute counts");
        return Err(Fault::new("Conflicted", message));
    }
    let making = services.entry(service.clone()).or_default();
    making.attached.push((kind, *attachment));
    for (rule_at, (rule, forward)) in rules.iter().enumerate() {
        let mut upstreams = forward.shares.iter().filter_map(|share| share.upstream.as_ref());
        let pending = upstreams.any(|upstream| known(&upstream.backend) == Known::NotYet);
        for (match_at, (rank, matching)) in rule.matches.iter().enumerate() {
            let plan = RoutePlan {
                matching: matching.clone(),
                request_headers: HeaderModifier::default(),
                response_headers: HeaderModifier::default(),
                action: Action::Forward(Forward::clone(forward)),
            };
            making.entries.push(Entry {
                rank: rank.clone(),
                place: (place, rule_at, match_at),
                route: ServiceRoute { attachment: *attachment, plan, pending },
            });
        }
    }
    Ok(())
}

fn needs_a_proxy(filter: &str) -> Fault {
    unsupported(format!("the filter `{filter}` needs a proxy, which the clients of a Service do not have"))
}

fn unsupported(message: impl Into<String>) -> Fault {
    Fault::new("UnsupportedValue", message)
}
