//! Child processes that cannot outlive the runner: each holds a pipe from it as standard input and ends when that does,
//! however the runner ended.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

/// How much of a process's log an error quotes.
const QUOTED_BYTES: u64 = 2_000;

/// Why a process is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    /// It could not be started.
    #[error("cannot start {name}")]
    Start {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended by itself.
    #[error("{name} ended by itself ({status}); the end of its log:\n{log}")]
    Ended {
        /// Which.
        name: String,
        /// How.
        status: ExitStatus,
        /// Its last lines.
        log: String,
    },
    /// It did not come up.
    #[error("{name} was not ready within {} s; the end of its log:\n{log}", within.as_secs())]
    NotReady {
        /// Which.
        name: String,
        /// How long was waited.
        within: Duration,
        /// Its last lines.
        log: String,
    },
}

/// How to start a process.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// What people call it.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables beside the runner's own environment.
    pub environment: Vec<(String, String)>,
    /// Where its output goes, after what is there.
    pub log: PathBuf,
    /// Whether the end of standard input is as good as SIGKILL: a supervisor's child cannot be signalled from here.
    pub killed_by_pipe: bool,
}

/// A running child.
#[derive(Debug)]
pub(crate) struct Process {
    launch: Launch,
    child: Child,
    stdin: Option<ChildStdin>,
}

/// A killed child.
#[derive(Debug, Clone)]
pub(crate) struct Killed {
    /// What people call it.
    pub name: String,
    /// Just before the signal.
    pub killed: Instant,
    /// When waiting for it returned.
    pub gone: Instant,
    /// How it ended.
    pub status: ExitStatus,
}

impl Launch {
    fn command(&self) -> io::Result<Command> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command
            .args(self.arguments.iter().map(OsStr::new))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stderr(log)
            // A group of its own: Ctrl-C is the runner's, which ends its children in order.
            .process_group(0)
            // A supervisor outlives its drop, to kill its child when the pipe ends.
            .kill_on_drop(!self.killed_by_pipe);
        Ok(command)
    }

    fn failed(&self, source: io::Error) -> ProcessError {
        ProcessError::Start { name: self.name.clone(), source }
    }

    /// Starts it; its standard output goes to the log.
    pub(crate) fn start(self) -> Result<Process, ProcessError> {
        let started = self.command().and_then(|mut command| {
            let log = File::options().create(true).append(true).open(&self.log)?;
            command.stdout(log).spawn()
        });
        let mut child = started.map_err(|source| self.failed(source))?;
        let stdin = child.stdin.take();
        Ok(Process { launch: self, child, stdin })
    }

    /// Starts it, and hands out its standard output.
    pub(crate) fn start_reading(self) -> Result<(Process, ChildStdout), ProcessError> {
        let started = self.command().and_then(|mut command| command.stdout(Stdio::piped()).spawn());
        let mut child = started.map_err(|source| self.failed(source))?;
        let stdin = child.stdin.take();
        match child.stdout.take() {
            Some(stdout) => Ok((Process { launch: self, child, stdin }, stdout)),
            None => Err(self.failed(io::Error::other("it has no standard output"))),
        }
    }

    /// Starts it, and waits until it prints a line that `is_it`; that line, too.
    pub(crate) async fn start_until(
        self,
        is_it: impl Fn(&str) -> bool,
        within: Duration,
    ) -> Result<(Process, String), ProcessError> {
        let (mut process, stdout) = self.start_reading()?;
        let printed = async {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(printed)) = lines.next_line().await {
                if is_it(&printed) {
                    return Some(printed);
                }
            }
            None
        };
        match tokio::time::timeout(within, printed).await {
            Ok(Some(line)) => Ok((process, line)),
            Ok(None) => {
                let status = process.child.wait().await.map_err(|source| process.launch.failed(source))?;
                Err(process.launch.ended(status))
            }
            Err(_) => Err(process.not_ready(within)),
        }
    }

    fn ended(&self, status: ExitStatus) -> ProcessError {
        ProcessError::Ended { name: self.name.clone(), status, log: tail(&self.log) }
    }
}

impl Process {
    /// An error if it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<(), ProcessError> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(self.launch.ended(status)),
            Ok(None) => Ok(()),
            Err(source) => Err(self.launch.failed(source)),
        }
    }

    /// The error that says that it did not come up.
    #[must_use]
    pub(crate) fn not_ready(&self, within: Duration) -> ProcessError {
        ProcessError::NotReady { name: self.launch.name.clone(), within, log: tail(&self.launch.log) }
    }

    /// Its id, while it lives.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends SIGKILL; [`Process::gone`] waits for the end.
    pub(crate) fn kill(&mut self) -> Instant {
        let killed = Instant::now();
        if self.launch.killed_by_pipe {
            self.stdin = None;
        } else {
            // An error means that it is gone already, which waiting shows.
            let _ = self.child.start_kill();
        }
        killed
    }

    /// Waits for the end of a process that was killed at `killed`.
    pub(crate) async fn gone(mut self, killed: Instant) -> io::Result<Killed> {
        let status = self.child.wait().await?;
        Ok(Killed { name: self.launch.name.clone(), killed, gone: Instant::now(), status })
    }

    /// Lets it end in good order by writing `line`, and kills it if it has not `within` that time.
    pub(crate) async fn finish(mut self, line: &str, within: Duration) {
        if let Some(stdin) = &mut self.stdin {
            // A broken pipe means that it is gone already.
            let _ = stdin.write_all(format!("{line}\n").as_bytes()).await;
        }
        self.ends(within).await;
    }

    /// Lets it end in good order by SIGTERM, as a kubelet does, and kills it if it has not `within` that time. Returns
    /// whether it ended by itself.
    pub(crate) async fn terminate(mut self, within: Duration) -> io::Result<bool> {
        if let Some(id) = self.id() {
            Command::new("kill").arg(id.to_string()).status().await?;
        }
        Ok(self.ends(within).await)
    }

    /// Waits for its end, and kills it in the end; whether that was not needed.
    async fn ends(&mut self, within: Duration) -> bool {
        let ended = tokio::time::timeout(within, self.child.wait()).await.is_ok();
        if !ended {
            self.kill();
            let _ = self.child.wait().await;
        }
        ended
    }
}

/// The end of a log file, from the begin of a line.
pub(crate) fn tail(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(QUOTED_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(if length > QUOTED_BYTES {
            text.split_once('\n').map_or_else(String::new, |(_, rest)| rest.to_owned())
        } else {
            text
        })
    };
    match read() {
        Ok(text) if text.trim().is_empty() => "(it wrote nothing)".to_owned(),
        Ok(text) => text.trim_end().to_owned(),
        Err(error) => format!("({}: {error})", log.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that says when its standard input has ended, as a supervisor then kills its child.
    #[tokio::test]
    async fn a_supervisor_lives_to_see_its_pipe_end_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let launch = Launch {
            name: "supervisor".to_owned(),
            program: "sh".into(),
            arguments: ["-c", "echo up; cat; echo the pipe has ended"].map(str::to_owned).to_vec(),
            environment: Vec::new(),
            log: folder.path().join("log"),
            killed_by_pipe: true,
        };
        let (process, stdout) = launch.start_reading().unwrap();
        let mut lines = BufReader::new(stdout).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("up"));
        drop(process);
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("the pipe has ended"));
    }
}
