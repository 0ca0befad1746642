//! The interop suite: real Envoys and gRPC clients, as their users get them, run on a federation of real control planes.
//!
//! All clients take part in the same play, each with a service of its own, and each is judged by itself. A client that
//! cannot be had fails; nothing is skipped.

mod bootstrap;
mod federation;
mod gateway;
mod install;
mod outcome;
mod play;
mod player;
mod recipe;
mod relay;
mod routes;
mod security;
mod status_tool;
mod subject;
mod tally;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use futures::future::join_all;
use portolan_topology::diagnostic::nearest;
use tokio::time::Instant;

use federation::Federation;
use install::{InstallError, install};
use outcome::{Outcome, Summary};
use player::Player;
use recipe::Recipe;
use subject::Subject;

use crate::runner::folder::RunFolder;
use crate::runner::run::Interrupts;
use crate::terminal::{Terminal, Tone};

/// What is run, and where.
#[derive(Debug)]
pub struct Options {
    /// The clients.
    pub subjects: Subjects,
    /// Where they are installed.
    pub cache: PathBuf,
    /// Where the report goes.
    pub report: PathBuf,
    /// The start of the run's random choices.
    pub seed: u64,
}

/// Some of the clients that the suite knows.
#[derive(Debug)]
pub struct Subjects(Vec<&'static Subject>);

/// Those whose names begin with one of `only`; all, if that is empty.
pub fn subjects(only: &[String]) -> Result<Subjects, String> {
    let known = || subject::ALL.iter().map(|subject| subject.client);
    if let Some(unknown) = only.iter().find(|wanted| !known().any(|name| name.starts_with(wanted.as_str()))) {
        let suggestion = nearest(unknown, known()).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
        let mut names: Vec<_> = known().collect();
        names.dedup();
        return Err(format!("no client `{unknown}`; expected one of {}{suggestion}", names.join(", ")));
    }
    let wanted = |subject: &&Subject| only.is_empty() || only.iter().any(|name| subject.client.starts_with(name));
    Ok(Subjects(subject::ALL.iter().filter(wanted).collect()))
}

/// The folder of the user's cache for installed clients.
pub fn cache() -> Result<PathBuf, String> {
    let given = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = given("XDG_CACHE_HOME").or_else(|| Some(given("HOME")?.join(".cache")));
    cache.map(|cache| cache.join("portolan-interop")).ok_or_else(|| {
        "neither XDG_CACHE_HOME nor HOME says where clients are to be installed; pass --cache DIR".to_owned()
    })
}

/// Runs the suite; whether every check of each client held.
pub async fn run(options: Options, terminal: &Terminal) -> anyhow::Result<bool> {
    let began = Instant::now();
    let Subjects(subjects) = &options.subjects;
    let folder = RunFolder::create(&std::env::temp_dir()).context("cannot make a folder for the run")?;
    let mut interrupts = Interrupts::new().context("cannot wait for signals")?;
    let mut federation = Federation::new(folder.path(), subjects, options.seed).await?;
    let played = tokio::select! {
        played = install_and_play(&options, &mut federation, terminal) => played,
        () = interrupts.next() => Err(anyhow::anyhow!("interrupted")),
    };
    federation.end().await;
    let kept = keep_logs(&folder.path().join("log"), &options.report);
    let outcomes = played?;
    kept.with_context(|| format!("cannot keep the logs in {}", options.report.display()))?;
    write_report(&options.report, &outcomes)?;
    terminal.say(&format!(
        "{:.0} s; the report is {}/report.json",
        began.elapsed().as_secs_f64(),
        options.report.display()
    ));
    let summaries = Summary::all(&outcomes);
    for summary in &summaries {
        terminal.say(&serde_json::to_string(summary)?);
    }
    Ok(!summaries.is_empty() && summaries.iter().all(Summary::held))
}

async fn install_and_play(
    options: &Options,
    federation: &mut Federation,
    terminal: &Terminal,
) -> anyhow::Result<Vec<Outcome>> {
    let Subjects(subjects) = &options.subjects;
    let folders = install_all(subjects, &options.cache, terminal).await;
    let mut players = Vec::new();
    let mut outcomes = Vec::new();
    for subject in subjects {
        match folders.get(subject.recipe.name) {
            Some(Ok(folder)) => players.push(Player::new(subject, folder.clone()).await?),
            Some(Err(error)) => outcomes.push(Outcome::never_ran(subject, error.clone())),
            None => {}
        }
    }
    for outcome in &outcomes {
        say(outcome, terminal);
    }
    if !players.is_empty() {
        let grpcurl = folders.get(recipe::GRPCURL.name).cloned().unwrap_or_else(|| Err("it was not tried".to_owned()));
        outcomes.extend(play::play(players, federation, grpcurl, terminal).await?);
    }
    outcomes.sort_by_key(|outcome| subjects.iter().position(|subject| subject.title() == outcome.title));
    Ok(outcomes)
}

/// Installs every recipe that some subject needs, and grpcurl's, all at once; errors as text, since several subjects may share one.
async fn install_all(
    subjects: &[&'static Subject],
    cache: &Path,
    terminal: &Terminal,
) -> HashMap<&'static str, Result<PathBuf, String>> {
    let mut recipes: Vec<&'static Recipe> = subjects.iter().map(|subject| subject.recipe).collect();
    recipes.push(&recipe::GRPCURL);
    recipes.sort_by_key(|recipe| recipe.name);
    recipes.dedup();
    let began = Instant::now();
    let installs = recipes.into_iter().map(|recipe| async move {
        let installed = install(recipe, cache).await;
        match &installed {
            Ok(_) => terminal.say(&format!("{} is there after {:.0} s", recipe.name, began.elapsed().as_secs_f64())),
            Err(error) => terminal.say(&format!("{} cannot be had: {error}", recipe.name)),
        }
        (recipe.name, installed.map_err(|error: InstallError| format!("{:#}", anyhow::Error::new(error))))
    });
    join_all(installs).await.into_iter().collect()
}

/// One line for each check.
fn say(outcome: &Outcome, terminal: &Terminal) {
    for check in &outcome.checks {
        let mark = if check.passed { terminal.tone("✓", Tone::Good) } else { terminal.tone("✗", Tone::Bad) };
        terminal.say(&format!("{mark} {}: {}: {}", outcome.title, check.name, check.detail));
    }
}

fn write_report(folder: &Path, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let file = folder.join("report.json");
    std::fs::write(&file, serde_json::to_vec_pretty(outcomes)?)
        .with_context(|| format!("cannot write {}", file.display()))
}

/// The run's folder goes; its logs stay beside the report.
fn keep_logs(logs: &Path, report: &Path) -> std::io::Result<()> {
    let kept = report.join("log");
    std::fs::create_dir_all(&kept)?;
    for entry in std::fs::read_dir(logs)? {
        let entry = entry?;
        std::fs::copy(entry.path(), kept.join(entry.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_chosen_by_the_begin_of_their_names() {
        let chosen = |only: &[&str]| {
            subjects(&only.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
                .map(|Subjects(chosen)| chosen.into_iter().map(|subject| subject.client).collect::<Vec<_>>())
        };
        assert_eq!(chosen(&[]).unwrap().len(), subject::ALL.len());
        assert_eq!(chosen(&["grpcio"]).unwrap(), ["grpcio", "grpcio"]);
        let refused = chosen(&["grpc-goo"]).unwrap_err();
        assert!(refused.ends_with("did you mean `grpc-go`?"), "{refused}");
    }
}
