//! Source trees as archives: what stages find in their work directory.
//!
//! Equal trees are equal archives, whether they come from a commit or from a folder: a tar archive of files and symbolic links, sorted by
//! path, without times, owners, and folders of their own; of a file's mode only "executable" is kept, as in git.

mod working_tree;

use std::{
    io::{self, Cursor, Read, Write},
    path::{Path, PathBuf},
};

use blob::{BlobError, Blobs};
use model::Digest;
use tempfile::NamedTempFile;

pub use working_tree::{pack_working_tree, walk_working_tree};

/// The most bytes of all files of a source tree. Every agent that runs a stage unpacks it; what is larger belongs into artifacts.
pub const SOURCE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// The most files of a source tree: over twice as many as the Linux kernel has.
pub const SOURCE_FILES_MAX: usize = 250_000;
/// An archive up to this size is kept in memory, as most are; a larger one lies in a file until it is stored.
const MEMORY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What the names of files of archives begin with.
pub(crate) const TEMPORARY: &str = "otto-source-";

/// Why a source tree is not packed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The files are too large together.
    #[error("the source tree has over {SOURCE_BYTES_MAX} bytes; `{}` is the file that exceeds it", path.display())]
    TooLarge {
        /// The first file that was too much.
        path: PathBuf,
    },
    /// There are too many files.
    #[error("the source tree has over {SOURCE_FILES_MAX} files")]
    TooManyFiles,
    /// A path that must not be unpacked.
    #[error("the source tree has the path `{path}`, which {why}")]
    Path {
        /// The path, as far as it is text.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The file was changed while it was read.
    #[error("`{}` was changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The folder cannot be listed.
    #[error("cannot list the source tree")]
    List(#[source] ignore::Error),
    /// A file cannot be read, or the archive not be written.
    #[error("cannot pack `{}`", path.display())]
    Pack {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// An archive that is not stored yet.
#[derive(Debug)]
pub struct Packed(Place);

#[derive(Debug)]
enum Place {
    Memory(Vec<u8>),
    File(NamedTempFile),
}

impl Packed {
    /// Stores the archive.
    pub async fn store(self, blobs: &Blobs) -> Result<Digest, BlobError> {
        match self.0 {
            Place::Memory(bytes) => blobs.put(bytes.into()).await,
            Place::File(file) => blobs.put_file(file.path()).await,
        }
    }

    /// The archive's bytes from the first.
    pub fn read(&mut self) -> io::Result<Box<dyn Read + '_>> {
        match &self.0 {
            Place::Memory(bytes) => Ok(Box::new(Cursor::new(bytes))),
            Place::File(file) => Ok(Box::new(file.reopen()?)),
        }
    }
}

/// Takes bytes into memory, and moves them to a file when they get many.
#[derive(Debug)]
struct Spool {
    place: Place,
    folder: PathBuf,
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Place::Memory(memory) = &mut self.place {
            if memory.len() + bytes.len() <= MEMORY_BYTES_MAX {
                memory.extend_from_slice(bytes);
                return Ok(bytes.len());
            }
            let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&self.folder)?;
            file.write_all(memory)?;
            self.place = Place::File(file);
        }
        match &mut self.place {
            Place::Memory(_) => unreachable!("it was moved to a file"),
            Place::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.place {
            Place::Memory(_) => Ok(()),
            Place::File(file) => file.flush(),
        }
    }
}

/// Writes an archive. Paths come in order.
pub(crate) struct Archive {
    builder: tar::Builder<Spool>,
    bytes: u64,
    entries: usize,
}

impl Archive {
    /// An empty archive that lies in `folder` while it is large.
    pub(crate) fn new(folder: &Path) -> Self {
        let spool = Spool { place: Place::Memory(Vec::new()), folder: folder.to_owned() };
        Self { builder: tar::Builder::new(spool), bytes: 0, entries: 0 }
    }

    /// Adds a file of `length` bytes.
    pub(crate) fn file(&mut self, path: &Path, executable: bool, length: u64, bytes: impl Read) -> Result<(), SourceError> {
        self.count(path, length)?;
        let mut header = header(tar::EntryType::Regular, if executable { 0o755 } else { 0o644 });
        header.set_size(length);
        let mut bytes = bytes.take(length);
        self.builder.append_data(&mut header, path, &mut bytes).map_err(|source| failed(path, source))?;
        if bytes.limit() > 0 {
            return Err(SourceError::Changed { path: path.to_owned() });
        }
        Ok(())
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &Path, target: &Path) -> Result<(), SourceError> {
        self.count(path, 0)?;
        let mut header = header(tar::EntryType::Symlink, 0o777);
        self.builder.append_link(&mut header, path, target).map_err(|source| failed(path, source))
    }

    /// Adds an empty folder.
    pub(crate) fn folder(&mut self, path: &Path) -> Result<(), SourceError> {
        self.count(path, 0)?;
        let mut header = header(tar::EntryType::Directory, 0o755);
        self.builder.append_data(&mut header, path, io::empty()).map_err(|source| failed(path, source))
    }

    pub(crate) fn finish(self) -> Result<Packed, SourceError> {
        let spool = self.builder.into_inner().map_err(|source| failed(Path::new("."), source))?;
        Ok(Packed(spool.place))
    }

    fn count(&mut self, path: &Path, length: u64) -> Result<(), SourceError> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(length);
        if self.entries > SOURCE_FILES_MAX {
            return Err(SourceError::TooManyFiles);
        }
        if self.bytes > SOURCE_BYTES_MAX {
            return Err(SourceError::TooLarge { path: path.to_owned() });
        }
        Ok(())
    }
}

/// A header without anything that differs between two machines.
fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

pub(crate) fn failed(path: &Path, source: io::Error) -> SourceError {
    SourceError::Pack { path: path.to_owned(), source }
}
