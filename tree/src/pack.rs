//! Packs trees.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, readlinkat, statat},
    io::Errno,
};

use crate::{
    error::PackError,
    format::{BLOCK, write::Entry},
    limits::{DEPTH_MAX, Limits},
    name::{EntryName, inside, link_stays},
    select::Selection,
};

/// Bytes that are written at once.
const WRITE_BYTES: usize = 256 * 1024;
/// Names of what was left out that are told; all are counted.
const LEFT_OUT_MAX: usize = 20;
/// How folders are opened: the thing itself, never what a link leads to.
pub(crate) const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// How files are opened. A pipe would not let the opener go.
pub(crate) const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Whether files keep their times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// In whole seconds: what compares the times of files finds the order that was there.
    Kept,
    /// Trees with the same files are the same bytes, whenever they were made.
    Left,
}

/// What an archive says of a file beside its name and content.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    /// `rwxrwxrwx`.
    pub mode: u32,
    /// Seconds since 1970; 0 for none.
    pub mtime: u64,
    /// Bytes of its content.
    pub length: u64,
}

/// What was packed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of the archive.
    pub bytes: u64,
    /// What was asked for and is not there.
    pub missing: Vec<String>,
    /// Sockets, pipes and devices that were left out; the first of them.
    pub left_out: Vec<EntryName>,
    /// How many were left out.
    pub left_out_count: u64,
}

/// Packs what is selected of the tree below `root`, in the order of its names. Symbolic links are packed as such, and not followed.
pub fn pack(
    root: &Path,
    selection: &Selection,
    (times, limits): (Times, Limits),
    output: impl Write,
    stop: &dyn Fn() -> bool,
) -> Result<Packed, PackError> {
    let folder = openat(rustix::fs::CWD, root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| read_failed(b".", error))?;
    let found = vec![false; selection.len()];
    let mut walk = Walk { packer: Packer::new(output, limits), selection, times, stop, found, packed: Packed::default() };
    let whole = walk.meant(b"");
    walk.folder(&folder, &mut Vec::new(), whole, 0)?;
    let Walk { packer, found, mut packed, .. } = walk;
    packed.missing = (0..).zip(&found).filter(|(_, found)| !**found).map(|(at, _)| selection.text(at).to_owned()).collect();
    (packed.entries, packed.bytes) = packer.finish()?;
    Ok(packed)
}

struct Walk<'a, W> {
    packer: Packer<W>,
    selection: &'a Selection,
    times: Times,
    stop: &'a dyn Fn() -> bool,
    found: Vec<bool>,
    packed: Packed,
}

impl<W: Write> Walk<'_, W> {
    /// Whether the path is selected itself.
    fn meant(&mut self, path: &[u8]) -> bool {
        let mut meant = false;
        for at in self.selection.matching(path) {
            self.found[at] = true;
            meant = true;
        }
        meant
    }

    /// Packs what is selected in a folder. It calls itself for folders, not deeper than [`DEPTH_MAX`].
    fn folder(&mut self, folder: &OwnedFd, path: &mut Vec<u8>, whole: bool, depth: usize) -> Result<(), PackError> {
        if depth > DEPTH_MAX {
            return Err(PackError::Refused { entry: EntryName::new(path), what: "lies too deep" });
        }
        let length = path.len();
        for (name, kind) in names(folder).map_err(|error| read_failed(path, error))? {
            if (self.stop)() {
                return Err(PackError::Stopped);
            }
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            let meant = self.meant(path) || whole;
            if kind == FileType::Directory {
                self.folder_in(folder, &name, path, meant, depth)?;
            } else if meant {
                self.one(folder, &name, path, kind)?;
            }
            path.truncate(length);
        }
        Ok(())
    }

    fn folder_in(&mut self, above: &OwnedFd, name: &CStr, path: &mut Vec<u8>, meant: bool, depth: usize) -> Result<(), PackError> {
        if !meant && !self.selection.is_below(path) {
            return Ok(());
        }
        let folder = openat(above, name, FOLDER, Mode::empty()).map_err(|error| read_failed(path, error))?;
        if meant {
            let mode = fstat(&folder).map_err(|error| read_failed(path, error))?.st_mode & 0o777;
            self.packer.folder(path, mode)?;
        }
        self.folder(&folder, path, meant, depth + 1)
    }

    /// Packs what is no folder.
    fn one(&mut self, folder: &OwnedFd, name: &CStr, path: &[u8], kind: FileType) -> Result<(), PackError> {
        match kind {
            FileType::RegularFile => {
                let file = openat(folder, name, FILE, Mode::empty()).map_err(|error| read_failed(path, error))?;
                self.file(path, file)
            }
            FileType::Symlink => {
                let target = readlinkat(folder, name, Vec::new()).map_err(|error| read_failed(path, error))?;
                if !link_stays(path, target.to_bytes()) {
                    let what = "is a symbolic link that may lead out of the directory";
                    return Err(PackError::Refused { entry: EntryName::new(path), what });
                }
                self.packer.link(path, target.to_bytes())
            }
            FileType::Directory
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {
                self.packed.left_out_count += 1;
                if self.packed.left_out.len() < LEFT_OUT_MAX {
                    self.packed.left_out.push(EntryName::new(path));
                }
                Ok(())
            }
        }
    }

    fn file(&mut self, path: &[u8], file: OwnedFd) -> Result<(), PackError> {
        let stat = fstat(&file).map_err(|error| read_failed(path, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(PackError::Changed { entry: EntryName::new(path) });
        }
        let mtime = match self.times {
            Times::Kept => u64::try_from(stat.st_mtime).unwrap_or(0),
            Times::Left => 0,
        };
        let attributes = Attributes { mode: stat.st_mode & 0o777, mtime, length: u64::try_from(stat.st_size).unwrap_or(0) };
        self.packer.file(path, attributes, File::from(file))
    }
}

/// What is in a folder, in order.
pub(crate) fn names(folder: &OwnedFd) -> Result<Vec<(CString, FileType)>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let mut kind = entry.file_type();
        if kind == FileType::Unknown {
            kind = FileType::from_raw_mode(statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
        }
        names.push((name.to_owned(), kind));
    }
    names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    Ok(names)
}

fn read_failed(path: &[u8], error: Errno) -> PackError {
    PackError::Read { entry: EntryName::new(path), source: error.into() }
}

/// Writes an archive entry by entry, for who finds the entries otherwise than in a folder.
#[derive(Debug)]
pub struct Packer<W> {
    output: W,
    limits: Limits,
    /// What is not written yet.
    pending: Vec<u8>,
    entries: u64,
    /// Bytes of files, and of the archive.
    content: u64,
    written: u64,
}

impl<W: Write> Packer<W> {
    /// An empty archive.
    pub fn new(output: W, limits: Limits) -> Self {
        Self { output, limits, pending: Vec::with_capacity(2 * WRITE_BYTES), entries: 0, content: 0, written: 0 }
    }

    /// Adds a file. Its content is as long as its attributes say.
    pub fn file(&mut self, path: &[u8], attributes: Attributes, mut content: impl Read) -> Result<(), PackError> {
        let Attributes { mode, mtime, length } = attributes;
        self.count(path, length)?;
        self.entry(&Entry { kind: b'0', path, link: b"", mode, size: length, mtime })?;
        let mut left = length;
        while left > 0 {
            let at = self.pending.len();
            let some = usize::try_from(left).unwrap_or(usize::MAX).min(WRITE_BYTES);
            self.pending.resize(at + some, 0);
            let read = match content.read(&mut self.pending[at..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(source) => return Err(PackError::Read { entry: EntryName::new(path), source }),
                Ok(0) => return Err(PackError::Changed { entry: EntryName::new(path) }),
                Ok(read) => read,
            };
            self.pending.truncate(at + read);
            left -= read as u64;
            self.write_if_many()?;
        }
        let padding = length.next_multiple_of(BLOCK as u64) - length;
        self.pending.resize(self.pending.len() + usize::try_from(padding).expect("less than a block"), 0);
        Ok(())
    }

    /// Adds a symbolic link, wherever it points.
    pub fn link(&mut self, path: &[u8], target: &[u8]) -> Result<(), PackError> {
        self.count(path, 0)?;
        self.entry(&Entry { kind: b'2', path, link: target, mode: 0o777, size: 0, mtime: 0 })
    }

    /// Adds a folder.
    pub fn folder(&mut self, path: &[u8], mode: u32) -> Result<(), PackError> {
        self.count(path, 0)?;
        self.entry(&Entry { kind: b'5', path: &[path, b"/"].concat(), link: b"", mode, size: 0, mtime: 0 })
    }

    /// Ends the archive, and gives its entries and its bytes.
    pub fn finish(mut self) -> Result<(u64, u64), PackError> {
        self.pending.resize(self.pending.len() + 2 * BLOCK, 0);
        self.write()?;
        self.output.flush().map_err(PackError::Write)?;
        Ok((self.entries, self.written))
    }

    fn count(&mut self, path: &[u8], length: u64) -> Result<(), PackError> {
        if let Err(what) = inside(path) {
            return Err(PackError::Refused { entry: EntryName::new(path), what });
        }
        self.entries += 1;
        self.content = self.content.saturating_add(length);
        let Limits { entries, bytes } = self.limits;
        if self.entries > entries {
            return Err(PackError::TooMany { limit: entries });
        }
        if self.content > bytes {
            return Err(PackError::TooLarge { entry: EntryName::new(path), limit: bytes });
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry<'_>) -> Result<(), PackError> {
        entry.write(&mut self.pending);
        self.write_if_many()
    }

    fn write_if_many(&mut self) -> Result<(), PackError> {
        if self.pending.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), PackError> {
        self.output.write_all(&self.pending).map_err(PackError::Write)?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}
