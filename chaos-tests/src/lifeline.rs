//! What ties a child process to its runner: standard input, a pipe that closes however the runner ends.

use std::io::BufRead;

use tokio::sync::oneshot;

/// The line on standard input that asks for an end in good order.
pub(crate) const FINISH: &str = "finish";

/// Ends this process at once when standard input ends. The receiver is told when a line there says [`FINISH`].
pub(crate) fn hold() -> oneshot::Receiver<()> {
    let (finish, told) = oneshot::channel();
    std::thread::spawn(move || {
        let mut finish = Some(finish);
        for line in std::io::stdin().lock().lines() {
            match line {
                Ok(line) if line == FINISH => {
                    // Nobody waits for it: then only the end of the pipe counts.
                    let _ = finish.take().map(|finish| finish.send(()));
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        // The runner is gone: nobody is left to answer to.
        std::process::exit(0);
    });
    told
}
