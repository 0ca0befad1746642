//! The programs of others that the checks use: from the cache, or built into it by the recipe's scripts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Where the recipe is: a folder of the clone that this program was built in.
const RECIPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/apiserver");

/// What the checks use.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Tools {
    /// The API server.
    #[arg(long)]
    pub apiserver: PathBuf,
    /// The folder with kubectl and helm.
    #[arg(long)]
    pub kubectl_helm: PathBuf,
    /// A Python with grpcio.
    #[arg(long)]
    pub python: PathBuf,
}

impl Tools {
    /// Takes them from the cache, or makes them, which takes minutes and needs Go, Python and their registries.
    pub(super) fn find() -> anyhow::Result<Self> {
        // The quick ones first: what is missing is told before minutes of building.
        let (kubectl_helm, python) = (script("kubectl-helm.sh")?, script("grpc-python.sh")?);
        Ok(Self { apiserver: script("build.sh")?, kubectl_helm, python })
    }

    /// As [`Tools`] parses them.
    pub(super) fn flags(&self) -> [String; 3] {
        let programs = [("apiserver", &self.apiserver), ("kubectl-helm", &self.kubectl_helm), ("python", &self.python)];
        programs.map(|(flag, path)| format!("--{flag}={}", path.display()))
    }
}

/// The program that calls through stock gRPC.
pub(super) fn grpc_caller() -> PathBuf {
    Path::new(RECIPE).join("caller.py")
}

/// Runs a script of the recipe, whose last line is a path; it tells of its progress on standard error.
fn script(name: &str) -> anyhow::Result<PathBuf> {
    let script = Path::new(RECIPE).join(name);
    let output = Command::new(&script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", script.display()))?;
    if !output.status.success() {
        bail!("{} failed ({})", script.display(), output.status);
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let path = printed.lines().last().unwrap_or_default();
    if !Path::new(path).exists() {
        bail!("{} printed no path but `{path}`", script.display());
    }
    Ok(path.into())
}
