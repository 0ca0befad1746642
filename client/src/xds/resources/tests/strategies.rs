//! Settings of the strategies that hash and that weigh: taken as gRPC takes them, or refused.

use envoy_types::pb::envoy::config::cluster::v3::cluster::{LbConfig, MaglevLbConfig, RingHashLbConfig};
use envoy_types::pb::envoy::extensions::load_balancing_policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3::ConsistentHashingLbConfig;
use envoy_types::pb::envoy::extensions::load_balancing_policies::{maglev::v3::Maglev, ring_hash::v3::RingHash};
use envoy_types::pb::google::protobuf::{FloatValue, UInt64Value};

use super::*;
use crate::xds::balancing::{Lookup, Ring, TableSize, Weighting};

fn with(name: &str, config: &impl Message) -> Any {
    let mut cluster = cluster_of("c", "service");
    cluster.load_balancing_policy = Some(policies(vec![policy(name, config.encode_to_vec())]));
    pack(Kind::Cluster, &cluster)
}

fn legacy(lb_policy: LbPolicy, lb_config: Option<LbConfig>) -> Any {
    let cluster =
        ProtoCluster { load_balancing_policy: None, lb_policy: lb_policy.into(), lb_config, ..cluster_of("c", "s") };
    pack(Kind::Cluster, &cluster)
}

#[track_caller]
fn read(any: &Any) -> Balancing {
    match content(Kind::Cluster, any) {
        Ok(Decoded::Cluster(cluster)) => cluster.balancing[0].clone(),
        other => panic!("{other:?}"),
    }
}

fn number(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn balanced(percent: u32) -> Option<ConsistentHashingLbConfig> {
    let hash_balance_factor = Some(UInt32Value { value: percent });
    Some(ConsistentHashingLbConfig { hash_balance_factor, ..ConsistentHashingLbConfig::default() })
}

#[test]
fn a_ring_has_the_size_that_is_asked_for() {
    let with = |ring: RingHash| with("ring_hash.v3.RingHash", &ring);
    let sized = |least, most| RingHash { minimum_ring_size: least, maximum_ring_size: most, ..RingHash::default() };
    assert_eq!(
        read(&with(RingHash::default())),
        Balancing::RingHash(Ring { least: 0, most: 8 << 20, bound_percent: 125 })
    );
    let ring = Ring { least: 64, most: 128, ..Ring::default() };
    assert_eq!(read(&with(sized(number(64), number(128)))), Balancing::RingHash(ring));
    let bounded = RingHash { consistent_hashing_lb_config: balanced(150), hash_function: 1, ..RingHash::default() };
    assert_eq!(read(&with(bounded)), Balancing::RingHash(Ring { bound_percent: 150, ..Ring::default() }));
    let at = "load_balancing_policy.policies[0].typed_extension_config.typed_config.";
    let murmur = RingHash { hash_function: 2, ..RingHash::default() };
    let problem = format!("{at}hash_function error:unsupported value (must be XX_HASH)");
    refused(Kind::Cluster, &with(murmur), &problem);
    refused(Kind::Cluster, &with(sized(number(129), number(128))), "cannot be greater than maximum_ring_size");
    refused(Kind::Cluster, &with(sized(None, number(128))), "cannot be greater than maximum_ring_size");
    for (least, most, field) in
        [(number(8_388_609), None, "minimum_ring_size"), (None, number(u64::MAX), "maximum_ring_size")]
    {
        let problem = format!("{at}{field} error:must be in the range of 0 to 8388608");
        refused(Kind::Cluster, &with(sized(least, most)), &problem);
    }
    let unbalanced = RingHash { consistent_hashing_lb_config: balanced(99), ..RingHash::default() };
    refused(Kind::Cluster, &with(unbalanced), "hash_balance_factor error:must be at least 100");

    let older = |config: RingHashLbConfig| legacy(LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(config)));
    let given = RingHashLbConfig { minimum_ring_size: number(64), maximum_ring_size: number(128), hash_function: 0 };
    assert_eq!(read(&older(given)), Balancing::RingHash(ring));
    assert_eq!(read(&legacy(LbPolicy::RingHash, None)), Balancing::RingHash(Ring::default()));
    let murmur = RingHashLbConfig { hash_function: 1, ..given };
    refused(Kind::Cluster, &older(murmur), "field:ring_hash_lb_config.hash_function error:unsupported value");
}

#[test]
fn maglevs_table_has_the_size_that_is_asked_for() {
    let with = |maglev: Maglev| with("maglev.v3.Maglev", &maglev);
    let sized = |size| Maglev { table_size: number(size), ..Maglev::default() };
    assert_eq!(read(&with(Maglev::default())), Balancing::Maglev(Lookup { size: None, bound_percent: 125 }));
    let lookup = Lookup { size: TableSize::new(1009), ..Lookup::default() };
    assert_eq!(read(&with(sized(1009))), Balancing::Maglev(lookup));
    for bad in [0, 1000, 5_000_077] {
        refused(Kind::Cluster, &with(sized(bad)), "table_size error:must be a prime number, at most 5000011");
    }
    let older =
        |size| legacy(LbPolicy::Maglev, Some(LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: number(size) })));
    assert_eq!(read(&older(1009)), Balancing::Maglev(lookup));
    assert_eq!(read(&legacy(LbPolicy::Maglev, None)), Balancing::Maglev(Lookup::default()));
    refused(Kind::Cluster, &older(4), "field:maglev_lb_config.table_size error:must be a prime");
}

#[test]
fn weights_come_as_is_asked_for() {
    let with = |config: ClientSideWeightedRoundRobin| {
        with("client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin", &config)
    };
    let plain = ClientSideWeightedRoundRobin::default;
    let gives = |config, weighting| assert_eq!(read(&with(config)), Balancing::WeightedRoundRobin(weighting));
    gives(plain(), Weighting::default());
    let penalty = |value| Some(FloatValue { value });
    let config = ClientSideWeightedRoundRobin {
        blackout_period: seconds(0),
        weight_expiration_period: seconds(20),
        weight_update_period: Some(ProtoDuration { seconds: 0, nanos: 500_000_000 }),
        error_utilization_penalty: penalty(2.5),
        enable_oob_load_report: Some(BoolValue { value: false }),
        ..plain()
    };
    let expected = Weighting {
        blackout: Duration::ZERO,
        expiry: Duration::from_secs(20),
        update: Duration::from_millis(500),
        error_penalty: 2.5,
    };
    gives(config.clone(), expected);
    // As gRPC does it.
    let hasty = ClientSideWeightedRoundRobin { weight_update_period: seconds(0), ..config };
    gives(hasty, Weighting { update: Duration::from_millis(100), ..expected });
    for bad in [-0.1, f32::NAN, f32::INFINITY] {
        let config = ClientSideWeightedRoundRobin { error_utilization_penalty: penalty(bad), ..plain() };
        refused(Kind::Cluster, &with(config), "error_utilization_penalty error:must be greater than or equal to 0");
    }
    let backwards = ClientSideWeightedRoundRobin { blackout_period: seconds(-1), ..plain() };
    refused(Kind::Cluster, &with(backwards), "blackout_period error:-1 s 0 ns is not a duration");
    let oob = ClientSideWeightedRoundRobin { enable_oob_load_report: Some(BoolValue { value: true }), ..plain() };
    refused(Kind::Cluster, &with(oob), "enable_oob_load_report error:not supported yet");
}
