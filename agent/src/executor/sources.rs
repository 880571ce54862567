//! Sources that are kept unpacked, once for each digest: a work directory is a snapshot of one, by the first way that the machine offers.
//!
//! | way | what a stage costs | where |
//! |---|---|---|
//! | overlay | one mount | where the init may mount: in namespaces, and for a superuser |
//! | reflink | its files, but not their content | on btrfs, xfs and their like |
//! | copy | its files with their content, from the archive | everywhere |
//!
//! Stages do not reach what is kept here but through a snapshot, if they are isolated further than `group`.
//!
//! **Invariants:** a tree with its name is whole, however the agent ended; one that a stage stands on is not removed.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use model::Digest;
use tokio::task::spawn_blocking;
use tracing::warn;
use tree::{Archive, Rules, UnpackError};

use super::{archives::Opened, late_folder::LateFolder, workspace::remove_tree};

/// An archive with fewer bytes is unpacked into each work directory: for some thirty files that takes no longer than to mount them.
pub(crate) const SNAPSHOT_BYTES_MIN: u64 = 64 * 1024;
/// Sources that are kept, but for those in use: those of a busy machine's last commits.
const SOURCES_MAX: usize = 8;

/// A source that is unpacked. It stays as long as somebody has it.
#[derive(Debug)]
pub(crate) struct Source {
    folder: PathBuf,
    /// The time of its files, in seconds since 1970.
    pub(crate) since: u64,
}

impl Source {
    /// Where it lies.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Those that are there.
#[derive(Debug)]
pub(crate) struct Sources {
    folder: LateFolder,
    next: AtomicU64,
    /// Whether files can share their content; empty until somebody asked.
    reflinks: OnceLock<bool>,
    /// The least lately used first. Whoever holds a slot's lock unpacks; the others wait for it.
    slots: Mutex<VecDeque<(Digest, Slot)>>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Arc<Source>>>>;

impl Sources {
    /// None yet, in `folder`.
    pub(crate) fn create(folder: PathBuf) -> io::Result<Self> {
        Ok(Self {
            folder: LateFolder::without_leftovers(folder)?,
            next: AtomicU64::new(0),
            reflinks: OnceLock::new(),
            slots: Mutex::default(),
        })
    }

    /// Whether files can share their content here. It is tried once.
    pub(crate) fn reflinks(&self) -> bool {
        *self.reflinks.get_or_init(|| self.folder.made().is_ok_and(tree::shares_content))
    }

    /// The source with this digest; its archive is unpacked if it is not there. `unpack` does something that takes time on a thread of its
    /// own.
    pub(crate) async fn get<E>(
        &self,
        digest: &Digest,
        opened: Opened,
        unpack: impl AsyncFnOnce(Unpacking) -> Result<Result<(), UnpackError>, E>,
    ) -> Result<Result<Arc<Source>, UnpackError>, E> {
        let slot = self.slot(digest);
        let mut present = slot.lock().await;
        if let Some(source) = &*present {
            return Ok(Ok(source.clone()));
        }
        if let Err(error) = self.folder.made() {
            return Ok(Err(UnpackError::Unreadable(error)));
        }
        let (part, folder) = (self.unnamed("part"), self.folder.path().join(digest.hex()));
        let since = opened.since;
        let unpacking = Unpacking { digest: *digest, opened, part, folder: folder.clone() };
        if let Err(error) = unpack(unpacking).await? {
            return Ok(Err(error));
        }
        Ok(Ok(present.insert(Arc::new(Source { folder, since })).clone()))
    }

    fn unnamed(&self, kind: &str) -> PathBuf {
        self.folder.path().join(format!("{kind}-{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    fn slot(&self, digest: &Digest) -> Slot {
        let mut slots = self.slots.lock().expect("no holder of this lock panics");
        let known = slots.iter().position(|(known, _)| known == digest).and_then(|at| slots.remove(at));
        let (_, slot) = known.unwrap_or_else(|| (*digest, Slot::default()));
        slots.push_back((*digest, slot.clone()));
        while slots.len() > SOURCES_MAX
            && let Some(unused) = slots.iter().position(|(_, slot)| is_unused(slot))
        {
            let removed = slots.remove(unused);
            self.remove(removed.and_then(|(_, slot)| slot.try_lock().ok()?.take()));
        }
        slot
    }

    /// Removes a source that nobody has. Its name is free at once; the rest takes time.
    fn remove(&self, source: Option<Arc<Source>>) {
        let Some(source) = source else { return };
        let gone = self.unnamed("gone");
        let renamed = fs::rename(&source.folder, &gone);
        drop(spawn_blocking(move || {
            if let Err(error) = renamed.and_then(|()| remove_tree(&gone)) {
                warn!(source = %source.folder.display(), %error, "a source that was kept unpacked is not removed");
            }
        }));
    }
}

fn is_unused(slot: &Slot) -> bool {
    Arc::strong_count(slot) == 1 && slot.try_lock().is_ok_and(|source| source.as_ref().is_none_or(|source| Arc::strong_count(source) == 1))
}

/// A source that is to be unpacked.
#[derive(Debug)]
pub(crate) struct Unpacking {
    digest: Digest,
    opened: Opened,
    part: PathBuf,
    folder: PathBuf,
}

impl Unpacking {
    /// Unpacks it. Until it is whole, it has no name.
    pub(crate) fn run(self, stop: &dyn Fn() -> bool) -> Result<(), UnpackError> {
        let rules = Rules { undated: Some(self.opened.since), ..Rules::SOURCE };
        tree::unpack_new(Archive::tar(self.opened.file).expect(self.digest), &self.part, &rules, stop)?;
        fs::rename(&self.part, &self.folder).map_err(UnpackError::Unreadable)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    fn opened(text: &str) -> (Digest, Opened) {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, "file", text.as_bytes()).unwrap();
        let bytes = builder.into_inner().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file.rewind().unwrap();
        (Digest::of(&bytes), Opened { file, since: 1_000_000_000 })
    }

    async fn get(sources: &Sources, text: &str) -> Result<Arc<Source>, UnpackError> {
        let (digest, opened) = opened(text);
        sources.get(&digest, opened, async |unpacking| Ok::<_, ()>(unpacking.run(&|| false))).await.unwrap()
    }

    fn names(sources: &Sources) -> usize {
        fs::read_dir(sources.folder.path())
            .unwrap()
            .filter(|entry| !entry.as_ref().unwrap().file_name().to_str().unwrap().contains('-'))
            .count()
    }

    #[tokio::test]
    async fn what_is_in_use_is_not_removed_and_the_rest_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources::create(folder.path().join("sources")).unwrap();
        let used = get(&sources, "used").await.unwrap();
        for number in 0..2 * SOURCES_MAX {
            let source = get(&sources, &number.to_string()).await.unwrap();
            assert_eq!(fs::read_to_string(source.folder().join("file")).unwrap(), number.to_string());
            assert!(names(&sources) <= SOURCES_MAX);
        }
        assert!(Arc::ptr_eq(&used, &get(&sources, "used").await.unwrap()), "it is unpacked once");
        assert_eq!(fs::read_to_string(used.folder().join("file")).unwrap(), "used");
        assert_eq!(names(&sources), SOURCES_MAX);
    }

    #[tokio::test]
    async fn what_is_not_whole_has_no_name_and_is_gone_with_the_next_life() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sources");
        let sources = Sources::create(path.clone()).unwrap();
        let (digest, mut damaged) = opened("text");
        damaged.file.set_len(700).unwrap();
        damaged.file.rewind().unwrap();
        let failed = sources.get(&digest, damaged, async |unpacking| Ok::<_, ()>(unpacking.run(&|| false))).await.unwrap();
        assert!(matches!(failed, Err(UnpackError::Damaged { .. })), "{failed:?}");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        assert_eq!(get(&sources, "text").await.unwrap().folder(), path.join(digest.hex()), "the next one who has it whole has it");
        // As a kill leaves it.
        fs::create_dir(path.join("part-7")).unwrap();
        drop(sources);
        Sources::create(path.clone()).unwrap();
        assert!(!path.exists());
    }
}
