//! `portolan serve`: flags and environment become a configuration, and the control plane runs until it is told to end.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use portolan_federation::PeerPort;
use portolan_federation::certs;
use portolan_federation::disk::DirDisk;
use portolan_federation::net::TokioNet;
use portolan_federation::tls::{ClientCertificates, CredentialFiles, Credentials};
use portolan_topology::names::{ClusterName, NodeName};
use portolan_topology::topology::Topology;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tracing_subscriber::EnvFilter;

use super::{Failure, output};
use crate::config::{Config, Network, PlaintextPort, SourceFrom, TopologyFrom, XdsPort};
use crate::kube::client::{self as kube_client, Access};
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
    /// Where it keeps what must outlive it; its own, never shared
    #[arg(long, env = "PORTOLAN_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Where its cluster's services come from: kube watches the cluster's API server, files:DIR a folder of Kubernetes
    /// manifests
    #[arg(long, env = "PORTOLAN_SOURCE", value_name = "SOURCE")]
    source: String,
    /// The kubeconfig for --source kube [default: KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, env = "PORTOLAN_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, env = "PORTOLAN_KUBE_CONTEXT", value_name = "NAME")]
    kube_context: Option<String>,
    /// Let --source kube watch Pods too, for their portolan.dev/weight
    #[arg(long, env = "PORTOLAN_WATCH_PODS")]
    watch_pods: bool,
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
    /// How the log on standard error is written; RUST_LOG filters it
    #[arg(long, env = "PORTOLAN_LOG", value_enum, default_value_t = Log::Text)]
    log: Log,
    /// A trial on one machine: throw-away certificates, xDS in plain text, loopback addresses alone
    #[arg(long, env = "PORTOLAN_DEV")]
    dev: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ClientCerts {
    Required,
    Optional,
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
        if of_files && (self.kubeconfig.is_some() || self.kube_context.is_some() || self.watch_pods) {
            return Err("--kubeconfig, --kube-context and --watch-pods are for --source kube".into());
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
        let source = self.source_from().await?;
        let config = self.config(source, Arc::new(credentials));
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

    async fn source_from(&self) -> Result<SourceFrom, Failure> {
        if let Some(folder) = self.source.strip_prefix("files:") {
            return Ok(SourceFrom::Files(folder.into()));
        }
        let access = Access { kubeconfig: self.kubeconfig.clone(), context: self.kube_context.clone() };
        let name = self.kube_context.as_ref().map_or_else(|| "kube".to_owned(), |context| format!("kube:{context}"));
        let kube = KubeConfig::new(kube_client::connect(&access).await?, name);
        Ok(SourceFrom::Kube(KubeConfig { pods: self.watch_pods, ..kube }))
    }

    fn config(self, source: SourceFrom, credentials: Arc<Credentials>) -> Config {
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
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,openraft=warn,sled=warn,chitchat=warn"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let _ = match log {
        Log::Text => subscriber.with_ansi(colour).try_init(),
        Log::Json => subscriber.json().try_init(),
    };
}
