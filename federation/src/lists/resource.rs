//! An endpoint list as an xDS resource: a `ClusterLoadAssignment` named `checkout.shop:8080`, and in the resource's
//! metadata what its publisher knew when it made it.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, HealthStatus, Locality, Metadata, SocketAddress};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as EnvoyEndpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::service::discovery::v3::Resource;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Any, Struct, UInt32Value, Value};
use portolan_topology::names::{ClusterName, RegionName, ServicePort, ZoneName};
use portolan_topology::service::{Endpoint, EndpointsByZone, Health};
use prost::Message;
use xxhash_rust::xxh3::Xxh3Default;

use crate::gossip::value::{ServiceStamp, Version};

/// The one type that control planes ask each other for.
pub(crate) const TYPE_URL: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// Our part of a resource's metadata.
const METADATA: &str = "portolan.dev";

/// Where an endpoint's metadata says its shard, as it does to clients.
const SHARD: (&str, &str) = ("envoy.lb", "shard");

/// An endpoint list and what its publisher knew when it made it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct List {
    /// Whether its source had been read completely.
    pub(crate) synced: bool,
    /// What the service's facts came to.
    pub(crate) stamp: ServiceStamp,
    pub(crate) endpoints: EndpointsByZone,
}

/// Why a resource is no list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ListError {
    #[error("`{0}` does not name a service port")]
    Name(String),
    #[error("the assignment is malformed: {0}")]
    Malformed(String),
    #[error("the metadata `{METADATA}` has no {0}")]
    Metadata(&'static str),
    #[error("an endpoint has no usable address: {0}")]
    Address(String),
    #[error("`{0}` is not a zone")]
    Zone(String),
}

/// Where a list comes from, as its localities say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Unknown once a cluster has left the topology.
    pub(crate) region: Option<RegionName>,
    pub(crate) cluster: ClusterName,
}

/// A list as a resource. Its version is a hash of its content, what the publisher knew included: a receiver must hear of
/// a new stamp as well.
pub(crate) fn encode(name: &ServicePort, list: &List, place: &Place) -> Resource {
    let assignment = ClusterLoadAssignment {
        cluster_name: name.to_string(),
        endpoints: list.endpoints.iter().map(|(zone, endpoints)| locality(zone.as_ref(), endpoints, place)).collect(),
        ..ClusterLoadAssignment::default()
    };
    let body = assignment.encode_to_vec();
    let mut hash = Xxh3Default::new();
    hash.update(&body);
    let ServiceStamp { version: Version { epoch, sequence }, count } = list.stamp;
    for number in [epoch, sequence, count, u64::from(list.synced)] {
        hash.update(&number.to_le_bytes());
    }
    // Numbers are text: a Struct's are doubles, and an epoch may be larger than they hold.
    let text = |number: u64| Kind::StringValue(number.to_string());
    let fields = [
        ("epoch", text(epoch)),
        ("sequence", text(sequence)),
        ("count", text(count)),
        ("synced", Kind::BoolValue(list.synced)),
    ];
    let fields = fields.map(|(key, kind)| (key.to_owned(), Value { kind: Some(kind) }));
    let metadata = Struct { fields: fields.into() };
    Resource {
        name: name.to_string(),
        version: format!("{:016x}", hash.digest()),
        resource: Some(Any { type_url: TYPE_URL.to_owned(), value: body }),
        metadata: Some(Metadata { filter_metadata: [(METADATA.to_owned(), metadata)].into(), ..Metadata::default() }),
        ..Resource::default()
    }
}

/// Reads a resource.
pub(crate) fn decode(resource: &Resource) -> Result<(ServicePort, List), ListError> {
    let name = resource.name.parse().map_err(|_| ListError::Name(resource.name.clone()))?;
    let body = resource.resource.as_ref().ok_or_else(|| ListError::Malformed("it has no body".to_owned()))?;
    let mut list = List { endpoints: endpoints(body)?, ..List::default() };
    let metadata = resource.metadata.as_ref().and_then(|metadata| metadata.filter_metadata.get(METADATA));
    let field = |key| metadata.and_then(|metadata| metadata.fields.get(key)?.kind.as_ref());
    let number = |key| match field(key) {
        Some(Kind::StringValue(text)) => text.parse().map_err(|_| ListError::Metadata(key)),
        _ => Err(ListError::Metadata(key)),
    };
    list.stamp.version = Version { epoch: number("epoch")?, sequence: number("sequence")? };
    list.stamp.count = number("count")?;
    list.synced = match field("synced") {
        Some(Kind::BoolValue(synced)) => *synced,
        _ => return Err(ListError::Metadata("synced")),
    };
    Ok((name, list))
}

/// The endpoints of an assignment, each zone's sorted by address and free of duplicates.
pub(crate) fn endpoints(body: &Any) -> Result<EndpointsByZone, ListError> {
    let assignment =
        ClusterLoadAssignment::decode(&*body.value).map_err(|error| ListError::Malformed(error.to_string()))?;
    let mut by_zone = EndpointsByZone::new();
    for locality in assignment.endpoints {
        let zone = locality.locality.map(|locality| locality.zone).filter(|zone| !zone.is_empty());
        let zone = zone.map(|zone| ZoneName::new(&zone).map_err(|_| ListError::Zone(zone))).transpose()?;
        let endpoints = by_zone.entry(zone).or_default();
        for endpoint in locality.lb_endpoints {
            endpoints.push(self::endpoint(endpoint)?);
        }
    }
    for endpoints in by_zone.values_mut() {
        endpoints.sort_by_key(|endpoint| endpoint.address);
        endpoints.dedup_by_key(|endpoint| endpoint.address);
    }
    Ok(by_zone)
}

fn locality(zone: Option<&ZoneName>, endpoints: &[Endpoint], place: &Place) -> LocalityLbEndpoints {
    LocalityLbEndpoints {
        locality: Some(Locality {
            region: place.region.as_ref().map(ToString::to_string).unwrap_or_default(),
            zone: zone.map(ToString::to_string).unwrap_or_default(),
            sub_zone: place.cluster.to_string(),
        }),
        lb_endpoints: endpoints.iter().map(lb_endpoint).collect(),
        load_balancing_weight: NonZeroU32::new(1).map(|weight| UInt32Value { value: weight.get() }),
        ..LocalityLbEndpoints::default()
    }
}

fn lb_endpoint(endpoint: &Endpoint) -> LbEndpoint {
    let health = match endpoint.health {
        Health::Ready => HealthStatus::Healthy,
        Health::NotReady => HealthStatus::Unhealthy,
        Health::Draining => HealthStatus::Draining,
    };
    let socket = SocketAddress {
        address: endpoint.address.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(endpoint.address.port().into())),
        ..SocketAddress::default()
    };
    let address = Address { address: Some(AddressKind::SocketAddress(socket)) };
    LbEndpoint {
        health_status: health.into(),
        load_balancing_weight: Some(UInt32Value { value: endpoint.weight.get() }),
        host_identifier: Some(HostIdentifier::Endpoint(EnvoyEndpoint {
            address: Some(address),
            ..EnvoyEndpoint::default()
        })),
        metadata: endpoint.shard.as_deref().map(shard_metadata),
    }
}

fn shard_metadata(shard: &str) -> Metadata {
    let value = Value { kind: Some(Kind::StringValue(shard.to_owned())) };
    let fields = Struct { fields: [(SHARD.1.to_owned(), value)].into() };
    Metadata { filter_metadata: [(SHARD.0.to_owned(), fields)].into(), ..Metadata::default() }
}

/// The shard that the metadata names. A peer's is believed, as its addresses are.
fn shard(metadata: Option<&Metadata>) -> Option<Arc<str>> {
    match metadata?.filter_metadata.get(SHARD.0)?.fields.get(SHARD.1)?.kind.as_ref()? {
        Kind::StringValue(shard) => Some(shard.as_str().into()),
        _ => None,
    }
}

fn endpoint(endpoint: LbEndpoint) -> Result<Endpoint, ListError> {
    let health = match endpoint.health_status() {
        HealthStatus::Healthy | HealthStatus::Unknown => Health::Ready,
        HealthStatus::Draining => Health::Draining,
        _ => Health::NotReady,
    };
    let weight = endpoint.load_balancing_weight.map_or(1, |weight| weight.value);
    let shard = shard(endpoint.metadata.as_ref());
    let unusable = |what: &str| ListError::Address(what.to_owned());
    let Some(HostIdentifier::Endpoint(endpoint)) = endpoint.host_identifier else {
        return Err(unusable("there is none"));
    };
    let Some(AddressKind::SocketAddress(socket)) = endpoint.address.and_then(|address| address.address) else {
        return Err(unusable("it is no socket address"));
    };
    let ip: IpAddr = socket.address.parse().map_err(|_| unusable(&socket.address))?;
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else {
        return Err(unusable("it has no port number"));
    };
    let port = u16::try_from(port).map_err(|_| unusable(&format!("port {port}")))?;
    Ok(Endpoint {
        address: SocketAddr::new(ip, port),
        weight: NonZeroU32::new(weight).unwrap_or(NonZeroU32::MIN),
        health,
        shard,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> Place {
        Place { region: RegionName::new("us").ok(), cluster: ClusterName::new("a").unwrap() }
    }

    fn lists() -> impl Strategy<Value = List> {
        let health = prop_oneof![Just(Health::Ready), Just(Health::NotReady), Just(Health::Draining)];
        let shard = prop::option::of("[a-z]{1,3}".prop_map(Arc::<str>::from));
        let endpoint = (any::<u16>(), 1u32.., health, shard).prop_map(|(port, weight, health, shard)| Endpoint {
            address: ([10, 0, 0, 1], port).into(),
            weight: NonZeroU32::new(weight).unwrap(),
            health,
            shard,
        });
        let endpoints = prop::collection::btree_map(any::<u16>(), endpoint, 0..9).prop_map(|endpoints| {
            let mut endpoints: Vec<_> = endpoints.into_values().collect();
            endpoints.sort_by_key(|endpoint| endpoint.address);
            endpoints.dedup_by_key(|endpoint| endpoint.address);
            endpoints
        });
        let zone = prop::option::of("[a-z]{1,3}").prop_map(|zone| zone.map(|zone| ZoneName::new(zone).unwrap()));
        let zones = prop::collection::btree_map(zone, endpoints, 0..3);
        (any::<bool>(), any::<[u64; 3]>(), zones).prop_map(|(synced, [epoch, sequence, count], endpoints)| List {
            synced,
            stamp: ServiceStamp { version: Version { epoch, sequence }, count },
            endpoints,
        })
    }

    proptest! {
        #[test]
        fn lists_round_trip(list in lists()) {
            let name: ServicePort = "checkout.shop:8080".parse().unwrap();
            let resource = encode(&name, &list, &place());
            prop_assert_eq!(decode(&resource), Ok((name, list)));
        }

        #[test]
        fn the_version_tells_lists_apart(a in lists(), b in lists()) {
            let name: ServicePort = "checkout.shop:8080".parse().unwrap();
            let version = |list| encode(&name, list, &place()).version;
            prop_assert_eq!(version(&a) == version(&b), a == b);
        }

        #[test]
        fn no_bytes_make_it_panic(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = endpoints(&Any { type_url: TYPE_URL.into(), value });
        }
    }

    #[test]
    fn a_resource_without_our_metadata_is_refused() {
        let name: ServicePort = "checkout.shop:8080".parse().unwrap();
        let resource = Resource { metadata: None, ..encode(&name, &List::default(), &place()) };
        assert_eq!(decode(&resource), Err(ListError::Metadata("epoch")));
    }
}
