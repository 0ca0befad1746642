//! One resource of one kind for one class of client, from what the catalog serves.

use std::sync::Arc;

use prost::Message;

use portolan_topology::policy::EffectivePolicy;

use super::class::ClientClass;
use super::name::{ResourceName, is_nowhere, nowhere};
use super::{Encoded, Kind, Lookup, cluster, endpoints, listener, route, server, service_routes};
use crate::catalog::served::{Served, ServedService};
use crate::gateway::plan::ServiceRoutes;

/// What is known of a service's routes.
#[derive(Debug, Clone, PartialEq)]
pub enum Routes {
    /// Nothing yet.
    NotYet,
    /// It has none: calls go to the service itself.
    None,
    /// It has these.
    These(Arc<ServiceRoutes>),
}

/// The resource `asked` of `kind`. `name` is `asked`, read; `None` if it could not be: such a name is known not to exist.
/// `routes` are its service's.
#[must_use]
pub fn build(
    kind: Kind,
    asked: &Arc<str>,
    name: Option<&ResourceName>,
    served: &Served,
    routes: &Routes,
    class: ClientClass,
) -> Lookup {
    match (name, served) {
        (None, _) => unnamed(kind, asked, class),
        (Some(name), _) if !name.may_be_asked_as(asked, kind) => absent(kind, asked, class),
        (_, Served::Absent) => absent(kind, asked, class),
        (Some(_), Served::NotYet) => Lookup::Unknown,
        (Some(name), Served::Present(service)) if kind == Kind::Rds => routed(asked, name, service, routes, class),
        (Some(name), Served::Present(service)) => match present(kind, asked, name, service, class) {
            Some(encoded) => Lookup::Present(encoded),
            None => absent(kind, asked, class),
        },
    }
}

/// What is not of a service: a gRPC server's own Listener, the cluster of calls that are refused, or nothing.
fn unnamed(kind: Kind, asked: &Arc<str>, class: ClientClass) -> Lookup {
    let bytes = match kind {
        Kind::Lds => server::listener(asked, class).map(|listener| listener.encode_to_vec()),
        Kind::Cds if is_nowhere(asked, kind) => {
            let assignment = asked.replace(Kind::Cds.message(), Kind::Eds.message());
            Some(cluster::present(asked, assignment, false, false, &EffectivePolicy::default(), class))
        }
        Kind::Eds if is_nowhere(asked, kind) => Some(endpoints::absent(asked).encode_to_vec()),
        Kind::Cds | Kind::Eds | Kind::Sds | Kind::Rds => None,
    };
    let present = |bytes: Vec<u8>| Lookup::Present(Encoded::new(kind, asked.clone(), &bytes));
    bytes.map_or_else(|| absent(kind, asked, class), present)
}

/// Where the calls of a service go. A route to something of which nothing can be said yet is not said either: one
/// cluster without an answer holds up everything that a gRPC client is told.
fn routed(
    asked: &Arc<str>,
    name: &ResourceName,
    service: &ServedService,
    routes: &Routes,
    class: ClientClass,
) -> Lookup {
    let routes = match routes {
        Routes::NotYet => return Lookup::Unknown,
        Routes::None => None,
        Routes::These(routes) => routes.of(service.port, name.scope),
    };
    let own = name.canonical(service.port);
    let configuration = match routes {
        None => {
            let leave = class.keeps_last_endpoints() && !service.is_usable();
            let cluster = if leave { nowhere(own.authority.as_deref()) } else { own.of_kind(Kind::Cds) };
            route::present(asked, cluster, &service.policy, class)
        }
        Some(routes) if routes.iter().any(|route| route.pending) => return Lookup::Unknown,
        Some(routes) => service_routes::configuration(asked, &own, &routes, &service.policy, class),
    };
    Lookup::Present(Encoded::new(Kind::Rds, asked.clone(), &configuration.encode_to_vec()))
}

/// Known not to exist, with what stands for it. A Cluster is left out: no route leads to it. So is a Secret.
#[must_use]
pub fn absent(kind: Kind, asked: &Arc<str>, class: ClientClass) -> Lookup {
    let bytes = match kind {
        // Secrets are gateways' alone.
        Kind::Cds | Kind::Sds => return Lookup::Absent(None),
        Kind::Eds => endpoints::absent(asked).encode_to_vec(),
        Kind::Lds => listener::absent(asked, class).encode_to_vec(),
        Kind::Rds => route::absent(asked, class).encode_to_vec(),
    };
    Lookup::Absent(Some(Encoded::new(kind, asked.clone(), &bytes)))
}

/// Whether two states of a service come to the same resource of `kind`, as far as can be seen without building it.
#[must_use]
pub fn is_unmoved(kind: Kind, before: &Served, now: &Served) -> bool {
    match (before, now) {
        (Served::NotYet, Served::NotYet) | (Served::Absent, Served::Absent) => true,
        (Served::Present(before), Served::Present(now)) => {
            // Field by field, so that a new one must be thought of here.
            let before = &**before;
            let ServedService { port, plan, endpoints, policy } = before;
            let same_service = *port == now.port && *policy == now.policy;
            match kind {
                Kind::Sds | Kind::Lds => same_service,
                Kind::Cds => same_service && before.is_sharded() == now.is_sharded(),
                Kind::Rds => same_service && before.is_usable() == now.is_usable(),
                Kind::Eds => same_service && *plan == now.plan && *endpoints == now.endpoints,
            }
        }
        _ => false,
    }
}

/// Whatever is not its routes. `None`: a service has no such resource.
fn present(
    kind: Kind,
    asked: &Arc<str>,
    name: &ResourceName,
    service: &ServedService,
    class: ClientClass,
) -> Option<Encoded> {
    let canonical = |kind| name.canonical(service.port).of_kind(kind);
    let bytes = match kind {
        Kind::Cds => {
            let sharded = service.is_sharded();
            cluster::present(asked, canonical(Kind::Eds), name.http1, sharded, &service.policy, class)
        }
        Kind::Sds | Kind::Rds => return None,
        Kind::Eds => endpoints::present(asked, service).encode_to_vec(),
        Kind::Lds => listener::present(asked, canonical(Kind::Rds)).encode_to_vec(),
    };
    Some(Encoded::new(kind, asked.clone(), &bytes))
}
