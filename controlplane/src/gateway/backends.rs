//! The backends that a rule refers to: which service each is, and what is wrong with it. One that is wrong keeps its part
//! of the requests, and refuses them.

use portolan_topology::names::ServiceId;

use super::conditions::Fault;
use super::grants::Grants;
use super::objects::{BackendRef, CleartextHttp2, GROUP, GatewayObjects, ObjectName, RouteKind};
use super::plan::{Backend, Known, Share, Upstream};
use crate::catalog::served::{NameScope, PortRef};

/// The group and kind of what the federation has under a name.
pub(super) const IMPORT: (&str, &str) = ("multicluster.x-k8s.io", "ServiceImport");

/// Whether a route needs a ReferenceGrant for backends in other namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// A gateway shows them to others than the cluster's own.
    ByGrant,
    /// A service's clients could call them by their names, too.
    Open,
}

/// The shares of a rule's backends, and the first fault among them. `known` says what there is of a backend.
pub(super) fn shares(
    route: (RouteKind, &ObjectName),
    refs: &[BackendRef],
    objects: &GatewayObjects,
    access: Access,
    known: &dyn Fn(&Backend) -> Known,
) -> (Vec<Share>, Option<Fault>) {
    let mut first = None;
    let shares = refs.iter().map(|reference| {
        let upstream =
            upstream(route, reference, objects, access).and_then(|upstream| match known(&upstream.backend) {
                Known::Present | Known::NotYet => Ok(upstream),
                Known::Absent => {
                    let port = reference.port.map_or(String::new(), |port| format!(" with the port {port}"));
                    let message = format!("there is no {} {}{port}", kind_of(reference), named(route, reference));
                    Err(Fault::new("BackendNotFound", message))
                }
            });
        let upstream = upstream.map_err(|fault| first.get_or_insert(fault)).ok();
        Share { upstream, weight: reference.weight.unwrap_or(1) }
    });
    let shares = shares.collect();
    (shares, first)
}

fn kind_of(reference: &BackendRef) -> &str {
    reference.object.kind.as_deref().unwrap_or("Service")
}

fn named((_, route): (RouteKind, &ObjectName), reference: &BackendRef) -> ObjectName {
    let namespace = reference.object.namespace.as_deref().unwrap_or(&route.namespace);
    ObjectName::new(namespace, &reference.object.name)
}

fn upstream(
    route: (RouteKind, &ObjectName),
    reference: &BackendRef,
    objects: &GatewayObjects,
    access: Access,
) -> Result<Upstream, Fault> {
    let group = reference.object.group.as_deref().unwrap_or_default();
    let kind = kind_of(reference);
    let scope = match (group, kind) {
        ("", "Service") => NameScope::Cluster,
        IMPORT => NameScope::Federation,
        _ => {
            let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
            return Err(Fault::new("InvalidKind", format!("a backend is a Service or a ServiceImport, not a {kind}")));
        }
    };
    let name = named(route, reference);
    let granted = access == Access::Open
        || Grants(objects).allow((GROUP, route.0.name(), &route.1.namespace), (group, kind, &name));
    if !granted {
        let message = format!("no ReferenceGrant lets this route use the {kind} {name}");
        return Err(Fault::new("RefNotPermitted", message));
    }
    let not_found = |message: String| Fault::new("BackendNotFound", message);
    let service = ServiceId::new(&*name.name, &*name.namespace).map_err(|error| not_found(error.to_string()))?;
    let Some(port) = reference.port else {
        return Err(not_found(format!("the reference to the {kind} {name} names no port")));
    };
    let declared = CleartextHttp2 { imported: scope == NameScope::Federation, object: name, port };
    let http2 = route.0 == RouteKind::Grpc || objects.cleartext_http2.contains(&declared);
    Ok(Upstream { backend: Backend { service, port: PortRef::Number(port), scope }, http2 })
}
