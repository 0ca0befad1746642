//! Why the admin interface did not do what it was asked, as HTTP: a status, and JSON with one message for people, a
//! reason for programs, and what belongs to it.

use std::fmt;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use portolan_federation::policy::{Reason, WriteError};
use portolan_topology::diagnostic::Diagnostics;
use serde_json::{Value, json};

/// A request that is refused, or that failed.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    reason: &'static str,
    error: String,
    details: Vec<(&'static str, Value)>,
}

impl Refusal {
    fn new(status: StatusCode, reason: &'static str, error: impl ToString) -> Self {
        Self { status, reason, error: error.to_string(), details: Vec::new() }
    }

    /// What was sent makes no sense.
    pub(super) fn invalid(error: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Invalid", error)
    }

    /// What it is about does not exist.
    pub(super) fn not_found(error: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", error)
    }

    /// It does not fit how things are now.
    pub(super) fn conflict(reason: &'static str, error: impl ToString) -> Self {
        Self::new(StatusCode::CONFLICT, reason, error)
    }

    /// Its reason, in one word for programs.
    pub(crate) fn reason(&self) -> &'static str {
        self.reason
    }

    /// Adds a field to the answer.
    pub(super) fn with(mut self, field: &'static str, value: impl Into<Value>) -> Self {
        self.details.push((field, value.into()));
        self
    }
}

impl From<Diagnostics> for Refusal {
    fn from(mistakes: Diagnostics) -> Self {
        Self::invalid(mistakes)
    }
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        let reason = match error.reason() {
            Reason::ReadOnly => "ReadOnly",
            Reason::LeaderFailed => "LeaderFailed",
            Reason::MayBeWritten => "MayBeWritten",
            Reason::NotAppliedHere => "NotAppliedHere",
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason, error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut body = json!({"error": self.error, "reason": self.reason});
        for (field, value) in self.details {
            body[field] = value;
        }
        (self.status, Json(body)).into_response()
    }
}

/// The mistakes of an object that no person wrote as a text: its places would tell nobody anything.
pub(super) fn without_places(mistakes: &Diagnostics) -> Refusal {
    let said = mistakes.iter().map(|mistake| {
        let expected = mistake.expected.iter().map(|expected| format!("; expected {expected}"));
        let meant = mistake.suggestion.iter().map(|meant| format!("; did you mean `{meant}`?"));
        [mistake.message.clone()].into_iter().chain(expected).chain(meant).collect::<String>()
    });
    Refusal::invalid(said.collect::<Vec<_>>().join("\n"))
}
