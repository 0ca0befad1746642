//! Statuses that the channel makes itself, and what they carry.

use std::error::Error;
use std::sync::Arc;

use tonic::{Code, Status};

use super::Picked;
use crate::balancer::PickError;
use crate::routing::RoutingError;

/// The source of a status that the channel made.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{what}")]
pub struct CallError {
    /// What kind of failure it is.
    pub failure: Failure,
    /// The endpoint of the last attempt, if there was one.
    pub picked: Option<Picked>,
    what: String,
}

/// How a call failed in the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No route of the service takes the call, or the one that does leads nowhere.
    NoRoute,
    /// There was no endpoint to send to.
    NoEndpoint,
    /// Too many calls waited for an endpoint already.
    Pending,
    /// The connection broke, or no byte of the call could be sent.
    Broken,
    /// The server ended the stream without a status.
    Reset,
    /// The deadline passed.
    Deadline,
}

impl CallError {
    /// What is behind a status, if the channel made it.
    pub fn of(status: &Status) -> Option<&Self> {
        status.source()?.downcast_ref()
    }
}

/// A status with its [`CallError`].
pub(super) fn status(code: Code, failure: Failure, picked: Option<Picked>, what: String) -> Status {
    let mut status = Status::new(code, what.clone());
    status.set_source(Arc::new(CallError { failure, picked, what }));
    status
}

/// Where a call leads is known, and it is nowhere.
pub(super) fn no_way(service: &str, error: &RoutingError) -> Status {
    match error {
        RoutingError::Route(why) => status(Code::Unavailable, Failure::NoRoute, None, format!("{service}: {why}")),
        RoutingError::Pick(why) => no_endpoint(service, why),
    }
}

pub(super) fn no_endpoint(service: &str, error: &PickError) -> Status {
    status(Code::Unavailable, Failure::NoEndpoint, None, format!("{service}: {error}"))
}

pub(super) fn too_many_wait(service: &str, limit: u32) -> Status {
    let what =
        format!("{service}: {limit} calls wait for an endpoint already, which is the cluster's max_pending_requests");
    status(Code::Unavailable, Failure::Pending, None, what)
}

/// An HTTP/2 error as gRPC's protocol page maps it: what broke the connection is UNAVAILABLE.
pub(super) fn broken(error: &h2::Error, picked: &Picked) -> Status {
    let address = picked.address;
    let (code, failure, what) = match error.reason() {
        Some(reason) if error.is_reset() => {
            let code = match reason {
                h2::Reason::REFUSED_STREAM => Code::Unavailable,
                h2::Reason::CANCEL => Code::Cancelled,
                h2::Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
                h2::Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
                _ => Code::Internal,
            };
            (code, Failure::Reset, format!("{address}: the stream was reset: {reason}"))
        }
        _ => (Code::Unavailable, Failure::Broken, format!("{address}: the connection broke: {error}")),
    };
    status(code, failure, Some(picked.clone()), what)
}

/// Whether a status tells that the endpoint, not the request, is at fault.
pub(super) fn is_the_endpoints_fault(code: Code) -> bool {
    use Code::{DataLoss, DeadlineExceeded, Internal, ResourceExhausted, Unavailable, Unknown};
    matches!(code, DataLoss | DeadlineExceeded | Internal | ResourceExhausted | Unavailable | Unknown)
}
