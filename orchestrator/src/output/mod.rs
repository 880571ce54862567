//! The output of a run's stages in the order of its bytes: what is stored, what is buffered, and what comes live, each byte once.
//!
//! ```text
//! depot (stored) ─┐
//! buffer ─────────┼─▶ cursor of the attempt ─▶ Chunk │ Gap ─▶ … ─▶ End
//! live feed ──────┘
//! ```
//!
//! An attempt's cursor only moves forward: what lies before it was given, what jumps over it leaves a marked gap. Live chunks are soft, and
//! the stored output is whole: so an attempt is complete when its cursor stands at the end of what is stored, and until then who follows
//! waits for it, but not for ever ([`STORED_WAIT`]).

mod stored;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::pending,
    sync::Arc,
    time::Duration,
};

use apispec::{Base64, ChunkView, EndView, GapReason, GapView};
use model::{
    Timestamp,
    event::run::{RunEvent, StoredLog},
    protocol::{
        agent::Lease,
        log::{LogChunk, LogMark},
    },
};
use service::{clock, supervisor::chain};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Instant, sleep_until},
};
use tracing::warn;

use self::stored::StoredOutput;
use crate::{
    Orchestrator,
    core::{AttemptEnd, Run, shape::Index},
    http::view::end,
    runs::Appended,
};

/// How long after a run's end its outputs may take to be stored before who follows is told that they are not: an agent stores them
/// within a second, and one that is cut off may take for ever.
const STORED_WAIT: Duration = Duration::from_secs(10);

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Some bytes.
    Chunk(ChunkView),
    /// Missing bytes.
    Gap(GapView),
    /// The run has ended, and so has its output.
    End(EndView),
}

/// Output that is being read. Dropping a call of [`Output::next`] loses output; keep the future, as a stream does.
#[derive(Debug)]
pub struct Output {
    orchestrator: Orchestrator,
    run: Arc<Run>,
    only: Option<Index>,
    feeds: Option<Feeds>,
    cursors: BTreeMap<Lease, Cursor>,
    /// Stages that are to be looked at, by their place in the plan.
    unseen: BTreeSet<Index>,
    reading: Option<Reading>,
    ready: VecDeque<Piece>,
    /// When the outputs that are missing after the run's end count as absent.
    deadline: Option<Instant>,
    over: bool,
}

/// What comes from now on.
#[derive(Debug)]
struct Feeds {
    live: broadcast::Receiver<Arc<LogChunk>>,
    appended: broadcast::Receiver<Arc<Appended>>,
}

#[derive(Debug, Default)]
struct Cursor {
    /// Bytes of the attempt that were given or marked as missing.
    offset: u64,
    /// Nothing of the attempt will be given any more.
    complete: bool,
}

#[derive(Debug)]
struct Reading {
    lease: Lease,
    length: u64,
    stored: StoredOutput,
}

/// What woke a follower.
enum Woken {
    Chunk(Arc<LogChunk>),
    Record(Arc<Appended>),
    Lagged,
    Deadline,
    Closed,
}

impl Output {
    /// Everything there is now, and nothing that comes later.
    pub fn so_far(orchestrator: Orchestrator, run: Arc<Run>, only: Option<Index>) -> Self {
        Self::new(orchestrator, run, only, None)
    }

    /// Everything there is, then all that comes until the run's end.
    pub fn follow(orchestrator: Orchestrator, run: Arc<Run>, only: Option<Index>) -> Self {
        // Follow first, then look: what comes in between is in both, and given once.
        let feeds = Feeds { live: orchestrator.logs.follow(), appended: orchestrator.runs.follow() };
        let mut output = Self::new(orchestrator, run, only, Some(feeds));
        output.refresh();
        output
    }

    fn new(orchestrator: Orchestrator, run: Arc<Run>, only: Option<Index>, feeds: Option<Feeds>) -> Self {
        let mut output = Self {
            orchestrator,
            run,
            only,
            feeds,
            cursors: BTreeMap::new(),
            unseen: BTreeSet::new(),
            reading: None,
            ready: VecDeque::new(),
            deadline: None,
            over: false,
        };
        output.look_at_all();
        output
    }

    /// The next piece; nothing after the last.
    pub async fn next(&mut self) -> Option<Piece> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(piece);
            }
            if let Some(reading) = self.reading.take() {
                self.read(reading).await;
            } else if let Some(at) = self.unseen.pop_first() {
                self.look_at(at).await;
            } else if self.over {
                return None;
            } else {
                self.wait().await;
            }
        }
    }

    /// Everything known was given: ends, or waits for more.
    async fn wait(&mut self) {
        if let Some(end) = end(&self.run) {
            let left = STORED_WAIT.saturating_sub(Timestamp(clock::unix_ms()).since(end.ended_at));
            let deadline = *self.deadline.get_or_insert(Instant::now() + left);
            let too_late = Instant::now() >= deadline;
            if too_late {
                self.mark_absent();
            }
            if too_late || self.incomplete().is_empty() {
                self.ready.push_back(Piece::End(end));
                self.over = true;
                return;
            }
        }
        if self.feeds.is_none() {
            self.over = true;
            return;
        }
        match self.woken().await {
            Woken::Chunk(chunk) => self.take_live(&chunk),
            Woken::Record(record) => self.take_record(&record),
            Woken::Lagged => {
                self.refresh();
                self.look_at_all();
            }
            Woken::Deadline => {}
            Woken::Closed => self.over = true,
        }
    }

    async fn woken(&mut self) -> Woken {
        let Some(feeds) = &mut self.feeds else { return Woken::Closed };
        let deadline = self.deadline;
        let at_deadline = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        // Output first: what a stage wrote was sent before its end was reported.
        tokio::select! {
            biased;
            chunk = feeds.live.recv() => woken(chunk, Woken::Chunk),
            record = feeds.appended.recv() => woken(record, Woken::Record),
            () = at_deadline => Woken::Deadline,
        }
    }

    fn refresh(&mut self) {
        if let Some(snapshot) = self.orchestrator.runs.get(&self.run.id) {
            self.run = snapshot.run;
        }
    }

    fn look_at_all(&mut self) {
        self.unseen = match self.only {
            Some(at) => BTreeSet::from([at]),
            None => (0..self.run.shape.len()).collect(),
        };
    }

    fn is_wanted(&self, at: Index) -> bool {
        self.only.is_none_or(|only| only == at)
    }

    /// Only where output lies and that it will never come concern a follower; the rest shows in the chunks.
    fn take_record(&mut self, record: &Appended) {
        if record.run != self.run.id {
            return;
        }
        self.refresh();
        for event in &record.record.events {
            if let RunEvent::StageLogStored { stage, .. } | RunEvent::StageLost { stage, .. } = event
                && let Some(at) = self.run.shape.find(stage).filter(|at| self.is_wanted(*at))
            {
                self.unseen.insert(at);
            }
        }
    }

    fn take_live(&mut self, chunk: &LogChunk) {
        let lease = &chunk.header.lease;
        if lease.attempt.run != self.run.id {
            return;
        }
        if !self.cursors.contains_key(lease) {
            self.refresh();
            let wanted = self.run.attempt_of(lease).is_some_and(|(at, _)| self.is_wanted(at));
            if !wanted {
                return;
            }
        }
        self.give(lease, &chunk.header.mark, &chunk.bytes);
    }

    /// Gives what there is of a stage's attempts, one after the other.
    async fn look_at(&mut self, at: Index) {
        let run = self.run.clone();
        for attempt in &run.stages[at].attempts {
            let lease = run.lease(at, attempt);
            if matches!(attempt.end, Some(AttemptEnd::Declined { .. })) || self.cursors.get(&lease).is_some_and(|cursor| cursor.complete) {
                continue;
            }
            if let Some(log) = &attempt.log {
                self.open(lease, log).await;
                // The others have their turn when this one was read.
                self.unseen.insert(at);
                return;
            }
            for chunk in self.orchestrator.logs.buffered(&lease) {
                self.give(&lease, &chunk.header.mark, &chunk.bytes);
            }
            if matches!(attempt.end, Some(AttemptEnd::Lost { .. })) {
                self.complete(&lease, None, GapReason::NeverStored);
            }
        }
    }

    async fn open(&mut self, lease: Lease, log: &StoredLog) {
        if self.cursors.entry(lease.clone()).or_default().offset >= log.length {
            return self.complete(&lease, Some(log.length), GapReason::NotKept);
        }
        match StoredOutput::open(&self.orchestrator.blobs, log).await {
            Ok(stored) => self.reading = Some(Reading { lease, length: log.length, stored }),
            Err(error) => {
                warn!(attempt = %lease.attempt, error = chain(&error), "stored output cannot be read");
                self.complete(&lease, Some(log.length), GapReason::DepotUnavailable);
            }
        }
    }

    async fn read(&mut self, mut reading: Reading) {
        let offset = self.cursors.get(&reading.lease).map_or(0, |cursor| cursor.offset);
        match reading.stored.next(offset).await {
            Ok(Some((mark, bytes))) => {
                self.give(&reading.lease, &mark, &bytes);
                self.reading = Some(reading);
            }
            Ok(None) => self.complete(&reading.lease, Some(reading.length), GapReason::NotKept),
            Err(error) => {
                warn!(attempt = %reading.lease.attempt, error = chain(&error), "stored output cannot be read");
                self.complete(&reading.lease, Some(reading.length), GapReason::DepotUnavailable);
            }
        }
    }

    /// Gives the part of a chunk that was not given yet.
    fn give(&mut self, lease: &Lease, mark: &LogMark, bytes: &[u8]) {
        let cursor = self.cursors.entry(lease.clone()).or_default();
        let known = usize::try_from(cursor.offset.saturating_sub(mark.offset)).unwrap_or(usize::MAX);
        let Some(fresh) = bytes.get(known..).filter(|fresh| !fresh.is_empty() && !cursor.complete) else { return };
        let from = std::mem::replace(&mut cursor.offset, mark.offset + bytes.len() as u64);
        if from < mark.offset {
            self.gap(lease, from, Some(mark.offset), GapReason::NotKept);
        }
        let chunk = ChunkView {
            stage: lease.attempt.stage.clone(),
            path: self.path(lease),
            attempt: lease.attempt.attempt,
            fence: lease.fence,
            step: mark.step,
            stream: mark.stream,
            offset: from.max(mark.offset),
            at: mark.at,
            bytes: Base64(fresh.to_vec()),
        };
        self.ready.push_back(Piece::Chunk(chunk));
    }

    /// Nothing more comes of this attempt; what should have come up to `length` is missing.
    fn complete(&mut self, lease: &Lease, length: Option<u64>, reason: GapReason) {
        let cursor = self.cursors.entry(lease.clone()).or_default();
        cursor.complete = true;
        let from = cursor.offset;
        if length.is_none_or(|length| from < length) {
            self.gap(lease, from, length, reason);
        }
    }

    fn gap(&mut self, lease: &Lease, from: u64, to: Option<u64>, reason: GapReason) {
        let (stage, attempt, fence) = (lease.attempt.stage.clone(), lease.attempt.attempt, lease.fence);
        self.ready.push_back(Piece::Gap(GapView { stage, path: self.path(lease), attempt, fence, from, to, reason }));
    }

    fn path(&self, lease: &Lease) -> String {
        let at = self.run.shape.find(&lease.attempt.stage);
        at.map_or_else(|| lease.attempt.stage.to_string(), |at| self.run.shape.stage(at).path.clone())
    }

    /// The attempts that have a result and are not complete.
    fn incomplete(&self) -> Vec<Lease> {
        let stages = (0..self.run.shape.len()).filter(|at| self.is_wanted(*at));
        let attempts = stages.flat_map(|at| self.run.stages[at].attempts.iter().map(move |attempt| (at, attempt)));
        let finished = attempts.filter(|(_, attempt)| matches!(attempt.end, Some(AttemptEnd::Finished { .. })));
        let leases = finished.map(|(at, attempt)| self.run.lease(at, attempt));
        leases.filter(|lease| self.cursors.get(lease).is_none_or(|cursor| !cursor.complete)).collect()
    }

    /// Marks what should be stored by now and is not.
    fn mark_absent(&mut self) {
        for lease in self.incomplete() {
            self.complete(&lease, None, GapReason::NeverStored);
        }
    }
}

fn woken<T>(received: Result<T, RecvError>, with: impl FnOnce(T) -> Woken) -> Woken {
    match received {
        Ok(value) => with(value),
        Err(RecvError::Lagged(_)) => Woken::Lagged,
        Err(RecvError::Closed) => Woken::Closed,
    }
}
