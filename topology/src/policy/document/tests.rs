use std::time::Duration;

use jiff::Timestamp;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::subsequence;
use proptest::strategy::Strategy;

use super::*;
use crate::names::{RegionName, ServiceId};
use crate::policy::Strategy as Balancer;
use crate::policy::*;
use crate::topology::WeightedRegion;

const TOPOLOGY: &str = include_str!("../../../../examples/three-regions/topology.yaml");

fn topology() -> Topology {
    Topology::parse("topology.yaml", TOPOLOGY).unwrap().0
}

/// A TrafficPolicy with this in its spec, one field a line from line 6 on.
fn policy(spec: &str) -> String {
    format!(
        "apiVersion: portolan.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: checkout, namespace: shop}}\nspec:\n  \
         targetRefs: [{{group: '', kind: Service, name: checkout}}]\n{spec}\n"
    )
}

/// A Drain with this as its spec, in line 4.
fn drain(spec: &str) -> String {
    format!("apiVersion: portolan.dev/v1alpha1\nkind: Drain\nmetadata: {{name: d}}\nspec: {{{spec}}}\n")
}

fn check(text: &str, expected: &[&str]) {
    let refused = parse("p", text, Some(&topology())).expect_err(text);
    let found: Vec<_> = refused.iter().map(|mistake| mistake.headline()[2..].to_owned()).collect();
    assert_eq!(found, expected, "for:\n{text}");
}

fn one(text: &str) -> PolicyObject {
    parse("p", text, Some(&topology())).unwrap_or_else(|refused| panic!("{refused}")).remove(0)
}

#[test]
fn the_full_policy_reads() {
    let PolicyObject::TrafficPolicy(policy) = one(&policy(
        "  locality:
    preference: Zone
    targetUtilizationPercent: 70
    overprovisioningPercent: 150
    failover: [{region: us-west, weight: 70}, {region: eu-west, weight: 30}]
    allowedRegions: [us-east, us-west, eu-west]
    failback: {ramp: 10s, holdDown: 3s}
  capacity: {requestsPerSecond: 200}
  loadBalancer:
    type: LeastRequest
    leastRequest: {choiceCount: 2}
    warmup: {hold: 5s, window: 30s, aggression: 1.5, minPercent: 20}
  connection: {connectTimeout: 3s, maxRequests: 500, maxPendingRequests: 50}
  outlierDetection: {consecutiveErrors: 3, interval: 2s, baseEjectionTime: 20s, maxEjectionPercent: 30, ejectWholeLocality: false}
  timeout: 2s
  retry:
    attempts: 3
    perTryTimeout: 500ms
    on: [UNAVAILABLE, RESOURCE_EXHAUSTED]
    backoff: {base: 50ms, max: 1s}
    budgetPercent: 10
status: {revision: 42, conditions: [{type: Accepted}]}",
    )) else {
        panic!("not a TrafficPolicy")
    };
    let locality = policy.spec.locality.unwrap();
    assert_eq!((locality.target_utilization_percent, locality.overprovisioning_percent), (70, 150));
    assert_eq!(locality.failover.unwrap()[1].weight, 30);
    assert_eq!(locality.failback, Failback { ramp: Duration::from_secs(10), hold_down: Duration::from_secs(3) });
    assert_eq!(policy.spec.capacity, Some(Capacity::RequestsPerSecond(200.0)));
    let seconds = Duration::from_secs;
    let connection = Connection { connect_timeout: seconds(3), max_requests: 500, max_pending_requests: 50 };
    assert_eq!(policy.spec.connection, Some(connection));
    let warmup = Warmup { hold: seconds(5), window: seconds(30), aggression: 1.5, min_percent: 20 };
    assert_eq!(policy.spec.load_balancer, Some(LoadBalancer { warmup: Some(warmup), ..LoadBalancer::default() }));
    let detection = OutlierDetection {
        consecutive_errors: 3,
        interval: seconds(2),
        base_ejection_time: seconds(20),
        max_ejection_percent: 30,
        eject_whole_locality: false,
    };
    assert_eq!(policy.spec.outlier_detection, Some(detection));
    assert_eq!(policy.spec.timeout, Some(Duration::from_secs(2)));
    let retry = policy.spec.retry.unwrap();
    assert_eq!((retry.attempts, retry.on.len(), retry.backoff.max), (3, 2, seconds(1)));
    assert_eq!((retry.per_try_timeout, retry.budget_percent), (Some(Duration::from_millis(500)), 10));
}

#[test]
fn what_a_policy_does_not_say_has_the_documented_defaults() {
    let PolicyObject::TrafficPolicy(policy) = one(&policy(
        "  locality: {}\n  retry: {}\n  connection: {}\n  loadBalancer: {warmup: {}}\n  outlierDetection: {}",
    )) else {
        panic!("not a TrafficPolicy")
    };
    assert_eq!(policy.spec.locality, Some(LocalityPolicy::default()));
    assert_eq!(policy.spec.retry, Some(Retry::default()));
    assert_eq!(policy.spec.connection, Some(Connection::default()));
    assert_eq!(policy.spec.load_balancer.unwrap().warmup, Some(Warmup::default()));
    assert_eq!(policy.spec.outlier_detection, Some(OutlierDetection::default()));
    let PolicyObject::Drain(drain) = one(&drain("scope: {region: us-east}, reason: test")) else {
        panic!("not a Drain")
    };
    assert_eq!((drain.spec.percent, drain.spec.over, drain.spec.force), (100, Duration::from_secs(300), false));
}

#[test]
fn what_does_not_exist_yet_is_refused_as_such() {
    for (spec, field, column) in [
        ("  rollout: {regions: [eu-west]}", "rollout", 12),
        ("  capacity: {concurrentRequests: 5}", "capacity.concurrentRequests", 34),
        ("  loadBalancer: {hotCold: {}}", "loadBalancer.hotCold", 27),
    ] {
        check(&policy(spec), &[&format!("6:{column}: `spec.{field}` is not supported yet")]);
    }
    check(
        &policy("  loadBalancer: {type: Custom}"),
        &["6:24: `spec.loadBalancer.type: Custom` is not supported yet; expected `LeastRequest`, `RoundRobin`, \
         `WeightedRoundRobin`, `PeakEwma`, `RingHash`, `Maglev`, `HotCold`, `RequestCost` or `PrefixAffinity`"],
    );
    check(
        &policy("  loadBalancer: {type: PeakEwma, leastRequest: {}}"),
        &["6:48: `leastRequest` says nothing of a load balancer of the type PeakEwma; expected `type: LeastRequest`, \
         or no `leastRequest`"],
    );
    check(
        &policy("  loadBalancer: {type: PeakEwma, warmup: {}}"),
        &["6:42: no client warms endpoints up under PeakEwma; expected `LeastRequest` or `RoundRobin`, or no `warmup`"],
    );
    check(
        &policy("  loadBalancer: {leastRequest: {choiceCount: 3}}"),
        &["6:46: `spec.loadBalancer.leastRequest.choiceCount: 3` is not supported yet; expected 2"],
    );
}

#[test]
fn who_goes_by_keys_names_the_header_that_holds_them() {
    for (spec, strategy, header) in [
        ("  loadBalancer: {type: RingHash, ringHash: {header: X-User}}", Balancer::RingHash, "x-user"),
        ("  loadBalancer: {type: Maglev, maglev: {header: cart_id}}", Balancer::Maglev, "cart_id"),
    ] {
        let PolicyObject::TrafficPolicy(policy) = one(&policy(spec)) else { panic!("not a TrafficPolicy") };
        let hash_header = Some(header.to_owned());
        assert_eq!(policy.spec.load_balancer, Some(LoadBalancer { strategy, hash_header, warmup: None }));
    }
    for (spec, problem) in [
        ("type: RingHash", "24: RingHash has no key to go by; expected `ringHash: {header: NAME}` beside it"),
        (
            "type: PeakEwma, maglev: {header: a}",
            "42: `maglev` says nothing of a load balancer of the type PeakEwma; expected `type: Maglev`, or no `maglev`",
        ),
        (
            "type: Maglev, maglev: {header: 'a b'}",
            "49: `a b` is no name of a header; expected letters, digits and hyphens, such as `x-session`",
        ),
        (
            "type: Maglev, maglev: {header: ':path'}",
            "49: `:path` is no name of a header; expected letters, digits and hyphens, such as `x-session`",
        ),
        (
            "type: RingHash, ringHash: {header: key-bin}",
            "53: `key-bin` is a binary header, which no client hashes; expected a header whose value is text",
        ),
        (
            "type: RingHash, ringHash: {header: a}, warmup: {}",
            "65: no client warms endpoints up under RingHash; expected `LeastRequest` or `RoundRobin`, or no `warmup`",
        ),
    ] {
        check(&policy(&format!("  loadBalancer: {{{spec}}}")), &[&format!("6:{problem}")]);
    }
}

#[test]
fn a_port_is_named_of_a_service_alone() {
    let target = |target: &str| policy("").replace("kind: Service, name: checkout}]", target);
    let PolicyObject::TrafficPolicy(policy) = one(&target("kind: Service, name: checkout, sectionName: grpc}]")) else {
        panic!("not a TrafficPolicy")
    };
    let grpc = TargetRef::Service { name: "checkout".to_owned(), section_name: Some("grpc".to_owned()) };
    assert_eq!(policy.spec.target_refs, [grpc]);
    check(
        &target("kind: Service, name: checkout, sectionName: ''}]"),
        &["5:72: `sectionName` is empty: leave it out for all ports; expected a port's name"],
    );
    check(&target("kind: Namespace, name: shop, sectionName: grpc}]"), &["5:70: only a Service has ports to name"]);
}

#[test]
fn wrong_policies() {
    check(
        &policy("  timout: 2s"),
        &["6:3: unknown field `timout`; expected `targetRefs`, `locality`, `capacity`, `loadBalancer`, `connection`, \
         `outlierDetection`, `timeout`, `retry` or `rollout`; did you mean `timeout`?"],
    );
    check(&policy("  timeout: 0s"), &["6:12: a timeout of zero fails every request; expected more than 0s"]);
    check(
        &policy("  timeout: 1s\n  retry: {perTryTimeout: 2s, budgetPercent: 0}"),
        &[
            "7:26: one try may take longer than the whole request; expected at most `timeout`",
            "7:45: `retry.budgetPercent` is 0; expected a whole number from 1 to 100",
        ],
    );
    check(
        &policy("  loadBalancer: {warmup: {window: 0s, aggression: -1, minPercent: 101}}"),
        &[
            "6:35: `warmup.window` is zero; expected more than 0s",
            "6:51: `warmup.aggression` is -1; expected more than 0; 1 is a straight line",
            "6:67: `warmup.minPercent` is 101; expected a whole number from 1 to 100",
        ],
    );
    check(
        &policy("  outlierDetection: {consecutiveErrors: 0, interval: 0s, maxEjectionPercent: 101}"),
        &[
            "6:41: `outlierDetection.consecutiveErrors` is 0; expected a whole number from 1 to 4294967295",
            "6:54: `outlierDetection.interval` is zero; expected more than 0s",
            "6:78: `outlierDetection.maxEjectionPercent` is 101; expected a whole number from 0 to 100",
        ],
    );
    check(
        &policy("  connection: {connectTimeout: 0s, maxPendingRequests: 0}"),
        &[
            "6:32: `connection.connectTimeout` is zero; expected more than 0s",
            "6:56: `connection.maxPendingRequests` is 0; expected a whole number from 1 to 4294967295",
        ],
    );
    check(
        &policy("  loadBalancer: {type: LeastRequests}"),
        &["6:24: unknown load balancer `LeastRequests`; expected `LeastRequest`, `RoundRobin`, `WeightedRoundRobin`, \
         `PeakEwma`, `RingHash`, `Maglev`, `HotCold`, `RequestCost`, `PrefixAffinity` or `Custom`; \
         did you mean `LeastRequest`?"],
    );
    check(
        &policy("  locality: {targetUtilizationPercent: 0, overprovisioningPercent: 99}"),
        &[
            "6:40: `targetUtilizationPercent` is 0; expected a whole number from 1 to 100",
            "6:68: `overprovisioningPercent` is 99; expected a whole number from 100 to 1000",
        ],
    );
    check(
        &policy("  locality: {failover: [{region: us-wst, weight: 1}], allowedRegions: [eu-wset]}"),
        &[
            "6:34: unknown region `us-wst`; expected `us-east`, `us-west` or `eu-west`; did you mean `us-west`?",
            "6:72: unknown region `eu-wset`; expected `us-east`, `us-west` or `eu-west`; did you mean `eu-west`?",
        ],
    );
    check(
        &policy("  locality: {failover: [{region: us-west, weight: 0}]}"),
        &["6:24: every weight is zero; expected a region with a weight above 0"],
    );
    check(
        &policy("  locality: {clusterWeights: [{cluster: use1a, weight: 0}]}"),
        &[
            "6:30: every weight is zero; expected a cluster with a weight above 0",
            "6:41: unknown cluster `use1a`; expected `use1-a`, `use1-b`, `usw2-a`, `usw2-b`, `euw1-a` or `euw1-b`; \
         did you mean `use1-a`?",
        ],
    );
    let both = "failover: [{region: us-west, weight: 1}], clusterWeights: [{cluster: use1-a, weight: 1}]";
    check(
        &policy(&format!("  locality: {{{both}}}")),
        &["6:24: `failover` and `clusterWeights` exclude each other: cluster weights stand instead of tiers"],
    );
    check(
        &policy("  locality: {preference: Zoen}"),
        &["6:26: `preference`: unknown value `Zoen`; expected `Zone`, `Region` or `None`; did you mean `Zone`?"],
    );
    check(&policy("  capacity: {requestsPerSecond: 0}"), &["6:33: `requestsPerSecond` is 0; expected more than 0"]);
    check(
        &policy("  retry: {on: [UNAVAILBLE]}"),
        &[
            "6:16: unknown value `UNAVAILBLE`; expected `CANCELLED`, `DEADLINE_EXCEEDED`, `INTERNAL`, `RESOURCE_EXHAUSTED` \
         or `UNAVAILABLE`; did you mean `UNAVAILABLE`?",
        ],
    );
    check(
        &policy("  retry: {backoff: {base: 2s, max: 1s}}"),
        &["6:20: the backoff cannot grow; expected 0 < base ≤ max"],
    );
    check(
        &policy("").replace("kind: Service", "kind: Sevice"),
        &["5:34: a policy cannot target a `Sevice`; expected `Service` or `Namespace`; did you mean `Service`?"],
    );
    check(
        &policy("").replace("kind: Service, name: checkout", "kind: Namespace, name: bank"),
        &["5:51: the namespace `bank` is another than the policy's; expected `shop`"],
    );
    check(
        &policy("").replace(", namespace: shop", ""),
        &["3:18: a TrafficPolicy is in a namespace, that of what it targets; \
         expected the field `namespace` beside the name"],
    );
}

#[test]
fn wrong_drains() {
    check(
        &drain("scope: {region: us-east, zone: us-east-1a}, reason: r"),
        &["4:15: the scope names 2 places; expected exactly one of `region`, `cluster` and `zone`"],
    );
    check(
        &drain("scope: {}, reason: r"),
        &["4:15: the scope names 0 places; expected exactly one of `region`, `cluster` and `zone`"],
    );
    check(
        &drain("scope: {zone: us-east-1d}, reason: r"),
        &[
            "4:22: unknown zone `us-east-1d`; expected `us-east-1a`, `us-east-1b`, `us-east-1c`, `us-west-2a`, `us-west-2b`, \
         `us-west-2c`, `eu-west-1a`, `eu-west-1b` or `eu-west-1c`; did you mean `us-east-1a`?",
        ],
    );
    check(&drain("scope: {region: us-east}"), &["4:7: `spec`: the field `reason` is missing"]);
    check(
        &drain("scope: {region: us-east}, reason: ' '"),
        &["4:42: the reason is empty; expected why, for the people who find the Drain"],
    );
    check(
        &drain("scope: {region: us-east}, reason: r, percent: 101"),
        &["4:54: `percent` is 101; expected a whole number from 1 to 100"],
    );
    check(
        &drain("scope: {region: us-east}, reason: r, over: fast"),
        &[
            "4:51: `over`: not a duration; expected numbers with the units h, m, s or ms, such as `250ms`, `5s` or `1h30m`",
        ],
    );
    check(
        &drain("scope: {region: us-east}, reason: r, services: [checkout]"),
        &["4:56: `checkout` is not a service: expected SERVICE.NAMESPACE, such as `checkout.shop`"],
    );
    let times = "startTime: 2026-12-01T06:00:00Z, endTime: 2026-12-01T02:00:00Z";
    check(
        &drain(&format!("scope: {{region: us-east}}, reason: r, {times}")),
        &["4:87: `endTime` is not after `startTime`"],
    );
    check(
        &drain("scope: {region: us-east}, reason: r").replace("name: d", "name: d, namespace: shop"),
        &["3:32: a Drain is in no namespace; its name is unique in the federation"],
    );
}

#[test]
fn several_objects_a_list_and_json_read_alike() {
    let two = format!("{}---\n{}", policy(""), drain("scope: {region: us-east}, reason: r"));
    let objects = parse("p", &two, None).unwrap();
    assert_eq!(objects.len(), 2);
    let list = serde_json::json!({
        "apiVersion": "v1", "kind": "List",
        "items": objects.iter().map(PolicyObject::to_json).collect::<Vec<_>>()
    });
    assert_eq!(parse("p", &list.to_string(), None).unwrap(), objects);
    check(&format!("{two}---\n{}", policy("")), &["13:1: TrafficPolicy/shop/checkout stands in this text twice"]);
}

#[test]
fn what_is_no_policy_object_is_refused() {
    check(
        "apiVersion: portolan.dev/v1alpha1\nkind: Drian\n",
        &["2:7: `Drian` is not a policy object; expected `TrafficPolicy` or `Drain`; did you mean `Drain`?"],
    );
    check(
        "kind: Drain\nmetadata: {name: d}\nspec: {scope: {region: us-east}, reason: r}\n",
        &["1:1: the field `apiVersion` is missing; expected `portolan.dev/v1alpha1`"],
    );
    check(
        "[]",
        &[
            "1:1: the field `apiVersion` is missing; expected `portolan.dev/v1alpha1`",
            "1:1: the field `kind` is missing; expected `TrafficPolicy` or `Drain`",
        ],
    );
}

#[test]
fn what_a_server_adds_is_dropped() {
    let bare = policy("");
    let served = bare.replace(
        "namespace: shop",
        "namespace: shop, uid: u, resourceVersion: '7', creationTimestamp: 2026-01-01T00:00:00Z, generation: 3, \
         managedFields: [{a: b}], labels: {x: y}, annotations: {z: '1'}",
    );
    assert_eq!(one(&served), one(&bare));
}

#[test]
fn an_object_is_checked_against_a_topology_without_its_text() {
    let object = parse("p", &drain("scope: {cluster: use1-c}, reason: r"), None).unwrap().remove(0);
    let refused = check_against(&object, &topology()).unwrap_err();
    assert!(refused.first().headline().starts_with("Drain/d:"), "{refused}");
    assert_eq!(refused.first().suggestion.as_deref(), Some("use1-a"));
    let object = parse("p", &drain("scope: {cluster: use1-b}, reason: r"), None).unwrap().remove(0);
    check_against(&object, &topology()).unwrap();
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![(1_u64..1_000_000).prop_map(Duration::from_millis), (1_u64..9999).prop_map(Duration::from_secs)]
}

/// Names that a careless writer would turn into numbers, booleans or nulls are among them.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]([a-z0-9-]{0,6}[a-z0-9])?",
        "[0-9]{1,5}",
        Just("1e3".to_owned()),
        Just("true".to_owned()),
        Just("null".to_owned()),
        Just("no".to_owned())
    ]
}

fn regions() -> impl Strategy<Value = Vec<WeightedRegion>> {
    (subsequence(vec!["us-east", "us-west", "eu-west", "0123"], 1..4), 1_u32..).prop_map(|(regions, weight)| {
        let named = |region: &str| WeightedRegion { region: region.parse().unwrap(), weight };
        regions.into_iter().map(named).collect()
    })
}

fn locality() -> impl Strategy<Value = LocalityPolicy> {
    let preference = prop_oneof![Just(Preference::Zone), Just(Preference::Region), Just(Preference::None)];
    (preference, 1_u32..=100, 100_u32..=1000, option::of(regions()), any::<bool>(), option::of(regions()), duration())
        .prop_map(|(preference, target, over, weighted, by_cluster, allowed, ramp)| {
            let clusters = |list: Vec<WeightedRegion>| -> Vec<WeightedCluster> {
                let cluster = |to: WeightedRegion| WeightedCluster {
                    cluster: to.region.as_str().parse().unwrap(),
                    weight: to.weight,
                };
                list.into_iter().map(cluster).collect()
            };
            LocalityPolicy {
                preference,
                target_utilization_percent: target,
                overprovisioning_percent: over,
                failover: weighted.clone().filter(|_| !by_cluster),
                cluster_weights: weighted.filter(|_| by_cluster).map(clusters),
                allowed_regions: allowed.map(|list| list.into_iter().map(|to| to.region).collect()),
                failback: Failback { ramp, hold_down: ramp * 2 },
            }
        })
}

fn traffic_policy() -> impl Strategy<Value = PolicyObject> {
    let all = vec![
        RetryOn::Cancelled,
        RetryOn::DeadlineExceeded,
        RetryOn::Internal,
        RetryOn::ResourceExhausted,
        RetryOn::Unavailable,
    ];
    let retry = (1_u32..=10, subsequence(all, 1..=5), duration(), duration()).prop_map(|(attempts, on, a, b)| Retry {
        attempts,
        on,
        backoff: Backoff { base: a.min(b), max: a.max(b) },
        per_try_timeout: (attempts % 2 == 0).then_some(a),
        budget_percent: attempts * 10,
    });
    let capacity = (1_u32..).prop_map(|rps| Capacity::RequestsPerSecond(f64::from(rps) / 16.0));
    let connection =
        (1_u32.., 1_u32.., duration()).prop_map(|(max_requests, max_pending_requests, connect_timeout)| Connection {
            connect_timeout,
            max_requests,
            max_pending_requests,
        });
    let warmup = (duration(), duration(), 1_u32.., 1_u32..=100).prop_map(|(hold, window, sixteenths, min_percent)| {
        Warmup { hold, window, aggression: f64::from(sixteenths) / 16.0, min_percent }
    });
    let load_balancer = (option::of(warmup), 0..Balancer::ALL.len()).prop_map(|(warmup, which)| {
        let strategy = Balancer::ALL[which];
        let hash_header = strategy.keyed_by().map(|_| "x-session".to_owned());
        LoadBalancer { strategy, hash_header, warmup: warmup.filter(|_| strategy.warms_up()) }
    });
    let outlier_detection = (1_u32.., duration(), duration(), 0_u32..=100, any::<bool>()).prop_map(
        |(consecutive_errors, interval, base_ejection_time, max_ejection_percent, eject_whole_locality)| {
            OutlierDetection {
                consecutive_errors,
                interval,
                base_ejection_time,
                max_ejection_percent,
                eject_whole_locality,
            }
        },
    );
    (
        name(),
        name(),
        (any::<bool>(), option::of(name())),
        option::of(locality()),
        option::of(capacity),
        option::of(duration()),
        option::of(retry),
        option::of(connection),
        (option::of(load_balancer), option::of(outlier_detection)),
    )
        .prop_map(|(name, namespace, (whole, port), locality, capacity, timeout, retry, connection, rest)| {
            let target = match whole {
                true => TargetRef::Namespace { name: namespace.clone() },
                false => TargetRef::Service { name: name.clone(), section_name: port.clone() },
            };
            let (load_balancer, outlier_detection) = rest;
            // One try takes at most as long as the request.
            let within = |retry: Retry| Retry {
                per_try_timeout: retry.per_try_timeout.map(|tried| tried.min(timeout.unwrap_or(tried))),
                ..retry
            };
            let spec = TrafficPolicySpec {
                target_refs: vec![target],
                locality,
                capacity,
                timeout,
                retry: retry.map(within),
                connection,
                load_balancer,
                outlier_detection,
            };
            PolicyObject::TrafficPolicy(Box::new(TrafficPolicy { namespace, name, spec }))
        })
}

fn any_drain() -> impl Strategy<Value = PolicyObject> {
    let scope = (0_u8..3, name()).prop_map(|(kind, name)| match kind {
        0 => Scope::Region(name.parse().unwrap()),
        1 => Scope::Cluster(name.parse().unwrap()),
        _ => Scope::Zone(name.parse().unwrap()),
    });
    let service = (name(), name()).prop_map(|(name, namespace)| ServiceId::new(name, namespace).unwrap());
    let services = option::of(prop::collection::vec(service, 1..3));
    (
        name(),
        scope,
        services,
        1_u32..=100,
        duration(),
        option::of(0_i64..4_000_000_000),
        any::<bool>(),
        "\\PC{0,20}[a-z:#]",
    )
        .prop_map(|(name, scope, services, percent, over, start, force, reason)| {
            let at = |second: i64| Timestamp::from_second(second).unwrap();
            let spec = DrainSpec {
                scope,
                services,
                percent,
                over,
                restore_over: over * 3,
                start_time: start.map(at),
                end_time: start.map(|start| at(start + 60)),
                force,
                reason,
            };
            PolicyObject::Drain(Drain { name, spec })
        })
}

proptest! {
    #[test]
    fn a_written_object_reads_back_equal(object in prop_oneof![traffic_policy(), any_drain()]) {
        let yaml = object.to_yaml();
        let read = parse("p", &yaml, None).map_err(|refused| TestCaseError::fail(format!("{refused}\n{yaml}")))?;
        prop_assert_eq!(&read, std::slice::from_ref(&object), "{}", yaml);
        let json = object.to_json().to_string();
        let read = parse("p", &json, None).map_err(|refused| TestCaseError::fail(format!("{refused}\n{json}")))?;
        prop_assert_eq!(&read, std::slice::from_ref(&object));
        // Raft's own record.
        let record = serde_json::to_vec(&object).unwrap();
        prop_assert_eq!(serde_json::from_slice::<PolicyObject>(&record).unwrap(), object);
    }

    #[test]
    fn a_damaged_object_never_panics(at in 0_usize..200, length in 0_usize..30, by in "([ \\n]|[a-z0-9]|[:,{}&*!|>'\"\\[\\]#-]){0,8}") {
        let good = policy("  locality: {failover: [{region: us-west, weight: 1}]}\n  retry: {on: [INTERNAL]}");
        let end = (at + length).min(good.len());
        let text = format!("{}{by}{}", &good[..at.min(end)], &good[end..]);
        let _ = parse("damaged", &text, Some(&topology())).map_err(|refused| refused.to_string());
    }
}

#[test]
fn region_names_are_checked() {
    assert!("us_east".parse::<RegionName>().is_err());
    check(
        &drain("scope: {region: us_east}, reason: r"),
        &["4:24: `region`: `us_east` is not a region name: only lower-case letters, digits and `-` may stand in it"],
    );
}
