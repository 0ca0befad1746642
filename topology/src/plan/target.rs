//! Where traffic belongs: runs the allocation until every place has a priority, and says why each has its share.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::allocate::{Allocation, Method};
use super::sites::{Site, Supply, World, fraction};
use super::tiers::{self, Rank, Seen};
use super::{Carries, Omitted, Plan, PlannedLocality, Reason, spoilt};
use crate::names::Locality;
use crate::policy::EffectivePolicy;
use crate::topology::Topology;
use crate::view::ServiceView;

/// Weights of a priority sum to about this much; a share below a ten-thousandth rounds up to one.
const WEIGHT_SCALE: f64 = 10_000.0;

/// Weights that are larger than ten steps are multiples of this, so that noise does not churn them.
const WEIGHT_STEP: u32 = 10;

/// Below this a share is rounding.
const NO_SHARE: f64 = 1e-9;

/// Where `client`'s traffic for the viewed service belongs. The same input gives the same plan, on every control plane.
#[must_use]
pub fn target(view: &ServiceView, client: &Locality, topology: &Topology, policy: &EffectivePolicy) -> Plan {
    let world = World::new(view, topology, policy);
    let method = Method::new(&world, client);
    let mut plan = Planner { world: &world, method: &method, placed: vec![false; world.sites.len()], farthest: None };
    let mut priorities = Vec::new();
    // Drained places serve when nothing else is left to: in the lowest healthy priority, or in the first if drains
    // leave the service nothing.
    for drains in [true, false] {
        while let Some(priority) = plan.next_priority(drains) {
            priorities.push(priority);
        }
    }
    priorities.extend(plan.unhealthy());
    let omitted = &method.ladder().omitted;
    let omitted =
        omitted.iter().map(|(cluster, because)| Omitted { cluster: cluster.clone(), because: because.clone() });
    spoilt(Plan { service: view.service.clone(), client: client.clone(), priorities, omitted: omitted.collect() })
}

struct Planner<'a> {
    world: &'a World<'a>,
    method: &'a Method<'a>,
    /// The sites that stand in a priority already: dead, as far as the next one is concerned.
    placed: Vec<bool>,
    /// The highest rung with a share, once the first priority is made.
    farthest: Option<Rank>,
}

/// The sites that a client sees as one locality.
struct Unit<'a> {
    seen: &'a Seen,
    sites: Vec<usize>,
}

impl<'a> Planner<'a> {
    /// The localities that have no priority yet, nearest first.
    fn units(&self) -> Vec<Unit<'a>> {
        let mut units: BTreeMap<(Rank, &Locality), Unit<'a>> = BTreeMap::new();
        for (site, seen) in self.method.ladder().seen.iter().enumerate() {
            if let Some(seen) = seen.as_ref().filter(|_| !self.placed[site]) {
                let unit = units.entry((seen.rank, &seen.locality)).or_insert(Unit { seen, sites: Vec::new() });
                unit.sites.push(site);
            }
        }
        units.into_values().collect()
    }

    /// What the allocation gives with everything placed so far dead; `None` when nothing is left that takes traffic.
    fn next_priority(&mut self, drains: bool) -> Option<Vec<PlannedLocality>> {
        let supply = self.world.supply(&self.placed, drains);
        let allocation = self.method.allocate(&supply);
        let share = |unit: &Unit<'_>| -> f64 { unit.sites.iter().map(|site| allocation.shares[*site]).sum() };
        let units: Vec<_> = self.units().into_iter().map(|unit| (share(&unit), unit)).collect();
        let taken: Vec<_> = units.into_iter().filter(|(share, _)| *share > NO_SHARE).collect();
        let sum: u64 = taken.iter().map(|(share, _)| u64::from(weight(*share).get())).sum();
        let reasons = Reasons { planner: self, allocation: &allocation, supply: &supply, taken: &taken, drains };
        let planned = taken.iter().map(|(share, unit)| {
            let weight = weight(*share);
            match self.farthest {
                None => self.planned(unit, weight, f64::from(weight.get()) / sum as f64, reasons.of(unit)),
                Some(farthest) => self.planned(unit, weight, 0.0, self.spare(unit, farthest)),
            }
        });
        let priority: Vec<_> = planned.collect();
        self.farthest = self.farthest.or_else(|| taken.iter().map(|(_, unit)| unit.seen.rank).max());
        for site in taken.iter().flat_map(|(_, unit)| &unit.sites) {
            self.placed[*site] = true;
        }
        (!priority.is_empty()).then_some(priority)
    }

    /// The last priority: what must not be used.
    fn unhealthy(&self) -> Option<Vec<PlannedLocality>> {
        let planned = self.units().into_iter().map(|unit| {
            let failed = unit.sites.iter().all(|site| self.world.sites[*site].failed);
            let because = if failed { Reason::ClusterFailed } else { Reason::NothingReady };
            PlannedLocality { unhealthy: true, ..self.planned(&unit, NonZeroU32::MIN, 0.0, because) }
        });
        let priority: Vec<_> = planned.collect();
        (!priority.is_empty()).then_some(priority)
    }

    fn planned(&self, unit: &Unit<'_>, weight: NonZeroU32, share: f64, because: Reason) -> PlannedLocality {
        let sites = || unit.sites.iter().map(|site| &self.world.sites[*site]);
        PlannedLocality {
            locality: unit.seen.locality.clone(),
            route: unit.seen.route,
            weight,
            share,
            tier: unit.seen.tier.clone(),
            ready: sites().filter(|site| !site.failed).fold(0, |sum, site| sum.saturating_add(site.ready)),
            total: sites().fold(0, |sum, site| sum.saturating_add(site.total)),
            carries: self.carries(sites()),
            because,
            unhealthy: false,
        }
    }

    fn carries<'s>(&self, sites: impl Iterator<Item = &'s Site<'s>> + Clone) -> Carries {
        let live = sites.clone().filter(|site| site.weight > 0.0);
        match self.method.demand() {
            Some(_) => Carries::RequestsPerSecond(
                live.filter_map(|site| Some(site.capacity? * site.undrained())).fold(0.0, |sum, rps| sum + rps),
            ),
            None => {
                let ready = live.map(|site| f64::from(site.ready) * site.undrained()).sum();
                let staying = sites.map(|site| f64::from(site.staying)).sum();
                Carries::FractionOfLoad(fraction(self.world.policy, ready, staying))
            }
        }
    }

    /// Why a locality that takes traffic has no share.
    fn spare(&self, unit: &Unit<'_>, farthest: Rank) -> Reason {
        match self.drained(unit) {
            Some(drained) => drained,
            None if farthest < unit.seen.rank => Reason::NearerHasRoom { tier: tiers::name(farthest).to_owned() },
            None => self.full(),
        }
    }

    fn drained(&self, unit: &Unit<'_>) -> Option<Reason> {
        let drain = unit.sites.iter().find_map(|site| self.world.sites[*site].drain)?;
        Some(Reason::Drained { drain: drain.name.clone() })
    }

    fn full(&self) -> Reason {
        let demand = self.method.demand();
        let target = self.world.policy.locality.target_utilization_percent;
        Reason::Full { demand, target_utilization_percent: demand.map(|_| target) }
    }
}

/// Why the localities of the first priority have their shares.
struct Reasons<'a> {
    planner: &'a Planner<'a>,
    allocation: &'a Allocation,
    supply: &'a Supply,
    taken: &'a [(f64, Unit<'a>)],
    /// Whether drains were heeded; if not, nothing else was left.
    drains: bool,
}

impl Reasons<'_> {
    fn of(&self, unit: &Unit<'_>) -> Reason {
        let drained = self.planner.drained(unit);
        match drained {
            Some(Reason::Drained { drain }) if !self.drains => return Reason::DrainedButLast { drain },
            Some(reason) => return reason,
            None if self.allocation.overload => return Reason::Overload,
            None => {}
        }
        let rank = unit.seen.rank;
        let ranks = || self.taken.iter().map(|(_, unit)| unit.seen.rank);
        let nearest = ranks().min() == Some(rank);
        let farthest = ranks().max() == Some(rank);
        if let Some(by_weight) = self.by_weight(unit, farthest) {
            return by_weight;
        }
        match (nearest, farthest) {
            (true, true) => Reason::Nearest,
            (_, false) => self.planner.full(),
            (false, true) => Reason::TakesExcess,
        }
    }

    /// On a rung whose groups have weights: whether this group has its part, less, or more.
    fn by_weight(&self, unit: &Unit<'_>, farthest: bool) -> Option<Reason> {
        let ladder = self.planner.method.ladder();
        let rung = ladder.rungs.iter().find(|rung| rung.rank == unit.seen.rank)?;
        let live = |group: &&tiers::Group| group.sites.iter().any(|site| self.supply.weight[*site] > 0.0);
        let group = rung.groups.iter().find(|group| group.sites.contains(&unit.sites[0]))?;
        if !matches!(unit.seen.tier, super::Tier::Failover { .. } | super::Tier::Weighted { .. }) {
            return None;
        }
        let shares =
            |group: &tiers::Group| -> f64 { group.sites.iter().map(|site| self.allocation.shares[*site]).sum() };
        let rung_share: f64 = rung.groups.iter().map(shares).sum();
        let weights: f64 = rung.groups.iter().filter(live).map(|group| group.weight).sum();
        let part = rung_share * group.weight / weights;
        Some(match shares(group) {
            given if given < part - NO_SHARE => self.planner.full(),
            given if given > part + NO_SHARE => Reason::TakesExcess,
            _ if farthest => Reason::ByWeight,
            _ => self.planner.full(),
        })
    }
}

/// A share as a weight: quantised, at least 1.
pub(super) fn weight(share: f64) -> NonZeroU32 {
    let fine = (share.clamp(0.0, 1.0) * WEIGHT_SCALE).round() as u32;
    let coarse = if fine < 10 * WEIGHT_STEP { fine } else { (fine + WEIGHT_STEP / 2) / WEIGHT_STEP * WEIGHT_STEP };
    NonZeroU32::new(coarse).unwrap_or(NonZeroU32::MIN)
}
