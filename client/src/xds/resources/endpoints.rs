//! EDS: a cluster's endpoints by priority and locality. The rules are those of gRPC's C-core.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};

use envoy_types::pb::envoy::config::core::v3::{
    Address, HealthStatus, SocketAddress, address::Address as AddressKind, socket_address::PortSpecifier,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};

use super::{Invalid, parse};
use crate::xds::model::{AssignedEndpoint, EndpointHealth, LocalityEndpoints, LocalityName};

/// A ClusterLoadAssignment: localities by priority.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoints {
    /// Highest priority first; none of them empty.
    pub priorities: Vec<Vec<LocalityEndpoints>>,
}

pub(super) fn decode(bytes: &[u8]) -> Result<(String, Result<Endpoints, Invalid>), Invalid> {
    let mut proto: ClusterLoadAssignment = parse("", bytes)?;
    Ok((std::mem::take(&mut proto.cluster_name), validate(&proto)))
}

fn validate(proto: &ClusterLoadAssignment) -> Result<Endpoints, Invalid> {
    let drops = proto.policy.as_ref().map_or(&[][..], |policy| &policy.drop_overloads);
    if drops.iter().any(|drop| drop.drop_percentage.as_ref().is_some_and(|percentage| percentage.numerator > 0)) {
        return Err(Invalid::new("policy.drop_overloads", "not supported yet"));
    }
    let mut priorities: BTreeMap<u32, Vec<LocalityEndpoints>> = BTreeMap::new();
    let mut addresses = HashSet::new();
    for (i, proto_locality) in proto.endpoints.iter().enumerate() {
        let at = |invalid: Invalid| invalid.below(format_args!("endpoints[{i}]"));
        let Some(locality) = locality(proto_locality, &mut addresses).map_err(at)? else { continue };
        priorities.entry(proto_locality.priority).or_default().push(locality);
    }
    for (expected, (priority, localities)) in (0..).zip(&priorities) {
        if *priority != expected {
            return Err(Invalid::new("endpoints", format!("priority {expected} is empty, though {priority} is not")));
        }
        check_priority(expected, localities)?;
    }
    Ok(Endpoints { priorities: priorities.into_values().collect() })
}

fn check_priority(priority: u32, localities: &[LocalityEndpoints]) -> Result<(), Invalid> {
    let mut names = BTreeSet::new();
    for locality in localities {
        if !names.insert(&locality.locality) {
            let LocalityName { region, zone, sub_zone } = &locality.locality;
            let problem = format!("duplicate locality {region}/{zone}/{sub_zone} in priority {priority}");
            return Err(Invalid::new("endpoints", problem));
        }
    }
    let sum: u64 = localities.iter().map(|locality| u64::from(locality.weight)).sum();
    if sum > u64::from(u32::MAX) {
        let problem = format!("sum of locality weights for priority {priority} exceeds uint32 max");
        return Err(Invalid::new("endpoints", problem));
    }
    Ok(())
}

/// A locality; `None` if it has no weight and is passed over.
fn locality(
    proto: &LocalityLbEndpoints,
    addresses: &mut HashSet<SocketAddr>,
) -> Result<Option<LocalityEndpoints>, Invalid> {
    let Some(weight) = proto.load_balancing_weight.as_ref().map(|weight| weight.value).filter(|weight| *weight > 0)
    else {
        return Ok(None);
    };
    let name = proto.locality.as_ref().ok_or_else(|| Invalid::new("locality", "must be set"))?;
    if proto.lb_config.is_some() {
        return Err(Invalid::new("leds_cluster_locality_config", "not supported yet"));
    }
    let mut endpoints = Vec::with_capacity(proto.lb_endpoints.len());
    let mut sum = 0u64;
    for (i, proto_endpoint) in proto.lb_endpoints.iter().enumerate() {
        let at = |invalid: Invalid| invalid.below(format_args!("lb_endpoints[{i}]"));
        let endpoint = endpoint(proto_endpoint).map_err(at)?;
        if !addresses.insert(endpoint.address) {
            return Err(at(Invalid::new(
                "endpoint.address",
                format!("duplicate endpoint address {}", endpoint.address),
            )));
        }
        sum += u64::from(endpoint.weight);
        endpoints.push(endpoint);
    }
    if sum > u64::from(u32::MAX) {
        return Err(Invalid::new("lb_endpoints", "sum of endpoint weights exceeds uint32 max"));
    }
    let locality = LocalityName {
        region: name.region.as_str().into(),
        zone: name.zone.as_str().into(),
        sub_zone: name.sub_zone.as_str().into(),
    };
    Ok(Some(LocalityEndpoints { locality, weight, endpoints }))
}

fn endpoint(proto: &LbEndpoint) -> Result<AssignedEndpoint, Invalid> {
    let weight = proto.load_balancing_weight.as_ref().map_or(1, |weight| weight.value);
    if weight == 0 {
        return Err(Invalid::new("load_balancing_weight", "must be greater than 0"));
    }
    let Some(HostIdentifier::Endpoint(endpoint)) = &proto.host_identifier else {
        return Err(Invalid::new("endpoint", "must be set"));
    };
    if !endpoint.additional_addresses.is_empty() {
        return Err(Invalid::new("endpoint.additional_addresses", "not supported yet"));
    }
    let address = address(endpoint.address.as_ref()).map_err(|invalid| invalid.below("endpoint.address"))?;
    let health = match HealthStatus::try_from(proto.health_status) {
        Ok(HealthStatus::Unknown | HealthStatus::Healthy) => EndpointHealth::Healthy,
        Ok(HealthStatus::Draining) => EndpointHealth::Draining,
        _ => EndpointHealth::Unhealthy,
    };
    Ok(AssignedEndpoint { address, weight, health })
}

fn address(proto: Option<&Address>) -> Result<SocketAddr, Invalid> {
    let Some(AddressKind::SocketAddress(SocketAddress { address, port_specifier, .. })) =
        proto.and_then(|it| it.address.as_ref())
    else {
        return Err(Invalid::new("socket_address", "must be set"));
    };
    let ip: IpAddr = address.parse().map_err(|_| {
        Invalid::new("socket_address.address", format!("`{address}` is not an IP address; host names are not resolved"))
    })?;
    let port = match port_specifier {
        Some(PortSpecifier::PortValue(port)) => u16::try_from(*port).ok().filter(|port| *port > 0),
        _ => None,
    };
    let port = port.ok_or_else(|| Invalid::new("socket_address.port_value", "must be between 1 and 65535"))?;
    Ok(SocketAddr::new(ip, port))
}
