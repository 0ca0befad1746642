//! A raw xDS client over mTLS that writes down every assignment that it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{HealthStatus, Locality, Node};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint};
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::google::rpc::Status;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use portolan_federation::tls::{self, Credentials};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::net::SimNet;

const TYPE_URL: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// One assignment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assignment {
    /// Weights by region, by priority.
    pub priorities: BTreeMap<u32, BTreeMap<String, u32>>,
    /// The healthy endpoints, by region.
    pub healthy: BTreeMap<String, BTreeSet<SocketAddr>>,
}

/// Everything that the client was told, oldest first.
pub type Told = Arc<Mutex<Vec<Assignment>>>;

/// Who asks whom for what.
pub struct Client {
    pub credentials: Arc<Credentials>,
    pub cluster: &'static str,
    /// The control plane's host.
    pub host: String,
    pub zone: &'static str,
    pub service: &'static str,
    pub told: Told,
    /// Whether it refuses what it is told.
    pub refuses: Arc<AtomicBool>,
}

impl Client {
    /// Asks the control plane of its cluster. Ends only when the stream breaks, which is an error: a client's own control
    /// plane is not to lose it.
    pub async fn run(self) -> turmoil::Result {
        let mut client = AggregatedDiscoveryServiceClient::new(self.connect().await?);
        let (requests, outgoing) = mpsc::channel(16);
        let locality = Locality { zone: self.zone.to_owned(), ..Locality::default() };
        let mut request = DiscoveryRequest {
            node: Some(Node {
                id: "watching".to_owned(),
                cluster: self.cluster.to_owned(),
                user_agent_name: "gRPC Go".to_owned(),
                locality: Some(locality),
                ..Node::default()
            }),
            type_url: TYPE_URL.to_owned(),
            resource_names: vec![self.service.to_owned()],
            ..DiscoveryRequest::default()
        };
        requests.send(request.clone()).await?;
        request.node = None;
        let mut responses = client.stream_aggregated_resources(ReceiverStream::new(outgoing)).await?.into_inner();
        while let Some(response) = responses.message().await? {
            for resource in &response.resources {
                let assignment = ClusterLoadAssignment::decode(&*resource.value)?;
                self.told.lock().push(read(&assignment));
            }
            request.error_detail = None;
            if self.refuses.load(Ordering::Relaxed) {
                request.error_detail = Some(Status { code: 3, message: "no".to_owned(), details: Vec::new() });
            } else {
                request.version_info = response.version_info;
            }
            request.response_nonce = response.nonce;
            requests.send(request.clone()).await?;
        }
        Err("the control plane ended the stream".into())
    }

    /// Tries until the control plane's port is open.
    async fn connect(&self) -> Result<Channel, Box<dyn std::error::Error>> {
        let trust_domain = self.credentials.id().trust_domain();
        let expected = format!("spiffe://{trust_domain}/cluster/{}", self.cluster).parse()?;
        let config = self.credentials.client(expected)?;
        let address = format!("{}:7444", self.host);
        loop {
            let (config, address) = (config.clone(), address.clone());
            let dial = service_fn(move |_: Uri| {
                let (config, address) = (config.clone(), address.clone());
                async move { Ok::<_, io::Error>(TokioIo::new(tls::dial(&SimNet, config, &address).await?)) }
            });
            match Endpoint::from_static("http://control-plane").connect_with_connector(dial).await {
                Ok(channel) => return Ok(channel),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
}

fn read(assignment: &ClusterLoadAssignment) -> Assignment {
    let mut read = Assignment::default();
    for group in &assignment.endpoints {
        let region = group.locality.clone().unwrap_or_default().region;
        let weight = group.load_balancing_weight.map_or(0, |weight| weight.value);
        *read.priorities.entry(group.priority).or_default().entry(region.clone()).or_default() += weight;
        let healthy = group.lb_endpoints.iter().filter(|endpoint| endpoint.health_status() == HealthStatus::Healthy);
        read.healthy.entry(region).or_default().extend(healthy.map(address));
    }
    read
}

fn address(endpoint: &LbEndpoint) -> SocketAddr {
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { panic!("{endpoint:?}") };
    match endpoint.address.as_ref().and_then(|address| address.address.as_ref()) {
        Some(Address::SocketAddress(socket)) => match socket.port_specifier {
            Some(PortSpecifier::PortValue(port)) => {
                SocketAddr::new(socket.address.parse().unwrap(), port.try_into().unwrap())
            }
            _ => panic!("{socket:?}"),
        },
        _ => panic!("{endpoint:?}"),
    }
}
