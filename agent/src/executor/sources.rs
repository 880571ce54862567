//! Source trees that were fetched from the depot lately, so that the next stage of a run need not fetch them again.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use blob::{BlobError, Blobs};
use model::Digest;
use tracing::debug;

/// Archives that are kept; more do not help, as few runs are active on an agent at once.
const SOURCES_MAX: usize = 8;
/// Tries to fetch an archive from a depot that does not answer: with the pauses some twenty seconds, in which a depot restarts.
const FETCH_TRIES_MAX: u32 = 8;
/// The pause after the first try; it doubles each time.
const FETCH_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const FETCH_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Why a source is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// The depot does not give it.
    #[error("cannot fetch the source")]
    Fetch(#[source] BlobError),
    /// The agent's disk does not.
    #[error("cannot keep the source on the agent's disk")]
    Disk(#[source] io::Error),
}

/// The cache.
#[derive(Debug)]
pub(crate) struct Sources {
    folder: PathBuf,
    /// The least lately used first. Whoever holds a slot's lock fetches; the others wait for it.
    slots: Mutex<VecDeque<(Digest, Slot)>>,
}

/// Whether the archive is there.
type Slot = Arc<tokio::sync::Mutex<bool>>;

impl Sources {
    /// An empty cache in `folder`. What an earlier life left there was never made durable, so it is not trusted.
    pub(crate) fn create(folder: PathBuf) -> io::Result<Self> {
        super::workspace::remove_tree(&folder)?;
        DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self { folder, slots: Mutex::default() })
    }

    /// The archive with this digest, open for reading.
    pub(crate) async fn open(&self, digest: &Digest, blobs: &Blobs) -> Result<File, SourceError> {
        let path = self.path(digest);
        let slot = self.slot(digest);
        let mut present = slot.lock().await;
        if *present {
            match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => return result.map_err(SourceError::Disk),
            }
        }
        *present = false;
        let part = path.with_extension("part");
        fetch(digest, blobs, &part).await?;
        fs::rename(&part, &path).map_err(SourceError::Disk)?;
        *present = true;
        File::open(&path).map_err(SourceError::Disk)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex()).with_extension("tar")
    }

    fn slot(&self, digest: &Digest) -> Slot {
        let mut slots = self.slots.lock().expect("no holder of this lock panics");
        let known = slots.iter().position(|(known, _)| known == digest).and_then(|at| slots.remove(at));
        let (_, slot) = known.unwrap_or_else(|| (*digest, Slot::default()));
        slots.push_back((*digest, slot.clone()));
        if slots.len() > SOURCES_MAX
            && let Some((old, _)) = slots.pop_front()
            && let Err(error) = fs::remove_file(self.path(&old))
        {
            debug!(%error, digest = %old, "an old source was not there to be removed");
        }
        slot
    }
}

async fn fetch(digest: &Digest, blobs: &Blobs, part: &Path) -> Result<(), SourceError> {
    let mut pause = FETCH_PAUSE;
    for attempt in 1.. {
        match fs::remove_file(part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(SourceError::Disk(error)),
            Ok(()) | Err(_) => {}
        }
        match blobs.get_file(digest, part).await {
            Err(BlobError::Unavailable(reason)) if attempt < FETCH_TRIES_MAX => {
                debug!(%digest, reason, "the depot does not answer, trying again");
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(FETCH_PAUSE_MAX);
            }
            result => return result.map_err(SourceError::Fetch),
        }
    }
    unreachable!("the last try returns")
}
