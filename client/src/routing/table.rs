//! What a request reads: the routes, and the cluster behind each of their shares.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Cluster;
use crate::balancer::PickError;
use crate::xds::hashing::hash;
use crate::xds::matching::RequestHead;
use crate::xds::routing::{Forward, NoCluster, NoRoute, Route, Routing, route};

/// Immutable; replaced whole.
#[derive(Debug)]
pub(super) enum Table<T> {
    /// Nothing is known yet.
    Pending,
    /// The name comes to nothing.
    NotFound(NoCluster),
    Routes(Routes<T>),
}

#[derive(Debug)]
pub(super) struct Routes<T> {
    routes: Arc<[Route]>,
    timeout: Option<Duration>,
    clusters: BTreeMap<Arc<str>, Target<T>>,
    /// For each route, the cluster of each of its shares.
    targets: Box<[Box<[Target<T>]>]>,
}

/// A cluster, or why there is none.
pub(super) type Target<T> = Result<Arc<Cluster<T>>, NoCluster>;

/// Why a request is led nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RoutingError {
    /// By its routes.
    #[error(transparent)]
    Route(#[from] NoRoute),
    /// There is no endpoint.
    #[error(transparent)]
    Pick(#[from] PickError),
}

/// Where a request goes, and what its route says of it. It keeps its cluster alive, with its connections.
#[derive(Debug)]
pub(crate) struct Routed<T> {
    pub(crate) cluster: Arc<Cluster<T>>,
    /// As its route or its listener says; `None`: no limit.
    pub(crate) timeout: Option<Duration>,
    /// Its hash, by its route.
    pub(crate) hash: Option<u64>,
    routes: Arc<[Route]>,
    route: usize,
}

impl<T> Routed<T> {
    /// What the route says.
    pub(crate) fn forward(&self) -> Option<&Forward> {
        self.routes[self.route].forward.as_ref()
    }
}

impl<T> Table<T> {
    pub(super) fn of(routing: &Routing, clusters: BTreeMap<Arc<str>, Target<T>>) -> Self {
        let unknown = |name: &Arc<str>| {
            let reason = "no route that was served names it".into();
            Err(NoCluster { resource: format!("Cluster `{name}`").into(), reason })
        };
        let targets = |route: &Route| {
            let shares = route.forward.iter().flat_map(|forward| &forward.clusters);
            shares
                .map(|share| clusters.get(&share.cluster).cloned().unwrap_or_else(|| unknown(&share.cluster)))
                .collect()
        };
        let targets = routing.routes.iter().map(targets).collect();
        Self::Routes(Routes { routes: Arc::clone(&routing.routes), timeout: routing.timeout, clusters, targets })
    }

    #[inline]
    pub(super) fn route(
        &self,
        request: &impl RequestHead,
        channel: u64,
        draw: &mut impl FnMut() -> u64,
    ) -> Result<Routed<T>, RoutingError> {
        let table = match self {
            Self::Routes(table) => table,
            Self::Pending => return Err(PickError::NoAssignment.into()),
            Self::NotFound(why) => return Err(none(why).into()),
        };
        let at = route(&table.routes, request, draw)?;
        let cluster = table.targets[at.route][at.share].as_ref().map_err(none)?;
        let forward = table.routes[at.route].forward.as_ref();
        let said = forward.and_then(|forward| forward.timeout);
        let timeout = said.or(table.timeout).filter(|timeout| !timeout.is_zero());
        let hash = forward.and_then(|forward| hash(&forward.hash, request, channel));
        Ok(Routed { cluster: Arc::clone(cluster), timeout, hash, routes: Arc::clone(&table.routes), route: at.route })
    }

    pub(super) fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster<T>>> {
        let clusters = match self {
            Self::Routes(table) => Some(&table.clusters),
            Self::Pending | Self::NotFound(_) => None,
        };
        clusters.into_iter().flat_map(BTreeMap::values).filter_map(|target| target.as_ref().ok())
    }

    pub(super) fn nothing(&self) -> Option<PickError> {
        match self {
            Self::Pending => Some(PickError::NoAssignment),
            Self::NotFound(why) => Some(none(why)),
            Self::Routes(table) if table.clusters.values().any(Result::is_ok) => None,
            Self::Routes(table) => table.clusters.values().find_map(|target| target.as_ref().err()).map(none),
        }
    }
}

fn none(why: &NoCluster) -> PickError {
    PickError::NotFound { resource: Arc::clone(&why.resource), reason: Arc::clone(&why.reason) }
}
