//! The real data directory: a file per record, replaced atomically, and a lock against a second process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, SledStore, Store, check_record};

/// The folder of records within the data directory.
const RECORDS: &str = "records";
/// The folder of the key-value store.
const STORE: &str = "store";
/// The file that is locked while a process uses the directory.
const LOCK: &str = "lock";
/// The file that names the owner, as given to [`DirDisk::open`].
const OWNER: &str = "owner";
/// What a record's new content is called until it replaces the old; no record's name ends so.
const UNFINISHED: &str = "~";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirDiskError {
    /// Another process holds it.
    #[error("{}: another process uses this data directory; stop it, or give each its own --data-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It was made for somebody else.
    #[error("{}: this data directory belongs to {found}, not to {expected}; give {expected} its own --data-dir", path.display())]
    OtherOwner {
        /// The directory.
        path: PathBuf,
        /// Who made it.
        found: String,
        /// Who asks.
        expected: String,
    },
    /// The operating system refuses.
    #[error("{}: cannot use this as data directory", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A data directory on the file system. Locked for as long as it lives.
#[derive(Debug)]
pub struct DirDisk {
    root: PathBuf,
    _lock: File,
}

impl DirDisk {
    /// Opens `root`, making it if it does not exist. `owner` is who it belongs to, such as `use1-a/portolan-0`: a
    /// directory that somebody else made is refused.
    pub fn open(root: impl Into<PathBuf>, owner: &str) -> Result<Self, DirDiskError> {
        let root = root.into();
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| DirDiskError::Io { path, source }
        };
        fs::create_dir_all(root.join(RECORDS)).map_err(at(&root))?;
        let path = root.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(DirDiskError::InUse { path: root }),
            Err(fs::TryLockError::Error(source)) => return Err(DirDiskError::Io { path, source }),
        }
        let path = root.join(OWNER);
        match read_if_there(&path).map_err(at(&path))? {
            Some(found) if found != owner.as_bytes() => {
                let found = String::from_utf8_lossy(&found).into_owned();
                return Err(DirDiskError::OtherOwner { path: root, found, expected: owner.to_owned() });
            }
            Some(_) => {}
            None => replace(&path, owner.as_bytes()).map_err(at(&path))?,
        }
        Ok(Self { root, _lock: lock })
    }

    fn path(&self, record: &str) -> io::Result<PathBuf> {
        check_record(record)?;
        Ok(self.root.join(RECORDS).join(record))
    }
}

impl Disk for DirDisk {
    fn read(&self, record: &str) -> io::Result<Option<Vec<u8>>> {
        read_if_there(&self.path(record)?)
    }

    fn write(&self, record: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(record)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        replace(&path, bytes)
    }

    fn remove(&self, record: &str) -> io::Result<()> {
        let path = self.path(record)?;
        match fs::remove_file(&path) {
            Ok(()) => sync_folder(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        let mut records = Vec::new();
        collect(&self.root.join(RECORDS), "", &mut records)?;
        records.retain(|record| record.starts_with(prefix));
        records.sort();
        Ok(records)
    }

    fn open_store(&self) -> io::Result<Arc<dyn Store>> {
        Ok(Arc::new(SledStore::open(&self.root.join(STORE))?))
    }

    fn set_store_aside(&self) -> io::Result<String> {
        let kept = (1..).map(|n| self.root.join(format!("{STORE}.damaged-{n}"))).find(|kept| !kept.exists());
        let kept = kept.ok_or_else(|| io::Error::other("no name is left to keep the store under"))?;
        fs::rename(self.root.join(STORE), &kept)?;
        sync_folder(&kept)?;
        Ok(kept.display().to_string())
    }
}

fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// After a crash at any moment the file holds either the old bytes or the new: the new ones are on disk before their
/// name is, and the folder's entry is before we say so.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    let unfinished = PathBuf::from(unfinished);
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn collect(folder: &Path, prefix: &str, records: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let record = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{record}/"), records)?;
        } else if check_record(&record).is_ok() {
            records.push(record);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirDisk::open(dir.path(), "use1-a/0").unwrap();
        assert!(matches!(DirDisk::open(dir.path(), "use1-a/0"), Err(DirDiskError::InUse { .. })));
        drop(first);
        DirDisk::open(dir.path(), "use1-a/0").unwrap();
    }

    #[test]
    fn another_clusters_directory_is_refused_and_named() {
        let dir = tempfile::tempdir().unwrap();
        drop(DirDisk::open(dir.path(), "use1-a/0").unwrap());
        let error = DirDisk::open(dir.path(), "usw2-a/0").unwrap_err();
        assert!(error.to_string().contains("belongs to use1-a/0, not to usw2-a/0"), "{error}");
    }

    #[test]
    fn an_unfinished_replacement_is_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path(), "a").unwrap();
        disk.write("lists/checkout", b"old").unwrap();
        fs::write(dir.path().join("records/lists/checkout~"), b"half").unwrap();
        assert_eq!(disk.list("lists/").unwrap(), ["lists/checkout"]);
        assert_eq!(disk.read("lists/checkout").unwrap().as_deref(), Some(&b"old"[..]));
        disk.write("lists/checkout", b"new").unwrap();
        assert_eq!(disk.read("lists/checkout").unwrap().as_deref(), Some(&b"new"[..]));
    }

    #[test]
    fn the_store_is_there_after_a_reopen() {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = DirDisk::open(dir.path(), "a").unwrap().open_store().unwrap();
            store.apply(vec![(b"k".to_vec(), Some(b"v".to_vec()))]).unwrap();
            store.flush().unwrap();
        }
        let store = DirDisk::open(dir.path(), "a").unwrap().open_store().unwrap();
        assert_eq!(store.get(b"k").unwrap().as_deref(), Some(&b"v"[..]));
    }
}
