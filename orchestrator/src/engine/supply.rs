//! The files that the parser asks for, out of the archive of the run's source.
//!
//! Only regular files are given, by their exact path: nothing is unpacked, and no link is followed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt as _,
};

use blob::{BlobError, Blobs};
use bytes::Bytes;
use model::{
    planning::{INLINE_BYTES_MAX, Text},
    trigger::Trigger,
};

/// The most bytes of one file: the parser reads no larger one.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The most bytes of all files of one question.
const FILES_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The most entries of an archive, as many as an agent unpacks.
const ENTRIES_MAX: usize = 1_000_000;

/// What was found: of a path that is not there, that it is not.
pub(super) type Supplied = BTreeMap<String, Option<Text>>;

/// Why files are not supplied.
#[derive(Debug, thiserror::Error)]
pub enum SupplyError {
    /// The depot does not give or take them.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// There is no room on the disk for the archive, or it reads as none.
    #[error("cannot read the run's source")]
    Archive(#[source] io::Error),
    /// Together they are over the limit.
    #[error("the files that the pipeline names have over {FILES_BYTES_MAX} bytes, up to `{0}`")]
    TooLarge(String),
}

/// Looks up `paths` in the trigger's source.
pub(super) async fn supply(paths: &[String], trigger: &Trigger, blobs: &Blobs) -> Result<Supplied, SupplyError> {
    let wanted: BTreeSet<String> = paths.iter().cloned().collect();
    let mut supplied: Supplied = BTreeMap::new();
    let mut found = match &trigger.source {
        Some(source) if !wanted.is_empty() => {
            let folder = tempfile::tempdir().map_err(SupplyError::Archive)?;
            let path = folder.path().join("source.tar");
            blobs.get_file(source, &path).await?;
            let wanted = wanted.clone();
            let reading = tokio::task::spawn_blocking(move || {
                let _folder = folder;
                find(File::open(&path).map_err(SupplyError::Archive)?, &wanted)
            });
            reading.await.expect("reading an archive does not panic")?
        }
        Some(_) | None => BTreeMap::new(),
    };
    for path in wanted {
        let text = match found.remove(&path) {
            Some(bytes) => Some(text_of(bytes, blobs).await?),
            None => None,
        };
        supplied.insert(path, text);
    }
    Ok(supplied)
}

async fn text_of(bytes: Vec<u8>, blobs: &Blobs) -> Result<Text, BlobError> {
    match String::from_utf8(bytes) {
        Ok(text) if text.len() <= INLINE_BYTES_MAX => Ok(Text::Inline(text)),
        Ok(text) => blobs.put(text.into()).await.map(Text::Depot),
        Err(other) => blobs.put(Bytes::from(other.into_bytes())).await.map(Text::Depot),
    }
}

fn find(archive: impl Read, wanted: &BTreeSet<String>) -> Result<BTreeMap<String, Vec<u8>>, SupplyError> {
    let mut found = BTreeMap::new();
    let mut total = 0;
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().map_err(SupplyError::Archive)?.take(ENTRIES_MAX) {
        let mut entry = entry.map_err(SupplyError::Archive)?;
        let path = entry.path().map_err(SupplyError::Archive)?;
        let Some(path) = str::from_utf8(path.as_os_str().as_bytes()).ok().filter(|path| wanted.contains(*path)) else { continue };
        let path = path.to_owned();
        if !entry.header().entry_type().is_file() || entry.size() > FILE_BYTES_MAX {
            continue;
        }
        total += entry.size();
        if total > FILES_BYTES_MAX {
            return Err(SupplyError::TooLarge(path));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(SupplyError::Archive)?;
        found.insert(path, bytes);
        if found.len() == wanted.len() {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |path: &str, kind: tar::EntryType, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            if kind == tar::EntryType::Symlink {
                builder.append_link(&mut header, path, "/etc/passwd").unwrap();
            } else {
                builder.append_data(&mut header, path, bytes).unwrap();
            }
        };
        add("a/list.json", tar::EntryType::Regular, b"[]");
        add("link", tar::EntryType::Symlink, b"");
        add("not-asked-for", tar::EntryType::Regular, b"x");
        builder.into_inner().unwrap()
    }

    #[test]
    fn only_regular_files_that_are_asked_for_are_found() {
        let wanted = ["a/list.json", "link", "none", "../a"].map(ToOwned::to_owned).into();
        let found = find(archive().as_slice(), &wanted).unwrap();
        assert_eq!(found, BTreeMap::from([("a/list.json".to_owned(), b"[]".to_vec())]));
    }
}
