//! What people see: answers of the admin interface as tables. Pure, so that each has a golden test.

use portolan_federation::model::NodeShown;
use portolan_topology::plan::{Carries, Plan, PlannedLocality, Reason, Tier};
use portolan_topology::service::Health;
use portolan_topology::view::Liveness;

use super::format::table;
use crate::admin::model::{
    Clients, ClusterExplained, ClusterShown, Endpoints, Explained, ReadyOfTotal, Services, Status,
};
use crate::admin::words::{age, state};
use crate::gateway::conditions::{Condition, Trouble};

/// A certificate that is not renewed this many seconds before its end needs somebody.
const EXPIRES_SOON: i64 = 3 * 24 * 3600;

/// What a cell shows that has nothing to show.
const NONE: &str = "–";

pub(super) fn status(status: &Status, wide: bool) -> String {
    let mut header = vec!["CLUSTER", "REGION", "STATE", "HEARD", "READY", "UTIL", "POLICY", "TOPOLOGY"];
    if wide {
        header.extend(["SERVICES", "COMPLETE", "NACKED"]);
    }
    let rows: Vec<_> = status.clusters.iter().map(|cluster| cluster_row(cluster, wide)).collect();
    let mut text = table(&header, &rows);
    if status.nodes.len() > 1 {
        text.push('\n');
        text.push_str(&table(
            &["NODE", "ROLE", "ANSWERS", "ADDRESS"],
            &status.nodes.iter().map(node_row).collect::<Vec<_>>(),
        ));
    }
    for note in notes(status) {
        text.push_str(&format!("! {note}\n"));
    }
    if wide {
        text.push_str(&details(status));
    }
    text
}

fn cluster_row(cluster: &ClusterShown, wide: bool) -> Vec<String> {
    let policy = cluster.policy.as_ref().map_or(NONE.to_owned(), |policy| match policy.role.as_str() {
        "leader" => format!("r{} leader", policy.revision),
        role if wide => format!("r{} {role}", policy.revision),
        _ => format!("r{}", policy.revision),
    });
    let mut row = vec![
        if cluster.own { format!("{} *", cluster.name) } else { cluster.name.to_string() },
        cluster.region.as_ref().map_or(NONE.to_owned(), ToString::to_string),
        state(cluster.state).to_owned(),
        cluster.heard_ms.map_or(NONE.to_owned(), age),
        format!("{}/{}", cluster.ready, cluster.total),
        cluster.utilization_percent.map_or(NONE.to_owned(), |percent| format!("{percent}%")),
        policy,
        cluster.topology.clone().unwrap_or_else(|| NONE.to_owned()),
    ];
    if wide {
        row.extend([
            cluster.services.to_string(),
            if cluster.complete { "yes" } else { "no" }.to_owned(),
            cluster.nacked.map_or(NONE.to_owned(), |clients| clients.to_string()),
        ]);
    }
    row
}

/// What is to be done about the control plane's own certificate.
fn certificate(status: &Status) -> Vec<String> {
    let own = &status.certificate;
    let in_force = own.error.iter().map(|error| format!("{}; the certificate in force stays", first_line(error)));
    let away = age(own.expires_in_seconds.unsigned_abs().saturating_mul(1_000));
    let when = match own.expires_in_seconds {
        ..0 => Some(format!("the certificate of {} expired {away} ago", status.cluster)),
        0..EXPIRES_SOON => Some(format!("the certificate of {} expires in {away}", status.cluster)),
        _ => None,
    };
    in_force.chain(when).collect()
}

fn node_row(node: &NodeShown) -> Vec<String> {
    let role = match (node.publisher, node.seat) {
        (true, true) => "publisher, seat",
        (true, false) => "publisher",
        (false, true) => "seat",
        (false, false) => "follower",
    };
    vec![
        if node.own { format!("{} *", node.name) } else { node.name.to_string() },
        role.to_owned(),
        if node.reachable { "yes" } else { "no" }.to_owned(),
        node.address.clone(),
    ]
}

/// What needs attention among the nodes of our own cluster.
fn node_notes(nodes: &[NodeShown]) -> Vec<String> {
    let mut notes = Vec::new();
    for node in nodes.iter().filter(|node| !node.reachable) {
        let seat = if node.seat { "; policy is read-only here until it is back" } else { "" };
        notes.push(format!("node {} does not answer{seat}", node.name));
    }
    match nodes.iter().filter(|node| node.publisher).count() {
        0 if !nodes.is_empty() => {
            notes.push("no node of this cluster publishes: the other clusters hear nothing new of it".to_owned())
        }
        0 | 1 => {}
        // For a moment at a handover, or cut off from each other: the others believe the newest.
        _ => notes.push("several nodes of this cluster publish; the newest is believed".to_owned()),
    }
    notes
}

/// What needs somebody's attention.
fn notes(status: &Status) -> Vec<String> {
    let mut notes = Vec::new();
    for cluster in status.clusters.iter().filter(|cluster| !cluster.own) {
        let silent = match cluster.heard_ms {
            Some(ago) => format!("nothing heard for {}", age(ago)),
            None => "not heard since this control plane started".to_owned(),
        };
        let used = match cluster.state {
            Liveness::Fresh => None,
            Liveness::Suspect | Liveness::Stale => Some(format!("{silent}; its endpoints are still used")),
            Liveness::Failed => Some(format!("{silent}, and its endpoints do not answer; it gets no traffic")),
            Liveness::Isolated => Some(format!("{silent}; it is probably we who are cut off")),
        };
        if let Some(used) = used {
            notes.push(format!("{}: {used}. Next: portolan explain cluster={}", cluster.name, cluster.name));
        }
        if cluster.topology.as_ref().is_some_and(|theirs| *theirs != status.topology.hash) {
            notes.push(format!("{}: it runs another topology than we do", cluster.name));
        }
    }
    for cluster in &status.clusters {
        // Those of the control plane that answers are told apart, below.
        let here = if cluster.own { status.clients_refusing } else { 0 };
        if let Some(refusing) = cluster.nacked.filter(|refusing| *refusing > here) {
            notes.push(format!("{}: {refusing} of its clients refuse what they were sent", cluster.name));
        }
    }
    notes.extend(node_notes(&status.nodes));
    for task in &status.not_ready {
        notes.push(format!("not ready: {task}"));
    }
    let topology = &status.topology.file;
    notes.extend(
        topology
            .error
            .iter()
            .map(|error| format!("the topology file is refused, an older one is in force: {}", first_line(error))),
    );
    notes.extend(topology.warnings.iter().map(|warning| first_line(warning).to_owned()));
    notes.extend(status.source_silent_seconds.map(|seconds| {
        let away = age(seconds.saturating_mul(1_000));
        format!("{}: not everything can be seen for {away}; what was seen last stands", status.source.source)
    }));
    notes.extend(
        status.source.errors.values().map(|error| format!("{}; its last good content stands", first_line(error))),
    );
    notes.extend(status.source.warnings.iter().map(|(file, warning)| format!("{file}: {}", first_line(warning))));
    notes.extend(certificate(status));
    if !status.plaintext_from.is_empty() {
        let (at, from) = (status.addresses.xds_plaintext, status.plaintext_from.join(", "));
        let at = at.map_or(String::new(), |at| format!(" at {at}"));
        notes.push(format!("xDS is served in plain text{at} to {from}"));
    }
    for (service, duplicates) in &status.duplicates {
        for duplicate in duplicates {
            notes.push(format!(
                "{service}: {} stands in {} and {}; {} keeps it",
                duplicate.address, duplicate.kept, duplicate.dropped, duplicate.kept
            ));
        }
    }
    for Trouble { object, condition } in &status.gateway_troubles {
        let Condition { r#type, reason, message, .. } = condition;
        notes.push(format!("{object}: {type} {}, {reason}: {message}", if condition.status { "yes" } else { "no" }));
    }
    if status.clients_refusing > 0 {
        notes.push(format!(
            "{} of {} clients refuse what they were sent. Next: portolan clients",
            status.clients_refusing, status.clients
        ));
    }
    let policy = &status.policy;
    if policy.group.is_some() && policy.leader.is_none() {
        notes.push(format!(
            "policy is read-only: no leader is known, {} of {} voters answer",
            policy.answering, policy.voters
        ));
    }
    notes
}

/// A diagnostic without the excerpt that follows it.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text)
}

fn details(status: &Status) -> String {
    let group = status.policy.group.as_deref().unwrap_or(NONE);
    let leader = status.policy.leader.as_deref().unwrap_or(NONE);
    let addresses = &status.addresses;
    format!(
        "\ncontrol plane  {}/{} {}, up {}\nsource         {}\ntopology       {} {}\npolicy         r{}, leader {leader}, group {group}, {} of {} voters answer\nlistens        xds {}, peers {}, admin {}, metrics {}\nclients        {}\n",
        status.cluster,
        status.node,
        status.version,
        age(status.uptime_seconds.saturating_mul(1000)),
        status.source.source,
        status.topology.name,
        status.topology.hash,
        status.policy.revision,
        status.policy.answering,
        status.policy.voters,
        addresses.xds,
        addresses.peers,
        addresses.admin,
        addresses.metrics,
        status.clients,
    )
}

pub(super) fn clients(clients: &Clients, wide: bool) -> String {
    // Only gateways have secrets.
    let secrets = clients.clients.iter().any(|client| client.subscriptions.contains_key("SDS"));
    let mut types = vec!["LDS", "RDS", "CDS", "EDS"];
    types.extend(secrets.then_some("SDS"));
    let mut header = [&["CLIENT", "AGENT", "LOCALITY", "CONNECTED"], &types[..]].concat();
    if wide {
        header.extend(["ADDRESS", "IDENTITY", "NAMES"]);
    }
    let mut nacks = String::new();
    let mut rows = Vec::new();
    for client in &clients.clients {
        let name = if client.node.is_empty() { format!("stream {}", client.stream) } else { client.node.clone() };
        let state = |kind: &str| {
            client.subscriptions.get(kind).map_or(NONE.to_owned(), |it| format!("{} {}", it.state, age(it.state_ms)))
        };
        let agent = format!("{} {}", client.user_agent, client.version).trim().to_owned();
        let mut row = vec![name.clone(), agent, client.locality.to_string(), age(client.connected_ms)];
        row.extend(types.iter().map(|kind| state(kind)));
        if wide {
            row.push(client.address.clone().unwrap_or_else(|| NONE.to_owned()));
            row.push(client.identity.clone().unwrap_or_else(|| NONE.to_owned()));
            let mut names: Vec<_> = client.subscriptions.values().flat_map(|it| &it.names).cloned().collect();
            names.sort();
            names.dedup();
            row.push(names.join(","));
        }
        rows.push(row);
        for (kind, subscription) in &client.subscriptions {
            if let Some(nack) = &subscription.nack {
                let ago = subscription.nack_ms.map_or(String::new(), |ago| format!(" {} ago", age(ago)));
                nacks.push_str(&format!("! {name} refused {kind}{ago}: {nack}\n"));
            }
        }
    }
    table(&header, &rows) + &nacks
}

pub(super) fn services(services: &Services, wide: bool) -> String {
    let header = ["SERVICE", "PORTS", "READY", "CLUSTERS", "DEMAND", "WATCHED"];
    let rows: Vec<_> = services
        .services
        .iter()
        .map(|service| {
            let sum = service.clusters.values().fold((0, 0), |sum, it| (sum.0 + it.ready, sum.1 + it.total));
            let ports = service.ports.iter().map(|port| match &port.name {
                Some(name) => format!("{name}:{}", port.number),
                None => port.number.to_string(),
            });
            let each = service.clusters.iter().map(|(cluster, counts)| match wide {
                true => format!("{cluster} {}", of(counts)),
                false => cluster.to_string(),
            });
            vec![
                service.service.to_string(),
                ports.collect::<Vec<_>>().join(","),
                format!("{}/{}", sum.0, sum.1),
                each.collect::<Vec<_>>().join(", "),
                service.demand.map_or(NONE.to_owned(), |rate| format!("{rate:.0} rps")),
                if service.watched { "yes" } else { "no" }.to_owned(),
            ]
        })
        .collect();
    table(&header, &rows)
}

fn of(counts: &ReadyOfTotal) -> String {
    format!("{}/{}", counts.ready, counts.total)
}

pub(super) fn endpoints(endpoints: &Endpoints, _wide: bool) -> String {
    let rows: Vec<_> = endpoints
        .localities
        .iter()
        .flat_map(|of| {
            of.endpoints.iter().map(|endpoint| {
                let health = match endpoint.health {
                    Health::Ready => "ready",
                    Health::NotReady => "not ready",
                    Health::Draining => "draining",
                };
                vec![
                    of.locality.to_string(),
                    endpoint.address.to_string(),
                    health.to_owned(),
                    endpoint.weight.to_string(),
                ]
            })
        })
        .collect();
    let mut text = table(&["LOCALITY", "ADDRESS", "HEALTH", "WEIGHT"], &rows);
    for locality in &endpoints.waiting {
        text.push_str(&format!(
            "! {locality}: it has endpoints, but their list is not here: no client here asks for it\n"
        ));
    }
    text
}

pub(super) fn explain(explained: &Explained, wide: bool) -> String {
    let mut header = vec!["TIER", "LOCALITY", "READY", "CARRIES", "SHARE", "BECAUSE"];
    if wide {
        header.splice(5..5, ["PRIORITY", "WEIGHT"]);
    }
    let plan = &explained.plan;
    let mut rows = Vec::new();
    for planned in plan.by_tier() {
        let mut row = vec![
            tier(&planned.tier),
            planned.locality.to_string(),
            format!("{}/{}", planned.ready, planned.total),
            carries(planned),
            percent(planned.share),
        ];
        if wide {
            let priority = plan.priorities.iter().position(|all| all.iter().any(|it| it.locality == planned.locality));
            row.push(priority.map_or(NONE.to_owned(), |priority| priority.to_string()));
            row.push(planned.weight.to_string());
        }
        row.push(because(planned, plan));
        rows.push(row);
    }
    let mut text = table(&header, &rows);
    for omitted in &plan.omitted {
        text.push_str(&format!("! {}: {}\n", omitted.cluster, omitted.because));
    }
    for locality in &explained.waiting {
        text.push_str(&format!("! {locality}: it has endpoints, but their list has not arrived yet\n"));
    }
    for duplicate in &explained.duplicates {
        text.push_str(&format!(
            "! {} stands in {} and {}; {} keeps it\n",
            duplicate.address, duplicate.kept, duplicate.dropped, duplicate.kept
        ));
    }
    if explained.routes > 0 {
        let service = &explained.service;
        let routes = match explained.routes {
            1 => "1 route (HTTPRoute, GRPCRoute) decides".to_owned(),
            more => format!("{more} routes (HTTPRoute, GRPCRoute) decide"),
        };
        text.push_str(&format!(
            "! {routes} where calls to {service} go: this is what becomes of those that come here\n"
        ));
    }
    if !explained.watched {
        text.push_str("! no client there asks this control plane for it: this is what one would get\n");
    }
    text
}

fn tier(tier: &Tier) -> String {
    match tier {
        Tier::Zone => "zone".to_owned(),
        Tier::ZoneElsewhere => "zone, elsewhere".to_owned(),
        Tier::Region => "region".to_owned(),
        Tier::Failover { percent } => format!("failover {percent}%"),
        Tier::Distant => "distant".to_owned(),
        Tier::Weighted { percent } => format!("weight {percent}%"),
    }
}

/// A tier as a clause names it.
fn tier_word(tier: &Tier) -> &'static str {
    match tier {
        Tier::Zone | Tier::ZoneElsewhere => "zone",
        Tier::Region => "region",
        Tier::Failover { .. } => "failover",
        Tier::Distant => "rest",
        Tier::Weighted { .. } => "others",
    }
}

fn carries(planned: &PlannedLocality) -> String {
    match planned.carries {
        Carries::RequestsPerSecond(rate) if rate > 0.0 => format!("{rate:.0} rps"),
        Carries::FractionOfLoad(fraction) if planned.share > 0.0 || fraction < 1.0 => percent(fraction),
        Carries::RequestsPerSecond(_) | Carries::FractionOfLoad(_) => NONE.to_owned(),
    }
}

/// A fraction as a percentage, with one decimal where it is not whole.
fn percent(fraction: f64) -> String {
    let percent = 100.0 * fraction;
    if (percent - percent.round()).abs() < 0.05 { format!("{percent:.0}%") } else { format!("{percent:.1}%") }
}

fn because(planned: &PlannedLocality, plan: &Plan) -> String {
    match &planned.because {
        Reason::Nearest => "nearest, and everything fits".to_owned(),
        Reason::Full { demand: Some(demand), target_utilization_percent: Some(target) } => {
            format!("full: demand {demand:.0} rps, target {target}%")
        }
        Reason::Full { .. } => format!("full: {} of {} ready", planned.ready, planned.total),
        Reason::TakesExcess => match full_before(planned, plan) {
            Some(tier) => format!("takes what the {tier} cannot"),
            None => "takes what nearer tiers cannot".to_owned(),
        },
        Reason::NearerHasRoom { tier } => format!("{tier} has room"),
        Reason::ByWeight => "by weight".to_owned(),
        Reason::Overload => "no tier has room: load is spread by ready capacity".to_owned(),
        Reason::NothingReady => "nothing ready".to_owned(),
        Reason::Drained { drain } => format!("drained by {drain}"),
        Reason::DrainedButLast { drain } => format!("drained by {drain}, but nothing else is left"),
        Reason::ClusterFailed => "its cluster is failed".to_owned(),
        Reason::ClusterStale => "its cluster is silent: no more than it had".to_owned(),
        Reason::Ramping { from, to } => format!("on its way from {} to {}", percent(*from), percent(*to)),
        Reason::HeldDown => "back, and held down until it is steady".to_owned(),
    }
}

/// The farthest tier before `planned` that is full.
fn full_before(planned: &PlannedLocality, plan: &Plan) -> Option<&'static str> {
    let ordered = plan.by_tier();
    let before = ordered.iter().take_while(|other| other.locality != planned.locality);
    let full = before.filter(|other| other.share > 0.0 && other.tier != planned.tier);
    full.last().map(|other| tier_word(&other.tier))
}

pub(super) fn explain_cluster(explained: &ClusterExplained, wide: bool) -> String {
    let mut text = table(
        &["CLUSTER", "REGION", "STATE", "HEARD", "READY", "UTIL", "POLICY", "TOPOLOGY"],
        &[cluster_row(&explained.cluster, wide)[..8].to_vec()],
    );
    for because in &explained.because {
        text.push_str(&format!("{because}\n"));
    }
    if !explained.services.is_empty() {
        let rows: Vec<_> =
            explained.services.iter().map(|(service, counts)| vec![service.to_string(), of(counts)]).collect();
        text.push('\n');
        text.push_str(&table(&["SERVICE", "READY"], &rows));
    }
    text
}

#[cfg(test)]
mod tests;
