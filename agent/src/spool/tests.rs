//! Folders of attempts: begun, forgotten, used again, and found by a later life.

use std::os::unix::fs::MetadataExt as _;

use model::{AttemptId, RunId, StageId, StageOutcome, TriggerId};

use super::*;

fn lease(fence: u64) -> Lease {
    let attempt = AttemptId { run: RunId::of(&TriggerId::of("test", "1")), stage: StageId::of("build"), attempt: 1 };
    Lease { attempt, fence }
}

/// What the folder has: names and sizes.
fn files(folder: &Path) -> Vec<(String, u64)> {
    let look = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())
    };
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(look).collect();
    files.sort();
    files
}

/// An attempt that has said something, and sent something.
fn used(spool: &Spool, fence: u64) -> (Entry, OutputFiles) {
    let (entry, files) = spool.begin(&lease(fence), "token").unwrap();
    (&files.output).write_all(b"what was said").unwrap();
    (&files.index).write_all(b"when").unwrap();
    entry.open_part(1).unwrap();
    fs::write(entry.transfer(3), "what was sent").unwrap();
    (entry, files)
}

fn forget(spool: &Spool, entry: Entry) {
    let renewed = entry.workspace().clone().renew().unwrap();
    spool.forget(entry, renewed);
}

#[test]
fn a_folder_is_used_again_and_has_nothing_of_the_attempt_before() {
    let data = tempfile::tempdir().unwrap();
    let spool = Spool::open(data.path(), u32::MAX).unwrap();
    let (first, said) = used(&spool, 1);
    let (folder, inode) = (first.folder.clone(), fs::metadata(first.output(0)).unwrap().ino());
    drop(said);
    forget(&spool, first);
    let (second, _said) = spool.begin(&lease(2), "other").unwrap();
    assert_eq!((&second.folder, fs::metadata(second.output(0)).unwrap().ino()), (&folder, inode));
    let journal = fs::read_to_string(folder.join(JOURNAL)).unwrap();
    assert_eq!(journal.lines().count(), 1);
    assert!(journal.contains("other") && !journal.contains("\"token\""), "{journal}");
    let expected = [(INDEX, 0), (JOURNAL, journal.len() as u64), (OUTPUT, 0)];
    assert_eq!(files(&folder), expected.map(|(name, size)| (name.to_owned(), size)));
    assert!(second.ready(0).unwrap().is_none());
    assert_eq!(second.workspace().source().read_dir().unwrap().count(), 0);
}

#[test]
fn what_somebody_may_still_write_to_is_not_used_again() {
    let data = tempfile::tempdir().unwrap();
    let spool = Spool::open(data.path(), u32::MAX).unwrap();
    let (first, _said) = used(&spool, 1);
    let late = first.clone();
    let folder = first.folder.clone();
    forget(&spool, first);
    assert!(!folder.exists());
    let (second, _said) = spool.begin(&lease(2), "other").unwrap();
    late.write(&Line::Ended { report: Report::Lost { reason: "late".to_owned() } }).unwrap();
    assert_ne!(second.folder, folder);
    assert_eq!(read_journal(&second.folder.join(JOURNAL)).unwrap().len(), 1);
}

#[test]
fn a_later_life_finds_no_attempt_in_a_folder_that_waits_to_be_used_again() {
    let data = tempfile::tempdir().unwrap();
    let spool = Spool::open(data.path(), u32::MAX).unwrap();
    let (ended, said) = used(&spool, 1);
    let (running, _said) = used(&spool, 2);
    ended.write(&Line::Ended { report: finished() }).unwrap();
    drop(said);
    forget(&spool, ended);
    drop(spool);
    let spool = Spool::open(data.path(), u32::MAX).unwrap();
    let recovered = spool.recover().unwrap();
    assert_eq!(recovered.iter().map(|recovered| recovered.lease.fence).collect::<Vec<_>>(), [2]);
    assert_eq!(fs::read_dir(data.path().join("spool")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(data.path().join("work")).unwrap().count(), 0);
    let (next, _said) = spool.begin(&lease(3), "token").unwrap();
    assert_ne!(next.folder, running.folder);
}

fn finished() -> Report {
    let outputs = model::event::run::Outputs::default();
    Report::Finished { outcome: StageOutcome::Success, reason: None, started_at: None, finished_at: model::Timestamp(1), outputs }
}

#[test]
fn no_more_is_kept_than_has_a_name() {
    let data = tempfile::tempdir().unwrap();
    let spool = Spool::open(data.path(), u32::MAX).unwrap();
    let attempts: Vec<_> = (0..2 * USED_MAX as u64).map(|number| used(&spool, number)).collect();
    for (entry, said) in attempts {
        drop(said);
        forget(&spool, entry);
    }
    assert_eq!(fs::read_dir(data.path().join("spool")).unwrap().count(), USED_MAX);
}

#[test]
fn who_makes_nothing_ahead_keeps_nothing() {
    let data = tempfile::tempdir().unwrap();
    let spool = Spool::open(data.path(), 0).unwrap();
    let (entry, said) = used(&spool, 1);
    drop(said);
    forget(&spool, entry);
    assert_eq!(fs::read_dir(data.path().join("spool")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(data.path().join("work")).unwrap().count(), 0);
}
