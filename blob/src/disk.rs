//! The store on disk: `<folder>/sha256/ab/cdef…`, each blob a file of its own that appears whole or not at all.
//!
//! A blob is written to `<folder>/incoming/`, made durable, and renamed to its name; a crash at any point leaves at most a file in
//! `incoming/`, which the next one to open the store alone removes.
//!
//! **Invariant:** what stands under a digest's name was compared with that digest before it got the name.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use model::{Digest, digest::DigestBuilder};
use service::file::LockFile;
use tempfile::{NamedTempFile, TempPath};
use tokio::io::AsyncWriteExt as _;

use crate::{BlobError, GET_BYTES_MAX, Removed, unused};

/// Bytes that are read from a file at once: large enough that the system calls do not count, small enough for many at a time.
const READ_BYTES: usize = 256 * 1024;
/// Bytes that are held in memory before a file is made for a blob that arrives in pieces: most blobs are the output of short stages, and each
/// piece that goes to a file costs two changes of thread.
const HELD_BYTES_MAX: usize = 64 * 1024;
/// The folder of blobs that are being written.
pub(crate) const INCOMING: &str = "incoming";
/// The file in [`INCOMING`] whose lock says that the store is open.
pub(crate) const LOCK: &str = "lock";
/// The folder of blobs.
pub(crate) const BLOBS: &str = "sha256";
/// What the names of blobs that are being written begin with.
const TEMPORARY: &str = "blob-";

/// What must survive a loss of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A blob that was stored (fsync of the file and its folder).
    Fsync,
    /// Nothing: for a store that dies with its process. A killed process loses nothing either way.
    None,
}

/// The blobs of a folder. Clones share it; several processes may, too.
#[derive(Debug, Clone)]
pub struct DiskStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    blobs: PathBuf,
    incoming: PathBuf,
    durability: Durability,
    /// Held while a blob is removed that nobody uses, and while it is noted that somebody does.
    removal: Mutex<()>,
    /// Held shared while the store is open: nobody else then removes what lies in `incoming/`.
    _lock: LockFile,
}

/// A blob that arrives in pieces. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct BlobWriter {
    store: DiskStore,
    place: Place,
    hasher: DigestBuilder,
    length: u64,
}

/// Where the pieces are.
#[derive(Debug)]
enum Place {
    Memory(Vec<u8>),
    File { file: tokio::fs::File, path: TempPath },
}

/// A stored blob that is open for reading.
#[derive(Debug)]
pub struct BlobFile {
    /// At its beginning.
    pub file: File,
    /// Its length in bytes.
    pub length: u64,
}

impl DiskStore {
    /// Opens the store in this folder, which is created if it is missing, and removes what a crash left half written.
    pub fn open(folder: &Path, durability: Durability) -> Result<Self, BlobError> {
        let incoming = folder.join(INCOMING);
        let blobs = folder.join(BLOBS);
        for path in [&incoming, &blobs] {
            fs::create_dir_all(path).map_err(failed("create", path))?;
        }
        let path = incoming.join(LOCK);
        let lock = LockFile::open(&path).map_err(failed("open", &path))?;
        // Where somebody has the store open, what lies there may be theirs.
        if lock.try_hold().map_err(failed("lock", &path))? {
            remove_leftovers(&incoming)?;
        }
        lock.share().map_err(failed("lock", &path))?;
        if durability == Durability::Fsync {
            sync_folder(folder)?;
        }
        Ok(Self { shared: Arc::new(Shared { blobs, incoming, durability, removal: Mutex::default(), _lock: lock }) })
    }

    /// Stores bytes; see [`crate::Blobs::put`].
    pub async fn put(&self, bytes: Bytes) -> Result<Digest, BlobError> {
        let store = self.clone();
        blocking(move || {
            let digest = Digest::of(&bytes);
            store.store(&bytes, &digest)?;
            Ok(digest)
        })
        .await
    }

    /// Stores a file's bytes; see [`crate::Blobs::put_file`].
    pub async fn put_file(&self, path: &Path) -> Result<Digest, BlobError> {
        let (store, path) = (self.clone(), path.to_owned());
        blocking(move || {
            let mut source = File::open(&path).map_err(failed("open", &path))?;
            let mut copy = store.temporary()?;
            let digest = copy_hashed((&mut source, &path), &mut copy)?.digest;
            let length = copy.as_file().metadata().map_err(failed("look at", copy.path()))?.len();
            if !store.is_stored(&digest, length)? {
                store.make_durable(copy.as_file(), &digest)?;
                store.rename(copy.into_temp_path(), &digest)?;
            }
            Ok(digest)
        })
        .await
    }

    /// Reads bytes; see [`crate::Blobs::get`].
    pub async fn get(&self, digest: &Digest) -> Result<Bytes, BlobError> {
        let (store, digest) = (self.clone(), *digest);
        blocking(move || {
            let BlobFile { file, length } = store.read(&digest)?;
            if length > GET_BYTES_MAX {
                return Err(BlobError::TooLarge { digest, length, limit: GET_BYTES_MAX });
            }
            let mut bytes = Vec::with_capacity(usize::try_from(length).expect("it is below GET_BYTES_MAX"));
            file.take(GET_BYTES_MAX).read_to_end(&mut bytes).map_err(failed("read", &store.path(&digest)))?;
            let actual = Digest::of(&bytes);
            if actual == digest { Ok(bytes.into()) } else { Err(BlobError::Damaged { expected: digest, actual }) }
        })
        .await
    }

    /// Writes the bytes to a new file; see [`crate::Blobs::get_file`].
    pub async fn get_file(&self, digest: &Digest, path: &Path) -> Result<(), BlobError> {
        let (store, digest, path) = (self.clone(), *digest, path.to_owned());
        blocking(move || {
            let mut source = store.read(&digest)?.file;
            let mut copy = beside(&path)?;
            let actual = copy_hashed((&mut source, &store.path(&digest)), &mut copy)?.digest;
            if actual != digest {
                return Err(BlobError::Damaged { expected: digest, actual });
            }
            copy.persist_noclobber(&path).map_err(|error| failed("create", &path)(error.error))?;
            Ok(())
        })
        .await
    }

    /// Whether the bytes are there.
    pub async fn has(&self, digest: &Digest) -> Result<bool, BlobError> {
        match self.open_blob(digest).await {
            Ok(_) => Ok(true),
            Err(BlobError::Missing(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Opens a stored blob. Its bytes are not compared with the digest: the reader does that.
    pub async fn open_blob(&self, digest: &Digest) -> Result<BlobFile, BlobError> {
        let (store, digest) = (self.clone(), *digest);
        blocking(move || store.read(&digest)).await
    }

    /// Begins a blob that arrives in pieces.
    pub fn writer(&self) -> BlobWriter {
        BlobWriter { store: self.clone(), place: Place::Memory(Vec::new()), hasher: Digest::builder(), length: 0 }
    }

    /// The bytes that this process can still store on the disk.
    pub async fn free_bytes(&self) -> Result<u64, BlobError> {
        let store = self.clone();
        blocking(move || {
            let folder = &store.shared.blobs;
            let found = rustix::fs::statvfs(folder).map_err(|error| failed("look at", folder)(error.into()))?;
            Ok(found.f_bavail.saturating_mul(found.f_frsize))
        })
        .await
    }

    /// Removes what nobody has used for [`unused::KEPT`]; see [`crate::Blobs::remove_unused`].
    pub async fn remove_unused(&self) -> Result<Removed, BlobError> {
        let store = self.clone();
        blocking(move || unused::remove(&store.shared.blobs, unused::KEPT, &store.shared.removal)).await
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let (folder, name) = hex.split_at(2);
        self.shared.blobs.join(folder).join(name)
    }

    /// Opens a blob, which counts as its use: see [`crate::unused`].
    fn read(&self, digest: &Digest) -> Result<BlobFile, BlobError> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Err(BlobError::Missing(*digest)),
            Err(source) => return Err(failed("open", &path)(source)),
        };
        let metadata = file.metadata().map_err(failed("look at", &path))?;
        if !unused::note_use(&file, &metadata, &path, &self.shared.removal) {
            // It was removed in the same moment.
            return Err(BlobError::Missing(*digest));
        }
        Ok(BlobFile { file, length: metadata.len() })
    }

    fn temporary(&self) -> Result<NamedTempFile, BlobError> {
        let folder = &self.shared.incoming;
        tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder).map_err(failed("create a file in", folder))
    }

    /// Stores bytes that have this digest.
    fn store(&self, bytes: &[u8], digest: &Digest) -> Result<(), BlobError> {
        if self.is_stored(digest, bytes.len() as u64)? {
            return Ok(());
        }
        let mut file = self.temporary()?;
        file.write_all(bytes).map_err(failed("write", file.path()))?;
        self.make_durable(file.as_file(), digest)?;
        self.rename(file.into_temp_path(), digest)
    }

    /// Whether `length` bytes already stand under this digest. If so, they are durable when this returns: whoever stored them may be
    /// between the rename and the fsync of the folder.
    fn is_stored(&self, digest: &Digest, length: u64) -> Result<bool, BlobError> {
        let found = match self.read(digest) {
            Ok(found) => found,
            Err(BlobError::Missing(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        if found.length != length {
            return Ok(false);
        }
        self.make_durable(&found.file, digest)?;
        self.sync_folder_of(digest)?;
        Ok(true)
    }

    /// Makes a file durable, as far as this store is.
    fn make_durable(&self, file: &File, digest: &Digest) -> Result<(), BlobError> {
        match self.shared.durability {
            Durability::Fsync => file.sync_all().map_err(failed("fsync", &self.path(digest))),
            Durability::None => Ok(()),
        }
    }

    /// Gives a whole and durable file the name of its digest.
    fn rename(&self, mut temporary: TempPath, digest: &Digest) -> Result<(), BlobError> {
        let path = self.path(digest);
        let nobody_removes = self.shared.removal.lock().expect("no holder of this lock panics");
        if let Err(first) = fs::rename(&temporary, &path) {
            if first.kind() != io::ErrorKind::NotFound {
                return Err(failed("create", &path)(first));
            }
            let folder = path.parent().expect("a blob lies in a folder");
            fs::create_dir_all(folder).map_err(failed("create", folder))?;
            fs::rename(&temporary, &path).map_err(failed("create", &path))?;
            if self.shared.durability == Durability::Fsync {
                sync_folder(&self.shared.blobs)?;
            }
        }
        drop(nobody_removes);
        temporary.disable_cleanup(true);
        self.sync_folder_of(digest)
    }

    fn sync_folder_of(&self, digest: &Digest) -> Result<(), BlobError> {
        match self.shared.durability {
            Durability::Fsync => sync_folder(self.path(digest).parent().expect("a blob lies in a folder")),
            Durability::None => Ok(()),
        }
    }
}

impl BlobWriter {
    /// Adds the next piece.
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), BlobError> {
        self.place(piece).await?;
        // After it is written: a writer that failed has no digest that anybody expects.
        self.hasher.update(piece);
        self.length += piece.len() as u64;
        Ok(())
    }

    async fn place(&mut self, piece: &[u8]) -> Result<(), BlobError> {
        match &mut self.place {
            Place::Memory(held) if held.len() + piece.len() <= HELD_BYTES_MAX => {
                held.extend_from_slice(piece);
                Ok(())
            }
            Place::Memory(held) => {
                let (store, held) = (self.store.clone(), std::mem::take(held));
                let (file, path) = blocking(move || {
                    let mut file = store.temporary()?;
                    file.write_all(&held).map_err(failed("write", file.path()))?;
                    Ok(file.into_parts())
                })
                .await?;
                let mut file = tokio::fs::File::from_std(file);
                let written = file.write_all(piece).await.map_err(failed("write", &path));
                self.place = Place::File { file, path };
                written
            }
            Place::File { file, path } => file.write_all(piece).await.map_err(failed("write", path)),
        }
    }

    /// How many bytes were written so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Stores the blob if its digest is the expected one; else nothing is stored. When this returns it is on disk (fsync).
    pub async fn finish(self, expected: Digest) -> Result<(), BlobError> {
        let Self { store, place, hasher, length } = self;
        let actual = hasher.finish();
        if actual != expected {
            return Err(BlobError::Damaged { expected, actual });
        }
        match place {
            // What a failed writer has held may be gone.
            Place::Memory(held) if held.len() as u64 != length => Err(BlobError::Damaged { expected, actual: Digest::of(&held) }),
            Place::Memory(held) => blocking(move || store.store(&held, &expected)).await,
            Place::File { mut file, path } => {
                file.flush().await.map_err(failed("write", &path))?;
                let file = file.into_std().await;
                blocking(move || {
                    if store.is_stored(&expected, length)? {
                        return Ok(());
                    }
                    store.make_durable(&file, &expected)?;
                    store.rename(path, &expected)
                })
                .await
            }
        }
    }
}

/// An error of doing something with a file.
pub(crate) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |source| BlobError::Disk { doing, path, source }
}

/// A file in the folder of `path` that vanishes unless it is given that name.
pub(crate) fn beside(path: &Path) -> Result<NamedTempFile, BlobError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    tempfile::Builder::new().prefix(".blob-").tempfile_in(folder).map_err(failed("create a file in", folder))
}

/// What was copied or read.
pub(crate) struct Copied {
    pub(crate) digest: Digest,
    pub(crate) length: u64,
}

/// Copies from where `source` stands to its end.
fn copy_hashed(source: (&mut File, &Path), target: &mut NamedTempFile) -> Result<Copied, BlobError> {
    hash(source, |piece| target.write_all(piece).map_err(failed("write", target.path())))
}

/// Reads from where `source` stands to its end, giving each piece to `each`.
pub(crate) fn hash(source: (&mut File, &Path), mut each: impl FnMut(&[u8]) -> Result<(), BlobError>) -> Result<Copied, BlobError> {
    let (file, path) = source;
    let mut hasher = Digest::builder();
    let mut length = 0;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => return Ok(Copied { digest: hasher.finish(), length }),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed("read", path)(error)),
        };
        let piece = &buffer[..count];
        hasher.update(piece);
        length += count as u64;
        each(piece)?;
    }
}

/// Runs what blocks on the disk where it may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, BlobError> + Send + 'static) -> Result<T, BlobError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(BlobError::Unavailable("the process is ending".to_owned())),
        },
    }
}

fn sync_folder(folder: &Path) -> Result<(), BlobError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(failed("fsync", folder))
}

/// Removes blobs that were being written when their process died. Called only while nobody has the store open.
fn remove_leftovers(incoming: &Path) -> Result<(), BlobError> {
    for entry in fs::read_dir(incoming).map_err(failed("list", incoming))? {
        let entry = entry.map_err(failed("list", incoming))?;
        if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
            fs::remove_file(entry.path()).map_err(failed("remove", &entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn store() -> (tempfile::TempDir, DiskStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::open(folder.path(), Durability::Fsync).unwrap();
        (folder, store)
    }

    fn incoming(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder.join(INCOMING)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| name != LOCK).collect()
    }

    #[tokio::test]
    async fn what_is_put_is_there_again_after_the_store_is_opened_again() {
        let (folder, store) = store();
        let digest = store.put(Bytes::from_static(b"abc")).await.unwrap();
        assert_eq!(digest, Digest::of(b"abc"));
        drop(store);
        let store = DiskStore::open(folder.path(), Durability::None).unwrap();
        assert_eq!(store.get(&digest).await.unwrap(), "abc");
        assert!(store.has(&digest).await.unwrap());
        let copy = folder.path().join("copy");
        store.get_file(&digest, &copy).await.unwrap();
        assert_eq!(fs::read(&copy).unwrap(), b"abc");
        assert!(matches!(store.get_file(&digest, &copy).await, Err(BlobError::Disk { doing: "create", .. })), "an old file is kept");
        assert_eq!(store.put_file(&copy).await.unwrap(), digest);
        let mode = fs::metadata(store.path(&digest)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "only the store's user reads it");
        assert_eq!(incoming(folder.path()), [""; 0]);
    }

    #[tokio::test]
    async fn what_is_missing_or_damaged_is_said() {
        let (folder, store) = store();
        let digest = Digest::of(b"abc");
        assert!(matches!(store.get(&digest).await, Err(BlobError::Missing(missing)) if missing == digest));
        assert!(!store.has(&digest).await.unwrap());
        store.put(Bytes::from_static(b"abc")).await.unwrap();
        fs::write(store.path(&digest), b"abd").unwrap();
        let copy = folder.path().join("copy");
        assert!(matches!(store.get(&digest).await, Err(BlobError::Damaged { .. })));
        assert!(matches!(store.get_file(&digest, &copy).await, Err(BlobError::Damaged { .. })));
        assert!(!copy.exists());
    }

    #[tokio::test]
    async fn a_truncated_blob_is_replaced() {
        let (_folder, store) = store();
        let digest = store.put(Bytes::from_static(b"abc")).await.unwrap();
        fs::write(store.path(&digest), b"").unwrap();
        store.put(Bytes::from_static(b"abc")).await.unwrap();
        assert_eq!(store.get(&digest).await.unwrap(), "abc");
    }

    #[tokio::test]
    async fn pieces_are_stored_under_the_expected_digest_only() {
        let (folder, store) = store();
        // The second goes to a file before it is whole.
        for piece in [b"a".to_vec(), vec![b'a'; HELD_BYTES_MAX / 3]] {
            let whole = piece.repeat(4);
            for (expected, stored) in [(Digest::of(b"another"), false), (Digest::of(&whole), true)] {
                let mut writer = store.writer();
                for _ in 0..4 {
                    writer.write(&piece).await.unwrap();
                }
                assert_eq!(writer.length(), whole.len() as u64);
                assert_eq!(writer.finish(expected).await.is_ok(), stored);
                assert_eq!(store.has(&expected).await.unwrap(), stored);
            }
            assert_eq!(store.get(&Digest::of(&whole)).await.unwrap(), whole);
            let mut abandoned = store.writer();
            for _ in 0..4 {
                abandoned.write(&piece).await.unwrap();
            }
            drop(abandoned);
            assert_eq!(incoming(folder.path()), [""; 0]);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_same_bytes_may_be_put_at_once() {
        let (folder, store) = store();
        let bytes = Bytes::from(vec![7; 100_000]);
        let puts = (0..16).map(|_| store.put(bytes.clone()));
        let digests = futures_util::future::try_join_all(puts).await.unwrap();
        assert!(digests.iter().all(|digest| *digest == Digest::of(&bytes)));
        assert_eq!(store.get(&digests[0]).await.unwrap(), bytes);
        assert_eq!(incoming(folder.path()), [""; 0]);
    }

    #[test]
    fn leftovers_go_when_nobody_has_the_store_open() {
        let (folder, store) = store();
        let path = folder.path().join(INCOMING);
        fs::write(path.join("blob-half"), b"x").unwrap();
        fs::write(path.join("foreign"), b"x").unwrap();
        let second = DiskStore::open(folder.path(), Durability::Fsync).unwrap();
        assert_eq!(incoming(folder.path()).len(), 2, "the first may still write it");
        drop((store, second));
        let _third = DiskStore::open(folder.path(), Durability::Fsync).unwrap();
        assert_eq!(incoming(folder.path()), ["foreign"]);
    }
}
