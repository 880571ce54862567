//! Copies trees that this program has unpacked itself, sharing their content where the file system can (reflinks).

use std::{fs::File, io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, fchown, fstat, futimens, ioctl_ficlone, mkdirat,
        openat, readlinkat, symlinkat,
    },
    io::Errno,
    process::{Gid, Uid},
};

use crate::{
    error::CopyError,
    limits::DEPTH_MAX,
    name::EntryName,
    pack::{FILE, FOLDER, names},
};

/// How a file's content gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Both files share it until one of them is written to.
    Shared,
    /// It is written once more.
    Written,
}

/// Whether the file system of this folder lets files share their content. Tries it.
pub fn shares_content(folder: &Path) -> bool {
    let try_it = || -> Result<(), Errno> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let [from, into] =
            [openat(CWD, folder, flags, Mode::from_raw_mode(0o600))?, openat(CWD, folder, flags, Mode::from_raw_mode(0o600))?];
        rustix::io::write(&from, b"shared")?;
        ioctl_ficlone(&into, &from)
    };
    try_it().is_ok()
}

/// Fills the empty folder `into` with what is in `from`: files with their modes and times, folders with their modes, symbolic links. All of it
/// belongs to `owner`, user and group, if one is named.
pub fn copy_into(from: &Path, into: &Path, content: Content, owner: Option<u32>, stop: &dyn Fn() -> bool) -> Result<(), CopyError> {
    let open = |path| openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let failed = |error| failed(b".", error);
    let (from, into) = (open(from).map_err(failed)?, open(into).map_err(failed)?);
    Copying { content, owner, stop }.folder(&from, &into, &mut Vec::new(), 0)
}

struct Copying<'a> {
    content: Content,
    owner: Option<u32>,
    stop: &'a dyn Fn() -> bool,
}

impl Copying<'_> {
    /// It calls itself for folders, not deeper than [`DEPTH_MAX`].
    fn folder(&self, from: &OwnedFd, into: &OwnedFd, path: &mut Vec<u8>, depth: usize) -> Result<(), CopyError> {
        if depth > DEPTH_MAX {
            return Err(failed(path, Errno::NAMETOOLONG));
        }
        let length = path.len();
        for (name, kind) in names(from).map_err(|error| failed(path, error))? {
            if (self.stop)() {
                return Err(CopyError::Stopped);
            }
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            if kind == FileType::Directory {
                let inner = openat(from, &name, FOLDER, Mode::empty()).map_err(|error| failed(path, error))?;
                mkdirat(into, &name, Mode::from_raw_mode(0o700)).map_err(|error| failed(path, error))?;
                let made = openat(into, &name, FOLDER, Mode::empty()).map_err(|error| failed(path, error))?;
                self.folder(&inner, &made, path, depth + 1)?;
                self.finish(&inner, &made).map_err(|error| failed(path, error))?;
            } else if kind == FileType::Symlink {
                self.link(from, into, &name).map_err(|error| failed(path, error))?;
            } else {
                self.file(from, into, &name).map_err(|source| CopyError::Disk { entry: EntryName::new(path), source })?;
            }
            path.truncate(length);
        }
        Ok(())
    }

    fn link(&self, from: &OwnedFd, into: &OwnedFd, name: &std::ffi::CStr) -> Result<(), Errno> {
        symlinkat(readlinkat(from, name, Vec::new())?, into, name)?;
        let Some(owner) = self.owner else { return Ok(()) };
        let (user, group) = (Uid::from_raw(owner), Gid::from_raw(owner));
        rustix::fs::chownat(into, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn file(&self, from: &OwnedFd, into: &OwnedFd, name: &std::ffi::CStr) -> io::Result<()> {
        let from = openat(from, name, FILE, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let into = openat(into, name, flags, Mode::from_raw_mode(0o600))?;
        match self.content {
            Content::Shared => ioctl_ficlone(&into, &from)?,
            Content::Written => drop(io::copy(&mut File::from(from.try_clone()?), &mut File::from(into.try_clone()?))?),
        }
        self.finish(&from, &into)?;
        let stat = fstat(&from)?;
        let last_modification = Timespec { tv_sec: stat.st_mtime, tv_nsec: 0 };
        futimens(&into, &Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification })?;
        Ok(())
    }

    /// Gives what was made its owner and its mode.
    fn finish(&self, from: &OwnedFd, into: &OwnedFd) -> Result<(), Errno> {
        if let Some(owner) = self.owner {
            fchown(into, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))?;
        }
        fchmod(into, Mode::from_raw_mode(fstat(from)?.st_mode & 0o777))
    }
}

fn failed(path: &[u8], error: Errno) -> CopyError {
    CopyError::Disk { entry: EntryName::new(path), source: error.into() }
}
