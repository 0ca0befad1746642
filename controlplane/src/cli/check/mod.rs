//! `portolan check`: whether everything is there that portolan needs, one line a check, with the mend. It changes nothing.

mod clock;
mod cluster;
mod finding;
mod peers;
mod permissions;
mod plane;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use hyper::Method;
use hyper::body::Bytes;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt as _};
use portolan_federation::tls::{CredentialFiles, Credentials};
use portolan_topology::names::ClusterName;
use portolan_topology::topology::Topology;
use serde_json::Value;

use self::finding::{Finding, Mark};
use self::permissions::Who;
use super::ask::{At, Parameters, over_forward, request};
use super::{Failure, output};
use crate::admin::model::Status;
use crate::topology_file;

/// Portolan's own definitions.
const DEFINITIONS: [&str; 2] = ["drains.portolan.dev", "trafficpolicies.portolan.dev"];
/// The Multi-Cluster Services API's.
const MULTICLUSTER: [&str; 2] = ["serviceexports.multicluster.x-k8s.io", "serviceimports.multicluster.x-k8s.io"];

/// Checks whether everything is there that portolan needs
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Before an install: what must be there first
    #[arg(long)]
    pre: bool,
    /// The topology file: checked, compared with the one that runs, and its peers' ports dialled from here
    #[arg(long, env = "PORTOLAN_TOPOLOGY", value_name = "FILE")]
    topology: Option<PathBuf>,
    /// The cluster of the topology that this is: its nodes' zones are compared, and it is not dialled
    #[arg(long, env = "PORTOLAN_CLUSTER", value_name = "NAME", requires = "topology")]
    cluster: Option<ClusterName>,
    /// A cluster's certificate, PEM: peers are dialled with it, and must take it
    #[arg(long, env = "PORTOLAN_TLS_CERT", value_name = "FILE", requires_all = ["tls_key", "tls_ca", "topology"])]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, env = "PORTOLAN_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The CA that signs control planes, PEM
    #[arg(long, env = "PORTOLAN_TLS_CA", value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,
    /// What is to look at (!) fails, too
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    at: At,
}

/// What was found so far.
#[derive(Default)]
struct Report {
    findings: Vec<Finding>,
    clocks: Vec<(String, Option<SignedDuration>)>,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let findings = runtime.block_on(self.look())?;
        output::print(&finding::text(&findings));
        let fails = |finding: &&Finding| finding.mark == Mark::Bad || self.strict && finding.mark == Mark::Warning;
        match findings.iter().filter(fails).count() {
            0 => Ok(()),
            1 => Err(anyhow::anyhow!("1 check failed").into()),
            many => Err(anyhow::anyhow!("{many} checks failed").into()),
        }
    }

    async fn look(&self) -> Result<Vec<Finding>, Failure> {
        let mut report = Report::default();
        let topology = self.read_topology(&mut report)?;
        let credentials = self.credentials()?;
        if self.is_kubernetes() {
            self.kubernetes(topology.as_ref(), &mut report).await;
        } else if !self.pre {
            let answer = self.at.ask_status().await;
            report.plane(answer, topology.as_ref(), "is it running? --address names its admin port");
        }
        if let Some(topology) = &topology {
            let own = self.cluster.as_ref();
            for peer in peers::look(topology, own, credentials.as_ref()).await {
                report.findings.push(peer.finding);
                report.clocks.push((peer.cluster.to_string(), peer.ahead));
            }
        }
        report.findings.extend(clock::judge(&report.clocks));
        Ok(report.findings)
    }

    /// Kubernetes is meant unless only a file or an address was given.
    fn is_kubernetes(&self) -> bool {
        self.at.cluster.is_named() || (self.topology.is_none() && self.at.address.is_none())
    }

    fn read_topology(&self, report: &mut Report) -> Result<Option<Topology>, Failure> {
        let Some(file) = &self.topology else { return Ok(None) };
        let name = file.display().to_string();
        let (topology, warnings) = Topology::parse(&name, &topology_file::read(file)?)?;
        if let Some(own) = &self.cluster {
            topology_file::check(&name, &topology_file::read(file)?, own)?;
        }
        let count = topology.clusters().count();
        let seen = format!("{name}: {} {}, {count} clusters", topology.name, topology.short_hash());
        report.findings.push(Finding::good("file", seen));
        let warnings = warnings.iter().map(|warning| plane::topology_warning("file", &warning.to_string()));
        report.findings.extend(warnings);
        Ok(Some(topology))
    }

    fn credentials(&self) -> Result<Option<Credentials>, Failure> {
        let (Some(cert), Some(key), Some(ca)) = (&self.tls_cert, &self.tls_key, &self.tls_ca) else { return Ok(None) };
        let files = CredentialFiles { cert: cert.clone(), key: key.clone(), ca: ca.clone() };
        Ok(Some(Credentials::from_files(&files)?))
    }

    async fn kubernetes(&self, topology: Option<&Topology>, report: &mut Report) {
        let unreachable = |error: String| {
            Finding::bad(
                "API server",
                error,
                "--context and --kubeconfig say which cluster is meant; kubectl must reach it",
            )
        };
        let client = match self.at.cluster.client().await {
            Ok(client) => client,
            Err(error) => return report.findings.push(unreachable(error.to_string())),
        };
        match cluster::version(&client).await {
            Ok((finding, ahead)) => {
                report.findings.push(finding);
                report.clocks.push(("the API server".to_owned(), ahead));
            }
            Err(error) => return report.findings.push(unreachable(error.to_string())),
        }
        let own = self.cluster.as_ref().zip(topology).and_then(|(name, topology)| topology.cluster(name));
        report.findings.push(cluster::zones(&client, own).await);
        let namespace = self.at.cluster.namespace();
        if self.pre {
            let mend = "install as a cluster administrator";
            let rights = permissions::INSTALL;
            report.findings.push(permissions::check(&client, "rights", Who::Us, rights, namespace, mend).await);
        } else {
            report.own_definitions(&client).await;
        }
        report.multicluster_definitions(&client).await;
        if !self.pre {
            self.control_planes(&client, topology, report).await;
        }
    }

    async fn control_planes(&self, client: &Client, topology: Option<&Topology>, report: &mut Report) {
        let namespace = self.at.cluster.namespace();
        let mend = "ask for a role with these in that namespace";
        let rights = permissions::COMMAND_LINE;
        report.findings.push(permissions::check(client, "rights", Who::Us, rights, namespace, mend).await);
        let pods = match self.at.cluster.pods(client).await {
            Ok(pods) => pods,
            Err(error) => return report.findings.push(Finding::bad("pods", error.to_string(), mend)),
        };
        report.findings.push(cluster::pods(&pods, &self.at.cluster.place()));
        if let Some(account) = cluster::account(&pods) {
            let who = Who::Account(namespace, &account);
            let mend = "helm upgrade with rbac.create=true, or bind these to it";
            let rights = permissions::CONTROL_PLANE;
            report.findings.push(permissions::check(client, "rights", who, rights, namespace, mend).await);
            if cluster::watch_gateways(&pods) {
                let rights = permissions::GATEWAYS;
                report.findings.push(permissions::check(client, "gateways", who, rights, namespace, mend).await);
            }
        }
        let running =
            pods.iter().filter(|pod| pod.status.as_ref().and_then(|it| it.phase.as_deref()) == Some("Running"));
        for pod in running {
            let answer = self.status_of(client, pod).await;
            let mend = format!("kubectl -n {namespace} logs {}", pod.name_any());
            report.plane(answer, topology, &mend);
        }
    }

    async fn status_of(&self, client: &Client, pod: &Pod) -> anyhow::Result<Value> {
        let forwarded = self.at.cluster.open_to(client, pod).await?;
        let question = request(Method::GET, "/api/v1/status", Parameters::default(), Bytes::new())?;
        over_forward(forwarded, question, &pod.name_any()).await
    }
}

impl Report {
    /// Takes in what a control plane says of itself, or why it does not.
    fn plane(&mut self, answer: anyhow::Result<Value>, topology: Option<&Topology>, mend: &str) {
        let status = answer.and_then(|answer| {
            serde_json::from_value::<Status>(answer).context("this version of portolan does not understand the answer")
        });
        match status {
            Ok(status) => self.findings.extend(plane::judge(&status, topology)),
            Err(error) => self.findings.push(Finding::bad("control plane", super::told_once(&error), mend)),
        }
    }

    async fn own_definitions(&mut self, client: &Client) {
        let (missing, trouble) = cluster::definitions(client, &DEFINITIONS, "definitions").await;
        self.findings.push(trouble.unwrap_or_else(|| {
            if missing.is_empty() {
                Finding::good("definitions", DEFINITIONS.join(", "))
            } else {
                let mend =
                    "helm upgrade with crds.install=true; until then policy is written by the command line alone";
                Finding::bad("definitions", format!("missing: {}", missing.join(", ")), mend)
            }
        }));
    }

    async fn multicluster_definitions(&mut self, client: &Client) {
        let (missing, trouble) = cluster::definitions(client, &MULTICLUSTER, "multi-cluster").await;
        self.findings.push(trouble.unwrap_or_else(|| {
            if missing.is_empty() {
                Finding::good("multi-cluster", MULTICLUSTER.join(", "))
            } else {
                let mend = "install the Multi-Cluster Services API, or choose services by label or all of them";
                Finding::warning("multi-cluster", format!("missing: {}", missing.join(", ")), mend)
            }
        }));
    }
}
