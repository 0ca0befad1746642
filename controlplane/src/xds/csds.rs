//! Client status discovery (CSDS): what each client was sent, took and refused, resource by resource, for tools that
//! speak xDS. Only reads.

use std::pin::Pin;
use std::time::Duration;

use envoy_types::pb::envoy::admin::v3::{ClientResourceStatus, UpdateFailureState};
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
use envoy_types::pb::google::protobuf::{Any, Timestamp as ProtoTimestamp};
use futures::{Stream, StreamExt};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::clients::{ClientState, SubscriptionState};
use super::protocol::holding::{Holding, SyncState};
use super::server::XdsServer;
use crate::resources::{Encoded, Kind};

/// The service.
#[derive(Debug, Clone)]
pub struct ClientStatus {
    server: XdsServer,
}

impl ClientStatus {
    /// Of the clients of `server`.
    #[must_use]
    pub fn new(server: XdsServer) -> Self {
        Self { server }
    }

    /// It as a gRPC service.
    #[must_use]
    pub fn service(self) -> ClientStatusDiscoveryServiceServer<Self> {
        ClientStatusDiscoveryServiceServer::new(self)
    }

    fn answer(&self, request: &ClientStatusRequest) -> Result<ClientStatusResponse, Status> {
        let wanted: Vec<Wanted<'_>> = request.node_matchers.iter().map(Wanted::of).collect::<Result<_, _>>()?;
        let (contents, now) = (!request.exclude_resource_contents, Moment::now());
        let clients = self.server.clients().snapshot().into_iter();
        let clients =
            clients.filter(|client| wanted.is_empty() || wanted.iter().any(|wanted| wanted.has(&client.node)));
        let config = clients.map(|client| {
            // One that has gone meanwhile has nothing.
            let holdings = self.server.holdings(client.stream).unwrap_or_default();
            config(client, &holdings, contents, &now)
        });
        Ok(ClientStatusResponse { config: config.collect() })
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

/// One moment, by both clocks.
struct Moment {
    instant: Instant,
    wall: Timestamp,
}

impl Moment {
    fn now() -> Self {
        Self { instant: Instant::now(), wall: Timestamp::now() }
    }

    fn wall(&self, at: Instant) -> Option<ProtoTimestamp> {
        self.before(self.instant.saturating_duration_since(at))
    }

    fn before(&self, ago: Duration) -> Option<ProtoTimestamp> {
        let at = self.wall.checked_sub(SignedDuration::try_from(ago).ok()?).ok()?;
        Some(ProtoTimestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() })
    }
}

fn config(client: ClientState, holdings: &[(Kind, Vec<Holding>)], contents: bool, now: &Moment) -> ClientConfig {
    let configs = holdings.iter().flat_map(|(kind, holdings)| {
        let subscription = client.subscriptions.get(kind);
        holdings.iter().map(move |holding| resource(*kind, holding, subscription, contents, now))
    });
    let generic_xds_configs = configs.collect();
    let locality = client.locality;
    ClientConfig {
        generic_xds_configs,
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

/// One resource: what the client goes on with, and what it refused.
fn resource(
    kind: Kind,
    holding: &Holding,
    subscription: Option<&SubscriptionState>,
    contents: bool,
    now: &Moment,
) -> GenericXdsConfig {
    // Whoever may ask this must not come to private keys by it.
    let contents = contents && kind != Kind::Sds;
    let any = |encoded: &Encoded| {
        contents.then(|| Any { type_url: kind.type_url().to_owned(), value: encoded.bytes().to_vec() })
    };
    let config_status = match holding.state {
        SyncState::NotSent => ConfigStatus::NotSent,
        SyncState::Synced => ConfigStatus::Synced,
        SyncState::Stale => ConfigStatus::Stale,
        SyncState::Nacked => ConfigStatus::Error,
    };
    let client_status = match (holding.state, &holding.accepted) {
        (SyncState::Nacked, _) => ClientResourceStatus::Nacked,
        (SyncState::Synced, _) if holding.absent => ClientResourceStatus::DoesNotExist,
        (_, Some(_)) => ClientResourceStatus::Acked,
        (_, None) => ClientResourceStatus::Requested,
    };
    let error_state = holding.refused.as_ref().map(|refused| UpdateFailureState {
        failed_configuration: any(refused),
        last_update_attempt: subscription
            .and_then(|subscription| now.before(Duration::from_millis(subscription.nack_ms?))),
        details: subscription.and_then(|subscription| subscription.nack.as_deref()).unwrap_or_default().to_owned(),
        version_info: refused.version().to_string(),
    });
    GenericXdsConfig {
        type_url: kind.type_url().to_owned(),
        name: holding.name.to_string(),
        version_info: holding.accepted.as_ref().map(|accepted| accepted.version().to_string()).unwrap_or_default(),
        xds_config: holding.accepted.as_ref().and_then(any),
        last_updated: holding.accepted_at.and_then(|at| now.wall(at)),
        config_status: config_status.into(),
        client_status: client_status.into(),
        error_state,
        ..GenericXdsConfig::default()
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
    use std::sync::Arc;

    use super::*;

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

    #[tokio::test(start_paused = true)]
    async fn a_private_key_is_never_shown() {
        let name: Arc<str> = "shop/edge-cert".into();
        let shown = |kind| {
            let accepted = Some(Encoded::new(kind, name.clone(), b"key"));
            let (state, refused) = (SyncState::Synced, accepted.clone());
            let holding = Holding { name: name.clone(), state, accepted, accepted_at: None, refused, absent: false };
            let shown = resource(kind, &holding, None, true, &Moment::now());
            (shown.xds_config.is_some(), shown.error_state.unwrap().failed_configuration.is_some())
        };
        assert_eq!(shown(Kind::Rds), (true, true));
        assert_eq!(shown(Kind::Sds), (false, false));
    }
}
