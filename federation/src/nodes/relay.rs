//! Calls of other clusters, passed to the node that they are for: gossip and endpoint lists to the publisher, Raft to the
//! seat. So one address stands for all nodes of a cluster. Bytes pass through unread, both ways.
//!
//! A call is relayed once: a node that gets one that is not for it refuses it, and the caller comes again.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use portolan_topology::names::ClusterName;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderName, HeaderValue, Request, Response};
use tonic::transport::Channel;
use tower::{Layer, Service, ServiceExt};

use crate::peers::Shared;
use crate::tls::{PeerIdentity, Refusal};

/// Names the cluster that a relayed call comes from. Believed from nodes of our own cluster alone.
const RELAYED_FOR: HeaderName = HeaderName::from_static("x-portolan-relayed-for");

/// Whose a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Publisher,
    Seat,
    /// Every node answers it itself.
    Anybody,
}

/// Whose a call of this method is.
fn owner(path: &str) -> Owner {
    match path {
        "/portolan.peer.v1.Peer/Gossip" => Owner::Publisher,
        "/portolan.peer.v1.PolicyGroup/Call" => Owner::Seat,
        path if path.starts_with("/envoy.service.discovery.v3.AggregatedDiscoveryService/") => Owner::Publisher,
        _ => Owner::Anybody,
    }
}

/// What becomes of a call.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Here,
    Relayed,
    Refused,
}

/// `ours`: the call is for this node; `known`: another node that it is for answers us; `relayed`: it came through one.
fn way(ours: bool, known: bool, relayed: bool) -> Way {
    match (ours, known, relayed) {
        (true, ..) => Way::Here,
        (false, true, false) => Way::Relayed,
        (false, false, _) | (false, true, true) => Way::Refused,
    }
}

/// Puts the relay in front of the peer port's services.
#[derive(Clone)]
pub(crate) struct RelayLayer {
    shared: Arc<Shared>,
}

impl RelayLayer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl<S> Layer<S> for RelayLayer {
    type Service = Relay<S>;

    fn layer(&self, inner: S) -> Relay<S> {
        Relay { inner, shared: self.shared.clone() }
    }
}

/// The peer port's services, and the way to the other nodes.
#[derive(Clone)]
pub(crate) struct Relay<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request<Body>> for Relay<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that is ready is used; its clone takes its place.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let shared = self.shared.clone();
        Box::pin(async move {
            match shared.route(&mut request) {
                Ok(None) => inner.call(request).await,
                Ok(Some(channel)) => Ok(relay(channel, request).await.unwrap_or_else(Status::into_http)),
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

impl Shared {
    /// Where a call goes: `None`: it is answered here.
    fn route(&self, request: &mut Request<Body>) -> Result<Option<Channel>, Status> {
        let relayed = self.unwrap_relayed(request)?;
        let owner = owner(request.uri().path());
        let ours = match owner {
            Owner::Publisher => self.nodes.publishing(),
            Owner::Seat => self.nodes.is_seat(),
            Owner::Anybody => true,
        };
        let there = match owner {
            _ if ours => None,
            Owner::Publisher => self.nodes.publisher().map(|(_, channel)| channel),
            Owner::Seat => self.nodes.channel(self.nodes.seat()),
            Owner::Anybody => None,
        };
        match way(ours, there.is_some(), relayed) {
            Way::Here => Ok(None),
            Way::Relayed => {
                self.wrap_relayed(request)?;
                Ok(there)
            }
            Way::Refused if owner == Owner::Seat => Err(Status::failed_precondition(format!(
                "the seat of cluster `{}` in the policy group is on node {}, which does not answer node {}",
                self.cluster,
                self.nodes.seat(),
                self.node
            ))),
            Way::Refused => Err(Status::unavailable(format!(
                "node {} of cluster `{}` does not publish, and knows of no node that does",
                self.node, self.cluster
            ))),
        }
    }

    /// Whether another node of our cluster relays this call; if so, it counts as its origin's.
    fn unwrap_relayed(&self, request: &mut Request<Body>) -> Result<bool, Status> {
        let Some(origin) = request.headers_mut().remove(RELAYED_FOR) else { return Ok(false) };
        let peer: Option<Arc<PeerIdentity>> = request.extensions().get().cloned();
        let peer = peer.ok_or_else(|| Status::unauthenticated("no verified identity"))?;
        if peer.cluster.as_ref() != Some(&self.cluster) {
            let who = peer.cluster.as_ref().map_or("nobody", |cluster| cluster.as_str());
            let why = format!("`{who}` relayed a call; only nodes of cluster `{}` may", self.cluster);
            self.refusals.refuse(peer.remote.ip(), Refusal::Impersonation, &why);
            return Err(Status::permission_denied(why));
        }
        let cluster = origin.to_str().ok().and_then(|name| ClusterName::new(name).ok());
        let cluster = cluster.ok_or_else(|| Status::invalid_argument("a relayed call names no cluster"))?;
        let origin = PeerIdentity { remote: peer.remote, spiffe: None, cluster: Some(cluster) };
        request.extensions_mut().insert(Arc::new(origin));
        Ok(true)
    }

    fn wrap_relayed(&self, request: &mut Request<Body>) -> Result<(), Status> {
        let peer: Option<&Arc<PeerIdentity>> = request.extensions().get();
        let origin = peer.and_then(|peer| peer.cluster.clone());
        let origin = origin.ok_or_else(|| Status::unauthenticated("no verified identity"))?;
        let origin = HeaderValue::from_str(origin.as_str()).map_err(|error| Status::internal(error.to_string()))?;
        request.headers_mut().insert(RELAYED_FOR, origin);
        Ok(())
    }
}

async fn relay(channel: Channel, request: Request<Body>) -> Result<Response<Body>, Status> {
    let (parts, body) = request.into_parts();
    // What this connection knows of itself is not the next one's.
    let mut onwards = Request::new(body);
    *onwards.method_mut() = parts.method;
    *onwards.uri_mut() = parts.uri;
    *onwards.headers_mut() = parts.headers;
    let failed = |error: tonic::transport::Error| Status::unavailable(format!("the node that it is for: {error}"));
    let mut channel = channel;
    channel.ready().await.map_err(failed)?.call(onwards).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_go_to_whom_they_are_for() {
        for (path, whose) in [
            ("/portolan.peer.v1.Peer/Gossip", Owner::Publisher),
            ("/portolan.peer.v1.Peer/Ping", Owner::Anybody),
            ("/portolan.peer.v1.PolicyGroup/Call", Owner::Seat),
            ("/portolan.peer.v1.Node/Follow", Owner::Anybody),
            ("/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources", Owner::Publisher),
        ] {
            assert_eq!(owner(path), whose, "{path}");
        }
    }

    #[test]
    fn a_call_is_relayed_once() {
        for known in [false, true] {
            assert_eq!(way(true, known, false), Way::Here);
            assert_eq!(way(true, known, true), Way::Here);
            assert_eq!(way(false, known, true), Way::Refused);
        }
        assert_eq!((way(false, true, false), way(false, false, false)), (Way::Relayed, Way::Refused));
    }
}
