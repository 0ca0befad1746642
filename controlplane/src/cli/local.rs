//! The commands that need no control plane: `topology check`, `certs dev`, `crds`, `version`, `completion`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use portolan_topology::ladder;
use portolan_topology::topology::Topology;

use super::ask::{At, Parameters};
use super::{Failure, output};
use crate::admin::model::Status;
use crate::kube::crd;
use crate::topology_file;

#[derive(Debug, Subcommand)]
pub(super) enum TopologyCommand {
    /// Checks a topology file and prints where each zone's traffic goes, nearest first
    Check {
        /// The file
        file: PathBuf,
        /// Warnings fail, too
        #[arg(long)]
        strict: bool,
    },
}

impl TopologyCommand {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let Self::Check { file, strict } = self;
        let (topology, warnings) = Topology::parse(&file.display().to_string(), &topology_file::read(file)?)?;
        output::print(&ladder::chart(&topology));
        for warning in &warnings {
            output::error(&warning.to_string());
        }
        if *strict && !warnings.is_empty() {
            return Err(anyhow::anyhow!("{} warnings, and --strict lets none pass", warnings.len()).into());
        }
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Certs {
    /// Makes a throw-away CA, a certificate for each cluster of a topology, and one for clients
    Dev {
        /// The folder to write to
        dir: PathBuf,
        /// The topology file
        #[arg(long, env = "PORTOLAN_TOPOLOGY", value_name = "FILE")]
        topology: PathBuf,
        /// One more DNS name or IP address for the clusters' certificates
        #[arg(long = "name", value_name = "NAME")]
        names: Vec<String>,
    },
}

impl Certs {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let Self::Dev { dir, topology, names } = self;
        let (topology, _) = Topology::parse(&topology.display().to_string(), &topology_file::read(topology)?)?;
        let written = portolan_federation::certs::dev(dir, &topology, names, Timestamp::now())?;
        let lines: Vec<_> = written.iter().map(|path| path.display().to_string()).collect();
        output::print(&lines.join("\n"));
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(super) struct Crds {
    /// The folder to write one file a definition to; standard output without it
    dir: Option<PathBuf>,
}

impl Crds {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let files = crd::files()?;
        let Some(dir) = &self.dir else {
            let texts: Vec<_> = files.into_iter().map(|(_, text)| text).collect();
            output::print(&texts.join("---\n"));
            return Ok(());
        };
        std::fs::create_dir_all(dir).with_context(|| format!("{}: cannot be made", dir.display()))?;
        for (name, text) in files {
            let path = dir.join(name);
            std::fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
            output::print(&path.display().to_string());
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(super) struct Version {
    /// This program's alone
    #[arg(long)]
    client: bool,
    #[command(flatten)]
    at: At,
}

impl Version {
    pub(super) fn run(&self) -> Result<(), Failure> {
        output::print(&format!("portolan       {}", env!("CARGO_PKG_VERSION")));
        if !self.client {
            let status = self.at.get("/api/v1/status", Parameters::default()).context("the control plane's version")?;
            let status: Status = serde_json::from_value(status)?;
            output::print(&format!("control plane  {} ({}/{})", status.version, status.cluster, status.node));
        }
        Ok(())
    }
}
