//! Step libraries of a plan: manifests out of their archives while it is made, and their archives in the depot for those who run it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::BufReader,
};

use blob::library::{ARCHIVE_BYTES_MAX, LibraryError, cut, file_in};
use bytes::Bytes;
use model::{
    Digest,
    lock::Lock,
    plan::Plan,
    planning::{ARCHIVE_DIGEST, ARCHIVE_ENDING, Text, is_address, through_archive},
};

use super::{Supply, SupplyError, find};

/// What is looked for in the archive of a library from an address.
const MANIFEST: &str = "manifest.yml";
/// How the name of a library begins that is a path of the repository.
const LOCAL: &str = "./";
/// The most libraries of one plan: each is named in the run's first record, and each costs its archive.
const LIBRARIES_MAX: usize = 256;

impl Supply<'_> {
    /// What stands at a path through a `.tar.gz` of the source.
    pub(super) async fn packed(&mut self, path: &str) -> Result<Option<Text>, SupplyError> {
        let (archive, inner) = through_archive(path).expect("it was told from others by this");
        let Some(bytes) = self.archive_of_source(archive).await? else { return Ok(None) };
        if inner == ARCHIVE_DIGEST {
            return Ok(Some(Text::Inline(Digest::of(&bytes).to_string())));
        }
        self.inside(archive, bytes, inner).await
    }

    /// The manifest of the library at an address, which the lock file has.
    pub(super) async fn manifest_of(&mut self, address: &str) -> Result<Option<Text>, SupplyError> {
        let Some(digest) = self.locked(address).await? else { return Ok(None) };
        let bytes = match self.blobs.get(&digest).await {
            Ok(bytes) => bytes,
            Err(blob::BlobError::Missing(_)) => return Err(self.not_there(address)),
            Err(error) => return Err(error.into()),
        };
        self.inside(address, bytes, MANIFEST).await
    }

    /// The archives of the plan's libraries, which lie in the depot when this returns. What the program itself brings along has none.
    pub(in crate::engine) async fn libraries(&mut self, plan: &Plan) -> Result<BTreeMap<String, Digest>, SupplyError> {
        let mut archives = BTreeMap::new();
        let outside = plan.libraries.iter().filter(|(name, _)| is_address(name) || name.starts_with(LOCAL));
        for (count, (name, digest)) in outside.enumerate() {
            if count >= LIBRARIES_MAX {
                let reason = format!("a plan has at most {LIBRARIES_MAX} step libraries");
                return Err(SupplyError::NoLibrary { library: name.clone(), reason });
            }
            let archive = match name.strip_prefix(LOCAL) {
                // Its manifest was read out of the very bytes.
                None => *digest,
                Some(path) => self.local(name, path, digest).await?,
            };
            archives.insert(name.clone(), archive);
        }
        Ok(archives)
    }

    async fn local(&mut self, name: &str, path: &str, digest: &Digest) -> Result<Digest, SupplyError> {
        let gone = || SupplyError::NoLibrary { library: name.to_owned(), reason: "the run's source does not have it".to_owned() };
        if path.ends_with(ARCHIVE_ENDING) {
            let bytes = self.archive_of_source(path).await?.ok_or_else(gone)?;
            let stored = self.blobs.put(bytes).await?;
            return if stored == *digest { Ok(stored) } else { Err(gone()) };
        }
        let source = self.archive().await?.ok_or_else(gone)?;
        let folder = path.to_owned();
        let cutting = tokio::task::spawn_blocking(move || cut(&mut BufReader::new(source), &folder));
        let failed = |source| SupplyError::Library { library: name.to_owned(), source };
        let archive = cutting.await.expect("cutting does not panic").map_err(failed)?.ok_or_else(gone)?;
        Ok(self.blobs.put(archive.into()).await?)
    }

    /// An archive that is a file of the source.
    async fn archive_of_source(&mut self, path: &str) -> Result<Option<Bytes>, SupplyError> {
        let Some(source) = self.archive().await? else { return Ok(None) };
        let wanted = BTreeSet::from([path.to_owned()]);
        let reading = tokio::task::spawn_blocking(move || find(source, &wanted, ARCHIVE_BYTES_MAX));
        match reading.await.expect("reading an archive does not panic") {
            Ok(found) => Ok(found.into_values().next().map(Bytes::from)),
            Err(SupplyError::TooLarge(_)) => {
                Err(SupplyError::Library { library: path.to_owned(), source: LibraryError::FolderTooLarge(path.to_owned()) })
            }
            Err(error) => Err(error),
        }
    }

    async fn inside(&mut self, library: &str, archive: Bytes, path: &str) -> Result<Option<Text>, SupplyError> {
        let wanted = path.to_owned();
        let reading = tokio::task::spawn_blocking(move || file_in(&archive, &wanted));
        let failed = |source| SupplyError::Library { library: library.to_owned(), source };
        match reading.await.expect("reading an archive does not panic").map_err(failed)? {
            Some(bytes) => {
                self.bytes_left =
                    self.bytes_left.checked_sub(bytes.len() as u64).ok_or_else(|| SupplyError::TooLarge(format!("{library}/{path}")))?;
                Ok(Some(self.text(bytes).await?))
            }
            None => Ok(None),
        }
    }

    /// The digest that the lock file has; a lock file that does not read is told by the parser.
    async fn locked(&self, address: &str) -> Result<Option<Digest>, SupplyError> {
        let bytes = match &self.lock {
            None => return Ok(None),
            Some(Text::Inline(text)) => Bytes::copy_from_slice(text.as_bytes()),
            Some(Text::Depot(digest)) => self.blobs.get(digest).await?,
        };
        Ok(Lock::read(&bytes).ok().and_then(|lock| lock.libraries.get(address).copied()))
    }

    fn not_there(&self, address: &str) -> SupplyError {
        let unknown = "nobody has brought it into the depot: only a push that the forge accepted, and `otto run`, do";
        let reason = self.missing.get(address).map_or(unknown, String::as_str).to_owned();
        SupplyError::NoLibrary { library: address.to_owned(), reason }
    }
}
