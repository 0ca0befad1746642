//! A peer speaks for itself alone, over real sockets and real certificates.

use std::io;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use portolan_topology::names::{ClusterName, NodeName};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Code, Request};

use super::*;
use crate::certs;
use crate::fixtures::{now, topology};
use crate::identity::SpiffeId;
use crate::net::{Net, TokioNet};
use crate::proto::gossip_frame::Frame;
use crate::proto::peer_client::PeerClient;
use crate::proto::peer_server::PeerServer;
use crate::tls::{ClientCertificates, Credentials, Incoming, Rule};

fn name(cluster: &str) -> ClusterName {
    ClusterName::new(cluster).unwrap()
}

/// The peer port of cluster `a` in a topology of `a` and `b`; the CA knows `stranger` as well.
struct Port {
    certificates: tempfile::TempDir,
    address: String,
    shared: Arc<Shared>,
    gossip: mpsc::Receiver<(ClusterName, Bytes)>,
    events: mpsc::Receiver<PeerEvent>,
}

impl Port {
    async fn open() -> Self {
        let certificates = tempfile::tempdir().unwrap();
        certs::dev(certificates.path(), &topology(&["a", "b", "stranger"]), &[], now()).unwrap();
        let credentials = Credentials::from_files(&certs::files_of(certificates.path(), &name("a"))).unwrap();
        let listener = TokioNet.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let refusals = Arc::new(Refusals::new("peer"));
        let tls = credentials.server(ClientCertificates::Required).unwrap();
        let incoming = Incoming::new(listener, Rule::Peers { tls, trust_domain: "test".into() }, refusals.clone());
        let (send_events, events) = mpsc::channel(64);
        let (send_gossip, gossip) = mpsc::channel(64);
        let own = NodeName::new("0").unwrap();
        let nodes = Siblings::new(own.clone(), Vec::new(), mpsc::channel(1).0).unwrap();
        nodes.stand(proto::Publisher { epoch: 1, incarnation: 1 }, true);
        let shared = Arc::new(Shared {
            cluster: name("a"),
            node: own,
            nodes,
            topology: watch::channel(Arc::new(topology(&["a", "b"]))).1,
            links: Links::default(),
            events: send_events,
            gossip: send_gossip,
            refusals,
            remembered: Box::new(|_| Some(proto::Publisher { epoch: 4, incarnation: 2 })),
            stop: CancellationToken::new(),
        });
        let service = PeerServer::new(PeerService::new(shared.clone()));
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        Self { certificates, address, shared, gossip, events }
    }

    /// A client with the certificate of `cluster`.
    async fn client(&self, cluster: &str) -> PeerClient<Channel> {
        let own = Credentials::from_files(&certs::files_of(self.certificates.path(), &name(cluster))).unwrap();
        let config = own.client(SpiffeId::of_cluster("test", &name("a")).unwrap()).unwrap();
        let address = self.address.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let (config, address) = (config.clone(), address.clone());
            async move { Ok::<_, io::Error>(TokioIo::new(crate::tls::dial(&TokioNet, config, &address).await?)) }
        });
        PeerClient::new(Endpoint::from_static("http://a").connect_with_connector(connector).await.unwrap())
    }
}

fn sender(cluster: &str) -> Option<proto::Sender> {
    Some(proto::Sender { cluster: cluster.to_owned(), node: "0".to_owned() })
}

fn frame(cluster: &str, frame: Frame) -> proto::GossipFrame {
    proto::GossipFrame { sender: sender(cluster), frame: Some(frame) }
}

#[tokio::test]
async fn a_peer_answers_a_ping_to_its_topologys_clusters_alone() {
    let port = Port::open().await;
    let ping = |claimed| Request::new(proto::PingRequest { sender: sender(claimed) });
    let answer = port.client("b").await.ping(ping("b")).await.unwrap().into_inner();
    assert_eq!((answer.sender, answer.topology_hash), (sender("a"), 7));

    let status = port.client("b").await.ping(ping("a")).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(port.shared.refusals.counts()[&Refusal::Impersonation], 1);

    let status = port.client("stranger").await.ping(ping("stranger")).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(port.shared.refusals.counts()[&Refusal::Identity], 1);
}

#[tokio::test]
async fn a_stream_carries_gossip_both_ways_and_tells_what_is_remembered() {
    let mut port = Port::open().await;
    let (out, outgoing) = mpsc::channel(4);
    let hello = Frame::Hello(proto::Hello { topology_hash: 7, remembered: None });
    out.send(frame("b", hello)).await.unwrap();
    out.send(frame("b", Frame::Gossip(Bytes::from_static(b"to a")))).await.unwrap();
    let mut client = port.client("b").await;
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let mut frames = client.gossip(outgoing).await.unwrap().into_inner();
    let first = frames.message().await.unwrap().unwrap();
    let Some(Frame::Hello(hello)) = first.frame else { panic!("{first:?}") };
    assert_eq!(hello.remembered, Some(proto::Publisher { epoch: 4, incarnation: 2 }));
    assert_eq!(port.gossip.recv().await, Some((name("b"), Bytes::from_static(b"to a"))));
    assert!(matches!(port.events.recv().await, Some(PeerEvent::Hello { cluster, .. }) if cluster == name("b")));
    assert!(port.shared.links.send(&name("b"), &Bytes::from_static(b"to b")));
    loop {
        match frames.message().await.unwrap().unwrap().frame {
            Some(Frame::Heartbeat(_)) => {}
            other => break assert_eq!(other, Some(Frame::Gossip(Bytes::from_static(b"to b")))),
        }
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_peer_speaks_for_another() {
    let mut port = Port::open().await;
    let (out, outgoing) = mpsc::channel(4);
    out.send(frame("b", Frame::Heartbeat(proto::Heartbeat::default()))).await.unwrap();
    out.send(frame("c", Frame::Gossip(Bytes::from_static(b"forged")))).await.unwrap();
    let mut client = port.client("b").await;
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let mut frames = client.gossip(outgoing).await.unwrap().into_inner();
    let status = loop {
        match frames.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(port.gossip.try_recv().is_err(), "what was forged got through");
    assert!(!port.shared.links.send(&name("b"), &Bytes::new()), "the link is still registered");
}

#[tokio::test]
async fn a_stream_on_which_nothing_comes_is_ended() {
    let port = Port::open().await;
    let (out, outgoing) = mpsc::channel(4);
    out.send(frame("b", Frame::Heartbeat(proto::Heartbeat::default()))).await.unwrap();
    let mut client = port.client("b").await;
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let mut frames = client.gossip(outgoing).await.unwrap().into_inner();
    let status = loop {
        match frames.message().await {
            Ok(frame) => assert!(frame.is_some(), "the stream ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded);
}
