//! Every rule of the topology file. What breaks one is told and left out, so that one run finds every mistake.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::file::{API_VERSION, ClusterEntry, ControlPlaneEntry, FailoverEntry, File, LinkEntry, RegionEntry};
use super::{Cluster, ControlPlane, DEFAULT_PEER_PORT, Link, Region, Topology, WeightedRegion};
use crate::address::HostPort;
use crate::diagnostic::{Report, Span, one_of};
use crate::document::{List, Spanned};
use crate::names::{ClusterName, NetworkName, RegionName, ZoneName, check_subdomain};

/// The checks of one file, and where its names first stood.
pub(super) struct Checks<'a> {
    report: &'a mut Report,
    regions: HashMap<RegionName, Span>,
    zones: HashMap<ZoneName, (RegionName, Span)>,
    clusters: HashMap<ClusterName, Span>,
    addresses: HashMap<(String, u16), Span>,
}

impl<'a> Checks<'a> {
    pub(super) fn new(report: &'a mut Report) -> Self {
        Self {
            report,
            regions: HashMap::new(),
            zones: HashMap::new(),
            clusters: HashMap::new(),
            addresses: HashMap::new(),
        }
    }

    pub(super) fn topology(mut self, file: File) -> Topology {
        for (field, given, known) in [("apiVersion", &file.api_version, API_VERSION), ("kind", &file.kind, "Topology")]
        {
            if given.value != known {
                self.report
                    .error(given.span, format!("`{field}` is `{}`", given.value))
                    .expected(format!("`{known}`"))
                    .nearest(&given.value, [known]);
            }
        }
        if let Err(error) = check_subdomain("topology", &file.metadata.name) {
            self.report.error(file.metadata.name.span, error.to_string());
        }
        let place = file.spec.regions.span;
        let regions = self.regions(file.spec.regions);
        let links = self.links(&regions, file.spec.links);
        let failover = self.failover(&regions, file.spec.failover);
        let mut topology = Topology { name: file.metadata.name.value, regions, links, failover, hash: 0 };
        topology.hash = topology.content_hash();
        self.voters(&topology, place);
        self.advice(&topology);
        topology
    }

    fn regions(&mut self, entries: Spanned<List<RegionEntry>>) -> Vec<Region> {
        if entries.is_empty() {
            self.report.error(entries.span, "the topology has no regions").expected("at least one");
        }
        // All zones first: a cluster's mistake can then say where the zone really is.
        for region in entries.iter() {
            if let Some(first) = self.regions.insert(region.name.value.clone(), region.name.span) {
                self.twice("region", region.name.as_str(), region.name.span, first);
            }
            if region.zones.is_empty() {
                let message = format!("region `{}` has no zones", *region.name);
                self.report.error(region.zones.span, message).expected("at least one");
            }
            for zone in region.zones.iter() {
                self.zone(&region.name, zone);
            }
            if region.clusters.is_empty() {
                let message = format!("region `{}` has no clusters", *region.name);
                self.report.error(region.clusters.span, message).expected("at least one");
            }
        }
        entries.value.into_iter().map(|entry| self.region(entry)).collect()
    }

    fn zone(&mut self, region: &RegionName, zone: &Spanned<ZoneName>) {
        match self.zones.get(&zone.value).cloned() {
            None => {
                self.zones.insert(zone.value.clone(), (region.clone(), zone.span));
            }
            Some((other, first)) if other == *region => self.twice("zone", zone.as_str(), zone.span, first),
            Some((other, first)) => {
                let message = format!(
                    "zone `{}` is already in region `{other}` (line {}): a zone is in one region",
                    zone.value, first.line
                );
                self.report.error(zone.span, message);
            }
        }
    }

    fn region(&mut self, entry: RegionEntry) -> Region {
        let zones = entry.zones.value.into_iter().map(|zone| zone.value).collect();
        let mut region = Region { name: entry.name.value, zones, clusters: Vec::new() };
        region.clusters = entry.clusters.value.into_iter().map(|cluster| self.cluster(&region, cluster)).collect();
        region
    }

    fn cluster(&mut self, region: &Region, entry: ClusterEntry) -> Cluster {
        if let Some(first) = self.clusters.insert(entry.name.value.clone(), entry.name.span) {
            self.twice("cluster", entry.name.as_str(), entry.name.span, first);
        }
        let zones = match entry.zones {
            None => region.zones.clone(),
            Some(zones) => self.cluster_zones(region, zones),
        };
        let mut gateways = Vec::new();
        for gateway in entry.gateways {
            match gateway.parse::<HostPort>() {
                Ok(address) => gateways.push(address.to_string()),
                Err(error) => {
                    self.report.error(gateway.span, format!("gateway `{}`: {error}", gateway.value));
                }
            }
        }
        Cluster {
            name: entry.name.value,
            region: region.name.clone(),
            zones,
            network: entry.network.unwrap_or_else(NetworkName::default_network),
            gateways,
            control_plane: self.control_plane(&entry.control_plane),
        }
    }

    fn control_plane(&mut self, entry: &ControlPlaneEntry) -> ControlPlane {
        let ControlPlaneEntry { address, voter, config } = entry;
        let (voter, config) = (*voter, *config);
        match HostPort::parse(address, Some(DEFAULT_PEER_PORT)) {
            Ok(HostPort { host, port }) => {
                if let Some(first) = self.addresses.insert((host.clone(), port), address.span) {
                    self.twice("control plane address", address, address.span, first);
                }
                ControlPlane { host, port, voter, config }
            }
            Err(error) => {
                self.report.error(address.span, format!("control plane address `{}`: {error}", address.value));
                ControlPlane { host: address.value.clone(), port: DEFAULT_PEER_PORT, voter, config }
            }
        }
    }

    fn cluster_zones(&mut self, region: &Region, entries: Spanned<List<Spanned<String>>>) -> Vec<ZoneName> {
        if entries.is_empty() {
            let expected = "at least one, or no `zones` at all for every zone of the region";
            self.report.error(entries.span, "the cluster has no zones").expected(expected);
        }
        let mut zones: Vec<ZoneName> = Vec::new();
        for entry in entries.value {
            match region.zones.iter().find(|zone| zone.as_str() == entry.value) {
                Some(zone) if zones.contains(zone) => {
                    self.report.error(entry.span, format!("zone `{zone}` stands here twice"));
                }
                Some(zone) => zones.push(zone.clone()),
                None => {
                    let home = self.zones.iter().find(|(zone, _)| zone.as_str() == entry.value).map(|(_, home)| home);
                    let message = match home {
                        Some((home, _)) => {
                            format!("zone `{}` is in region `{home}`, the cluster in `{}`", entry.value, region.name)
                        }
                        None => format!("region `{}` has no zone `{}`", region.name, entry.value),
                    };
                    let known = || region.zones.iter().map(ZoneName::as_str);
                    self.report.error(entry.span, message).expected(one_of(known())).nearest(&entry.value, known());
                }
            }
        }
        zones
    }

    fn links(&mut self, regions: &[Region], entries: List<LinkEntry>) -> Vec<Link> {
        let mut links = Vec::new();
        let mut directions: HashMap<(RegionName, RegionName), Span> = HashMap::new();
        for entry in entries {
            if let Some(cost) = entry.cost
                && !(cost.is_finite() && *cost >= 0.0)
            {
                self.report.error(cost.span, format!("the cost is {}", *cost)).expected("0 or more");
            }
            let place = entry.between.span;
            let [from, to] = &entry.between.value;
            let (from, to) = (self.known_region(regions, from), self.known_region(regions, to));
            let (Some(from), Some(to)) = (from, to) else { continue };
            if from == to {
                self.report.error(place, format!("a link of `{from}` with itself"));
                continue;
            }
            let symmetric = entry.symmetric.unwrap_or(true);
            let back = symmetric.then(|| (to.clone(), from.clone()));
            for direction in std::iter::once((from.clone(), to.clone())).chain(back) {
                if let Some(first) = directions.insert(direction, place)
                    && first != place
                {
                    self.twice("the link between", &format!("{from}` and `{to}"), place, first);
                    break;
                }
            }
            let cost = entry.cost.map_or(1.0, |cost| cost.value);
            links.push(Link { between: [from, to], symmetric, rtt: entry.rtt.0, cost });
        }
        links
    }

    fn failover(
        &mut self,
        regions: &[Region],
        entries: BTreeMap<Spanned<String>, Spanned<List<FailoverEntry>>>,
    ) -> BTreeMap<RegionName, Vec<WeightedRegion>> {
        let mut failover = BTreeMap::new();
        for (from, targets) in entries {
            let home = self.known_region(regions, &from);
            if targets.iter().all(|target| target.weight == 0) {
                let message = format!("`{}` fails over to nothing: every weight is zero", from.value);
                self.report.error(targets.span, message).expected("a target with a weight above 0");
            }
            let mut weighted: Vec<WeightedRegion> = Vec::new();
            for FailoverEntry { region: given, weight } in targets.value {
                let Some(region) = self.known_region(regions, &given) else { continue };
                if home.as_ref() == Some(&region) {
                    self.report.error(given.span, format!("region `{region}` fails over to itself"));
                } else if weighted.iter().any(|target| target.region == region) {
                    self.report.error(given.span, format!("region `{region}` stands here twice"));
                }
                weighted.push(WeightedRegion { region, weight });
            }
            if let Some(home) = home {
                failover.insert(home, weighted);
            }
        }
        failover
    }

    fn voters(&mut self, topology: &Topology, place: Span) {
        let voters = topology.voters();
        let count = voters.len();
        if count == 0 {
            if topology.clusters().next().is_some() {
                let message = "no cluster votes on policy";
                self.report.error(place, message).expected("`voter: true` on at least one, better on three");
            }
            return;
        }
        if count.is_multiple_of(2) {
            let message = format!("an even number of voters: {count} survive no more losses than {}", count - 1);
            self.report.warning(place, message);
        }
        for region in topology.regions.iter().filter(|_| topology.regions.len() > 1) {
            let here = voters.iter().filter(|cluster| cluster.region == region.name).count();
            if here * 2 > count {
                let message = format!(
                    "{here} of {count} voters are in region `{}`: while it is lost, policy cannot be written",
                    region.name
                );
                self.report.warning(self.regions.get(&region.name).copied().unwrap_or(place), message);
            }
        }
    }

    /// What is allowed, and probably not meant.
    fn advice(&mut self, topology: &Topology) {
        for region in &topology.regions {
            let place = self.regions.get(&region.name).copied().unwrap_or_default();
            if topology.regions.len() > 1 && !topology.failover.contains_key(&region.name) {
                let message = format!("region `{}` has no failover: its traffic goes by distance", region.name);
                self.report.warning(place, message);
            }
            for zone in &region.zones {
                if !region.clusters.iter().any(|cluster| cluster.zones.contains(zone)) {
                    self.report.warning(place, format!("no cluster spans zone `{zone}`"));
                }
            }
        }
        let networks: BTreeSet<_> = topology.clusters().map(|cluster| &cluster.network).collect();
        for cluster in topology.clusters().filter(|cluster| networks.len() > 1 && cluster.gateways.is_empty()) {
            let message = format!(
                "cluster `{}` has no gateways: there is no route to it from networks other than `{}`",
                cluster.name, cluster.network
            );
            self.report.warning(self.clusters.get(&cluster.name).copied().unwrap_or_default(), message);
        }
    }

    /// A region that the file refers to; told if it does not exist.
    fn known_region(&mut self, regions: &[Region], given: &Spanned<String>) -> Option<RegionName> {
        let found = regions.iter().find(|region| region.name.as_str() == given.value);
        if found.is_none() {
            let known = || regions.iter().map(|region| region.name.as_str());
            let message = format!("unknown region `{}`", given.value);
            self.report.error(given.span, message).expected(one_of(known())).nearest(&given.value, known());
        }
        found.map(|region| region.name.clone())
    }

    fn twice(&mut self, what: &str, name: &str, again: Span, first: Span) {
        self.report.error(again, format!("{what} `{name}` stands here again; first in line {}", first.line));
    }
}
