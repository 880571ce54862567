//! Snapshots: what a long log comes to at one of its records, so that a restart folds only what came after.
//!
//! They lie in the orchestrator's own folder, one for a run that is open, and are soft. **Invariant:** none is trusted over the log. A snapshot names
//! the record at which it was taken by its sequence and its digest, and counts only for a log whose chain has that very record; one of another build
//! of the program, for which the same events may come to something else, is none. What does not fit, or does not lead to what comes after, is
//! thrown away, and all of the log is folded.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use model::{Digest, RunId};
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::log::Tail;
use crate::core::{Run, kept::Kept};

/// Records after which a snapshot is taken: to fold fewer takes less than to read one.
const RECORDS_EVERY: usize = 1_000;
/// Files of the folder. Few runs have so many records; the one that was written first goes.
const FILES_MAX: usize = 64;
/// Bytes of one: twice what the largest plan comes to.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// The snapshots of a folder; without one, there are none. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshots(Option<Arc<Place>>);

#[derive(Debug)]
struct Place {
    folder: PathBuf,
    /// By which program.
    build: String,
}

/// What a log comes to at a record.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    build: String,
    run: RunId,
    sequence: u64,
    digest: Digest,
    pub(crate) state: Kept,
}

impl Snapshot {
    /// The record at which it was taken.
    pub(crate) fn tail(&self) -> Tail {
        Tail { sequence: self.sequence, digest: Some(self.digest) }
    }
}

impl Snapshots {
    /// Those of a folder, which is made if it is not there.
    pub(crate) fn at(folder: Option<PathBuf>) -> Self {
        let place = folder.and_then(|folder| {
            let build = build().and_then(|build| fs::create_dir_all(&folder).map(|()| build));
            let build = build.inspect_err(|error| debug!(%error, "no snapshots are taken")).ok()?;
            Some(Arc::new(Place { folder, build }))
        });
        Self(place)
    }

    /// Whether one is taken of a log of so many records.
    pub(crate) fn wants(&self, records: usize) -> bool {
        self.0.is_some() && records > 0 && records.is_multiple_of(RECORDS_EVERY)
    }

    /// Writes one. What cannot be written is not there.
    pub(crate) async fn take(self, run: Arc<Run>, tail: Tail) {
        let (Some(place), Some(digest)) = (self.0, tail.digest) else { return };
        let snapshot = Snapshot { build: place.build.clone(), run: run.id.clone(), sequence: tail.sequence, digest, state: run.kept() };
        let written = tokio::task::spawn_blocking(move || place.write(&snapshot)).await;
        if let Ok(Err(error)) = written {
            debug!(run = %run.id, %error, "no snapshot was taken");
        }
    }

    /// That of a run whose log has so many records; one that is of another program, or none at all, is removed.
    pub(crate) fn read(&self, run: &RunId, records: usize) -> Option<Snapshot> {
        let place = self.0.as_ref().filter(|_| records >= RECORDS_EVERY)?;
        let bytes = fs::read(place.file(run)).ok()?;
        let snapshot =
            serde_json::from_slice(&bytes).ok().filter(|snapshot: &Snapshot| snapshot.build == place.build && snapshot.run == *run);
        if snapshot.is_none() {
            self.forget(run);
        }
        snapshot
    }

    /// The run has ended, or its snapshot does not fit.
    pub(crate) fn forget(&self, run: &RunId) {
        if let Some(place) = &self.0 {
            let _there_was_none = fs::remove_file(place.file(run));
        }
    }

    /// Only these runs are open.
    pub(crate) fn keep(&self, open: &BTreeSet<RunId>) {
        let Some(place) = &self.0 else { return };
        let names: BTreeSet<PathBuf> = open.iter().map(|run| place.file(run)).collect();
        for file in place.files().into_iter().filter(|file| !names.contains(file)) {
            let _it_is_gone = fs::remove_file(file);
        }
    }
}

impl Place {
    fn file(&self, run: &RunId) -> PathBuf {
        self.folder.join(format!("{run}.json"))
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path()).collect()
    }

    fn write(&self, snapshot: &Snapshot) -> io::Result<()> {
        let bytes = serde_json::to_vec(snapshot)?;
        if bytes.len() > BYTES_MAX {
            return Err(io::Error::other(format!("it has {} bytes, over the limit of {BYTES_MAX}", bytes.len())));
        }
        let file = self.file(&snapshot.run);
        let part = file.with_extension("part");
        fs::write(&part, bytes)?;
        fs::rename(part, file)?;
        self.bound()
    }

    fn bound(&self) -> io::Result<()> {
        let mut files = self.files();
        if files.len() > FILES_MAX {
            files.sort_by_key(|file| fs::metadata(file).and_then(|file| file.modified()).ok());
            fs::remove_file(&files[0])?;
        }
        Ok(())
    }
}

/// What tells this build of the program from others: its file, as it was put there.
fn build() -> io::Result<String> {
    let program = fs::metadata(program()?)?;
    let modified = program.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{}.{}", program.len(), modified.as_nanos()))
}

fn program() -> io::Result<PathBuf> {
    // As it runs, also where its file was replaced since.
    let running = Path::new("/proc/self/exe");
    if running.exists() { Ok(running.to_owned()) } else { std::env::current_exe() }
}

#[cfg(test)]
mod tests {
    use model::{TriggerId, event::run::Planned, plan::Plan};

    use super::*;
    use crate::core::{Position, Shape};

    fn run(number: usize) -> Run {
        let trigger = model::trigger::Trigger { id: TriggerId::of("test", &number.to_string()), ..crate::core::tests::trigger() };
        let position = Position { sequence: 1, at: model::Timestamp(0) };
        Run::accepted(trigger.run(), trigger, Planned::plan(Digest::of(b"")), Arc::new(Shape::new(Plan::new(Vec::new()))), position)
    }

    fn tail(sequence: u64) -> Tail {
        Tail { sequence, digest: Some(Digest::of(&sequence.to_be_bytes())) }
    }

    #[tokio::test]
    async fn a_snapshot_is_of_one_record_and_of_one_build_and_they_are_few() {
        let folder = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::at(Some(folder.path().join("snapshots")));
        let first = run(0);
        for sequence in [1, 2] {
            snapshots.clone().take(Arc::new(first.clone()), tail(sequence)).await;
        }
        assert_eq!(snapshots.read(&first.id, RECORDS_EVERY).unwrap().tail(), tail(2));
        for number in 1..=FILES_MAX {
            snapshots.clone().take(Arc::new(run(number)), tail(1)).await;
        }
        let place = snapshots.0.clone().unwrap();
        assert_eq!(place.files().len(), FILES_MAX);
        let other = Snapshots(Some(Arc::new(Place { folder: place.folder.clone(), build: "another".to_owned() })));
        let last = run(FILES_MAX).id;
        assert!(other.read(&last, RECORDS_EVERY).is_none() && snapshots.read(&last, RECORDS_EVERY).is_none(), "it was thrown away");
        snapshots.keep(&BTreeSet::from([run(2).id]));
        assert_eq!(place.files(), [place.file(&run(2).id)]);
        fs::write(place.file(&run(2).id), "{").unwrap();
        assert!(snapshots.read(&run(2).id, RECORDS_EVERY).is_none() && place.files().is_empty());
    }
}
