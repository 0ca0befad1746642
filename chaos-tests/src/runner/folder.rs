//! A run's folder under the system's temporary one: goes when the run ends, and if the runner was killed, with the next
//! run.
//!
//! A lock on a file in it says that its runner lives: process ids come again, locks do not.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const PREFIX: &str = "portolan-chaos-";
const LOCK: &str = "lock";

/// The folder of this run; removed when dropped.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    /// Held until the end.
    _lock: File,
}

impl RunFolder {
    /// Makes the folder of this process in `parent`, after removing those whose runners are dead.
    pub(crate) fn create(parent: &Path) -> io::Result<Self> {
        remove_stale(parent);
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        // The lock stands before the name does: no other run sees the folder without it.
        let making = parent.join(format!(".{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&making)?;
        let lock = File::create(making.join(LOCK))?;
        lock.lock()?;
        fs::rename(&making, &path)?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next run.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn remove_stale(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) && is_stale(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_stale(folder: &Path) -> bool {
    File::open(folder.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_runs_folder_goes_and_a_living_ones_stays() {
        let parent = tempfile::tempdir().unwrap();
        let (dead, alive) = (parent.path().join("portolan-chaos-1"), parent.path().join("portolan-chaos-2"));
        let other = parent.path().join("something-else");
        for folder in [&dead, &alive, &other] {
            fs::create_dir(folder).unwrap();
            File::create(folder.join(LOCK)).unwrap();
        }
        let held = File::open(alive.join(LOCK)).unwrap();
        held.lock().unwrap();
        let ours = RunFolder::create(parent.path()).unwrap();
        assert!(!dead.exists() && alive.exists() && other.exists() && ours.path().exists());
        let path = ours.path().to_owned();
        drop(ours);
        assert!(!path.exists());
    }
}
