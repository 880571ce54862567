//! Files that are whole or not there, and files by whose locks processes know of each other.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Writes a file that only its owner reads: when this returns it is on disk, and at no time there is half of it.
pub fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// A file that is there to be locked (`flock(2)`): by one holder alone, or by several who share it. The system ends the lock of a process that is
/// killed.
///
/// Dropping this ends its lock at once. Closing the file alone would not: a process that is just being started has all files of its parent open, until it
/// becomes its program.
#[derive(Debug)]
pub struct LockFile(File);

impl LockFile {
    /// Opens the file, which is made if it is not there. Nothing is locked yet.
    pub fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).map(Self)
    }

    /// The same; `None` where there is no such file.
    pub fn find(path: &Path) -> io::Result<Option<Self>> {
        match OpenOptions::new().append(true).open(path) {
            Ok(file) => Ok(Some(Self(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until nobody else holds it, and holds it alone.
    pub fn hold(&self) -> io::Result<()> {
        self.0.lock()
    }

    /// Holds it alone; `false` if somebody else holds or shares it.
    pub fn try_hold(&self) -> io::Result<bool> {
        taken(self.0.try_lock())
    }

    /// Waits until nobody holds it alone, and shares it. Who held it alone shares it from now on.
    pub fn share(&self) -> io::Result<()> {
        self.0.lock_shared()
    }

    /// Shares it; `false` if somebody holds it alone.
    pub fn try_share(&self) -> io::Result<bool> {
        taken(self.0.try_lock_shared())
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // It fails only where nothing was locked.
        let _ended = self.0.unlock();
    }
}

fn taken(tried: Result<(), TryLockError>) -> io::Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_its_owners_and_takes_the_place_of_the_old_one_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.seed");
        for text in ["a longer first one", "second"] {
            write_secret(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_lock_ends_with_its_holder_whoever_else_has_the_file_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert!(LockFile::find(&path).unwrap().is_none());
        let (first, second) = (LockFile::open(&path).unwrap(), LockFile::find(&path).unwrap().unwrap());
        assert!(first.try_hold().unwrap() && !second.try_hold().unwrap() && !second.try_share().unwrap());
        // As a child has it that has not become its program yet.
        let _inherited = first.0.try_clone().unwrap();
        drop(first);
        assert!(second.try_share().unwrap());
        let third = LockFile::open(&path).unwrap();
        assert!(third.try_share().unwrap() && !third.try_hold().unwrap());
        drop(second);
        third.hold().unwrap();
        third.share().unwrap();
    }
}
