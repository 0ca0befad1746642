//! What a pick reads: immutable, made whole by the balancer at each change and swapped.

use std::sync::Arc;

use super::candidates::{Draws, Slots};
use super::cell::{Cell, Chunks, cell};
use super::chosen::{Chooser, Chosen, Seated};
use super::stripe::Ledger;
use super::{Endpoint, Member, PickError, RequestInfo};

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
    pub(super) ledger: Arc<Ledger>,
    pub(super) chosen: Chosen,
}

#[derive(Debug)]
pub(super) struct Route<T> {
    until: u64,
    priority: u32,
    locality: Arc<Locality<T>>,
}

/// The usable endpoints of a locality, laid out for picking.
#[derive(Debug)]
pub(super) struct Locality<T> {
    slots: Slots,
    chooser: Chooser,
    chunks: Arc<Chunks>,
    /// In the slots' order.
    endpoints: Vec<Arc<Endpoint<T>>>,
    /// What the strategy keeps for each; empty if it keeps nothing.
    seats: Vec<Arc<dyn Seated>>,
}

/// An endpoint as a locality is laid out with it.
pub(super) struct Laid<T> {
    pub(super) endpoint: Arc<Endpoint<T>>,
    /// At least 1.
    pub(super) weight: u32,
    pub(super) seated: Option<Arc<dyn Seated>>,
}

impl<T> Locality<T> {
    /// `None` without endpoints.
    pub(super) fn new(chosen: &Chosen, chunks: Arc<Chunks>, laid: Vec<Laid<T>>) -> Option<Self> {
        let cells = laid.iter().map(|it| (it.endpoint.seat.number(), it.weight));
        let slots = Slots::new(Arc::clone(&chunks), cells)?;
        let member =
            |it: &Laid<T>| Member { address: it.endpoint.address(), weight: it.weight, node: it.seated.clone() };
        let members: Vec<_> = laid.iter().map(member).collect();
        let chooser = chosen.chooser(&members);
        let seats = members.into_iter().filter_map(|member| member.node).collect();
        Some(Self { slots, chooser, chunks, endpoints: laid.into_iter().map(|it| it.endpoint).collect(), seats })
    }
}

/// A locality that takes a share.
pub(super) struct Taker<T> {
    pub(super) share: f64,
    pub(super) priority: u32,
    pub(super) locality: Arc<Locality<T>>,
}

/// Lays localities' shares out over 0..2³²; those without a share are left out.
pub(super) fn routes<T>(takers: impl Iterator<Item = Taker<T>>) -> Vec<Route<T>> {
    let mut sum = 0.0;
    let mut routes = Vec::new();
    for Taker { share, priority, locality } in takers.filter(|taker| taker.share > 0.0) {
        sum += share;
        let until = (sum * (1u64 << 32) as f64) as u64;
        routes.push(Route { until, priority, locality });
    }
    if let Some(last) = routes.last_mut() {
        last.until = 1 << 32;
    }
    routes
}

/// Where in a snapshot a pick fell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawn {
    route: u32,
    at: u32,
    /// The one it was preferred to; itself if there was none.
    over: u32,
    pub(super) cell: u32,
    pub(super) priority: u32,
}

impl<T> Snapshot<T> {
    #[cold]
    #[inline(never)]
    pub(super) fn nothing(&self) -> PickError {
        self.empty.clone()
    }

    #[cold]
    #[inline(never)]
    pub(super) fn too_much(&self) -> PickError {
        self.overloaded.clone()
    }

    /// Chooses; the request is not counted yet.
    #[inline(always)]
    pub(super) fn choose(&self, draws: Draws<'_>, request: &RequestInfo<'_>) -> Option<Drawn> {
        let drawn = self.draw(draws, request)?;
        if request.avoid.is_empty() { Some(drawn) } else { self.avoiding(drawn, draws, request) }
    }

    #[inline(always)]
    fn draw(&self, draws: Draws<'_>, request: &RequestInfo<'_>) -> Option<Drawn> {
        let route = match self.routes.as_slice() {
            [] => return None,
            [_] => 0,
            _ => self.route(draws, request),
        };
        let locality = &self.routes[route].locality;
        let choice = locality.chooser.choose(&locality.slots, draws, request);
        Some(self.drawn(route, choice.at, choice.over.unwrap_or(choice.at)))
    }

    #[inline(never)]
    fn route(&self, draws: Draws<'_>, request: &RequestInfo<'_>) -> usize {
        let at = self.chosen.affinity(request).unwrap_or_else(|| draws.rng.next_of(draws.stripe)) >> 32;
        // The last one's part ends above every draw.
        self.routes.partition_point(|route| route.until <= at)
    }

    #[inline(always)]
    fn drawn(&self, route: usize, at: usize, over: usize) -> Drawn {
        let Route { priority, locality, .. } = &self.routes[route];
        Drawn {
            route: route as u32,
            at: at as u32,
            over: over as u32,
            cell: locality.slots.cell(at),
            priority: *priority,
        }
    }

    /// Prefers endpoints that failed the request not yet.
    #[cold]
    #[inline(never)]
    fn avoiding(&self, mut drawn: Drawn, draws: Draws<'_>, request: &RequestInfo<'_>) -> Option<Drawn> {
        let tried = |endpoint: &Endpoint<T>| request.avoid.contains(&endpoint.address());
        for _ in 0..DRAWS {
            if !tried(self.endpoint(drawn)) {
                return Some(drawn);
            }
            drawn = self.draw(draws, request)?;
        }
        // Chance did not find one: look for any, near the shares' order.
        let fresh = (0..).zip(&self.routes).find_map(|(route, Route { locality, .. })| {
            let admits = |it: &Endpoint<T>| it.seat.cell().admission().admits(it.seat.cell().in_flight());
            let at = locality.endpoints.iter().position(|endpoint| !tried(endpoint) && admits(endpoint))?;
            Some(self.drawn(route, at, at))
        });
        Some(fresh.unwrap_or(drawn))
    }

    #[inline]
    pub(super) fn endpoint(&self, drawn: Drawn) -> &Arc<Endpoint<T>> {
        &self.routes[drawn.route as usize].locality.endpoints[drawn.at as usize]
    }

    /// The endpoint that the chosen one was preferred to.
    pub(super) fn passed_over(&self, drawn: Drawn) -> Option<&Arc<Endpoint<T>>> {
        let other = Drawn { at: drawn.over, ..drawn };
        (drawn.over != drawn.at).then(|| self.endpoint(other))
    }

    #[inline]
    pub(super) fn cell(&self, drawn: Drawn) -> &Cell {
        cell(&self.routes[drawn.route as usize].locality.chunks, drawn.cell)
    }

    /// What the strategy wants to be told of requests at the endpoint.
    #[inline]
    pub(super) fn seated(&self, drawn: Drawn) -> Option<&Arc<dyn Seated>> {
        let locality = &self.routes[drawn.route as usize].locality;
        match locality.chooser {
            Chooser::LeastRequest => None,
            Chooser::Other(_) => locality.seats.get(drawn.at as usize),
        }
    }
}
