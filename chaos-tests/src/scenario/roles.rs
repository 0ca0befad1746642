//! Roles: `first`, `last`, `largest` or a name, so that one scenario fits any topology.

use std::collections::BTreeMap;

use portolan_topology::diagnostic::{Report, Span};
use portolan_topology::document::Spanned;
use portolan_topology::names::{RegionName, ServiceId, ZoneName};
use portolan_topology::policy::Scope;
use portolan_topology::topology::Topology;

use super::document::ScopeText;

const POSITIONS: [&str; 3] = ["first", "last", "largest"];

/// What scopes come to in one topology.
pub(super) struct Roles<'a> {
    topology: &'a Topology,
    roles: BTreeMap<String, Scope>,
}

impl<'a> Roles<'a> {
    /// Resolves `select`; mistakes go to `report`.
    pub(super) fn new(
        topology: &'a Topology,
        select: &BTreeMap<String, Spanned<ScopeText>>,
        report: &mut Report,
    ) -> Self {
        let mut this = Self { topology, roles: BTreeMap::new() };
        for (name, text) in select {
            let scope = match &text.value {
                ScopeText::Fields(fields) => this.resolve(fields, text.span, report),
                ScopeText::Text(_) => {
                    report
                        .error(text.span, format!("the role `{name}` selects nothing"))
                        .expected("a mapping such as `{region: first}`");
                    None
                }
            };
            if let Some(scope) = scope {
                this.roles.insert(name.clone(), scope);
            }
        }
        this
    }

    /// The topology that names come from.
    pub(super) fn topology(&self) -> &'a Topology {
        self.topology
    }

    /// A scope as written; `None` after a mistake was reported.
    pub(super) fn scope(&self, text: &Spanned<ScopeText>, report: &mut Report) -> Option<Scope> {
        match &text.value {
            ScopeText::Fields(fields) => self.resolve(fields, text.span, report),
            ScopeText::Text(role) => match role.strip_prefix('$') {
                Some(name) => self.role(name, text.span, report),
                None => {
                    report
                        .error(text.span, format!("`{role}` is not a scope"))
                        .expected("`$ROLE` from `select`, or a mapping such as `{region: us-east}`");
                    None
                }
            },
        }
    }

    fn role(&self, name: &str, span: Span, report: &mut Report) -> Option<Scope> {
        let scope = self.roles.get(name);
        if scope.is_none() {
            report
                .error(span, format!("no role `{name}` in `select`"))
                .nearest(name, self.roles.keys().map(String::as_str));
        }
        scope.cloned()
    }

    /// A name, or the name of a role: `us-east` or `$lost`.
    pub(super) fn name(&self, text: &str, span: Span, report: &mut Report) -> Option<String> {
        match text.strip_prefix('$') {
            Some(role) => self.role(role, span, report).map(|scope| bare_name(&scope)),
            None => Some(text.to_owned()),
        }
    }

    /// Puts names in place of `$role` in every text of `value`.
    pub(super) fn substitute(&self, value: &mut serde_json::Value, span: Span, report: &mut Report) {
        match value {
            serde_json::Value::String(text) => {
                if let Some(name) = self.name(text, span, report) {
                    *text = name;
                }
            }
            serde_json::Value::Array(items) => {
                items.iter_mut().for_each(|item| self.substitute(item, span, report));
            }
            serde_json::Value::Object(fields) => {
                fields.values_mut().for_each(|field| self.substitute(field, span, report));
            }
            _ => {}
        }
    }

    fn resolve(&self, fields: &[(String, String)], span: Span, report: &mut Report) -> Option<Scope> {
        let [(kind, wanted)] = fields else {
            report.error(span, "a scope has exactly one field").expected("`region`, `cluster` or `zone`");
            return None;
        };
        let regions = &self.topology.regions;
        let scopes: Vec<(Scope, usize)> = match kind.as_str() {
            "region" => {
                regions.iter().map(|region| (Scope::Region(region.name.clone()), region.clusters.len())).collect()
            }
            "cluster" => self
                .topology
                .clusters()
                .map(|cluster| (Scope::Cluster(cluster.name.clone()), cluster.zones.len()))
                .collect(),
            "zone" => {
                let clusters_in =
                    |zone: &ZoneName| self.topology.clusters().filter(|cluster| cluster.zones.contains(zone)).count();
                let zones = regions.iter().flat_map(|region| &region.zones);
                zones.map(|zone| (Scope::Zone(zone.clone()), clusters_in(zone))).filter(|(_, size)| *size > 0).collect()
            }
            other => {
                report
                    .error(span, format!("`{other}` is not a kind of scope"))
                    .expected("`region`, `cluster` or `zone`")
                    .nearest(other, ["region", "cluster", "zone"]);
                return None;
            }
        };
        let found = match wanted.as_str() {
            "first" => scopes.first(),
            "last" => scopes.last(),
            // The first of the largest: `max_by_key` would take the last.
            "largest" => scopes.iter().rev().max_by_key(|(_, size)| *size),
            name => scopes.iter().find(|(scope, _)| bare_name(scope) == name),
        };
        if found.is_none() {
            let names: Vec<String> = scopes.iter().map(|(scope, _)| bare_name(scope)).collect();
            report
                .error(span, format!("no {kind} `{wanted}` in the topology"))
                .expected("`first`, `last`, `largest` or a name")
                .nearest(wanted, names.iter().map(String::as_str).chain(POSITIONS));
        }
        found.map(|(scope, _)| scope.clone())
    }

    /// The region that a scope lies in.
    pub(super) fn region_of(&self, scope: &Scope) -> Option<RegionName> {
        match scope {
            Scope::Region(region) => Some(region.clone()),
            Scope::Cluster(cluster) => self.topology.cluster(cluster).map(|cluster| cluster.region.clone()),
            Scope::Zone(zone) => self.topology.region_of_zone(zone).map(|region| region.name.clone()),
        }
    }
}

/// A scope's name without its kind.
fn bare_name(scope: &Scope) -> String {
    match scope {
        Scope::Region(name) => name.to_string(),
        Scope::Cluster(name) => name.to_string(),
        Scope::Zone(name) => name.to_string(),
    }
}

/// One of the scenario's services by name.
pub(super) fn service(text: &Spanned<String>, known: &[ServiceId], report: &mut Report) -> Option<ServiceId> {
    let found = known.iter().find(|service| service.to_string() == **text);
    if found.is_none() {
        let names: Vec<String> = known.iter().map(ToString::to_string).collect();
        report
            .error(text.span, format!("no service `{}` in this scenario", **text))
            .nearest(text, names.iter().map(String::as_str));
    }
    found.cloned()
}
