//! Policy's messages over the connections between peers: the accepting end, and the courier that policy calls with.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use portolan_topology::names::ClusterName;
use tonic::{Code, Request, Response, Status};

use super::Shared;
use super::server::identity;
use crate::policy::{Courier, Policy};
use crate::proto;
use crate::proto::policy_group_client::PolicyGroupClient;

/// Serves [`proto::policy_group_server::PolicyGroup`].
pub(crate) struct PolicyService {
    policy: Policy,
}

impl PolicyService {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { policy }
    }
}

#[tonic::async_trait]
impl proto::policy_group_server::PolicyGroup for PolicyService {
    async fn call(&self, request: Request<proto::PolicyCall>) -> Result<Response<proto::PolicyAnswer>, Status> {
        let peer = identity(&request)?;
        let from = peer.cluster.as_ref().ok_or_else(|| Status::permission_denied("no cluster's certificate"))?;
        let Policy::Seat(seat) = &self.policy else {
            return Err(Status::failed_precondition("the seat is on another node"));
        };
        let answer = seat.answer(from, &request.get_ref().body).await;
        let body = answer.map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(proto::PolicyAnswer { body: body.into() }))
    }
}

/// Calls over the channel that is up to a cluster, if one is.
pub(crate) struct PeerCourier {
    shared: Arc<Shared>,
}

impl PeerCourier {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[async_trait]
impl Courier for PeerCourier {
    async fn call(&self, cluster: &ClusterName, body: Vec<u8>, limit: Duration) -> io::Result<Vec<u8>> {
        let channel = self.shared.links.channels().borrow().get(cluster).cloned();
        let channel = channel.map(|dialled| dialled.channel).ok_or(io::ErrorKind::NotConnected)?;
        let mut client = PolicyGroupClient::new(channel);
        match tokio::time::timeout(limit, client.call(proto::PolicyCall { body: body.into() })).await {
            Ok(Ok(answer)) => Ok(answer.into_inner().body.to_vec()),
            Ok(Err(status)) if status.code() == Code::Unimplemented => {
                Err(io::Error::new(io::ErrorKind::NotConnected, format!("{cluster} has no policy service")))
            }
            // The node that was reached knows no way to the one that holds the seat.
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
                Err(io::Error::new(io::ErrorKind::NotConnected, status.message().to_owned()))
            }
            Ok(Err(status)) => Err(io::Error::other(status.message().to_owned())),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"))),
        }
    }
}
