//! The gateway whose Envoy a client says that it is, and what it is served of it.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;

use super::clients::Peer;
use super::inbox::Inbox;
use crate::gateway::objects::ObjectName;
use crate::resources::gateway::GatewayResources;
use crate::resources::gateway::book::{GatewayBook, GatewayWatch, GatewayWatcher};
use crate::resources::{Kind, Lookup};

/// The key in a node's metadata by which an Envoy names its gateway, `NAMESPACE/NAME`.
pub(crate) const GATEWAY: &str = "portolan.dev/gateway";

/// What a client says of its gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Membership {
    gateway: ObjectName,
    /// Whether it may have the gateway's private keys.
    keys: bool,
}

impl Membership {
    /// Of a node, at the other end of a connection from `peer`. `None`: it belongs to no gateway.
    pub(super) fn of(node: &Node, peer: &Peer) -> Option<Self> {
        let value = node.metadata.as_ref()?.fields.get(GATEWAY)?.kind.as_ref()?;
        let ValueKind::StringValue(text) = value else { return None };
        let gateway: ObjectName = text.parse().ok()?;
        let keys = may_have_keys(&gateway, peer);
        if !keys {
            tracing::warn!(
                node = node.id, %gateway, identity = peer.identity.as_deref(), address = peer.address.as_deref(),
                "this client gets no private keys: its certificate must name the gateway or its namespace",
            );
        }
        Some(Self { gateway, keys })
    }

    /// Has `inbox` hear of the gateway.
    pub(super) fn join(self, book: &Arc<GatewayBook>, inbox: &Arc<Inbox>) -> Joined {
        let watcher: Arc<dyn GatewayWatcher> = inbox.clone();
        let (resources, watch) = book.watch(&self.gateway, &watcher);
        Joined { resources, keys: self.keys, _watch: watch }
    }
}

/// Whoever has a certificate of the federation may ask for routes and endpoints; private keys are for the gateway's own
/// Envoys: `…/gateway/NAMESPACE/NAME`, a workload of the namespace (`…/ns/NAMESPACE/…`), or the certificate of a trial.
/// Without a certificate, whoever is on this machine.
fn may_have_keys(gateway: &ObjectName, peer: &Peer) -> bool {
    let Some(identity) = &peer.identity else {
        let address = peer.address.as_ref().and_then(|address| address.parse::<std::net::SocketAddr>().ok());
        return address.is_some_and(|address| address.ip().to_canonical().is_loopback());
    };
    let path = identity.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).map(|(_, path)| path);
    path.is_some_and(|path| {
        path == "client/dev"
            || path == format!("gateway/{gateway}")
            || path.starts_with(&format!("ns/{}/", gateway.namespace))
    })
}

/// A client's part in its gateway, for as long as its stream lives.
#[derive(Debug)]
pub(super) struct Joined {
    /// `None`: not known yet.
    resources: Option<Arc<GatewayResources>>,
    keys: bool,
    _watch: GatewayWatch,
}

impl Joined {
    /// What the gateway came to; `None`: not known yet.
    pub(super) fn resources(&self) -> Option<Arc<GatewayResources>> {
        self.resources.clone()
    }

    /// It came to something else.
    pub(super) fn take(&mut self, resources: Arc<GatewayResources>) {
        self.resources = Some(resources);
    }

    /// What one of the gateway's resources is for this client.
    pub(super) fn lookup(&self, kind: Kind, name: &Arc<str>) -> Lookup {
        match &self.resources {
            None => Lookup::Unknown,
            Some(_) if kind == Kind::Sds && !self.keys => Lookup::Absent(None),
            Some(resources) => resources.lookup(kind, name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_for_the_gateways_own_envoys() {
        let gateway = "shop/edge".parse().unwrap();
        let of = |identity: Option<&str>, address: &str| {
            let peer = Peer { address: Some(address.to_owned()), identity: identity.map(str::to_owned) };
            may_have_keys(&gateway, &peer)
        };
        for identity in ["gateway/shop/edge", "ns/shop/sa/envoy", "client/dev"] {
            assert!(of(Some(&format!("spiffe://test/{identity}")), "10.0.0.1:1"), "{identity}");
        }
        for identity in ["gateway/shop/edge2", "gateway/other/edge", "ns/shopping/sa/envoy", "client/x", "cluster/a"] {
            assert!(!of(Some(&format!("spiffe://test/{identity}")), "127.0.0.1:1"), "{identity}");
        }
        assert!(of(None, "127.0.0.1:1") && of(None, "[::1]:1") && of(None, "[::ffff:127.0.0.1]:1"));
        assert!(!of(None, "10.0.0.1:1"));
    }
}
