//! What a work directory is made of, found before the attempt's processes have a place: a snapshot that is mounted is a part of that.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use model::{Digest, protocol::agent::Assignment};
use service::supervisor::chain;
use tokio::task::spawn_blocking;
use tree::UnpackError;

use super::{
    Tools,
    archives::{Need, Opened},
    halt::{Halt, Stop},
    output::OutputError,
    sources::{SNAPSHOT_BYTES_MIN, Source},
    workspace::Workspace,
};
use crate::{sandbox::Overlay, spool::Entry};

/// Why there is no ground, or nothing left of it.
#[derive(Debug)]
pub(super) enum Trouble {
    Stopped(Stop),
    Failed(String),
}

impl From<OutputError> for Trouble {
    fn from(error: OutputError) -> Self {
        Self::Failed(chain(&error))
    }
}

/// What a work directory is made of. A source that is kept stays as long as this.
#[derive(Debug)]
pub(super) enum Floor {
    /// Nothing.
    Bare,
    /// An archive, which is unpacked into it.
    Archive(Digest, Opened),
    /// A source that is kept unpacked, whose files share their content with the work directory's.
    Shared(Arc<Source>),
    /// A source that is kept unpacked, over which the work directory is mounted.
    Mounted(Arc<Source>),
    /// The source is not to be had.
    Missing(Trouble),
}

impl Floor {
    /// Finds it.
    pub(super) async fn find(assignment: &Assignment, tools: &Tools, entry: &Entry, halt: &mut Halt) -> Self {
        match assignment.source.filter(|_| !assignment.stage.bare && !entry.workspace().is_foreign()) {
            None => Self::Bare,
            Some(digest) => Self::of(&digest, assignment, tools, halt).await.unwrap_or_else(Self::Missing),
        }
    }

    async fn of(digest: &Digest, assignment: &Assignment, tools: &Tools, halt: &mut Halt) -> Result<Self, Trouble> {
        let blobs = tools.blobs.with_token(&assignment.depot_token);
        let opened = tokio::select! {
            opened = tools.archives.open(digest, &blobs, Need::Must) => opened.map_err(|error| failed("source", &error))?,
            stop = halt.stopped() => return Err(Trouble::Stopped(stop)),
        };
        let bytes = opened.file.metadata().map_err(|error| failed("source", &error))?.len();
        if bytes < SNAPSHOT_BYTES_MIN {
            return Ok(Self::Archive(*digest, opened));
        }
        // A container sees what is mounted on the machine, not what an init has mounted for itself.
        let is_mounted = assignment.stage.container.is_none() && tools.sandbox.overlays().await;
        if !is_mounted && !tools.sources.reflinks() {
            return Ok(Self::Archive(*digest, opened));
        }
        // What waits for another attempt that unpacks the same ends with its own stop.
        let mut waiting = halt.clone();
        let kept = tokio::select! {
            kept = tools.sources.get(digest, opened, async |unpacking| stoppable(move |stop| unpacking.run(stop), halt).await) => kept?,
            stop = waiting.stopped() => return Err(Trouble::Stopped(stop)),
        };
        if let Err(UnpackError::Damaged { .. }) = &kept {
            // It is fetched again the next time.
            tools.archives.forget(digest).await;
        }
        let source = kept.map_err(|error| failed("source", &error))?;
        Ok(if is_mounted { Self::Mounted(source) } else { Self::Shared(source) })
    }

    /// What is to be mounted in this workspace. Makes the folders that this needs.
    pub(super) fn overlay(&self, workspace: &Workspace) -> io::Result<Option<Overlay>> {
        let Self::Mounted(source) = self else { return Ok(None) };
        Ok(Some(Overlay { lower: source.folder().to_owned(), layers: workspace.layers()?, at: workspace.source() }))
    }
}

pub(super) fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> Trouble {
    Trouble::Failed(format!("cannot prepare the {what}: {}", chain(error)))
}

/// Does something that takes time on a thread of its own, and waits for its end even where it is to be stopped: what it works on is removed
/// afterwards.
pub(super) async fn stoppable<T: Send + 'static>(
    work: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
    halt: &mut Halt,
) -> Result<T, Trouble> {
    let enough = Arc::new(AtomicBool::new(false));
    let told = enough.clone();
    let mut working = spawn_blocking(move || work(&|| told.load(Ordering::Relaxed)));
    let done = tokio::select! {
        done = &mut working => done,
        stop = halt.stopped() => {
            enough.store(true, Ordering::Relaxed);
            // Whatever became of it.
            let _stopped = working.await;
            return Err(Trouble::Stopped(stop));
        }
    };
    done.map_err(|error| Trouble::Failed(chain(&error)))
}
