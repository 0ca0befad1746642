//! The Gateway API's objects, as far as they count here, however they were read. Nothing is judged: a field that is not
//! supported stands as itself, so that whoever judges can say so.

mod route;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::ByteString;
use serde::Deserialize;
use serde::de::IgnoredAny;

pub use self::route::{
    BackendRef, Filter, GrpcMatch, GrpcRule, Header, HeaderModifier, HttpMatch, HttpRule, MethodMatch, NamedMatch,
    ParentRef, PathModifier, Redirect, Rewrite, RouteKind, RouteSpec, Timeouts, ValueMatch,
};

/// The API group of gateways and routes.
pub const GROUP: &str = "gateway.networking.k8s.io";
/// The class of the gateways that are ours, where no GatewayClass says otherwise.
pub const CLASS: &str = "portolan";
/// Who we are to GatewayClasses and in the statuses of routes.
pub const CONTROLLER: &str = "portolan.dev/gateway";

/// A GatewayClass of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Class {
    /// Whether it has parameters, which are not supported.
    pub parameters: bool,
}

/// The classes of the gateways that are ours, by name. Where GatewayClasses are not read: [`CLASS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes(pub BTreeMap<String, Class>);

impl Default for Classes {
    fn default() -> Self {
        Self([(CLASS.to_owned(), Class::default())].into())
    }
}

/// An object's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// Of both parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `NAMESPACE/NAME`.
impl std::str::FromStr for ObjectName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sound = |part: &str| {
            !part.is_empty()
                && part.len() <= 253
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        };
        match text.split_once('/') {
            Some((namespace, name)) if sound(namespace) && sound(name) => Ok(Self::new(namespace, name)),
            _ => Err(format!("`{text}`: expected NAMESPACE/NAME, such as shop/edge")),
        }
    }
}

/// An object.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Object<S> {
    /// What identifies it.
    pub metadata: Metadata,
    /// What it asks for.
    pub spec: S,
}

/// What identifies an object.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its namespace.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Which edit of it this is.
    #[serde(default)]
    pub generation: Option<i64>,
    /// When it was made, as RFC 3339 says it.
    #[serde(default)]
    pub creation_timestamp: Option<String>,
}

fn default_namespace() -> String {
    "default".to_owned()
}

impl Metadata {
    /// Its name with its namespace.
    #[must_use]
    pub fn object_name(&self) -> ObjectName {
        ObjectName::new(&self.namespace, &self.name)
    }

    /// Orders objects by age, the oldest first; of equal age by namespace and name. What has no age is the youngest.
    #[must_use]
    pub fn seniority(&self) -> impl Ord + use<> {
        let made = self.creation_timestamp.clone();
        (made.is_none(), made, self.object_name())
    }
}

/// `spec` of a Gateway.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// Whose it is.
    pub gateway_class_name: String,
    /// Where it listens, one by one.
    pub listeners: Vec<Listener>,
    /// At which addresses; all of the machine's without one.
    #[serde(default)]
    pub addresses: Vec<GatewayAddress>,
    /// Not supported.
    #[serde(default)]
    pub tls: Option<IgnoredAny>,
    /// Not supported.
    #[serde(default, rename = "backendTLS")]
    pub backend_tls: Option<IgnoredAny>,
    /// Not supported.
    #[serde(default)]
    pub allowed_listeners: Option<IgnoredAny>,
    /// Not supported: whoever runs the Envoys gives them their labels and parameters.
    #[serde(default)]
    pub infrastructure: Option<IgnoredAny>,
}

/// An address that a Gateway asks for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GatewayAddress {
    /// `IPAddress` unless said otherwise.
    #[serde(default)]
    pub r#type: Option<String>,
    /// The address.
    #[serde(default)]
    pub value: Option<String>,
}

/// A listener of a Gateway.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// The hosts that it serves; all without one.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Its port.
    pub port: u16,
    /// `HTTP` or `HTTPS`; others are refused.
    pub protocol: String,
    /// How TLS ends.
    #[serde(default)]
    pub tls: Option<ListenerTls>,
    /// Which routes may attach.
    #[serde(default)]
    pub allowed_routes: AllowedRoutes,
}

/// How a listener ends TLS.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// `Terminate` unless said otherwise.
    #[serde(default)]
    pub mode: Option<String>,
    /// Secrets with its certificates.
    #[serde(default)]
    pub certificate_refs: Vec<Reference>,
    /// Not supported.
    #[serde(default)]
    pub frontend_validation: Option<IgnoredAny>,
    /// Not supported.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// Which routes may attach to a listener.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct AllowedRoutes {
    /// From which namespaces.
    #[serde(default)]
    pub namespaces: Option<RouteNamespaces>,
    /// Of which kinds; those that fit the protocol without any.
    #[serde(default)]
    pub kinds: Vec<RouteKindRef>,
}

/// The namespaces from which routes may attach.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RouteNamespaces {
    /// `Same` unless said otherwise, `All`; `Selector` is not supported.
    #[serde(default)]
    pub from: Option<String>,
}

/// A kind of route.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RouteKindRef {
    /// Its group; the Gateway API's without one.
    #[serde(default)]
    pub group: Option<String>,
    /// Its kind.
    pub kind: String,
}

/// A reference to an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Reference {
    /// Its group; what that is without one depends on the field.
    #[serde(default)]
    pub group: Option<String>,
    /// Its kind; the same.
    #[serde(default)]
    pub kind: Option<String>,
    /// Its namespace; the referrer's without one.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// `spec` of a ReferenceGrant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GrantSpec {
    /// Who may refer.
    pub from: Vec<GrantFrom>,
    /// To what.
    pub to: Vec<GrantTo>,
}

/// Who may refer to objects in a grant's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GrantFrom {
    /// The referrer's group.
    #[serde(default)]
    pub group: String,
    /// The referrer's kind.
    pub kind: String,
    /// The referrer's namespace.
    pub namespace: String,
}

/// What may be referred to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GrantTo {
    /// Its group; empty: the core's.
    #[serde(default)]
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name; all without one.
    #[serde(default)]
    pub name: Option<String>,
}

/// A Secret, as it is read.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretObject {
    /// What identifies it.
    pub metadata: Metadata,
    /// Its type.
    #[serde(default)]
    pub r#type: Option<String>,
    /// What it holds, by key.
    #[serde(default)]
    pub data: BTreeMap<String, ByteString>,
    /// The same as text.
    #[serde(default)]
    pub string_data: BTreeMap<String, String>,
}

/// The type of Secrets that hold a certificate.
pub const TLS_SECRET: &str = "kubernetes.io/tls";

/// A certificate with its key, PEM. Whether they can be used is for whoever judges.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate and its intermediates.
    pub chain: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
}

/// Says nothing of the key.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").finish_non_exhaustive()
    }
}

impl SecretObject {
    /// What it holds, if it is one of certificates.
    #[must_use]
    pub fn certificate(mut self) -> Option<(ObjectName, Certificate)> {
        let mut take = |key: &str| {
            let text = self.string_data.remove(key).map(String::into_bytes);
            text.or_else(|| self.data.remove(key).map(|ByteString(bytes)| bytes)).unwrap_or_default()
        };
        let certificate = Certificate { chain: take("tls.crt"), key: take("tls.key") };
        (self.r#type.as_deref() == Some(TLS_SECRET)).then(|| (self.metadata.object_name(), certificate))
    }
}

/// A port of a Service or ServiceImport that speaks HTTP/2 in plain text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CleartextHttp2 {
    /// Whether the object is a ServiceImport.
    pub imported: bool,
    /// The object.
    pub object: ObjectName,
    /// The port.
    pub port: u16,
}

/// All objects of a cluster that gateways are made from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GatewayObjects {
    /// Whether this is all that there is: false until the first complete listing.
    pub synced: bool,
    /// Which classes are ours.
    pub classes: Classes,
    /// Gateways of all classes.
    pub gateways: BTreeMap<ObjectName, Arc<Object<GatewaySpec>>>,
    /// HTTPRoutes.
    pub http_routes: BTreeMap<ObjectName, Arc<Object<RouteSpec<HttpRule>>>>,
    /// GRPCRoutes.
    pub grpc_routes: BTreeMap<ObjectName, Arc<Object<RouteSpec<GrpcRule>>>>,
    /// ReferenceGrants.
    pub grants: BTreeMap<ObjectName, Arc<Object<GrantSpec>>>,
    /// Secrets with certificates.
    pub certificates: BTreeMap<ObjectName, Arc<Certificate>>,
    /// Ports whose `appProtocol` is `kubernetes.io/h2c`.
    pub cleartext_http2: BTreeSet<CleartextHttp2>,
}

impl GatewayObjects {
    /// Known to be none.
    #[must_use]
    pub fn none() -> Self {
        Self { synced: true, ..Self::default() }
    }

    /// Whether there is no object of the Gateway API.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gateways.is_empty() && self.http_routes.is_empty() && self.grpc_routes.is_empty()
    }
}
