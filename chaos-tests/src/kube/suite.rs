//! Runs checks one after the other: a line each, a closing line, and nothing left behind.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

use super::apiserver::ApiServer;
use super::tools::Tools;
use crate::runner::folder::RunFolder;
use crate::terminal::{Terminal, Tone};

/// How long one check may take, unless it says otherwise.
const WITHIN: Duration = Duration::from_secs(90);
/// Between two looks at something that has no event of its own.
const LOOK_EVERY: Duration = Duration::from_millis(50);

type Outcome = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// One thing that must hold.
pub(super) struct Check {
    /// `topic: what holds`.
    pub name: &'static str,
    within: Duration,
    run: Box<dyn FnOnce(Lab) -> Outcome>,
}

impl Check {
    /// Holds if `run` returns `Ok` in time.
    pub(super) fn new<F>(name: &'static str, run: impl FnOnce(Lab) -> F + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        Self::lasting(name, WITHIN, run)
    }

    /// The same for one that may take longer.
    pub(super) fn lasting<F>(name: &'static str, within: Duration, run: impl FnOnce(Lab) -> F + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        Self { name, within, run: Box::new(|lab| Box::pin(run(lab))) }
    }
}

/// What a check works with. Everything that it starts ends with it.
#[derive(Debug, Clone)]
pub(super) struct Lab {
    /// The programs of others.
    pub tools: Tools,
    /// A folder of the check's own.
    pub folder: PathBuf,
}

impl Lab {
    /// Starts an API server; `name` tells those of one check apart.
    pub(super) async fn api_server(&self, name: &str) -> anyhow::Result<ApiServer> {
        self.api_server_with(name, &[]).await
    }

    /// The same with more flags for kube-apiserver.
    pub(super) async fn api_server_with(&self, name: &str, flags: &[&str]) -> anyhow::Result<ApiServer> {
        ApiServer::start(&self.tools.apiserver, &self.folder.join(name), flags).await
    }
}

/// Those whose names contain one of `names`; all, if there are none.
pub(super) fn chosen(mut checks: Vec<Check>, names: &[String]) -> anyhow::Result<Vec<Check>> {
    let all: Vec<&str> = checks.iter().map(|check| check.name).collect();
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|check| check.contains(name.as_str()))) {
        bail!("no check's name contains `{unknown}`; `cargo kube --list` shows them");
    }
    checks.retain(|check| names.is_empty() || names.iter().any(|name| check.name.contains(name.as_str())));
    Ok(checks)
}

/// The run's folder; it goes with this value.
pub(super) fn folder() -> anyhow::Result<RunFolder> {
    RunFolder::create(&std::env::temp_dir()).context("cannot make a folder for the run")
}

/// Runs `checks`; how many failed.
pub(super) async fn run(checks: Vec<Check>, tools: Tools, terminal: &Terminal) -> anyhow::Result<usize> {
    let folder = folder()?;
    let (mut passed, mut failed) = (0, 0);
    for (index, check) in checks.into_iter().enumerate() {
        let lab = Lab { tools: tools.clone(), folder: folder.path().join(index.to_string()) };
        std::fs::create_dir_all(&lab.folder).context("cannot make a folder for a check")?;
        let (began, own) = (Instant::now(), lab.folder.clone());
        let outcome = tokio::time::timeout(check.within, (check.run)(lab)).await;
        let outcome = outcome.unwrap_or_else(|_| bail!("not done within {} s", check.within.as_secs()));
        let took = format!("{:.1} s", began.elapsed().as_secs_f64());
        match outcome {
            Ok(()) => {
                passed += 1;
                terminal.say(&format!("{} {}  {took}", terminal.tone("✓", Tone::Good), check.name));
            }
            Err(error) => {
                failed += 1;
                terminal.say(&format!(
                    "{} {}  {took}\n  {}",
                    terminal.tone("✗", Tone::Bad),
                    check.name,
                    indented(&error)
                ));
            }
        }
        remove(&own);
    }
    terminal.say(&format!("{passed} passed, {failed} failed"));
    Ok(failed)
}

fn indented(error: &anyhow::Error) -> String {
    format!("{error:#}").replace('\n', "\n  ")
}

/// What cannot be removed now goes with the run's folder.
fn remove(folder: &Path) {
    let _ = std::fs::remove_dir_all(folder);
}

/// Looks until `look` finds something, or fails after `within` saying that `what` did not come.
pub(super) async fn eventually<T, F>(what: &str, within: Duration, mut look: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let deadline = Instant::now() + within;
    loop {
        let seen = look().await;
        match seen {
            Ok(Some(found)) => return Ok(found),
            Ok(None) if Instant::now() < deadline => {}
            Err(_) if Instant::now() < deadline => {}
            Ok(None) => bail!("not within {} s: {what}", within.as_secs()),
            Err(error) => return Err(error.context(format!("not within {} s: {what}", within.as_secs()))),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
