//! From objects to plans: which routes attach to which listeners, and in which order their matches are tried. Pure; the
//! same objects give the same plans and the same conditions everywhere.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portolan_topology::names::ServiceId;

use super::backends::Access;
use super::conditions::{Condition, Fault, GatewayStatus, ParentStatus, Statuses, condition};
use super::grants::Grants;
use super::hostname::Hostname;
use super::listeners::{Certificates, Judged, judge, whole};
use super::mesh;
use super::objects::{Class, GROUP, GatewayObjects, GatewaySpec, Object, ObjectName, ParentRef, RouteKind, RouteSpec};
use super::plan::{
    Action, Backend, Forward, GatewayPlan, Known, Matching, PortPlan, RoutePlan, ServiceRoutes, Site, TlsSite,
};
use super::route::{JudgedRoute, judge_route};
use super::rules::{AnyRule, Rank, Rule, RuleAction, redirect_at};

/// What objects come to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Planned {
    /// Each Gateway of our class that can be served, be it in part.
    pub gateways: BTreeMap<ObjectName, GatewayPlan>,
    /// Those that cannot be served as they are now written.
    pub refused: BTreeSet<ObjectName>,
    /// What is said of them and of their routes.
    pub statuses: Statuses,
    /// What routes say to the clients of services.
    pub services: BTreeMap<ServiceId, Arc<ServiceRoutes>>,
    /// The services that routes refer to, there or not.
    pub backends: BTreeSet<Backend>,
    /// Those of which nothing can be said yet.
    pub pending: BTreeSet<Backend>,
}

/// Plans everything. `known` says what there is of a backend.
#[must_use]
pub fn plan(objects: &GatewayObjects, certificates: &Certificates, known: impl Fn(&Backend) -> Known) -> Planned {
    let grants = Grants(objects);
    let ours = objects.gateways.iter().filter_map(|(name, object)| {
        let class = objects.classes.0.get(&object.spec.gateway_class_name)?;
        Some((name, Gateway::new(name, object, *class, certificates, &grants)))
    });
    let mut gateways: BTreeMap<&ObjectName, Gateway<'_>> = ours.collect();
    let mut planned =
        Planned { statuses: Statuses { synced: objects.synced, ..Statuses::default() }, ..Planned::default() };
    let looked_up = RefCell::new((BTreeSet::new(), BTreeSet::new()));
    let look = |backend: &Backend| {
        let found = known(backend);
        let (all, pending) = &mut *looked_up.borrow_mut();
        all.insert(backend.clone());
        if found == Known::NotYet {
            pending.insert(backend.clone());
        }
        found
    };
    attach_all(&objects.http_routes, objects, &mut gateways, &look, &mut planned.statuses);
    attach_all(&objects.grpc_routes, objects, &mut gateways, &look, &mut planned.statuses);
    for (name, gateway) in gateways {
        planned.statuses.gateways.insert(name.clone(), gateway.status());
        match gateway.plan() {
            Some(plan) => drop(planned.gateways.insert(name.clone(), plan)),
            None => drop(planned.refused.insert(name.clone())),
        }
    }
    planned.services = mesh::routes(objects, &look, &mut planned.statuses);
    (planned.backends, planned.pending) = looked_up.into_inner();
    planned
}

/// A Gateway in the making.
struct Gateway<'a> {
    name: &'a ObjectName,
    generation: Option<i64>,
    address: Result<Option<std::net::IpAddr>, Fault>,
    listeners: Vec<Judged<'a>>,
    /// By listener's place.
    entries: Vec<Vec<Entry>>,
}

/// A match of a route at a listener, for one host.
#[derive(Debug, Clone)]
struct Entry {
    host: Hostname,
    rank: Rank,
    /// Among equals: its route's, then its rule's and its own place.
    place: (usize, usize, usize),
    route: RoutePlan,
}

impl<'a> Gateway<'a> {
    fn new(
        name: &'a ObjectName,
        object: &'a Object<GatewaySpec>,
        class: Class,
        certificates: &Certificates,
        grants: &Grants<'_>,
    ) -> Self {
        let listeners = judge(name, &object.spec, certificates, grants);
        let entries = listeners.iter().map(|_| Vec::new()).collect();
        Self { name, generation: object.metadata.generation, address: whole(&object.spec, class), listeners, entries }
    }

    fn status(&self) -> GatewayStatus {
        let programmed = self.listeners.iter().any(Judged::is_programmed);
        let none = || Fault::new("Invalid", "it has no listener that can be served");
        let accepted = match &self.address {
            Err(fault) => condition("Accepted", Some(fault)),
            Ok(_) if self.listeners.iter().all(Judged::is_valid) => condition("Accepted", None),
            Ok(_) if programmed => Condition::holds("Accepted", "ListenersNotValid"),
            Ok(_) => {
                let none = Fault::new("ListenersNotValid", "it has no listener that can be served");
                condition("Accepted", Some(&none))
            }
        };
        let fault = (!programmed || self.address.is_err()).then(none);
        GatewayStatus {
            observed_generation: self.generation,
            conditions: vec![accepted, condition("Programmed", fault.as_ref())],
            listeners: self.listeners.iter().map(Judged::status).collect(),
        }
    }

    fn plan(&self) -> Option<GatewayPlan> {
        let address = *self.address.as_ref().ok()?;
        let mut ports: BTreeMap<u16, PortPlan> = BTreeMap::new();
        let mut certificates = BTreeMap::new();
        let served = self.listeners.iter().zip(&self.entries).filter(|(judged, _)| judged.is_programmed());
        for (judged, entries) in served {
            let port = judged.listener.port;
            certificates.extend(judged.certificates.clone());
            if judged.tls {
                let site = TlsSite {
                    listener: judged.listener.name.clone(),
                    hostname: judged.hostname.clone(),
                    certificates: judged.certificates.keys().cloned().collect(),
                    site: site(&judged.hostname, entries, &[]),
                };
                match ports.entry(port).or_insert_with(|| PortPlan::Https(Vec::new())) {
                    PortPlan::Https(sites) => sites.push(site),
                    // Such a listener is conflicted, and not served.
                    PortPlan::Http(_) => {}
                }
            } else {
                let narrower = self.listeners.iter().filter(|other| {
                    other.is_programmed()
                        && other.listener.port == port
                        && other.hostname != judged.hostname
                        && judged.hostname.covers(&other.hostname)
                });
                let narrower: Vec<_> = narrower.map(|other| &other.hostname).collect();
                match ports.entry(port).or_insert_with(|| PortPlan::Http(Site::default())) {
                    PortPlan::Http(all) => all.hosts.extend(site(&judged.hostname, entries, &narrower).hosts),
                    PortPlan::Https(_) => {}
                }
            }
        }
        for plan in ports.values_mut() {
            if let PortPlan::Https(sites) = plan {
                sites.sort_by(|a, b| {
                    a.hostname.narrowness().cmp(&b.hostname.narrowness()).then(a.listener.cmp(&b.listener))
                });
            }
        }
        (!ports.is_empty()).then(|| GatewayPlan { name: self.name.clone(), address, ports, certificates })
    }
}

/// What a listener serves. Hosts that a `narrower` listener of the port has are that one's.
fn site(listener: &Hostname, entries: &[Entry], narrower: &[&Hostname]) -> Site {
    let hosts: BTreeSet<&Hostname> = entries.iter().map(|entry| &entry.host).chain([listener]).collect();
    let hosts = hosts.into_iter().filter(|host| !narrower.iter().any(|other| other.covers(host)));
    let routes = |host: &Hostname| {
        // A request that no route for its very host matches goes to those for wider ones.
        let mut entries: Vec<&Entry> = entries.iter().filter(|entry| entry.host.covers(host)).collect();
        entries.sort_by(|a, b| {
            let narrowness = a.host.narrowness().cmp(&b.host.narrowness());
            narrowness.then(a.rank.cmp(&b.rank)).then(a.place.cmp(&b.place))
        });
        entries.into_iter().map(|entry| entry.route.clone()).collect()
    };
    Site { hosts: hosts.map(|host| (host.clone(), routes(host))).collect() }
}

fn attach_all<R: AnyRule>(
    routes: &BTreeMap<ObjectName, Arc<Object<RouteSpec<R>>>>,
    objects: &GatewayObjects,
    gateways: &mut BTreeMap<&ObjectName, Gateway<'_>>,
    known: &dyn Fn(&Backend) -> Known,
    statuses: &mut Statuses,
) {
    let mut by_age: Vec<_> = routes.iter().collect();
    by_age.sort_by_key(|(_, route)| route.metadata.seniority());
    for (place, (name, route)) in by_age.into_iter().enumerate() {
        let parents: Vec<_> =
            route.spec.parent_refs.iter().filter(|parent| gateways.contains_key(&gateway_of(name, parent))).collect();
        if parents.iter().any(|parent| is_gateway(parent)) {
            let judged = judge_route(name, &route.spec, objects, Access::ByGrant, known);
            let told = parents.into_iter().filter(|parent| is_gateway(parent)).filter_map(|parent| {
                let gateway = gateways.get_mut(&gateway_of(name, parent))?;
                let accepted = attach::<R>(name, place, parent, &judged, gateway).err();
                let resolved = condition("ResolvedRefs", judged.resolved.as_ref());
                let conditions = vec![condition("Accepted", accepted.as_ref()), resolved];
                Some(ParentStatus {
                    parent: parent.clone(),
                    observed_generation: route.metadata.generation,
                    conditions,
                })
            });
            let told = told.collect();
            statuses.routes.insert((R::KIND, name.clone()), told);
        }
    }
}

fn is_gateway(parent: &ParentRef) -> bool {
    parent.object.group.as_deref().is_none_or(|group| group == GROUP)
        && parent.object.kind.as_deref().is_none_or(|kind| kind == "Gateway")
}

fn gateway_of(route: &ObjectName, parent: &ParentRef) -> ObjectName {
    ObjectName::new(parent.object.namespace.as_deref().unwrap_or(&route.namespace), &parent.object.name)
}

fn attach<R: AnyRule>(
    name: &ObjectName,
    place: usize,
    parent: &ParentRef,
    judged: &JudgedRoute,
    gateway: &mut Gateway<'_>,
) -> Result<(), Fault> {
    let of = gateway.name;
    let named = |listener: &Judged<'_>| {
        parent.section_name.as_ref().is_none_or(|section| *section == listener.listener.name)
            && parent.port.is_none_or(|port| port == listener.listener.port)
    };
    let listeners: Vec<usize> = (0..gateway.listeners.len()).filter(|at| named(&gateway.listeners[*at])).collect();
    if listeners.is_empty() {
        return Err(Fault::new("NoMatchingParent", format!("the Gateway {of} has no such listener")));
    }
    let allowed = |at: &usize| {
        let listener = &gateway.listeners[*at];
        listener.kinds.contains(&R::KIND) && (listener.from_all || of.namespace == name.namespace)
    };
    let listeners: Vec<usize> = listeners.into_iter().filter(allowed).collect();
    if listeners.is_empty() {
        let message = format!("the Gateway {of} takes no {} from the namespace {}", R::KIND.name(), name.namespace);
        return Err(Fault::new("NotAllowedByListeners", message));
    }
    let hostnames = judged.hostnames.as_ref().map_err(Clone::clone)?;
    let rules = judged.rules.as_ref().map_err(Clone::clone)?;
    let any = [Hostname::Any];
    let hostnames = if hostnames.is_empty() { &any[..] } else { hostnames };
    let mut attached = false;
    for at in listeners {
        let listener = &mut gateway.listeners[at];
        let hosts: BTreeSet<Hostname> =
            hostnames.iter().filter_map(|host| listener.hostname.intersection(host)).collect();
        if hosts.is_empty() {
            continue;
        }
        attached = true;
        listener.attached += 1;
        let (port, tls) = (listener.listener.port, listener.tls);
        let kind = usize::from(R::KIND == RouteKind::Grpc);
        for (rule_at, rule) in rules.iter().enumerate() {
            for (match_at, (rank, matching)) in rule.matches.iter().enumerate() {
                let route = route_plan(rule, matching, port, tls);
                let place = (place * 2 + kind, rule_at, match_at);
                gateway.entries[at].extend(hosts.iter().map(|host| Entry {
                    host: host.clone(),
                    rank: rank.clone(),
                    place,
                    route: route.clone(),
                }));
            }
        }
    }
    let hosts = || Fault::new("NoMatchingListenerHostname", format!("the Gateway {of} has none of its host names"));
    attached.then_some(()).ok_or_else(hosts)
}

fn route_plan(rule: &Rule, matching: &Matching, port: u16, tls: bool) -> RoutePlan {
    let action = match &rule.action {
        RuleAction::Redirect(redirect, path) => redirect_at(redirect, path, port, tls),
        RuleAction::Forward(forward) => Action::Forward(Forward::clone(forward)),
    };
    RoutePlan {
        matching: matching.clone(),
        request_headers: rule.request_headers.clone(),
        response_headers: rule.response_headers.clone(),
        action,
    }
}
