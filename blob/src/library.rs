//! Archives of step libraries: one file of an archive is read, and a library's folder is cut out of the archive of a source tree.
//!
//! **Invariant:** whoever made an archive cannot make its reader hold more than the limits below, or write anything. What is cut out depends
//! on the folder's contents alone: the same files give the same bytes.

use std::{
    collections::BTreeMap,
    io::{self, Read, Seek},
    path::{Component, Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Builder, EntryType, Header};

use crate::GET_BYTES_MAX;

/// The most bytes of an archive: a library has a manifest and scripts, or a program.
pub const ARCHIVE_BYTES_MAX: u64 = GET_BYTES_MAX;
/// The most bytes that an archive's files have together.
pub const UNPACKED_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// The most bytes of a file that is looked for: a manifest is far below.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The most entries of a library's archive.
pub const ENTRIES_MAX: usize = 100_000;
/// The most entries of a source tree's archive, as many as an agent unpacks.
const SOURCE_ENTRIES_MAX: usize = 1_000_000;
/// The most bytes of a name, or of the attributes of one entry: they are read into memory.
const ATTRIBUTES_BYTES_MAX: u64 = 64 * 1024;

/// Why an archive is not read.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// It is none, or it ends early.
    #[error("it does not read as an archive")]
    Unreadable(#[from] io::Error),
    /// A name or attributes are larger than any are.
    #[error("an entry has a name or attributes of {0} bytes")]
    Attributes(u64),
    /// It is larger than a library is.
    #[error("it has over {ENTRIES_MAX} entries, or over {UNPACKED_BYTES_MAX} bytes of files")]
    TooLarge,
    /// The folder of a library is larger than its archive may be.
    #[error("the step library `{0}` has over {ARCHIVE_BYTES_MAX} bytes")]
    FolderTooLarge(String),
    /// The file that is looked for is larger than it can be.
    #[error("its `{0}` has over {FILE_BYTES_MAX} bytes")]
    FileTooLarge(String),
}

/// A regular file of a `.tar.gz`; `None` if it has none at this path.
pub fn file_in(archive: &[u8], path: &str) -> Result<Option<Vec<u8>>, LibraryError> {
    let unpacked = || MultiGzDecoder::new(archive).take(UNPACKED_BYTES_MAX);
    check_names(unpacked(), ENTRIES_MAX)?;
    let mut archive = Archive::new(unpacked());
    for entry in archive.entries()?.take(ENTRIES_MAX) {
        let mut entry = entry?;
        if plain(&entry.path()?).is_none_or(|found| found != Path::new(path)) || !entry.header().entry_type().is_file() {
            continue;
        }
        if entry.size() > FILE_BYTES_MAX {
            return Err(LibraryError::FileTooLarge(path.to_owned()));
        }
        let (length, mut bytes) = (entry.size(), Vec::new());
        if entry.read_to_end(&mut bytes)? as u64 != length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        return Ok(Some(bytes));
    }
    Ok(None)
}

/// What a folder of a source tree has, as an archive with the folder's files at its root; `None` if it has none.
pub fn cut(source: &mut (impl Read + Seek), folder: &str) -> Result<Option<Vec<u8>>, LibraryError> {
    source.rewind()?;
    check_names(&mut *source, SOURCE_ENTRIES_MAX)?;
    source.rewind()?;
    let mut files: BTreeMap<PathBuf, (Header, Vec<u8>)> = BTreeMap::new();
    let (mut left, mut archive) = (ARCHIVE_BYTES_MAX, Archive::new(source));
    for entry in archive.entries_with_seek()?.take(SOURCE_ENTRIES_MAX) {
        let mut entry = entry?;
        let Some(path) = plain(&entry.path()?).and_then(|path| path.strip_prefix(folder).ok().map(Path::to_owned)) else { continue };
        let kind = entry.header().entry_type();
        if path.as_os_str().is_empty() || !matches!(kind, EntryType::Regular | EntryType::Symlink) {
            continue;
        }
        let executable = entry.header().mode()? & 0o100 != 0;
        let header = header(kind, if kind == EntryType::Symlink { 0o777 } else { 0o644 | if executable { 0o111 } else { 0 } });
        let bytes = if kind == EntryType::Symlink {
            entry.link_name_bytes().unwrap_or_default().into_owned()
        } else {
            let (length, mut bytes) = (entry.size(), Vec::new());
            left = left.checked_sub(length).ok_or_else(|| LibraryError::FolderTooLarge(folder.to_owned()))?;
            if entry.read_to_end(&mut bytes)? as u64 != length {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            bytes
        };
        files.insert(path, (header, bytes));
        if files.len() > ENTRIES_MAX {
            return Err(LibraryError::TooLarge);
        }
    }
    if files.is_empty() { Ok(None) } else { Ok(Some(packed(files)?)) }
}

/// An archive of files, without anything that differs between two machines.
fn packed(files: BTreeMap<PathBuf, (Header, Vec<u8>)>) -> io::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for (path, (mut header, bytes)) in files {
        if header.entry_type() == EntryType::Symlink {
            builder.append_link(&mut header, path, path_of(bytes))?;
        } else {
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, bytes.as_slice())?;
        }
    }
    builder.into_inner()
}

fn path_of(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    std::ffi::OsString::from_vec(bytes).into()
}

/// A header that says nothing of its machine, user or time.
pub fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Refuses names and attributes that are larger than any is: whoever reads the entries holds them in memory.
fn check_names(archive: impl Read, entries_max: usize) -> Result<(), LibraryError> {
    let mut archive = Archive::new(archive);
    for (count, entry) in archive.entries()?.raw(true).enumerate() {
        let entry = entry?;
        let attributes = [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader]
            .contains(&entry.header().entry_type());
        if attributes && entry.size() > ATTRIBUTES_BYTES_MAX {
            return Err(LibraryError::Attributes(entry.size()));
        }
        if count >= entries_max {
            return Err(LibraryError::TooLarge);
        }
    }
    Ok(())
}

/// The path without `.`; `None` for one that leads out.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(inside)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    /// A source tree in the order that is given.
    fn source(files: &[(&str, &str, u32)], links: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (path, text, mode) in files {
            let mut header = header(EntryType::Regular, *mode);
            header.set_mtime(7);
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        for (path, target) in links {
            builder.append_link(&mut header(EntryType::Symlink, 0o777), path, target).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn paths(archive: &[u8]) -> Vec<(String, u32)> {
        let mut archive = Archive::new(archive);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries.map(|entry| (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap())).collect()
    }

    #[test]
    fn a_folder_is_cut_out_the_same_whatever_is_around_it() {
        let long = format!("steps/greet/{}/x", "long".repeat(40));
        let one = source(
            &[
                ("steps/greet/manifest.yml", "m", 0o644),
                ("steps/greet/b", "b", 0o755),
                ("steps/greeter/x", "x", 0o644),
                (&long, "l", 0o600),
            ],
            &[("steps/greet/link", "b")],
        );
        let other = source(
            &[("a", "1", 0o644), (&long, "l", 0o644), ("./steps/greet/b", "b", 0o775), ("steps/greet/manifest.yml", "m", 0o664)],
            &[("steps/greet/link", "b")],
        );
        let cut = |bytes: &[u8]| cut(&mut Cursor::new(bytes), "steps/greet").unwrap().unwrap();
        assert_eq!(cut(&one), cut(&other));
        let expected: Vec<(String, u32)> = vec![
            ("b".into(), 0o755),
            ("link".into(), 0o777),
            (long.strip_prefix("steps/greet/").unwrap().into(), 0o644),
            ("manifest.yml".into(), 0o644),
        ];
        assert_eq!(paths(&cut(&one)), expected);
        assert_ne!(cut(&one), cut(&source(&[("steps/greet/b", "b", 0o755)], &[])));
    }

    #[test]
    fn a_folder_that_is_not_there_gives_no_archive() {
        assert_eq!(cut(&mut Cursor::new(source(&[("a", "1", 0o644)], &[])), "steps").unwrap(), None);
        assert!(cut(&mut Cursor::new(b"no archive at all"), "steps").is_err());
    }

    #[test]
    fn a_file_is_found_in_an_archive() {
        let archive = gz(&source(&[("./manifest.yml", "symbol: x\n", 0o644)], &[("link", "manifest.yml")]));
        assert_eq!(file_in(&archive, "manifest.yml").unwrap().unwrap(), b"symbol: x\n");
        assert_eq!((file_in(&archive, "none").unwrap(), file_in(&archive, "link").unwrap()), (None, None));
        assert!(file_in(b"no archive", "manifest.yml").is_err());
        let large = gz(&source(&[("manifest.yml", &"x".repeat(2 * 1024 * 1024), 0o644)], &[]));
        assert!(matches!(file_in(&large, "manifest.yml"), Err(LibraryError::FileTooLarge(_))));
    }

    #[test]
    fn names_of_unusual_length_are_not_read() {
        let mut builder = Builder::new(Vec::new());
        let mut header = header(EntryType::GNULongName, 0);
        let name = vec![b'x'; 1024 * 1024];
        header.set_size(name.len() as u64);
        header.set_cksum();
        builder.append(&header, name.as_slice()).unwrap();
        let archive = builder.into_inner().unwrap();
        assert!(matches!(file_in(&gz(&archive), "x"), Err(LibraryError::Attributes(_))));
        assert!(matches!(cut(&mut Cursor::new(archive), "x"), Err(LibraryError::Attributes(_))));
    }
}
