//! The `portolan-chaos` binary.

fn main() -> std::process::ExitCode {
    portolan_chaos::cli::main()
}
