//! What an ADS client holds and what it refused, as tools for client status discovery (CSDS) read it.
//!
//! There is no clock here: times are left out.

use envoy_types::pb::envoy::admin::v3::{ClientResourceStatus, UpdateFailureState};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::status::v3::client_config::GenericXdsConfig;
use envoy_types::pb::envoy::service::status::v3::{ClientConfig, ClientStatusResponse};
use envoy_types::pb::google::protobuf::Any;

use super::resources::Kind;

/// How a subscribed resource stands.
#[derive(Debug)]
pub(super) struct Standing<'a> {
    pub(super) kind: Kind,
    pub(super) name: &'a str,
    /// What is in use, and its version.
    pub(super) good: Option<(&'a Any, &'a str)>,
    /// It is known that the server does not have it.
    pub(super) absent: bool,
    /// The last refusal, if nothing good came after it: the version, and why.
    pub(super) refused: Option<(&'a str, &'a str)>,
}

impl Standing<'_> {
    fn config(&self) -> GenericXdsConfig {
        let status = match self {
            Self { refused: Some(_), .. } => ClientResourceStatus::Nacked,
            Self { good: Some(_), .. } => ClientResourceStatus::Acked,
            Self { absent: true, .. } => ClientResourceStatus::DoesNotExist,
            _ => ClientResourceStatus::Requested,
        };
        let failure = self.refused.map(|(version, why)| UpdateFailureState {
            details: why.to_owned(),
            version_info: version.to_owned(),
            ..UpdateFailureState::default()
        });
        GenericXdsConfig {
            type_url: self.kind.type_url().to_owned(),
            name: self.name.to_owned(),
            version_info: self.good.map(|(_, version)| version.to_owned()).unwrap_or_default(),
            xds_config: self.good.map(|(raw, _)| raw.clone()),
            client_status: status.into(),
            error_state: failure,
            ..GenericXdsConfig::default()
        }
    }
}

/// The answer to a tool that asks for everything.
pub(super) fn response<'a>(node: &Node, resources: impl Iterator<Item = Standing<'a>>) -> ClientStatusResponse {
    let generic_xds_configs = resources.map(|resource| resource.config()).collect();
    let config = ClientConfig { node: Some(node.clone()), generic_xds_configs, ..ClientConfig::default() };
    ClientStatusResponse { config: vec![config] }
}
