//! An attempt's output: live to the bus, whole to the spool, byte for byte as it came.
//!
//! The spool holds up the step that speaks, and nobody else. The bus holds up nobody: what it does not take, or what is too much for people to
//! read along, those who follow are given from the depot a moment later.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use eventbus::{Bus, Subject};
use model::{
    Timestamp,
    event::run::LogSegment,
    protocol::{
        agent::Lease,
        log::{CHUNK_BYTES_MAX, LogChunk, LogHeader, LogMark, Stream},
    },
};
use service::clock;
use tokio::time::{Instant, timeout};
use tracing::{debug, trace};

use crate::spool::parts::{OUTPUT_BYTES_MAX, Parts};

/// How long a live chunk may wait for the bus. When that is over, followers get the rest from the depot.
const LIVE_PATIENCE: Duration = Duration::from_millis(250);
/// How long the bus is left alone after it did not take a chunk, so that a stage without a bus runs at most a quarter slower.
const LIVE_PAUSE: Duration = Duration::from_secs(1);
/// What the attempts of one agent say live at most, together and in bytes a second: far more than anybody reads, far less than what a bus for
/// all can carry. Reports of other attempts go through the same connection, and must not stand behind it.
const LIVE_BYTES_PER_S: f64 = 8.0 * 1024.0 * 1024.0;
/// What they may say at once after they were quiet.
const LIVE_BURST_BYTES: f64 = 2.0 * 1024.0 * 1024.0;
/// The least that one may say at once, however many there are: a chunk.
#[expect(clippy::cast_precision_loss, reason = "some thousand")]
const LIVE_BURST_BYTES_MIN: f64 = CHUNK_BYTES_MAX as f64;

/// Why output could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// The disk does not take it.
    #[error("cannot keep the output on the agent's disk")]
    Disk(#[from] io::Error),
    /// There is too much.
    #[error("the stage said more than {} MiB, with what is kept of when and where it said it", OUTPUT_BYTES_MAX / 1024 / 1024)]
    TooMuch,
}

/// Where an attempt's output goes.
#[derive(Debug)]
pub(crate) struct Output {
    parts: Parts,
    live: Live,
    share: LiveShare,
    offset: u64,
    lines: u64,
    step: u32,
    /// The disk did not take all of a chunk: what would come after it would stand in the wrong place.
    is_broken: bool,
    /// The bus did not take all that it was given.
    has_missed: bool,
}

impl Output {
    /// What the attempt says to the spool and to `live`, from its first byte; to the latter no more than its `share`.
    pub(crate) fn new(parts: Parts, live: Live, share: LiveShare) -> Self {
        Self { parts, live, share, offset: 0, lines: 0, step: 0, is_broken: false, has_missed: false }
    }

    /// Takes what a stream of step `step` said. When this returns it is in the spool, and on the bus if that is there.
    pub(crate) async fn write(&mut self, step: u32, stream: Stream, bytes: &[u8]) -> Result<(), OutputError> {
        self.step = step;
        if self.is_broken {
            return Err(io::Error::other("it refused before").into());
        }
        for piece in bytes.chunks(CHUNK_BYTES_MAX) {
            let length = u32::try_from(piece.len()).expect("a chunk has at most CHUNK_BYTES_MAX bytes");
            let at = Timestamp(clock::unix_ms());
            let mark = LogMark { offset: self.offset, length, step, stream, at, lines_before: self.lines };
            self.is_broken = true;
            let kept = self.chunk(mark, piece).await;
            // Of what is too much, nothing was written.
            self.is_broken = matches!(kept, Err(OutputError::Disk(_)));
            kept?;
            self.offset += u64::from(length);
            self.lines += memchr::memchr_iter(b'\n', piece).count() as u64;
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
        trace!(target: crate::WATERFALL, point = "first byte", lease = ?self.live.lease, stream = ?mark.stream);
        let is_live = self.share.takes(bytes.len(), Instant::now());
        let (parts, kept, its_mark) = (self.parts.clone(), bytes.to_vec(), mark.clone());
        let keeping = tokio::task::spawn_blocking(move || parts.append(&its_mark, &kept, !is_live));
        let is_said = is_live && self.live.say(mark, bytes.to_vec(), Vec::new()).await;
        keeping.await.map_err(io::Error::other)??;
        if is_said && std::mem::take(&mut self.has_missed) {
            self.parts.hurry();
        }
        self.has_missed |= is_live && !is_said;
        Ok(())
    }
}

/// What all attempts of an agent may say live. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct LiveBudget(Arc<()>);

impl LiveBudget {
    /// The part of one more attempt, until it is dropped: as much as any other has, so that who prints little is heard beside those who print
    /// much.
    pub(crate) fn share(&self) -> LiveShare {
        LiveShare { budget: self.clone(), allowed: (LIVE_BURST_BYTES, Instant::now()) }
    }

    /// How many have a share.
    #[expect(clippy::cast_precision_loss, reason = "some hundred")]
    fn sharers(&self) -> f64 {
        // One is the agent's own.
        (Arc::strong_count(&self.0) - 1).max(1) as f64
    }
}

/// What one attempt may say live.
#[derive(Debug)]
pub(crate) struct LiveShare {
    budget: LiveBudget,
    /// Bytes that may be said at once, as of then.
    allowed: (f64, Instant),
}

impl LiveShare {
    /// Whether so much may be said now; if so, it counts as said.
    fn takes(&mut self, bytes: usize, now: Instant) -> bool {
        let sharers = self.budget.sharers();
        let (allowed, then) = self.allowed;
        let allowed = allowed + (now - then).as_secs_f64() * LIVE_BYTES_PER_S / sharers;
        let allowed = allowed.min((LIVE_BURST_BYTES / sharers).max(LIVE_BURST_BYTES_MIN));
        let bytes = f64::from(u32::try_from(bytes).expect("a chunk has at most CHUNK_BYTES_MAX bytes"));
        let takes = bytes <= allowed;
        self.allowed = (if takes { allowed - bytes } else { allowed }, now);
        takes
    }
}

/// What an attempt says on the bus.
#[derive(Debug)]
pub(crate) struct Live {
    bus: Bus,
    subject: Subject,
    lease: Lease,
    /// Until then the bus is left alone.
    quiet_until: Option<Instant>,
}

impl Live {
    pub(crate) fn new(bus: Bus, subject: Subject, lease: Lease) -> Self {
        Self { bus, subject, lease, quiet_until: None }
    }

    /// Says it, if the bus takes it; tells whether it did.
    async fn say(&mut self, mark: LogMark, bytes: Vec<u8>, segments: Vec<LogSegment>) -> bool {
        if self.quiet_until.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        self.quiet_until = None;
        let chunk = LogChunk { header: LogHeader { lease: self.lease.clone(), mark, segments }, bytes };
        let problem = match timeout(LIVE_PATIENCE, self.bus.publish_bytes(&self.subject, Bytes::from(chunk.encode()))).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => service::supervisor::chain(&error),
            Err(_) => "the bus did not take it in time".to_owned(),
        };
        debug!(lease = ?self.lease, problem, "a live chunk was dropped");
        self.quiet_until = Some(Instant::now() + LIVE_PAUSE);
        false
    }

    /// Says which parts of the output lie in the depot by now.
    pub(crate) async fn announce(&mut self, segments: Vec<LogSegment>) {
        let offset = segments.last().map_or(0, |segment| segment.offset + segment.length);
        let at = Timestamp(clock::unix_ms());
        let mark = LogMark { offset, length: 0, step: 0, stream: Stream::Otto, at, lines_before: 0 };
        self.say(mark, Vec::new(), segments).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many chunks of this size are said live in a second, of one every millisecond.
    fn said(share: &mut LiveShare, bytes: usize, begin: Instant) -> usize {
        (1..=1_000).filter(|ms| share.takes(bytes, begin + Duration::from_millis(*ms))).count()
    }

    #[test]
    fn attempts_that_print_much_share_what_is_said_live_and_who_prints_little_is_heard() {
        let budget = LiveBudget::default();
        let mut shares: Vec<LiveShare> = (0..9).map(|_| budget.share()).collect();
        let begin = Instant::now();
        let mut quiet = shares.pop().unwrap();
        let much: usize = shares.iter_mut().map(|share| said(share, CHUNK_BYTES_MAX, begin) * CHUNK_BYTES_MAX).sum();
        assert!((6 << 20..11 << 20).contains(&much), "{much}");
        assert_eq!(said(&mut quiet, 80, begin), 1_000);
        drop((shares, quiet));
        let alone = said(&mut budget.share(), CHUNK_BYTES_MAX, begin) * CHUNK_BYTES_MAX;
        assert!((8 << 20..11 << 20).contains(&alone), "{alone}");
    }

    #[test]
    fn among_very_many_attempts_each_has_a_chunk_now_and_then() {
        let budget = LiveBudget::default();
        let mut shares: Vec<LiveShare> = (0..1_000).map(|_| budget.share()).collect();
        let begin = Instant::now();
        assert!(shares.iter_mut().all(|share| share.takes(CHUNK_BYTES_MAX, begin + Duration::from_secs(10))));
    }
}
