//! Raft's network: each message is one call to the cluster that holds the seat, over the connection between peers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use portolan_topology::names::ClusterName;

use super::group::Group;
use super::message::{Frame, Reply, Request};
use super::record::{self, RecordError};
use super::types::{Member, PolicyRaft};

/// Carries bytes to another cluster's control plane and its answer back. The peer connection is one.
#[async_trait]
pub trait Courier: Send + Sync + 'static {
    /// Calls `cluster`; an error if it cannot be reached within `limit`.
    async fn call(&self, cluster: &ClusterName, body: Vec<u8>, limit: Duration) -> io::Result<Vec<u8>>;
}

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Not a cluster's name.
    #[error("`{0}` is not a cluster")]
    NotACluster(String),
    /// It cannot be reached.
    #[error("{cluster} cannot be reached: {source}")]
    Unreachable {
        /// The cluster.
        cluster: String,
        /// What the connection said.
        source: io::Error,
    },
    /// Its answer is not one.
    #[error("{cluster} answered what is not an answer: {source}")]
    Garbled {
        /// The cluster.
        cluster: String,
        /// What is wrong with it.
        source: RecordError,
    },
    /// It answered something else, or refused.
    #[error("{cluster} refused: {why}")]
    Refused {
        /// The cluster.
        cluster: String,
        /// Its reason.
        why: String,
    },
}

impl CallError {
    /// Whether the message certainly reached nobody, so that it can be sent again.
    pub(super) fn was_not_sent(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. } if was_not_sent(source))
    }
}

/// Whether a call that failed so certainly reached nobody.
pub(super) fn was_not_sent(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, NotConnected};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | NotConnected)
}

/// Calls other clusters in the name of our group.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) courier: Arc<dyn Courier>,
    pub(super) group: Group,
}

impl Caller {
    /// One question, and its answer with the group of the one who answered.
    pub(super) async fn call(
        &self,
        cluster: &str,
        request: Request,
        limit: Duration,
    ) -> Result<Frame<Reply>, CallError> {
        let name = ClusterName::new(cluster).map_err(|_| CallError::NotACluster(cluster.to_owned()))?;
        let garbled = |source| CallError::Garbled { cluster: cluster.to_owned(), source };
        let frame = Frame { group: self.group.id(), message: request };
        let body = record::encode(&frame).map_err(garbled)?;
        let unreachable = |source| CallError::Unreachable { cluster: cluster.to_owned(), source };
        let answer = self.courier.call(&name, body, limit).await.map_err(unreachable)?;
        record::decode(&answer).map_err(garbled)
    }
}

/// Makes a [`SeatNetwork`] for each seat.
pub(super) struct Network(pub(super) Caller);

impl RaftNetworkFactory<PolicyRaft> for Network {
    type Network = SeatNetwork;

    async fn new_client(&mut self, target: u64, member: &Member) -> SeatNetwork {
        SeatNetwork { caller: self.0.clone(), seat: target, cluster: member.cluster.clone() }
    }
}

/// The way to one seat.
pub(super) struct SeatNetwork {
    caller: Caller,
    seat: u64,
    cluster: String,
}

type RpcError<E> = RPCError<u64, Member, E>;

impl SeatNetwork {
    async fn call<E: std::error::Error>(&self, request: Request, option: &RPCOption) -> Result<Reply, RpcError<E>> {
        let frame = self.caller.call(&self.cluster, request, option.hard_ttl()).await;
        frame.map(|frame| frame.message).map_err(|error| Unreachable::new(&error).into())
    }

    fn unexpected<E: std::error::Error>(&self, reply: &Reply) -> RpcError<E> {
        let why = match reply {
            Reply::Refused(refusal) => refusal.to_string(),
            _ => "the answer is to another question".to_owned(),
        };
        Unreachable::new(&CallError::Refused { cluster: self.cluster.clone(), why }).into()
    }

    fn remote<E: std::error::Error>(&self, error: E) -> RpcError<E> {
        RemoteError::new_with_node(self.seat, Member { cluster: self.cluster.clone() }, error).into()
    }
}

impl RaftNetwork<PolicyRaft> for SeatNetwork {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<PolicyRaft>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError<RaftError<u64>>> {
        match self.call(Request::Append { seat: self.seat, request }, &option).await? {
            Reply::Append(result) => result.map_err(|error| self.remote(error)),
            other => Err(self.unexpected(&other)),
        }
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<PolicyRaft>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RpcError<RaftError<u64, InstallSnapshotError>>> {
        match self.call(Request::Snapshot { seat: self.seat, request }, &option).await? {
            Reply::Snapshot(result) => result.map_err(|error| self.remote(error)),
            other => Err(self.unexpected(&other)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RpcError<RaftError<u64>>> {
        match self.call(Request::Vote { seat: self.seat, request }, &option).await? {
            Reply::Vote(result) => result.map_err(|error| self.remote(error)),
            other => Err(self.unexpected(&other)),
        }
    }
}
