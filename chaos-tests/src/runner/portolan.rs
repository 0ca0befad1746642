//! The control plane's program: this one again, or another build, with the command lines that a run needs.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portolan_topology::names::ClusterName;
use tokio::process::Command;

use super::process::Launch;
use super::site::ControlPlaneSite;

/// The hidden subcommand under which this binary is `portolan`.
pub const AS_PORTOLAN: &str = "portolan";
/// The hidden subcommand that ties another program to the runner.
pub const SUPERVISE: &str = "supervise";

/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a command did not work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// It could not be started.
    #[error("cannot run {program}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("`{command}` took more than {} s", COMMAND_TIMEOUT.as_secs())]
    TooLong {
        /// The command.
        command: String,
    },
    /// It failed.
    #[error("`{command}` failed: {message}")]
    Failed {
        /// The command.
        command: String,
        /// What it said.
        message: String,
    },
}

/// A build of `portolan`.
#[derive(Debug, Clone)]
pub(crate) struct Portolan {
    ours: PathBuf,
    other: Option<PathBuf>,
}

impl Portolan {
    /// This binary, or `other`.
    pub(crate) fn new(other: Option<PathBuf>) -> io::Result<Self> {
        Ok(Self { ours: std::env::current_exe()?, other })
    }

    /// This binary.
    #[must_use]
    pub(crate) fn ours(&self) -> &Path {
        &self.ours
    }

    /// How to serve a cluster; `folder` is the run's.
    #[must_use]
    pub(crate) fn serve(&self, site: &ControlPlaneSite, folder: &RunPaths) -> Launch {
        let cluster = &site.cluster;
        let credentials = folder.certs();
        let path = |path: PathBuf| path.display().to_string();
        let flags = [
            ("--topology", path(folder.topology())),
            ("--cluster", cluster.to_string()),
            ("--data-dir", path(folder.data(cluster))),
            ("--source", format!("files:{}", path(folder.manifests(cluster)))),
            ("--peer-addr", site.peer.to_string()),
            ("--xds-addr", site.xds.to_string()),
            ("--admin-addr", site.admin.to_string()),
            ("--metrics-addr", site.metrics.to_string()),
            ("--tls-cert", path(credentials.join(format!("{cluster}.pem")))),
            ("--tls-key", path(credentials.join(format!("{cluster}-key.pem")))),
            ("--tls-ca", path(credentials.join("ca.pem"))),
        ];
        let mut arguments = vec!["serve".to_owned()];
        arguments.extend(flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        if let Some(plaintext) = site.plaintext {
            let plaintext = plaintext.to_string();
            let lenient = ["--xds-client-certs", "optional", "--xds-plaintext-addr", &plaintext];
            arguments.extend(lenient.map(str::to_owned));
            arguments.extend(["--xds-plaintext-from", "127.0.0.0/8"].map(str::to_owned));
        }
        self.launch(format!("control plane {cluster}"), arguments, folder.log(cluster.as_str()))
    }

    /// How to start it with `arguments` so that it dies with the runner.
    #[must_use]
    pub(crate) fn launch(&self, name: String, arguments: Vec<String>, log: PathBuf) -> Launch {
        let mut first = vec![AS_PORTOLAN.to_owned()];
        if let Some(other) = &self.other {
            first = vec![SUPERVISE.to_owned(), other.display().to_string()];
        }
        Launch {
            name,
            program: self.ours.clone(),
            arguments: [first, arguments].concat(),
            environment: Vec::new(),
            log,
            killed_by_pipe: self.other.is_some(),
        }
    }

    /// A command line as people type it.
    #[must_use]
    pub(crate) fn command_line(&self, arguments: &[&str]) -> String {
        let program = match &self.other {
            Some(other) => other.display().to_string(),
            None => format!("{} {AS_PORTOLAN}", self.ours.display()),
        };
        let arguments: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
        format!("{program} {}", arguments.join(" "))
    }

    /// Runs a command to its end; its standard output if it succeeds.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<String, CommandError> {
        let mut command = match &self.other {
            Some(other) => Command::new(other),
            None => {
                let mut command = Command::new(&self.ours);
                command.arg(AS_PORTOLAN);
                command
            }
        };
        command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
        let line = || format!("portolan {}", arguments.join(" "));
        let output = tokio::time::timeout(COMMAND_TIMEOUT, command.output())
            .await
            .map_err(|_| CommandError::TooLong { command: line() })?
            .map_err(|source| CommandError::Start { program: self.command_line(&[]), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let message = if message.is_empty() { output.status.to_string() } else { message };
        Err(CommandError::Failed { command: line(), message })
    }
}

/// An argument as a shell takes it.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

/// What is where in a run's folder.
#[derive(Debug, Clone)]
pub struct RunPaths(pub PathBuf);

impl RunPaths {
    /// The topology file that all control planes read.
    #[must_use]
    pub fn topology(&self) -> PathBuf {
        self.0.join("topology.yaml")
    }

    /// The certificates.
    #[must_use]
    pub fn certs(&self) -> PathBuf {
        self.0.join("certs")
    }

    /// A control plane's data directory.
    #[must_use]
    pub fn data(&self, cluster: &ClusterName) -> PathBuf {
        self.0.join("data").join(cluster.as_str())
    }

    /// A cluster's manifests.
    #[must_use]
    pub fn manifests(&self, cluster: &ClusterName) -> PathBuf {
        self.0.join("manifests").join(cluster.as_str())
    }

    /// A process's log.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.0.join("log").join(format!("{name}.log"))
    }

    /// A client's bootstrap.
    #[must_use]
    pub fn bootstrap(&self, place: &str) -> PathBuf {
        self.0.join("bootstrap").join(format!("{place}.json"))
    }

    /// A policy document on its way to `portolan policy apply`.
    #[must_use]
    pub fn policy(&self, name: &str) -> PathBuf {
        self.0.join("policy").join(format!("{name}.yaml"))
    }

    /// Makes the folders.
    pub fn make<'a>(&self, clusters: impl Iterator<Item = &'a ClusterName>) -> io::Result<()> {
        for cluster in clusters {
            std::fs::create_dir_all(self.data(cluster))?;
            std::fs::create_dir_all(self.manifests(cluster))?;
        }
        ["certs", "log", "bootstrap", "policy"]
            .iter()
            .try_for_each(|folder| std::fs::create_dir_all(self.0.join(folder)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_can_be_pasted() {
        let portolan = Portolan { ours: "/bin/portolan-chaos".into(), other: None };
        let line = portolan.command_line(&["drain", "region=us-east", "--reason", "game day, it's a test"]);
        assert_eq!(line, r"/bin/portolan-chaos portolan drain region=us-east --reason 'game day, it'\''s a test'");
    }
}
