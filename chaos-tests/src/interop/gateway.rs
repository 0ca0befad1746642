//! Envoy as a gateway: on the bootstrap that `portolan bootstrap envoy` prints, it serves what the Gateway API's objects say,
//! over HTTPS, and gets a new certificate while a connection is open.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use portolan_topology::names::ServiceId;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Certificate, Channel, ClientTlsConfig};

use super::federation::{Federation, PORT};
use super::outcome::Check;
use super::player::{call_over, supervised};
use super::subject::NAMESPACE;
use super::tally::{Counts, Tally};
use crate::runner::manifests;
use crate::runner::process::Process;
use crate::sockets;

const OWN_ZONE: &str = "us-east-1a";
const OTHER_ZONE: &str = "us-east-1b";
const LOOK_EVERY: Duration = Duration::from_millis(200);
const WITHIN: Duration = Duration::from_secs(30);
/// By what calls name their shard, and the pod that they mean by it.
const SHARD_HEADER: &str = "portolan-shard";
const SHARD_FILE: &str = "shard.json";
const SHARD_POD: &str = "echo-use1-us-east-1a-1";
/// Calls behind a share.
const SHARE_CALLS: u64 = 2_000;

/// A running Envoy that is a gateway.
struct Gateway {
    listen: SocketAddr,
    process: Process,
}

/// A certificate for every host of the gateway, which signs itself.
struct Pair {
    chain: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Pair {
    fn new() -> anyhow::Result<Self> {
        let hosts = ["hello.test", "echo.test", "split.test"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(hosts)?;
        Ok(Self { chain: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().clone() })
    }

    fn manifest(&self) -> String {
        serde_json::json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "edge-cert", "namespace": NAMESPACE},
            "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": self.chain, "tls.key": self.key},
        })
        .to_string()
    }
}

/// Plays all of it with the Envoy in `folder`, whose service in the federation is `service`.
pub(super) async fn play(
    federation: &mut Federation,
    folder: &std::path::Path,
    service: &ServiceId,
) -> anyhow::Result<Vec<Check>> {
    let before = Pair::new()?;
    let gateway = Gateway::start(federation, folder, service, &before).await?;
    let mut checks = Vec::new();
    let mut found = |name, passed, detail| checks.push(Check { name, passed, detail });

    let began = Instant::now();
    let opened = gateway.connection(&before).await;
    let Ok(mut connection) = opened else {
        let why = opened.err().map(|error| format!("{error:#}")).unwrap_or_default();
        found("the gateway serves HTTPS", false, why);
        gateway.stop().await?;
        return Ok(checks);
    };
    let took = began.elapsed().as_secs_f64();
    found("the gateway serves HTTPS", true, format!("an HTTPRoute answers {took:.1} s after Envoy was started"));

    let (echo, split, sharded) = (Tally::default(), Tally::default(), Tally::default());
    let _calls = [
        call_over(echo.clone(), gateway.channel("echo.test", &before)?, ("lane", 2)),
        call_over(split.clone(), gateway.channel("split.test", &before)?, ("lane", 2)),
        call_over(sharded.clone(), gateway.channel("echo.test", &before)?, (SHARD_HEADER, 1)),
    ];
    let enough = until(|| echo.total().answers() >= SHARE_CALLS && split.total().answers() >= SHARE_CALLS).await;
    let (own, shares) = (echo.total(), split.total());
    let own_zone = own.percent_from(&format!("echo-use1-{OWN_ZONE}"));
    let detail = format!("{own_zone:.1}% in the own zone, {}", calls(&own));
    found("the gateway serves gRPC from its own zone", enough && own_zone >= 95.0 && own.failures() == 0, detail);
    let of_shard = sharded.total();
    let shard = of_shard.percent_from(SHARD_POD);
    let detail = format!("{shard:.1}% to its one of two pods, {}", calls(&of_shard));
    found("a request's header chooses the shard", enough && shard == 100.0 && of_shard.failures() == 0, detail);
    let other = shares.percent_from(&format!("echo-use1-{OTHER_ZONE}"));
    let detail = format!("{:.1}/{other:.1}, {}", 100.0 - other, calls(&shares));
    found("a route's 80/20 within 4 points", enough && (other - 20.0).abs() <= 4.0 && shares.failures() == 0, detail);

    let after = Pair::new()?;
    let mark = echo.total();
    federation.publish("edge-cert.json", after.manifest())?;
    let began = Instant::now();
    let new = gateway.connection(&after).await;
    let took = began.elapsed().as_secs_f64();
    let old = connection.get("/livez").await;
    let since = echo.total().since(&mark);
    let passed = new.is_ok() && old.is_ok() && since.failures() == 0 && since.answers() > 0;
    let detail = match (new, old) {
        (Ok(_), Ok(_)) => {
            format!("a new connection saw it after {took:.1} s, the old one was answered on; {}", calls(&since))
        }
        (Err(error), _) => format!("no new connection saw it: {error:#}"),
        (_, Err(error)) => format!("the open connection was dropped: {error:#}"),
    };
    found("a certificate rotated under an open connection", passed, detail);
    gateway.stop().await?;
    federation.unpublish(SHARD_FILE)?;
    Ok(checks)
}

fn calls(counts: &Counts) -> String {
    match counts.failures() {
        0 => format!("{} calls, none failed", counts.answers()),
        failed => format!("{} calls, {failed} failed: {}", counts.answers() + failed, counts.errors()),
    }
}

async fn until(holds: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + 2 * WITHIN;
    while !holds() && Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    holds()
}

impl Gateway {
    async fn start(
        federation: &mut Federation,
        folder: &std::path::Path,
        service: &ServiceId,
        pair: &Pair,
    ) -> anyhow::Result<Self> {
        let host = federation.addresses.host();
        let listen = federation.addresses.port(host, None)?;
        let admin = federation.addresses.port(host, None)?.to_string();
        federation.publish("edge-cert.json", pair.manifest())?;
        federation.publish(SHARD_FILE, pod_of_a_shard())?;
        federation.publish("edge.yaml", objects(listen, service, federation.home()?.metrics))?;
        for (name, zone) in [("left", OWN_ZONE), ("right", OTHER_ZONE)] {
            let pods = federation.pods(zone)?;
            for (file, text) in manifests::of_service(&ServiceId::new(name, NAMESPACE)?, PORT, &pods) {
                federation.publish(&file, text)?;
            }
        }
        let certs = federation.paths.certs();
        let path = |name: &str| certs.join(name).display().to_string();
        let asked = federation.home()?.admin.to_string();
        let (ca, certificate, key) = (path("ca.pem"), path("client.pem"), path("client-key.pem"));
        let gateway = format!("{NAMESPACE}/edge");
        let printed = federation
            .portolan
            .run(&[
                "bootstrap",
                "envoy",
                "--zone",
                OWN_ZONE,
                "--gateway",
                &gateway,
                "--node-id",
                "gateway",
                "--address",
                &asked,
                "--admin-listen",
                &admin,
                "--tls-ca",
                &ca,
                "--tls-cert",
                &certificate,
                "--tls-key",
                &key,
            ])
            .await?;
        let config = federation.paths.bootstrap("gateway");
        std::fs::write(&config, printed).context("cannot write a bootstrap")?;
        let file = config.display().to_string();
        let arguments = ["-c", &file, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning"];
        let program: PathBuf = folder.join("venv/bin/envoy");
        let arguments = arguments.map(str::to_owned).to_vec();
        let launch = supervised(&federation.portolan, program, arguments, "gateway", &federation.paths, &config);
        Ok(Self { listen, process: launch.start()? })
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        let killed = self.process.kill();
        self.process.gone(killed).await.context("cannot wait for a killed gateway")?;
        Ok(())
    }

    /// Calls to `host` over TLS.
    fn channel(&self, host: &str, pair: &Pair) -> anyhow::Result<Channel> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&pair.chain)).domain_name(host);
        let endpoint =
            Channel::from_shared(format!("https://{}", self.listen))?.origin(format!("https://{host}").parse()?);
        Ok(endpoint.tls_config(tls)?.connect_lazy())
    }

    /// A connection whose certificate is `pair`, and on which a request was answered; tried until there is one.
    async fn connection(&self, pair: &Pair) -> anyhow::Result<Connection> {
        let deadline = Instant::now() + WITHIN;
        loop {
            let tried = async {
                let mut connection = Connection::open(self.listen, pair).await?;
                connection.get("/livez").await?;
                anyhow::Ok(connection)
            };
            match tried.await {
                Ok(connection) => return Ok(connection),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }
}

/// One HTTP/1.1 connection over TLS.
struct Connection(BufReader<TlsStream<TcpStream>>);

impl Connection {
    /// Takes no other certificate than `pair`.
    async fn open(address: SocketAddr, pair: &Pair) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(pair.der.clone())?;
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = sockets::connect(address, Duration::from_secs(2)).await?;
        let name = ServerName::try_from("hello.test")?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let presented = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        anyhow::ensure!(presented == Some(&pair.der), "the certificate is another one");
        Ok(Self(BufReader::new(stream)))
    }

    /// Asks for a path; an error unless the answer is 200.
    async fn get(&mut self, path: &str) -> anyhow::Result<()> {
        self.0.write_all(format!("GET {path} HTTP/1.1\r\nhost: hello.test\r\n\r\n").as_bytes()).await?;
        let mut status = String::new();
        self.0.read_line(&mut status).await?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            anyhow::ensure!(self.0.read_line(&mut line).await? > 0, "the connection ended");
            if line.trim().is_empty() {
                break;
            }
            if let Some(given) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = given.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        anyhow::ensure!(status.contains(" 200 "), "{} {}", status.trim(), String::from_utf8_lossy(&body).trim());
        Ok(())
    }
}

fn pod_of_a_shard() -> String {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": SHARD_POD,
            "namespace": NAMESPACE,
            "labels": {"colour": "blue"},
            "annotations": {"portolan.dev/shard-label": "colour"},
        },
    })
    .to_string()
}

/// A gateway with a web server behind it, which is the control plane's health port, and two gRPC routes.
fn objects(listen: SocketAddr, service: &ServiceId, web: SocketAddr) -> String {
    let (name, host, port) = (service.name(), listen.ip(), listen.port());
    let (web_host, web_port) = (web.ip(), web.port());
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: {NAMESPACE}}}
spec:
  gatewayClassName: portolan
  addresses: [{{type: IPAddress, value: {host}}}]
  listeners:
  - name: secure
    hostname: '*.test'
    port: {port}
    protocol: HTTPS
    tls: {{certificateRefs: [{{name: edge-cert}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: hello, namespace: {NAMESPACE}}}
spec:
  parentRefs: [{{name: edge}}]
  hostnames: [hello.test]
  rules: [{{backendRefs: [{{name: hello, port: 80}}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: echo, namespace: {NAMESPACE}}}
spec:
  parentRefs: [{{name: edge}}]
  hostnames: [echo.test]
  rules: [{{backendRefs: [{{group: multicluster.x-k8s.io, kind: ServiceImport, name: {name}, port: {PORT}}}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: split, namespace: {NAMESPACE}}}
spec:
  parentRefs: [{{name: edge}}]
  hostnames: [split.test]
  rules: [{{backendRefs: [{{name: left, port: {PORT}, weight: 80}}, {{name: right, port: {PORT}, weight: 20}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: hello, namespace: {NAMESPACE}}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: hello-1, namespace: {NAMESPACE}, labels: {{kubernetes.io/service-name: hello}}}}
addressType: IPv4
ports: [{{port: {web_port}}}]
endpoints: [{{addresses: [{web_host}], zone: {OWN_ZONE}, conditions: {{ready: true}}}}]
"
    )
}
