//! Sees to it that no stage fills the agent's disk: when less than a reserve is free, the stage that has written the most is ended.
//!
//! Trees are looked through only then: while there is room, watching costs one `statvfs` every [`LOOK`].

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use model::protocol::agent::Lease;
use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tracing::{debug, warn};

use crate::executor::halt::Stop;

/// What stays free for the agent itself, its results and its output, unless an operator says otherwise.
pub const DISK_RESERVE_BYTES: u64 = 256 * 1024 * 1024;
/// Between two looks at what is free.
const LOOK: Duration = Duration::from_millis(500);
/// A stage that has written less is not ended: it was somebody else who filled the disk.
const WRITTEN_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Entries of a tree that are looked at: enough to tell who has written the most, and over within a second.
const ENTRIES_MAX: usize = 500_000;
/// Bytes of a block as `stat` counts them (`man 2 stat`).
const BLOCK_BYTES: u64 = 512;

/// The stages that write to the agent's disk now.
#[derive(Debug)]
pub(crate) struct DiskWatch {
    folder: PathBuf,
    reserve_bytes: u64,
    writers: Mutex<BTreeMap<Lease, Writer>>,
}

#[derive(Debug)]
struct Writer {
    trees: [PathBuf; 2],
    stop: watch::Sender<Option<Stop>>,
    /// Its tree is on its way out: until that is gone, nobody else is blamed.
    is_ended: bool,
}

/// A stage is watched until this is dropped, which is when its tree is gone.
#[derive(Debug)]
pub(crate) struct Watched<'a> {
    watch: &'a DiskWatch,
    lease: Lease,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.watch.writers().remove(&self.lease);
    }
}

impl DiskWatch {
    /// Watches the disk that has `folder`.
    pub(crate) fn new(folder: PathBuf, reserve_bytes: u64) -> Self {
        Self { folder, reserve_bytes, writers: Mutex::default() }
    }

    /// A stage writes below `trees` from now on, and is ended through `stop`.
    pub(crate) fn begin(&self, lease: Lease, trees: [PathBuf; 2], stop: watch::Sender<Option<Stop>>) -> Watched<'_> {
        self.writers().insert(lease.clone(), Writer { trees, stop, is_ended: false });
        Watched { watch: self, lease }
    }

    fn writers(&self) -> MutexGuard<'_, BTreeMap<Lease, Writer>> {
        self.writers.lock().expect("no holder of this lock panics")
    }

    /// Looks for ever.
    pub(crate) async fn look(&self) {
        loop {
            sleep(LOOK).await;
            let suspects: Vec<(Lease, [PathBuf; 2])> = {
                let writers = self.writers();
                if writers.values().any(|writer| writer.is_ended) {
                    continue;
                }
                writers.iter().map(|(lease, writer)| (lease.clone(), writer.trees.clone())).collect()
            };
            if suspects.is_empty() || !self.is_nearly_full() {
                continue;
            }
            if let Ok(Some((bytes, lease))) = spawn_blocking(move || to_end(suspects)).await {
                self.end(&lease, bytes);
            }
        }
    }

    fn is_nearly_full(&self) -> bool {
        match free_bytes(&self.folder) {
            Ok(free) => free < self.reserve_bytes,
            Err(error) => {
                debug!(%error, "it is not known how much of the disk is free");
                false
            }
        }
    }

    fn end(&self, lease: &Lease, bytes: u64) {
        if let Some(writer) = self.writers().get_mut(lease) {
            warn!(?lease, bytes, reserve = self.reserve_bytes, "the disk is nearly full, and this stage has written the most: it is ended");
            writer.is_ended = true;
            writer.stop.send_if_modified(|stop| stop.is_none().then(|| *stop = Some(Stop::DiskFull)).is_some());
        }
    }
}

/// Who has written the most, if ending it gives room back.
fn to_end(suspects: Vec<(Lease, [PathBuf; 2])>) -> Option<(u64, Lease)> {
    let written = suspects.into_iter().map(|(lease, trees)| (trees.iter().map(|tree| tree_bytes(tree)).sum::<u64>(), lease));
    written.max().filter(|(bytes, _)| *bytes >= WRITTEN_BYTES_MIN)
}

fn free_bytes(folder: &Path) -> io::Result<u64> {
    let system = nix::sys::statvfs::statvfs(folder)?;
    Ok(system.blocks_available() * system.fragment_size())
}

/// What the files of a tree take on the disk; links are not followed, and what cannot be read counts for nothing.
fn tree_bytes(tree: &Path) -> u64 {
    let (mut folders, mut bytes, mut entries) = (vec![tree.to_owned()], 0, 0);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            entries += 1;
            if entries > ENTRIES_MAX {
                return bytes;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            bytes += metadata.blocks() * BLOCK_BYTES;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use model::{AttemptId, RunId, StageId, TriggerId};

    use super::*;

    #[test]
    fn a_tree_takes_what_its_files_take() {
        let folder = tempfile::tempdir().unwrap();
        let empty = tree_bytes(folder.path());
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/file"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("root")).unwrap();
        let taken = tree_bytes(folder.path()) - empty;
        assert!((1 << 20..2 << 20).contains(&taken), "{taken}");
        assert!(free_bytes(folder.path()).is_ok());
    }

    #[test]
    fn who_has_written_the_most_is_ended_and_nobody_who_has_written_little() {
        let folder = tempfile::tempdir().unwrap();
        let lease = |fence| {
            let attempt = AttemptId { run: RunId::of(&TriggerId::of("test", "1")), stage: StageId::of("build"), attempt: 1 };
            Lease { attempt, fence }
        };
        let suspects =
            || [1, 2].map(|fence| (lease(fence), ["work", "layers"].map(|tree| folder.path().join(format!("{fence}-{tree}"))))).to_vec();
        for (_, trees) in suspects() {
            for tree in &trees {
                fs::create_dir(tree).unwrap();
            }
            fs::write(trees[0].join("file"), vec![1; 1 << 20]).unwrap();
        }
        assert_eq!(to_end(suspects()), None, "what else fills the disk is not theirs");
        fs::write(folder.path().join("2-layers/file"), vec![1; usize::try_from(WRITTEN_BYTES_MIN).unwrap()]).unwrap();
        assert_eq!(to_end(suspects()).map(|(_, lease)| lease), Some(lease(2)));
    }
}
