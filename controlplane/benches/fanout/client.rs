//! Light ADS clients, which ask for one service as gRPC does: Listener, routes, cluster, endpoints, each acknowledged.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{Locality, Node};
use h2::client::SendRequest;
use http::Request;
use prost::Message;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::frames::{Framer, Response, request};
use crate::server::{Server, Site};

const PATH: &str = "http://bench/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
pub(crate) const LDS: &[u8] = b"type.googleapis.com/envoy.config.listener.v3.Listener";
pub(crate) const RDS: &[u8] = b"type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
pub(crate) const CDS: &[u8] = b"type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub(crate) const EDS: &[u8] = b"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const LISTENER: &[u8] = b"checkout.shop";
const CANONICAL: &[u8] = b"checkout.shop:8080";
/// What each client asks for once it has the one before.
const ORDER: [(&[u8], &[u8]); 4] = [(LDS, LISTENER), (RDS, CANONICAL), (CDS, CANONICAL), (EDS, CANONICAL)];

/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all clients saw.
#[derive(Default)]
pub(crate) struct Seen {
    synced: Cell<usize>,
    /// When each change was made, by its number. 0 is the state in the beginning.
    pub(crate) made: RefCell<Vec<Instant>>,
    /// How many clients hold each change, or a later one.
    reached: RefCell<Vec<usize>>,
    /// How long after a change each client held it, or a later one, since the last call of [`Seen::take`].
    delays: RefCell<Vec<Duration>>,
    news: Notify,
}

impl Seen {
    /// Waits until this many clients have everything.
    pub(crate) async fn synced(&self, streams: usize) {
        self.wait("synced", || self.synced.get(), streams).await;
    }

    /// Notes that a change is about to be made. Gives its number.
    pub(crate) fn make(&self) -> usize {
        let mut made = self.made.borrow_mut();
        made.push(Instant::now());
        self.reached.borrow_mut().resize(made.len(), 0);
        made.len() - 1
    }

    /// Waits until this many clients hold a change.
    pub(crate) async fn reached(&self, change: usize, streams: usize) {
        self.wait("up to date", || self.reached.borrow()[change], streams).await;
    }

    /// Fails in the end: a client that gave up has said why on standard error.
    async fn wait(&self, what: &str, now: impl Fn() -> usize, streams: usize) {
        let all = async {
            while now() < streams {
                self.news.notified().await;
            }
        };
        let done = tokio::time::timeout(PATIENCE, all).await;
        assert!(done.is_ok(), "{} of {streams} streams {what} after {PATIENCE:?}", now());
    }

    /// The delays since the last call, sorted.
    pub(crate) fn take(&self) -> Vec<Duration> {
        let mut delays = self.delays.take();
        delays.sort_unstable();
        delays
    }

    fn holds(&self, before: usize, change: usize) {
        let (now, made, mut reached) = (Instant::now(), self.made.borrow(), self.reached.borrow_mut());
        for number in before + 1..=change {
            self.delays.borrow_mut().push(now - made[number]);
            reached[number] += 1;
        }
        self.news.notify_waiters();
    }
}

/// How clients connect.
#[derive(Clone)]
pub(crate) struct Dial {
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

impl Dial {
    pub(crate) fn plain(server: &Server) -> Self {
        Self { address: server.plaintext, tls: None }
    }

    pub(crate) fn mutual_tls(server: &Server, site: &Site) -> Self {
        let files = site.client_certificate();
        let certificates = |path| CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap);
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&files.ca));
        let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots);
        let mut config = config.with_client_auth_cert(certificates(&files.cert).collect(), key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self { address: server.xds, tls: Some(TlsConnector::from(Arc::new(config))) }
    }

    /// Opens one connection and this many streams on it. They run until the end of the runtime.
    pub(crate) async fn open(self, streams: usize, seen: Rc<Seen>) {
        #[expect(clippy::disallowed_methods, reason = "a benchmark's clients are outside of the control plane")]
        let tcp = TcpStream::connect(self.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        match self.tls {
            None => speak(tcp, streams, seen).await,
            Some(tls) => {
                let name = ServerName::try_from("localhost").unwrap();
                speak(tls.connect(name, tcp).await.unwrap(), streams, seen).await;
            }
        }
    }
}

async fn speak<T: AsyncRead + AsyncWrite + Unpin + 'static>(io: T, streams: usize, seen: Rc<Seen>) {
    let mut settings = h2::client::Builder::new();
    settings.initial_window_size(1 << 20).initial_connection_window_size(16 << 20);
    let (sender, connection) = settings.handshake(io).await.unwrap();
    spawn_local(async move { connection.await.unwrap() });
    for _ in 0..streams {
        spawn_local(follow(sender.clone(), seen.clone()));
    }
}

fn node() -> Vec<u8> {
    let node = Node {
        id: "projects/1/networks/mesh/nodes/0b8f6ea2-6a3c-4f5e-9d57-3f8f0e8c6c10".to_owned(),
        cluster: "use1-a".to_owned(),
        locality: Some(Locality { region: "us-east".to_owned(), zone: "a".to_owned(), sub_zone: String::new() }),
        user_agent_name: "gRPC Go".to_owned(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion("1.85.0".to_owned())),
        client_features: ["envoy.lb.does_not_support_overprovisioning", "xds.config.resource-in-sotw"]
            .map(str::to_owned)
            .to_vec(),
        ..Node::default()
    };
    node.encode_to_vec()
}

async fn follow(sender: SendRequest<Bytes>, seen: Rc<Seen>) {
    let head = Request::post(PATH).header("content-type", "application/grpc").header("te", "trailers").body(());
    let mut sender = sender.ready().await.unwrap();
    let (response, mut requests) = sender.send_request(head.unwrap(), false).unwrap();
    drop(sender);
    let (type_url, name) = ORDER[0];
    requests.send_data(request(Some(&node()), type_url, name, b"", b""), false).unwrap();
    let mut responses = response.await.unwrap().into_body();
    let mut framer = Framer::default();
    let (mut have, mut holds) = (0, 0);
    while let Some(piece) = responses.data().await {
        let piece = piece.unwrap();
        responses.flow_control().release_capacity(piece.len()).unwrap();
        framer.push(&piece);
        while let Some(message) = framer.next() {
            let response = Response::read(message);
            let position = ORDER.iter().position(|(type_url, _)| *type_url == response.type_url).unwrap();
            let (type_url, name) = ORDER[position];
            requests.send_data(request(None, type_url, name, &response.version, &response.nonce), false).unwrap();
            if position == have {
                have += 1;
                match ORDER.get(have) {
                    Some((type_url, name)) => {
                        requests.send_data(request(None, type_url, name, b"", b""), false).unwrap();
                    }
                    None => {
                        seen.synced.set(seen.synced.get() + 1);
                        seen.news.notify_waiters();
                    }
                }
            }
            if type_url == EDS {
                let change = marker::read(&response.resource);
                seen.holds(holds, change);
                holds = change;
            }
        }
    }
    panic!("the server ended a stream");
}

/// The endpoint whose address says which change it is of.
pub(crate) mod marker {
    const NETWORK: &str = "10.99.";

    pub(crate) fn address(change: usize) -> String {
        format!("{NETWORK}{}.{}", change / 250, change % 250)
    }

    /// The change of an encoded assignment: 0 has a marker, too.
    pub(super) fn read(resource: &[u8]) -> usize {
        let at = resource.windows(NETWORK.len()).rposition(|window| window == NETWORK.as_bytes()).unwrap();
        let rest = &resource[at + NETWORK.len()..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.');
        let text = String::from_utf8(digits.copied().collect()).unwrap();
        let (high, low) = text.split_once('.').unwrap();
        high.parse::<usize>().unwrap() * 250 + low.parse::<usize>().unwrap()
    }
}
