//! What gateways come to: for each, the ports with their certificates, hosts and routes, in the order in which a request is
//! matched. No word of xDS: that is for [`crate::resources::gateway`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_topology::names::ServiceId;

use super::hostname::Hostname;
use super::objects::{Certificate, HeaderModifier, ObjectName};
use crate::catalog::served::{NameScope, PortRef};

/// A port of a service that routes lead to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// The service.
    pub service: ServiceId,
    /// Its port.
    pub port: PortRef,
    /// A Service is the own cluster's, a ServiceImport the federation's.
    pub scope: NameScope,
}

/// What is known of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It is there.
    Present,
    /// It is known not to be there.
    Absent,
    /// Nothing can be said yet.
    NotYet,
}

/// A Gateway, ready to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayPlan {
    /// Which.
    pub name: ObjectName,
    /// Where its Envoys listen; the machine's every address without one.
    pub address: Option<IpAddr>,
    /// Its ports, by number.
    pub ports: BTreeMap<u16, PortPlan>,
    /// The certificates that they present, by Secret.
    pub certificates: BTreeMap<ObjectName, Arc<Certificate>>,
}

/// A port, and what is served there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortPlan {
    /// Plain text.
    Http(Site),
    /// TLS: by the name that the client asks for, the narrowest first.
    Https(Vec<TlsSite>),
}

impl PortPlan {
    /// Everything that is served there.
    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        let (http, https) = match self {
            Self::Http(site) => (Some(site), &[][..]),
            Self::Https(sites) => (None, sites.as_slice()),
        };
        http.into_iter().chain(https.iter().map(|site| &site.site))
    }
}

/// What is served under a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSite {
    /// The listener's name.
    pub listener: String,
    /// The names that clients ask for.
    pub hostname: Hostname,
    /// The Secrets with its certificates.
    pub certificates: Vec<ObjectName>,
    /// What is served.
    pub site: Site,
}

/// Hosts with their routes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Site {
    /// Each host once.
    pub hosts: BTreeMap<Hostname, Vec<RoutePlan>>,
}

impl Site {
    /// The backends that its routes lead to.
    pub fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        self.hosts
            .values()
            .flatten()
            .filter_map(|route| match &route.action {
                Action::Forward(forward) => Some(forward.shares.iter().filter_map(|share| share.upstream.as_ref())),
                Action::Redirect(_) => None,
            })
            .flatten()
    }
}

impl GatewayPlan {
    /// The backends that its routes lead to.
    #[must_use]
    pub fn upstreams(&self) -> BTreeSet<&Upstream> {
        self.ports.values().flat_map(PortPlan::sites).flat_map(Site::upstreams).collect()
    }
}

/// What the routes of one service say to its clients, in the order in which calls are matched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceRoutes {
    /// Where routes are attached: a port, or all of them without one.
    pub attached: BTreeSet<Attachment>,
    /// What they say.
    pub routes: Vec<ServiceRoute>,
}

/// The part of a service that a route is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// The port; every port without one.
    pub port: Option<u16>,
    /// Whether to a ServiceImport, so that the names of the own cluster alone (`cluster.local`) are left out.
    pub imported: bool,
}

impl Attachment {
    fn covers(self, port: u16, scope: NameScope) -> bool {
        self.port.is_none_or(|own| own == port) && (!self.imported || scope == NameScope::Federation)
    }

    /// Whether some call may concern both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.port.is_none() || other.port.is_none() || self.port == other.port
    }
}

/// A route of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRoute {
    /// Whose calls it is for.
    pub attachment: Attachment,
    /// What it does. A [`Forward`] without shares leads to the service itself.
    pub plan: RoutePlan,
    /// Whether nothing can be said yet of some backend.
    pub pending: bool,
}

impl ServiceRoutes {
    /// The routes for calls to one of the service's ports by a name of this scope. `None`: there is none, and calls go
    /// to the service as they would without this object.
    #[must_use]
    pub fn of(&self, port: u16, scope: NameScope) -> Option<Vec<&ServiceRoute>> {
        let covered = self.attached.iter().any(|attachment| attachment.covers(port, scope));
        covered.then(|| self.routes.iter().filter(|route| route.attachment.covers(port, scope)).collect())
    }
}

/// Requests of one kind, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutePlan {
    /// Which requests.
    pub matching: Matching,
    /// Changes of their headers.
    pub request_headers: HeaderModifier,
    /// Changes of the answers' headers.
    pub response_headers: HeaderModifier,
    /// What becomes of them.
    pub action: Action,
}

/// Which requests: every part must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matching {
    /// gRPC calls alone.
    pub grpc: bool,
    /// Their path.
    pub path: PathMatch,
    /// Their method; any without one.
    pub method: Option<String>,
    /// Their headers.
    pub headers: Vec<TextMatch>,
    /// Their query's parameters.
    pub query: Vec<TextMatch>,
}

/// Which paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// This one.
    Exact(String),
    /// This one and those below it; it ends with no slash, and all paths are below the empty one.
    Prefix(String),
    /// Those that match it from end to end.
    Regex(String),
}

/// A named text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextMatch {
    /// Its name.
    pub name: String,
    /// What it must be.
    pub value: String,
    /// Whether `value` is a regular expression, for the whole text.
    pub regex: bool,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The client is sent elsewhere.
    Redirect(RedirectPlan),
    /// It goes on.
    Forward(Forward),
}

/// Where requests go on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Their parts. None, or weights that are all 0: every request is refused.
    pub shares: Vec<Share>,
    /// The host that the backend sees; the request's without one.
    pub host: Option<String>,
    /// The path that it sees; the request's without one.
    pub path: Option<PathChange>,
    /// How long they may take.
    pub timeout: Limit,
    /// How long one attempt at a backend may take.
    pub attempt_timeout: Limit,
}

/// A time that a rule may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Limit {
    /// It says nothing: what holds for the service does.
    #[default]
    Unsaid,
    /// It says that there is none.
    Never,
    /// It says how long.
    After(Duration),
}

/// A part of a rule's requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Where they go; `None`: they are refused.
    pub upstream: Option<Upstream>,
    /// How large it is, against the others'.
    pub weight: u32,
}

/// A backend and how to speak to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Upstream {
    /// The backend.
    pub backend: Backend,
    /// HTTP/2, which is what gRPC needs; HTTP/1.1 otherwise.
    pub http2: bool,
}

/// Where a client is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectPlan {
    /// The scheme; the request's without one.
    pub scheme: Option<String>,
    /// The host; the request's without one.
    pub host: Option<String>,
    /// The port, where it must be said.
    pub port: Option<u16>,
    /// The path; the request's without one.
    pub path: Option<PathChange>,
    /// The status.
    pub status: u16,
}

/// Another path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    /// This one.
    Full(String),
    /// This one in the place of the matched prefix.
    Prefix(String),
}
