//! The `portolan` command line. Exit status: 0 done, 1 failed, 2 wrong usage.

mod ask;
mod drain;
mod format;
mod output;
mod policy;
mod policy_text;
mod serve;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A federated control plane for client-side load balancing.
#[derive(Debug, Parser)]
#[command(name = "portolan", version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a control plane.
    Serve(Box<serve::Serve>),
    Policy(policy::Policy),
    Drain(drain::Drain),
    Undrain(drain::Undrain),
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
    let done = match cli.command {
        Command::Serve(serve) => serve.run(),
        Command::Policy(policy) => policy.run(),
        Command::Drain(drain) => drain.run(),
        Command::Undrain(undrain) => undrain.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(message)) => {
            output::error(&message);
            ExitCode::from(2)
        }
        Err(Failure::Failed(error)) => {
            output::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
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
    use clap::CommandFactory as _;

    #[test]
    fn no_command_contradicts_itself() {
        super::Cli::command().debug_assert();
    }
}
