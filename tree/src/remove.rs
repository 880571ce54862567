//! Removes trees that anybody made: links are not followed, what is mounted is not looked into, and no depth is too deep.
//!
//! Folders that lie deeper than [`OPEN_MAX`] are moved up to the root and removed from there: neither the stack nor the number of open files
//! grows with the depth that somebody has chosen.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, fchmod, fstat, openat, openat2, renameat_with, statat,
        unlinkat,
    },
    io::Errno,
};

/// Folders that are open at once, one in the other.
const OPEN_MAX: usize = 32;
/// Rounds in which nothing was moved to the root: after the first, only what somebody adds meanwhile is left, who is not waited for.
const ROUNDS_MAX: u32 = 3;
/// What folders are called that are moved to the root.
const MOVED: &str = ".otto-removed-";
/// How folders are opened.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// How something is held, whatever it is.
const HELD: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes what is at `path` with all that is in it; it is no error if nothing is. What its owner has forbidden to change is removed all the
/// same. What is mounted somewhere in it is given to `release`, by a path that means it while this is called, to be unmounted.
///
/// What cannot be removed does not keep the rest; the first failure is given.
pub fn remove(path: &Path, release: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let root = match open_own(path) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return std::fs::remove_file(path),
        Err(error) => return Err(error.into()),
    };
    let mut removal = Removal { root: &root, release, moved: 0, problem: None };
    let mut rounds = 0;
    loop {
        let moved = removal.moved;
        removal.problem = None;
        removal.empty(&root, 0)?;
        rounds += u32::from(removal.moved == moved);
        match std::fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && rounds < ROUNDS_MAX => {}
            Err(error) => return Err(removal.problem.unwrap_or(error)),
        }
    }
}

/// Opens the root, to be read and written.
fn open_own(path: &Path) -> Result<OwnedFd, Errno> {
    match openat(CWD, path, FOLDER, Mode::empty()) {
        Err(Errno::ACCESS) => {
            permit(&openat(CWD, path, HELD | OFlags::DIRECTORY, Mode::empty())?)?;
            openat(CWD, path, FOLDER, Mode::empty())
        }
        opened => opened,
    }
}

struct Removal<'a> {
    root: &'a OwnedFd,
    release: &'a dyn Fn(&Path) -> io::Result<()>,
    /// Folders that were moved to the root.
    moved: u64,
    /// The first thing of this round that did not work.
    problem: Option<io::Error>,
}

impl Removal<'_> {
    /// Removes what is in a folder. It calls itself for folders, not deeper than [`OPEN_MAX`].
    fn empty(&mut self, folder: &OwnedFd, depth: usize) -> io::Result<()> {
        let mut permitted = false;
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let removed = match self.one(folder, name, entry.file_type(), depth) {
                Err(Errno::ACCESS | Errno::PERM) if !permitted => {
                    permitted = true;
                    fchmod(folder, Mode::RWXU).and_then(|()| self.one(folder, name, entry.file_type(), depth))
                }
                removed => removed,
            };
            match removed {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => drop(self.problem.get_or_insert_with(|| error.into())),
            }
        }
        Ok(())
    }

    fn one(&mut self, folder: &OwnedFd, name: &CStr, kind: FileType, depth: usize) -> Result<(), Errno> {
        let is_folder = match kind {
            FileType::Directory => true,
            FileType::Unknown => FileType::from_raw_mode(statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode) == FileType::Directory,
            FileType::RegularFile
            | FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice => false,
        };
        if !is_folder {
            return match unlinkat(folder, name, AtFlags::empty()) {
                Err(Errno::BUSY) => self.unmount(folder, name).and_then(|()| unlinkat(folder, name, AtFlags::empty())),
                removed => removed,
            };
        }
        // An empty one has nothing to look for.
        match unlinkat(folder, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY | Errno::ACCESS | Errno::PERM) => {}
            removed => return removed,
        }
        let below = match open_below(folder, name) {
            Err(Errno::XDEV) => {
                self.unmount(folder, name)?;
                open_below(folder, name)
            }
            opened => opened,
        }?;
        if depth >= OPEN_MAX {
            // To be moved elsewhere, a folder must be writable itself.
            fchmod(&below, Mode::RWXU)?;
            return self.move_up(folder, name);
        }
        // What cannot be read is not empty, and says why then.
        let _said_by_the_removal = self.empty(&below, depth + 1);
        drop(below);
        unlinkat(folder, name, AtFlags::REMOVEDIR)
    }

    fn move_up(&mut self, folder: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        loop {
            let moved = CString::new(format!("{MOVED}{}", self.moved)).expect("it has no zero");
            self.moved += 1;
            match renameat_with(folder, name, self.root, &moved, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                result => return result,
            }
        }
    }

    /// Has unmounted what stands in the folder under this name.
    fn unmount(&self, folder: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        let mounted = openat(folder, name, HELD, Mode::empty())?;
        (self.release)(&PathBuf::from(format!("/proc/self/fd/{}", mounted.as_raw_fd())))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::BUSY))
    }
}

/// Opens a folder that is no link and nothing that is mounted, to be read and written.
fn open_below(folder: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    match open_here(folder, name, FOLDER) {
        Err(Errno::ACCESS) => {
            permit(&open_here(folder, name, HELD | OFlags::DIRECTORY)?)?;
            open_here(folder, name, FOLDER)
        }
        opened => opened,
    }
}

fn open_here(folder: &OwnedFd, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    match openat2(folder, name, flags, Mode::empty(), resolve) {
        // A system without the call: what is mounted is told by its disk, if it is another one.
        Err(Errno::NOSYS) => {
            let opened = openat(folder, name, flags, Mode::empty())?;
            if fstat(&opened)?.st_dev == fstat(folder)?.st_dev { Ok(opened) } else { Err(Errno::XDEV) }
        }
        opened => opened,
    }
}

/// Lets the owner do everything with what is held.
fn permit(held: &OwnedFd) -> Result<(), Errno> {
    rustix::fs::chmod(format!("/proc/self/fd/{}", held.as_raw_fd()), Mode::RWXU)
}
