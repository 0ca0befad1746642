//! Runs helm, kubectl and `portolan` as people do, and hands back what they said.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::Command;

use super::suite::Lab;
use crate::runner::AS_PORTOLAN;

/// What a command came to.
#[derive(Debug)]
pub(super) struct Said {
    /// Its command line.
    line: String,
    /// Its exit status.
    pub status: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Said {
    /// Its standard output, if it succeeded.
    pub(super) fn done(self) -> anyhow::Result<String> {
        if self.status != 0 {
            bail!("`{}` ended with {}: {}{}", self.line, self.status, self.out, self.err);
        }
        Ok(self.out)
    }

    /// That it failed, and said `part`.
    pub(super) fn failed_with(&self, status: i32, part: &str) -> anyhow::Result<()> {
        let said = format!("{}{}", self.out, self.err);
        if self.status == status && said.contains(part) && !said.contains("panicked") {
            return Ok(());
        }
        bail!("`{}` ended with {} instead of {status}, or did not say `{part}`: {said}", self.line, self.status)
    }
}

impl Lab {
    /// Runs helm against the API server of `kubeconfig`. It keeps its own files in the check's folder.
    pub(super) async fn helm(&self, kubeconfig: &Path, arguments: &[&str]) -> anyhow::Result<Said> {
        let mut command = Command::new(self.tools.kubectl_helm.join("helm"));
        let homes = ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"];
        command.envs(homes.map(|home| (home, self.folder.join("helm")))).env("KUBECONFIG", kubeconfig);
        said(command, arguments).await
    }

    /// Runs kubectl against the API server of `kubeconfig`.
    pub(super) async fn kubectl(&self, kubeconfig: &Path, arguments: &[&str]) -> anyhow::Result<Said> {
        let mut command = Command::new(self.tools.kubectl_helm.join("kubectl"));
        command.env("KUBECONFIG", kubeconfig).env("HOME", &self.folder);
        said(command, arguments).await
    }

    /// Runs `portolan`.
    pub(super) async fn portolan(&self, arguments: &[&str]) -> anyhow::Result<Said> {
        let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
        command.arg(AS_PORTOLAN).current_dir(&self.folder);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PORTOLAN_") || name == "KUBECONFIG") {
            command.env_remove(name);
        }
        said(command, arguments).await
    }
}

async fn said(mut command: Command, arguments: &[&str]) -> anyhow::Result<Said> {
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let program = command.as_std().get_program().display().to_string();
    let output = command.output().await.with_context(|| format!("cannot run {program}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said {
        line: format!("{program} {}", arguments.join(" ")),
        status: output.status.code().unwrap_or(-1),
        out: text(&output.stdout),
        err: text(&output.stderr),
    })
}
