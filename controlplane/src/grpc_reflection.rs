//! gRPC reflection on the xDS port, so that tools like grpcurl can list and call what is there.
//!
//! The discovery services and client status are described by `proto/` of this crate, as far as Portolan reads and writes
//! them: the generated types come without descriptors. What is inside an `Any` is not described, nor are load reports,
//! which nobody sends by hand.

use tonic_reflection::server::Builder;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

/// The encoded descriptors of the discovery services.
const DISCOVERY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/xds.bin"));

/// The reflection service of the xDS port.
pub(crate) fn service() -> Result<ServerReflectionServer<impl ServerReflection>, tonic_reflection::server::Error> {
    Builder::configure()
        .register_encoded_file_descriptor_set(DISCOVERY)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use envoy_types::pb::envoy::admin::v3::{ClientResourceStatus, UpdateFailureState};
    use envoy_types::pb::envoy::config::core::v3::Node;
    use envoy_types::pb::envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
    };
    use envoy_types::pb::envoy::service::status::v3::client_config::GenericXdsConfig;
    use envoy_types::pb::envoy::service::status::v3::{ClientConfig, ClientStatusRequest, ConfigStatus};
    use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern::{Contains, Exact, Prefix, Suffix};
    use envoy_types::pb::envoy::r#type::matcher::v3::{NodeMatcher, StringMatcher};
    use envoy_types::pb::google::protobuf::{Any, Timestamp};
    use envoy_types::pb::google::rpc::Status;
    use hyper_util::rt::TokioIo;
    use prost::Message;
    use prost::encoding::{DecodeContext, decode_key, skip_field};
    use tokio_stream::StreamExt as _;
    use tonic::transport::{Endpoint, Server};
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

    use super::*;

    async fn ask(question: MessageRequest) -> ServerReflectionResponse {
        let (near, far) = tokio::io::duplex(64 << 10);
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(far)).chain(tokio_stream::pending());
        let _server = tokio::spawn(Server::builder().add_service(service().unwrap()).serve_with_incoming(incoming));
        let mut near = Some(TokioIo::new(near));
        let connector = tower::service_fn(move |_| {
            let taken = near.take().ok_or_else(|| std::io::Error::other("one connection alone"));
            async move { taken }
        });
        let channel = Endpoint::from_static("http://plane").connect_with_connector(connector).await.unwrap();
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        let mut answers =
            ServerReflectionClient::new(channel).server_reflection_info(tokio_stream::once(request)).await.unwrap();
        answers.get_mut().message().await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn what_the_port_serves_is_listed() {
        let answer = ask(MessageRequest::ListServices(String::new())).await;
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!() };
        let names: BTreeSet<String> = list.service.into_iter().map(|service| service.name).collect();
        for name in [
            "envoy.service.discovery.v3.AggregatedDiscoveryService",
            "envoy.service.endpoint.v3.EndpointDiscoveryService",
            "envoy.service.status.v3.ClientStatusDiscoveryService",
            "grpc.health.v1.Health",
        ] {
            assert!(names.contains(name), "{names:?}");
        }
    }

    #[tokio::test]
    async fn a_tool_learns_what_a_service_takes() {
        let symbol = "envoy.service.discovery.v3.AggregatedDiscoveryService".to_owned();
        let answer = ask(MessageRequest::FileContainingSymbol(symbol)).await;
        let Some(MessageResponse::FileDescriptorResponse(files)) = answer.message_response else { panic!() };
        assert!(files.file_descriptor_proto[0].windows(21).any(|window| window == b"DeltaDiscoveryRequest"));
    }

    /// Every field that the generated types write has a number that the description knows.
    fn described(message: &str, bytes: &[u8]) {
        let files = prost_types::FileDescriptorSet::decode(DISCOVERY).unwrap().file;
        let outer = files.iter().flat_map(|file| &file.message_type);
        let found = outer.flat_map(|it| std::iter::once(it).chain(&it.nested_type)).find(|it| it.name() == message);
        let found = found.unwrap();
        let known: BTreeSet<u32> = found.field.iter().map(|field| field.number().cast_unsigned()).collect();
        let (mut rest, mut written) = (bytes, BTreeSet::new());
        while !rest.is_empty() {
            let (number, wire) = decode_key(&mut rest).unwrap();
            skip_field(wire, number, &mut rest, DecodeContext::default()).unwrap();
            written.insert(number);
        }
        assert!(!written.is_empty() && written.is_subset(&known), "{message}: {written:?} of {known:?}");
    }

    #[test]
    fn the_description_has_the_numbers_of_the_real_messages() {
        let text = || "x".to_owned();
        let node = || {
            Some(Node {
                id: text(),
                cluster: text(),
                user_agent_name: text(),
                client_features: vec![text()],
                ..Node::default()
            })
        };
        let error = || Some(Status { code: 3, message: text(), details: vec![Any::default()] });
        described("Node", &node().unwrap().encode_to_vec());
        let failure = UpdateFailureState {
            failed_configuration: Some(Any::default()),
            last_update_attempt: Some(Timestamp::default()),
            details: text(),
            version_info: text(),
        };
        described("UpdateFailureState", &failure.encode_to_vec());
        let config = GenericXdsConfig {
            type_url: text(),
            name: text(),
            version_info: text(),
            xds_config: Some(Any::default()),
            last_updated: Some(Timestamp::default()),
            config_status: ConfigStatus::Error.into(),
            client_status: ClientResourceStatus::Nacked.into(),
            error_state: Some(failure),
            ..GenericXdsConfig::default()
        };
        described("GenericXdsConfig", &config.encode_to_vec());
        let client = ClientConfig {
            node: node(),
            generic_xds_configs: vec![config],
            client_scope: text(),
            ..ClientConfig::default()
        };
        described("ClientConfig", &client.encode_to_vec());
        let request = ClientStatusRequest {
            node_matchers: vec![NodeMatcher::default()],
            exclude_resource_contents: true,
            ..ClientStatusRequest::default()
        };
        described("ClientStatusRequest", &request.encode_to_vec());
        for pattern in [Exact, Prefix, Suffix, Contains].map(|pattern| pattern(text())) {
            let matcher = StringMatcher { match_pattern: Some(pattern), ignore_case: false };
            described("StringMatcher", &matcher.encode_to_vec());
        }
        described("Status", &error().unwrap().encode_to_vec());
        let request = DiscoveryRequest {
            version_info: text(),
            node: node(),
            resource_names: vec![text()],
            type_url: text(),
            response_nonce: text(),
            error_detail: error(),
            ..DiscoveryRequest::default()
        };
        described("DiscoveryRequest", &request.encode_to_vec());
        let response = DiscoveryResponse {
            version_info: text(),
            resources: vec![Any::default()],
            type_url: text(),
            nonce: text(),
            ..DiscoveryResponse::default()
        };
        described("DiscoveryResponse", &response.encode_to_vec());
        let request = DeltaDiscoveryRequest {
            node: node(),
            type_url: text(),
            resource_names_subscribe: vec![text()],
            resource_names_unsubscribe: vec![text()],
            initial_resource_versions: [(text(), text())].into(),
            response_nonce: text(),
            error_detail: error(),
            ..DeltaDiscoveryRequest::default()
        };
        described("DeltaDiscoveryRequest", &request.encode_to_vec());
        let resource =
            Resource { version: text(), resource: Some(Any::default()), name: text(), ..Resource::default() };
        described("Resource", &resource.encode_to_vec());
        let response = DeltaDiscoveryResponse {
            system_version_info: text(),
            resources: vec![resource],
            type_url: text(),
            nonce: text(),
            removed_resources: vec![text()],
            ..DeltaDiscoveryResponse::default()
        };
        described("DeltaDiscoveryResponse", &response.encode_to_vec());
    }
}
