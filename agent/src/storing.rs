//! Stores what an attempt says in the depot: each part of its output when it is full, and the rest when the attempt is over.
//!
//! **Invariant:** a part leaves the agent's disk only after the journal says where it lies.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs::File,
    future::pending,
    io::{self, Read as _},
    path::Path,
    time::Duration,
};

use blob::{BlobError, Blobs};
use bytes::Bytes;
use model::{
    Digest,
    event::run::{LogSegment, StoredLog},
    protocol::log::ANNOUNCED_SEGMENTS_MAX,
};
use service::supervisor::{TaskError, chain};
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};
use tracing::warn;

use crate::{
    executor::output::Live,
    spool::{
        Entry, Line,
        parts::{Parts, Progress, Ready},
    },
};

/// Tries to store a part: with the pauses about a day, in which the attempt's rights in the depot end.
const STORE_TRIES_MAX: u32 = 1_500;
/// The pause after the first try; it doubles each time.
const STORE_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const STORE_PAUSE_MAX: Duration = Duration::from_mins(1);
/// A part with its index that is one blob: most stages say little, and a blob costs the depot two syncs of its disk, however small it is.
const ONE_BLOB_BYTES_MAX: u64 = 64 * 1024;

/// The output of one attempt on its way to the depot. Every call may be dropped, and another one takes up where it was.
#[derive(Debug)]
pub(crate) struct Storing {
    blobs: Blobs,
    entry: Entry,
    live: Live,
    stored: BTreeMap<u32, LogSegment>,
    /// The next part.
    part: u32,
    /// The depot will never take it.
    refused: Option<TaskError>,
}

impl Storing {
    /// What of `entry` is not among `stored`. `blobs` with the rights of the attempt.
    pub(crate) fn new(blobs: Blobs, entry: Entry, live: Live, stored: BTreeMap<u32, LogSegment>) -> Self {
        let part = stored.last_key_value().map_or(0, |(part, _)| part + 1);
        Self { blobs, entry, live, stored, part, refused: None }
    }

    /// Stores each part of a running attempt when it is full or overdue, and says so to those who follow. To who has `asked` it says where
    /// all parts lie, and stores what there is besides.
    pub(crate) async fn follow(&mut self, parts: &Parts, asked: &Notify) -> Infallible {
        let mut progress = parts.progress();
        let mut tells_all = false;
        while self.refused.is_none() {
            let Progress { full, due_at } = *progress.borrow_and_update();
            if self.part < full {
                match self.store().await {
                    Ok(()) => self.announce().await,
                    Err(error) => self.refused = Some(error),
                }
                continue;
            }
            if std::mem::take(&mut tells_all) {
                self.announce_all().await;
            }
            let end_early = tokio::select! {
                changed = progress.changed() => {
                    changed.expect("its sender is borrowed here");
                    continue;
                }
                () = due(due_at) => true,
                () = asked.notified() => {
                    tells_all = true;
                    parts.may_end_early()
                }
            };
            let parts = parts.clone();
            if end_early && let problem @ (Err(_) | Ok(Err(_))) = spawn_blocking(move || parts.end(full)).await {
                warn!(?problem, "a part of an attempt's output is not ended early");
                break;
            }
        }
        pending().await
    }

    /// Stores what is left of an attempt that is over.
    pub(crate) async fn finish(&mut self) -> Result<StoredLog, TaskError> {
        if let Some(refused) = self.refused.take() {
            return Err(refused);
        }
        while tokio::fs::try_exists(self.entry.output(self.part)).await? {
            self.store().await?;
        }
        let segments: Vec<LogSegment> = self.stored.values().cloned().collect();
        let length = segments.iter().map(|segment| segment.length).sum();
        Ok(StoredLog { segments, length })
    }

    async fn store(&mut self) -> Result<(), TaskError> {
        let (part, entry) = (self.part, self.entry.clone());
        if let Some(Ready { offset, lines_before, length, index }) = spawn_blocking(move || entry.ready(part)).await?? {
            let path = self.entry.output(part);
            let (bytes, index) = if length + index.len() as u64 <= ONE_BLOB_BYTES_MAX {
                let both = spawn_blocking(move || both(&path, length, index)).await??;
                let digest = tried(|| self.blobs.put(both.clone())).await?;
                (digest, digest)
            } else {
                let index = Bytes::from(index);
                tokio::try_join!(tried(|| self.blobs.put_file(&path)), tried(|| self.blobs.put(index.clone())))?
            };
            let segment = LogSegment { bytes, length, offset, lines_before, index };
            // Before anything is waited for: the part must not be stored again while it is being removed.
            self.stored.insert(part, segment.clone());
            self.part += 1;
            let entry = self.entry.clone();
            let noted = spawn_blocking(move || entry.write(&Line::Stored { part, segment }).and_then(|()| entry.forget_part(part))).await?;
            if let Err(error) = noted {
                warn!(%error, "what was stored of an attempt's output stays on the agent's disk until the attempt is forgotten");
            }
            return Ok(());
        }
        self.part += 1;
        Ok(())
    }

    /// Says where everything lies, also to who was away when it was stored.
    async fn announce_all(&mut self) {
        let segments: Vec<LogSegment> = self.stored.values().cloned().collect();
        if segments.is_empty() {
            // Who hears this knows that nothing was said before.
            return self.live.announce(segments).await;
        }
        for some in segments.chunks(ANNOUNCED_SEGMENTS_MAX) {
            self.live.announce(some.to_vec()).await;
        }
    }

    async fn announce(&mut self) {
        let newest = self.stored.values().rev().take(ANNOUNCED_SEGMENTS_MAX).cloned();
        let mut segments: Vec<LogSegment> = newest.collect();
        segments.reverse();
        self.live.announce(segments).await;
    }
}

/// The bytes of a part, and its index after them.
fn both(output: &Path, length: u64, index: Vec<u8>) -> io::Result<Bytes> {
    let mut both = Vec::new();
    File::open(output)?.take(length).read_to_end(&mut both)?;
    if both.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    both.extend(index);
    Ok(both.into())
}

/// Tries until the depot takes it.
async fn tried<F: Future<Output = Result<Digest, BlobError>>>(store: impl Fn() -> F) -> Result<Digest, TaskError> {
    let mut pause = STORE_PAUSE;
    for _ in 0..STORE_TRIES_MAX {
        match store().await {
            Ok(digest) => return Ok(digest),
            Err(error @ (BlobError::Refused { .. } | BlobError::TooLarge { .. })) => return Err(error.into()),
            Err(BlobError::Disk { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Err(source.into()),
            Err(error) => warn!(error = chain(&error), "output is not stored yet"),
        }
        sleep(pause).await;
        pause = (2 * pause).min(STORE_PAUSE_MAX);
    }
    Err("the depot never took it".into())
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
