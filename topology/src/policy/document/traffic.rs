//! A TrafficPolicy as it is written.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Checks;
use crate::diagnostic::one_of;
use crate::document::{List, Spanned};
use crate::duration::DurationText;
use crate::names::{ClusterName, RegionName, check_label};
use crate::policy::{
    Backoff, Capacity, Connection, Failback, LoadBalancer, LocalityPolicy, OutlierDetection, Preference, Retry,
    RetryOn, Strategy, TargetRef, TrafficPolicy, TrafficPolicySpec, Warmup, WeightedCluster,
};
use crate::topology::WeightedRegion;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    target_refs: Spanned<List<TargetRefEntry>>,
    locality: Option<Spanned<LocalityEntry>>,
    capacity: Option<Spanned<CapacityEntry>>,
    load_balancer: Option<LoadBalancerEntry>,
    connection: Option<ConnectionEntry>,
    outlier_detection: Option<OutlierDetectionEntry>,
    timeout: Option<Spanned<DurationText>>,
    retry: Option<RetryEntry>,
    rollout: Option<Spanned<IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TargetRefEntry {
    group: Option<Spanned<String>>,
    kind: Spanned<String>,
    name: Spanned<String>,
    section_name: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LocalityEntry {
    preference: Option<Preference>,
    target_utilization_percent: Option<Spanned<u32>>,
    overprovisioning_percent: Option<Spanned<u32>>,
    failover: Option<Spanned<List<RegionEntry>>>,
    allowed_regions: Option<Spanned<List<Spanned<RegionName>>>>,
    cluster_weights: Option<Spanned<List<ClusterEntry>>>,
    failback: Option<FailbackEntry>,
}

#[derive(Deserialize)]
struct RegionEntry {
    region: Spanned<RegionName>,
    weight: u32,
}

#[derive(Deserialize)]
struct ClusterEntry {
    cluster: Spanned<ClusterName>,
    weight: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FailbackEntry {
    ramp: Option<DurationText>,
    hold_down: Option<DurationText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CapacityEntry {
    requests_per_second: Option<Spanned<f64>>,
    concurrent_requests: Option<Spanned<IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LoadBalancerEntry {
    #[serde(rename = "type")]
    kind: Option<Spanned<String>>,
    least_request: Option<Spanned<LeastRequestEntry>>,
    round_robin: Option<Spanned<IgnoredAny>>,
    weighted_round_robin: Option<Spanned<IgnoredAny>>,
    peak_ewma: Option<Spanned<IgnoredAny>>,
    ring_hash: Option<Spanned<HashEntry>>,
    maglev: Option<Spanned<HashEntry>>,
    hot_cold: Option<Spanned<IgnoredAny>>,
    request_cost: Option<Spanned<IgnoredAny>>,
    prefix_affinity: Option<Spanned<IgnoredAny>>,
    custom: Option<Spanned<IgnoredAny>>,
    warmup: Option<Spanned<WarmupEntry>>,
}

#[derive(Deserialize)]
struct HashEntry {
    header: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WarmupEntry {
    hold: Option<Spanned<DurationText>>,
    window: Option<Spanned<DurationText>>,
    aggression: Option<Spanned<f64>>,
    min_percent: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OutlierDetectionEntry {
    consecutive_errors: Option<Spanned<u32>>,
    interval: Option<Spanned<DurationText>>,
    base_ejection_time: Option<Spanned<DurationText>>,
    max_ejection_percent: Option<Spanned<u32>>,
    eject_whole_locality: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeastRequestEntry {
    choice_count: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionEntry {
    connect_timeout: Option<Spanned<DurationText>>,
    max_requests: Option<Spanned<u32>>,
    max_pending_requests: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RetryEntry {
    attempts: Option<Spanned<u32>>,
    per_try_timeout: Option<Spanned<DurationText>>,
    on: Option<Spanned<List<RetryOn>>>,
    backoff: Option<Spanned<BackoffEntry>>,
    budget_percent: Option<Spanned<u32>>,
}

#[derive(Deserialize)]
struct BackoffEntry {
    base: Option<DurationText>,
    max: Option<DurationText>,
}

const LOAD_BALANCERS: [&str; 10] = [
    "LeastRequest",
    "RoundRobin",
    "WeightedRoundRobin",
    "PeakEwma",
    "RingHash",
    "Maglev",
    "HotCold",
    "RequestCost",
    "PrefixAffinity",
    "Custom",
];

fn place<T>(given: &Option<Spanned<T>>) -> Option<crate::diagnostic::Span> {
    given.as_ref().map(|given| given.span)
}

impl Checks<'_> {
    pub(super) fn traffic_policy(&mut self, name: String, namespace: String, spec: Spec) -> TrafficPolicy {
        self.not_yet("rollout", place(&spec.rollout));
        if let Some(timeout) = spec.timeout
            && timeout.0.is_zero()
        {
            self.report.error(timeout.span, "a timeout of zero fails every request").expected("more than 0s");
        }
        if let (Some(timeout), Some(tried)) =
            (spec.timeout, spec.retry.as_ref().and_then(|retry| retry.per_try_timeout))
            && tried.0 > timeout.0
        {
            let message = "one try may take longer than the whole request";
            self.report.error(tried.span, message).expected("at most `timeout`");
        }
        let spec = TrafficPolicySpec {
            target_refs: self.target_refs(&namespace, spec.target_refs),
            locality: spec.locality.map(|locality| self.locality(locality.value)),
            capacity: spec.capacity.and_then(|capacity| self.capacity(&capacity)),
            timeout: spec.timeout.map(|timeout| timeout.0),
            retry: spec.retry.map(|retry| self.retry(retry)),
            connection: spec.connection.map(|connection| self.connection(&connection)),
            load_balancer: spec.load_balancer.map(|balancer| self.load_balancer(&balancer)),
            outlier_detection: spec.outlier_detection.map(|entry| self.outlier_detection(&entry)),
        };
        TrafficPolicy { namespace, name, spec }
    }

    fn target_refs(&mut self, namespace: &str, entries: Spanned<List<TargetRefEntry>>) -> Vec<TargetRef> {
        if entries.is_empty() {
            self.report.error(entries.span, "the policy is for nothing").expected("at least one target");
        }
        let mut targets: Vec<TargetRef> = Vec::new();
        for entry in entries.value {
            if let Some(group) = entry.group
                && !group.is_empty()
            {
                self.report
                    .error(group.span, format!("the group is `{}`", group.value))
                    .expected("the core group, \"\"");
            }
            let name = entry.name.value;
            let target = match entry.kind.as_str() {
                "Service" => {
                    if let Err(error) = check_label("service", &name) {
                        self.report.error(entry.name.span, error.to_string());
                    }
                    if let Some(port) = entry.section_name.as_ref().filter(|port| port.is_empty()) {
                        let message = "`sectionName` is empty: leave it out for all ports";
                        self.report.error(port.span, message).expected("a port's name");
                    }
                    let section_name = entry.section_name.map(|port| port.value);
                    TargetRef::Service { name, section_name }
                }
                "Namespace" => {
                    if name != namespace {
                        let message = format!("the namespace `{name}` is another than the policy's");
                        self.report.error(entry.name.span, message).expected(format!("`{namespace}`"));
                    }
                    if let Some(port) = entry.section_name {
                        self.report.error(port.span, "only a Service has ports to name");
                    }
                    TargetRef::Namespace { name }
                }
                other => {
                    let kinds = ["Service", "Namespace"];
                    let message = format!("a policy cannot target a `{other}`");
                    self.report.error(entry.kind.span, message).expected(one_of(kinds)).nearest(other, kinds);
                    continue;
                }
            };
            if targets.contains(&target) {
                self.report.error(entry.name.span, "this target stands here twice");
            }
            targets.push(target);
        }
        targets
    }

    fn locality(&mut self, entry: LocalityEntry) -> LocalityPolicy {
        let default = LocalityPolicy::default();
        if let (Some(failover), Some(_)) = (&entry.failover, &entry.cluster_weights) {
            let message = "`failover` and `clusterWeights` exclude each other: cluster weights stand instead of tiers";
            self.report.error(failover.span, message);
        }
        let failover = entry.failover.map(|list| {
            if list.iter().all(|target| target.weight == 0) {
                self.report.error(list.span, "every weight is zero").expected("a region with a weight above 0");
            }
            let mut seen = Vec::new();
            for RegionEntry { region, weight } in list.value {
                self.known_region(region.as_str(), region.span);
                if seen.iter().any(|target: &WeightedRegion| target.region == region.value) {
                    self.report.error(region.span, format!("region `{}` stands here twice", region.value));
                }
                seen.push(WeightedRegion { region: region.value, weight });
            }
            seen
        });
        let allowed_regions = entry.allowed_regions.map(|list| {
            if list.is_empty() {
                self.report.error(list.span, "no region is allowed").expected("at least one");
            }
            list.value
                .into_iter()
                .map(|region| {
                    self.known_region(region.as_str(), region.span);
                    region.value
                })
                .collect()
        });
        let cluster_weights = entry.cluster_weights.map(|list| {
            if list.iter().all(|target| target.weight == 0) {
                self.report.error(list.span, "every weight is zero").expected("a cluster with a weight above 0");
            }
            let mut seen = Vec::new();
            for ClusterEntry { cluster, weight } in list.value {
                self.known_cluster(cluster.as_str(), cluster.span);
                if seen.iter().any(|target: &WeightedCluster| target.cluster == cluster.value) {
                    self.report.error(cluster.span, format!("cluster `{}` stands here twice", cluster.value));
                }
                seen.push(WeightedCluster { cluster: cluster.value, weight });
            }
            seen
        });
        LocalityPolicy {
            preference: entry.preference.unwrap_or_default(),
            target_utilization_percent: entry
                .target_utilization_percent
                .map_or(default.target_utilization_percent, |n| self.range("targetUtilizationPercent", n, 1, 100)),
            overprovisioning_percent: entry
                .overprovisioning_percent
                .map_or(default.overprovisioning_percent, |n| self.range("overprovisioningPercent", n, 100, 1000)),
            failover,
            allowed_regions,
            cluster_weights,
            failback: entry.failback.map_or(default.failback, |failback| Failback {
                ramp: failback.ramp.map_or(default.failback.ramp, |ramp| ramp.0),
                hold_down: failback.hold_down.map_or(default.failback.hold_down, |hold| hold.0),
            }),
        }
    }

    fn capacity(&mut self, entry: &Spanned<CapacityEntry>) -> Option<Capacity> {
        self.not_yet("capacity.concurrentRequests", place(&entry.concurrent_requests));
        match entry.requests_per_second {
            Some(given) if given.is_finite() && given.value > 0.0 => Some(Capacity::RequestsPerSecond(given.value)),
            Some(given) => {
                let message = format!("`requestsPerSecond` is {}", given.value);
                self.report.error(given.span, message).expected("more than 0");
                None
            }
            None => {
                if entry.concurrent_requests.is_none() {
                    self.report.error(entry.span, "the capacity is empty").expected("`requestsPerSecond`");
                }
                None
            }
        }
    }

    fn load_balancer(&mut self, entry: &LoadBalancerEntry) -> LoadBalancer {
        let strategy = entry.kind.as_ref().map_or(Strategy::default(), |kind| self.strategy(kind));
        if let Some(block) = &entry.least_request
            && strategy != Strategy::LeastRequest
        {
            let message = format!("`leastRequest` says nothing of a load balancer of the type {}", strategy.as_str());
            self.report.error(block.span, message).expected("`type: LeastRequest`, or no `leastRequest`");
        }
        if let Some(warmup) = &entry.warmup
            && !strategy.warms_up()
        {
            let message = format!("no client warms endpoints up under {}", strategy.as_str());
            self.report.error(warmup.span, message).expected("`LeastRequest` or `RoundRobin`, or no `warmup`");
        }
        if let Some(count) = entry.least_request.as_ref().and_then(|block| block.choice_count)
            && count.value != 2
        {
            let message = format!("`spec.loadBalancer.leastRequest.choiceCount: {}` is not supported yet", count.value);
            self.report.error(count.span, message).expected("2");
        }
        for (field, given) in [
            ("roundRobin", &entry.round_robin),
            ("weightedRoundRobin", &entry.weighted_round_robin),
            ("peakEwma", &entry.peak_ewma),
            ("hotCold", &entry.hot_cold),
            ("requestCost", &entry.request_cost),
            ("prefixAffinity", &entry.prefix_affinity),
            ("custom", &entry.custom),
        ] {
            self.not_yet(&format!("loadBalancer.{field}"), place(given));
        }
        let hash_header = self.hash_header(entry, strategy);
        LoadBalancer { strategy, hash_header, warmup: entry.warmup.as_ref().map(|warmup| self.warmup(warmup)) }
    }

    fn hash_header(&mut self, entry: &LoadBalancerEntry, strategy: Strategy) -> Option<String> {
        let mut named = None;
        for (of, block) in [(Strategy::RingHash, &entry.ring_hash), (Strategy::Maglev, &entry.maglev)] {
            let Some(block) = block else { continue };
            if of == strategy {
                named = Some(self.header_name(&block.header));
            } else {
                let field = of.keyed_by().unwrap_or_default();
                let message = format!("`{field}` says nothing of a load balancer of the type {}", strategy.as_str());
                let expected = format!("`type: {}`, or no `{field}`", of.as_str());
                self.report.error(block.span, message).expected(expected);
            }
        }
        if let (None, Some(field), Some(kind)) = (&named, strategy.keyed_by(), &entry.kind) {
            let message = format!("{} has no key to go by", strategy.as_str());
            self.report.error(kind.span, message).expected(format!("`{field}: {{header: NAME}}` beside it"));
        }
        named
    }

    /// As HTTP/2 has them, whatever their case. Clients take no key from what is no text.
    fn header_name(&mut self, given: &Spanned<String>) -> String {
        let name = given.to_ascii_lowercase();
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(token) {
            let message = format!("`{}` is no name of a header", given.value);
            self.report.error(given.span, message).expected("letters, digits and hyphens, such as `x-session`");
        } else if name.ends_with("-bin") {
            let message = format!("`{}` is a binary header, which no client hashes", given.value);
            self.report.error(given.span, message).expected("a header whose value is text");
        }
        name
    }

    fn strategy(&mut self, kind: &Spanned<String>) -> Strategy {
        let known = Strategy::ALL.into_iter().find(|strategy| strategy.as_str() == kind.value);
        if known.is_none() && LOAD_BALANCERS.contains(&kind.as_str()) {
            let message = format!("`spec.loadBalancer.type: {}` is not supported yet", kind.value);
            self.report.error(kind.span, message).expected(one_of(Strategy::ALL.map(Strategy::as_str)));
        } else if known.is_none() {
            self.report
                .error(kind.span, format!("unknown load balancer `{}`", kind.value))
                .expected(one_of(LOAD_BALANCERS))
                .nearest(kind, LOAD_BALANCERS);
        }
        known.unwrap_or_default()
    }

    fn warmup(&mut self, entry: &WarmupEntry) -> Warmup {
        let default = Warmup::default();
        let aggression = entry.aggression.map_or(default.aggression, |given| {
            if !given.is_finite() || given.value <= 0.0 {
                let message = format!("`warmup.aggression` is {}", given.value);
                self.report.error(given.span, message).expected("more than 0; 1 is a straight line");
            }
            given.value
        });
        Warmup {
            hold: entry.hold.map_or(default.hold, |hold| hold.0),
            window: self.time("warmup.window", entry.window, default.window),
            aggression,
            min_percent: entry
                .min_percent
                .map_or(default.min_percent, |given| self.range("warmup.minPercent", given, 1, 100)),
        }
    }

    fn outlier_detection(&mut self, entry: &OutlierDetectionEntry) -> OutlierDetection {
        let default = OutlierDetection::default();
        OutlierDetection {
            consecutive_errors: entry.consecutive_errors.map_or(default.consecutive_errors, |given| {
                self.range("outlierDetection.consecutiveErrors", given, 1, u32::MAX)
            }),
            interval: self.time("outlierDetection.interval", entry.interval, default.interval),
            base_ejection_time: self.time(
                "outlierDetection.baseEjectionTime",
                entry.base_ejection_time,
                default.base_ejection_time,
            ),
            max_ejection_percent: entry.max_ejection_percent.map_or(default.max_ejection_percent, |given| {
                self.range("outlierDetection.maxEjectionPercent", given, 0, 100)
            }),
            eject_whole_locality: entry.eject_whole_locality.unwrap_or(default.eject_whole_locality),
        }
    }

    /// A duration that is not zero.
    fn time(&mut self, field: &str, given: Option<Spanned<DurationText>>, default: Duration) -> Duration {
        let Some(given) = given else { return default };
        if given.0.is_zero() {
            self.report.error(given.span, format!("`{field}` is zero")).expected("more than 0s");
        }
        given.0
    }

    fn connection(&mut self, entry: &ConnectionEntry) -> Connection {
        let default = Connection::default();
        let mut limit = |field: &str, given: Option<Spanned<u32>>, default| {
            given.map_or(default, |given| self.range(&format!("connection.{field}"), given, 1, u32::MAX))
        };
        Connection {
            max_requests: limit("maxRequests", entry.max_requests, default.max_requests),
            max_pending_requests: limit("maxPendingRequests", entry.max_pending_requests, default.max_pending_requests),
            connect_timeout: self.time("connection.connectTimeout", entry.connect_timeout, default.connect_timeout),
        }
    }

    fn retry(&mut self, entry: RetryEntry) -> Retry {
        let default = Retry::default();
        let on = entry.on.map_or(default.on, |on| {
            if on.is_empty() {
                self.report.error(on.span, "nothing is retried").expected("at least one status, such as `UNAVAILABLE`");
            }
            on.value.0
        });
        let backoff = entry.backoff.map_or(default.backoff, |given| {
            let base = given.base.map_or(default.backoff.base, |base| base.0);
            // A base above the usual cap raises it.
            let max = given.max.map_or(default.backoff.max.max(base), |max| max.0);
            if base.is_zero() || max < base {
                self.report.error(given.span, "the backoff cannot grow").expected("0 < base ≤ max");
            }
            Backoff { base, max }
        });
        let attempts = entry.attempts.map_or(default.attempts, |given| self.range("retry.attempts", given, 1, 10));
        Retry {
            attempts,
            on,
            backoff,
            per_try_timeout: entry
                .per_try_timeout
                .map(|given| self.time("retry.perTryTimeout", Some(given), given.value.0)),
            budget_percent: entry
                .budget_percent
                .map_or(default.budget_percent, |given| self.range("retry.budgetPercent", given, 1, 100)),
        }
    }
}
