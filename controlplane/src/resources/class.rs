//! Which client it is, as far as that decides what it can take.

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use serde::Serialize;

/// The kinds of client that are served differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum ClientClass {
    /// Envoy.
    Envoy,
    /// gRPC C-core: Python, C++, Ruby, PHP.
    GrpcCore,
    /// gRPC for Node.
    GrpcJs,
    /// gRPC for Go.
    GrpcGo,
    /// gRPC for Java.
    GrpcJava,
    /// Portolan's own library.
    Portolan,
    /// Anybody else: gets what all of the others accept.
    Unknown,
}

/// What every gRPC client says of itself and Envoy never does.
const NO_OVERPROVISIONING: &str = "envoy.lb.does_not_support_overprovisioning";

impl ClientClass {
    /// Reads it from what the client says of itself.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let grpc = node.client_features.iter().any(|feature| feature == NO_OVERPROVISIONING);
        match node.user_agent_name.as_str() {
            "envoy" if !grpc => Self::Envoy,
            "gRPC Go" => Self::GrpcGo,
            "gRPC Java" => Self::GrpcJava,
            "portolan-rust" => Self::Portolan,
            name if name.starts_with("gRPC C-core") => Self::GrpcCore,
            name if name.starts_with("gRPC Node") => Self::GrpcJs,
            _ => Self::Unknown,
        }
    }

    /// Whether it is one of the gRPC libraries of other languages: they know of no retry budget, no time for one try and
    /// no slow start.
    #[must_use]
    pub fn is_stock_grpc(self) -> bool {
        matches!(self, Self::GrpcCore | Self::GrpcJs | Self::GrpcGo | Self::GrpcJava)
    }

    /// Whether an assignment without a usable endpoint leaves it with the endpoints that it had: it must be led elsewhere.
    #[must_use]
    pub fn keeps_last_endpoints(self) -> bool {
        self == Self::GrpcJava
    }

    /// Whether it may be an Envoy: it needs to be told what a gRPC client does by itself.
    #[must_use]
    pub fn may_be_envoy(self) -> bool {
        matches!(self, Self::Envoy | Self::Unknown)
    }
}

/// The version that the client says it has; empty if it says none.
#[must_use]
pub fn version_of(node: &Node) -> String {
    match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => {
            build.version.as_ref().map_or_else(String::new, |version| {
                format!("{}.{}.{}", version.major_number, version.minor_number, version.patch)
            })
        }
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_by_what_it_says_of_itself() {
        for (name, features, class) in [
            ("envoy", &[][..], ClientClass::Envoy),
            ("envoy", &[NO_OVERPROVISIONING][..], ClientClass::Unknown),
            ("gRPC C-core linux", &[NO_OVERPROVISIONING], ClientClass::GrpcCore),
            ("gRPC Node Pure JS", &[NO_OVERPROVISIONING], ClientClass::GrpcJs),
            ("gRPC Go", &[NO_OVERPROVISIONING], ClientClass::GrpcGo),
            ("gRPC Java", &[NO_OVERPROVISIONING], ClientClass::GrpcJava),
            ("portolan-rust", &[NO_OVERPROVISIONING], ClientClass::Portolan),
            ("", &[], ClientClass::Unknown),
            ("something new", &[NO_OVERPROVISIONING], ClientClass::Unknown),
        ] {
            let node = Node {
                user_agent_name: name.to_owned(),
                client_features: features.iter().map(|feature| (*feature).to_owned()).collect(),
                ..Node::default()
            };
            assert_eq!(ClientClass::of(&node), class, "{name:?}");
        }
    }
}
