//! From a target's Listener to its endpoints: one [`Resolution`] out of the four resources, made whole or not at all.
//!
//! Only reads what the stream's state machine holds.

use std::sync::Arc;

use super::model::{Assignment, Resolution, Retry};
use super::resources::cluster::Cluster;
use super::resources::endpoints::Endpoints;
use super::resources::listener::{Listener, Routes};
use super::resources::route::{Route, RouteConfig};
use super::resources::{Decoded, Kind};
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

/// What an assignment was made from.
#[derive(Debug, Clone)]
pub(super) struct Inputs {
    listener: Arc<Listener>,
    routes: Option<Arc<RouteConfig>>,
    cluster: Arc<Cluster>,
    endpoints: Arc<Endpoints>,
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
            && Arc::ptr_eq(&self.cluster, &other.cluster)
            && Arc::ptr_eq(&self.endpoints, &other.endpoints)
    }
}

/// Why there is no assignment.
enum Stop {
    /// Something has not come.
    Awaited,
    /// Nothing will come.
    NotFound(Resolution),
}

pub(super) struct Resolver<'a> {
    held: &'a SotwClient,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(held: &'a SotwClient) -> Self {
        Self { held }
    }

    /// The cluster that a target's route names, as far as that is known.
    pub(super) fn cluster(&self, target: &Target) -> Option<String> {
        let (listener, routes) = self.routes(target).ok()?;
        let route = self.route(target, &listener, routes.as_deref()).ok()?;
        Some(route.cluster.clone())
    }

    /// Whether something that a target needs has not come.
    pub(super) fn is_incomplete(&self, target: &Target) -> bool {
        matches!(self.inputs(target), Err(Stop::Awaited))
    }

    /// What a target comes to; `None`: it is incomplete, or made from the same inputs as before.
    pub(super) fn resolve(&self, target: &Target, before: Option<&Inputs>) -> Option<(Option<Inputs>, Resolution)> {
        match self.inputs(target) {
            Ok(inputs) if before.is_some_and(|before| before.same(&inputs)) => None,
            Ok(inputs) => {
                let assignment = self.assignment(target, &inputs)?;
                Some((Some(inputs), Resolution::Assignment(Arc::new(assignment))))
            }
            Err(Stop::NotFound(resolution)) => Some((None, resolution)),
            Err(Stop::Awaited) => None,
        }
    }

    fn inputs(&self, target: &Target) -> Result<Inputs, Stop> {
        let (listener, routes) = self.routes(target)?;
        let name = self.route(target, &listener, routes.as_deref())?.cluster.clone();
        let Decoded::Cluster(cluster) = self.need(Kind::Cluster, &name)? else { return Err(Stop::Awaited) };
        let service = if cluster.eds_service.is_empty() { &name } else { &cluster.eds_service };
        let Decoded::ClusterLoadAssignment(endpoints) = self.need(Kind::ClusterLoadAssignment, service)? else {
            return Err(Stop::Awaited);
        };
        Ok(Inputs { listener, routes, cluster: cluster.clone(), endpoints: endpoints.clone() })
    }

    fn assignment(&self, target: &Target, inputs: &Inputs) -> Option<Assignment> {
        let route = self.route(target, &inputs.listener, inputs.routes.as_deref()).ok()?;
        let timeout = route.timeout.or(inputs.listener.timeout).filter(|timeout| !timeout.is_zero());
        Some(Assignment {
            cluster: route.cluster.as_str().into(),
            eds_service: inputs.cluster.eds_service.as_str().into(),
            priorities: inputs.endpoints.priorities.clone(),
            max_requests: inputs.cluster.max_requests,
            max_pending_requests: inputs.cluster.max_pending_requests,
            connect_timeout: inputs.cluster.connect_timeout,
            outlier_detection: inputs.cluster.outlier_detection,
            warmup: inputs.cluster.warmup,
            failback: inputs.cluster.failback,
            timeout,
            retry: route.retry.clone().map(|retry| Retry { budget_percent: inputs.cluster.retry_percent, ..retry }),
            report_load: inputs.cluster.report_load,
        })
    }

    /// The Listener, and the RouteConfiguration if it is one of its own.
    fn routes(&self, target: &Target) -> Result<(Arc<Listener>, Option<Arc<RouteConfig>>), Stop> {
        let Decoded::Listener(listener) = self.need(Kind::Listener, target.name())? else { return Err(Stop::Awaited) };
        match &listener.routes {
            Routes::Inline(_) => Ok((listener.clone(), None)),
            Routes::Named(name) => match self.need(Kind::RouteConfiguration, name)? {
                Decoded::RouteConfiguration(routes) => Ok((listener.clone(), Some(routes.clone()))),
                _ => Err(Stop::Awaited),
            },
        }
    }

    fn route<'r>(
        &self,
        target: &Target,
        listener: &'r Listener,
        named: Option<&'r RouteConfig>,
    ) -> Result<&'r Route, Stop> {
        let (kind, name, routes) = match (&listener.routes, named) {
            (Routes::Inline(routes), _) => (Kind::Listener, target.name(), routes),
            (Routes::Named(name), Some(routes)) => (Kind::RouteConfiguration, name.as_str(), routes),
            (Routes::Named(_), None) => return Err(Stop::Awaited),
        };
        let host = routes.find(target.name());
        let reason = match host {
            Some(host) => match &host.route {
                Some(route) => return Ok(route),
                None => format!("no route leads to a cluster: the control plane knows no service `{}`", target.name()),
            },
            None if routes.virtual_hosts.is_empty() => {
                format!("it has no virtual host: the control plane knows no service `{}`", target.name())
            }
            None => format!("it has no virtual host for `{}`", target.name()),
        };
        Err(not_found(kind, name, reason))
    }

    fn need(&self, kind: Kind, name: &str) -> Result<&'a Decoded, Stop> {
        match self.held.find(kind, name) {
            Found::Good(content) => Ok(content),
            Found::Missing(reason) => Err(not_found(kind, name, reason)),
            Found::Awaited => Err(Stop::Awaited),
        }
    }
}

fn not_found(kind: Kind, name: &str, reason: String) -> Stop {
    Stop::NotFound(Resolution::NotFound { resource: format!("{kind} `{name}`").into(), reason: reason.into() })
}
