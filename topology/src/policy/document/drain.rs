//! A Drain as it is written.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::Checks;
use crate::document::{List, Spanned};
use crate::duration::DurationText;
use crate::names::{ClusterName, RegionName, ServiceId, ZoneName};
use crate::policy::{Drain, DrainSpec, Scope};

/// How long the way out takes unless the Drain says otherwise.
const OVER: Duration = Duration::from_secs(5 * 60);
/// How long the way back takes unless the Drain says otherwise.
const RESTORE_OVER: Duration = Duration::from_secs(10 * 60);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    scope: Spanned<ScopeEntry>,
    services: Option<Spanned<List<ServiceId>>>,
    percent: Option<Spanned<u32>>,
    over: Option<DurationText>,
    restore_over: Option<DurationText>,
    start_time: Option<Timestamp>,
    end_time: Option<Spanned<Timestamp>>,
    force: Option<bool>,
    reason: Spanned<String>,
}

#[derive(Deserialize)]
struct ScopeEntry {
    region: Option<Spanned<RegionName>>,
    cluster: Option<Spanned<ClusterName>>,
    zone: Option<Spanned<ZoneName>>,
}

impl Checks<'_> {
    pub(super) fn drain(&mut self, name: String, spec: Spec) -> Option<Drain> {
        let scope = self.scope(&spec.scope);
        if let Some(services) = &spec.services
            && services.is_empty()
        {
            let message = "the Drain is for no service";
            self.report
                .error(services.span, message)
                .expected("at least one, or no `services` at all for every service");
        }
        if spec.reason.trim().is_empty() {
            self.report
                .error(spec.reason.span, "the reason is empty")
                .expected("why, for the people who find the Drain");
        }
        if let (Some(start), Some(end)) = (spec.start_time, &spec.end_time)
            && end.value <= start
        {
            self.report.error(end.span, "`endTime` is not after `startTime`");
        }
        let spec = DrainSpec {
            scope: scope?,
            services: spec.services.map(|services| services.value.0),
            percent: spec.percent.map_or(100, |percent| self.range("percent", percent, 1, 100)),
            over: spec.over.map_or(OVER, |over| over.0),
            restore_over: spec.restore_over.map_or(RESTORE_OVER, |over| over.0),
            start_time: spec.start_time,
            end_time: spec.end_time.map(|end| end.value),
            force: spec.force.unwrap_or(false),
            reason: spec.reason.value,
        };
        Some(Drain { name, spec })
    }

    fn scope(&mut self, given: &Spanned<ScopeEntry>) -> Option<Scope> {
        let ScopeEntry { region, cluster, zone } = &given.value;
        let scopes: Vec<Scope> = [
            region.as_ref().map(|region| Scope::Region(region.value.clone())),
            cluster.as_ref().map(|cluster| Scope::Cluster(cluster.value.clone())),
            zone.as_ref().map(|zone| Scope::Zone(zone.value.clone())),
        ]
        .into_iter()
        .flatten()
        .collect();
        if scopes.len() != 1 {
            let message = format!("the scope names {} places", scopes.len());
            self.report.error(given.span, message).expected("exactly one of `region`, `cluster` and `zone`");
        }
        if let Some(region) = region {
            self.known_region(region.as_str(), region.span);
        }
        if let Some(cluster) = cluster {
            self.known_cluster(cluster.as_str(), cluster.span);
        }
        if let Some(zone) = zone {
            self.known_zone(zone.as_str(), zone.span);
        }
        scopes.into_iter().next()
    }
}
