//! The ladder: for each zone and each cluster that spans it, the tiers that its clients' traffic climbs, in order.
//!
//! It is the planner's own answer for a service that runs everywhere alike, with no policy, so that what
//! `portolan topology check` prints is what clients are served.

use std::collections::BTreeMap;
use std::fmt;

use crate::duration::DurationText;
use crate::names::{ClusterName, Locality, RegionName, ServiceId};
use crate::plan::{Omitted, Route, Tier, target};
use crate::policy::EffectivePolicy;
use crate::service::EndpointCounts;
use crate::topology::{Distance, Topology};
use crate::view::{LocalityFacts, ServiceView};

/// The ladder of the clients in one place.
#[derive(Debug, Clone, PartialEq)]
pub struct Ladder {
    /// Where the clients are.
    pub client: Locality,
    /// The rungs, nearest first. A lower one is used when those above it have no room left.
    pub rungs: Vec<Rung>,
    /// Clusters that its clients cannot reach.
    pub omitted: Vec<Omitted>,
}

/// Places that are used together.
#[derive(Debug, Clone, PartialEq)]
pub struct Rung {
    /// What splits the rung's traffic: one part, or one for each failover region.
    pub parts: Vec<Part>,
}

/// A part of a rung.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its tier, with the percentage of a failover region.
    pub tier: Tier,
    /// Its region.
    pub region: RegionName,
    /// How far the region is.
    pub distance: Distance,
    /// Its places, and how each is reached; traffic splits over them by ready capacity.
    pub places: Vec<(Locality, Route)>,
}

/// All ladders of a topology, in the file's order.
#[must_use]
pub fn ladders(topology: &Topology) -> Vec<Ladder> {
    let Ok(service) = ServiceId::new("any", "any") else { return Vec::new() };
    let view = everywhere(topology, service);
    let mut ladders = Vec::new();
    for region in &topology.regions {
        for zone in &region.zones {
            for cluster in region.clusters.iter().filter(|cluster| cluster.zones.contains(zone)) {
                let client =
                    Locality { region: region.name.clone(), zone: Some(zone.clone()), cluster: cluster.name.clone() };
                ladders.push(Ladder::of(topology, &view, client));
            }
        }
    }
    ladders
}

/// A service with the same endpoints, all ready, in every zone of every cluster.
fn everywhere(topology: &Topology, service: ServiceId) -> ServiceView {
    let endpoints = EndpointCounts { total: 10, ready: 10, draining: 0, ready_weight: 10 };
    let facts = LocalityFacts { endpoints, ..LocalityFacts::default() };
    let localities = topology.clusters().flat_map(|cluster| {
        let place = |zone: &_| Locality {
            region: cluster.region.clone(),
            zone: Some(Clone::clone(zone)),
            cluster: cluster.name.clone(),
        };
        cluster.zones.iter().map(place)
    });
    ServiceView {
        service,
        localities: localities.map(|locality| (locality, facts.clone())).collect(),
        demand: BTreeMap::new(),
        liveness: BTreeMap::new(),
    }
}

impl Ladder {
    fn of(topology: &Topology, view: &ServiceView, client: Locality) -> Self {
        let plan = target(view, &client, topology, &EffectivePolicy::default());
        let rungs = plan.priorities.into_iter().map(|priority| {
            let mut parts: Vec<Part> = Vec::new();
            for planned in priority {
                let place = (planned.locality, planned.route);
                let region = place.0.region.clone();
                match parts.iter_mut().find(|part| part.tier == planned.tier && part.region == region) {
                    Some(part) => part.places.push(place),
                    None => {
                        let distance = topology.distance(&client.region, &region);
                        parts.push(Part { tier: planned.tier, region, distance, places: vec![place] });
                    }
                }
            }
            parts.sort_by_key(|part| match part.tier {
                Tier::Failover { percent } => (std::cmp::Reverse(percent), part.region.clone()),
                _ => (std::cmp::Reverse(0), part.region.clone()),
            });
            Rung { parts }
        });
        Self { rungs: rungs.collect(), omitted: plan.omitted, client }
    }
}

impl Part {
    fn label(&self) -> String {
        match self.tier {
            Tier::Zone => "own zone".to_owned(),
            Tier::ZoneElsewhere => "own zone, other clusters".to_owned(),
            Tier::Region => "own region".to_owned(),
            Tier::Failover { percent } => format!("failover {percent}%"),
            Tier::Distant => "the rest, by distance".to_owned(),
            Tier::Weighted { percent } => format!("weight {percent}%"),
        }
    }

    /// `us-east-1b/use1-a us-east-1b/use1-b`; of another region each cluster once.
    fn places(&self, client: &Locality) -> String {
        let via = |route: &Route| if *route == Route::Gateway { " (gateway)" } else { "" };
        if self.region == client.region {
            let place = |(locality, route): &(Locality, Route)| format!("{locality}{}", via(route));
            return self.places.iter().map(place).collect::<Vec<_>>().join(" ");
        }
        let mut clusters: Vec<(&ClusterName, &Route)> = Vec::new();
        for (locality, route) in &self.places {
            if !clusters.iter().any(|(cluster, _)| **cluster == locality.cluster) {
                clusters.push((&locality.cluster, route));
            }
        }
        let names: Vec<_> = clusters.into_iter().map(|(name, route)| format!("{name}{}", via(route))).collect();
        let far = match self.distance {
            Distance::Linked { cost, rtt } => format!("  rtt {} cost {cost}", DurationText(rtt)),
            Distance::Here | Distance::Unknown => String::new(),
        };
        format!("{}: {}{far}", self.region, names.join(" "))
    }
}

/// The ladder as a table: a head line, then a line for each part of each rung.
impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.client)?;
        for (number, rung) in (1..).zip(&self.rungs) {
            for (index, part) in rung.parts.iter().enumerate() {
                let number = if index == 0 { format!("{number}.") } else { String::new() };
                write!(f, "\n  {number:3} {:24}  {}", part.label(), part.places(&self.client))?;
            }
        }
        for omitted in &self.omitted {
            write!(f, "\n  !   {}: {}", omitted.cluster, omitted.because)?;
        }
        Ok(())
    }
}

/// What `portolan topology check` prints of a topology without mistakes: one line on the whole, then every ladder.
#[must_use]
pub fn chart(topology: &Topology) -> String {
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let voters: Vec<_> = topology.voters().iter().map(|cluster| cluster.name.to_string()).collect();
    let mut text = format!(
        "topology {} {}: {}, {}, {}; policy is kept by {}\n",
        topology.name,
        topology.short_hash(),
        count(topology.regions.len(), "region"),
        count(topology.regions.iter().map(|region| region.zones.len()).sum(), "zone"),
        count(topology.clusters().count(), "cluster"),
        voters.join(", "),
    );
    for ladder in ladders(topology) {
        text.push_str(&format!("\n{ladder}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../examples/three-regions/topology.yaml");

    fn topology(text: &str) -> Topology {
        Topology::parse("topology.yaml", text).unwrap_or_else(|refused| panic!("{refused}")).0
    }

    fn ladder(text: &str, client: &str) -> String {
        let ladders = ladders(&topology(text));
        ladders.iter().find(|ladder| ladder.client.to_string() == client).unwrap().to_string()
    }

    #[test]
    fn the_example_s_chart() {
        insta::assert_snapshot!(chart(&topology(EXAMPLE)));
    }

    #[test]
    fn a_region_without_failover_goes_by_distance() {
        let text = EXAMPLE.replace("    us-east: [{region: us-west, weight: 70}, {region: eu-west, weight: 30}]\n", "");
        let ladder = ladder(&text, "us-east-1a/use1-a");
        let rest: Vec<_> = ladder.lines().skip(3).collect();
        assert_eq!(
            rest,
            [
                "  3.  the rest, by distance     us-west: usw2-a usw2-b  rtt 62ms cost 2",
                "  4.  the rest, by distance     eu-west: euw1-a euw1-b  rtt 76ms cost 3",
            ]
        );
    }

    #[test]
    fn another_network_is_reached_through_gateways_or_not_at_all() {
        let text = EXAMPLE
            .replacen(
                "usw2-a\n          zones: [us-west-2a, us-west-2b]\n          network: backbone",
                "usw2-a\n          network: west\n          gateways: [gw.example.com:15443]",
                1,
            )
            .replacen(
                "usw2-b\n          zones: [us-west-2b, us-west-2c]\n          network: backbone",
                "usw2-b\n          network: west",
                1,
            );
        let ladder = ladder(&text, "us-east-1a/use1-a");
        assert!(ladder.contains("failover 70%              us-west: usw2-a (gateway)  rtt"), "{ladder}");
        assert!(ladder.ends_with("  !   usw2-b: no route: it is on another network and has no gateway"), "{ladder}");
    }

    #[test]
    fn every_zone_of_every_cluster_has_a_ladder_to_every_place() {
        let topology = topology(EXAMPLE);
        let ladders = ladders(&topology);
        assert_eq!(ladders.len(), 12);
        for ladder in &ladders {
            let places = ladder.rungs.iter().flat_map(|rung| &rung.parts).flat_map(|part| &part.places);
            assert_eq!(places.count(), 12, "{ladder}");
            assert_eq!(ladder.rungs[0].parts[0].places, [(ladder.client.clone(), Route::Direct)]);
        }
    }
}
