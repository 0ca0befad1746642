//! HTTPRoutes and GRPCRoutes.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Reference;

/// A reference of a route to what it wants to attach to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// Which object; a Gateway unless said otherwise.
    #[serde(flatten)]
    pub object: Reference,
    /// Which listener by name; all without one.
    #[serde(default)]
    pub section_name: Option<String>,
    /// Which listeners by port; all without one.
    #[serde(default)]
    pub port: Option<u16>,
}

/// The two kinds of route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// HTTPRoute.
    Http,
    /// GRPCRoute.
    Grpc,
}

impl RouteKind {
    /// Its `kind`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
        }
    }
}

/// `spec` of a route, whose rules are of its kind.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "R: Deserialize<'de>"))]
pub struct RouteSpec<R> {
    /// What it wants to attach to.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// The hosts that it is for; the listener's without any.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// What it does.
    #[serde(default = "Vec::new")]
    pub rules: Vec<R>,
}

/// A rule of an HTTPRoute.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRule {
    /// Requests that one of these matches; all without any.
    pub matches: Vec<HttpMatch>,
    /// What is changed.
    pub filters: Vec<Filter>,
    /// Where they go.
    pub backend_refs: Vec<BackendRef>,
    /// How long they may take.
    pub timeouts: Option<Timeouts>,
    /// Not supported.
    pub retry: Option<IgnoredAny>,
    /// Not supported.
    pub session_persistence: Option<IgnoredAny>,
}

/// A rule of a GRPCRoute.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRule {
    /// Calls that one of these matches; all without any.
    pub matches: Vec<GrpcMatch>,
    /// What is changed.
    pub filters: Vec<Filter>,
    /// Where they go.
    pub backend_refs: Vec<BackendRef>,
    /// Not supported.
    pub session_persistence: Option<IgnoredAny>,
}

/// How long a request may take.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Timeouts {
    /// The whole of it.
    pub request: Option<String>,
    /// One attempt at a backend.
    pub backend_request: Option<String>,
}

/// What an HTTP request must be like; every part must hold.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatch {
    /// Its path.
    pub path: Option<ValueMatch>,
    /// Its headers.
    pub headers: Vec<NamedMatch>,
    /// Its query's parameters.
    pub query_params: Vec<NamedMatch>,
    /// Its method.
    pub method: Option<String>,
}

/// What a gRPC call must be like; every part must hold.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct GrpcMatch {
    /// Its method.
    pub method: Option<MethodMatch>,
    /// Its metadata.
    pub headers: Vec<NamedMatch>,
}

/// What a gRPC call's method must be.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct MethodMatch {
    /// `Exact` unless said otherwise, or `RegularExpression`.
    pub r#type: Option<String>,
    /// The service.
    pub service: Option<String>,
    /// The method.
    pub method: Option<String>,
}

/// What a text must be.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ValueMatch {
    /// How it is compared.
    pub r#type: Option<String>,
    /// With what.
    pub value: Option<String>,
}

/// What a named text must be.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct NamedMatch {
    /// How it is compared; `Exact` unless said otherwise.
    #[serde(default)]
    pub r#type: Option<String>,
    /// The header or parameter.
    pub name: String,
    /// With what it is compared.
    pub value: String,
}

/// Something that is done to requests.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// Which of the fields below it is; any other kind is refused.
    pub r#type: String,
    /// Changes of the request's headers.
    #[serde(default)]
    pub request_header_modifier: Option<HeaderModifier>,
    /// Changes of the response's headers.
    #[serde(default)]
    pub response_header_modifier: Option<HeaderModifier>,
    /// Sends the client elsewhere.
    #[serde(default)]
    pub request_redirect: Option<Redirect>,
    /// Changes host or path.
    #[serde(default)]
    pub url_rewrite: Option<Rewrite>,
}

/// Changes of headers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct HeaderModifier {
    /// In the place of what is there.
    pub set: Vec<Header>,
    /// Beside what is there.
    pub add: Vec<Header>,
    /// Taken away.
    pub remove: Vec<String>,
}

/// A header.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Where a client is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Redirect {
    /// `http` or `https`; the request's without one.
    pub scheme: Option<String>,
    /// The host; the request's without one.
    pub hostname: Option<String>,
    /// The path; the request's without one.
    pub path: Option<PathModifier>,
    /// The port.
    pub port: Option<u16>,
    /// The status; 302 without one.
    pub status_code: Option<u16>,
}

/// What becomes of a request's host and path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Rewrite {
    /// The host.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathModifier>,
}

/// What becomes of a path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathModifier {
    /// Which of the two.
    pub r#type: String,
    /// The whole path.
    #[serde(default)]
    pub replace_full_path: Option<String>,
    /// The part that a PathPrefix matched.
    #[serde(default)]
    pub replace_prefix_match: Option<String>,
}

/// Where requests go, and which part of them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct BackendRef {
    /// Which object; a Service unless said otherwise.
    #[serde(flatten)]
    pub object: Reference,
    /// Its port.
    #[serde(default)]
    pub port: Option<u16>,
    /// Its part, against the other weights of the rule; 1 without one.
    #[serde(default)]
    pub weight: Option<u32>,
    /// Not supported.
    #[serde(default)]
    pub filters: Vec<IgnoredAny>,
}
