//! Where a service's calls go: its routes, in order, and the clusters that they lead to.
//!
//! Immutable; made whole from the four kinds of resources. A call is routed without a lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::hashing::HashPolicy;
use super::matching::{RequestHead, RouteMatch};
use super::model::{Assignment, Retry};

/// A service as it was last served whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    /// Its routes; the first that fits a call takes it.
    pub routes: Arc<[Route]>,
    /// Every cluster that a route names.
    pub clusters: BTreeMap<Arc<str>, Result<Arc<Assignment>, NoCluster>>,
    /// The timeout of calls whose route says nothing; `None`: the caller's alone.
    pub timeout: Option<Duration>,
}

/// Why calls to a cluster fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoCluster {
    /// The resource at fault, such as ``Cluster `checkout` ``.
    pub resource: Arc<str>,
    /// What is wrong with it, as a sentence without a full stop.
    pub reason: Arc<str>,
}

/// A route.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Which calls it takes.
    pub matches: RouteMatch,
    /// Where they go; `None`: nowhere, they fail (`non_forwarding_action`, and whatever a client cannot do).
    pub forward: Option<Forward>,
}

/// Where a route's calls go, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// The clusters with weight, in order; at least one.
    pub clusters: Vec<Share>,
    /// The timeout, if the route says something about it. Zero: none.
    pub timeout: Option<Duration>,
    /// The retries; `None`: none beyond calls of which no byte reached a living connection.
    pub retry: Option<Retry>,
    /// What decides a call's hash, for strategies that look at one; empty: nothing.
    pub hash: Vec<HashPolicy>,
}

/// A cluster's part of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// Its name.
    pub cluster: Arc<str>,
    /// Its weight, at least 1. A route's sum is less than 2³².
    pub weight: u32,
}

/// Why no cluster takes a call. The texts are gRPC's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// No route fits.
    #[error("No matching route found in xDS route config")]
    NoMatch,
    /// The route that fits leads nowhere.
    #[error("Matching route has inappropriate action")]
    NotForwarding,
}

/// Where a call goes: a route, and which of its clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routed {
    /// The route's index.
    pub route: usize,
    /// The index of the share within it.
    pub share: usize,
}

impl Forward {
    /// To one cluster, with nothing else said.
    #[must_use]
    pub fn to(cluster: impl Into<Arc<str>>) -> Self {
        Self {
            clusters: vec![Share { cluster: cluster.into(), weight: 1 }],
            timeout: None,
            retry: None,
            hash: Vec::new(),
        }
    }

    /// The index of the cluster that a draw falls on: by weight.
    fn share(&self, draw: &mut impl FnMut() -> u64) -> usize {
        if self.clusters.len() == 1 {
            return 0;
        }
        let sum: u64 = self.clusters.iter().map(|share| u64::from(share.weight)).sum();
        // Below the sum: the product's upper half is.
        let at = ((u128::from(draw()) * u128::from(sum)) >> 64) as u64;
        let mut until = 0;
        let ends = self.clusters.iter().position(|share| {
            until += u64::from(share.weight);
            at < until
        });
        ends.unwrap_or_default()
    }
}

/// Routes a call. `draw` gives random 64 bits; it is asked only where chance decides.
///
/// # Errors
/// No route takes it, or the one that does leads nowhere.
pub fn route(routes: &[Route], call: &impl RequestHead, draw: &mut impl FnMut() -> u64) -> Result<Routed, NoRoute> {
    let at = routes.iter().position(|route| route.matches.is_for(call, draw)).ok_or(NoRoute::NoMatch)?;
    let forward = routes[at].forward.as_ref().ok_or(NoRoute::NotForwarding)?;
    Ok(Routed { route: at, share: forward.share(draw) })
}

impl Routing {
    /// One cluster that takes every call, in the way that `forward` says of it.
    #[must_use]
    pub fn with(assignment: Assignment, change: impl FnOnce(&mut Forward)) -> Self {
        let mut forward = Forward::to(Arc::clone(&assignment.cluster));
        change(&mut forward);
        let clusters = [(Arc::clone(&assignment.cluster), Ok(Arc::new(assignment)))].into();
        let route = Route { matches: RouteMatch::everything(), forward: Some(forward) };
        Self { routes: [route].into(), clusters, timeout: None }
    }

    /// The clusters that have endpoints to go to, or may have.
    pub fn assignments(&self) -> impl Iterator<Item = &Arc<Assignment>> {
        self.clusters.values().filter_map(|cluster| cluster.as_ref().ok())
    }
}

impl From<Assignment> for Routing {
    /// One cluster that takes every call.
    fn from(assignment: Assignment) -> Self {
        Self::with(assignment, |_| ())
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::super::matching::{Pattern, TextMatch};
    use super::*;

    struct Path(&'static str);

    impl RequestHead for Path {
        fn path(&self) -> &str {
            self.0
        }
        fn header(&self, _: &str) -> Option<Cow<'_, str>> {
            None
        }
    }

    fn exact(path: &str, forward: Option<Forward>) -> Route {
        let path = TextMatch { pattern: Pattern::Exact(path.to_owned()), ignore_case: false };
        Route { matches: RouteMatch { path, ..RouteMatch::everything() }, forward }
    }

    #[test]
    fn the_first_route_that_fits_takes_the_call() {
        let everything = |name| Route { matches: RouteMatch::everything(), forward: Some(Forward::to(name)) };
        let routes = [exact("/s/A", Some(Forward::to("a"))), exact("/s/B", None), everything("rest"), everything("x")];
        let to = |path| route(&routes, &Path(path), &mut || unreachable!("nothing here is left to chance"));
        assert_eq!(to("/s/A"), Ok(Routed { route: 0, share: 0 }));
        assert_eq!(to("/s/B"), Err(NoRoute::NotForwarding));
        assert_eq!(to("/s/C"), Ok(Routed { route: 2, share: 0 }));
        assert_eq!(route(&routes[..2], &Path("/s/C"), &mut || 0), Err(NoRoute::NoMatch));
    }

    proptest! {
        #[test]
        fn a_split_is_by_weight_and_whole(weights in proptest::collection::vec(1u32..1000, 1..6)) {
            let clusters = weights.iter().map(|weight| Share { cluster: "c".into(), weight: *weight }).collect();
            let forward = Forward { clusters, ..Forward::to("c") };
            let mut seen = vec![0u32; weights.len()];
            // Draws that are spread evenly: each cluster must get its part, to within one draw at either end.
            const DRAWS: u64 = 1 << 14;
            for i in 0..DRAWS {
                seen[forward.share(&mut || i * (u64::MAX / DRAWS))] += 1;
            }
            let sum: u32 = weights.iter().sum();
            for (seen, weight) in seen.iter().zip(&weights) {
                let part = f64::from(*weight) / f64::from(sum);
                prop_assert!((f64::from(*seen) / DRAWS as f64 - part).abs() <= 2.0 / DRAWS as f64, "{seen:?}");
            }
            prop_assert_eq!(forward.share(&mut || u64::MAX), weights.len() - 1);
        }
    }
}
