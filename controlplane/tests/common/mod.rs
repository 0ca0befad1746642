//! Whole control planes on loopback, and a bare ADS client.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::{Locality, Node};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::rpc::Status;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use portolan_controlplane::config::{Config, SourceFrom, TopologyFrom, XdsPort};
use portolan_controlplane::publishing::PublisherFrom;
use portolan_controlplane::{Running, StartError};
use portolan_federation::PeerPort;
use portolan_federation::certs;
use portolan_federation::disk::{Disk, MemoryDisk};
use portolan_federation::net::{Listener, Net, TokioNet};
use portolan_federation::tls::Credentials;
use portolan_topology::topology::Topology;
use prost::Message;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// No test waits longer, however loaded the machine is.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

const EDS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// A federation's files: topology, certificates, and a folder of manifests for each cluster.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    listeners: BTreeMap<String, Box<dyn Listener>>,
}

impl Site {
    /// Clusters `east-a` (zones `e1`, `e2`) and `west-a` (`w1`), whose peer ports are open already.
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut listeners = BTreeMap::new();
        let mut ports = Vec::new();
        for cluster in ["east-a", "west-a"] {
            let listener = TokioNet.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
            ports.push(listener.local_addr().unwrap().port());
            listeners.insert(cluster.to_owned(), listener);
            std::fs::create_dir_all(folder.path().join(cluster)).unwrap();
        }
        let text = format!(
            "apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {{name: test}}
spec:
  regions:
  - {{name: east, zones: [e1, e2], clusters: [{{name: east-a, controlPlane: {{address: '127.0.0.1:{}', voter: true}}}}]}}
  - {{name: west, zones: [w1], clusters: [{{name: west-a, controlPlane: {{address: '127.0.0.1:{}'}}}}]}}
  failover: {{east: [{{region: west, weight: 1}}], west: [{{region: east, weight: 1}}]}}
",
            ports[0], ports[1]
        );
        std::fs::write(folder.path().join("topology.yaml"), &text).unwrap();
        let (topology, _) = Topology::parse("topology.yaml", &text).unwrap();
        certs::dev(&folder.path().join("certs"), &topology, &[], jiff::Timestamp::now()).unwrap();
        Self { folder, listeners }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the service `a.shop` of a cluster: endpoints as (zone, address, ready).
    pub(crate) fn write(&self, cluster: &str, endpoints: &[(&str, &str, bool)]) {
        let mut text = "\
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {ports: [{port: 8080, name: grpc}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-1, namespace: shop, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
ports: [{port: 9090, name: grpc}]
endpoints:
"
        .to_owned();
        for (zone, address, ready) in endpoints {
            text.push_str(&format!("- {{addresses: [{address}], zone: {zone}, conditions: {{ready: {ready}}}}}\n"));
        }
        // As a kubelet's volume does: whole or not at all.
        let file = self.path(cluster).join("a.yaml");
        std::fs::write(file.with_extension("new"), text).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
    }

    pub(crate) fn config(&mut self, cluster: &str) -> Config {
        let files = certs::files_of(&self.path("certs"), &cluster.parse().unwrap());
        let any = ([127, 0, 0, 1], 0).into();
        let peers = self.listeners.remove(cluster).map_or(PeerPort::At(any), PeerPort::Open);
        Config {
            cluster: cluster.parse().unwrap(),
            node: "portolan-0".parse().unwrap(),
            topology: TopologyFrom::File(self.path("topology.yaml")),
            source: SourceFrom::Files(self.path(cluster)),
            credentials: Arc::new(Credentials::from_files(&files).unwrap()),
            peers,
            xds: XdsPort { address: any, tls: None },
            plaintext: None,
            nodes: Vec::new(),
            publisher: PublisherFrom::Always,
            admin: any,
            metrics: any,
        }
    }

    pub(crate) async fn start(&mut self, cluster: &str) -> Running {
        let config = self.config(cluster);
        let running = start(config, Arc::new(MemoryDisk::default())).await.unwrap();
        tokio::time::timeout(LIMIT, running.readiness().wait()).await.unwrap();
        running
    }
}

pub(crate) async fn start(config: Config, disk: Arc<dyn Disk>) -> Result<Running, StartError> {
    portolan_controlplane::start(config, Arc::new(TokioNet), disk, StdRng::seed_from_u64(7)).await
}

/// A client that asks for the endpoints of one cluster, and acknowledges what it gets.
pub(crate) struct AdsClient {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl AdsClient {
    pub(crate) async fn connect(running: &Running, zone: &str, name: &str) -> Self {
        let address = format!("http://{}", running.addresses().xds);
        let mut client = AggregatedDiscoveryServiceClient::connect(address).await.unwrap();
        let (requests, sent) = mpsc::channel(8);
        let locality = Locality { zone: zone.into(), ..Locality::default() };
        let node = Node { id: "test".into(), locality: Some(locality), ..Node::default() };
        let first = DiscoveryRequest {
            node: Some(node),
            type_url: EDS.into(),
            resource_names: vec![name.into()],
            ..DiscoveryRequest::default()
        };
        requests.send(first).await.unwrap();
        let responses = client.stream_aggregated_resources(ReceiverStream::new(sent)).await.unwrap().into_inner();
        Self { requests, responses }
    }

    /// The next assignment: `priority zone/cluster weight address…`, unhealthy endpoints marked `!`.
    pub(crate) async fn next(&mut self) -> Vec<String> {
        let response = tokio::time::timeout(LIMIT, self.responses.message()).await.unwrap().unwrap().unwrap();
        let ack = DiscoveryRequest {
            type_url: EDS.into(),
            version_info: response.version_info.clone(),
            response_nonce: response.nonce.clone(),
            resource_names: Vec::new(),
            ..DiscoveryRequest::default()
        };
        let assignment = ClusterLoadAssignment::decode(response.resources[0].value.as_slice()).unwrap();
        let ack = DiscoveryRequest { resource_names: vec![assignment.cluster_name.clone()], ..ack };
        self.requests.send(ack).await.unwrap();
        assignment.endpoints.iter().map(line).collect()
    }

    /// Refuses the next assignment.
    pub(crate) async fn refuse(&mut self) {
        let response = tokio::time::timeout(LIMIT, self.responses.message()).await.unwrap().unwrap().unwrap();
        let assignment = ClusterLoadAssignment::decode(response.resources[0].value.as_slice()).unwrap();
        let nack = DiscoveryRequest {
            type_url: EDS.into(),
            response_nonce: response.nonce,
            resource_names: vec![assignment.cluster_name],
            error_detail: Some(Status { code: 3, message: "I do not like it".into(), details: Vec::new() }),
            ..DiscoveryRequest::default()
        };
        self.requests.send(nack).await.unwrap();
    }

    /// Waits for an assignment that is as wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        loop {
            let lines = self.next().await;
            if wanted(&lines) {
                return lines;
            }
        }
    }
}

fn line(endpoints: &envoy_types::pb::envoy::config::endpoint::v3::LocalityLbEndpoints) -> String {
    let locality = endpoints.locality.as_ref().unwrap();
    let weight = endpoints.load_balancing_weight.map_or(0, |weight| weight.value);
    let mut line = format!("{} {}/{} {weight}", endpoints.priority, locality.zone, locality.sub_zone);
    for endpoint in &endpoints.lb_endpoints {
        let Some(HostIdentifier::Endpoint(host)) = &endpoint.host_identifier else { panic!("no endpoint") };
        let Some(Address::SocketAddress(address)) = host.address.as_ref().and_then(|address| address.address.as_ref())
        else {
            panic!("no address")
        };
        let mark = if endpoint.health_status <= 1 { "" } else { "!" };
        line.push_str(&format!(" {}{mark}", address.address));
    }
    line
}

/// `GET http://…`: the status and the body.
pub(crate) async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let stream = TokioNet.dial(&address.to_string()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get(path).header("host", "test").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

pub(crate) async fn get_json(running: &Running, path: &str) -> Value {
    let (status, body) = get(running.addresses().admin, path).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// A file that another may not be able to read back.
pub(crate) fn spoil(path: &Path) {
    std::fs::write(path, "kind: [").unwrap();
}
