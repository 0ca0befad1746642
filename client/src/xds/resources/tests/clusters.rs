//! Clusters: what a balancer must know, and what is refused.

use super::*;
use crate::xds::balancing::{Lookup, Ring, Weighting};

fn clustered(change: impl FnOnce(&mut ProtoCluster)) -> Any {
    let mut cluster = cluster_of("c", "service");
    change(&mut cluster);
    pack(Kind::Cluster, &cluster)
}

fn ours(name: &str, value: ValueKind) -> Option<Metadata> {
    let fields = [(name.to_owned(), Value { kind: Some(value) })].into();
    Some(Metadata { filter_metadata: [("portolan.dev".to_owned(), Struct { fields })].into(), ..Metadata::default() })
}

#[test]
fn a_cluster_says_what_a_balancer_must_know() {
    let read = |any: &Any| match content(Kind::Cluster, any) {
        Ok(Decoded::Cluster(cluster)) => (*cluster).clone(),
        other => panic!("{other:?}"),
    };
    let plain = Cluster {
        discovery: cluster::Discovery::Eds("service".to_owned()),
        balancing: vec![Balancing::LeastRequest],
        max_retries: None,
        max_requests: Some(500),
        max_pending_requests: None,
        connect_timeout: Duration::from_secs(1),
        outlier_detection: OutlierDetection::default(),
        warmup: Warmup::default(),
        retry_percent: 20,
        failback: Failback::default(),
        report_load: false,
    };
    assert_eq!(read(&clustered(|_| ())), plain);
    let unlimited = clustered(|cluster| cluster.circuit_breakers = None);
    assert_eq!(read(&unlimited), Cluster { max_requests: None, ..plain.clone() });
    let slow = |limit| clustered(|cluster| cluster.connect_timeout = limit);
    assert_eq!(read(&slow(seconds(3))).connect_timeout, Duration::from_secs(3));
    refused(Kind::Cluster, &slow(seconds(0)), "connect_timeout error:must be greater than 0");
    let broken = |thresholds: Thresholds| {
        let breakers = CircuitBreakers { thresholds: vec![thresholds], ..CircuitBreakers::default() };
        let read = read(&clustered(|cluster| cluster.circuit_breakers = Some(breakers)));
        (read.max_pending_requests, read.max_retries)
    };
    let number = |value| Some(UInt32Value { value });
    let limits = Thresholds { max_pending_requests: number(9), max_retries: number(4), ..Thresholds::default() };
    assert_eq!(broken(limits), (Some(9), Some(4)));
    let budget = Some(RetryBudget::default());
    assert_eq!(broken(Thresholds { retry_budget: budget, ..limits }), (Some(9), None), "a budget stands in its place");
    let budgeted = |value: f64| {
        let retry_budget = Some(RetryBudget { budget_percent: Some(Percent { value }), ..RetryBudget::default() });
        let thresholds = vec![Thresholds { retry_budget, ..Thresholds::default() }];
        clustered(|cluster| cluster.circuit_breakers = Some(CircuitBreakers { thresholds, ..Default::default() }))
    };
    assert_eq!(read(&budgeted(5.0)).retry_percent, 5);
    refused(Kind::Cluster, &budgeted(101.0), "retry_budget.budget_percent error:must be from 0 to 100");
    let reporting = clustered(|cluster| cluster.lrs_server = this_server());
    assert!(read(&reporting).report_load);
    let ramped = clustered(|cluster| cluster.metadata = ours("failbackRampMs", ValueKind::NumberValue(1500.0)));
    assert_eq!(read(&ramped).failback, Failback { ramp: Duration::from_millis(1500), ..Failback::default() });
    let held = clustered(|cluster| cluster.metadata = ours("failbackHoldDownMs", ValueKind::NumberValue(0.0)));
    assert_eq!(read(&held).failback, Failback { hold_down: Duration::ZERO, ..Failback::default() });
}

#[test]
fn a_cluster_says_when_an_endpoint_is_broken_and_when_it_is_warm() {
    let read = |any: &Any| match content(Kind::Cluster, any) {
        Ok(Decoded::Cluster(cluster)) => (*cluster).clone(),
        other => panic!("{other:?}"),
    };
    let number = |value| Some(UInt32Value { value });
    let detecting = |detection: Detection| clustered(|cluster| cluster.outlier_detection = Some(detection));
    let whole = Detection {
        consecutive_5xx: number(3),
        interval: seconds(2),
        base_ejection_time: seconds(20),
        max_ejection_percent: number(30),
        ..Detection::default()
    };
    let expected = OutlierDetection {
        consecutive_errors: 3,
        interval: Duration::from_secs(2),
        base_ejection_time: Duration::from_secs(20),
        max_ejection_percent: 30,
        eject_whole_locality: true,
    };
    assert_eq!(read(&detecting(whole.clone())).outlier_detection, expected);
    let one_by_one = clustered(|cluster| {
        cluster.outlier_detection = Some(whole.clone());
        cluster.metadata = ours("ejectWholeLocality", ValueKind::BoolValue(false));
    });
    assert!(!read(&one_by_one).outlier_detection.eject_whole_locality);
    let never = Detection { enforcing_consecutive_5xx: number(0), ..whole.clone() };
    assert_eq!(read(&detecting(never)).outlier_detection.consecutive_errors, u32::MAX);
    let never = Detection { interval: seconds(0), ..whole.clone() };
    refused(Kind::Cluster, &detecting(never), "outlier_detection.interval error:must be greater than 0");
    let all = Detection { max_ejection_percent: number(101), ..whole };
    refused(Kind::Cluster, &detecting(all), "outlier_detection.max_ejection_percent error:must be at most 100");
    let text = ours("ejectWholeLocality", ValueKind::StringValue("no".to_owned()));
    refused(Kind::Cluster, &clustered(|cluster| cluster.metadata = text), "must be true or false");

    let slow = |aggression, percent| {
        let slow_start_config = Some(SlowStartConfig {
            slow_start_window: seconds(30),
            aggression: Some(RuntimeDouble { default_value: aggression, runtime_key: "key".to_owned() }),
            min_weight_percent: Some(Percent { value: percent }),
        });
        let least_request = LeastRequest { slow_start_config, ..LeastRequest::default() };
        let list = policies(vec![policy("least_request.v3.LeastRequest", least_request.encode_to_vec())]);
        clustered(|cluster| cluster.load_balancing_policy = Some(list))
    };
    let expected = Warmup { window: Duration::from_secs(30), aggression: 1.5, least: 0.2 };
    assert_eq!(read(&slow(1.5, 20.0)).warmup, expected);
    refused(Kind::Cluster, &slow(0.0, 20.0), "slow_start_config.aggression error:must be greater than 0");
    refused(Kind::Cluster, &slow(1.0, 101.0), "slow_start_config.min_weight_percent error:must be from 0 to 100");
}

#[test]
fn a_cluster_that_we_cannot_do_is_refused() {
    let dns = clustered(|cluster| cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(1)));
    refused(Kind::Cluster, &dns, "type error:only EDS clusters");
    refused(
        Kind::Cluster,
        &clustered(|cluster| cluster.eds_cluster_config = None),
        "eds_cluster_config error:must be set",
    );
    let elsewhere = clustered(|cluster| cluster.eds_cluster_config.as_mut().unwrap().eds_config = None);
    refused(Kind::Cluster, &elsewhere, "must be ads or self");
    refused(Kind::Cluster, &clustered(|cluster| cluster.lrs_server = ads()), "lrs_server error:must be self");
    let tls = clustered(|cluster| cluster.transport_socket = Some(TransportSocket::default()));
    refused(Kind::Cluster, &tls, "transport_socket error:not supported yet");
    for value in [f64::NAN, -1.0, f64::INFINITY, 1e12] {
        let ramp = clustered(|cluster| cluster.metadata = ours("failbackRampMs", ValueKind::NumberValue(value)));
        refused(Kind::Cluster, &ramp, "portolan.dev.failbackRampMs error:must be a number of milliseconds");
    }
    let text = clustered(|cluster| cluster.metadata = ours("failbackRampMs", ValueKind::StringValue("1s".to_owned())));
    refused(Kind::Cluster, &text, "must be a number of milliseconds");
}

#[test]
fn of_a_list_of_policies_the_first_known_one_counts() {
    let with = |list| clustered(|cluster| cluster.load_balancing_policy = Some(list));
    let read = |list| match content(Kind::Cluster, &with(list)) {
        Ok(Decoded::Cluster(cluster)) => cluster.balancing.clone(),
        other => panic!("{other:?}"),
    };
    let unknown = || policy("random.v3.Random", Vec::new());
    let choices = |count: u32| {
        let choice_count = Some(UInt32Value { value: count });
        policy(
            "least_request.v3.LeastRequest",
            LeastRequest { choice_count, ..LeastRequest::default() }.encode_to_vec(),
        )
    };
    let named = |name: &str, fields: &[&str]| {
        let fields = fields.iter().map(|field| ((*field).to_owned(), Value::default())).collect();
        let type_url = format!("type.googleapis.com/{name}");
        let value = balancing::TypedStruct { type_url, value: Some(Struct { fields }) }.encode_to_vec();
        Any { type_url: "type.googleapis.com/xds.type.v3.TypedStruct".to_owned(), value }
    };
    for (name, expected) in [
        ("round_robin.v3.RoundRobin", Balancing::LeastRequest),
        (
            "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
            Balancing::WeightedRoundRobin(Weighting::default()),
        ),
        ("ring_hash.v3.RingHash", Balancing::RingHash(Ring::default())),
        ("maglev.v3.Maglev", Balancing::Maglev(Lookup::default())),
    ] {
        assert_eq!(read(policies(vec![unknown(), policy(name, Vec::new()), choices(2)])), [expected]);
    }
    assert_eq!(read(portolan_policy()), [Balancing::LeastRequest]);
    assert_eq!(read(policies(vec![choices(7)])), [Balancing::LeastRequest]);
    assert_eq!(read(policies(vec![named("portolan.PeakEwma", &[]), choices(2)])), [Balancing::PeakEwma]);
    let custom = |name: &str| Balancing::Custom(name.into());
    let list = policies(vec![named("shop.Mine", &["any"]), named("portolan.Later", &[]), choices(2), unknown()]);
    assert_eq!(read(list), [custom("shop.Mine"), custom("portolan.Later"), Balancing::LeastRequest]);
    assert_eq!(read(policies(vec![named("shop.Mine", &[])])), [custom("shop.Mine")]);
    let settings = policies(vec![named("portolan.PeakEwma", &["decay"])]);
    refused(Kind::Cluster, &with(settings), "value.decay error:portolan.PeakEwma has no settings");
    refused(Kind::Cluster, &with(policies(vec![named("", &[])])), "type_url error:names no policy");
    refused(Kind::Cluster, &with(policies(vec![unknown()])), "no supported load balancing policy");
    refused(Kind::Cluster, &with(policies(vec![])), "no supported load balancing policy");
    refused(Kind::Cluster, &with(policies(vec![choices(1)])), "choice_count error:must be at least 2");
    let broken = policy("wrr_locality.v3.WrrLocality", vec![0xff; 4]);
    refused(Kind::Cluster, &with(policies(vec![broken])), "cannot be parsed");

    let mut nested = policies(vec![policy("round_robin.v3.RoundRobin", Vec::new())]);
    for _ in 0..20 {
        let wrr = envoy_types::pb::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality {
            endpoint_picking_policy: Some(nested),
        };
        nested = policies(vec![policy("wrr_locality.v3.WrrLocality", wrr.encode_to_vec())]);
    }
    refused(Kind::Cluster, &with(nested), "nested too deep");

    let legacy = |lb_policy: LbPolicy| {
        clustered(|cluster| {
            cluster.load_balancing_policy = None;
            cluster.lb_policy = lb_policy.into();
        })
    };
    assert!(content(Kind::Cluster, &legacy(LbPolicy::RoundRobin)).is_ok());
    refused(Kind::Cluster, &legacy(LbPolicy::Random), "lb_policy error:LB policy is not supported");
}

#[test]
fn an_aggregate_names_its_clusters_in_order() {
    let read = |any: &Any| match content(Kind::Cluster, any) {
        Ok(Decoded::Cluster(cluster)) => cluster.discovery.clone(),
        other => panic!("{other:?}"),
    };
    let expected = cluster::Discovery::Aggregate(vec!["near".into(), "far".into()]);
    assert_eq!(read(&aggregate("all", &["near", "far"])), expected);
    refused(Kind::Cluster, &aggregate("all", &[]), "cluster_type.typed_config.clusters error:must not be empty");
    let custom = |name: &str, config| {
        clustered(|cluster| {
            let custom = CustomClusterType { name: name.to_owned(), typed_config: config };
            cluster.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(custom));
        })
    };
    refused(Kind::Cluster, &custom("envoy.clusters.aggregate", None), "cluster_type.typed_config error:must be set");
    let other = Any { type_url: "type.googleapis.com/x.Y".to_owned(), value: Vec::new() };
    refused(Kind::Cluster, &custom("envoy.clusters.aggregate", Some(other.clone())), "unsupported type");
    refused(Kind::Cluster, &custom("envoy.clusters.redis", Some(other)), "only EDS clusters and aggregates of them");
}
