//! Multi-Cluster Services (KEP-1645): which of the cluster's services the others are told of, and the objects from which
//! any consumer in this cluster sees theirs.
//!
//! [`exports`] reads ServiceExports and tells the federation; every node does. [`plan`] says which ServiceImports,
//! EndpointSlices and conditions there should be, without I/O; [`writer`] makes it so, on the node that holds the Lease.
//! A cluster that is silent keeps its slices: they go when it is known to be dead, has left the topology, or no longer
//! exports.

pub(crate) mod exports;
mod plan;
#[cfg(test)]
mod plan_tests;
pub(crate) mod writer;

use kube::api::{ApiResource, GroupVersionKind};

/// The group of the API's own kinds.
const GROUP: &str = "multicluster.x-k8s.io";
/// The cluster that a slice's endpoints are in.
const SOURCE_CLUSTER: &str = "multicluster.kubernetes.io/source-cluster";
/// The service that a slice is of.
const SERVICE_NAME: &str = "multicluster.kubernetes.io/service-name";
/// Who writes an EndpointSlice.
const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Who writes a ServiceImport.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// We do.
const US: &str = "portolan.dev";

fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, "v1alpha1", kind), plural)
}

fn service_export() -> ApiResource {
    resource("ServiceExport", "serviceexports")
}

fn service_import() -> ApiResource {
    resource("ServiceImport", "serviceimports")
}
