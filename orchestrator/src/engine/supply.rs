//! The files that the parser asks for, out of the archive of the run's source, and out of those of step libraries.
//!
//! Only regular files are given, by their exact path: nothing is unpacked, and no link is followed. Nothing is fetched: what lies elsewhere
//! is in the depot under the digest that the lock file has, or it is not run.

mod library;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read as _, Seek as _},
    path::{Component, Path},
};

use blob::{BlobError, Blobs, library::LibraryError};
use bytes::Bytes;
use model::{
    Digest,
    planning::{INLINE_BYTES_MAX, LOCK_FILE, Text, is_address, through_archive},
    trigger::Trigger,
};
use tar::EntryType;

/// The most bytes of all files of one plan: the parser reads no more.
const FILES_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The most bytes of all files that travel in one question. The pipeline and the lock file may be there, too, with
/// [`INLINE_BYTES_MAX`] each; JSON makes at most six bytes of one, and a message takes 1 MiB.
const INLINE_ALL_BYTES_MAX: usize = INLINE_BYTES_MAX / 4;
/// The most entries of an archive, as many as an agent unpacks.
const ENTRIES_MAX: usize = 1_000_000;
/// The most bytes of a name, or of the attributes of one entry: they are read into memory.
const ATTRIBUTES_BYTES_MAX: u64 = 64 * 1024;

/// What was found: of a path that is not there, that it is not.
pub(super) type Supplied = BTreeMap<String, Option<Text>>;

/// Why files are not supplied.
#[derive(Debug, thiserror::Error)]
pub enum SupplyError {
    /// The depot does not give or take them.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// There is no room on the disk for the archive, or the disk fails.
    #[error("cannot read the run's source")]
    Disk(#[source] io::Error),
    /// The source is no archive. It reads no better the next time.
    #[error("the run's source does not read as an archive: {0}")]
    Damaged(String),
    /// Together they are over the limit.
    #[error("the files that the pipeline names have over {FILES_BYTES_MAX} bytes, up to `{0}`")]
    TooLarge(String),
    /// A step library does not read.
    #[error("the step library {library} cannot be read: {}", service::supervisor::chain(source))]
    Library {
        /// Its address, or the path of its archive.
        library: String,
        /// What is wrong with it.
        source: LibraryError,
    },
    /// A step library is not there.
    #[error("the step library {library} is not there: {reason}")]
    NoLibrary {
        /// Its address or its folder.
        library: String,
        /// Why.
        reason: String,
    },
}

impl SupplyError {
    /// Whether another try would end the same.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Damaged(_) | Self::TooLarge(_) | Self::Library { .. } | Self::NoLibrary { .. } => true,
            Self::Blob(_) | Self::Disk(_) => false,
        }
    }
}

impl From<io::Error> for SupplyError {
    fn from(error: io::Error) -> Self {
        // What the system says is about this machine; the rest is about the bytes.
        if error.raw_os_error().is_some() { Self::Disk(error) } else { Self::Damaged(error.to_string()) }
    }
}

/// The files of one plan, over all questions about them.
pub(super) struct Supply<'a> {
    source: Option<Digest>,
    blobs: &'a Blobs,
    /// The archive on this disk, from the first question on.
    archive: Option<File>,
    bytes_left: u64,
    inline_left: usize,
    /// The lock file, once it is known.
    lock: Option<Text>,
    /// Libraries that are not in the depot, and why.
    missing: &'a BTreeMap<String, String>,
}

impl<'a> Supply<'a> {
    /// Files out of the archive of the trigger's source; without one, no file is there.
    pub(super) fn new(trigger: &'a Trigger, blobs: &'a Blobs) -> Self {
        Self {
            source: trigger.source,
            blobs,
            archive: None,
            bytes_left: FILES_BYTES_MAX,
            inline_left: INLINE_ALL_BYTES_MAX,
            lock: trigger.lock.clone(),
            missing: &trigger.missing_libraries,
        }
    }

    /// Looks up `paths`.
    pub(super) async fn find(&mut self, paths: &[String]) -> Result<Supplied, SupplyError> {
        let (addresses, paths): (Vec<_>, Vec<_>) = paths.iter().partition(|path| is_address(path));
        let (packed, wanted): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| through_archive(path).is_some());
        let mut supplied = self.plain(wanted.into_iter().cloned().collect()).await?;
        if let Some(Some(lock)) = supplied.get(LOCK_FILE) {
            self.lock = Some(lock.clone());
        }
        for path in packed {
            supplied.insert(path.clone(), self.packed(path).await?);
        }
        for address in addresses {
            supplied.insert(address.clone(), self.manifest_of(address).await?);
        }
        Ok(supplied)
    }

    /// The source's archive on this disk, at its first byte, for one reader at a time; `None` where there is no source.
    async fn archive(&mut self) -> Result<Option<File>, SupplyError> {
        let Some(source) = self.source else { return Ok(None) };
        let file = match self.archive.take() {
            Some(file) => file,
            None => fetched(&source, self.blobs).await?,
        };
        let file = self.archive.insert(file);
        file.rewind().map_err(SupplyError::Disk)?;
        Ok(Some(file.try_clone().map_err(SupplyError::Disk)?))
    }

    /// Files of the source itself.
    async fn plain(&mut self, wanted: BTreeSet<String>) -> Result<Supplied, SupplyError> {
        let mut supplied: Supplied = wanted.iter().map(|path| (path.clone(), None)).collect();
        if wanted.is_empty() {
            return Ok(supplied);
        }
        let Some(archive) = self.archive().await? else { return Ok(supplied) };
        let left = self.bytes_left;
        let reading = tokio::task::spawn_blocking(move || find(archive, &wanted, left));
        for (path, bytes) in reading.await.expect("reading an archive does not panic")? {
            self.bytes_left = self.bytes_left.saturating_sub(bytes.len() as u64);
            supplied.insert(path, Some(self.text(bytes).await?));
        }
        Ok(supplied)
    }

    async fn text(&mut self, bytes: Vec<u8>) -> Result<Text, BlobError> {
        let bytes = match String::from_utf8(bytes) {
            Ok(text) if text.len() <= self.inline_left => {
                self.inline_left -= text.len();
                return Ok(Text::Inline(text));
            }
            Ok(text) => text.into_bytes(),
            Err(other) => other.into_bytes(),
        };
        self.blobs.put(Bytes::from(bytes)).await.map(Text::Depot)
    }
}

/// The archive, read where it lies if the depot is a store on this machine. Who unpacks it holds it against its digest in any case.
async fn fetched(source: &Digest, blobs: &Blobs) -> Result<File, SupplyError> {
    if let Blobs::Disk(store) = blobs {
        return Ok(store.open_blob(source).await?.file);
    }
    let folder = tempfile::tempdir().map_err(SupplyError::Disk)?;
    let path = folder.path().join("source.tar");
    blobs.get_file(source, &path).await?;
    File::open(path).map_err(SupplyError::Disk)
}

fn find(mut archive: impl io::Read + io::Seek, wanted: &BTreeSet<String>, left: u64) -> Result<BTreeMap<String, Vec<u8>>, SupplyError> {
    check_attributes(&mut archive)?;
    archive.rewind()?;
    let mut found = BTreeMap::new();
    let mut left = left;
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries_with_seek()?.take(ENTRIES_MAX) {
        let mut entry = entry?;
        let Some(path) = plain(&entry.path()?).filter(|path| wanted.contains(path)) else { continue };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let Some(rest) = left.checked_sub(entry.size()) else { return Err(SupplyError::TooLarge(path)) };
        left = rest;
        let (length, mut bytes) = (entry.size(), Vec::new());
        if entry.read_to_end(&mut bytes)? as u64 != length {
            return Err(SupplyError::Damaged(format!("it ends within `{path}`")));
        }
        found.insert(path, bytes);
        if found.len() == wanted.len() {
            break;
        }
    }
    Ok(found)
}

/// Refuses names and attributes that are larger than any is: whoever reads the entries holds them in memory.
fn check_attributes(archive: &mut (impl io::Read + io::Seek)) -> Result<(), SupplyError> {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries_with_seek()?.raw(true).take(ENTRIES_MAX) {
        let entry = entry?;
        let is_attribute = matches!(
            entry.header().entry_type(),
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
        );
        if is_attribute && entry.size() > ATTRIBUTES_BYTES_MAX {
            return Err(SupplyError::Damaged(format!("an entry has a name or attributes of {} bytes", entry.size())));
        }
    }
    Ok(())
}

/// The path without `.`; `None` for one that leads out, and for one that is no text.
fn plain(path: &Path) -> Option<String> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str()?),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(names.join("/"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use blob::{DiskStore, Durability};

    use super::*;

    type Entries<'a> = &'a [(&'a str, EntryType, &'a [u8])];

    fn archive(entries: Entries<'_>) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            if [EntryType::Symlink, EntryType::Link].contains(kind) {
                builder.append_link(&mut header, path, "/etc/passwd").unwrap();
            } else {
                // As it is, also where it leads out of the archive.
                header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
                header.set_cksum();
                builder.append(&header, *bytes).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    fn found(entries: Entries<'_>, wanted: &[&str]) -> Result<BTreeMap<String, Vec<u8>>, SupplyError> {
        find(Cursor::new(archive(entries)), &wanted.iter().map(ToString::to_string).collect(), FILES_BYTES_MAX)
    }

    const FILE: EntryType = EntryType::Regular;

    #[test]
    fn only_regular_files_that_are_asked_for_are_found() {
        let entries: Entries<'_> = &[
            ("a/list.json", FILE, b"[]"),
            ("link", EntryType::Symlink, b""),
            ("hard", EntryType::Link, b""),
            ("../up", FILE, b"x"),
            ("/root", FILE, b"x"),
            ("not-asked-for", FILE, b"x"),
        ];
        let found = found(entries, &["a/list.json", "link", "hard", "none", "../up", "up", "/root", "root"]).unwrap();
        assert_eq!(found, BTreeMap::from([("a/list.json".to_owned(), b"[]".to_vec())]));
    }

    #[test]
    fn a_path_that_begins_here_is_found_as_an_agent_unpacks_it() {
        let found = found(&[("./otto.lock", FILE, b"{}"), ("./a/./b", FILE, b"1")], &["otto.lock", "a/b"]).unwrap();
        assert_eq!(found.into_keys().collect::<Vec<_>>(), ["a/b", "otto.lock"]);
    }

    #[test]
    fn what_is_no_archive_or_ends_early_is_final() {
        let wanted = BTreeSet::from(["a".to_owned()]);
        let whole = archive(&[("a", FILE, &[b'x'; 2000])]);
        for bytes in [vec![b'x'; 5000], b"short".to_vec(), whole[..1024].to_vec(), whole[..700].to_vec()] {
            let error = find(Cursor::new(bytes), &wanted, FILES_BYTES_MAX).unwrap_err();
            assert!(error.is_final(), "{error:?}");
        }
        assert!(find(Cursor::new(Vec::new()), &wanted, FILES_BYTES_MAX).unwrap().is_empty());
    }

    #[test]
    fn names_of_unusual_length_are_not_read() {
        let name = vec![b'x'; 1024 * 1024];
        let error = found(&[("././@LongLink", EntryType::GNULongName, &name), ("a", FILE, b"1")], &["a"]).unwrap_err();
        assert!(error.is_final() && error.to_string().contains("1048576"), "{error}");
    }

    #[tokio::test]
    async fn all_questions_together_have_one_limit_and_small_messages() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::Disk(DiskStore::open(folder.path(), Durability::None).unwrap());
        let (small, large) = (vec![b'a'; 10_000], vec![b'a'; 10 * 1024 * 1024]);
        let entries = archive(&[("s", FILE, &small), ("t", FILE, &small), ("l", FILE, &large), ("m", FILE, &large)]);
        let source = blobs.put(entries.into()).await.unwrap();
        let trigger = crate::core::tests::trigger();
        let mut supply = Supply::new(&trigger, &blobs);
        supply.source = Some(source);
        let mut ask = async |path: &str| supply.find(&[path.to_owned()]).await;
        assert!(matches!(ask("s").await.unwrap()["s"], Some(Text::Inline(_))));
        assert!(matches!(ask("t").await.unwrap()["t"], Some(Text::Depot(_))));
        assert!(matches!(ask("l").await.unwrap()["l"], Some(Text::Depot(_))));
        assert_eq!(ask("none").await.unwrap()["none"], None);
        let Err(SupplyError::TooLarge(path)) = ask("m").await else { panic!("over the limit") };
        assert_eq!(path, "m");
    }
}
