//! Makes clients by their recipes, once: in a cache folder outside the clone, keyed by the recipe.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::recipe::{Recipe, Tool};
use crate::runner::process::tail;

/// The file that says that everything is there.
const DONE: &str = "done";
const LOCK: &str = "lock";
const LOG: &str = "install.log";
/// How long one command may take: the network may be slow, and Go builds for a minute.
const COMMAND_WITHIN: Duration = Duration::from_secs(420);

/// Why a client cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum InstallError {
    /// A tool is missing.
    #[error("`{}` is not on the PATH: install {}", .0.program, .0.what)]
    Missing(&'static Tool),
    /// A command failed.
    #[error("`{command}` in {folder}: {how}; the end of its log:\n{log}")]
    Command {
        /// The command.
        command: String,
        /// Where.
        folder: String,
        /// How it ended.
        how: String,
        /// Its last lines.
        log: String,
    },
    /// The folder cannot be written.
    #[error("{}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The folder in which `recipe` is made, below `cache`; makes it if it is not.
pub(super) async fn install(recipe: &'static Recipe, cache: &Path) -> Result<PathBuf, InstallError> {
    for tool in recipe.tools {
        if !on_path(tool.program) {
            return Err(InstallError::Missing(tool));
        }
    }
    let folder = cache.join(recipe.key());
    let _lock = lock(&folder).await?;
    if folder.join(DONE).exists() {
        return Ok(folder);
    }
    write(recipe, &folder).map_err(|source| InstallError::Folder { path: folder.clone(), source })?;
    for command in recipe.commands {
        run(command, &folder).await?;
    }
    File::create(folder.join(DONE)).map_err(|source| InstallError::Folder { path: folder.clone(), source })?;
    Ok(folder)
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Two runs side by side do not make the same folder at once.
async fn lock(folder: &Path) -> Result<File, InstallError> {
    let path = folder.to_owned();
    let locked = tokio::task::spawn_blocking(move || {
        fs::create_dir_all(&path)?;
        let file = File::create(path.join(LOCK))?;
        file.lock()?;
        Ok(file)
    });
    let locked = locked.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
    locked.map_err(|source| InstallError::Folder { path: folder.to_owned(), source })
}

fn write(recipe: &Recipe, folder: &Path) -> io::Result<()> {
    for (path, text) in recipe.files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)?;
    }
    Ok(())
}

async fn run(command: &[&str], folder: &Path) -> Result<(), InstallError> {
    let log = folder.join(LOG);
    let failed = |how: String| InstallError::Command {
        command: command.join(" "),
        folder: folder.display().to_string(),
        how,
        log: tail(&log),
    };
    let [program, arguments @ ..] = command else { return Ok(()) };
    // A path with a folder in it is one of the recipe's own.
    let program = if program.contains('/') { folder.join(program) } else { PathBuf::from(program) };
    let output = || File::options().create(true).append(true).open(&log);
    let spawn = || -> io::Result<_> {
        let mut process = Command::new(&program);
        process.args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
        process.stdout(output()?).stderr(output()?).spawn()
    };
    let mut child = spawn().map_err(|error| failed(error.to_string()))?;
    match tokio::time::timeout(COMMAND_WITHIN, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(status.to_string())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("not done after {} s", COMMAND_WITHIN.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHELL: &[Tool] = &[Tool { program: "sh", what: "a shell" }];

    #[tokio::test]
    async fn a_recipe_is_made_once() {
        static COUNTS: Recipe = Recipe {
            name: "counts",
            tools: SHELL,
            files: &[("in/text", "once\n")],
            commands: &[&["sh", "-c", "cat in/text >> made"]],
        };
        let cache = tempfile::tempdir().unwrap();
        let folder = install(&COUNTS, cache.path()).await.unwrap();
        assert_eq!(install(&COUNTS, cache.path()).await.unwrap(), folder);
        assert_eq!(fs::read_to_string(folder.join("made")).unwrap(), "once\n");
    }

    #[tokio::test]
    async fn what_fails_is_said_with_its_log_and_tried_again() {
        static FAILS: Recipe = Recipe {
            name: "fails",
            tools: SHELL,
            files: &[],
            commands: &[&["sh", "-c", "echo no such thing; exit 3"]],
        };
        let cache = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let error = install(&FAILS, cache.path()).await.unwrap_err().to_string();
            assert!(error.contains("exit status: 3") && error.contains("no such thing"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_missing_tool_is_named() {
        static MISSING: Recipe = Recipe {
            name: "missing",
            tools: &[Tool { program: "no-such-tool", what: "the tool that nobody has" }],
            files: &[],
            commands: &[],
        };
        let cache = tempfile::tempdir().unwrap();
        let error = install(&MISSING, cache.path()).await.unwrap_err().to_string();
        assert_eq!(error, "`no-such-tool` is not on the PATH: install the tool that nobody has");
    }
}
