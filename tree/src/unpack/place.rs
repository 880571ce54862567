//! Where an archive is unpacked, and how it gets from there to where it belongs.

use std::{
    ffi::CStr,
    fs,
    io::{self, Read},
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fchmod, fstat, mkdirat, openat, renameat, statat},
    io::Errno,
};

use super::{
    Archive, Rules, Unpacked, disk,
    folders::{FOLDER, Folders},
};
use crate::{
    error::UnpackError,
    name::{EntryName, inside},
};

/// What the names of folders begin with that are being filled. Who finds one that is old finds what a kill has left.
const STAGING: &str = ".otto-unpack-";
/// Names that are tried; one is taken only by what a kill has left.
const NAMES_MAX: u32 = 1_000;
const NO_DIRECTORY: &str = "something stands there that is no directory";
/// Tells the folders of one process from each other.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A folder that is being filled. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct Staging {
    path: Option<PathBuf>,
    umask: u32,
}

impl Staging {
    /// The folder at this path, which is not there yet.
    pub(super) fn new(path: &Path) -> Result<Self, UnpackError> {
        let failed = |error| disk(b".", error);
        mkdirat(CWD, path, Mode::from_raw_mode(0o777)).map_err(failed)?;
        let mut staging = Self { path: Some(path.to_owned()), umask: 0 };
        let folder = staging.folder().map_err(failed)?;
        staging.umask = 0o777 & !fstat(&folder).map_err(failed)?.st_mode;
        fchmod(&folder, Mode::from_raw_mode(0o700)).map_err(failed)?;
        Ok(staging)
    }

    /// A folder in this one.
    pub(super) fn within(root: &Path) -> Result<Self, UnpackError> {
        for _ in 0..NAMES_MAX {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            match Self::new(&root.join(format!("{STAGING}{}-{number}", std::process::id()))) {
                Err(UnpackError::Disk { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
                result => return result,
            }
        }
        Err(disk(b".", Errno::EXIST))
    }

    /// The folder itself.
    pub(super) fn folder(&self) -> Result<OwnedFd, Errno> {
        let path = self.path.as_deref().expect("it is there until it is kept");
        openat(CWD, path, FOLDER, Mode::empty())
    }

    /// Unpacks into it, up to the modes of folders.
    pub(super) fn fill(
        &self,
        archive: Archive<impl Read + Send>,
        rules: &Rules,
        stop: &dyn Fn() -> bool,
    ) -> Result<(Unpacked, Folders), UnpackError> {
        super::fill(archive, (self.folder().map_err(|error| disk(b".", error))?, self.umask), rules, stop)
    }

    /// Leaves the folder where it is.
    pub(super) fn keep(mut self) -> Result<(), UnpackError> {
        let folder = self.folder().map_err(|error| disk(b".", error))?;
        fchmod(&folder, Mode::from_raw_mode(0o777 & !self.umask)).map_err(|error| disk(b".", error))?;
        self.path = None;
        Ok(())
    }

    /// Moves what is in the folder to `place`.
    pub(super) fn move_to(self, place: &OwnedFd, folders: Folders) -> Result<(), UnpackError> {
        let from = self.folder().map_err(|error| disk(b".", error))?;
        check(&from, place, &mut Vec::new())?;
        merge(&from, place, &mut Vec::new())?;
        folders.close_in(place)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Who cannot remove it can do nothing else about it: it lies among what will be removed with its root.
            let _left = fs::remove_dir_all(path);
        }
    }
}

/// Opens the folder that everything is relative to. Its own path may lead through links: it is the caller's.
pub(super) fn root(path: &Path) -> Result<OwnedFd, UnpackError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|error| disk(b".", error))
}

/// Permissions that new files of this process do not get (`man 5 proc_pid_status`). Nothing in Otto changes them.
pub(super) fn umask() -> Option<u32> {
    static UMASK: OnceLock<Option<u32>> = OnceLock::new();
    let read = || {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        u32::from_str_radix(status.lines().find_map(|line| line.strip_prefix("Umask:"))?.trim(), 8).ok()
    };
    *UMASK.get_or_init(read)
}

/// Removes what is in the folder. Who cannot can do nothing else about it: it will be removed with the folder.
pub(super) fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let _left = if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
    }
}

/// Opens the folder `below` of `top`, and makes what is missing of it.
pub(super) fn open(top: &Path, below: &Path) -> Result<OwnedFd, UnpackError> {
    let bytes = below.as_os_str().as_bytes();
    let path = inside(bytes).map_err(|what| UnpackError::Refused { entry: EntryName::new(bytes), what })?;
    let mut folder = root(top)?;
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        match mkdirat(&folder, part, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(disk(&path, error)),
        }
        folder = openat(&folder, part, FOLDER, Mode::empty()).map_err(|error| occupied(&path, error))?;
    }
    Ok(folder)
}

/// Finds out whether everything has its place, before anything is moved. It calls itself for folders that are on both sides, which are as
/// deep as an archive's.
fn check(from: &OwnedFd, to: &OwnedFd, path: &mut Vec<u8>) -> Result<(), UnpackError> {
    each(from, path, |name, is_folder, path| {
        let occupied = |what| Err(UnpackError::Occupied { entry: EntryName::new(path), what });
        match (there(to, name, path)?, is_folder) {
            (Some(FileType::Directory), true) => check(&open_at(from, name, path)?, &open_at(to, name, path)?, path),
            (Some(FileType::Directory), false) => occupied("a directory stands there"),
            (Some(_), true) => occupied(NO_DIRECTORY),
            (None, _) | (Some(_), false) => Ok(()),
        }
    })
}

fn merge(from: &OwnedFd, to: &OwnedFd, path: &mut Vec<u8>) -> Result<(), UnpackError> {
    each(from, path, |name, is_folder, path| {
        if is_folder && there(to, name, path)?.is_some() {
            return merge(&open_at(from, name, path)?, &open_at(to, name, path)?, path);
        }
        renameat(from, name, to, name).map_err(|error| disk(path, error))
    })
}

/// Calls `with` for everything in a folder.
fn each(
    folder: &OwnedFd,
    path: &mut Vec<u8>,
    mut with: impl FnMut(&CStr, bool, &mut Vec<u8>) -> Result<(), UnpackError>,
) -> Result<(), UnpackError> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder).map_err(|error| disk(path, error))? {
        let entry = entry.map_err(|error| disk(path, error))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    let length = path.len();
    for name in names {
        if length > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        let is_folder = there(folder, &name, path)? == Some(FileType::Directory);
        with(&name, is_folder, path)?;
        path.truncate(length);
    }
    Ok(())
}

fn there(folder: &OwnedFd, name: &CStr, path: &[u8]) -> Result<Option<FileType>, UnpackError> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(disk(path, error)),
    }
}

fn open_at(folder: &OwnedFd, name: &CStr, path: &[u8]) -> Result<OwnedFd, UnpackError> {
    openat(folder, name, FOLDER, Mode::empty()).map_err(|error| occupied(path, error))
}

fn occupied(path: &[u8], error: Errno) -> UnpackError {
    match error {
        Errno::NOTDIR | Errno::LOOP => UnpackError::Occupied { entry: EntryName::new(path), what: NO_DIRECTORY },
        error => disk(path, error),
    }
}
