//! The `portolan` binary: the control plane and the command line in one program.
fn main() {}
