//! The types that are watched, and what the API server calls them.

use kube::api::{ApiResource, GroupVersionKind};

use crate::gateway::objects::GROUP;

/// A type that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Service,
    EndpointSlice,
    Node,
    Pod,
    GatewayClass,
    Gateway,
    HttpRoute,
    GrpcRoute,
    ReferenceGrant,
    Secret,
    ServiceImport,
}

impl Kind {
    /// As the API server and RBAC name it.
    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices.discovery.k8s.io",
            Self::Node => "nodes",
            Self::Pod => "pods",
            Self::GatewayClass => "gatewayclasses.gateway.networking.k8s.io",
            Self::Gateway => "gateways.gateway.networking.k8s.io",
            Self::HttpRoute => "httproutes.gateway.networking.k8s.io",
            Self::GrpcRoute => "grpcroutes.gateway.networking.k8s.io",
            Self::ReferenceGrant => "referencegrants.gateway.networking.k8s.io",
            Self::Secret => "secrets",
            Self::ServiceImport => "serviceimports.multicluster.x-k8s.io",
        }
    }

    /// Its version and name in objects.
    pub(crate) fn type_(self) -> (&'static str, &'static str) {
        match self {
            Self::Service => ("v1", "Service"),
            Self::EndpointSlice => ("discovery.k8s.io/v1", "EndpointSlice"),
            Self::Node => ("v1", "Node"),
            Self::Pod => ("v1", "Pod"),
            Self::GatewayClass => ("gateway.networking.k8s.io/v1", "GatewayClass"),
            Self::Gateway => ("gateway.networking.k8s.io/v1", "Gateway"),
            Self::HttpRoute => ("gateway.networking.k8s.io/v1", "HTTPRoute"),
            Self::GrpcRoute => ("gateway.networking.k8s.io/v1", "GRPCRoute"),
            // Releases before 1.5 have no other version of it.
            Self::ReferenceGrant => ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant"),
            Self::Secret => ("v1", "Secret"),
            Self::ServiceImport => ("multicluster.x-k8s.io/v1alpha1", "ServiceImport"),
        }
    }

    /// Whether nothing can be said without it: of any service, or of any gateway. A route that cannot be read is not one
    /// that is gone.
    pub(super) fn is_needed(self) -> bool {
        !matches!(self, Self::Node | Self::Pod | Self::Secret | Self::ServiceImport)
    }

    /// Whether it belongs to an API that has to be installed.
    pub(super) fn is_installed_apart(self) -> bool {
        self == Self::ServiceImport || self.type_().0.starts_with(GROUP)
    }

    /// As clients ask for it, unless they have a type of their own for it.
    pub(crate) fn api_resource(self) -> ApiResource {
        let (version, name) = self.type_();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let (plural, _) = self.resource().split_once('.').unwrap_or((self.resource(), ""));
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, name), plural)
    }
}
