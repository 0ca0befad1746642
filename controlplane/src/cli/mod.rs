//! The `portolan` command line. Exit status: 0 done, 1 failed, 2 wrong usage.

mod ask;
mod bootstrap;
mod check;
mod drain;
mod format;
mod forward;
mod local;
mod output;
mod policy;
mod policy_text;
mod read;
mod render;
mod serve;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

/// A federated control plane for client-side load balancing
#[derive(Debug, Parser)]
#[command(name = "portolan", version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a control plane
    Serve(Box<serve::Serve>),
    /// Shows every cluster, and what needs attention
    Status(read::Read),
    /// Shows the xDS clients that are connected, and whether they took what they were sent
    Clients(read::Read),
    /// Shows the services of all clusters
    Services(read::Read),
    /// Shows the endpoints of a service that are here
    Endpoints(read::EndpointsOf),
    /// Says where clients' traffic goes, and why; or what is known of a cluster
    Explain(read::Explain),
    /// Writes and reads policy
    Policy(policy::Policy),
    /// Takes a region, cluster or zone out of service
    Drain(drain::Drain),
    /// Gives it back
    Undrain(drain::Undrain),
    /// Checks whether everything is there that portolan needs, with the mend for what is not
    Check(Box<check::Check>),
    /// Prints what an xDS client must be told before it starts
    #[command(subcommand)]
    Bootstrap(bootstrap::Bootstrap),
    /// Works on topology files
    #[command(subcommand)]
    Topology(local::TopologyCommand),
    /// Makes certificates
    #[command(subcommand)]
    Certs(local::Certs),
    /// Prints the custom resource definitions of TrafficPolicy and Drain, or writes them to a folder
    Crds(local::Crds),
    /// Shows this program's version and the control plane's
    Version(local::Version),
    /// Prints a completion script
    Completion {
        /// For which shell
        shell: Shell,
    },
}

impl Command {
    fn run(self) -> Result<(), Failure> {
        match self {
            Self::Serve(serve) => serve.run(),
            Self::Status(read) => read.status(),
            Self::Clients(read) => read.clients(),
            Self::Services(read) => read.services(),
            Self::Endpoints(endpoints) => endpoints.run(),
            Self::Explain(explain) => explain.run(),
            Self::Policy(policy) => policy.run(),
            Self::Drain(drain) => drain.run(),
            Self::Undrain(undrain) => undrain.run(),
            Self::Check(check) => check.run(),
            Self::Bootstrap(bootstrap) => bootstrap.run(),
            Self::Topology(command) => command.run(),
            Self::Certs(certs) => certs.run(),
            Self::Crds(crds) => crds.run(),
            Self::Version(version) => version.run(),
            Self::Completion { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "portolan", &mut script);
                output::print(&String::from_utf8_lossy(&script));
                Ok(())
            }
        }
    }
}

/// Runs the command line with `args`, the program's name first.
pub fn main(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no mistakes, and clap knows where each goes.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => {
            output::error(&message);
            ExitCode::from(2)
        }
        Err(Failure::Failed(error)) => {
            output::error(&told_once(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes in one line. Many of our errors tell their cause themselves: it is not told again.
fn told_once(error: &anyhow::Error) -> String {
    error
        .chain()
        .skip(1)
        .map(ToString::to_string)
        .fold(error.to_string(), |told, cause| if told.contains(&cause) { told } else { format!("{told}: {cause}") })
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
enum Failure {
    /// It was asked for wrongly.
    Usage(String),
    /// It failed.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = || std::io::Error::other("the port is taken");
        let silent = anyhow::Error::new(cause()).context("cannot listen");
        assert_eq!(told_once(&silent), "cannot listen: the port is taken");
        let telling = anyhow::Error::new(cause()).context("cannot listen: the port is taken; see --xds-addr");
        assert_eq!(told_once(&telling), "cannot listen: the port is taken; see --xds-addr");
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
