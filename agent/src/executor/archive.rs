//! Unpacks a source tree. The archive comes from a repository that anybody may have written: nothing of it lands outside the folder.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{OpenOptionsExt as _, symlink},
    path::{Component, Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use tar::{Archive, Entry, EntryType};
use tokio_util::sync::CancellationToken;

/// Entries of one archive: some twelve times the files of the Linux kernel.
const ENTRIES_MAX: usize = 1_000_000;
/// Permission bits that are kept; set-user-id and the like are not.
const MODE_MASK: u32 = 0o777;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// It would leave the folder, or it is no plain source tree.
    #[error("the source archive is refused: `{}` {what}", path.display())]
    Refused {
        /// The entry.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// It has more entries than a source tree has.
    #[error("the source archive is refused: it has more than {ENTRIES_MAX} entries")]
    TooMany,
    /// The attempt was ended meanwhile.
    #[error("the source was not unpacked to its end")]
    Stopped,
    /// It does not read as an archive.
    #[error("the source archive cannot be read")]
    Unreadable(#[source] io::Error),
    /// The disk does not take it.
    #[error("cannot write `{}` of the source", path.display())]
    Disk {
        /// The entry.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Unpacks `archive` into the empty folder `root`. Modes, modification times and symbolic links are kept; a link may point anywhere, as in
/// any checkout, but nothing is written through one.
pub(crate) fn unpack(archive: impl Read, root: &Path, stop: &CancellationToken) -> Result<(), ArchiveError> {
    let mut unpacker = Unpacker { root, links: BTreeSet::new(), folders: BTreeSet::from([PathBuf::new()]) };
    let mut archive = Archive::new(archive);
    for (count, entry) in archive.entries().map_err(ArchiveError::Unreadable)?.enumerate() {
        if stop.is_cancelled() {
            return Err(ArchiveError::Stopped);
        }
        if count >= ENTRIES_MAX {
            return Err(ArchiveError::TooMany);
        }
        unpacker.entry(&mut entry.map_err(ArchiveError::Unreadable)?)?;
    }
    Ok(())
}

struct Unpacker<'a> {
    root: &'a Path,
    /// Symbolic links that were made, by their path in the tree.
    links: BTreeSet<PathBuf>,
    /// Folders that are there.
    folders: BTreeSet<PathBuf>,
}

impl Unpacker<'_> {
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), ArchiveError> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader | EntryType::GNULongName | EntryType::GNULongLink) {
            return Ok(()); // `git archive` notes the commit in a global header.
        }
        let said = entry.path().map_err(ArchiveError::Unreadable)?.into_owned();
        let path = self.inside(&said)?;
        let failed = |source| ArchiveError::Disk { path: path.clone(), source };
        if kind == EntryType::Directory {
            return self.folder(&path);
        }
        let Some(parent) = path.parent() else { return Err(refused(&said, "is no name of a file")) };
        self.folder(parent)?;
        if kind == EntryType::Symlink {
            let target = entry.link_name().map_err(ArchiveError::Unreadable)?.ok_or_else(|| refused(&said, "points nowhere"))?;
            symlink(target, self.root.join(&path)).map_err(failed)?;
            self.links.insert(path);
            return Ok(());
        }
        if !matches!(kind, EntryType::Regular | EntryType::Continuous) {
            return Err(refused(&said, "is neither a file, a folder, nor a symbolic link"));
        }
        self.file(entry, &path).map_err(failed)
    }

    /// The path without `.`, if it stays in the folder and leads through no link.
    fn inside(&self, said: &Path) -> Result<PathBuf, ArchiveError> {
        let mut path = PathBuf::new();
        for component in said.components() {
            if self.links.contains(&path) {
                return Err(refused(said, "leads through a symbolic link"));
            }
            match component {
                Component::Normal(name) => path.push(name),
                Component::CurDir => {}
                Component::ParentDir => return Err(refused(said, "leads upwards")),
                Component::RootDir | Component::Prefix(_) => return Err(refused(said, "is an absolute path")),
            }
        }
        if self.links.contains(&path) {
            return Err(refused(said, "stands where a symbolic link stands"));
        }
        Ok(path)
    }

    fn folder(&mut self, path: &Path) -> Result<(), ArchiveError> {
        if self.folders.contains(path) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.folder(parent)?;
        }
        fs::create_dir(self.root.join(path)).map_err(|source| ArchiveError::Disk { path: path.to_owned(), source })?;
        self.folders.insert(path.to_owned());
        Ok(())
    }

    fn file(&self, entry: &mut Entry<'_, impl Read>, path: &Path) -> io::Result<()> {
        let mode = entry.header().mode()? & MODE_MASK;
        // `create_new` follows no link and overwrites nothing.
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(self.root.join(path))?;
        if io::copy(entry, &mut file)? != entry.size() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let modified = UNIX_EPOCH + Duration::from_secs(entry.header().mtime()?);
        file.set_modified(modified)
    }
}

fn refused(path: &Path, what: &'static str) -> ArchiveError {
    ArchiveError::Refused { path: path.to_owned(), what }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tar::{Builder, Header};

    use super::*;

    /// An entry with exactly these bytes as its name: the builder itself refuses the evil ones.
    fn entry(kind: EntryType, name: &str, link: &str, mode: u32, content: &[u8]) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_mode(mode);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn unpacked(entries: &[Vec<u8>]) -> (tempfile::TempDir, Result<(), ArchiveError>) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        let result = unpack(entries.concat().as_slice(), &root, &CancellationToken::new());
        (folder, result)
    }

    #[test]
    fn a_tree_keeps_its_modes_times_and_links() {
        let (folder, result) = unpacked(&[
            entry(EntryType::XGlobalHeader, "pax_global_header", "", 0o644, b"52 comment=0123456789012345678901234567890123456789\n"),
            entry(EntryType::Directory, "bin/", "", 0o755, b""),
            entry(EntryType::Regular, "bin/run", "", 0o4755, b"#!/bin/sh\n"),
            entry(EntryType::Regular, "./deep/er/file", "", 0o644, b"x"),
            entry(EntryType::Symlink, "link", "bin/run", 0o777, b""),
            entry(EntryType::Symlink, "absolute", "/nowhere", 0o777, b""),
        ]);
        result.unwrap();
        let root = folder.path().join("root");
        let run = fs::metadata(root.join("bin/run")).unwrap();
        assert_eq!(run.permissions().mode() & 0o7700, 0o700);
        assert_eq!(run.modified().unwrap(), UNIX_EPOCH + Duration::from_secs(1_000_000_000));
        assert_eq!(fs::read(root.join("link")).unwrap(), b"#!/bin/sh\n");
        assert_eq!(fs::read(root.join("deep/er/file")).unwrap(), b"x");
        assert_eq!(fs::read_link(root.join("absolute")).unwrap(), Path::new("/nowhere"));
    }

    #[test]
    fn what_would_leave_the_folder_is_refused() {
        let evil = |name: &str| vec![entry(EntryType::Regular, name, "", 0o644, b"x")];
        let out = || entry(EntryType::Symlink, "out", "..", 0o777, b"");
        let cases = [
            evil("/tmp/evil"),
            evil("../evil"),
            evil("a/../../evil"),
            vec![out(), entry(EntryType::Regular, "out/evil", "", 0o644, b"x")],
            vec![out(), entry(EntryType::Regular, "out", "", 0o644, b"x")],
            vec![out(), entry(EntryType::Directory, "out/", "", 0o755, b"")],
            vec![out(), entry(EntryType::Symlink, "out/evil", "x", 0o777, b"")],
            vec![entry(EntryType::Link, "evil", "/etc/passwd", 0o644, b"")],
            vec![entry(EntryType::Char, "evil", "", 0o644, b"")],
            vec![entry(EntryType::Fifo, "evil", "", 0o644, b"")],
        ];
        for case in cases {
            let (folder, result) = unpacked(&case);
            assert!(matches!(result, Err(ArchiveError::Refused { .. })), "{result:?}");
            let outside: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
            assert_eq!(outside.len(), 1, "{outside:?}");
        }
    }

    #[test]
    fn a_file_that_stands_twice_is_an_error() {
        let file = || entry(EntryType::Regular, "a", "", 0o644, b"x");
        let (_folder, result) = unpacked(&[file(), file()]);
        assert!(matches!(result, Err(ArchiveError::Disk { .. })), "{result:?}");
    }

    #[test]
    fn long_names_are_read() {
        let mut builder = Builder::new(Vec::new());
        let name = format!("{}/file", "long".repeat(40));
        let mut header = Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        builder.append_data(&mut header, &name, b"x".as_slice()).unwrap();
        let (folder, result) = unpacked(&[builder.into_inner().unwrap()]);
        result.unwrap();
        assert!(folder.path().join("root").join(name).exists());
    }
}
