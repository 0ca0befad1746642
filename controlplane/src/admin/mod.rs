//! The admin interface: what people ask a control plane, as JSON over HTTP, and what a kubelet and Prometheus ask.
//!
//! Two ports: the admin port answers everything and takes writes; the other serves health and metrics alone. Nothing
//! here plans: it shows what the catalog, the federation and the xDS server have.

mod api;
mod drain;
#[cfg(test)]
mod drain_fixtures;
mod drain_progress;
mod drain_reach;
mod health;
mod kubernetes;
mod loads;
mod metrics;
pub mod model;
mod policy;
mod policy_status;
mod refusal;
mod show;
pub(crate) mod words;

use std::sync::Arc;

use axum::Router;
use portolan_federation::Federation;
use portolan_federation::tls::{CertificateStatus, Refusals};
use portolan_topology::names::{ClusterName, NodeName};
use portolan_topology::topology::Topology;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::catalog::LiveCatalog;
use crate::config::Network;
use crate::gateway::conditions::Statuses;
use crate::kube::mirror::Forbidden;
use crate::lrs::store::LoadStore;
use crate::readiness::Readiness;
use crate::run::Addresses;
use crate::source::Source;
use crate::topology_file::TopologyStatus;
use crate::xds::server::XdsServer;

pub(crate) use health::health_router;

/// Everything that can be asked about.
pub(crate) struct Admin {
    pub(crate) cluster: ClusterName,
    pub(crate) node: NodeName,
    pub(crate) started: Instant,
    pub(crate) certificate: watch::Receiver<CertificateStatus>,
    pub(crate) addresses: Addresses,
    pub(crate) xds_security: model::XdsSecurity,
    pub(crate) plaintext_from: Vec<Network>,
    pub(crate) readiness: Readiness,
    pub(crate) topology: watch::Receiver<Arc<Topology>>,
    pub(crate) topology_status: watch::Receiver<Arc<TopologyStatus>>,
    pub(crate) source: Source,
    pub(crate) catalog: Arc<LiveCatalog>,
    pub(crate) gateways: watch::Receiver<Arc<Statuses>>,
    /// What of Kubernetes RBAC does not allow to be watched, besides what the source says.
    pub(crate) forbidden: Forbidden,
    pub(crate) federation: Arc<Federation>,
    pub(crate) xds: XdsServer,
    pub(crate) loads: Arc<LoadStore>,
    pub(crate) xds_refusals: Arc<Refusals>,
}

/// The admin port.
pub(crate) fn router(admin: Arc<Admin>) -> Router {
    health_router(admin.clone())
        .merge(api::router(admin.clone()))
        .merge(policy::router(admin.clone()))
        .merge(drain::router(admin))
}
