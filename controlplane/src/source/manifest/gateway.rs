//! The Gateway API's objects in manifests, and what else gateways need: certificates, and which ports speak HTTP/2.
//!
//! A malformed object is a mistake of its file. What is well formed and cannot be served is said in its conditions.

use std::collections::BTreeMap;
use std::sync::Arc;

use portolan_topology::diagnostic::Report;
use portolan_topology::document::{Document, Fields};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::gateway::objects::{CleartextHttp2, GROUP, GatewayObjects, Metadata, Object, ObjectName, SecretObject};

/// What of `appProtocol` counts.
const CLEARTEXT_HTTP2: &str = "kubernetes.io/h2c";

/// A Service or ServiceImport, of which only this counts here.
#[derive(Deserialize)]
struct WithPorts {
    metadata: Metadata,
    #[serde(default)]
    spec: Ports,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Ports {
    ports: Vec<Port>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    port: u16,
    #[serde(default)]
    app_protocol: Option<String>,
}

/// Takes in an object, if it is of a kind that gateways are made from.
pub(super) fn add(objects: &mut GatewayObjects, version: &str, kind: &str, document: &Document, report: &mut Report) {
    let of_api = matches!(version.strip_prefix(GROUP), Some("/v1" | "/v1beta1"));
    match kind {
        "Gateway" if of_api => insert(&mut objects.gateways, kind, document, report),
        "HTTPRoute" if of_api => insert(&mut objects.http_routes, kind, document, report),
        "GRPCRoute" if of_api => insert(&mut objects.grpc_routes, kind, document, report),
        "ReferenceGrant" if of_api => insert(&mut objects.grants, kind, document, report),
        "Gateway" | "HTTPRoute" | "GRPCRoute" | "ReferenceGrant" if version.starts_with(GROUP) => {
            let message = format!("a {kind} of `{version}`");
            report.error(document.span(), message).expected(format!("apiVersion `{GROUP}/v1`"));
        }
        "Secret" if version == "v1" => {
            let secret = document.read_into::<SecretObject>(Fields::Any, report);
            if let Some((name, certificate)) = secret.and_then(SecretObject::certificate)
                && objects.certificates.insert(name.clone(), Arc::new(certificate)).is_some()
            {
                twice(kind, &name, document, report);
            }
        }
        "ServiceImport" => add_ports(objects, true, document, report),
        _ => {}
    }
}

/// Notes which of a Service's or ServiceImport's ports speak HTTP/2 in plain text.
pub(super) fn add_ports(objects: &mut GatewayObjects, imported: bool, document: &Document, report: &mut Report) {
    let Some(WithPorts { metadata, spec }) = document.read_into(Fields::Any, report) else { return };
    let object = metadata.object_name();
    let http2 = spec.ports.into_iter().filter(|port| port.app_protocol.as_deref() == Some(CLEARTEXT_HTTP2));
    objects.cleartext_http2.extend(http2.map(|Port { port, .. }| CleartextHttp2 {
        imported,
        object: object.clone(),
        port,
    }));
}

fn insert<S: DeserializeOwned>(
    into: &mut BTreeMap<ObjectName, Arc<Object<S>>>,
    kind: &str,
    document: &Document,
    report: &mut Report,
) {
    let Some(object) = document.read_into::<Object<S>>(Fields::Any, report) else { return };
    let name = object.metadata.object_name();
    if into.insert(name.clone(), Arc::new(object)).is_some() {
        twice(kind, &name, document, report);
    }
}

fn twice(kind: &str, name: &ObjectName, document: &Document, report: &mut Report) {
    report.error(document.span(), format!("{kind} {name} stands twice in this file"));
}

/// All files' objects together. Of an object that stands in several files the first file's counts, in the order given;
/// the others are told of.
pub fn join<'a>(
    files: impl IntoIterator<Item = (&'a str, &'a GatewayObjects)>,
    synced: bool,
) -> (GatewayObjects, Vec<(String, String)>) {
    let mut all = GatewayObjects { synced, ..GatewayObjects::default() };
    let mut repeated = Vec::new();
    for (file, objects) in files {
        let mut told = |kind: &str, names: Vec<ObjectName>| {
            repeated.extend(
                names
                    .into_iter()
                    .map(|name| (file.to_owned(), format!("{kind} {name} stands in another file too, which counts"))),
            );
        };
        told("Gateway", merge(&mut all.gateways, &objects.gateways));
        told("HTTPRoute", merge(&mut all.http_routes, &objects.http_routes));
        told("GRPCRoute", merge(&mut all.grpc_routes, &objects.grpc_routes));
        told("ReferenceGrant", merge(&mut all.grants, &objects.grants));
        told("Secret", merge(&mut all.certificates, &objects.certificates));
        all.cleartext_http2.extend(objects.cleartext_http2.iter().cloned());
    }
    (all, repeated)
}

fn merge<T>(all: &mut BTreeMap<ObjectName, Arc<T>>, more: &BTreeMap<ObjectName, Arc<T>>) -> Vec<ObjectName> {
    let mut repeated = Vec::new();
    for (name, object) in more {
        if all.contains_key(name) {
            repeated.push(name.clone());
        } else {
            all.insert(name.clone(), object.clone());
        }
    }
    repeated
}
