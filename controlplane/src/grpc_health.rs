//! The gRPC health service of the xDS port: SERVING once this control plane is ready, and not before.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::health_reporter;

use crate::readiness::Readiness;

/// The overall name, which health checkers ask for when they are told no other.
const OVERALL: &str = "";

/// A health service that follows `readiness`. Clones share its state.
pub(crate) async fn follow(readiness: Readiness) -> HealthServer<impl Health> {
    let (reporter, service) = health_reporter();
    reporter.set_service_status(OVERALL, ServingStatus::NotServing).await;
    tokio::spawn(async move {
        readiness.wait().await;
        reporter.set_service_status(OVERALL, ServingStatus::Serving).await;
    });
    service
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;
    use tokio_stream::StreamExt as _;
    use tonic::transport::{Endpoint, Server};
    use tonic_health::pb::health_check_response::ServingStatus::{NotServing, Serving};
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    use super::*;

    #[tokio::test]
    async fn health_is_serving_once_every_task_is_done() {
        let readiness = Readiness::new();
        let task = readiness.task("a task");
        let service = follow(readiness).await;
        let (near, far) = tokio::io::duplex(4096);
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(far)).chain(tokio_stream::pending());
        let _server = tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        let mut near = Some(TokioIo::new(near));
        let connector = tower::service_fn(move |_| {
            let taken = near.take().ok_or_else(|| std::io::Error::other("one connection alone"));
            async move { taken }
        });
        let channel = Endpoint::from_static("http://control-plane").connect_with_connector(connector).await.unwrap();
        let mut watch = HealthClient::new(channel).watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), NotServing);
        drop(task);
        assert_eq!(watch.message().await.unwrap().unwrap().status(), Serving);
    }
}
