//! What each place can carry, once liveness and drains are counted: the planner's raw material, the same for every client.

use super::spoilt;
use crate::names::Locality;
use crate::policy::{ActiveDrain, Capacity, EffectivePolicy};
use crate::topology::{Cluster, Topology};
use crate::view::{Liveness, ServiceView};

/// Requests per second above this are a mistake of whoever counted; as much, they still add up.
pub(super) const MOST: f64 = 1e12;

/// The least part of its weight that a place has while it takes traffic, as the least `warmup.minPercent`.
const COLDEST: f64 = 0.01;

/// A physical place of the service: one zone of one cluster.
pub(super) struct Site<'a> {
    pub(super) locality: &'a Locality,
    /// Its cluster, if the topology knows it.
    pub(super) cluster: Option<&'a Cluster>,
    pub(super) ready: u32,
    pub(super) total: u32,
    /// Those listed that are not on their way out: what the ready ones are measured against. A place that is scaled
    /// down has lost nothing.
    pub(super) staying: u32,
    /// The ready endpoints' weights as far as they are warm, drains aside; 0 where nothing takes traffic.
    pub(super) weight: f64,
    /// Requests per second up to the target utilisation, drains aside.
    pub(super) capacity: Option<f64>,
    /// The strongest drain in force here.
    pub(super) drain: Option<&'a ActiveDrain>,
    /// Whether its cluster is known dead.
    pub(super) failed: bool,
}

impl Site<'_> {
    /// The fraction of its capacity that drains leave.
    pub(super) fn undrained(&self) -> f64 {
        self.drain.map_or(1.0, |drain| f64::from(100 - drain.percent.min(100)) / 100.0)
    }
}

/// Everything that a plan is made from.
pub(super) struct World<'a> {
    pub(super) view: &'a ServiceView,
    pub(super) topology: &'a Topology,
    pub(super) policy: &'a EffectivePolicy,
    /// The places that list an endpoint, by locality.
    pub(super) sites: Vec<Site<'a>>,
}

impl<'a> World<'a> {
    pub(super) fn new(view: &'a ServiceView, topology: &'a Topology, policy: &'a EffectivePolicy) -> Self {
        // A target of nothing would leave no room anywhere, and so no split.
        let utilization = f64::from(policy.locality.target_utilization_percent.max(1)) / 100.0;
        let per_weight = match policy.capacity {
            Some(Capacity::RequestsPerSecond(rps)) => Some(rps),
            // Requests at once say nothing of requests per second without a latency.
            Some(Capacity::ConcurrentRequests(_)) | None => None,
        };
        let sites = view.localities.iter().filter(|(_, facts)| facts.endpoints.total > 0).map(|(locality, facts)| {
            let counts = &facts.endpoints;
            let failed = view.liveness_of(&locality.cluster) == Liveness::Failed;
            let ready = counts.ready.min(counts.total);
            let listed = if failed || ready == 0 { 0.0 } else { counts.ready_weight.max(u64::from(ready)) as f64 };
            let warm = warm(listed, facts.cold_weight);
            let weight = listed * warm;
            let known = facts.capacity.map(|capacity| capacity * warm);
            let capacity = known.or_else(|| per_weight.map(|rps| rps * weight)).filter(|capacity| *capacity > 0.0);
            Site {
                locality,
                cluster: topology.cluster(&locality.cluster),
                ready,
                total: counts.total,
                staying: counts.total.saturating_sub(counts.draining),
                weight,
                capacity: capacity.map(|capacity| capacity.min(MOST) * utilization),
                drain: policy
                    .drains
                    .iter()
                    .filter(|drain| drain.scope.contains(locality))
                    .max_by_key(|drain| (drain.percent, std::cmp::Reverse(&drain.name))),
                failed,
            }
        });
        Self { view, topology, policy, sites: spoilt(sites.collect()) }
    }

    /// Whether every place that takes traffic has a known capacity.
    pub(super) fn capacity_is_known(&self) -> bool {
        self.sites.iter().all(|site| site.weight == 0.0 || site.capacity.is_some())
    }

    /// What is there to hand out, with the places in `dead` taken away. Without `drains`, drained places count in full.
    pub(super) fn supply(&self, dead: &[bool], drains: bool) -> Supply {
        let each = |value: &dyn Fn(&Site<'_>) -> f64| -> Vec<f64> {
            let left = |site: &Site<'_>| if drains { site.undrained() } else { 1.0 };
            let alive = |site: &Site<'_>| site.weight > 0.0;
            self.sites
                .iter()
                .zip(dead)
                .map(|(site, dead)| if *dead || !alive(site) { 0.0 } else { value(site) * left(site) })
                .collect()
        };
        Supply {
            ready: each(&|site| f64::from(site.ready)),
            weight: each(&|site| site.weight),
            room: each(&|site| site.capacity.unwrap_or(0.0)),
            staying: self.sites.iter().map(|site| f64::from(site.staying)).collect(),
        }
    }
}

/// What one allocation may hand out, by site.
pub(super) struct Supply {
    /// Ready endpoints, less what drains take.
    pub(super) ready: Vec<f64>,
    /// Endpoints listed that are not on their way out.
    pub(super) staying: Vec<f64>,
    /// The ready endpoints' weights, less what drains take: how load splits within a group.
    pub(super) weight: Vec<f64>,
    /// Requests per second up to the target utilisation; meaningless unless every capacity is known.
    pub(super) room: Vec<f64>,
}

/// The part of a place's weight that is warm. However cold it is, it is not dead.
fn warm(weight: f64, cold: f64) -> f64 {
    if weight > 0.0 && cold > 0.0 { (1.0 - cold / weight).max(COLDEST) } else { 1.0 }
}

/// `overprovisioning × ready/staying`, at most 1: the fraction of its load that a place or a group carries.
pub(super) fn fraction(policy: &EffectivePolicy, ready: f64, staying: f64) -> f64 {
    let overprovisioning = f64::from(policy.locality.overprovisioning_percent) / 100.0;
    if staying > 0.0 { (overprovisioning * ready / staying).min(1.0) } else { 0.0 }
}
