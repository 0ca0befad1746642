//! Client status discovery (CSDS): what `portolan clients` shows, for tools that speak xDS. Only reads the registry.

use std::pin::Pin;
use std::sync::Arc;

use envoy_types::pb::envoy::admin::v3::UpdateFailureState;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{Locality, Node};
use envoy_types::pb::envoy::service::status::v3::client_config::GenericXdsConfig;
use envoy_types::pb::envoy::service::status::v3::client_status_discovery_service_server::{
    ClientStatusDiscoveryService, ClientStatusDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::status::v3::{
    ClientConfig, ClientStatusRequest, ClientStatusResponse, ConfigStatus,
};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{NodeMatcher, StringMatcher};
use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::clients::{ClientState, ClientsRegistry, SubscriptionState, SyncState};
use crate::resources::Kind;

/// The service.
#[derive(Debug, Clone)]
pub struct ClientStatus {
    clients: Arc<ClientsRegistry>,
}

impl ClientStatus {
    /// Of these clients.
    #[must_use]
    pub fn new(clients: Arc<ClientsRegistry>) -> Self {
        Self { clients }
    }

    /// It as a gRPC service.
    #[must_use]
    pub fn service(self) -> ClientStatusDiscoveryServiceServer<Self> {
        ClientStatusDiscoveryServiceServer::new(self)
    }

    fn answer(&self, request: &ClientStatusRequest) -> Result<ClientStatusResponse, Status> {
        let wanted: Vec<Wanted<'_>> = request.node_matchers.iter().map(Wanted::of).collect::<Result<_, _>>()?;
        let clients = self.clients.snapshot().into_iter();
        let clients =
            clients.filter(|client| wanted.is_empty() || wanted.iter().any(|wanted| wanted.has(&client.node)));
        Ok(ClientStatusResponse { config: clients.map(config).collect() })
    }
}

/// A matcher of `node.id`.
enum Wanted<'a> {
    Any,
    Matching(&'a MatchPattern),
}

impl<'a> Wanted<'a> {
    fn of(matcher: &'a NodeMatcher) -> Result<Self, Status> {
        let refuse = || {
            Err(Status::unimplemented(
                "clients are matched by node_id alone: exact, prefix, suffix or contains, with case",
            ))
        };
        if !matcher.node_metadatas.is_empty() {
            return refuse();
        }
        match &matcher.node_id {
            None => Ok(Self::Any),
            Some(StringMatcher { match_pattern: Some(pattern), ignore_case: false }) => match pattern {
                MatchPattern::Exact(_)
                | MatchPattern::Prefix(_)
                | MatchPattern::Suffix(_)
                | MatchPattern::Contains(_) => Ok(Self::Matching(pattern)),
                _ => refuse(),
            },
            Some(_) => refuse(),
        }
    }

    fn has(&self, node: &str) -> bool {
        match self {
            Self::Matching(MatchPattern::Exact(text)) => node == text,
            Self::Matching(MatchPattern::Prefix(text)) => node.starts_with(text),
            Self::Matching(MatchPattern::Suffix(text)) => node.ends_with(text),
            Self::Matching(MatchPattern::Contains(text)) => node.contains(text),
            Self::Any | Self::Matching(_) => true,
        }
    }
}

fn config(client: ClientState) -> ClientConfig {
    let configs = client.subscriptions.iter().flat_map(|(kind, subscription)| resources(*kind, subscription));
    let locality = client.locality;
    ClientConfig {
        generic_xds_configs: configs.collect(),
        client_scope: format!("stream {}", client.stream),
        node: Some(Node {
            id: client.node,
            cluster: locality.cluster.to_string(),
            locality: Some(Locality {
                region: locality.region.to_string(),
                zone: locality.zone.map(|zone| zone.to_string()).unwrap_or_default(),
                sub_zone: locality.cluster.to_string(),
            }),
            user_agent_name: client.user_agent,
            user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion(client.version)),
            ..Node::default()
        }),
        ..ClientConfig::default()
    }
}

/// One for each name; a wildcard has none, and stands as `*`.
fn resources(kind: Kind, subscription: &SubscriptionState) -> Vec<GenericXdsConfig> {
    let status = match subscription.state {
        SyncState::NotSent => ConfigStatus::NotSent,
        SyncState::Synced => ConfigStatus::Synced,
        SyncState::Stale => ConfigStatus::Stale,
        SyncState::Nacked => ConfigStatus::Error,
    };
    let error_state = subscription.nack.as_ref().map(|reason| UpdateFailureState {
        details: reason.to_string(),
        version_info: subscription.sent.to_string(),
        ..UpdateFailureState::default()
    });
    let named = |name: &str| GenericXdsConfig {
        type_url: kind.type_url().to_owned(),
        name: name.to_owned(),
        version_info: subscription.accepted.to_string(),
        config_status: status.into(),
        error_state: error_state.clone(),
        ..GenericXdsConfig::default()
    };
    match &*subscription.names {
        [] => vec![named("*")],
        names => names.iter().map(|name| named(name)).collect(),
    }
}

#[tonic::async_trait]
impl ClientStatusDiscoveryService for ClientStatus {
    type StreamClientStatusStream = Pin<Box<dyn Stream<Item = Result<ClientStatusResponse, Status>> + Send>>;

    async fn stream_client_status(
        &self,
        requests: Request<Streaming<ClientStatusRequest>>,
    ) -> Result<Response<Self::StreamClientStatusStream>, Status> {
        let this = self.clone();
        let answers = requests.into_inner().map(move |request| this.answer(&request?));
        Ok(Response::new(answers.boxed()))
    }

    async fn fetch_client_status(
        &self,
        request: Request<ClientStatusRequest>,
    ) -> Result<Response<ClientStatusResponse>, Status> {
        self.answer(request.get_ref()).map(Response::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(state: SyncState, names: &[&str], nack: Option<&str>) -> SubscriptionState {
        SubscriptionState {
            names: names.iter().map(|name| Arc::from(*name)).collect(),
            state,
            sent: "2".into(),
            accepted: "1".into(),
            nack: nack.map(Arc::from),
            nack_ms: nack.map(|_| 5),
        }
    }

    #[test]
    fn each_name_stands_with_what_became_of_it() {
        let refused = subscription(SyncState::Nacked, &["a.shop:80", "b.shop:80"], Some("no such policy"));
        let shown = resources(Kind::Cds, &refused);
        assert_eq!(shown.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["a.shop:80", "b.shop:80"]);
        assert_eq!(shown[0].config_status(), ConfigStatus::Error);
        assert_eq!(shown[0].version_info, "1", "it goes on with what it accepted");
        let error = shown[0].error_state.as_ref().unwrap();
        assert_eq!((&*error.details, &*error.version_info), ("no such policy", "2"));
        let wildcard = resources(Kind::Lds, &subscription(SyncState::Synced, &[], None));
        assert_eq!((&*wildcard[0].name, wildcard[0].config_status()), ("*", ConfigStatus::Synced));
    }

    #[test]
    fn clients_are_matched_by_their_node_and_nothing_else() {
        let matcher = |pattern| NodeMatcher {
            node_id: Some(StringMatcher { match_pattern: Some(pattern), ignore_case: false }),
            node_metadatas: Vec::new(),
        };
        let prefix = matcher(MatchPattern::Prefix("checkout-".to_owned()));
        let wanted = Wanted::of(&prefix).unwrap();
        assert!(wanted.has("checkout-7d9f") && !wanted.has("cart-1"));
        assert!(Wanted::of(&NodeMatcher::default()).unwrap().has("anybody"));
        let mut blind = matcher(MatchPattern::Exact("a".to_owned()));
        blind.node_id.as_mut().unwrap().ignore_case = true;
        assert!(Wanted::of(&blind).is_err());
    }
}
