//! Removing blobs that nobody needs any more, while nobody has the store open.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirEntry, File},
    io::Read as _,
    path::{Path, PathBuf},
};

use model::Digest;
use service::file::LockFile;

use crate::{
    BlobError,
    disk::{BLOBS, DiskStore, INCOMING, LOCK, failed},
};

/// A store on disk that nobody else opens as long as this lives.
#[derive(Debug)]
pub struct Sweep {
    blobs: PathBuf,
    _lock: LockFile,
}

impl DiskStore {
    /// Holds the store of this folder alone; `None` while somebody has it open. Whoever opens it waits for the end of this.
    pub fn sweep(folder: &Path) -> Result<Option<Sweep>, BlobError> {
        let path = folder.join(INCOMING).join(LOCK);
        let Some(lock) = LockFile::find(&path).map_err(failed("open", &path))? else { return Ok(None) };
        let is_alone = lock.try_hold().map_err(failed("lock", &path))?;
        Ok(is_alone.then(|| Sweep { blobs: folder.join(BLOBS), _lock: lock }))
    }
}

impl Sweep {
    /// Every blob, with its bytes.
    pub fn sizes(&self) -> Result<BTreeMap<Digest, u64>, BlobError> {
        let mut sizes = BTreeMap::new();
        self.each(|digest, entry| {
            let length = entry.metadata().map_err(failed("look at", &entry.path()))?.len();
            sizes.insert(digest, length);
            Ok(())
        })?;
        Ok(sizes)
    }

    /// The bytes of a blob that is a JSON object of at most `bytes_max`; `None` for any other, and for one that is not there.
    pub fn document(&self, digest: &Digest, bytes_max: u64) -> Option<Vec<u8>> {
        let hex = digest.hex();
        let (folder, name) = hex.split_at(2);
        let mut file = File::open(self.blobs.join(folder).join(name)).ok()?;
        let mut bytes = vec![0; 1];
        file.read_exact(&mut bytes).ok()?;
        let is_document = bytes == b"{" && file.metadata().ok()?.len() <= bytes_max;
        if !is_document {
            return None;
        }
        file.read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Removes all blobs but these.
    pub fn keep(&self, wanted: &BTreeSet<Digest>) -> Result<(), BlobError> {
        self.each(
            |digest, entry| {
                if wanted.contains(&digest) { Ok(()) } else { fs::remove_file(entry.path()).map_err(failed("remove", &entry.path())) }
            },
        )
    }

    fn each(&self, each: impl FnMut(Digest, &DirEntry) -> Result<(), BlobError>) -> Result<(), BlobError> {
        self::each(&self.blobs, each)
    }
}

/// Every blob below this folder.
pub(crate) fn each(blobs: &Path, mut each: impl FnMut(Digest, &DirEntry) -> Result<(), BlobError>) -> Result<(), BlobError> {
    for folder in list(blobs)? {
        let folder = folder.map_err(failed("list", blobs))?;
        let begin = folder.file_name();
        for entry in list(&folder.path())? {
            let entry = entry.map_err(failed("list", &folder.path()))?;
            let name = entry.file_name();
            let digest = begin.to_str().zip(name.to_str()).and_then(|(begin, rest)| format!("sha256:{begin}{rest}").parse().ok());
            // What has another name is none of the store's.
            digest.map_or(Ok(()), |digest| each(digest, &entry))?;
        }
    }
    Ok(())
}

fn list(folder: &Path) -> Result<fs::ReadDir, BlobError> {
    fs::read_dir(folder).map_err(failed("list", folder))
}

#[cfg(test)]
mod tests {
    use crate::disk::Durability;

    use super::*;

    #[tokio::test]
    async fn what_is_not_wanted_goes_while_nobody_has_the_store_open() {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::open(folder.path(), Durability::None).unwrap();
        let kept = store.put("{kept}".into()).await.unwrap();
        let gone = store.put("gone".into()).await.unwrap();
        assert!(DiskStore::sweep(folder.path()).unwrap().is_none());
        drop(store);
        let sweep = DiskStore::sweep(folder.path()).unwrap().unwrap();
        assert_eq!(sweep.sizes().unwrap(), BTreeMap::from([(kept, 6), (gone, 4)]));
        assert_eq!(sweep.document(&kept, 6).unwrap(), b"{kept}");
        assert_eq!((sweep.document(&kept, 5), sweep.document(&gone, 6)), (None, None));
        sweep.keep(&BTreeSet::from([kept])).unwrap();
        drop(sweep);
        let store = DiskStore::open(folder.path(), Durability::None).unwrap();
        assert!(store.has(&kept).await.unwrap() && !store.has(&gone).await.unwrap());
    }
}
