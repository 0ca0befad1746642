//! Hands a client's load out over its ladder: by fractions where only endpoint counts are known, by requests per
//! second over all sources at once where demand and capacity are. Load is shared, never dropped.

use super::sites::{MOST, Supply, World, fraction};
use super::tiers::{Group, Ladder, Rank, Rung};
use crate::names::Locality;
use crate::policy::EffectivePolicy;

/// What is left of a load by rounding alone.
const NOTHING: f64 = 1e-9;

/// How often sources that compete for one rung's room may try again with what another left. Each pass fills a place or
/// ends the rung; what is left after the last goes to the next rung, so the bound costs exactness, never load.
const PASSES: usize = 16;

/// One client's load, by site.
pub(super) struct Allocation {
    /// Fractions (0 to 1) that sum to one, or all zero if nothing on the ladder takes traffic.
    pub(super) shares: Vec<f64>,
    /// Whether some load found no room anywhere and was spread by ready capacity.
    pub(super) overload: bool,
}

/// How loads are measured.
pub(super) enum Method<'a> {
    /// As fractions of the client's own: its demand, or a capacity, is not known.
    Fractions(&'a EffectivePolicy, Ladder),
    /// In requests per second: the client, and all others that send.
    Demand(Source, Vec<Source>),
}

/// Where load comes from.
pub(super) struct Source {
    /// Requests per second, above 0.
    demand: f64,
    ladder: Ladder,
}

impl<'a> Method<'a> {
    pub(super) fn new(world: &World<'a>, client: &Locality) -> Self {
        let own = world.view.demand.get(client).map(|demand| demand.min(MOST)).filter(|demand| *demand >= 0.0);
        let Some(own) = own.filter(|_| world.capacity_is_known()) else {
            return Self::Fractions(world.policy, Ladder::new(world, client));
        };
        let others = world.view.demand.iter().filter(|(source, demand)| *source != client && **demand > 0.0);
        let source = |(source, demand): (&Locality, f64)| Source { demand, ladder: Ladder::new(world, source) };
        let others = others.map(|(from, demand)| source((from, demand.min(MOST)))).collect();
        // A client that sends nothing yet still has a split: that of a trickle.
        Self::Demand(source((client, own.max(f64::MIN_POSITIVE.sqrt()))), others)
    }

    /// The client's ladder.
    pub(super) fn ladder(&self) -> &Ladder {
        match self {
            Self::Fractions(_, ladder) | Self::Demand(Source { ladder, .. }, _) => ladder,
        }
    }

    /// The client's demand in requests per second, if loads are measured so.
    pub(super) fn demand(&self) -> Option<f64> {
        match self {
            Self::Fractions(..) => None,
            Self::Demand(client, _) => Some(client.demand),
        }
    }

    pub(super) fn allocate(&self, supply: &Supply) -> Allocation {
        match self {
            Self::Fractions(policy, ladder) => by_fraction(policy, ladder, supply),
            Self::Demand(client, others) => by_demand(client, others, supply),
        }
    }
}

fn sum(group: &Group, values: &[f64]) -> f64 {
    group.sites.iter().map(|site| values[*site]).sum()
}

/// Adds `load` to the shares of `sites` in proportion to `by`.
fn split(shares: &mut [f64], sites: impl Iterator<Item = usize> + Clone, by: &[f64], load: f64) {
    let whole: f64 = sites.clone().map(|site| by[site]).sum();
    if whole > 0.0 {
        sites.for_each(|site| shares[site] += load * by[site] / whole);
    }
}

/// What no rung could carry goes to everything on the ladder, by ready capacity. True if there was anything.
fn spread(shares: &mut [f64], ladder: &Ladder, by: &[f64], load: f64) -> bool {
    let sites = ladder.rungs.iter().flat_map(|rung| &rung.groups).flat_map(|group| &group.sites);
    split(shares, sites.copied(), by, load);
    load > NOTHING
}

/// Each rung carries `min(1, overprovisioning × ready/staying)` of what reaches it and passes on the rest. A group of
/// several carries that fraction of its weighted part, and only the excess moves to the groups that are whole.
fn by_fraction(policy: &EffectivePolicy, ladder: &Ladder, supply: &Supply) -> Allocation {
    let mut shares = vec![0.0; supply.weight.len()];
    let mut load = 1.0;
    for rung in &ladder.rungs {
        load = climb(&mut shares, rung, policy, supply, load);
        if load <= NOTHING {
            break;
        }
    }
    let overload = spread(&mut shares, ladder, &supply.weight, load);
    Allocation { shares, overload }
}

/// Gives `load` to one rung; what is left.
fn climb(shares: &mut [f64], rung: &Rung, policy: &EffectivePolicy, supply: &Supply, load: f64) -> f64 {
    let fraction = |group: &Group| fraction(policy, sum(group, &supply.ready), sum(group, &supply.staying));
    let live = || rung.groups.iter().filter(|group| sum(group, &supply.weight) > 0.0);
    let weights: f64 = live().map(|group| group.weight).sum();
    let whole: f64 = live().filter(|group| fraction(group) >= 1.0).map(|group| group.weight).sum();
    let part = |group: &Group| load * group.weight / weights;
    let excess: f64 = live().map(|group| part(group) * (1.0 - fraction(group))).sum();
    for group in live() {
        let fraction = fraction(group);
        let more = if fraction >= 1.0 { excess * group.weight / whole } else { 0.0 };
        split(shares, group.sites.iter().copied(), &supply.weight, part(group) * fraction + more);
    }
    match (weights > 0.0, whole > 0.0) {
        (false, _) => load,
        (true, true) => 0.0,
        (true, false) => excess,
    }
}

/// All sources fill the places up to their target utilisation, rank by rank: each its nearest first. Sources that
/// compete for a place's room get it in proportion to what they offer, so every control plane computes the same.
fn by_demand(client: &Source, others: &[Source], supply: &Supply) -> Allocation {
    const CLIENT: usize = 0;
    let sources: Vec<&Source> = std::iter::once(client).chain(others).collect();
    let mut room = supply.room.clone();
    let mut need: Vec<f64> = sources.iter().map(|source| source.demand).collect();
    let mut shares = vec![0.0; room.len()];
    let mut ranks: Vec<Rank> = sources.iter().flat_map(|source| &source.ladder.rungs).map(|rung| rung.rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    for rank in ranks {
        for _ in 0..PASSES {
            let offers = offers(&sources, rank, &need, &room);
            if offers.is_empty() {
                break;
            }
            let mut offered = vec![0.0; room.len()];
            offers.iter().for_each(|offer| offered[offer.site] += offer.load);
            let before = room.clone();
            for offer in &offers {
                let given = offer.load * (before[offer.site] / offered[offer.site]).min(1.0);
                need[offer.source] -= given;
                room[offer.site] -= given;
                if offer.source == CLIENT {
                    shares[offer.site] += given / client.demand;
                }
            }
        }
    }
    let rest = need[CLIENT] / client.demand;
    let overload = spread(&mut shares, &client.ladder, &supply.room, rest);
    Allocation { shares, overload }
}

/// A source's wish for a part of a place.
struct Offer {
    source: usize,
    site: usize,
    load: f64,
}

/// What each source that is in need offers to the places of its rung of that rank: by the groups' weights, within a
/// group by the room there is.
fn offers(sources: &[&Source], rank: Rank, need: &[f64], room: &[f64]) -> Vec<Offer> {
    let mut offers = Vec::new();
    // Below a millionth of a request per second, room is what rounding left.
    let free = |site: usize| if room[site] > 1e-6 { room[site] } else { 0.0 };
    let free_in = |group: &Group| -> f64 { group.sites.iter().map(|site| free(*site)).sum() };
    for (source, Source { demand, ladder }) in sources.iter().enumerate() {
        let Some(rung) = ladder.rungs.iter().find(|rung| rung.rank == rank) else { continue };
        if need[source] <= demand * NOTHING {
            continue;
        }
        let open = || rung.groups.iter().map(|group| (group, free_in(group))).filter(|(_, free)| *free > 0.0);
        let weights: f64 = open().map(|(group, _)| group.weight).sum();
        for (group, group_room) in open() {
            let part = need[source] * group.weight / weights;
            let sites = group.sites.iter().filter(|site| free(**site) > 0.0);
            offers.extend(sites.map(|site| Offer { source, site: *site, load: part * free(*site) / group_room }));
        }
    }
    offers
}
