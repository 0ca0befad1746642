//! `portolan serve`: flags and environment become a configuration, and the control plane runs until it is told to end.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use portolan_federation::PeerPort;
use portolan_federation::certs;
use portolan_federation::disk::DirDisk;
use portolan_federation::net::TokioNet;
use portolan_federation::tls::{ClientCertificates, CredentialFiles, Credentials};
use portolan_topology::diagnostic::one_of;
use portolan_topology::names::{ClusterName, NodeName};
use portolan_topology::topology::Topology;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tracing_subscriber::EnvFilter;

use super::{Failure, output};
use crate::config::{Config, Exporting, Network, PlaintextPort, SourceFrom, TopologyFrom, XdsPort};
use crate::kube::client::{self as kube_client, Access};
use crate::kube::lease::{Claim, Timing};
use crate::publishing::{self, PublisherFrom};
use crate::run::Addresses;
use crate::source::kube::KubeConfig;
use crate::topology_file;

/// The file in the data directory that says where a running control plane listens.
const ADDRESSES: &str = "addresses.json";
/// The folder in the data directory with the certificates of `--dev`.
const DEV_CERTIFICATES: &str = "dev-certificates";

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The topology file, the same in every cluster
    #[arg(long, env = "PORTOLAN_TOPOLOGY", value_name = "FILE")]
    topology: PathBuf,
    /// The cluster of the topology that this control plane is in
    #[arg(long, env = "PORTOLAN_CLUSTER", value_name = "NAME")]
    cluster: ClusterName,
    /// Which of the cluster's control planes it is
    #[arg(long, env = "PORTOLAN_NODE", value_name = "NAME", default_value = "portolan-0")]
    node: NodeName,
    /// All nodes of this cluster, the same list for each: NAME=HOST:PORT of its peer port. The first holds the cluster's
    /// seat in the policy group with its data directory, so it stays the first. Leave it out for a cluster of one node
    #[arg(long, env = "PORTOLAN_NODES", value_name = "NAME=ADDR,…", value_delimiter = ',')]
    nodes: Vec<NodeAddress>,
    /// The Lease that says which of several nodes publishes for the cluster, [NAMESPACE/]NAME
    #[arg(long, env = "PORTOLAN_PUBLISHER_LEASE", value_name = "LEASE")]
    publisher_lease: Option<LeaseName>,
    /// Where it keeps what must outlive it; its own, never shared
    #[arg(long, env = "PORTOLAN_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Where its cluster's services come from: kube watches the cluster's API server, files:DIR a folder of Kubernetes
    /// manifests
    #[arg(long, env = "PORTOLAN_SOURCE", value_name = "SOURCE")]
    source: String,
    /// The kubeconfig for --source kube and --publisher-lease [default: KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, env = "PORTOLAN_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, env = "PORTOLAN_KUBE_CONTEXT", value_name = "NAME")]
    kube_context: Option<String>,
    /// Let --source kube watch Pods too, for their portolan.dev/weight
    #[arg(long, env = "PORTOLAN_WATCH_PODS")]
    watch_pods: bool,
    /// Let --source kube watch Gateways, too, with their routes and the Secrets of the type kubernetes.io/tls
    #[arg(long, env = "PORTOLAN_WATCH_GATEWAYS")]
    watch_gateways: bool,
    /// The port for other control planes (mTLS)
    #[arg(
        long,
        env = "PORTOLAN_PEER_ADDR",
        value_name = "ADDR",
        default_value = "0.0.0.0:7443",
        default_value_if("dev", "true", "127.0.0.1:7443")
    )]
    peer_addr: SocketAddr,
    /// The port for xDS clients (TLS)
    #[arg(
        long,
        env = "PORTOLAN_XDS_ADDR",
        value_name = "ADDR",
        default_value = "0.0.0.0:7444",
        default_value_if("dev", "true", "127.0.0.1:7444")
    )]
    xds_addr: SocketAddr,
    /// The admin interface
    #[arg(long, env = "PORTOLAN_ADMIN_ADDR", value_name = "ADDR", default_value = "127.0.0.1:7480")]
    admin_addr: SocketAddr,
    /// Health and metrics
    #[arg(
        long,
        env = "PORTOLAN_METRICS_ADDR",
        value_name = "ADDR",
        default_value = "0.0.0.0:7481",
        default_value_if("dev", "true", "127.0.0.1:7481")
    )]
    metrics_addr: SocketAddr,
    /// This cluster's certificate, PEM
    #[arg(long, env = "PORTOLAN_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, env = "PORTOLAN_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// The CA that signs control planes and clients, PEM
    #[arg(long, env = "PORTOLAN_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Whether xDS clients must show a certificate
    #[arg(long, env = "PORTOLAN_XDS_CLIENT_CERTS", value_enum, default_value_t = ClientCerts::Required)]
    xds_client_certs: ClientCerts,
    /// A second port for xDS clients, in plain text
    #[arg(long, env = "PORTOLAN_XDS_PLAINTEXT_ADDR", value_name = "ADDR")]
    xds_plaintext_addr: Option<SocketAddr>,
    /// The networks that may use the plain-text port
    #[arg(long, env = "PORTOLAN_XDS_PLAINTEXT_FROM", value_name = "CIDR", value_delimiter = ',')]
    xds_plaintext_from: Vec<Network>,
    /// Which services the other clusters are told of
    #[arg(long, env = "PORTOLAN_EXPORT", value_enum, default_value_t = Export::All)]
    export: Export,
    /// How the log on standard error is written; RUST_LOG filters it
    #[arg(long, env = "PORTOLAN_LOG", value_enum, default_value_t = Log::Text)]
    log: Log,
    /// A trial on one machine: throw-away certificates, xDS in plain text, loopback addresses alone
    #[arg(long, env = "PORTOLAN_DEV")]
    dev: bool,
}

/// A node and where its peer port is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NodeAddress {
    name: NodeName,
    address: String,
}

impl FromStr for NodeAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}`: expected NAME=HOST:PORT, such as portolan-0=portolan-0.nodes:7443");
        let (name, address) = text.split_once('=').ok_or_else(expected)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(expected)?;
        let port_is_sound = port.parse::<u16>().is_ok_and(|port| port > 0);
        if host.is_empty() || !port_is_sound {
            return Err(expected());
        }
        let name = name.parse().map_err(|error| format!("`{text}`: {error}"))?;
        Ok(Self { name, address: address.to_owned() })
    }
}

/// A Lease, in the pod's own namespace unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LeaseName {
    namespace: Option<String>,
    name: String,
}

impl FromStr for LeaseName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, text),
        };
        let sound = |part: &str| {
            part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
                && part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.ends_with(|c: char| c.is_ascii_alphanumeric())
        };
        if !sound(name) || namespace.as_deref().is_some_and(|namespace| !sound(namespace)) {
            return Err(format!("`{text}`: expected [NAMESPACE/]NAME of a Lease, such as portolan-publisher"));
        }
        Ok(Self { namespace, name: name.to_owned() })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ClientCerts {
    Required,
    Optional,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Export {
    /// All of them
    All,
    /// Those with a ServiceExport, and those in a namespace labelled portolan.dev/export=true
    Declared,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Log {
    Text,
    Json,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.check_flags().map_err(Failure::Usage)?;
        start_log(self.log);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let done = runtime.block_on(self.serve());
        // A task that hangs must not keep the process.
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        done
    }

    /// Flags that contradict each other.
    fn check_flags(&self) -> Result<(), String> {
        let of_files = self.source.strip_prefix("files:").is_some_and(|folder| !folder.is_empty());
        if self.source != "kube" && !of_files {
            return Err(format!("--source {}: expected kube or files:DIR", self.source));
        }
        let of_api_server = self.kubeconfig.is_some() || self.kube_context.is_some();
        let watched = self.watch_pods || self.watch_gateways;
        if of_files && (watched || (of_api_server && self.publisher_lease.is_none())) {
            return Err(
                "--kubeconfig, --kube-context, --watch-pods and --watch-gateways are for --source kube; the first \
                        two for --publisher-lease as well"
                    .into(),
            );
        }
        self.check_nodes()?;
        if of_files && self.export == Export::Declared {
            return Err("--export declared is for --source kube: the API server says what is exported".into());
        }
        let given = [&self.tls_cert, &self.tls_key, &self.tls_ca].iter().filter(|file| file.is_some()).count();
        if self.dev {
            return self.check_dev(given);
        }
        if given < 3 {
            return Err("--tls-cert, --tls-key and --tls-ca are needed (for a trial, --dev makes its own, and \
                        `portolan certs dev` makes them for a whole topology)"
                .into());
        }
        match (self.xds_plaintext_addr, self.xds_plaintext_from.is_empty()) {
            (Some(_), true) => Err("--xds-plaintext-addr needs --xds-plaintext-from: who may use it".into()),
            (None, false) => Err("--xds-plaintext-from needs --xds-plaintext-addr".into()),
            _ => Ok(()),
        }
    }

    fn check_nodes(&self) -> Result<(), String> {
        let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        if !names.is_empty() && !names.contains(&self.node.as_str()) {
            return Err(format!("--node {}: it is not among --nodes, {}", self.node, one_of(names)));
        }
        if names.len() > 1 && self.publisher_lease.is_none() {
            return Err("--nodes names several: add --publisher-lease, which says which of them publishes".into());
        }
        if names.len() > 1 && self.dev {
            return Err("--dev makes certificates for itself, so that other nodes cannot come in: make them with \
                        `portolan certs dev`, or leave out --nodes"
                .into());
        }
        Ok(())
    }

    fn check_dev(&self, certificates: usize) -> Result<(), String> {
        if certificates > 0 {
            return Err("--dev makes its own certificates: leave out --tls-cert, --tls-key and --tls-ca".into());
        }
        if self.xds_plaintext_addr.is_some() || !self.xds_plaintext_from.is_empty() {
            return Err("--dev serves xDS in plain text at --xds-addr: leave out --xds-plaintext-addr and \
                        --xds-plaintext-from"
                .into());
        }
        let addresses = [
            ("--peer-addr", self.peer_addr),
            ("--xds-addr", self.xds_addr),
            ("--admin-addr", self.admin_addr),
            ("--metrics-addr", self.metrics_addr),
        ];
        match addresses.iter().find(|(_, address)| !address.ip().is_loopback()) {
            Some((flag, address)) => Err(format!(
                "{flag} {address}: --dev takes loopback addresses alone, such as 127.0.0.1:{}",
                address.port()
            )),
            None => Ok(()),
        }
    }

    async fn serve(self) -> Result<(), Failure> {
        let name = self.topology.display().to_string();
        let (topology, _) = topology_file::check(&name, &topology_file::read(&self.topology)?, &self.cluster)?;
        let disk = DirDisk::open(&self.data_dir, &format!("{}/{}", self.cluster, self.node))?;
        let addresses_file = self.data_dir.join(ADDRESSES);
        // What a process before us wrote is no longer so.
        let _ = std::fs::remove_file(&addresses_file);
        let credentials = Credentials::from_files(&self.credentials(&topology)?)?;
        if !self.admin_addr.ip().is_loopback() {
            tracing::warn!(address = %self.admin_addr, "the admin interface is open to the network: it has no login");
        }
        let seed: [u8; 32] = rand::random();
        let (source, publisher) = (self.source_from().await?, self.publisher().await?);
        let config = self.config(source, publisher, Arc::new(credentials));
        let running = crate::run::start(config, Arc::new(TokioNet), Arc::new(disk), StdRng::from_seed(seed)).await?;
        let addresses = running.addresses();
        write_addresses(&addresses_file, &addresses)
            .with_context(|| format!("{}: cannot write where we listen", addresses_file.display()))?;
        let end = end_asked()?;
        tokio::pin!(end);
        tokio::select! {
            () = running.readiness().wait() => {
                let Addresses { peers, xds, xds_plaintext, admin, metrics } = addresses;
                let plaintext = xds_plaintext.map_or(String::new(), |at| format!("  xds-plaintext {at}"));
                output::print(&format!(
                    "ready  xds {xds}{plaintext}  peers {peers}  admin {admin}  metrics {metrics}"
                ));
                end.await;
            }
            () = &mut end => {}
        }
        tracing::info!("ending");
        running.stop().await;
        let _ = std::fs::remove_file(&addresses_file);
        Ok(())
    }

    fn credentials(&self, topology: &Topology) -> Result<CredentialFiles, Failure> {
        if let (Some(cert), Some(key), Some(ca)) = (&self.tls_cert, &self.tls_key, &self.tls_ca) {
            return Ok(CredentialFiles { cert: cert.clone(), key: key.clone(), ca: ca.clone() });
        }
        let folder = self.data_dir.join(DEV_CERTIFICATES);
        certs::dev(&folder, topology, &[], Timestamp::now())?;
        Ok(certs::files_of(&folder, &self.cluster))
    }

    async fn kubernetes(&self) -> Result<kube::Client, Failure> {
        let access = Access { kubeconfig: self.kubeconfig.clone(), context: self.kube_context.clone() };
        Ok(kube_client::connect(&access).await?)
    }

    async fn source_from(&self) -> Result<SourceFrom, Failure> {
        if let Some(folder) = self.source.strip_prefix("files:") {
            return Ok(SourceFrom::Files(folder.into()));
        }
        let name = self.kube_context.as_ref().map_or_else(|| "kube".to_owned(), |context| format!("kube:{context}"));
        let kube = KubeConfig::new(self.kubernetes().await?, name);
        let exporting = match self.export {
            Export::All => Exporting::All,
            Export::Declared => Exporting::Declared,
        };
        Ok(SourceFrom::Kube(KubeConfig { pods: self.watch_pods, gateways: self.watch_gateways, exporting, ..kube }))
    }

    async fn publisher(&self) -> Result<PublisherFrom, Failure> {
        let Some(LeaseName { namespace, name }) = self.publisher_lease.clone() else {
            return Ok(PublisherFrom::Always);
        };
        let client = self.kubernetes().await?;
        let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
        let identity = publishing::identity(&self.node, rand::random());
        let claim = Claim { namespace, name, identity, timing: Timing::default() };
        Ok(PublisherFrom::Lease(client, Box::new(claim)))
    }

    fn config(self, source: SourceFrom, publisher: PublisherFrom, credentials: Arc<Credentials>) -> Config {
        let clients = match self.xds_client_certs {
            ClientCerts::Required => ClientCertificates::Required,
            ClientCerts::Optional => ClientCertificates::Optional,
        };
        let from = self.xds_plaintext_from;
        Config {
            cluster: self.cluster,
            node: self.node,
            topology: TopologyFrom::File(self.topology),
            source,
            credentials,
            peers: PeerPort::At(self.peer_addr),
            xds: XdsPort { address: self.xds_addr, tls: (!self.dev).then_some(clients) },
            plaintext: self.xds_plaintext_addr.map(|address| PlaintextPort { address, from }),
            nodes: self.nodes.into_iter().map(|node| (node.name, node.address)).collect(),
            publisher,
            admin: self.admin_addr,
            metrics: self.metrics_addr,
        }
    }
}

/// Replaced as a whole, so that who waits for the file never reads half of it.
fn write_addresses(file: &Path, addresses: &Addresses) -> std::io::Result<()> {
    let unfinished = file.with_extension("json~");
    std::fs::write(&unfinished, serde_json::to_vec_pretty(addresses)?)?;
    std::fs::rename(unfinished, file)
}

/// Returns when the process is told to end.
fn end_asked() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The log goes to standard error: standard output is for what was asked for. A second start in one process keeps the
/// first one's log.
fn start_log(log: Log) {
    // The Kubernetes client tells of every try; what comes of them is told once, where it matters.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new("info,openraft=warn,sled=warn,chitchat=warn,kube_client=off,kube_runtime=off")
    });
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let _ = match log {
        Log::Text => subscriber.with_ansi(colour).try_init(),
        Log::Json => subscriber.json().try_init(),
    };
}
