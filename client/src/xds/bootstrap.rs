//! gRPC's bootstrap: which management servers there are, how to reach them, and who this client is.
//!
//! The same JSON that every gRPC client reads, from `GRPC_XDS_BOOTSTRAP` (a file) or `GRPC_XDS_BOOTSTRAP_CONFIG` (the
//! JSON itself). Fields that are unknown are ignored, as gRPC does. The environment and files are handed in; certificate
//! files are named here and read by whoever connects.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use envoy_types::pb::envoy::config::core::v3::{Locality, Node, node::UserAgentVersionType};
use envoy_types::pb::google::protobuf::{ListValue, NullValue, Struct, Value, value::Kind};
use serde::Deserialize;
use serde_json::Value as Json;

/// Names the bootstrap's file.
pub const FILE_VARIABLE: &str = "GRPC_XDS_BOOTSTRAP";
/// Holds the bootstrap itself; read if [`FILE_VARIABLE`] is not set.
pub const CONFIG_VARIABLE: &str = "GRPC_XDS_BOOTSTRAP_CONFIG";

/// A valid bootstrap.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    /// The management servers, the preferred one first; at least one.
    pub servers: Vec<ServerConfig>,
    /// Who this client is.
    pub node: NodeConfig,
    /// Servers of `xdstp` authorities. Names with an authority are not supported yet: one is refused when it is used.
    pub authorities: BTreeMap<String, Vec<ServerConfig>>,
}

/// A management server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where it is, as written: `HOST:PORT`, or the same behind `dns:///`.
    pub uri: String,
    /// `HOST` of the URI, without the brackets of an IPv6 address: what its certificate must name.
    pub host: String,
    /// The port of the URI.
    pub port: u16,
    /// The first credentials that are supported.
    pub creds: ChannelCreds,
    /// Its features, as written.
    pub features: Vec<String>,
}

impl ServerConfig {
    /// `HOST:PORT`, to be resolved and dialled.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether a resource that this server leaves out stays (`ignore_resource_deletion`).
    #[must_use]
    pub fn ignores_deletion(&self) -> bool {
        self.features.iter().any(|feature| feature == "ignore_resource_deletion")
    }
}

/// How a connection to a management server is secured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelCreds {
    /// Plain text.
    Insecure,
    /// TLS.
    Tls {
        /// The authority that the server's certificate must come from, in PEM. Always there: no system roots are used.
        ca: PathBuf,
        /// This client's certificate chain and key, in PEM.
        identity: Option<(PathBuf, PathBuf)>,
    },
}

/// Who this client is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeConfig {
    /// Its id.
    pub id: String,
    /// Its cluster.
    pub cluster: String,
    /// Where it runs: region, zone, sub-zone.
    pub locality: Option<(String, String, String)>,
    /// Whatever else it says of itself.
    pub metadata: Option<Struct>,
}

/// The name that this library gives itself.
pub const USER_AGENT: &str = "portolan-rust";
/// What of xDS's optional parts this client does: partial spilling is the server's, and a resource may come in its
/// `Resource` wrapper.
pub const CLIENT_FEATURES: [&str; 2] = ["envoy.lb.does_not_support_overprovisioning", "xds.config.resource-in-sotw"];

impl NodeConfig {
    /// The node as the first request of a stream carries it.
    #[must_use]
    pub fn to_node(&self) -> Node {
        Node {
            id: self.id.clone(),
            cluster: self.cluster.clone(),
            metadata: self.metadata.clone(),
            locality: self.locality.as_ref().map(|(region, zone, sub_zone)| Locality {
                region: region.clone(),
                zone: zone.clone(),
                sub_zone: sub_zone.clone(),
            }),
            user_agent_name: USER_AGENT.to_owned(),
            user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(env!("CARGO_PKG_VERSION").to_owned())),
            client_features: CLIENT_FEATURES.map(str::to_owned).to_vec(),
            ..Node::default()
        }
    }
}

/// Where a bootstrap came from, for errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// The variable [`CONFIG_VARIABLE`].
    Variable,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable => f.write_str(CONFIG_VARIABLE),
        }
    }
}

/// Why there is no bootstrap.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// Neither variable is set.
    #[error("no xDS bootstrap: set {FILE_VARIABLE} to its file, or {CONFIG_VARIABLE} to its JSON")]
    Missing,
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}; {FILE_VARIABLE} must name a readable file", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not JSON of this shape.
    #[error("{origin}: not a bootstrap: {source}")]
    Malformed {
        /// Where it came from.
        origin: Origin,
        /// What does not fit, with line and column.
        source: serde_json::Error,
    },
    /// A field says something impossible.
    #[error("{origin}: {field}: {problem}")]
    Field {
        /// Where it came from.
        origin: Origin,
        /// The field's path, such as `xds_servers[0].server_uri`.
        field: String,
        /// What is wrong, and what to write instead.
        problem: String,
    },
}

#[derive(Deserialize)]
struct RawBootstrap {
    #[serde(default)]
    xds_servers: Vec<RawServer>,
    #[serde(default)]
    node: RawNode,
    #[serde(default)]
    authorities: BTreeMap<String, RawAuthority>,
}

#[derive(Deserialize)]
struct RawServer {
    server_uri: String,
    #[serde(default)]
    channel_creds: Vec<RawCreds>,
    /// gRPC passes over features that are not strings.
    #[serde(default)]
    server_features: Vec<Json>,
}

#[derive(Deserialize)]
struct RawCreds {
    #[serde(rename = "type")]
    kind: String,
    /// Of whatever shape its type wants.
    #[serde(default)]
    config: Json,
}

#[derive(Deserialize, Default)]
struct RawTls {
    ca_certificate_file: Option<PathBuf>,
    certificate_file: Option<PathBuf>,
    private_key_file: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
struct RawNode {
    #[serde(default)]
    id: String,
    #[serde(default)]
    cluster: String,
    locality: Option<RawLocality>,
    metadata: Option<serde_json::Map<String, Json>>,
}

#[derive(Deserialize)]
struct RawLocality {
    #[serde(default)]
    region: String,
    #[serde(default)]
    zone: String,
    #[serde(default)]
    sub_zone: String,
}

#[derive(Deserialize)]
struct RawAuthority {
    #[serde(default)]
    xds_servers: Vec<RawServer>,
}

impl Bootstrap {
    /// Reads the bootstrap that the environment names. `variable` looks up an environment variable, `read` a file.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<String>,
        read: impl FnOnce(&Path) -> std::io::Result<String>,
    ) -> Result<Self, BootstrapError> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        if let Some(path) = set(FILE_VARIABLE).map(PathBuf::from) {
            let text = read(&path).map_err(|source| BootstrapError::Unreadable { path: path.clone(), source })?;
            return Self::parse(&text, Origin::File(path));
        }
        let text = set(CONFIG_VARIABLE).ok_or(BootstrapError::Missing)?;
        Self::parse(&text, Origin::Variable)
    }

    /// Parses a bootstrap.
    pub fn parse(text: &str, origin: Origin) -> Result<Self, BootstrapError> {
        let raw: RawBootstrap = serde_json::from_str(text)
            .map_err(|source| BootstrapError::Malformed { origin: origin.clone(), source })?;
        let at = Fields { origin };
        if raw.xds_servers.is_empty() {
            return Err(
                at.wrong("xds_servers", "name at least one management server, as [{\"server_uri\": \"HOST:PORT\", …}]")
            );
        }
        let servers = at.servers("xds_servers", raw.xds_servers)?;
        let mut authorities = BTreeMap::new();
        for (name, authority) in raw.authorities {
            let servers = at.servers(&format!("authorities.{name}.xds_servers"), authority.xds_servers)?;
            authorities.insert(name, servers);
        }
        let node = NodeConfig {
            id: raw.node.id,
            cluster: raw.node.cluster,
            locality: raw.node.locality.map(|at| (at.region, at.zone, at.sub_zone)),
            metadata: raw.node.metadata.map(to_struct),
        };
        Ok(Self { servers, node, authorities })
    }
}

/// Checks fields, and names the one at fault.
struct Fields {
    origin: Origin,
}

impl Fields {
    fn wrong(&self, field: impl Into<String>, problem: impl Into<String>) -> BootstrapError {
        BootstrapError::Field { origin: self.origin.clone(), field: field.into(), problem: problem.into() }
    }

    fn servers(&self, field: &str, servers: Vec<RawServer>) -> Result<Vec<ServerConfig>, BootstrapError> {
        servers.into_iter().enumerate().map(|(i, server)| self.server(&format!("{field}[{i}]"), server)).collect()
    }

    fn server(&self, field: &str, server: RawServer) -> Result<ServerConfig, BootstrapError> {
        let (host, port) = split_uri(&server.server_uri).ok_or_else(|| {
            let problem = format!("`{}` is not HOST:PORT, such as portolan.example.com:7444", server.server_uri);
            self.wrong(format!("{field}.server_uri"), problem)
        })?;
        Ok(ServerConfig {
            host: host.to_owned(),
            port,
            creds: self.creds(&format!("{field}.channel_creds"), server.channel_creds)?,
            features: server.server_features.into_iter().filter_map(|f| f.as_str().map(str::to_owned)).collect(),
            uri: server.server_uri,
        })
    }

    fn creds(&self, field: &str, offered: Vec<RawCreds>) -> Result<ChannelCreds, BootstrapError> {
        let kinds: Vec<&str> = offered.iter().map(|creds| creds.kind.as_str()).collect();
        let problem = format!(
            "none of [{}] is supported; add {{\"type\": \"tls\"}} or {{\"type\": \"insecure\"}}",
            kinds.join(", ")
        );
        for (i, creds) in offered.into_iter().enumerate() {
            match creds.kind.as_str() {
                "insecure" => return Ok(ChannelCreds::Insecure),
                "tls" => return self.tls(&format!("{field}[{i}].config"), creds.config),
                _ => {}
            }
        }
        Err(self.wrong(field, problem))
    }

    fn tls(&self, field: &str, config: Json) -> Result<ChannelCreds, BootstrapError> {
        let tls: Option<RawTls> =
            serde_json::from_value(config).map_err(|error| self.wrong(field, error.to_string()))?;
        let tls = tls.unwrap_or_default();
        let ca = tls.ca_certificate_file.ok_or_else(|| {
            self.wrong(
                format!("{field}.ca_certificate_file"),
                "the system's roots are not supported yet; name the file of the authority that signs the control planes",
            )
        })?;
        let identity = match (tls.certificate_file, tls.private_key_file) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(
                    self.wrong(format!("{field}.private_key_file"), "certificate_file needs it; name the key's file")
                );
            }
            (None, Some(_)) => {
                return Err(self.wrong(
                    format!("{field}.certificate_file"),
                    "private_key_file needs it; name the certificate's file",
                ));
            }
        };
        Ok(ChannelCreds::Tls { ca, identity })
    }
}

/// Host and port of `HOST:PORT`, `[V6]:PORT`, or either behind `dns:`, `dns:///` and the like.
fn split_uri(uri: &str) -> Option<(&str, u16)> {
    let rest = ["dns:///", "dns:", "ipv4:", "ipv6:"].iter().find_map(|scheme| uri.strip_prefix(scheme)).unwrap_or(uri);
    let (host, port) = rest.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').filter(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())?,
        None if host.contains([':', '/', ' ', ']']) => return None,
        None => host,
    };
    (!host.is_empty()).then_some((host, port))
}

fn to_struct(fields: serde_json::Map<String, Json>) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, value)| (name, to_value(value))).collect() }
}

fn to_value(json: Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(NullValue::NullValue.into()),
        Json::Bool(value) => Kind::BoolValue(value),
        // A protobuf number is a double: every JSON number fits, large integers rounded.
        Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        Json::String(value) => Kind::StringValue(value),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.into_iter().map(to_value).collect() }),
        Json::Object(fields) => Kind::StructValue(to_struct(fields)),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Bootstrap, BootstrapError> {
        Bootstrap::parse(text, Origin::File("boot.json".into()))
    }

    const WHOLE: &str = r#"{
        "xds_servers": [
            {"server_uri": "portolan.use1-a.example.com:7444",
             "channel_creds": [{"type": "google_default"},
                {"type": "tls", "config": {"ca_certificate_file": "/ca", "certificate_file": "/cert", "private_key_file": "/key", "refresh_interval": "60s"}},
                {"type": "insecure"}],
             "server_features": ["xds_v3", 7, "ignore_resource_deletion"]},
            {"server_uri": "dns:///[::1]:7445", "channel_creds": [{"type": "insecure"}]}],
        "node": {"id": "n1", "cluster": "use1-a", "locality": {"region": "us-east", "zone": "us-east-1a"},
                 "metadata": {"team": "shop", "n": 1.5, "deep": [true, null, {"a": "b"}]}},
        "authorities": {"other": {"xds_servers": [{"server_uri": "x:1", "channel_creds": [{"type": "insecure"}]}]}},
        "certificate_providers": {"unknown": {}}
    }"#;

    #[test]
    fn a_whole_bootstrap_is_read() {
        let bootstrap = parse(WHOLE).unwrap();
        assert_eq!(bootstrap.servers.len(), 2);
        let first = &bootstrap.servers[0];
        assert_eq!((first.host.as_str(), first.port), ("portolan.use1-a.example.com", 7444));
        assert_eq!(
            first.creds,
            ChannelCreds::Tls { ca: "/ca".into(), identity: Some(("/cert".into(), "/key".into())) }
        );
        assert!(first.ignores_deletion());
        let second = &bootstrap.servers[1];
        assert_eq!((second.host.as_str(), second.address().as_str()), ("::1", "[::1]:7445"));
        assert!(bootstrap.authorities.contains_key("other"));

        let node = bootstrap.node.to_node();
        assert_eq!(node.user_agent_name, "portolan-rust");
        assert_eq!(node.client_features, CLIENT_FEATURES);
        let locality = node.locality.unwrap();
        assert_eq!(
            (locality.region.as_str(), locality.zone.as_str(), locality.sub_zone.as_str()),
            ("us-east", "us-east-1a", "")
        );
        assert_eq!(node.metadata.unwrap().fields.len(), 3);
    }

    #[test]
    fn each_mistake_names_its_field_and_its_mend() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with("boot.json: ") && error.contains(expected), "{error}");
        }
        let server = |uri: &str, creds: &str| {
            format!(r#"{{"xds_servers": [{{"server_uri": "{uri}", "channel_creds": {creds}}}]}}"#)
        };
        check("{", "not a bootstrap: EOF");
        check("{}", "xds_servers: name at least one");
        check(r#"{"xds_servers": [{"channel_creds": []}]}"#, "missing field `server_uri`");
        for uri in ["nowhere", "host:", "host:0", "host:70000", ":80", "http://h:80", "::1:80", "[no]:80", "unix:/sock"]
        {
            check(&server(uri, r#"[{"type": "insecure"}]"#), "xds_servers[0].server_uri: `");
        }
        check(&server("h:1", "[]"), "channel_creds: none of [] is supported");
        check(&server("h:1", r#"[{"type": "google_default"}]"#), "none of [google_default]");
        check(&server("h:1", r#"[{"type": "tls"}]"#), "channel_creds[0].config.ca_certificate_file");
        check(
            &server("h:1", r#"[{"type": "tls", "config": {"ca_certificate_file": "/ca", "certificate_file": "/c"}}]"#),
            "config.private_key_file: certificate_file needs it",
        );
    }

    #[test]
    fn the_file_wins_over_the_inline_configuration() {
        let both = |name: &str| (name == FILE_VARIABLE || name == CONFIG_VARIABLE).then(|| "value".to_owned());
        let read = Bootstrap::from_environment(both, |path| {
            assert_eq!(path, Path::new("value"));
            Ok(WHOLE.to_owned())
        });
        assert_eq!(read.unwrap().node.id, "n1");

        let inline = |name: &str| (name == CONFIG_VARIABLE).then(|| WHOLE.to_owned());
        assert!(Bootstrap::from_environment(inline, |_| panic!("no file is named")).is_ok());

        let nothing = Bootstrap::from_environment(|_| Some(String::new()), |_| panic!("no file is named"));
        assert!(matches!(nothing, Err(BootstrapError::Missing)));

        let gone = Bootstrap::from_environment(both, |_| Err(std::io::ErrorKind::NotFound.into()));
        assert!(gone.unwrap_err().to_string().starts_with("value: cannot be read"));
    }
}
