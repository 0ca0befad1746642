//! A real `portolan serve` process on its own core, and what the operating system says of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use portolan_federation::certs;
use portolan_federation::tls::CredentialFiles;
use portolan_topology::topology::Topology;
use tempfile::TempDir;

const CLUSTER: &str = "use1-a";
const CORE: &str = "0";

/// A folder with everything that a control plane is told.
pub(crate) struct Site {
    folder: TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let text = format!(
            "apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {{name: bench}}
spec:
  regions:
  - {{name: us-east, zones: [a], clusters: [{{name: {CLUSTER}, controlPlane: {{address: '127.0.0.1:{port}', voter: true}}}}]}}
"
        );
        std::fs::write(folder.path().join("topology.yaml"), &text).unwrap();
        std::fs::create_dir(folder.path().join("manifests")).unwrap();
        let (topology, _) = Topology::parse("topology.yaml", &text).unwrap();
        certs::dev(&folder.path().join("certs"), &topology, &[], jiff::Timestamp::now()).unwrap();
        Self { folder }
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    pub(crate) fn client_certificate(&self) -> CredentialFiles {
        certs::client_files(&self.folder.path().join("certs"))
    }

    /// Starts a control plane and waits until it is ready.
    pub(crate) fn start(&self) -> Server {
        let at = |name: &str| self.folder.path().join(name);
        let files = certs::files_of(&at("certs"), &CLUSTER.parse().unwrap());
        let mut command = on_core(Path::new(env!("CARGO_BIN_EXE_portolan")));
        command.args(["serve", "--cluster", CLUSTER]);
        command.arg("--topology").arg(at("topology.yaml")).arg("--data-dir").arg(at("data"));
        command.arg("--source").arg(format!("files:{}", self.manifests().display()));
        command.arg("--tls-cert").arg(&files.cert).arg("--tls-key").arg(&files.key).arg("--tls-ca").arg(&files.ca);
        for port in ["--peer-addr", "--xds-addr", "--xds-plaintext-addr", "--admin-addr", "--metrics-addr"] {
            command.args([port, "127.0.0.1:0"]);
        }
        command.args(["--xds-plaintext-from", "127.0.0.0/8"]).env("RUST_LOG", "warn");
        let (child, line) = ready(&mut command);
        let words: Vec<&str> = line.split_whitespace().collect();
        let address = |name: &str| -> SocketAddr {
            let position = words.iter().position(|word| *word == name).unwrap();
            words[position + 1].parse().unwrap()
        };
        Server { xds: address("xds"), plaintext: address("xds-plaintext"), metrics: Some(address("metrics")), child }
    }
}

/// The bare server, waited for until it is ready.
pub(crate) fn start_bare() -> Server {
    let mut command = on_core(&std::env::current_exe().unwrap());
    let (child, line) = ready(command.arg("--serve-bare").stdin(Stdio::piped()));
    let address = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    Server { xds: address, plaintext: address, metrics: None, child }
}

/// A command on the server's core, which ends with us, however we end.
fn on_core(program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", CORE, "setpriv", "--pdeathsig", "KILL"]).arg(program);
    command
}

/// Starts a server and waits until it is ready. Gives the line that says so.
fn ready(command: &mut Command) -> (Child, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready"), "the server did not start: {line}");
    (child, line)
}

/// A port that is free now: the topology must name one.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running server; it ends with this.
pub(crate) struct Server {
    pub(crate) xds: SocketAddr,
    pub(crate) plaintext: SocketAddr,
    /// `None`: the bare one has none.
    metrics: Option<SocketAddr>,
    child: Child,
}

impl Server {
    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(file)
    }

    /// The time that its threads have spent on a core, in nanoseconds.
    pub(crate) fn cpu_ns(&self) -> u64 {
        let tasks = std::fs::read_dir(self.proc("task")).unwrap();
        let of = |task: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse().ok()
        };
        tasks.filter_map(of).sum()
    }

    /// Its memory that is not shared with other processes and files, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Tells the bare server of a change.
    pub(crate) fn tell(&mut self, change: usize) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{change}").unwrap();
    }

    /// How many resources it has encoded.
    pub(crate) fn encodes(&self) -> u64 {
        let Some(metrics) = self.metrics else { return 0 };
        let mut stream = TcpStream::connect(metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().find(|line| line.starts_with("portolan_xds_encodes_total ")).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
