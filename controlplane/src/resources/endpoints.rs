//! ClusterLoadAssignment: a plan as xDS says it.

use std::collections::HashSet;

use envoy_types::pb::envoy::config::core::v3::{HealthStatus, Locality};
use envoy_types::pb::envoy::config::endpoint::v3::cluster_load_assignment::Policy;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as ProtoEndpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::google::protobuf::UInt32Value;
use portolan_topology::names::{Locality as OurLocality, ZoneName};
use portolan_topology::plan::PlannedLocality;
use portolan_topology::service::{Endpoint, Health};

use super::server::socket_address;
use super::shard;
use crate::catalog::served::ServedService;

/// In percent. The planner alone spills: while one endpoint in a thousand of a locality is healthy, Envoy neither
/// discounts its weight nor moves load to the next priority. gRPC has no such factor and does not read it.
const OVERPROVISIONING: u32 = 100_000;

/// The ClusterLoadAssignment `name`.
///
/// Priorities are contiguous from 0 and none is empty, a locality and an address stand in it once: clients refuse
/// anything else, whole.
pub(super) fn present(name: &str, service: &ServedService) -> ClusterLoadAssignment {
    let mut seen = HashSet::new();
    let mut endpoints = Vec::new();
    let mut priority = 0;
    for planned in &service.plan.priorities {
        let before = endpoints.len();
        for planned in planned {
            let listed = service.endpoints.get(&planned.locality).map(|listed| listed.as_slice()).unwrap_or_default();
            // An address in two places would be refused; the nearer one keeps it.
            let lb_endpoints: Vec<_> = listed
                .iter()
                .filter(|endpoint| seen.insert(endpoint.address))
                .map(|endpoint| lb_endpoint(endpoint, planned.unhealthy))
                .collect();
            if !lb_endpoints.is_empty() {
                endpoints.push(locality_endpoints(planned, priority, lb_endpoints));
            }
        }
        if endpoints.len() > before {
            priority += 1;
        }
    }
    assignment(name, endpoints)
}

/// The ClusterLoadAssignment of what does not exist, or has no endpoint anywhere.
pub(super) fn absent(name: &str) -> ClusterLoadAssignment {
    assignment(name, Vec::new())
}

fn assignment(name: &str, endpoints: Vec<LocalityLbEndpoints>) -> ClusterLoadAssignment {
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints,
        policy: Some(Policy {
            overprovisioning_factor: Some(UInt32Value { value: OVERPROVISIONING }),
            ..Policy::default()
        }),
        ..ClusterLoadAssignment::default()
    }
}

fn locality_endpoints(planned: &PlannedLocality, priority: u32, lb_endpoints: Vec<LbEndpoint>) -> LocalityLbEndpoints {
    LocalityLbEndpoints {
        locality: Some(locality(&planned.locality)),
        lb_endpoints,
        load_balancing_weight: Some(UInt32Value { value: planned.weight.get() }),
        priority,
        ..LocalityLbEndpoints::default()
    }
}

fn locality(locality: &OurLocality) -> Locality {
    Locality {
        region: locality.region.to_string(),
        zone: locality.zone.as_ref().map(ZoneName::to_string).unwrap_or_default(),
        sub_zone: locality.cluster.to_string(),
    }
}

fn lb_endpoint(endpoint: &Endpoint, unhealthy: bool) -> LbEndpoint {
    let health = match endpoint.health {
        _ if unhealthy => HealthStatus::Unhealthy,
        Health::Ready => HealthStatus::Healthy,
        Health::NotReady => HealthStatus::Unhealthy,
        Health::Draining => HealthStatus::Draining,
    };
    LbEndpoint {
        health_status: health.into(),
        load_balancing_weight: Some(UInt32Value { value: endpoint.weight.get() }),
        host_identifier: Some(HostIdentifier::Endpoint(ProtoEndpoint {
            address: Some(socket_address(endpoint.address)),
            ..ProtoEndpoint::default()
        })),
        metadata: endpoint.shard.as_deref().map(shard::metadata),
    }
}
