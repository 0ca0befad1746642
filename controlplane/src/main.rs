//! The `portolan` binary: the control plane and the command line in one program.

use std::process::ExitCode;

fn main() -> ExitCode {
    portolan_controlplane::cli::main(std::env::args_os())
}
