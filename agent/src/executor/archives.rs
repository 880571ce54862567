//! Archives of sources and caches on this agent's disk, so that the next stage need not fetch what this one had.
//!
//! Where the depot is a store on this machine, its files are read where they lie.
//!
//! **Invariants:** together they have no more than [`STORE_BYTES_MAX`] bytes, but for the one that was fetched last; whoever unpacks one holds
//! it against its digest.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use blob::{BlobError, Blobs};
use model::Digest;
use service::clock;
use tracing::debug;

use super::late_folder::LateFolder;

/// Bytes of all archives together.
const STORE_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Archives that are remembered.
const ARCHIVES_MAX: usize = 256;
/// Tries to fetch what a stage cannot do without, from a depot that does not answer: with the pauses some twenty seconds, in which a depot
/// restarts.
const FETCH_TRIES_MAX: u32 = 8;
/// The pause after the first try; it doubles each time.
const FETCH_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const FETCH_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Why an archive is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// The depot does not give it.
    #[error("cannot fetch it")]
    Fetch(#[source] BlobError),
    /// The agent's disk does not.
    #[error("cannot keep it on the agent's disk")]
    Disk(#[source] io::Error),
}

/// Whether somebody waits for an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing goes on without it.
    Must,
    /// It would be a help.
    May,
}

/// An archive, open at its first byte.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) file: File,
    /// When this agent first had it, in seconds since 1970: the time of a source's files, so that all stages on this agent see the same.
    pub(crate) since: u64,
}

/// What there is.
#[derive(Debug)]
pub(crate) struct Archives {
    folder: LateFolder,
    next: AtomicU64,
    /// The least lately used first. Whoever holds a slot's lock fetches; the others wait for it.
    slots: Mutex<VecDeque<(Digest, Slot)>>,
}

type Slot = Arc<tokio::sync::Mutex<Kept>>;

/// What is known of an archive.
#[derive(Debug, Default)]
struct Kept {
    /// When it was first here; `None` if it never was.
    since: Option<u64>,
    /// Bytes of the file in the store's folder; 0 if there is none.
    bytes: u64,
}

impl Archives {
    /// An empty store in `folder`.
    pub(crate) fn create(folder: PathBuf) -> io::Result<Self> {
        Ok(Self { folder: LateFolder::without_leftovers(folder)?, next: AtomicU64::new(0), slots: Mutex::default() })
    }

    /// The archive with this digest, with which whoever reads it compares its bytes.
    pub(crate) async fn open(&self, digest: &Digest, blobs: &Blobs, need: Need) -> Result<Opened, ArchiveError> {
        let slot = self.slot(digest);
        let mut kept = slot.lock().await;
        if let Blobs::Disk(store) = blobs {
            let file = store.open_blob(digest).await.map_err(ArchiveError::Fetch)?.file;
            return Ok(Opened { file, since: *kept.since.get_or_insert_with(now) });
        }
        let path = self.path(digest);
        if kept.bytes > 0 {
            match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(ArchiveError::Disk(error)),
                Ok(file) => return Ok(Opened { file, since: *kept.since.get_or_insert_with(now) }),
            }
        }
        let part = self.part().map_err(ArchiveError::Disk)?;
        fetch(digest, blobs, &part, need).await?;
        fs::rename(&part, &path).map_err(ArchiveError::Disk)?;
        let file = File::open(&path).map_err(ArchiveError::Disk)?;
        kept.bytes = file.metadata().map_err(ArchiveError::Disk)?.len();
        let since = *kept.since.get_or_insert_with(now);
        drop(kept);
        self.make_room();
        Ok(Opened { file, since })
    }

    /// Whether the depot is known to have it.
    pub(crate) fn is_known(&self, digest: &Digest) -> bool {
        let slots = self.slots.lock().expect("no holder of this lock panics");
        slots.iter().any(|(known, slot)| known == digest && slot.try_lock().is_ok_and(|kept| kept.since.is_some()))
    }

    /// Forgets what turned out to be damaged.
    pub(crate) async fn forget(&self, digest: &Digest) {
        let slot = self.slot(digest);
        *slot.lock().await = Kept::default();
        remove(&self.path(digest));
    }

    /// Takes a file that was just stored in the depot.
    pub(crate) async fn adopt(&self, digest: &Digest, file: &Path, is_local: bool) {
        let slot = self.slot(digest);
        let mut kept = slot.lock().await;
        kept.since.get_or_insert_with(now);
        if !is_local
            && let Ok(metadata) = fs::metadata(file)
            && fs::rename(file, self.path(digest)).is_ok()
        {
            kept.bytes = metadata.len();
            drop(kept);
            self.make_room();
        }
    }

    /// A path for a file that is being made.
    pub(crate) fn part(&self) -> io::Result<PathBuf> {
        Ok(self.folder.made()?.join(format!("part-{}", self.next.fetch_add(1, Ordering::Relaxed))))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.path().join(digest.hex())
    }

    fn slot(&self, digest: &Digest) -> Slot {
        let mut slots = self.slots.lock().expect("no holder of this lock panics");
        let known = slots.iter().position(|(known, _)| known == digest).and_then(|at| slots.remove(at));
        let (_, slot) = known.unwrap_or_else(|| (*digest, Slot::default()));
        slots.push_back((*digest, slot.clone()));
        slot
    }

    /// Removes the least lately used until the rest is within the bounds. Who has one open reads it to its end.
    fn make_room(&self) {
        let mut slots = self.slots.lock().expect("no holder of this lock panics");
        let mut bytes: u64 = slots.iter().map(|(_, slot)| slot.try_lock().map_or(0, |kept| kept.bytes)).sum();
        let mut at = 0;
        while at + 1 < slots.len() && (bytes > STORE_BYTES_MAX || slots.len() > ARCHIVES_MAX) {
            let is_idle = Arc::strong_count(&slots[at].1) == 1;
            if !is_idle {
                at += 1;
                continue;
            }
            let Some((digest, slot)) = slots.remove(at) else { break };
            bytes -= slot.try_lock().map_or(0, |kept| kept.bytes);
            remove(&self.path(&digest));
        }
    }
}

fn now() -> u64 {
    clock::unix_ms() / 1_000
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        debug!(%error, path = %path.display(), "an archive was not removed");
    }
}

async fn fetch(digest: &Digest, blobs: &Blobs, part: &Path, need: Need) -> Result<(), ArchiveError> {
    let tries = match need {
        Need::Must => FETCH_TRIES_MAX,
        Need::May => 1,
    };
    let mut pause = FETCH_PAUSE;
    for attempt in 1.. {
        match blobs.get_file(digest, part).await {
            Err(BlobError::Unavailable(reason)) if attempt < tries => {
                debug!(%digest, reason, "the depot does not answer, trying again");
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(FETCH_PAUSE_MAX);
            }
            result => return result.map_err(ArchiveError::Fetch),
        }
    }
    unreachable!("the last try returns")
}

#[cfg(test)]
mod tests {
    use blob::{DepotClient, DiskStore, Durability};
    use bytes::Bytes;

    use super::*;

    #[tokio::test]
    async fn what_lies_in_a_store_on_this_machine_is_read_there() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::Disk(DiskStore::open(&folder.path().join("depot"), Durability::None).unwrap());
        let archives = Archives::create(folder.path().join("archives")).unwrap();
        let digest = blobs.put(Bytes::from_static(b"abc")).await.unwrap();
        let first = archives.open(&digest, &blobs, Need::Must).await.unwrap();
        assert_eq!(io::read_to_string(&first.file).unwrap(), "abc");
        assert_eq!(archives.open(&digest, &blobs, Need::May).await.unwrap().since, first.since);
        assert!(!folder.path().join("archives").exists());
        assert!(archives.is_known(&digest));
        archives.forget(&digest).await;
        assert!(!archives.is_known(&digest));
        let missing = archives.open(&Digest::of(b"x"), &blobs, Need::Must).await;
        assert!(matches!(missing, Err(ArchiveError::Fetch(BlobError::Missing(_)))), "{missing:?}");
    }

    #[tokio::test]
    async fn what_was_stored_is_not_fetched_again_until_there_is_no_room() {
        let folder = tempfile::tempdir().unwrap();
        // Nobody answers there.
        let blobs = Blobs::Depot(DepotClient::new("http://127.0.0.1:1", "token").unwrap());
        let archives = Archives::create(folder.path().join("archives")).unwrap();
        let mut digests = Vec::new();
        for number in 0..=ARCHIVES_MAX {
            let bytes = format!("archive {number}");
            let part = archives.part().unwrap();
            fs::write(&part, &bytes).unwrap();
            digests.push(Digest::of(bytes.as_bytes()));
            archives.adopt(&digests[number], &part, false).await;
        }
        let last = archives.open(&digests[ARCHIVES_MAX], &blobs, Need::Must).await.unwrap();
        assert_eq!(io::read_to_string(&last.file).unwrap(), format!("archive {ARCHIVES_MAX}"));
        assert!(!archives.is_known(&digests[0]) && archives.is_known(&digests[1]));
        assert_eq!(fs::read_dir(folder.path().join("archives")).unwrap().count(), ARCHIVES_MAX);
        let gone = archives.open(&digests[0], &blobs, Need::May).await;
        assert!(matches!(gone, Err(ArchiveError::Fetch(BlobError::Unavailable(_)))), "{gone:?}");
    }
}
