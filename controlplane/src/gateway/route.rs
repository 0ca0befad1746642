//! A route, judged without regard to what it attaches to.

use super::backends::{Access, shares};
use super::conditions::Fault;
use super::hostname::Hostname;
use super::objects::{GatewayObjects, ObjectName, RouteSpec};
use super::plan::{Backend, Known};
use super::rules::{AnyRule, Rule, RuleAction};

/// A route, whatever it attaches to.
pub(super) struct JudgedRoute {
    /// The hosts that it is for.
    pub(super) hostnames: Result<Vec<Hostname>, Fault>,
    /// What it does.
    pub(super) rules: Result<Vec<Rule>, Fault>,
    /// The first fault among what it refers to.
    pub(super) resolved: Option<Fault>,
}

/// Judges the route `name`. `known` says what there is of a backend.
pub(super) fn judge_route<R: AnyRule>(
    name: &ObjectName,
    spec: &RouteSpec<R>,
    objects: &GatewayObjects,
    access: Access,
    known: &dyn Fn(&Backend) -> Known,
) -> JudgedRoute {
    let hostnames = spec.hostnames.iter().map(|host| Hostname::read(Some(host)));
    let hostnames = hostnames.collect::<Result<Vec<_>, _>>().map_err(|message| Fault::new("UnsupportedValue", message));
    let mut resolved = None;
    let rules = spec.rules.iter().map(|rule| {
        let mut judged = rule.judge()?;
        if let RuleAction::Forward(forward) = &mut judged.action {
            let (found, fault) = shares((R::KIND, name), rule.backend_refs(), objects, access, known);
            forward.shares = found;
            resolved = resolved.take().or(fault);
        }
        Ok(judged)
    });
    let rules = rules.collect();
    JudgedRoute { hostnames, rules, resolved }
}
