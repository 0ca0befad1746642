//! Client status discovery, as a tool asks for it.

use std::time::Duration;

use envoy_types::pb::envoy::admin::v3::ClientResourceStatus;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::service::status::v3::client_config::GenericXdsConfig;
use envoy_types::pb::envoy::service::status::v3::client_status_discovery_service_client::ClientStatusDiscoveryServiceClient;
use envoy_types::pb::envoy::service::status::v3::{ClientStatusRequest, ConfigStatus};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{NodeMatcher, StringMatcher};
use jiff::Timestamp;
use prost::Message;
use tonic::Code;

use super::SHOP;
use super::harness::{Plane, until};
use crate::catalog::served::Served;
use crate::resources::Kind;
use crate::resources::fixtures::served;
use crate::xds::protocol::holding::SyncState;

/// What the one client that there is has.
async fn resources(plane: &Plane, request: ClientStatusRequest) -> Vec<GenericXdsConfig> {
    let mut tool = ClientStatusDiscoveryServiceClient::new(plane.channel.clone());
    let mut response = tool.fetch_client_status(request).await.unwrap().into_inner();
    assert_eq!(response.config.len(), 1);
    let client = response.config.remove(0);
    assert_eq!(client.node.unwrap().id, "test");
    client.generic_xds_configs
}

fn node_id(pattern: MatchPattern) -> ClientStatusRequest {
    let node_id = Some(StringMatcher { match_pattern: Some(pattern), ignore_case: false });
    ClientStatusRequest { node_matchers: vec![NodeMatcher { node_id, ..NodeMatcher::default() }], ..Default::default() }
}

#[tokio::test(start_paused = true)]
async fn a_tool_sees_what_each_client_has_since_when_and_what_it_refused() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    let state = || plane.server.clients().snapshot()[0].subscriptions[&Kind::Eds].state;
    let mut ads = plane.open().await;
    ads.subscribe(Kind::Eds, &[SHOP, "late.shop:80"]).await;
    ads.next().await.unwrap();
    let asked = resources(&plane, ClientStatusRequest::default()).await;
    assert_eq!(asked.iter().map(|it| &*it.name).collect::<Vec<_>>(), [SHOP, "late.shop:80"]);
    assert_eq!(asked[0].config_status(), ConfigStatus::Stale);
    assert_eq!(asked[0].client_status(), ClientResourceStatus::Requested);
    assert_eq!(asked[1].config_status(), ConfigStatus::NotSent);
    assert_eq!((&asked[0].xds_config, &asked[0].last_updated), (&None, &None));

    ads.subscribe(Kind::Eds, &[SHOP, "late.shop:80"]).await;
    until("it is acknowledged", || state() == SyncState::Synced).await;
    tokio::time::advance(Duration::from_secs(100)).await;
    let took = resources(&plane, node_id(MatchPattern::Prefix("te".to_owned()))).await.remove(0);
    assert_eq!(took.config_status(), ConfigStatus::Synced);
    assert_eq!(took.client_status(), ClientResourceStatus::Acked);
    let content = took.xds_config.clone().unwrap();
    assert_eq!((&content.type_url, &took.type_url), (&took.type_url, &Kind::Eds.type_url().to_owned()));
    assert_eq!(ClusterLoadAssignment::decode(&*content.value).unwrap().cluster_name, SHOP);
    assert!(!took.version_info.is_empty());
    let age = Timestamp::now().as_second() - took.last_updated.unwrap().seconds;
    assert!((100..200).contains(&age), "{age}");

    plane.catalog.say("checkout.shop", &served(&["10.0.0.2:80"]));
    ads.next().await.unwrap();
    ads.send(Kind::Eds.type_url(), &[SHOP, "late.shop:80"], Some("I do not like it")).await;
    until("it is refused", || state() == SyncState::Nacked).await;
    let refused = resources(&plane, ClientStatusRequest::default()).await.remove(0);
    assert_eq!(refused.config_status(), ConfigStatus::Error);
    assert_eq!(refused.client_status(), ClientResourceStatus::Nacked);
    assert_eq!((&refused.version_info, refused.xds_config), (&took.version_info, Some(content)), "it goes on with it");
    let error = refused.error_state.unwrap();
    assert_eq!(error.details, "I do not like it");
    assert_ne!(error.version_info, took.version_info);
    assert!(error.failed_configuration.is_some() && error.last_update_attempt.is_some());

    let request = ClientStatusRequest { exclude_resource_contents: true, ..ClientStatusRequest::default() };
    let bare = resources(&plane, request).await.remove(0);
    assert_eq!((bare.xds_config, bare.error_state.unwrap().failed_configuration), (None, None));
    assert_eq!(bare.version_info, took.version_info);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_went_is_shown_as_gone() {
    let (plane, mut ads, _) = Plane::serving(Kind::Cds).await;
    plane.catalog.say("checkout.shop", &Served::Absent);
    ads.take(Kind::Cds, &[SHOP]).await;
    let gone = resources(&plane, ClientStatusRequest::default()).await.remove(0);
    assert_eq!((gone.client_status(), gone.xds_config), (ClientResourceStatus::DoesNotExist, None));
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_keeps_its_stream_open_gets_an_answer_to_each_request() {
    let plane = Plane::start();
    let mut ads = plane.open().await;
    ads.subscribe(Kind::Lds, &["checkout.shop"]).await;
    until("it is in", || plane.server.clients().len() == 1).await;
    let mut tool = ClientStatusDiscoveryServiceClient::new(plane.channel.clone());
    let requests = [MatchPattern::Exact("test".to_owned()), MatchPattern::Suffix("nobody".to_owned())].map(node_id);
    let mut answers = tool.stream_client_status(futures::stream::iter(requests)).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().config.len(), 1);
    assert_eq!(answers.message().await.unwrap().unwrap().config.len(), 0);
    assert!(answers.message().await.unwrap().is_none());
    let blind = node_id(MatchPattern::SafeRegex(Default::default()));
    assert_eq!(tool.fetch_client_status(blind).await.unwrap_err().code(), Code::Unimplemented);
}
