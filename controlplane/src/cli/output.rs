//! The one place that writes to the terminal.

use std::io::Write;

/// One line, or several, on standard output. A reader that has gone away is no failure of ours.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    if !text.ends_with('\n') {
        let _ = out.write_all(b"\n");
    }
    let _ = out.flush();
}

/// A mistake or failure, on standard error.
pub(super) fn error(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "portolan: {message}");
}
