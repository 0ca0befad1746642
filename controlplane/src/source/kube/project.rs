//! What is kept of each Kubernetes object. Pure. An object that cannot be used is refused whole, with the reason; what is
//! odd but does no harm is told, and the rest of the object counts.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use portolan_topology::names::{ServiceId, ZoneName};
use portolan_topology::service::Port;

use super::gateways::is_cleartext_http2;
use crate::source::objects::{
    Labels, NODE_REGION, NODE_ZONE, PodSettings, SERVICE_NAME, Service, Settings, Slice, SliceEndpoint, SlicePort,
    health, is_tcp, port_name, port_number,
};

/// What an object comes to.
#[derive(Debug)]
pub(super) struct Projected<P> {
    /// What is kept of it; `None`: it is none of ours. An error: it cannot be used.
    pub kept: Result<Option<P>, String>,
    /// What is odd about it.
    pub odd: Vec<String>,
}

impl<P> Projected<P> {
    pub(super) fn of(kept: Result<Option<P>, String>) -> Self {
        Self { kept, odd: Vec::new() }
    }
}

/// A Service, with what gateways want to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceObject {
    /// What is joined with its slices.
    pub joined: Service,
    /// Its ports that speak HTTP/2 in plain text.
    pub cleartext_http2: Vec<u16>,
}

/// A Service.
pub(super) fn service(object: core::Service) -> Projected<ServiceObject> {
    let mut odd = Vec::new();
    let kept = read_service(&object, &mut odd);
    Projected { kept, odd }
}

fn read_service(object: &core::Service, odd: &mut Vec<String>) -> Result<Option<ServiceObject>, String> {
    let (name, namespace) = (object.metadata.name.as_deref(), object.metadata.namespace.as_deref());
    let id =
        ServiceId::new(name.unwrap_or_default(), namespace.unwrap_or_default()).map_err(|error| error.to_string())?;
    let Some(spec) = &object.spec else { return Err("it has no spec".to_owned()) };
    // An external name is an alias in DNS, without endpoints.
    if spec.type_.as_deref() == Some("ExternalName") {
        return Ok(None);
    }
    let settings = settings(&object.metadata, odd, Settings::read);
    let all = spec.ports.as_deref().unwrap_or_default();
    if all.is_empty() {
        return Err("it has no port, so no client can call it".to_owned());
    }
    let (mut ports, mut cleartext_http2) = (Vec::<Port>::with_capacity(all.len()), Vec::new());
    for port in all.iter().filter(|port| is_tcp(port.protocol.as_deref())) {
        let number = port_number(port.port.into()).ok_or_else(|| format!("{} is not a port", port.port))?;
        if ports.iter().any(|known| known.number == number) {
            return Err(format!("port {number} stands twice in it"));
        }
        ports.push(Port { number, name: port_name(port.name.as_deref()) });
        cleartext_http2.extend(is_cleartext_http2(port.app_protocol.as_deref()).then_some(number));
    }
    Ok(Some(ServiceObject { joined: Service { id, ports, settings }, cleartext_http2 }))
}

/// An EndpointSlice.
pub(super) fn slice(object: discovery::EndpointSlice) -> Projected<Slice> {
    let mut odd = Vec::new();
    let kept = read_slice(&object, &mut odd);
    Projected { kept, odd }
}

fn read_slice(object: &discovery::EndpointSlice, odd: &mut Vec<String>) -> Result<Option<Slice>, String> {
    // A slice of no Service is somebody else's business.
    let Some(service) = object.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)) else {
        return Ok(None);
    };
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let service = ServiceId::new(service, namespace).map_err(|error| error.to_string())?;
    if !matches!(object.address_type.as_str(), "IPv4" | "IPv6") {
        odd.push(format!(
            "addresses of type {} are not used: xDS clients take IP addresses alone",
            object.address_type
        ));
        return Ok(None);
    }
    let mut ports = Vec::new();
    for port in object.ports.iter().flatten().filter(|port| is_tcp(port.protocol.as_deref())) {
        // A port without a number stands for all of them, which no client can dial.
        let Some(number) = port.port else { continue };
        let number = port_number(number.into()).ok_or_else(|| format!("{number} is not a port"))?;
        ports.push(SlicePort { name: port_name(port.name.as_deref()), number });
    }
    let endpoints = object.endpoints.iter().map(|endpoint| read_endpoint(endpoint, &object.address_type, odd));
    Ok(Some(Slice { service, ports, endpoints: endpoints.collect::<Result<_, _>>()? }))
}

fn read_endpoint(endpoint: &discovery::Endpoint, family: &str, odd: &mut Vec<String>) -> Result<SliceEndpoint, String> {
    // Several addresses of one endpoint are the same Pod: Kubernetes lets consumers use the first alone.
    let text = endpoint.addresses.first().ok_or("an endpoint has no address")?;
    let address: Option<IpAddr> = text.parse().ok();
    let address = address.filter(|address| address.is_ipv4() == (family == "IPv4"));
    let address = address.ok_or_else(|| format!("`{text}` is not an {family} address"))?;
    let zone = endpoint.zone.as_deref().filter(|zone| !zone.is_empty()).and_then(|zone| read_zone(zone, odd));
    let (ready, serving, terminating) = endpoint
        .conditions
        .as_ref()
        .map_or((None, None, None), |conditions| (conditions.ready, conditions.serving, conditions.terminating));
    let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    Ok(SliceEndpoint {
        address,
        health: health(ready, serving, terminating),
        node: endpoint.node_name.as_deref().filter(|_| zone.is_none()).map(Into::into),
        pod: pod.and_then(|target| target.name.as_deref().map(Into::into)),
        zone,
    })
}

fn read_zone(zone: &str, odd: &mut Vec<String>) -> Option<ZoneName> {
    ZoneName::new(zone).map_err(|error| odd.push(format!("its zone is not used: {error}"))).ok()
}

/// What a Pod says of itself, if anything.
pub(super) fn pod(metadata: &ObjectMeta) -> Projected<PodSettings> {
    let mut odd = Vec::new();
    let settings = settings(metadata, &mut odd, Settings::read_of_pod);
    Projected { kept: Ok(settings), odd }
}

/// Where a Node says that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodePlace {
    /// Its zone, which is what counts.
    pub zone: ZoneName,
    /// Its region, which is only compared with the zone's.
    pub region: Option<Box<str>>,
}

/// A Node's zone and region.
pub(super) fn node(metadata: &ObjectMeta) -> Projected<NodePlace> {
    let label = |label| metadata.labels.as_ref().and_then(|labels| labels.get(label));
    let Some(zone) = label(NODE_ZONE) else {
        return Projected::of(Ok(None));
    };
    let mut odd = Vec::new();
    let region = label(NODE_REGION).map(|region| region.as_str().into());
    let kept = read_zone(zone, &mut odd).map(|zone| NodePlace { zone, region });
    Projected { kept: Ok(kept), odd }
}

/// What our annotations say, as `read` reads them.
fn settings<'a, S>(
    metadata: &'a ObjectMeta,
    odd: &mut Vec<String>,
    read: impl Fn(Vec<(&'a str, &'a str)>, &Labels<'a>) -> (S, Vec<(&'a str, String)>),
) -> S {
    let texts = metadata.annotations.iter().flatten().map(|(key, text)| (key.as_str(), text.as_str()));
    let label = |key: &str| metadata.labels.as_ref()?.get(key).map(String::as_str);
    let (settings, mistakes) = read(texts.collect(), &label);
    odd.extend(mistakes.into_iter().map(|(key, wrong)| format!("{key}: {wrong}")));
    settings
}
