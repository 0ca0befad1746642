//! Kubernetes manifests: `Service`, `EndpointSlice`, what counts of `Pod` and `Node`, and lists of them, as
//! `kubectl get -o yaml` prints them; the Gateway API's are in [`gateway`]. Pure.
//!
//! Other kinds and unknown fields are ignored. A known object that is malformed is a mistake, and its file is refused
//! whole.

pub mod gateway;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use portolan_topology::diagnostic::{Diagnostics, Report, Span, Warning};
use portolan_topology::document::{self, Document, Fields, List, Spanned};
use portolan_topology::names::{NameError, ServiceId, ZoneName};
use portolan_topology::service::{LocalService, Port};
use serde::Deserialize;

use crate::gateway::objects::GatewayObjects;

use super::objects::{
    Labels, NODE_ZONE, PodSettings, SERVICE_NAME, Service, Settings, Slice, SliceEndpoint, SlicePort, Surroundings,
    health, is_tcp, port_name, port_number,
};

/// The objects of one file. There may be thousands of files with an object or two each, so that nothing here has room to
/// spare, as a tree's nodes have.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Manifest {
    services: Objects<Service>,
    slices: Objects<Slice>,
    /// Those that say something of their own.
    pods: Objects<PodSettings>,
    /// Those with a zone.
    nodes: Objects<ZoneName>,
    /// What gateways are made from, if there is anything.
    gateways: Option<Box<GatewayObjects>>,
}

/// Objects of one kind, by their keys.
type Objects<T> = Box<[(ObjectKey, T)]>;

/// The objects of a file while it is read.
#[derive(Debug, Default)]
struct Reader {
    services: BTreeMap<ObjectKey, Service>,
    slices: BTreeMap<ObjectKey, Slice>,
    pods: BTreeMap<ObjectKey, PodSettings>,
    nodes: BTreeMap<ObjectKey, ZoneName>,
    gateways: GatewayObjects,
}

impl From<Reader> for Manifest {
    fn from(read: Reader) -> Self {
        Self {
            services: read.services.into_iter().collect(),
            slices: read.slices.into_iter().collect(),
            pods: read.pods.into_iter().collect(),
            nodes: read.nodes.into_iter().collect(),
            gateways: Some(read.gateways).filter(|read| *read != GatewayObjects::default()).map(Box::new),
        }
    }
}

/// What identifies an object in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct ObjectKey {
    kind: &'static str,
    namespace: String,
    name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Reads all objects of a file.
pub fn parse(file: &str, text: &str) -> Result<(Manifest, Vec<Warning>), Diagnostics> {
    let documents = document::parse(file, text)?;
    let mut objects = Reader::default();
    let mut warnings = Vec::new();
    let mut refused: Option<Diagnostics> = None;
    for document in documents.into_iter().flat_map(Document::items) {
        let mut report = document.report();
        match (document.text_at(&["apiVersion"]).map(|version| version.value), document.kind()) {
            (Some("v1"), Some("Service")) => {
                objects.add_service(&document, &mut report);
                gateway::add_ports(&mut objects.gateways, false, &document, &mut report);
            }
            (Some("discovery.k8s.io/v1"), Some("EndpointSlice")) => objects.add_slice(&document, &mut report),
            (Some("v1"), Some("Pod")) => objects.add_pod(&document, &mut report),
            (Some("v1"), Some("Node")) => objects.add_node(&document, &mut report),
            (Some(version), Some("EndpointSlice")) => {
                let message = format!("an EndpointSlice of `{version}`");
                report.error(document.span(), message).expected("apiVersion `discovery.k8s.io/v1`");
            }
            (Some(version), Some(kind)) => {
                gateway::add(&mut objects.gateways, version, kind, &document, &mut report);
            }
            (None, Some(kind)) => {
                let message = format!("the {kind} has no `apiVersion`");
                report.error(document.span(), message).expected("a Kubernetes object");
            }
            (_, None) => {
                report.error(document.span(), "the object has no `kind`").expected("a Kubernetes object");
            }
        }
        match report.finish() {
            Ok(more) => warnings.extend(more),
            Err(mistakes) => match &mut refused {
                Some(refused) => refused.append(mistakes),
                None => refused = Some(mistakes),
            },
        }
    }
    match refused {
        Some(refused) => Err(refused),
        None => Ok((objects.into(), warnings)),
    }
}

/// What a file's objects come to, all files together, by service. Of an object that stands in several files the first
/// file's counts, in the order given; the others are told of.
#[must_use]
pub fn join<'a>(
    manifests: impl IntoIterator<Item = (&'a str, &'a Manifest)>,
) -> (BTreeMap<ServiceId, LocalService>, Vec<(String, String)>) {
    let mut owners: HashMap<&ObjectKey, &str> = HashMap::new();
    let mut repeated = Vec::new();
    let mut services = BTreeMap::new();
    let mut slices: BTreeMap<&ServiceId, Vec<&Slice>> = BTreeMap::new();
    let mut around = Surroundings::default();
    for (file, manifest) in manifests {
        let mut is_first = |key: &'a ObjectKey| match owners.get(key) {
            None => {
                owners.insert(key, file);
                true
            }
            Some(owner) => {
                repeated.push((file.to_owned(), format!("{key} stands in {owner} too, which counts")));
                false
            }
        };
        for (_, service) in manifest.services.iter().filter(|(key, _)| is_first(key)) {
            services.insert(service.id.clone(), service);
        }
        for (_, slice) in manifest.slices.iter().filter(|(key, _)| is_first(key)) {
            slices.entry(&slice.service).or_default().push(slice);
        }
        for (key, settings) in manifest.pods.iter().filter(|(key, _)| is_first(key)) {
            around.pods.insert((key.namespace.clone(), key.name.clone()), settings.clone());
        }
        for (key, zone) in manifest.nodes.iter().filter(|(key, _)| is_first(key)) {
            around.nodes.insert(key.name.clone(), zone.clone());
        }
    }
    let local = |(id, service): (ServiceId, &Service)| {
        let slices = slices.get(&id).map_or(&[][..], Vec::as_slice);
        (id, around.local_service(service, slices))
    };
    (services.into_iter().map(local).collect(), repeated)
}

#[derive(Deserialize)]
struct Metadata {
    name: Spanned<String>,
    namespace: Option<Spanned<String>>,
    #[serde(default)]
    labels: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    annotations: BTreeMap<String, Spanned<String>>,
}

impl Metadata {
    fn namespace(&self) -> &str {
        self.namespace.as_ref().map_or("default", |namespace| namespace.value.as_str())
    }

    fn key(&self, kind: &'static str) -> ObjectKey {
        ObjectKey { kind, namespace: self.namespace().to_owned(), name: self.name.value.clone() }
    }

    /// What our annotations say, as `read` reads them.
    fn settings<'a, S>(
        &'a self,
        report: &mut Report,
        read: impl Fn(Vec<(&'a str, &'a str)>, &Labels<'a>) -> (S, Vec<(&'a str, String)>),
    ) -> S {
        let texts = self.annotations.iter().map(|(key, text)| (key.as_str(), text.value.as_str()));
        let label = |key: &str| self.labels.get(key).map(|text| text.value.as_str());
        let (settings, mistakes) = read(texts.collect(), &label);
        for (key, wrong) in mistakes {
            report.error(self.annotations.get(key).map_or(self.name.span, |text| text.span), format!("{key}: {wrong}"));
        }
        settings
    }

    /// The service called `name` in this object's namespace.
    fn service(&self, name: &Spanned<String>, report: &mut Report) -> Option<ServiceId> {
        match ServiceId::new(&name.value, self.namespace()) {
            Ok(id) => Some(id),
            Err(error) => {
                let of_namespace = matches!(&error, NameError::Malformed { kind: "namespace", .. });
                let namespace = self.namespace.as_ref().filter(|_| of_namespace);
                report.error(namespace.map_or(name.span, |namespace| namespace.span), error.to_string());
                None
            }
        }
    }
}

#[derive(Deserialize)]
struct ServiceObject {
    metadata: Metadata,
    #[serde(default)]
    spec: ServiceSpec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ServiceSpec {
    r#type: Option<String>,
    ports: List<ServicePortObject>,
}

#[derive(Deserialize)]
struct ServicePortObject {
    name: Option<String>,
    port: Spanned<u32>,
    protocol: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SliceObject {
    metadata: Metadata,
    address_type: Spanned<String>,
    #[serde(default)]
    endpoints: List<EndpointObject>,
    #[serde(default)]
    ports: List<SlicePortObject>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointObject {
    addresses: List<Spanned<String>>,
    #[serde(default)]
    conditions: Conditions,
    zone: Option<Spanned<String>>,
    node_name: Option<String>,
    target_ref: Option<TargetRef>,
}

#[derive(Deserialize)]
struct TargetRef {
    kind: Option<String>,
    name: Option<String>,
}

/// An object of which only the metadata counts.
#[derive(Deserialize)]
struct MetadataObject {
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize)]
struct SlicePortObject {
    name: Option<String>,
    port: Option<Spanned<u32>>,
    protocol: Option<String>,
}

impl Reader {
    fn add_service(&mut self, document: &Document, report: &mut Report) {
        let Some(object) = document.read_into::<ServiceObject>(Fields::Any, report) else { return };
        let metadata = &object.metadata;
        let Some(id) = metadata.service(&metadata.name, report) else { return };
        // It has no endpoints: its name is an alias in DNS.
        if object.spec.r#type.as_deref() == Some("ExternalName") {
            return;
        }
        let mut ports: Vec<Port> = Vec::new();
        for port in object.spec.ports.iter().filter(|port| is_tcp(port.protocol.as_deref())) {
            let Some(number) = number_of(&port.port, report) else { continue };
            if ports.iter().any(|known| known.number == number) {
                report.error(port.port.span, format!("port {number} stands twice in the Service"));
                continue;
            }
            ports.push(Port { number, name: port_name(port.name.as_deref()) });
        }
        let settings = metadata.settings(report, Settings::read);
        let key = metadata.key("Service");
        if self.services.insert(key.clone(), Service { id, ports, settings }).is_some() {
            report.error(metadata.name.span, format!("{key} stands twice in this file"));
        }
    }

    fn add_slice(&mut self, document: &Document, report: &mut Report) {
        let Some(object) = document.read_into::<SliceObject>(Fields::Any, report) else { return };
        let metadata = &object.metadata;
        // A slice of no Service is somebody else's business.
        let Some(service) = metadata.labels.get(SERVICE_NAME) else { return };
        let Some(service) = metadata.service(service, report) else { return };
        let family = match object.address_type.as_str() {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            "FQDN" => {
                let told = "an EndpointSlice of host names is not used: xDS clients take addresses alone";
                report.warning(object.address_type.span, told);
                return;
            }
            other => {
                let message = format!("unknown address type `{other}`");
                report.error(object.address_type.span, message).expected("`IPv4` or `IPv6`");
                return;
            }
        };
        let mut ports = Vec::new();
        for port in object.ports.iter().filter(|port| is_tcp(port.protocol.as_deref())) {
            // A port without a number stands for all of them, which no client can dial.
            let Some(number) = port.port.as_ref().and_then(|number| number_of(number, report)) else { continue };
            ports.push(SlicePort { name: port_name(port.name.as_deref()), number });
        }
        let mut endpoints: Vec<SliceEndpoint> = Vec::with_capacity(object.endpoints.len());
        for endpoint in object.endpoints.iter() {
            let Some(mut endpoint) = endpoint.read(family, document.span(), report) else { continue };
            // Most of a slice's endpoints are in one zone, and one name does for them.
            if let Some(before) = endpoints.last().filter(|before| before.zone == endpoint.zone) {
                endpoint.zone.clone_from(&before.zone);
            }
            endpoints.push(endpoint);
        }
        let key = metadata.key("EndpointSlice");
        if self.slices.insert(key.clone(), Slice { service, ports, endpoints }).is_some() {
            report.error(metadata.name.span, format!("{key} stands twice in this file"));
        }
    }

    fn add_pod(&mut self, document: &Document, report: &mut Report) {
        let Some(MetadataObject { metadata }) = document.read_into(Fields::Any, report) else { return };
        if let Some(settings) = metadata.settings(report, Settings::read_of_pod) {
            self.pods.insert(metadata.key("Pod"), settings);
        }
    }

    fn add_node(&mut self, document: &Document, report: &mut Report) {
        let Some(MetadataObject { metadata }) = document.read_into(Fields::Any, report) else { return };
        let Some(zone) = metadata.labels.get(NODE_ZONE) else { return };
        match ZoneName::new(&zone.value) {
            Ok(name) => drop(self.nodes.insert(metadata.key("Node"), name)),
            Err(error) => drop(report.error(zone.span, error.to_string())),
        }
    }
}

impl Manifest {
    /// The Gateway API's objects, and what else gateways need, if there is any.
    #[must_use]
    pub fn gateways(&self) -> Option<&GatewayObjects> {
        self.gateways.as_deref()
    }

    /// How many objects of the known kinds it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        let of_gateways = self.gateways().map_or(0, |all| {
            let routes = all.http_routes.len() + all.grpc_routes.len();
            all.gateways.len() + routes + all.grants.len() + all.certificates.len()
        });
        self.services.len() + self.slices.len() + self.pods.len() + self.nodes.len() + of_gateways
    }

    /// Whether it holds no object of a known kind.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl EndpointObject {
    fn read(&self, family: Family, whole: Span, report: &mut Report) -> Option<SliceEndpoint> {
        // Several addresses of one endpoint are the same pod: Kubernetes lets consumers use the first alone.
        let Some(text) = self.addresses.first() else {
            report.error(whole, "an endpoint of this EndpointSlice has no address");
            return None;
        };
        let address = match (text.parse::<IpAddr>(), family) {
            (Ok(address @ IpAddr::V4(_)), Family::V4) | (Ok(address @ IpAddr::V6(_)), Family::V6) => address,
            _ => {
                let expected = if family == Family::V4 { "an IPv4 address" } else { "an IPv6 address" };
                report.error(text.span, format!("`{}` is not an address of this slice", text.value)).expected(expected);
                return None;
            }
        };
        let zone = match self.zone.as_ref().filter(|zone| !zone.is_empty()) {
            None => None,
            Some(zone) => match ZoneName::new(&zone.value) {
                Ok(name) => Some(name),
                Err(error) => {
                    report.error(zone.span, error.to_string());
                    return None;
                }
            },
        };
        let Conditions { ready, serving, terminating } = self.conditions;
        let health = health(ready, serving, terminating);
        let pod = self.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
        let pod = pod.and_then(|target| target.name.as_deref().map(Into::into));
        let node = self.node_name.as_deref().filter(|_| zone.is_none()).map(Into::into);
        Some(SliceEndpoint { address, zone, health, node, pod })
    }
}

fn number_of(number: &Spanned<u32>, report: &mut Report) -> Option<u16> {
    let port = port_number(number.value.into());
    if port.is_none() {
        report.error(number.span, format!("{} is not a port", number.value)).expected("a number from 1 to 65535");
    }
    port
}

/// Puts `services` into shared form, keeping the allocation of each that did not change.
#[must_use]
pub fn share(
    services: BTreeMap<ServiceId, LocalService>,
    before: &BTreeMap<ServiceId, Arc<LocalService>>,
) -> BTreeMap<ServiceId, Arc<LocalService>> {
    let shared = |(id, service): (ServiceId, LocalService)| {
        let same = before.get(&id).filter(|before| ***before == service).cloned();
        (id, same.unwrap_or_else(|| Arc::new(service)))
    };
    services.into_iter().map(shared).collect()
}

#[cfg(test)]
mod tests;
