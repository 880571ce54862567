//! Unpacks an archive that anybody may have made.
//!
//! ```text
//! reader (this thread): heads, names, folders ── batches of files ─▶ writers
//! ```
//!
//! Everything is made in a folder that was not there before, or is empty, by names of one part each, relative to folders that were opened without
//! following links: an archive finds in it only what it has brought itself. What is complete, and is what its digest names, is moved to
//! where it belongs; anything else is removed.

mod folders;
mod place;
mod writers;

use std::{
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
};

use flate2::read::MultiGzDecoder;
use model::{Digest, digest::DigestBuilder};
use rustix::{fs::symlinkat, io::Errno};

use self::{
    folders::Folders,
    place::Staging,
    writers::{Small, Writers},
};
use crate::{
    error::UnpackError,
    format::read::{Head, Kind, ReadError, Reader},
    limits::Limits,
    name::{EntryName, inside, link_stays, split},
};

/// Files up to this size are given to the writers; larger ones are written as they are read.
const SMALL_BYTES_MAX: u64 = 256 * 1024;

/// Bytes of an archive, and what they must be.
#[derive(Debug)]
pub struct Archive<R> {
    input: R,
    compressed: bool,
    digest: Option<Digest>,
}

impl<R: Read + Send> Archive<R> {
    /// A tar archive.
    pub fn tar(input: R) -> Self {
        Self { input, compressed: false, digest: None }
    }

    /// A tar archive compressed with gzip.
    pub fn tar_gz(input: R) -> Self {
        Self { input, compressed: true, digest: None }
    }

    /// The bytes (as they come, compressed or not) must have this digest: nothing is unpacked of what is something else.
    #[must_use]
    pub fn expect(self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self }
    }
}

/// Where symbolic links may point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// To what is in the root.
    Inside,
    /// Anywhere, as git allows it in sources: they are texts, and nothing is written through them.
    AsTheyAre,
}

/// What is accepted of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Of its symbolic links.
    pub links: Links,
    /// Of its size.
    pub limits: Limits,
    /// The latest modification time that a file gets, in seconds since 1970; `None` for any.
    pub latest: Option<u64>,
    /// That of files of which the archive says none; `None` for the time at which they are written.
    pub undated: Option<u64>,
}

impl Rules {
    /// Those of caches and artifacts.
    pub const TREE: Self = Self { links: Links::Inside, limits: Limits::TREE, latest: None, undated: None };
    /// Those of sources.
    pub const SOURCE: Self = Self { links: Links::AsTheyAre, limits: Limits::SOURCE, latest: None, undated: None };
    /// Those of step libraries.
    pub const LIBRARY: Self = Self { links: Links::Inside, limits: Limits::LIBRARY, latest: None, undated: None };
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Unpacks into the folder `root`, which is made. On an error it is not there.
pub fn unpack_new(
    archive: Archive<impl Read + Send>,
    root: &Path,
    rules: &Rules,
    stop: &dyn Fn() -> bool,
) -> Result<Unpacked, UnpackError> {
    let staging = Staging::new(root)?;
    let (unpacked, folders) = staging.fill(archive, rules, stop)?;
    folders.close()?;
    staging.keep()?;
    Ok(unpacked)
}

/// Unpacks into the folder `below`, a path from the existing folder `root`; what is missing of it is made, and no link in it is followed.
/// Files that stand there already are replaced, folders are filled. On an error nothing has changed, but where the disk itself fails while
/// things are moved into place.
///
/// Where the folder is, on the same file system, a folder with a name of its own is filled meanwhile.
pub fn unpack_into(
    archive: Archive<impl Read + Send>,
    (root, below): (&Path, &Path),
    rules: &Rules,
    stop: &dyn Fn() -> bool,
) -> Result<Unpacked, UnpackError> {
    let staging = Staging::within(root)?;
    let (unpacked, folders) = staging.fill(archive, rules, stop)?;
    staging.move_to(&place::open(root, below)?, folders)?;
    Ok(unpacked)
}

/// Unpacks into the folder `root`, which is there, is empty, and is nobody else's yet: nothing has to be moved. On an error it is empty again.
pub fn unpack_first(
    archive: Archive<impl Read + Send>,
    root: &Path,
    rules: &Rules,
    stop: &dyn Fn() -> bool,
) -> Result<Unpacked, UnpackError> {
    // Where the system does not tell it, it is seen from a folder that is made.
    let Some(umask) = place::umask() else { return unpack_into(archive, (root, Path::new("")), rules, stop) };
    let filled = place::root(root).and_then(|folder| {
        let (unpacked, folders) = fill(archive, (folder, umask), rules, stop)?;
        folders.close()?;
        Ok(unpacked)
    });
    if filled.is_err() {
        place::clear(root);
    }
    filled
}

/// Unpacks into a folder that nobody else has, up to the modes of folders.
fn fill(
    archive: Archive<impl Read + Send>,
    (folder, umask): (OwnedFd, u32),
    rules: &Rules,
    stop: &dyn Fn() -> bool,
) -> Result<(Unpacked, Folders), UnpackError> {
    let Archive { mut input, compressed, digest } = archive;
    let mut hashed = Hashed { input: &mut input, digest: digest.map(|_| Digest::builder()) };
    let folders = Folders::new(folder, umask, rules.limits.entries);
    let filled = if compressed {
        entries(MultiGzDecoder::new(&mut hashed), folders, umask, rules, stop)
    } else {
        entries(&mut hashed, folders, umask, rules, stop)
    };
    if matches!(filled, Err(UnpackError::Stopped | UnpackError::Unreadable(_) | UnpackError::Disk { .. })) {
        return filled;
    }
    match (digest, hashed.finish()?) {
        // What else is wrong with an archive that is not the right one interests nobody.
        (Some(expected), Some(actual)) if expected != actual => Err(UnpackError::Damaged { expected, actual }),
        _ => filled,
    }
}

fn entries(
    input: impl Read,
    mut folders: Folders,
    umask: u32,
    rules: &Rules,
    stop: &dyn Fn() -> bool,
) -> Result<(Unpacked, Folders), UnpackError> {
    std::thread::scope(|scope| {
        let mut filling =
            Filling { reader: Reader::new(input), folders: &mut folders, writers: Writers::new(scope, umask), rules, bytes: 0 };
        let result = filling.all(stop);
        let bytes = filling.bytes;
        let written = filling.writers.finish();
        result.and(written)?;
        Ok(bytes)
    })
    .map(|bytes| (Unpacked { entries: folders.entries(), bytes }, folders))
}

struct Filling<'a, 'scope, 'env, R> {
    reader: Reader<R>,
    folders: &'a mut Folders,
    writers: Writers<'scope, 'env>,
    rules: &'a Rules,
    bytes: u64,
}

impl<R: Read> Filling<'_, '_, '_, R> {
    fn all(&mut self, stop: &dyn Fn() -> bool) -> Result<(), UnpackError> {
        loop {
            if stop() {
                return Err(UnpackError::Stopped);
            }
            let read = self.folders.entries();
            let Some(head) = self.reader.next().map_err(|error| unread(error, read))? else { return Ok(()) };
            self.entry(&head)?;
        }
    }

    fn entry(&mut self, head: &Head) -> Result<(), UnpackError> {
        let refused = |what| UnpackError::Refused { entry: EntryName::new(&head.path), what };
        let path = inside(&head.path).map_err(refused)?;
        if head.kind == Kind::Folder {
            return self.folders.make(&path, head.mode);
        }
        if path.is_empty() {
            return Err(refused("is no name of a file"));
        }
        self.folders.count()?;
        let (parent, name) = split(&path);
        let folder = self.folders.get(parent)?;
        if head.kind == Kind::Link {
            if head.link.is_empty() || head.link.contains(&0) {
                return Err(refused("is a symbolic link to nowhere"));
            }
            if self.rules.links == Links::Inside && !link_stays(&path, &head.link) {
                return Err(refused("is a symbolic link that may lead out of the directory"));
            }
            return symlinkat(head.link.as_slice(), &*folder, name).map_err(|error| made(&path, error));
        }
        self.bytes = self.bytes.saturating_add(head.size);
        if self.bytes > self.rules.limits.bytes {
            return Err(UnpackError::TooLarge { entry: EntryName::new(&path), limit: self.rules.limits.bytes });
        }
        let said = if head.mtime == 0 { self.rules.undated.unwrap_or(0) } else { head.mtime };
        let mtime = said.min(self.rules.latest.unwrap_or(u64::MAX));
        let small = Small { parent: parent.len(), path, mode: head.mode, mtime, length: 0 };
        self.file(folder, small, head.size)
    }

    fn file(&mut self, folder: std::sync::Arc<OwnedFd>, small: Small, size: u64) -> Result<(), UnpackError> {
        let read = self.folders.entries();
        if size <= SMALL_BYTES_MAX {
            let mut batch = self.writers.begin(folder, small)?;
            loop {
                let content = self.reader.content().map_err(|error| unread(error, read))?;
                if content.is_empty() {
                    return self.writers.end();
                }
                batch.extend_from_slice(content);
                batch = self.writers.content();
            }
        }
        let mut file = writers::create(&folder, &small)?;
        loop {
            let content = self.reader.content().map_err(|error| unread(error, read))?;
            if content.is_empty() {
                return writers::complete(&file, &small, self.writers.umask());
            }
            io::Write::write_all(&mut file, content).map_err(|source| UnpackError::Disk { entry: EntryName::new(&small.path), source })?;
        }
    }
}

fn unread(error: ReadError, number: u64) -> UnpackError {
    match error {
        // A decoder says so of what it cannot decode.
        ReadError::Io(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            UnpackError::Malformed { what: "it is not compressed with gzip", number }
        }
        ReadError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => UnpackError::Malformed { what: "it ends early", number },
        ReadError::Io(error) => UnpackError::Unreadable(error),
        ReadError::Malformed(what) => UnpackError::Malformed { what, number },
        ReadError::Refused(entry, what) => UnpackError::Refused { entry, what },
    }
}

fn disk(path: &[u8], error: Errno) -> UnpackError {
    UnpackError::Disk { entry: EntryName::new(path), source: error.into() }
}

/// Why an entry could not be made where nothing but the archive's own entries can be.
fn made(path: &[u8], error: Errno) -> UnpackError {
    let refused = |what| UnpackError::Refused { entry: EntryName::new(path), what };
    match error {
        Errno::EXIST => refused("stands in it twice"),
        Errno::NOTDIR | Errno::LOOP => refused("leads through something that is no folder"),
        error => disk(path, error),
    }
}

/// Hashes what is read through it, if somebody wants to know.
struct Hashed<'a, R> {
    input: &'a mut R,
    digest: Option<DigestBuilder>,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        if let Some(digest) = &mut self.digest {
            digest.update(&buffer[..length]);
        }
        Ok(length)
    }
}

impl<R: Read> Hashed<'_, R> {
    /// The digest of all bytes, also of those that nobody read.
    fn finish(mut self) -> Result<Option<Digest>, UnpackError> {
        if self.digest.is_some() {
            io::copy(&mut self, &mut io::sink()).map_err(UnpackError::Unreadable)?;
        }
        Ok(self.digest.map(DigestBuilder::finish))
    }
}
