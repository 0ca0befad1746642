//! The command line of `portolan-chaos`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use portolan_topology::diagnostic::nearest;
use portolan_topology::topology::Topology;
use rand::RngExt;

use crate::runner::{self, AS_PORTOLAN};
use crate::scenario::{self, Scenario, builtin};
use crate::terminal::Terminal;
use crate::{backend, interop, kube, lifeline};

/// Proves failover: runs a scenario against real control planes, backends and clients, and says what held.
#[derive(Debug, Parser)]
#[command(name = "portolan-chaos", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario: exit status 0 if every expectation held.
    Run(RunArguments),
    /// List the scenarios that come with this program.
    List,
    /// Run real Envoys and gRPC clients on a federation: exit status 0 if every check of each client held.
    Interop(InteropArguments),
    /// Check what needs a Kubernetes API server against a real one.
    Kube(kube::Arguments),
    /// The same inside of the run's network.
    #[command(hide = true)]
    KubeInside(kube::Inside),
    /// A scenario's backend.
    #[command(hide = true)]
    Backend(backend::Options),
    /// Another build of the control plane, tied to the runner.
    #[command(hide = true)]
    Supervise {
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct RunArguments {
    /// A scenario that comes with this program, or a file.
    #[arg(value_name = "NAME|FILE")]
    scenario: String,
    /// Run it on this topology instead of the scenario's own.
    #[arg(long, value_name = "FILE")]
    topology: Option<PathBuf>,
    /// Where report.json and report.html go.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Run this build of the control plane instead of the one in this program.
    #[arg(long, value_name = "PATH")]
    portolan: Option<PathBuf>,
    /// Leave everything running after the verdict, until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, clap::Args)]
struct InteropArguments {
    /// Only clients whose names begin so, such as `grpc-go`; all without it.
    #[arg(value_name = "CLIENT")]
    only: Vec<String>,
    /// Where clients are installed; by default a folder of the user's cache.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Where report.json and the clients' logs go.
    #[arg(long, value_name = "DIR", default_value = "report/interop")]
    report: PathBuf,
}

/// Exit status of a wrong command line or scenario.
const USAGE: u8 = 2;

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|command| command == AS_PORTOLAN) {
        return as_portolan(arguments.split_off(1));
    }
    let result = match Arguments::parse().command {
        Command::Run(arguments) => return run(&arguments),
        Command::Interop(arguments) => return run_interop(arguments),
        Command::List => {
            list();
            Ok(ExitCode::SUCCESS)
        }
        Command::Kube(arguments) => kube::run(&arguments, &Terminal::new()),
        Command::KubeInside(inside) => kube_inside(inside),
        Command::Backend(options) => serve_backend(options),
        Command::Supervise { program, arguments } => supervise(&program, &arguments),
    };
    result.unwrap_or_else(|error| fail(&format!("{error:#}"), 1))
}

/// This program as `portolan`; a control plane that serves ends with its runner.
fn as_portolan(arguments: Vec<OsString>) -> ExitCode {
    if arguments.get(1).is_some_and(|command| command == "serve") {
        drop(lifeline::hold());
    }
    portolan_controlplane::cli::main(arguments)
}

fn serve_backend(options: backend::Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(backend::run(options))?;
    Ok(ExitCode::SUCCESS)
}

fn kube_inside(inside: kube::Inside) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(kube::inside(inside, &Terminal::new()))
}

/// Ends as the program did.
fn supervise(program: &Path, arguments: &[String]) -> anyhow::Result<ExitCode> {
    use std::os::unix::process::ExitStatusExt;
    let status = runner::supervise::supervise(program, arguments)?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

fn list() {
    let terminal = Terminal::plain();
    let width = builtin::ALL.iter().map(|builtin| builtin.name.len()).max().unwrap_or(0);
    for builtin in builtin::ALL {
        terminal.say(&format!("{:<width$}  {}", builtin.name, builtin.about()));
    }
}

fn run(arguments: &RunArguments) -> ExitCode {
    let (scenario, topology) = match load(arguments) {
        Ok(loaded) => loaded,
        Err(refusal) => return fail(&refusal.message, refusal.status),
    };
    let report = arguments.report.clone().unwrap_or_else(|| Path::new("report").join(&scenario.name));
    let options = runner::Options {
        scenario,
        topology,
        portolan: arguments.portolan.clone(),
        keep: arguments.keep,
        report,
        seed: seed(),
    };
    verdict(runner::run(options, &mut Terminal::new()))
}

fn run_interop(arguments: InteropArguments) -> ExitCode {
    let cache = arguments.cache.map_or_else(interop::cache, Ok);
    let subjects = interop::subjects(&arguments.only);
    match (cache, subjects) {
        (Ok(cache), Ok(subjects)) => {
            let options = interop::Options { subjects, cache, report: arguments.report, seed: seed() };
            verdict(interop::run(options, &Terminal::plain()))
        }
        (Err(error), _) | (_, Err(error)) => fail(&error, USAGE),
    }
}

/// Two runs side by side must not meet: each draws its own addresses.
fn seed() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the one place where a run's randomness begins")]
    rand::rng().random()
}

fn verdict(run: impl Future<Output = anyhow::Result<bool>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}"), 1),
    };
    match runtime.block_on(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

/// Why nothing was run.
struct Refusal {
    message: String,
    status: u8,
}

impl Refusal {
    /// A wrong command line.
    fn usage(message: String) -> Self {
        Self { message, status: USAGE }
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        Self { message: format!("{error:#}"), status: 1 }
    }
}

impl From<portolan_topology::diagnostic::Diagnostics> for Refusal {
    fn from(refused: portolan_topology::diagnostic::Diagnostics) -> Self {
        Self { message: refused.to_string(), status: 1 }
    }
}

fn load(arguments: &RunArguments) -> Result<(Scenario, Topology), Refusal> {
    let given = &arguments.scenario;
    let (file, text) = match builtin::find(given) {
        Some(builtin) => (builtin.file(), builtin.text.to_owned()),
        None if !Path::new(given).exists() && !given.contains(['/', '.']) => {
            let suggestion = nearest(given, builtin::ALL.iter().map(|builtin| builtin.name));
            let suggestion = suggestion.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            return Err(Refusal::usage(format!(
                "no scenario `{given}`; expected a file or a name that `portolan-chaos list` shows{suggestion}"
            )));
        }
        None => (given.clone(), read(Path::new(given))?),
    };
    let own = scenario::topology_path(&file, &text)?;
    let (topology_file, topology_text) = match (&arguments.topology, own) {
        (Some(other), _) => (other.display().to_string(), read(other)?),
        (None, Some(_)) if builtin::find(given).is_some() => {
            (builtin::TOPOLOGY_FILE.to_owned(), builtin::TOPOLOGY.to_owned())
        }
        (None, Some(own)) => {
            let path = Path::new(&file).parent().unwrap_or(Path::new("")).join(own);
            (path.display().to_string(), read(&path)?)
        }
        (None, None) => {
            return Err(Refusal::usage(format!("{file} names no topology; give it one, or pass --topology FILE")));
        }
    };
    let (topology, _) = Topology::parse(&topology_file, &topology_text)?;
    let scenario = scenario::parse(&file, &text, &topology)?;
    Ok((scenario, topology))
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[expect(clippy::print_stderr, reason = "the one place where this program says that it failed")]
fn fail(message: &str, status: u8) -> ExitCode {
    eprintln!("portolan-chaos: {message}");
    ExitCode::from(status)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
