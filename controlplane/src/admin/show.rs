//! Gathers what is asked: reads the stages' snapshots and makes answers of them. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use portolan_federation::model::{PolicyStanding, RemoteCluster, Role};
use portolan_federation::tls::CertificateStatus;
use portolan_topology::names::{ClusterName, ServiceId};
use portolan_topology::service::{EndpointCounts, LocalService, Port};
use portolan_topology::view::Liveness;
use tokio::time::Instant;

use super::Admin;
use super::model::{
    CertificateShown, ClientShown, Clients, ClusterExplained, ClusterShown, PolicyOfCluster, PolicyShown, ReadyOfTotal,
    ServiceShown, Services, Status, SubscriptionShown, TopologyShown,
};
use crate::catalog::Inputs;
use crate::xds::clients::{ClientState, SubscriptionState};
use crate::xds::protocol::holding::SyncState;

pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Admin {
    pub(super) fn status(&self) -> Status {
        let inputs = self.catalog.inputs();
        let standing = self.federation.policy().standing().borrow().clone();
        let mut source = self.source.status.borrow().as_ref().clone();
        for (kind, why) in self.forbidden.kinds().borrow().iter() {
            source.errors.entry(kind.clone()).or_insert_with(|| why.clone());
        }
        let gateways = self.gateways.borrow().clone();
        let silent = source.silent_since.map(|since| Timestamp::now().duration_since(since).as_secs());
        Status {
            cluster: self.cluster.clone(),
            node: self.node.clone(),
            nodes: self.federation.nodes(),
            version: VERSION.to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            not_ready: self.readiness.left().into_iter().map(str::to_owned).collect(),
            topology: TopologyShown {
                name: inputs.topology.name.clone(),
                hash: inputs.topology.short_hash(),
                file: self.topology_status.borrow().as_ref().clone(),
            },
            source,
            source_silent_seconds: silent.map(|seconds| u64::try_from(seconds).unwrap_or(0)),
            certificate: self.certificate(),
            addresses: self.addresses,
            xds_security: self.xds_security,
            plaintext_from: self.plaintext_from.iter().map(ToString::to_string).collect(),
            policy: PolicyShown {
                revision: standing.revision,
                group: standing.group,
                leader: standing.leader,
                voters: standing.reach.voters,
                answering: standing.reach.answering,
            },
            clusters: self.clusters(&inputs),
            duplicates: self.catalog.duplicates(),
            gateways: gateways.gateways.iter().map(|(name, status)| (name.to_string(), status.clone())).collect(),
            gateway_troubles: gateways.troubles(),
            clients: self.xds.clients().len(),
            clients_refusing: self.xds.clients().nacked(),
        }
    }

    fn certificate(&self) -> CertificateShown {
        let CertificateStatus { expires, error } = self.certificate.borrow().clone();
        let expires_in_seconds = expires.duration_since(Timestamp::now()).as_secs();
        CertificateShown { expires, expires_in_seconds, error }
    }

    /// Our own cluster first, then the topology's others in its order, then those that only their facts name.
    fn clusters(&self, inputs: &Inputs) -> Vec<ClusterShown> {
        let known: Vec<&ClusterName> = inputs.topology.clusters().map(|cluster| &cluster.name).collect();
        let others = known.iter().copied().filter(|name| **name != self.cluster);
        let strays = inputs.remote.clusters.keys().filter(|name| !known.contains(name) && **name != self.cluster);
        let others = others.chain(strays).map(|name| self.other_cluster(inputs, name));
        std::iter::once(self.own_cluster(inputs)).chain(others).collect()
    }

    fn own_cluster(&self, inputs: &Inputs) -> ClusterShown {
        let standing = self.federation.policy().standing().borrow().clone();
        let counts = inputs.local.services.values().map(|service| local_counts(service));
        let sum = counts.fold(ReadyOfTotal::default(), add);
        let place = inputs.topology.cluster(&self.cluster);
        ClusterShown {
            name: self.cluster.clone(),
            region: place.map(|cluster| cluster.region.clone()),
            zones: place.map(|cluster| cluster.zones.clone()).unwrap_or_default(),
            own: true,
            state: Liveness::Fresh,
            heard_ms: None,
            complete: inputs.local.synced,
            services: inputs.local.services.len(),
            ready: sum.ready,
            total: sum.total,
            utilization_percent: None,
            policy: standing
                .role
                .map(|role| PolicyOfCluster { revision: standing.revision, role: role_name(role).to_owned() }),
            topology: Some(inputs.topology.short_hash()),
            nacked: Some(self.federation.nacked()),
        }
    }

    fn other_cluster(&self, inputs: &Inputs, name: &ClusterName) -> ClusterShown {
        let remote = inputs.remote.clusters.get(name);
        let told = remote.into_iter().flat_map(|remote| remote.services.keys().map(|id| remote_counts(remote, id)));
        let sum = told.fold(ReadyOfTotal::default(), add);
        let hash = remote.and_then(|remote| remote.topology_hash);
        let place = inputs.topology.cluster(name);
        ClusterShown {
            name: name.clone(),
            region: place.map(|cluster| cluster.region.clone()),
            zones: place.map(|cluster| cluster.zones.clone()).unwrap_or_default(),
            own: false,
            state: remote.map_or(Liveness::Suspect, |remote| remote.liveness),
            // A fresh cluster was heard within seconds; the moment that stands here is as old as its last change.
            heard_ms: remote
                .filter(|remote| remote.liveness != Liveness::Fresh)
                .and_then(|remote| remote.heard)
                .map(milliseconds_since),
            complete: remote.is_some_and(|remote| remote.complete),
            services: remote.map_or(0, |remote| remote.services.len()),
            ready: sum.ready,
            total: sum.total,
            utilization_percent: remote.and_then(|remote| utilization(remote)),
            policy: remote.and_then(|remote| remote.policy).map(standing_shown),
            topology: hash.map(short),
            nacked: remote.and_then(|remote| remote.nacked),
        }
    }

    pub(super) fn explain_cluster(&self, name: &ClusterName) -> Option<ClusterExplained> {
        let inputs = self.catalog.inputs();
        let cluster = self.clusters(&inputs).into_iter().find(|cluster| cluster.name == *name)?;
        let services = if cluster.own {
            inputs.local.services.iter().map(|(id, service)| (id.clone(), local_counts(service))).collect()
        } else {
            let remote = inputs.remote.clusters.get(name);
            let told = remote.into_iter().flat_map(|remote| remote.services.keys().map(move |id| (remote, id)));
            told.map(|(remote, id)| (id.clone(), remote_counts(remote, id))).collect()
        };
        let lists = inputs.remote.lists.keys().filter(|(cluster, _)| cluster == name).count();
        let because = super::words::cluster(&cluster, &inputs.topology.short_hash());
        Some(ClusterExplained { cluster, from: self.cluster.clone(), services, lists, because })
    }

    pub(super) fn clients(&self) -> Clients {
        Clients { clients: self.xds.clients().snapshot().into_iter().map(client).collect() }
    }

    pub(super) fn services(&self) -> Services {
        let inputs = self.catalog.inputs();
        let mut services: BTreeMap<ServiceId, ServiceShown> = BTreeMap::new();
        let watched: BTreeSet<ServiceId> = self.catalog.watched();
        let mut add = |id: &ServiceId, ports: &[Port], cluster: &ClusterName, counts: ReadyOfTotal| {
            let shown = services.entry(id.clone()).or_insert_with(|| ServiceShown {
                service: id.clone(),
                ports: ports.to_vec(),
                clusters: BTreeMap::new(),
                watched: watched.contains(id),
                demand: demand(&inputs, id),
            });
            shown.clusters.insert(cluster.clone(), counts);
        };
        for (id, service) in &inputs.local.services {
            add(id, &service.ports, &self.cluster, local_counts(service));
        }
        for remote in inputs.remote.clusters.values().filter(|remote| remote.name != self.cluster) {
            for (id, service) in &remote.services {
                add(id, &service.ports, &remote.name, remote_counts(remote, id));
            }
        }
        Services { services: services.into_values().collect() }
    }
}

fn demand(inputs: &Inputs, id: &ServiceId) -> Option<f64> {
    let mut rates = inputs.demand.iter().filter(|((service, _), _)| service == id).map(|(_, rate)| *rate).peekable();
    rates.peek()?;
    Some(rates.sum())
}

fn local_counts(service: &LocalService) -> ReadyOfTotal {
    let first = service.ports.first().and_then(|port| service.endpoints.get(&port.number));
    let counts = first.into_iter().flat_map(|zones| zones.values()).map(|endpoints| EndpointCounts::of(endpoints));
    counts.map(ready_of_total).fold(ReadyOfTotal::default(), add)
}

fn remote_counts(remote: &RemoteCluster, id: &ServiceId) -> ReadyOfTotal {
    let zones = remote.services.get(id).into_iter().flat_map(|service| service.zones.values());
    zones.map(|fact| ready_of_total(fact.endpoints)).fold(ReadyOfTotal::default(), add)
}

fn ready_of_total(counts: EndpointCounts) -> ReadyOfTotal {
    ReadyOfTotal { ready: counts.ready.into(), total: counts.total.into() }
}

fn add(a: ReadyOfTotal, b: ReadyOfTotal) -> ReadyOfTotal {
    ReadyOfTotal { ready: a.ready + b.ready, total: a.total + b.total }
}

/// What a cluster's clients ask for against what its ready endpoints can serve, where it tells both.
fn utilization(remote: &RemoteCluster) -> Option<u32> {
    let facts = remote.services.values().flat_map(|service| service.zones.values());
    let capacity: f64 = facts.filter_map(|fact| fact.capacity).sum();
    let demand: f64 = remote.demand.values().sum();
    (capacity > 0.0 && !remote.demand.is_empty()).then(|| (100.0 * demand / capacity).round() as u32)
}

fn standing_shown(standing: PolicyStanding) -> PolicyOfCluster {
    PolicyOfCluster { revision: standing.revision, role: role_name(standing.role).to_owned() }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Voter => "voter",
        Role::Learner => "learner",
    }
}

/// As [`portolan_topology::topology::Topology::short_hash`] writes our own.
fn short(hash: u64) -> String {
    format!("{:04x}", hash >> 48)
}

fn milliseconds_since(at: Instant) -> u64 {
    u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn client(state: ClientState) -> ClientShown {
    let subscriptions = state.subscriptions.into_iter();
    ClientShown {
        stream: state.stream,
        node: state.node,
        user_agent: state.user_agent,
        version: state.version,
        address: state.address,
        identity: state.identity,
        locality: state.locality,
        connected_ms: state.connected_ms,
        subscriptions: subscriptions.map(|(kind, it)| (format!("{kind:?}").to_uppercase(), subscription(it))).collect(),
    }
}

fn subscription(state: SubscriptionState) -> SubscriptionShown {
    let word = match state.state {
        SyncState::NotSent => "NOT_SENT",
        SyncState::Synced => "SYNCED",
        SyncState::Stale => "STALE",
        SyncState::Nacked => "NACKED",
    };
    SubscriptionShown {
        names: state.names.iter().map(ToString::to_string).collect(),
        state: word.to_owned(),
        state_ms: state.state_ms,
        sent: state.sent.to_string(),
        accepted: state.accepted.to_string(),
        nack: state.nack.map(|nack| nack.to_string()),
        nack_ms: state.nack_ms,
    }
}
