//! The `portolan` binary: the control plane and the command line in one program.

use std::process::ExitCode;

/// Thousands of streams make and free small pieces all the time; the system's allocator keeps more of them, for longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    portolan_controlplane::cli::main(std::env::args_os())
}
