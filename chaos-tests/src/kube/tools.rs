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
    /// The folder with the Gateway API's definitions.
    #[arg(long)]
    pub gateway_api: PathBuf,
    /// A Python with grpcio.
    #[arg(long)]
    pub python: PathBuf,
    /// An optimised build of `portolan`, to be measured.
    #[arg(long)]
    pub portolan: Option<PathBuf>,
}

impl Tools {
    /// Takes them from the cache, or makes them, which takes minutes and needs Go, Python and their registries; an
    /// optimised `portolan`, too, if one is to be measured.
    pub(super) fn find(measured: bool) -> anyhow::Result<Self> {
        // The quick ones first: what is missing is told before minutes of building.
        let (kubectl_helm, python) = (script("kubectl-helm.sh")?, script("grpc-python.sh")?);
        let gateway_api = script("gateway-api.sh")?;
        let apiserver = script("build.sh")?;
        let portolan = if measured && cfg!(debug_assertions) { Some(optimised()?) } else { None };
        Ok(Self { apiserver, kubectl_helm, gateway_api, python, portolan })
    }

    /// As [`Tools`] parses them.
    pub(super) fn flags(&self) -> Vec<String> {
        let programs = [
            ("apiserver", &self.apiserver),
            ("kubectl-helm", &self.kubectl_helm),
            ("gateway-api", &self.gateway_api),
            ("python", &self.python),
        ];
        let all = programs.into_iter().chain(self.portolan.as_ref().map(|path| ("portolan", path)));
        all.map(|(flag, path)| format!("--{flag}={}", path.display())).collect()
    }
}

/// Builds `portolan` with optimisations beside this build, which has none: what it takes says nothing of those that are
/// deployed.
fn optimised() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let target = program.ancestors().nth(2).context("this program is in no target folder")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--locked", "--release", "--bin", "portolan", "--target-dir"]).arg(target);
    let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).status();
    if !built.context("cannot run cargo")?.success() {
        bail!("cargo cannot build an optimised `portolan`");
    }
    Ok(target.join("release").join("portolan"))
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
