//! Assignments: localities, priorities, health, and what is refused.

use super::*;

fn one_zone(change: impl FnOnce(&mut LocalityLbEndpoints)) -> Any {
    let mut zone = zone(0, "a", 1, &["10.0.0.1:80"]);
    change(&mut zone);
    assignment_of("s", vec![zone])
}

fn one_endpoint(change: impl FnOnce(&mut LbEndpoint)) -> Any {
    one_zone(|zone| change(&mut zone.lb_endpoints[0]))
}

fn priorities(any: &Any) -> Vec<Vec<crate::xds::model::LocalityEndpoints>> {
    match content(Kind::ClusterLoadAssignment, any) {
        Ok(Decoded::ClusterLoadAssignment(endpoints)) => endpoints.priorities.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn endpoints_come_by_priority_and_locality() {
    let any = assignment_of(
        "s",
        vec![zone(1, "b", 2, &["10.0.0.2:80"]), zone(0, "a", 7, &["::1:80"]), zone(0, "c", 0, &["10.0.0.2:80"])],
    );
    let read = priorities(&any);
    assert_eq!(read.len(), 2);
    assert_eq!(read[0].len(), 1, "a locality without weight is passed over");
    assert_eq!((&*read[0][0].locality.zone, read[0][0].weight), ("a", 7));
    assert_eq!(read[0][0].endpoints[0].address, "[::1]:80".parse().unwrap());
    assert_eq!(&*read[1][0].locality.zone, "b");
    assert!(priorities(&assignment_of("s", vec![])).is_empty());
}

#[test]
fn health_decides_who_takes_requests() {
    for (status, health) in [
        (HealthStatus::Unknown, EndpointHealth::Healthy),
        (HealthStatus::Healthy, EndpointHealth::Healthy),
        (HealthStatus::Draining, EndpointHealth::Draining),
        (HealthStatus::Unhealthy, EndpointHealth::Unhealthy),
        (HealthStatus::Timeout, EndpointHealth::Unhealthy),
        (HealthStatus::Degraded, EndpointHealth::Unhealthy),
    ] {
        let read = priorities(&one_endpoint(|endpoint| endpoint.health_status = status.into()));
        assert_eq!(read[0][0].endpoints[0].health, health);
    }
    let unheard_of = priorities(&one_endpoint(|endpoint| endpoint.health_status = 99));
    assert_eq!(unheard_of[0][0].endpoints[0].health, EndpointHealth::Unhealthy);
}

#[test]
fn an_assignment_that_c_core_refuses_is_refused() {
    let refused = |any: &Any, expected: &str| refused(Kind::ClusterLoadAssignment, any, expected);
    refused(&assignment_of("s", vec![zone(1, "a", 1, &["10.0.0.1:80"])]), "priority 0 is empty");
    refused(&assignment_of("s", vec![zone(0, "a", 1, &[]), zone(2, "b", 1, &[])]), "priority 1 is empty");
    refused(&assignment_of("s", vec![zone(0, "a", 0, &[]), zone(1, "b", 1, &[])]), "priority 0 is empty");
    refused(&one_zone(|zone| zone.locality = None), "endpoints[0].locality error:must be set");
    let twice = vec![zone(0, "a", 1, &["10.0.0.1:80"]), zone(1, "b", 1, &["10.0.0.1:80"])];
    refused(&assignment_of("s", twice), "duplicate endpoint address 10.0.0.1:80");
    refused(
        &assignment_of("s", vec![zone(0, "a", 1, &[]), zone(0, "a", 1, &[])]),
        "duplicate locality us/a/one in priority 0",
    );
    refused(&assignment_of("s", vec![zone(0, "a", u32::MAX, &[]), zone(0, "b", 1, &[])]), "exceeds uint32 max");
    refused(&one_zone(|zone| zone.lb_endpoints = vec![endpoint("shop.local:80")]), "host names are not resolved");
    refused(&one_zone(|zone| zone.lb_endpoints = vec![endpoint("10.0.0.1:70000")]), "must be between 1 and 65535");
    refused(
        &one_endpoint(|endpoint| endpoint.load_balancing_weight = Some(UInt32Value { value: 0 })),
        "load_balancing_weight error:must be greater",
    );
    refused(
        &one_endpoint(|endpoint| endpoint.host_identifier = Some(HostIdentifier::EndpointName("e".to_owned()))),
        "endpoint error:must be set",
    );
    let heavy = |endpoint: &mut LbEndpoint| endpoint.load_balancing_weight = Some(UInt32Value { value: u32::MAX });
    let sum = one_zone(|zone| {
        zone.lb_endpoints.push(endpoint("10.0.0.2:80"));
        zone.lb_endpoints.iter_mut().for_each(heavy);
    });
    refused(&sum, "sum of endpoint weights exceeds");

    use cluster_load_assignment::{Policy, policy::DropOverload};
    let percent = envoy_types::pb::envoy::r#type::v3::FractionalPercent { numerator: 5, denominator: 0 };
    let drop = DropOverload { category: "lb".to_owned(), drop_percentage: Some(percent) };
    let policy = Some(Policy { drop_overloads: vec![drop], ..Policy::default() });
    let drops = ClusterLoadAssignment { cluster_name: "s".to_owned(), policy, ..ClusterLoadAssignment::default() };
    refused(&pack(Kind::ClusterLoadAssignment, &drops), "drop_overloads error:not supported yet");
}
