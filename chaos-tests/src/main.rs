//! The `portolan-chaos` binary.
fn main() {}
