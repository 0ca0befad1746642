//! Objects as people and controllers write them, for the checks.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// Writes objects of one namespace.
#[derive(Clone)]
pub(super) struct Writer {
    client: Client,
    namespace: String,
}

impl Writer {
    /// For `namespace`, which is made.
    pub(super) async fn new(client: Client, namespace: &str) -> anyhow::Result<Self> {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        Api::<Namespace>::all(client.clone()).patch(namespace, &apply(), &Patch::Apply(object)).await?;
        Ok(Self { client, namespace: namespace.to_owned() })
    }

    fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(super) fn slices(&self) -> Api<EndpointSlice> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A Service of `spec` with annotations.
    pub(super) async fn service(&self, name: &str, spec: Value, annotations: Value) -> anyhow::Result<()> {
        let object = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "annotations": annotations}, "spec": spec});
        self.services().patch(name, &apply(), &Patch::Apply(object)).await?;
        Ok(())
    }

    /// Removes a Service.
    pub(super) async fn no_service(&self, name: &str) -> anyhow::Result<()> {
        self.services().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// A slice of a Service without a selector, written by hand.
    pub(super) async fn slice(
        &self,
        name: &str,
        service: &str,
        ports: Value,
        endpoints: &[Value],
    ) -> anyhow::Result<()> {
        let first = endpoints.first().and_then(|endpoint| endpoint["addresses"][0].as_str()).unwrap_or("0.0.0.0");
        let family = if first.parse::<IpAddr>()?.is_ipv4() { "IPv4" } else { "IPv6" };
        let object = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
            "addressType": family, "ports": ports, "endpoints": endpoints});
        self.slices().patch(name, &apply(), &Patch::Apply(object)).await?;
        Ok(())
    }

    /// Removes a slice.
    pub(super) async fn no_slice(&self, name: &str) -> anyhow::Result<()> {
        self.slices().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// A Node in a zone.
    pub(super) async fn node(&self, name: &str, zone: &str) -> anyhow::Result<()> {
        let object = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone, "topology.kubernetes.io/region": "here"}}});
        Api::<Node>::all(self.client.clone()).patch(name, &apply(), &Patch::Apply(object)).await?;
        Ok(())
    }
}

/// One hand on all fields.
pub(super) fn apply() -> PatchParams {
    PatchParams::apply("cargo-kube").force()
}

/// An endpoint in a zone, ready.
pub(super) fn endpoint(address: &str, zone: &str) -> Value {
    json!({"addresses": [address], "zone": zone, "conditions": {"ready": true}})
}
