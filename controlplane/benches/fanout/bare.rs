//! A bare tonic server that sends everybody the same bytes: what tonic, the kernel and this machine take for the same
//! work, without a control plane.
//!
//! It runs in a process of its own, as the control plane does. It answers the first request of each type, ignores
//! acknowledgements, and sends all streams the new endpoints whenever a line on its standard input says which change it
//! is. tonic's settings are its defaults.

use std::convert::Infallible;
use std::io::BufRead;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes};
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress, address};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints};
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::{Any, UInt32Value};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt, unfold};
use prost::Message;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::client::{CDS, EDS, LDS, RDS, marker};
use crate::streams::ENDPOINTS;

/// As long as the control plane's.
const BACKLOG: u32 = 8_192;
/// About as many bytes as the control plane's Listener, routes and cluster have.
const FILLER: usize = 300;

/// Serves until it is killed; its address is the one line that it prints.
pub(crate) fn serve() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(BACKLOG).unwrap();
        println!("ready {}", listener.local_addr().unwrap());
        let (changes, endpoints) = watch::channel(response(EDS, assignment(0)));
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let change = line.unwrap().parse().unwrap();
                changes.send_replace(response(EDS, assignment(change)));
            }
        });
        let fixed = [LDS, RDS, CDS].map(|type_url| response(type_url, vec![0; FILLER]));
        let ads = Ads { fixed: Arc::new(fixed), endpoints };
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        Server::builder().add_service(ads).serve_with_incoming(incoming).await.unwrap();
    });
}

fn response(type_url: &[u8], resource: Vec<u8>) -> Bytes {
    let type_url = String::from_utf8(type_url.to_vec()).unwrap();
    let response = DiscoveryResponse {
        version_info: "0123456789abcdef".to_owned(),
        resources: vec![Any { type_url: type_url.clone(), value: resource }],
        type_url,
        nonce: "EDS-1".to_owned(),
        ..DiscoveryResponse::default()
    };
    response.encode_to_vec().into()
}

/// Each endpoint with what the control plane says of it: address, port, health, weight.
fn assignment(change: usize) -> Vec<u8> {
    let endpoint = |address: String| LbEndpoint {
        health_status: 1,
        load_balancing_weight: Some(UInt32Value { value: 1 }),
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(Address {
                address: Some(address::Address::SocketAddress(SocketAddress {
                    address,
                    port_specifier: Some(PortSpecifier::PortValue(9_090)),
                    ..SocketAddress::default()
                })),
            }),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    let addresses = (1..ENDPOINTS).map(|number| format!("10.0.0.{number}")).chain([marker::address(change)]);
    let locality =
        LocalityLbEndpoints { lb_endpoints: addresses.map(endpoint).collect(), ..LocalityLbEndpoints::default() };
    let assignment = ClusterLoadAssignment {
        cluster_name: "checkout.shop:8080".to_owned(),
        endpoints: vec![locality],
        ..ClusterLoadAssignment::default()
    };
    assignment.encode_to_vec()
}

#[derive(Clone)]
struct Ads {
    /// Listener, routes and cluster.
    fixed: Arc<[Bytes; 3]>,
    endpoints: watch::Receiver<Bytes>,
}

impl NamedService for Ads {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl tower::Service<http::Request<Body>> for Ads {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let opening = self.clone();
        Box::pin(async move { Ok(Grpc::new(Shared).streaming(opening, request).await) })
    }
}

impl StreamingService<DiscoveryRequest> for Ads {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<DiscoveryRequest>>) -> Self::Future {
        let stream = Stream {
            requests: request.into_inner(),
            answered: [false; 4],
            fixed: self.fixed.clone(),
            endpoints: self.endpoints.clone(),
        };
        let responses = unfold(stream, |mut stream| async move { Some((stream.next().await?, stream)) });
        std::future::ready(Ok(Response::new(responses.boxed())))
    }
}

struct Stream {
    requests: Streaming<DiscoveryRequest>,
    answered: [bool; 4],
    fixed: Arc<[Bytes; 3]>,
    endpoints: watch::Receiver<Bytes>,
}

impl Stream {
    /// `None`: the client is gone.
    async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        loop {
            tokio::select! {
                biased;
                request = self.requests.message() => {
                    let request = request.ok()??;
                    let of_type = |known: &&[u8]| **known == *request.type_url.as_bytes();
                    let position = [LDS, RDS, CDS, EDS].iter().position(of_type)?;
                    if !std::mem::replace(&mut self.answered[position], true) {
                        let fixed = self.fixed.get(position).cloned();
                        return Some(Ok(fixed.unwrap_or_else(|| self.endpoints.borrow_and_update().clone())));
                    }
                }
                changed = self.endpoints.changed(), if self.answered[3] => {
                    changed.ok()?;
                    return Some(Ok(self.endpoints.borrow_and_update().clone()));
                }
            }
        }
    }
}

/// Requests are decoded; responses are bytes already.
struct Shared;

impl Codec for Shared {
    type Encode = Bytes;
    type Decode = DiscoveryRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Shared {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, response: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(response);
        Ok(())
    }
}

impl Decoder for Shared {
    type Item = DiscoveryRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DiscoveryRequest>, Status> {
        DiscoveryRequest::decode(buffer).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
