//! An attempt's output: live to the bus, whole to the spool, byte for byte as it came.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use bytes::Bytes;
use eventbus::{Bus, Subject};
use model::{
    Timestamp,
    protocol::{
        agent::Lease,
        log::{CHUNK_BYTES_MAX, LogChunk, LogHeader, LogMark, Stream},
    },
};
use service::clock;
use tokio::time::{Instant, timeout};
use tracing::{debug, trace};

use crate::spool::OutputFiles;

/// The most output of one attempt: what one stage says must not fill the disks of all.
pub(crate) const OUTPUT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// How long a live chunk may wait for the bus. When that is over, followers get the rest from the depot.
const LIVE_PATIENCE: Duration = Duration::from_millis(250);
/// How long the bus is left alone after it did not take a chunk, so that a stage without a bus runs at most a quarter slower.
const LIVE_PAUSE: Duration = Duration::from_secs(1);

/// Why output could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// The disk does not take it.
    #[error("cannot keep the output on the agent's disk")]
    Disk(#[from] io::Error),
    /// There is too much.
    #[error("the stage said more than {} MiB", OUTPUT_BYTES_MAX / 1024 / 1024)]
    TooMuch,
}

/// Where an attempt's output goes.
#[derive(Debug)]
pub(crate) struct Output {
    bus: Bus,
    subject: Subject,
    lease: Lease,
    files: OutputFiles,
    offset: u64,
    step: u32,
    /// The disk did not take all of a chunk: what would come after it would stand in the wrong place.
    is_broken: bool,
    /// Until then the bus is left alone.
    quiet_until: Option<Instant>,
}

impl Output {
    /// The output of `lease`, from its first byte.
    pub(crate) fn new(bus: Bus, subject: Subject, lease: Lease, files: OutputFiles) -> Self {
        Self { bus, subject, lease, files, offset: 0, step: 0, is_broken: false, quiet_until: None }
    }

    /// Takes what a stream of step `step` said. When this returns it is in the spool, and on the bus if that is there.
    pub(crate) async fn write(&mut self, step: u32, stream: Stream, bytes: &[u8]) -> Result<(), OutputError> {
        self.step = step;
        if self.is_broken {
            return Err(io::Error::other("it refused before").into());
        }
        for piece in bytes.chunks(CHUNK_BYTES_MAX) {
            if self.offset + piece.len() as u64 > OUTPUT_BYTES_MAX {
                return Err(OutputError::TooMuch);
            }
            let length = u32::try_from(piece.len()).expect("a chunk has at most CHUNK_BYTES_MAX bytes");
            let mark = LogMark { offset: self.offset, length, step, stream, at: Timestamp(clock::unix_ms()) };
            self.is_broken = true;
            self.chunk(mark, piece).await?;
            self.is_broken = false;
            self.offset += u64::from(length);
        }
        Ok(())
    }

    /// A line of Otto's own, before step `step` begins.
    pub(crate) async fn announce(&mut self, step: u32, text: &str) -> Result<(), OutputError> {
        self.step = step;
        self.say(text).await
    }

    /// A line of Otto's own about the step that was the last to say something.
    pub(crate) async fn say(&mut self, text: &str) -> Result<(), OutputError> {
        self.write(self.step, Stream::Otto, format!("[otto] {text}\n").as_bytes()).await
    }

    async fn chunk(&mut self, mark: LogMark, bytes: &[u8]) -> Result<(), OutputError> {
        trace!(target: crate::WATERFALL, point = "first byte", lease = ?self.lease, stream = ?mark.stream);
        let mut line = serde_json::to_vec(&mark).expect("a mark has text keys only");
        line.push(b'\n');
        let chunk = LogChunk { header: LogHeader { lease: self.lease.clone(), mark }, bytes: bytes.to_vec() };
        let message = Bytes::from(chunk.encode());
        let files = self.files.clone();
        let kept = tokio::task::spawn_blocking(move || {
            // The index last: it never names bytes that are not there.
            (&*files.output).write_all(&chunk.bytes)?;
            (&*files.index).write_all(&line)
        });
        self.live(message).await;
        kept.await.map_err(io::Error::other)??;
        Ok(())
    }

    async fn live(&mut self, message: Bytes) {
        if self.quiet_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.quiet_until = None;
        let problem = match timeout(LIVE_PATIENCE, self.bus.publish_bytes(&self.subject, message)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => service::supervisor::chain(&error),
            Err(_) => "the bus did not take it in time".to_owned(),
        };
        debug!(lease = ?self.lease, problem, "a live chunk was dropped");
        self.quiet_until = Some(Instant::now() + LIVE_PAUSE);
    }
}
