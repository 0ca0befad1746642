//! A control plane as a child process, on a loopback address of its own in the run's network, where every port is free.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use parking_lot::Mutex;
use serde_json::Value;

use super::suite::eventually;
use crate::runner::portolan::Portolan;
use crate::runner::process::Process;
use crate::sockets;

/// How long a control plane may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(40);

/// How long a Pod of the chart has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(30);

/// One cluster with two zones.
const ONE_CLUSTER: &str = "\
apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {name: one}
spec:
  regions:
    - {name: here, zones: [here-a, here-b], clusters: [{name: one, controlPlane: {address: 127.0.1.1, voter: true}}]}
";

/// What a Pod would be started with.
#[derive(Debug, Clone)]
pub(super) struct Rendered {
    /// `serve` and its flags.
    pub arguments: Vec<String>,
    /// Variables with their values.
    pub environment: Vec<(String, String)>,
}

/// How a control plane is started.
#[derive(Debug, Clone)]
pub(super) struct Serve {
    /// Its cluster.
    pub cluster: String,
    /// Its name among several nodes of the cluster.
    pub node: Option<String>,
    /// Its address.
    pub host: Ipv4Addr,
    /// More flags: the topology, certificates, the source.
    pub flags: Vec<String>,
    /// Its arguments and environment as somebody else rendered them, in place of all of the above but its name and address.
    pub rendered: Option<Rendered>,
    /// Another build of it than this program.
    pub program: Option<PathBuf>,
}

impl Serve {
    /// The one control plane of a cluster of its own, with the API server of `kubeconfig`.
    pub(super) fn alone(folder: &Path, kubeconfig: &Path, more: &[&str]) -> anyhow::Result<Self> {
        let topology = folder.join("topology.yaml");
        fs::write(&topology, ONE_CLUSTER).context("cannot write the topology")?;
        let mut flags = vec!["--dev".to_owned(), format!("--topology={}", topology.display())];
        flags.extend(["--source=kube".to_owned(), format!("--kubeconfig={}", kubeconfig.display())]);
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        Ok(Self {
            cluster: "one".to_owned(),
            host: Ipv4Addr::new(127, 0, 1, 1),
            flags,
            node: None,
            rendered: None,
            program: None,
        })
    }
}

/// A running control plane; it ends with this value.
#[derive(Debug)]
pub(super) struct Plane {
    host: Ipv4Addr,
    portolan: Portolan,
    log: PathBuf,
    process: Process,
    /// Whether the process is a supervisor, and the control plane its child.
    supervised: bool,
}

impl Plane {
    /// Starts one and waits until it is ready.
    pub(super) async fn start(folder: &Path, serve: &Serve) -> anyhow::Result<Self> {
        let mut plane = Self::start_unready(folder, serve)?;
        plane.until_ready().await?;
        Ok(plane)
    }

    /// Waits until it is ready.
    pub(super) async fn until_ready(&mut self) -> anyhow::Result<()> {
        let ready = eventually("the control plane is ready", READY_WITHIN, || async {
            Ok(self.is_ready().await.then_some(()))
        });
        let ready = ready.await;
        self.process.check()?;
        if ready.is_err() {
            return Err(self.process.not_ready(READY_WITHIN).into());
        }
        Ok(())
    }

    /// Starts one.
    pub(super) fn start_unready(folder: &Path, serve: &Serve) -> anyhow::Result<Self> {
        let portolan = Portolan::new(serve.program.clone()).context("cannot find this program")?;
        let name = serve.node.as_ref().unwrap_or(&serve.cluster);
        let log = folder.join(format!("{name}.log"));
        let mut arguments = vec!["serve".to_owned(), format!("--cluster={}", serve.cluster)];
        arguments.push(format!("--data-dir={}", folder.join(name).display()));
        arguments.extend(serve.node.iter().map(|node| format!("--node={node}")));
        let environment = serve.rendered.as_ref().map(|rendered| rendered.environment.clone()).unwrap_or_default();
        if let Some(rendered) = &serve.rendered {
            arguments.clone_from(&rendered.arguments);
        }
        let ports = [("--peer-addr", 7443), ("--xds-addr", 7444), ("--admin-addr", 7480), ("--metrics-addr", 7481)];
        arguments.extend(ports.iter().map(|(flag, port)| format!("{flag}={}:{port}", serve.host)));
        if serve.rendered.is_none() {
            arguments.extend(serve.flags.iter().cloned());
        }
        let mut launch = portolan.launch(format!("control plane {name}"), arguments, log.clone());
        launch.environment = environment;
        let supervised = launch.killed_by_pipe;
        Ok(Self { host: serve.host, portolan, log, process: launch.start()?, supervised })
    }

    fn at(&self, port: u16) -> SocketAddr {
        (self.host, port).into()
    }

    /// Where xDS clients go.
    pub(super) fn xds(&self) -> SocketAddr {
        self.at(7444)
    }

    /// Whether it says that it is ready.
    pub(super) async fn is_ready(&self) -> bool {
        matches!(sockets::http_status(self.at(7481), "GET", "/readyz").await, Ok(200))
    }

    /// What a reading command answers, such as `["status"]`.
    pub(super) async fn ask(&self, command: &[&str]) -> anyhow::Result<Value> {
        let admin = self.at(7480).to_string();
        let mut arguments = command.to_vec();
        arguments.extend(["-o", "json", "--address", &admin]);
        Ok(serde_json::from_str(&self.portolan.run(&arguments).await?)?)
    }

    /// What `status` prints.
    pub(super) async fn status_text(&self) -> anyhow::Result<String> {
        Ok(self.portolan.run(&["status", "--address", &self.at(7480).to_string()]).await?)
    }

    /// The endpoints of a service as `ADDRESS HEALTH WEIGHT ZONE`, sorted.
    pub(super) async fn endpoints(&self, service: &str) -> anyhow::Result<Vec<String>> {
        let answer = self.ask(&["endpoints", service, "--from", "here-a"]).await?;
        let mut lines = Vec::new();
        for locality in answer["localities"].as_array().into_iter().flatten() {
            let zone = locality["locality"]["zone"].as_str().unwrap_or("-");
            for endpoint in locality["endpoints"].as_array().into_iter().flatten() {
                let text = |field: &str| endpoint[field].as_str().unwrap_or_default();
                lines.push(format!("{} {} {} {zone}", text("address"), text("health"), endpoint["weight"]));
            }
        }
        lines.sort();
        Ok(lines)
    }

    /// Waits until a service's endpoints are `wanted`.
    pub(super) async fn shows(&self, service: &str, wanted: &[&str], within: Duration) -> anyhow::Result<()> {
        let seen = Mutex::new(Vec::new());
        let shown = eventually("the endpoints", within, || async {
            let now = self.endpoints(service).await?;
            let same = now == wanted;
            *seen.lock() = now;
            Ok(same.then_some(()))
        });
        shown.await.with_context(|| {
            let seen = seen.lock();
            format!("{service} has {seen:#?}, wanted {wanted:#?}; the log ends:\n{}", self.log_end())
        })
    }

    /// The last lines of its log.
    pub(super) fn log_end(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// What it holds of memory.
    pub(super) fn resident_bytes(&self) -> anyhow::Result<u64> {
        let mut id = self.process.id().context("the control plane has ended")?;
        if self.supervised {
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
            id = children.trim().parse().with_context(|| format!("the supervisor's children are `{children}`"))?;
        }
        let status = fs::read_to_string(format!("/proc/{id}/status")).context("this system has no /proc")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
        Ok(kilobytes * 1024)
    }

    /// SIGTERM, as a kubelet sends it; returns when it is gone.
    pub(super) async fn terminate(self) -> anyhow::Result<()> {
        let ended = self.process.terminate(GRACE).await.context("cannot end a control plane")?;
        ensure!(ended, "a control plane that was told to end is there after {} s", GRACE.as_secs());
        Ok(())
    }

    /// SIGKILL; returns when it is gone.
    pub(super) async fn kill(mut self) -> anyhow::Result<()> {
        let killed = self.process.kill();
        self.process.gone(killed).await.context("cannot wait for a control plane's end")?;
        Ok(())
    }
}
