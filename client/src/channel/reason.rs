//! Why an attempt went where it went: what its span says.

use std::fmt;
use std::net::SocketAddr;

use super::{Burden, LastPick};

/// Why there is an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// It is the call's first.
    First,
    /// The one before failed, and the route has it repeated.
    Retry,
    /// No byte of the one before had reached a server.
    Untouched,
    /// The first is slow.
    Hedge,
}

/// Why there is an attempt, and what its endpoint was preferred to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reason {
    cause: Cause,
    burden: Burden,
    preferred_to: Option<(SocketAddr, Burden)>,
}

impl Reason {
    pub(super) fn new(cause: Cause, pick: &LastPick) -> Self {
        Self { cause, burden: pick.burden, preferred_to: pick.preferred_to }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = match self.cause {
            Cause::First => "first attempt",
            Cause::Retry => "retry",
            Cause::Untouched => "retry of what reached no server",
            Cause::Hedge => "beside a slow one",
        };
        write!(f, "{cause}: {}", self.burden)?;
        match &self.preferred_to {
            Some((other, theirs)) => write!(f, "; preferred to {other} with {theirs}"),
            None => write!(f, "; compared with no other"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_why_there_is_an_attempt_and_why_there() {
        let burden = |in_flight| Burden { in_flight, slowness: 1.0 };
        let other = (SocketAddr::from(([10, 0, 0, 1], 2)), burden(3));
        let reason = Reason { cause: Cause::Hedge, burden: burden(1), preferred_to: Some(other) };
        assert_eq!(reason.to_string(), "beside a slow one: 1 in flight; preferred to 10.0.0.1:2 with 3 in flight");
        let reason = Reason { cause: Cause::First, preferred_to: None, ..reason };
        assert_eq!(reason.to_string(), "first attempt: 1 in flight; compared with no other");
    }
}
