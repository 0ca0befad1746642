//! The ladder: which places a client may use, how it reaches each, and in which order they fill.

use std::collections::BTreeMap;

use super::sites::{Site, World};
use super::{OmittedBecause, Route, Tier};
use crate::names::{ClusterName, Locality, RegionName};
use crate::policy::Preference;
use crate::topology::{Cluster, WeightedRegion};

/// A rung's height. The same kind of tier has the same rank on every client's ladder, so that sources which compete
/// for room are served zone by zone first, then region by region.
pub(super) type Rank = usize;

const ZONE: Rank = 0;
const ZONE_ELSEWHERE: Rank = 1;
const REGION: Rank = 2;
const FAILOVER: Rank = 3;
/// The nearest distance; each further one is one more.
const DISTANT: Rank = 4;

/// One client's ladder.
pub(super) struct Ladder {
    /// Nearest first; no rung is empty, and a site stands on one at most.
    pub(super) rungs: Vec<Rung>,
    /// How the client sees each site; `None` for one it may not use.
    pub(super) seen: Vec<Option<Seen>>,
    /// The clusters left out.
    pub(super) omitted: BTreeMap<ClusterName, OmittedBecause>,
}

/// Places that fill together.
pub(super) struct Rung {
    pub(super) rank: Rank,
    /// What splits the rung's load by weight; within a group it splits by ready capacity.
    pub(super) groups: Vec<Group>,
}

/// A part of a rung: a failover region, a weighted cluster, or all there is.
pub(super) struct Group {
    pub(super) weight: f64,
    /// Indexes into the world's sites.
    pub(super) sites: Vec<usize>,
}

/// A site as one client sees it.
pub(super) struct Seen {
    /// Its locality in the client's plan: a cluster behind gateways is one, whatever its zones.
    pub(super) locality: Locality,
    pub(super) tier: Tier,
    pub(super) rank: Rank,
    pub(super) route: Route,
}

impl Ladder {
    pub(super) fn new(world: &World<'_>, client: &Locality) -> Self {
        let chart = Chart::new(world, client);
        let mut omitted = BTreeMap::new();
        let mut rungs: BTreeMap<Rank, BTreeMap<&str, Group>> = BTreeMap::new();
        let mut seen = Vec::with_capacity(world.sites.len());
        for (index, site) in world.sites.iter().enumerate() {
            let place = chart.place(site);
            if let Err(because) = &place {
                omitted.insert(site.locality.cluster.clone(), because.clone());
            }
            seen.push(place.ok().map(|place| {
                let groups = rungs.entry(place.rank).or_default();
                let group = groups.entry(place.group).or_insert(Group { weight: place.weight, sites: Vec::new() });
                group.sites.push(index);
                place.seen
            }));
        }
        let rungs = rungs.into_iter().map(|(rank, groups)| Rung { rank, groups: groups.into_values().collect() });
        Self { rungs: rungs.collect(), seen, omitted }
    }
}

/// Where a site stands on a client's ladder.
struct Place<'a> {
    rank: Rank,
    group: &'a str,
    weight: f64,
    seen: Seen,
}

/// What one client's ladder is drawn from.
struct Chart<'a> {
    world: &'a World<'a>,
    client: &'a Locality,
    home: Option<&'a Cluster>,
    /// The failover targets that hold for the client's region.
    failover: Vec<&'a WeightedRegion>,
    /// The rank of every other region that is no failover target.
    distant: BTreeMap<&'a RegionName, Rank>,
}

impl<'a> Chart<'a> {
    fn new(world: &'a World<'a>, client: &'a Locality) -> Self {
        let locality = &world.policy.locality;
        let failover = locality.failover.as_ref().or_else(|| world.topology.failover.get(&client.region));
        let failover = failover.into_iter().flatten().filter(|to| to.region != client.region && to.weight > 0);
        let mut distant = BTreeMap::new();
        let mut last = None;
        let mut rank = DISTANT;
        for region in world.topology.regions_by_distance(&client.region) {
            let distance = world.topology.distance(&client.region, region);
            if last.as_ref().is_some_and(|last| *last != distance) {
                rank += 1;
            }
            distant.insert(region, rank);
            last = Some(distance);
        }
        Self { world, client, home: world.topology.cluster(&client.cluster), failover: failover.collect(), distant }
    }

    fn place(&self, site: &'a Site<'a>) -> Result<Place<'a>, OmittedBecause> {
        let policy = &self.world.policy.locality;
        let region = &site.locality.region;
        if policy.allowed_regions.as_ref().is_some_and(|allowed| !allowed.contains(region)) {
            return Err(OmittedBecause::RegionNotAllowed { region: region.clone() });
        }
        let weights = policy.cluster_weights.as_deref();
        let weighted = weights.map(|all| {
            let cluster = all.iter().find(|one| one.cluster == site.locality.cluster && one.weight > 0);
            cluster.map(|one| (f64::from(one.weight), all.iter().map(|one| f64::from(one.weight)).sum()))
        });
        if weighted == Some(None) {
            return Err(OmittedBecause::NotWeighted);
        }
        let route = self.route(site).ok_or(OmittedBecause::NoRoute)?;
        let locality = match route {
            Route::Direct => site.locality.clone(),
            Route::Gateway => Locality { zone: None, ..site.locality.clone() },
        };
        let (rank, group, weight, tier) = match weighted.flatten() {
            Some((weight, sum)) => {
                (ZONE, site.locality.cluster.as_str(), weight, Tier::Weighted { percent: percent(weight, sum) })
            }
            None => self.tier(&locality, region),
        };
        Ok(Place { rank, group, weight, seen: Seen { locality, tier, rank, route } })
    }

    /// Rank, group, the group's weight, and the tier's name.
    fn tier(&self, seen_as: &Locality, region: &'a RegionName) -> (Rank, &'a str, f64, Tier) {
        let client = self.client;
        let (rank, group, weight, tier) = if *region == client.region {
            let same_zone = client.zone.is_some() && seen_as.zone == client.zone;
            match (same_zone, seen_as.cluster == client.cluster) {
                (true, true) => (ZONE, "", 1.0, Tier::Zone),
                (true, false) => (ZONE_ELSEWHERE, "", 1.0, Tier::ZoneElsewhere),
                (false, _) => (REGION, "", 1.0, Tier::Region),
            }
        } else if let Some(target) = self.failover.iter().find(|to| to.region == *region) {
            let sum = self.failover.iter().map(|to| f64::from(to.weight)).sum();
            let weight = f64::from(target.weight);
            (FAILOVER, region.as_str(), weight, Tier::Failover { percent: percent(weight, sum) })
        } else {
            // A region that the topology does not know is behind all that it does.
            let rank = self.distant.get(region).copied().unwrap_or(Rank::MAX);
            (rank, "", 1.0, Tier::Distant)
        };
        match self.world.policy.locality.preference {
            Preference::Zone => (rank, group, weight, tier),
            Preference::Region => (rank.max(REGION), group, weight, tier),
            Preference::None => (REGION, "", 1.0, tier),
        }
    }

    fn route(&self, site: &Site<'_>) -> Option<Route> {
        if site.locality.cluster == self.client.cluster {
            return Some(Route::Direct);
        }
        let there = site.cluster?;
        match self.home {
            Some(home) if home.network == there.network => Some(Route::Direct),
            _ => (!there.gateways.is_empty()).then_some(Route::Gateway),
        }
    }
}

fn percent(weight: f64, sum: f64) -> u32 {
    (100.0 * weight / sum).round() as u32
}

/// What `explain` calls a rung.
pub(super) fn name(rank: Rank) -> &'static str {
    match rank {
        ZONE | ZONE_ELSEWHERE => "zone",
        REGION => "region",
        FAILOVER => "failover",
        _ => "distant",
    }
}
