//! Checks a scenario file against a topology: every rule in one pass, every mistake with its place.

use std::collections::BTreeSet;
use std::time::Duration;

use portolan_topology::diagnostic::{Report, Span};
use portolan_topology::document::Spanned;
use portolan_topology::names::ServiceId;
use portolan_topology::policy;
use portolan_topology::topology::Topology;
use serde_json::json;

use super::document as doc;
use super::expectations::Expectations;
use super::model::{Action, Clients, Scenario, Service, Step, Target};
use super::roles::{Roles, service};

/// The most calls that a scenario may make: they are all kept until the verdict.
const MOST_CALLS: f64 = 2_000_000.0;
/// The most backends: each is a process.
const MOST_BACKENDS: usize = 400;
/// The most clients.
const MOST_CLIENTS: usize = 2_000;

/// Checks `file`; `None` after a mistake was reported.
pub(super) fn check(file: doc::File, topology: &Topology, report: &mut Report) -> Option<Scenario> {
    for (value, wanted) in [(&file.api_version, super::API_VERSION), (&file.kind, super::KIND)] {
        if **value != wanted {
            report.error(value.span, format!("`{}` is not known here", **value)).expected(format!("`{wanted}`"));
        }
    }
    let spec = file.spec;
    let roles = Roles::new(topology, &spec.select, report);
    let name = checked_name(&file.metadata.name, report);
    let duration = positive(&spec.duration, report);
    let detect = spec.detect.as_ref().map_or(Some(Duration::from_secs(2)), |text| time(text, report));
    let services = services(&spec.services, &roles, report);
    let ids: Vec<ServiceId> = services.iter().map(|service| service.id.clone()).collect();
    let clients = clients(&spec.clients, &ids, &roles, report);
    let retried = retried(&spec.clients, report);
    let document = |policy, report: &mut Report| policy_document(policy, &ids, &retried, &roles, report);
    let mut policies: Vec<String> = spec.policies.iter().filter_map(|policy| document(policy, report)).collect();
    policies_for_retries(&retried, &mut policies);
    let steps = steps(&spec.steps, &services, &retried, &roles, duration, report);
    let (name, duration, detect) = (name?, duration?, detect?);
    let whole = steps.len() == spec.steps.len() && services.len() == spec.services.len();
    let scenario = Scenario {
        name,
        services,
        clients,
        policies,
        block_peers: spec.block == doc::Block::Peers,
        detect,
        steps,
        duration,
        expectations: Vec::new(),
    };
    sizes(&scenario, topology, spec.services.span, spec.clients.span, report);
    // Expectations speak of steps and services: with some of those missing, they would only raise false alarms.
    if !whole || scenario.clients.len() != spec.clients.len() {
        return None;
    }
    let expectations = match &spec.expect {
        Some(expect) if !expect.is_empty() => Expectations { scenario: &scenario, roles: &roles }.all(expect, report),
        other => {
            let span = other.as_ref().map_or(spec.duration.span, |expect| expect.span);
            report
                .error(span, "the scenario expects nothing, so it would prove nothing")
                .expected("`expect` with entries");
            Vec::new()
        }
    };
    Some(Scenario { expectations, ..scenario })
}

fn sizes(scenario: &Scenario, topology: &Topology, services: Span, clients: Span, report: &mut Report) {
    let backends: usize = scenario
        .services
        .iter()
        .map(|service| {
            Scenario::localities(topology, service.within.as_ref()).len() * usize::from(service.backends_per_zone)
        })
        .sum();
    if backends > MOST_BACKENDS {
        report
            .error(services, format!("{backends} backends"))
            .expected(format!("at most {MOST_BACKENDS}: each is a process"));
    }
    let (mut count, mut rate) = (0, 0.0);
    for group in &scenario.clients {
        let here = Scenario::localities(topology, group.within.as_ref()).len() * usize::from(group.per_zone);
        count += here;
        rate += here as f64 * group.rate;
    }
    if count > MOST_CLIENTS {
        report.error(clients, format!("{count} clients")).expected(format!("at most {MOST_CLIENTS}"));
    }
    let calls = rate * scenario.duration.as_secs_f64();
    if calls > MOST_CALLS {
        report.error(clients, format!("{calls:.0} calls")).expected(format!("at most {MOST_CALLS:.0}: all are kept"));
    }
}

fn services(list: &[doc::Service], roles: &Roles<'_>, report: &mut Report) -> Vec<Service> {
    if list.is_empty() {
        report.error(Span::default(), "`services` is empty").expected("at least one service");
    }
    let mut ids: Vec<ServiceId> = Vec::new();
    for raw in list {
        match raw.name.parse::<ServiceId>() {
            Ok(id) if ids.contains(&id) => {
                report.error(raw.name.span, format!("the service `{id}` stands here twice"));
            }
            Ok(id) => ids.push(id),
            Err(error) => {
                report.error(raw.name.span, error.to_string());
            }
        }
    }
    let mut checked = Vec::new();
    for raw in list {
        at_least_one(&raw.backends_per_zone, report);
        let latency = raw.latency.as_ref().map_or(Some(Duration::ZERO), |text| time(text, report));
        let within = optional(raw.within.as_ref(), |text| roles.scope(text, report));
        let calls = optional(raw.calls.as_ref(), |text| service(text, &ids, report));
        if raw.port.value == 0 {
            report.error(raw.port.span, "0 is not a port").expected("1 to 65535");
        }
        if let (Ok(id), Some(latency), Some(within), Some(calls)) = (raw.name.parse(), latency, within, calls) {
            checked.push(Service {
                id,
                port: *raw.port,
                backends_per_zone: *raw.backends_per_zone,
                latency,
                within,
                calls,
            });
        }
    }
    for raw in list {
        let callee = raw.calls.as_ref().and_then(|calls| list.iter().find(|other| *other.name == **calls));
        if let (Some(calls), Some(_)) = (&raw.calls, callee.filter(|callee| callee.calls.is_some())) {
            report
                .error(calls.span, format!("`{}` calls another service itself", **calls))
                .expected("a service that calls none: one level is measured");
        }
    }
    checked
}

fn clients(list: &[doc::Clients], ids: &[ServiceId], roles: &Roles<'_>, report: &mut Report) -> Vec<Clients> {
    let mut checked = Vec::new();
    for raw in list {
        if let Some(per_zone) = &raw.per_zone {
            at_least_one(per_zone, report);
        }
        if !(raw.rate.is_finite() && (0.1..=5_000.0).contains(&raw.rate.value)) {
            report.error(raw.rate.span, format!("{} calls a second", *raw.rate)).expected("0.1 to 5000");
        }
        let timeout = raw.timeout.as_ref().map_or(Some(Duration::from_secs(1)), |text| positive(text, report));
        let within = optional(raw.within.as_ref(), |text| roles.scope(text, report));
        if let (Some(service), Some(timeout), Some(within)) = (service(&raw.service, ids, report), timeout, within) {
            checked.push(Clients {
                service,
                per_zone: raw.per_zone.map_or(1, |per_zone| *per_zone),
                rate: *raw.rate,
                timeout,
                retries: raw.retries,
                within,
            });
        }
    }
    checked
}

fn steps(
    list: &[Spanned<doc::Step>],
    services: &[Service],
    retried: &BTreeSet<ServiceId>,
    roles: &Roles<'_>,
    duration: Option<Duration>,
    report: &mut Report,
) -> Vec<Step> {
    let mut names = BTreeSet::new();
    let mut previous = Duration::ZERO;
    let mut checked = Vec::new();
    for raw in list {
        let name = checked_name(&raw.name, report);
        if !names.insert((*raw.name).clone()) {
            report.error(raw.name.span, format!("two steps are called `{}`", *raw.name));
        }
        let at = time(&raw.at, report);
        if let (Some(at), Some(duration)) = (at, duration) {
            if at >= duration {
                report
                    .error(raw.at.span, "the step comes when the scenario is over")
                    .expected("a time before `duration`");
            } else if at < previous {
                report.error(raw.at.span, "the step comes before the one above it").expected("steps in order of time");
            }
            previous = at;
        }
        let action = action(raw, services, retried, roles, report);
        if let (Some(name), Some(at), Some(action)) = (name, at, action) {
            checked.push(Step { name, at, action });
        }
    }
    checked
}

fn action(
    step: &Spanned<doc::Step>,
    services: &[Service],
    retried: &BTreeSet<ServiceId>,
    roles: &Roles<'_>,
    report: &mut Report,
) -> Option<Action> {
    let ids: Vec<ServiceId> = services.iter().map(|service| service.id.clone()).collect();
    let mut actions: Vec<Option<Action>> = Vec::new();
    if let Some(kill) = &step.kill {
        actions.push(self::kill(kill, step.span, roles, report));
    }
    if let Some(restart) = &step.restart {
        actions.push(target(&restart.scope, roles, report).map(|target| Action::Restart { target }));
    }
    if let Some(degrade) = &step.degrade {
        if !(1..=100).contains(&degrade.percent.value) {
            report.error(degrade.percent.span, format!("{} percent", *degrade.percent)).expected("1 to 100");
        }
        let scope = roles.scope(&degrade.scope, report);
        actions.push(scope.map(|scope| Action::Degrade { scope, percent: *degrade.percent }));
    }
    if let Some(drain) = &step.drain {
        let over = drain.over.as_ref().map_or(Some(Duration::ZERO), |text| time(text, report));
        let restore_over = drain.restore_over.as_ref().map_or(Some(Duration::ZERO), |text| time(text, report));
        let scope = roles.scope(&drain.scope, report);
        let drain = scope.zip(over).zip(restore_over);
        actions.push(drain.map(|((scope, over), restore_over)| Action::Drain { scope, over, restore_over }));
    }
    if let Some(undrain) = &step.undrain {
        actions.push(roles.scope(&undrain.scope, report).map(|scope| Action::Undrain { scope }));
    }
    if let Some(policy) = &step.policy {
        actions.push(policy_document(policy, &ids, retried, roles, report).map(|document| Action::Policy { document }));
    }
    if let Some(scale) = &step.scale {
        actions.push(self::scale(scale, &ids, services, report));
    }
    if actions.len() != 1 {
        report
            .error(step.span, format!("the step `{}` does {} things", *step.name, actions.len()))
            .expected("exactly one of `kill`, `restart`, `degrade`, `drain`, `undrain`, `policy`, `scale`");
        return None;
    }
    actions.pop().flatten()
}

fn kill(kill: &doc::Kill, span: Span, roles: &Roles<'_>, report: &mut Report) -> Option<Action> {
    let everything = [doc::What::Backends, doc::What::ControlPlane];
    let what = kill.what.as_ref().map_or(&everything[..], |what| what);
    let (backends, control_planes) = (what.contains(&doc::What::Backends), what.contains(&doc::What::ControlPlane));
    if let Some(what) = kill.what.as_ref().filter(|what| what.is_empty()) {
        report.error(what.span, "`what` is empty").expected("`backends`, `controlPlane` or both");
    }
    let target = match (&kill.scope, &kill.role) {
        (Some(scope), None) => target(scope, roles, report)?,
        (None, Some(role)) => {
            let doc::Role::Leader = role.value;
            if backends {
                report.error(role.span, "the leader is a control plane").expected("`what: [controlPlane]` beside it");
            }
            Target::Leader
        }
        (Some(_), Some(role)) => {
            report.error(role.span, "`role` stands beside `scope`").expected("one of them");
            return None;
        }
        (None, None) => {
            report.error(span, "the kill does not say of what").expected("`scope` or `role: leader`");
            return None;
        }
    };
    Some(Action::Kill { target, backends, control_planes })
}

fn target(text: &Spanned<doc::ScopeText>, roles: &Roles<'_>, report: &mut Report) -> Option<Target> {
    match &text.value {
        doc::ScopeText::Text(all) if all == "all" => Some(Target::All),
        _ => roles.scope(text, report).map(Target::Scope),
    }
}

fn scale(scale: &Spanned<doc::Scale>, ids: &[ServiceId], services: &[Service], report: &mut Report) -> Option<Action> {
    let id = service(&scale.service, ids, report)?;
    let now = services.iter().find(|service| service.id == id)?.backends_per_zone;
    let per_zone = match (&scale.percent, &scale.to) {
        (Some(percent), None) => {
            u16::try_from((u64::from(now) * u64::from(**percent)).div_ceil(100)).unwrap_or(u16::MAX)
        }
        (None, Some(to)) => **to,
        _ => {
            report.error(scale.span, "`scale` needs one figure").expected("either `percent` or `to`");
            return None;
        }
    };
    if per_zone > now {
        report
            .error(scale.span, format!("from {now} to {per_zone} backends a zone: scaling up is not supported yet"))
            .expected("fewer backends than before");
        return None;
    }
    Some(Action::Scale { service: id, per_zone })
}

/// A TrafficPolicy document around a `spec` as the scenario gives it. Its name comes from its target, so that a later
/// policy for the same target replaces the earlier one.
fn policy_document(
    spec: &Spanned<serde_json::Value>,
    ids: &[ServiceId],
    retried: &BTreeSet<ServiceId>,
    roles: &Roles<'_>,
    report: &mut Report,
) -> Option<String> {
    let mut value = spec.value.clone();
    roles.substitute(&mut value, spec.span, report);
    let target = value.get("targetRefs").and_then(|targets| targets.get(0)).cloned().unwrap_or_default();
    let text = |field: &str| target.get(field).and_then(serde_json::Value::as_str);
    let service = match (text("kind"), text("name")) {
        (Some("Service"), Some(name)) => ids.iter().find(|id| id.name() == name),
        (Some("Namespace"), Some(name)) => ids.iter().find(|id| id.namespace() == name),
        _ => None,
    };
    let (Some(service), Some(name)) = (service, text("name")) else {
        report
            .error(spec.span, "the policy is for no service of this scenario")
            .expected("`targetRefs` that name a Service or Namespace of `services`");
        return None;
    };
    if let Some(fields) = value.as_object_mut().filter(|_| retried.contains(service)) {
        fields.entry("retry").or_insert_with(|| json!({}));
    }
    let document = policy_yaml(name, service.namespace(), &value);
    if let Err(refused) = policy::document::parse("the policy", &document, Some(roles.topology())) {
        for mistake in refused.iter() {
            report.error(spec.span, mistake.message.clone()).expected.clone_from(&mistake.expected);
        }
        return None;
    }
    Some(document)
}

/// A TrafficPolicy as JSON, which is YAML too.
fn policy_yaml(name: &str, namespace: &str, spec: &serde_json::Value) -> String {
    json!({
        "apiVersion": super::API_VERSION,
        "kind": "TrafficPolicy",
        "metadata": {"name": format!("chaos-{name}"), "namespace": namespace},
        "spec": spec,
    })
    .to_string()
}

/// The services whose clients retry. Retries are a service's policy, so that its clients agree.
fn retried(list: &[doc::Clients], report: &mut Report) -> BTreeSet<ServiceId> {
    for raw in list {
        if list.iter().any(|other| *other.service == *raw.service && other.retries != raw.retries) {
            report
                .error(raw.service.span, format!("some clients of `{}` retry and others do not", *raw.service))
                .expected("the same `retries` for all clients of a service: it becomes a TrafficPolicy");
        }
    }
    list.iter().filter(|raw| raw.retries).filter_map(|raw| raw.service.parse().ok()).collect()
}

/// Policies for services whose clients retry and that no policy of the scenario names.
fn policies_for_retries(retried: &BTreeSet<ServiceId>, policies: &mut Vec<String>) {
    for service in retried {
        let name = service.name();
        let spec = json!({"targetRefs": [{"group": "", "kind": "Service", "name": name}], "retry": {}});
        let begins = format!("\"name\":\"chaos-{name}\",\"namespace\":\"{}\"", service.namespace());
        if !policies.iter().any(|policy| policy.contains(&begins)) {
            policies.push(policy_yaml(name, service.namespace(), &spec));
        }
    }
}

/// A time of `5s`, `62ms` or `1m30s`; `None` after a mistake was reported.
pub(super) fn time(text: &Spanned<String>, report: &mut Report) -> Option<Duration> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    if parsed.is_none() {
        report.error(text.span, format!("`{}` is not a time", **text)).expected("such as `500ms`, `5s` or `1m30s`");
    }
    parsed
}

/// A time above 0.
pub(super) fn positive(text: &Spanned<String>, report: &mut Report) -> Option<Duration> {
    let time = time(text, report)?;
    if time.is_zero() {
        report.error(text.span, "0 is too short").expected("a time above 0");
        return None;
    }
    Some(time)
}

fn at_least_one(count: &Spanned<u16>, report: &mut Report) {
    if **count == 0 {
        report.error(count.span, "0 of them").expected("at least 1");
    }
}

/// Report names become file names and plot labels: the rules of a Kubernetes name keep them short and plain.
fn checked_name(name: &Spanned<String>, report: &mut Report) -> Option<String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
        report
            .error(name.span, format!("`{}` is not a name", **name))
            .expected("1 to 63 lower-case letters, digits and `-`");
        return None;
    }
    Some((**name).clone())
}

/// `None` given is `Some(None)`; given and bad is `None`.
pub(super) fn optional<T, U>(given: Option<&T>, check: impl FnOnce(&T) -> Option<U>) -> Option<Option<U>> {
    match given {
        None => Some(None),
        Some(value) => check(value).map(Some),
    }
}
