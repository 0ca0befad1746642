//! Client status discovery (CSDS): a service that an application may mount beside its own, for tools such as `grpcdebug`.

use envoy_types::pb::envoy::service::status::v3::client_status_discovery_service_server::ClientStatusDiscoveryService;
use envoy_types::pb::envoy::service::status::v3::{ClientStatusRequest, ClientStatusResponse};
use futures::stream::{BoxStream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::XdsClient;

/// Everything that the client holds; which node a request asks for does not matter, since there is one.
#[tonic::async_trait]
impl ClientStatusDiscoveryService for XdsClient {
    type StreamClientStatusStream = BoxStream<'static, Result<ClientStatusResponse, Status>>;

    async fn stream_client_status(
        &self,
        requests: Request<Streaming<ClientStatusRequest>>,
    ) -> Result<Response<Self::StreamClientStatusStream>, Status> {
        let client = self.clone();
        let answers = requests.into_inner().then(move |request| {
            let client = client.clone();
            async move {
                request?;
                Ok(client.status().await)
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn fetch_client_status(
        &self,
        _: Request<ClientStatusRequest>,
    ) -> Result<Response<ClientStatusResponse>, Status> {
        Ok(Response::new(self.status().await))
    }
}
