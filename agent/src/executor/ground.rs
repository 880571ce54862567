//! What a stage stands on: its source and its caches, put into its work directory before the first step; and the caches that it leaves.
//!
//! Times matter to build tools. The files of a source have the time at which this agent first had it: what an earlier stage of the run
//! made of it is newer, so it is not made again. What an earlier run has left may belong to another source: it is never newer than the
//! source, so that whatever depends on the source is made again.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use blob::{BlobError, Blobs};
use model::{
    Digest,
    digest::DigestBuilder,
    event::run::StoredTree,
    plan::CacheDefinition,
    protocol::agent::{Assignment, CacheRestore},
};
use service::supervisor::chain;
use tokio::time::sleep;
use tree::{Archive, Content, Limits, Packed, Rules, Selection, Times, UnpackError};

use super::{
    Tools,
    archives::{ArchiveError, Need, Opened},
    floor::{Floor, Trouble, failed, stoppable},
    halt::Halt,
    output::Output,
    workspace::{Reach, path_of},
};
use crate::spool::Entry;

/// The pause after the first try to store a cache; it doubles each time. There is no last try but the end of the stage's time: its work is
/// done, and would be lost.
const STORE_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const STORE_PAUSE_MAX: Duration = Duration::from_secs(15);

/// The ground of one attempt.
#[derive(Debug)]
pub(super) struct Ground<'a> {
    pub(super) assignment: &'a Assignment,
    pub(super) tools: &'a Tools,
    pub(super) entry: &'a Entry,
    /// The work directory.
    pub(super) reach: Reach,
    pub(super) output: &'a mut Output,
}

impl Ground<'_> {
    /// Puts source and caches into the work directory. Where that is the user's own, everything is there already.
    pub(super) async fn lay(&mut self, floor: &mut Floor, halt: &mut Halt) -> Result<(), Trouble> {
        if self.entry.workspace().is_foreign() {
            return Ok(());
        }
        let since = match std::mem::replace(floor, Floor::Bare) {
            Floor::Bare => None,
            Floor::Missing(trouble) => return Err(trouble),
            Floor::Archive(digest, opened) => {
                let since = opened.since;
                let rules = Rules { undated: Some(since), ..Rules::SOURCE };
                self.unpack((&digest, opened), rules, Onto::Nothing, halt).await?.map_err(|error| failed("source", &error))?;
                Some(since)
            }
            Floor::Shared(source) => {
                let (since, root) = (source.since, self.reach.clone());
                let copying = move |stop: &dyn Fn() -> bool| {
                    root.untouched(|root, user| tree::copy_into(source.folder(), root, Content::Shared, user, stop))
                };
                stoppable(copying, halt).await?.map_err(|error| failed("source", &error))?;
                Some(since)
            }
            Floor::Mounted(source) => {
                let since = source.since;
                *floor = Floor::Mounted(source);
                Some(since)
            }
        };
        for (name, cache) in &self.assignment.caches {
            self.restore(name, cache, since, halt).await?;
        }
        Ok(())
    }

    async fn restore(&mut self, name: &str, cache: &CacheRestore, since: Option<u64>, halt: &mut Halt) -> Result<(), Trouble> {
        let digest = cache.tree.archive;
        let (need, latest) = if cache.required { (Need::Must, None) } else { (Need::May, since.map(|since| since.saturating_sub(1))) };
        let rules = Rules { latest, ..Rules::TREE };
        let problem = match self.open(&digest, need, halt).await? {
            Ok(opened) => self.unpack((&digest, opened), rules, Onto::Source, halt).await?.err().map(|error| chain(&error)),
            Err(error) => Some(chain(&error)),
        };
        match problem {
            None => Ok(()),
            Some(problem) if cache.required => Err(Trouble::Failed(format!("cannot restore the cache `{name}`: {problem}"))),
            Some(problem) => Ok(self.output.say(&format!("going on without the cache `{name}` of an earlier run: {problem}")).await?),
        }
    }

    /// Packs the caches that the stage defines, and stores what the depot does not have yet.
    pub(super) async fn keep(&mut self, halt: &mut Halt) -> Result<Vec<(String, StoredTree)>, Trouble> {
        let mut kept = Vec::new();
        for (name, definition) in &self.assignment.stage.caches {
            if let Some(tree) = self.keep_one(name, definition, halt).await? {
                kept.push((name.clone(), tree));
            }
        }
        Ok(kept)
    }

    async fn keep_one(&mut self, name: &str, definition: &CacheDefinition, halt: &mut Halt) -> Result<Option<StoredTree>, Trouble> {
        let failed = |reason: String| Trouble::Failed(format!("cannot keep the cache `{name}`: {reason}"));
        let paths = definition.paths.iter().map(|path| path.as_text().unwrap_or_default());
        let selection = Selection::new(paths).map_err(|error| failed(chain(&error)))?;
        let part = Part(self.tools.archives.part().map_err(|error| failed(chain(&error)))?);
        let (root, path) = (self.reach.clone(), part.0.clone());
        let packing = move |stop: &dyn Fn() -> bool| pack(&root, &selection, &path, stop);
        let (packed, digest) = stoppable(packing, halt).await?.map_err(failed)?;
        for missing in &packed.missing {
            self.output.say(&format!("the cache `{name}` is kept without `{missing}`, which is not there")).await?;
        }
        if packed.left_out_count > 0 {
            let first: Vec<_> = packed.left_out.iter().map(ToString::to_string).collect();
            let text = format!("the cache `{name}` is kept without {} sockets and pipes: {}", packed.left_out_count, first.join(", "));
            self.output.say(&text).await?;
        }
        if packed.entries == 0 {
            return Ok(None);
        }
        self.store(name, &part.0, &digest, halt).await?;
        Ok(Some(StoredTree { archive: digest, bytes: packed.bytes, entries: packed.entries }))
    }

    /// Stores an archive, unless the depot has it.
    async fn store(&mut self, name: &str, path: &Path, digest: &Digest, halt: &mut Halt) -> Result<(), Trouble> {
        let (archives, blobs) = (&self.tools.archives, self.blobs());
        if archives.is_known(digest) {
            return Ok(());
        }
        let mut pause = STORE_PAUSE;
        loop {
            let stored = tokio::select! {
                stored = blobs.put_file(path) => stored,
                stop = halt.stopped() => return Err(Trouble::Stopped(stop)),
            };
            match stored {
                Ok(_) => break,
                Err(BlobError::Unavailable(reason)) => {
                    self.output.say(&format!("the cache `{name}` is not stored yet, trying again: {reason}")).await?;
                }
                Err(error) => return Err(Trouble::Failed(format!("cannot store the cache `{name}`: {}", chain(&error)))),
            }
            tokio::select! {
                () = sleep(pause) => {}
                stop = halt.stopped() => return Err(Trouble::Stopped(stop)),
            }
            pause = (2 * pause).min(STORE_PAUSE_MAX);
        }
        archives.adopt(digest, path, matches!(blobs, Blobs::Disk(_))).await;
        Ok(())
    }

    fn blobs(&self) -> Blobs {
        self.tools.blobs.with_token(&self.assignment.depot_token)
    }

    async fn open(&self, digest: &Digest, need: Need, halt: &mut Halt) -> Result<Result<Opened, ArchiveError>, Trouble> {
        let blobs = self.blobs();
        tokio::select! {
            opened = self.tools.archives.open(digest, &blobs, need) => Ok(opened),
            stop = halt.stopped() => Err(Trouble::Stopped(stop)),
        }
    }

    /// Unpacks into the work directory.
    async fn unpack(
        &self,
        (digest, opened): (&Digest, Opened),
        rules: Rules,
        onto: Onto,
        halt: &mut Halt,
    ) -> Result<Result<(), UnpackError>, Trouble> {
        let (root, expected) = (self.reach.clone(), *digest);
        let unpacking = move |stop: &dyn Fn() -> bool| {
            let archive = Archive::tar(opened.file).expect(expected);
            let unpacked = root.within(|root| match onto {
                Onto::Nothing => tree::unpack_first(archive, root, &rules, stop),
                Onto::Source => tree::unpack_into(archive, (root, Path::new("")), &rules, stop),
            });
            unpacked.unwrap_or_else(|error| Err(UnpackError::Unreadable(error))).map(drop)
        };
        let unpacked = stoppable(unpacking, halt).await?;
        if let Err(UnpackError::Damaged { .. }) = &unpacked {
            // It is fetched again the next time.
            self.tools.archives.forget(digest).await;
        }
        Ok(unpacked)
    }
}

/// What lies in the work directory already.
#[derive(Debug, Clone, Copy)]
enum Onto {
    Nothing,
    Source,
}

/// A file that goes with this, if it is still there.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // It was moved, or never made.
        let _gone = fs::remove_file(&self.0);
    }
}

/// Packs to a new file, and gives its digest. This process sees more than the stage did: where a step has put a link in the place of the work
/// directory, it is not followed.
fn pack(root: &Reach, selection: &Selection, path: &Path, stop: &dyn Fn() -> bool) -> Result<(Packed, Digest), String> {
    let held = root.hold().map_err(|error| format!("the work directory is no folder any more: {error}"))?;
    let path_held = path_of(&held);
    let mut output = Hashed { file: File::create_new(path).map_err(|error| chain(&error))?, digest: Digest::builder() };
    let packed = root.act(|| tree::pack(&path_held, selection, (Times::Kept, Limits::TREE), &mut output, stop));
    let packed = packed.map_err(|error| chain(&error))?;
    Ok((packed, output.digest.finish()))
}

/// Hashes what is written through it.
struct Hashed {
    file: File,
    digest: DigestBuilder,
}

impl io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes)?;
        self.digest.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
