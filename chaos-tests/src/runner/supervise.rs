//! Ties a program that knows nothing of the runner to it: runs it, and kills it when standard input ends.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use anyhow::Context;
use parking_lot::Mutex;

/// Runs `program` until it ends or standard input does; in the latter case it is killed.
pub fn supervise(program: &Path, arguments: &[String]) -> anyhow::Result<ExitStatus> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let child = Arc::new(Mutex::new(child));
    let watched = Arc::clone(&child);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        // An error means that it has ended.
        let _ = watched.lock().kill();
    });
    wait(&child).with_context(|| format!("cannot wait for {}", program.display()))
}

/// Waits without holding the lock: killing needs it.
fn wait(child: &Mutex<Child>) -> std::io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.lock().try_wait()? {
            return Ok(status);
        }
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
}
