//! Which ServiceImports, EndpointSlices and conditions there should be, from what every cluster exports. Pure.
//!
//! Of exports that contradict each other the older holds, as KEP-1645 has it; of two equally old ones that of the cluster
//! whose name comes first.

use std::collections::{BTreeMap, BTreeSet};

use portolan_federation::model::Remote;
use portolan_topology::names::{ClusterName, ServiceId, ServicePort};
use portolan_topology::service::{Endpoint, EndpointsByZone, Export, ExportedPort, Health, LocalServices};
use portolan_topology::topology::Topology;
use portolan_topology::view::Liveness;
use serde_json::{Value, json};

use super::super::mirror::Name;
use super::exports::Exports;
use super::{GROUP, MANAGED_BY, SERVICE_NAME, SLICE_MANAGED_BY, SOURCE_CLUSTER, US};

/// How many endpoints one slice holds, as Kubernetes' own controller does it.
const PER_SLICE: usize = 100;

/// What the plan is made from.
pub(super) struct Seen<'a> {
    pub(super) cluster: &'a ClusterName,
    pub(super) topology: &'a Topology,
    /// The namespaces that this cluster has: services of others are not imported.
    pub(super) namespaces: &'a BTreeSet<String>,
    pub(super) exports: &'a Exports,
    pub(super) local: &'a LocalServices,
    pub(super) remote: &'a Remote,
}

/// What there should be.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// ServiceImports, without status.
    pub(super) imports: BTreeMap<Name, Value>,
    /// The clusters of each import: its status.
    pub(super) clusters: BTreeMap<Name, Vec<ClusterName>>,
    /// EndpointSlices.
    pub(super) slices: BTreeMap<Name, Value>,
    /// What contradicts what, by service: for the `Conflict` condition of our own exports.
    pub(super) conflicts: BTreeMap<ServiceId, String>,
    /// Clusters of which it is not known what they have: what there is of them stays.
    pub(super) unknown: BTreeSet<ClusterName>,
    /// The lists of these are not here yet, or cannot be had: what there is of them stays, until more is known.
    pub(super) waiting: BTreeSet<(ClusterName, ServiceId)>,
}

/// One cluster's export of a service.
struct Exported<'a> {
    cluster: &'a ClusterName,
    export: &'a Export,
}

/// The lists that the plan needs.
pub(super) fn wanted(remote: &Remote, namespaces: &BTreeSet<String>) -> BTreeSet<ServicePort> {
    let services = remote.clusters.values().flat_map(|cluster| &cluster.services);
    let exported = services.filter(|(id, _)| namespaces.contains(id.namespace()));
    let ports = exported.filter_map(|(id, service)| Some((id, service.export.as_ref()?)));
    let ports = ports.flat_map(|(id, export)| export.ports.iter().map(move |port| (id, port.number)));
    ports.map(|(service, port)| ServicePort { service: service.clone(), port }).collect()
}

/// Makes the plan.
pub(super) fn plan(seen: &Seen<'_>) -> Plan {
    let mut plan = Plan { unknown: unknown(seen), ..Plan::default() };
    for (id, mut exported) in by_service(seen) {
        exported.sort_by_key(|it| (it.export.since, it.cluster));
        if let Some(conflict) = conflict(&exported) {
            plan.conflicts.insert(id.clone(), conflict);
        }
        let name = (id.namespace().to_owned(), id.name().to_owned());
        plan.imports.insert(name.clone(), import(id, &exported));
        let mut clusters: Vec<_> = exported.iter().map(|it| it.cluster.clone()).collect();
        clusters.sort();
        plan.clusters.insert(name, clusters);
        let ports = union(&exported);
        for exported in &exported {
            slices(seen, &mut plan, id, exported, &ports);
        }
    }
    plan
}

/// Of which clusters absence means nothing.
fn unknown(seen: &Seen<'_>) -> BTreeSet<ClusterName> {
    let known = |cluster: &ClusterName| {
        if cluster == seen.cluster {
            return seen.exports.synced && seen.local.synced;
        }
        let told = seen.remote.clusters.get(cluster);
        told.is_some_and(|told| told.complete || told.liveness == Liveness::Failed)
    };
    seen.topology.clusters().map(|cluster| &cluster.name).filter(|name| !known(name)).cloned().collect()
}

/// Everybody's exports, but of clusters that are dead or have left the topology.
fn by_service<'a>(seen: &Seen<'a>) -> BTreeMap<&'a ServiceId, Vec<Exported<'a>>> {
    let mut services: BTreeMap<&ServiceId, Vec<Exported<'_>>> = BTreeMap::new();
    let mut add = |cluster: &'a ClusterName, id: &'a ServiceId, export: &'a Export| {
        if seen.namespaces.contains(id.namespace()) {
            services.entry(id).or_default().push(Exported { cluster, export });
        }
    };
    for (id, export) in seen.exports.services.iter() {
        add(seen.cluster, id, export);
    }
    for (name, cluster) in &seen.remote.clusters {
        if name == seen.cluster || cluster.liveness == Liveness::Failed || seen.topology.cluster(name).is_none() {
            continue;
        }
        for (id, service) in &cluster.services {
            if let Some(export) = &service.export {
                add(name, id, export);
            }
        }
    }
    services
}

/// What the exports, oldest first, do not agree on.
fn conflict(exported: &[Exported<'_>]) -> Option<String> {
    let (oldest, younger) = exported.split_first()?;
    let mut said = Vec::new();
    for Exported { cluster, export } in younger {
        if export.headless != oldest.export.headless {
            said.push(format!("cluster {cluster} exports it as {}", kind(export)));
        }
        if export.affinity != oldest.export.affinity {
            said.push(format!("cluster {cluster} has another session affinity"));
        }
        for port in &export.ports {
            let same = exported.iter().take_while(|it| it.cluster != *cluster).flat_map(|it| &it.export.ports);
            let other = same.into_iter().find(|other| other.name == port.name && *other != port);
            if let Some(other) = other {
                let name = port.name.as_deref().unwrap_or("without a name");
                let (theirs, first) = (written(port), written(other));
                said.push(format!("the port {name} is {theirs} in cluster {cluster}, and {first} in an older export"));
            }
        }
    }
    let holds = format!("the export of cluster {} is the oldest and holds ({})", oldest.cluster, kind(oldest.export));
    (!said.is_empty()).then(|| format!("{}; {holds}", said.join("; ")))
}

fn kind(export: &Export) -> &'static str {
    if export.headless { "Headless" } else { "ClusterSetIP" }
}

fn written(port: &ExportedPort) -> String {
    let app = port.app_protocol.as_ref().map_or(String::new(), |app| format!(" ({app})"));
    format!("{}/{}{app}", port.number, port.protocol)
}

/// All ports, of one name that of the oldest export that has it.
fn union(exported: &[Exported<'_>]) -> Vec<ExportedPort> {
    let mut ports: Vec<ExportedPort> = Vec::new();
    for port in exported.iter().flat_map(|it| &it.export.ports) {
        if !ports.iter().any(|known| known.name == port.name) {
            ports.push(port.clone());
        }
    }
    ports
}

fn import(id: &ServiceId, exported: &[Exported<'_>]) -> Value {
    let oldest = exported.first().map(|it| it.export);
    let ports: Vec<Value> = union(exported).iter().map(|port| port_of(port, port.number)).collect();
    let mut spec = json!({"type": oldest.map_or("ClusterSetIP", kind), "ports": ports});
    if let Some(seconds) = oldest.and_then(|export| export.affinity) {
        spec["sessionAffinity"] = "ClientIP".into();
        spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": seconds}});
    }
    json!({
        "apiVersion": format!("{GROUP}/v1alpha1"),
        "kind": "ServiceImport",
        "metadata": {"name": id.name(), "namespace": id.namespace(), "labels": {MANAGED_BY: US}},
        "spec": spec,
    })
}

fn port_of(port: &ExportedPort, number: u16) -> Value {
    let mut written = json!({"port": number, "protocol": port.protocol});
    if let Some(name) = &port.name {
        written["name"] = name.as_str().into();
    }
    if let Some(app) = &port.app_protocol {
        written["appProtocol"] = app.as_str().into();
    }
    written
}

/// Adds a cluster's slices of a service. A port is the same everywhere by its name, whatever its number.
fn slices(seen: &Seen<'_>, plan: &mut Plan, id: &ServiceId, exported: &Exported<'_>, ports: &[ExportedPort]) {
    let cluster = exported.cluster;
    let network = |name: &ClusterName| seen.topology.cluster(name).map(|cluster| &cluster.network);
    if network(cluster) != network(seen.cluster) {
        // Its pods cannot be reached from here, and its gateways are no endpoints of the service.
        return;
    }
    for port in ports {
        // Endpoints are known of TCP ports alone.
        let same = |own: &&ExportedPort| own.name == port.name && own.protocol == "TCP" && port.protocol == "TCP";
        let Some(own) = exported.export.ports.iter().find(same) else { continue };
        let endpoints = if cluster == seen.cluster {
            seen.local.services.get(id).and_then(|service| service.endpoints.get(&own.number))
        } else {
            let list = seen.remote.lists.get(&(cluster.clone(), ServicePort { service: id.clone(), port: own.number }));
            list.map(|list| &list.endpoints)
        };
        let Some(endpoints) = endpoints else {
            plan.waiting.insert((cluster.clone(), id.clone()));
            continue;
        };
        for (group, members) in groups(endpoints) {
            for (number, members) in members.chunks(PER_SLICE).enumerate() {
                let name = slice_name(id, cluster, own.number, &group, number);
                let slice = slice(&name, id, cluster, port, &group, members);
                plan.slices.insert((id.namespace().to_owned(), name), slice);
            }
        }
    }
}

type Member<'a> = (&'a Endpoint, Option<&'a str>);

/// Endpoints that may share a slice: of one address family and one target port. Sorted by address.
fn groups(endpoints: &EndpointsByZone) -> BTreeMap<(bool, u16), Vec<Member<'_>>> {
    let mut groups: BTreeMap<(bool, u16), Vec<Member<'_>>> = BTreeMap::new();
    for (zone, endpoints) in endpoints {
        for endpoint in endpoints {
            let group = (endpoint.address.is_ipv6(), endpoint.address.port());
            groups.entry(group).or_default().push((endpoint, zone.as_ref().map(|zone| zone.as_str())));
        }
    }
    for members in groups.values_mut() {
        members.sort_by_key(|(endpoint, _)| endpoint.address);
        members.dedup_by_key(|(endpoint, _)| endpoint.address);
    }
    groups
}

/// The family of a group's addresses.
fn family(ipv6: bool) -> &'static str {
    if ipv6 { "IPv6" } else { "IPv4" }
}

/// A name that no other slice has: neither a service's name nor a cluster's has a dot, and a cluster's export has a
/// number once.
fn slice_name(id: &ServiceId, cluster: &ClusterName, port: u16, (ipv6, target): &(bool, u16), number: usize) -> String {
    format!("{}.{cluster}.{port}-{target}-{}-{number}", id.name(), family(*ipv6).to_lowercase())
}

fn slice(
    name: &str,
    id: &ServiceId,
    cluster: &ClusterName,
    port: &ExportedPort,
    (ipv6, target): &(bool, u16),
    members: &[Member<'_>],
) -> Value {
    let endpoints: Vec<Value> = members
        .iter()
        .map(|(endpoint, zone)| {
            let (ready, serving, terminating) = match endpoint.health {
                Health::Ready => (true, true, false),
                Health::NotReady => (false, false, false),
                Health::Draining => (false, true, true),
            };
            let mut written = json!({
                "addresses": [endpoint.address.ip().to_string()],
                "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
            });
            if let Some(zone) = zone {
                written["zone"] = (*zone).into();
            }
            written
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": id.namespace(),
            "labels": {SOURCE_CLUSTER: cluster.as_str(), SERVICE_NAME: id.name(), SLICE_MANAGED_BY: US},
        },
        "addressType": family(*ipv6),
        "ports": [port_of(port, *target)],
        "endpoints": endpoints,
    })
}

impl Plan {
    /// Whether everything is known of every cluster: before that, a writer removes nothing of what it finds.
    pub(super) fn knows_all(&self) -> bool {
        self.unknown.is_empty()
    }

    /// Whether an import that is ours, and that the plan does not have, may go.
    pub(super) fn may_remove_import(&self) -> bool {
        self.knows_all()
    }

    /// Whether a slice that is ours, and that the plan does not have, may go: not of a cluster of which nothing is known,
    /// and not while the list that would replace it is on its way.
    pub(super) fn may_remove_slice(&self, cluster: &str, service: &(String, String)) -> bool {
        let unknown = self.unknown.iter().any(|name| name.as_str() == cluster);
        let waits = |(name, id): &(ClusterName, ServiceId)| {
            name.as_str() == cluster && id.namespace() == service.0 && id.name() == service.1
        };
        !unknown && !self.waiting.iter().any(waits)
    }
}
