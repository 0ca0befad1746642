//! What a pick reads: immutable, made whole by the balancer at each change and swapped.

use std::sync::Arc;

use super::{Candidates, Endpoint, Pick, PickError, Rng, Strategy};

/// Picks that look for an endpoint that was not tried yet give up after so many draws.
const DRAWS: usize = 8;

/// Who takes which share, and how many requests may be open.
#[derive(Debug)]
pub(super) struct Snapshot<T> {
    /// The localities with a share, and where each one's part of 0..2³² ends; the last ends at 2³².
    pub(super) routes: Vec<Route<T>>,
    /// `max_requests`; no limit is `u32::MAX`.
    pub(super) limit: u32,
    /// What to say when there are no routes, or too many requests.
    pub(super) empty: PickError,
    pub(super) overloaded: PickError,
}

#[derive(Debug)]
pub(super) struct Route<T> {
    until: u64,
    priority: u32,
    candidates: Candidates,
    /// In the candidates' order.
    endpoints: Vec<Arc<Endpoint<T>>>,
}

/// A locality that takes a share.
pub(super) struct Taker<T> {
    pub(super) share: f64,
    pub(super) priority: u32,
    pub(super) endpoints: Vec<(Arc<Endpoint<T>>, u32)>,
}

/// Lays localities' shares out over 0..2³²; those without a share or without endpoints are left out.
pub(super) fn routes<T>(takers: Vec<Taker<T>>) -> Vec<Route<T>> {
    let mut sum = 0.0;
    let mut routes = Vec::with_capacity(takers.len());
    for Taker { share, priority, endpoints } in takers {
        let loads = endpoints.iter().map(|(endpoint, weight)| (Arc::clone(&endpoint.load), *weight)).collect();
        if share <= 0.0 {
            continue;
        }
        let Some(candidates) = Candidates::new(loads) else { continue };
        sum += share;
        let until = (sum * (1u64 << 32) as f64) as u64;
        let endpoints = endpoints.into_iter().map(|(endpoint, _)| endpoint).collect();
        routes.push(Route { until, priority, candidates, endpoints });
    }
    if let Some(last) = routes.last_mut() {
        last.until = 1 << 32;
    }
    routes
}

impl<T> Snapshot<T> {
    pub(super) fn new(empty: PickError, overloaded: PickError, limit: u32) -> Self {
        Self { routes: Vec::new(), limit, empty, overloaded }
    }

    #[inline]
    pub(super) fn pick(&self, strategy: &dyn Strategy, rng: &Rng) -> Result<Pick<T>, PickError> {
        let (route, at) = self.draw(strategy, rng)?;
        self.take(route, at)
    }

    /// As [`Snapshot::pick`], preferring endpoints that `avoid` does not name.
    pub(super) fn pick_avoiding(
        &self,
        strategy: &dyn Strategy,
        rng: &Rng,
        avoid: &[std::net::SocketAddr],
    ) -> Result<Pick<T>, PickError> {
        let mut drawn = self.draw(strategy, rng)?;
        for _ in 0..DRAWS {
            if !avoid.contains(&drawn.0.candidates.address(drawn.1)) {
                break;
            }
            drawn = self.draw(strategy, rng)?;
        }
        let (mut route, mut at) = drawn;
        if avoid.contains(&route.candidates.address(at)) {
            // Chance did not find one: look for any, near the shares' order.
            let fresh = |route: &Route<T>| {
                (0..route.endpoints.len()).find(|at| !avoid.contains(&route.candidates.address(*at)))
            };
            if let Some((other, found)) = self.routes.iter().find_map(|route| fresh(route).map(|at| (route, at))) {
                (route, at) = (other, found);
            }
        }
        self.take(route, at)
    }

    #[inline]
    fn draw(&self, strategy: &dyn Strategy, rng: &Rng) -> Result<(&Route<T>, usize), PickError> {
        let route = match self.routes.as_slice() {
            [] => return Err(self.empty.clone()),
            [only] => only,
            routes => {
                let at = rng.next() >> 32;
                // The last one's part ends above every draw.
                &routes[routes.partition_point(|route| route.until <= at)]
            }
        };
        Ok((route, strategy.choose(&route.candidates, rng)))
    }

    #[inline]
    fn take(&self, route: &Route<T>, at: usize) -> Result<Pick<T>, PickError> {
        let endpoint = &route.endpoints[at];
        if !endpoint.breaker.enter(self.limit) {
            return Err(self.overloaded.clone());
        }
        Ok(Pick::new(Arc::clone(endpoint), route.priority))
    }
}
