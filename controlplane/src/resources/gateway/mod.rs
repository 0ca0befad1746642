//! What a gateway's Envoys are served: the plan of [`crate::gateway`] as listeners, routes and secrets, encoded once for all
//! of them. Its clusters and their endpoints are the services' own resources, of which only the names stand here.

pub mod book;
mod listener;
mod route;
mod secret;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portolan_topology::policy::EffectivePolicy;
use prost::Message;

use super::name::ResourceName;
use super::{Encoded, Kind, Lookup};
use crate::gateway::objects::ObjectName;
use crate::gateway::plan::{Backend, GatewayPlan, PortPlan, Site, Upstream};

/// The policy in force for a backend.
pub type PolicyOf<'a> = &'a dyn Fn(&Backend) -> Arc<EffectivePolicy>;

/// Everything that the Envoys of one gateway are served.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GatewayResources {
    /// Listeners, routes and secrets.
    own: BTreeMap<(Kind, Arc<str>), Lookup>,
    /// The clusters that its routes lead to.
    clusters: BTreeSet<Arc<str>>,
}

impl GatewayResources {
    /// Of a plan. Routes to a backend of which nothing can be said yet (`pending`) are not said either: an Envoy keeps those
    /// that it has. The policy of a rule's first backend says how long its requests may take, and what is tried again, where
    /// the rule does not.
    #[must_use]
    pub fn new(plan: &GatewayPlan, pending: &BTreeSet<Backend>, policy_of: PolicyOf<'_>) -> Self {
        let mut resources = Self::default();
        for (port, served) in &plan.ports {
            let name = listener_name(&plan.name, *port);
            resources.add(Kind::Lds, &name, &listener::listener(&name, plan, *port, served));
            match served {
                PortPlan::Http(site) => resources.add_site(&name, site, pending, policy_of),
                PortPlan::Https(sites) => {
                    for tls in sites {
                        let name = tls_routes_name(&name, &tls.listener);
                        resources.add_site(&name, &tls.site, pending, policy_of);
                    }
                }
            }
        }
        for (secret, certificate) in &plan.certificates {
            let name = secret_name(secret);
            resources.add(Kind::Sds, &name, &secret::secret(&name, certificate));
        }
        resources.clusters = plan.upstreams().into_iter().map(|upstream| cluster_name(upstream).into()).collect();
        resources
    }

    fn add(&mut self, kind: Kind, name: &str, message: &impl Message) {
        let name: Arc<str> = name.into();
        let encoded = Encoded::new(kind, name.clone(), &message.encode_to_vec());
        self.own.insert((kind, name), Lookup::Present(encoded));
    }

    fn add_site(&mut self, name: &str, site: &Site, pending: &BTreeSet<Backend>, policy_of: PolicyOf<'_>) {
        if site.upstreams().any(|upstream| pending.contains(&upstream.backend)) {
            self.own.insert((Kind::Rds, name.into()), Lookup::Unknown);
        } else {
            self.add(Kind::Rds, name, &route::configuration(name, site, policy_of));
        }
    }

    /// What a wildcard of `kind` stands for.
    #[must_use]
    pub fn members(&self, kind: Kind) -> BTreeSet<Arc<str>> {
        if kind == Kind::Cds {
            return self.clusters.clone();
        }
        self.own.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.clone()).collect()
    }

    /// What a resource is now.
    #[must_use]
    pub fn lookup(&self, kind: Kind, name: &Arc<str>) -> Lookup {
        self.own.get(&(kind, name.clone())).cloned().unwrap_or(Lookup::Absent(None))
    }
}

/// Whether a gateway has the resources of `kind` that are called so: no service's name has a slash.
#[must_use]
pub fn is_own(kind: Kind, name: &str) -> bool {
    kind == Kind::Sds || (matches!(kind, Kind::Lds | Kind::Rds) && name.contains('/') && !name.contains(':'))
}

fn listener_name(gateway: &ObjectName, port: u16) -> String {
    format!("{gateway}/{port}")
}

fn tls_routes_name(listener: &str, section: &str) -> String {
    format!("{listener}/{section}")
}

fn secret_name(secret: &ObjectName) -> String {
    secret.to_string()
}

fn cluster_name(upstream: &Upstream) -> String {
    let Upstream { backend, http2 } = upstream;
    let name = ResourceName {
        service: backend.service.clone(),
        port: backend.port.clone(),
        scope: backend.scope,
        authority: None,
        http1: !http2,
    };
    name.of_kind(Kind::Cds)
}
