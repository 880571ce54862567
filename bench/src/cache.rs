//! A cache that is put into a work directory, beside `cp -r` of the same tree in the same run.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::ensure;
use model::Digest;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use tree::{Archive, Limits, Rules, Selection, Times, pack, unpack_into};

use crate::{
    scratch,
    stats::{Samples, ms},
};

/// Files of the cache, in folders of this many: as a package manager leaves them.
const FILES: usize = 10_000;
const FILES_OF_FOLDER: usize = 20;
/// The largest file; on average they have half of it.
const FILE_BYTES_MAX: usize = 8 * 1024;
/// Restores of each kind.
const RUNS: usize = 7;

/// The table of `docs/benchmarks.md`.
pub(crate) fn measure() -> anyhow::Result<String> {
    let folder = scratch()?;
    let tree = folder.path().join("tree");
    let files = make(&tree)?;
    let archive = folder.path().join("archive");
    pack(&tree, &Selection::everything(), (Times::Kept, Limits::TREE), File::create(&archive)?, &|| false)?;
    let digest = Digest::of(&fs::read(&archive)?);
    let mut text = format!(
        "| a cache of {FILES} files | `cp -r`, p50 ms | restored and verified, p50 ms | share | goal |\n|---|---:|---:|---:|---:|\n"
    );
    for (state, is_cold) in [("in memory", false), ("on disk", true)] {
        let (mut copied, mut restored) = (Samples::default(), Samples::default());
        for _ in 0..RUNS {
            // In turns, so that a machine that drifts slows both.
            if is_cold {
                files.iter().try_for_each(|path| forget(path))?;
            }
            copied.push(once(folder.path(), |target| {
                let status = Command::new("cp").arg("-r").arg(&tree).arg(target).status()?;
                ensure!(status.success(), "cp failed");
                Ok(())
            })?);
            if is_cold {
                forget(&archive)?;
            }
            restored.push(once(folder.path(), |target| {
                fs::create_dir(target)?;
                let archive = Archive::tar(File::open(&archive)?).expect(digest);
                unpack_into(archive, (target, Path::new("")), &Rules::TREE, &|| false)?;
                Ok(())
            })?);
        }
        let share = restored.p50().as_secs_f64() / copied.p50().as_secs_f64() * 100.0;
        writeln!(text, "| {state} | {} | {} | {share:.0} % | 80 % |", ms(copied.p50()), ms(restored.p50()))
            .expect("a string takes everything");
    }
    Ok(text)
}

fn make(tree: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for number in 0..FILES {
        let folder = tree.join(format!("package-{}/folder-{}", number / FILES_OF_FOLDER / 20, number / FILES_OF_FOLDER));
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("file-{number}"));
        // Spread evenly, by a step that has no factor in common with the size.
        let bytes = number * 4_999 % FILE_BYTES_MAX;
        fs::write(&file, number.to_le_bytes().repeat(bytes / 8))?;
        files.push(file);
    }
    Ok(files)
}

/// Takes the time of making a tree. It stays until all are measured: an ext4 without a journal makes files the slower, the more were removed in the last
/// minutes.
fn once(folder: &Path, make: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let target = tempfile::Builder::new().prefix("target-").tempdir_in(folder)?.keep().join("tree");
    let begun = Instant::now();
    make(&target)?;
    Ok(begun.elapsed())
}

/// Has the system forget the bytes of a file, so that they are read from the disk.
fn forget(path: &Path) -> anyhow::Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}
