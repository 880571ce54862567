//! The output of a run's stages in the order of its bytes: what is stored, what is buffered, and what comes live, each byte once.
//!
//! ```text
//! depot (whole, or part by part) ─┐
//!                                 ├─▶ cursor of the attempt ─▶ Chunk │ Gap ─▶ … ─▶ End
//! buffer of what comes live ──────┘
//! ```
//!
//! An attempt's cursor only moves forward: what lies before it was given, what jumps over it leaves a marked gap. Live chunks are soft, and
//! a follower may be slower than they come; what it has missed it reads from the depot, in which every part of the output lies soon
//! ([`HOLE_WAIT`]). An attempt is complete when its cursor stands at the end of what is stored, and until then who follows waits for it,
//! but not for ever ([`STORED_WAIT`]).

mod excerpt;
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
    event::run::{LogSegment, RunEvent},
    protocol::{agent::Lease, log::LogMark},
};
use service::{clock, supervisor::chain};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Instant, sleep, sleep_until},
};
use tracing::warn;

pub use self::excerpt::{Excerpt, Passage, Range};
use self::stored::StoredPart;
use crate::{
    Orchestrator,
    core::{AttemptEnd, Run, shape::Index},
    http::view::end,
    logs::{Next, holder},
    runs::Appended,
};

/// How long after a run's end its outputs may take to be stored before who follows is told that they are not: an agent stores them
/// within a second, and one that is cut off may take for ever.
const STORED_WAIT: Duration = Duration::from_secs(10);
/// How long what comes next in a running attempt's output may be unknown before its absence is marked: an agent stores within a second or two
/// what it could not send.
const HOLE_WAIT: Duration = Duration::from_secs(10);

/// The run as soon as all is stored that the attempt of this fence has said, or will not be any more: an agent stores the end of it just after it has
/// reported the attempt's end. Of an attempt that runs, the run as it is.
pub(crate) async fn when_stored(orchestrator: &Orchestrator, mut run: Arc<Run>, at: Index, fence: u64) -> Arc<Run> {
    let mut appended = orchestrator.runs.follow();
    loop {
        if let Some(snapshot) = orchestrator.runs.get(&run.id) {
            run = snapshot.run;
        }
        let attempt = run.stages[at].attempts.iter().find(|attempt| attempt.fence == fence);
        let left = attempt.map_or(Duration::ZERO, |attempt| match &attempt.end {
            Some(AttemptEnd::Finished { at, .. }) if attempt.log.is_none() => {
                STORED_WAIT.saturating_sub(Timestamp(clock::unix_ms()).since(*at))
            }
            Some(_) | None => Duration::ZERO,
        });
        tokio::select! {
            news = appended.recv() => if matches!(news, Err(RecvError::Closed)) { return run },
            () = sleep(left) => return run,
        }
    }
}

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
    /// The stage that was looked at last.
    turn: Index,
    /// All there was at the beginning was given, in the order of the plan; from now on stages take turns.
    is_underway: bool,
    reading: Option<Reading>,
    ready: VecDeque<Piece>,
    /// When the outputs that are missing after the run's end count as absent.
    deadline: Option<Instant>,
    over: bool,
}

/// What comes from now on.
#[derive(Debug)]
struct Feeds {
    live: broadcast::Receiver<Arc<Lease>>,
    appended: broadcast::Receiver<Arc<Appended>>,
}

#[derive(Debug, Default)]
struct Cursor {
    /// Bytes of the attempt that were given or marked as missing.
    offset: u64,
    /// Nothing of the attempt will be given any more.
    complete: bool,
    /// What comes next is not known; when that is no longer waited for.
    hole_until: Option<Instant>,
}

#[derive(Debug)]
struct Reading {
    lease: Lease,
    part: StoredPart,
}

/// What woke a follower.
enum Woken {
    News(Arc<Lease>),
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
            turn: 0,
            is_underway: false,
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
            } else if let Some(at) = self.next_stage() {
                self.look_at(at).await;
            } else if self.over {
                return None;
            } else {
                self.wait().await;
            }
        }
    }

    /// The stage that is to be looked at next.
    fn next_stage(&mut self) -> Option<Index> {
        let after = if self.is_underway { self.turn + 1 } else { 0 };
        let at = self.unseen.range(after..).next().or_else(|| self.unseen.first()).copied()?;
        self.unseen.remove(&at);
        self.turn = at;
        Some(at)
    }

    /// Everything known was given: ends, or waits for more.
    async fn wait(&mut self) {
        self.is_underway = true;
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
        let is_damaged = || self.orchestrator.runs.damage(&self.run.id).is_some();
        if self.feeds.is_none() || is_damaged() {
            self.over = true;
            return;
        }
        match self.woken().await {
            Woken::News(lease) => self.take_news(&lease),
            Woken::Record(record) => self.take_record(&record),
            Woken::Lagged => {
                self.refresh();
                self.look_at_all();
            }
            Woken::Deadline => self.look_at_holes(),
            Woken::Closed => self.over = true,
        }
    }

    async fn woken(&mut self) -> Woken {
        let Some(feeds) = &mut self.feeds else { return Woken::Closed };
        let holes = self.cursors.values().filter_map(|cursor| cursor.hole_until);
        let deadline = self.deadline.into_iter().chain(holes).min();
        let at_deadline = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        // Output first: what a stage wrote was sent before its end was reported.
        tokio::select! {
            biased;
            lease = feeds.live.recv() => woken(lease, Woken::News),
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

    fn take_news(&mut self, lease: &Lease) {
        if lease.attempt.run != self.run.id {
            return;
        }
        if !self.cursors.contains_key(lease) {
            self.refresh();
        }
        if let Some(at) = self.run.shape.find(&lease.attempt.stage).filter(|at| self.is_wanted(*at)) {
            self.unseen.insert(at);
        }
    }

    fn look_at_holes(&mut self) {
        for (lease, cursor) in &self.cursors {
            if cursor.hole_until.is_some()
                && let Some(at) = self.run.shape.find(&lease.attempt.stage)
            {
                self.unseen.insert(at);
            }
        }
    }

    /// Gives what there is of a stage's attempts, one after the other; what must be fetched is fetched before the stage is looked at again.
    async fn look_at(&mut self, at: Index) {
        let run = self.run.clone();
        for attempt in &run.stages[at].attempts {
            let lease = run.lease(at, attempt);
            let cursor = self.cursors.entry(lease.clone()).or_default();
            if matches!(attempt.end, Some(AttemptEnd::Declined { .. })) || cursor.complete {
                continue;
            }
            let offset = cursor.offset;
            if let Some(log) = &attempt.log {
                match holder(log.segments.iter().rfind(|segment| segment.offset <= offset), offset) {
                    Some(segment) => return self.open(at, lease, segment).await,
                    None => self.complete(&lease, Some(log.length), GapReason::NotKept),
                }
                continue;
            }
            let is_over = self.feeds.is_none() || matches!(attempt.end, Some(AttemptEnd::Lost { .. }));
            if let Some(segment) = self.give_known(&lease, is_over) {
                return self.open(at, lease, &segment).await;
            }
            if matches!(attempt.end, Some(AttemptEnd::Lost { .. })) {
                self.complete(&lease, None, GapReason::NeverStored);
            }
        }
    }

    /// Gives what is known of a running attempt, up to what must be fetched. Where a hole is, it is waited for unless that is in vain.
    fn give_known(&mut self, lease: &Lease, is_in_vain: bool) -> Option<LogSegment> {
        loop {
            let cursor = self.cursors.entry(lease.clone()).or_default();
            match self.orchestrator.logs.next(lease, cursor.offset) {
                Next::Chunks(chunks) => {
                    cursor.hole_until = None;
                    for chunk in chunks {
                        self.give(lease, &chunk.header.mark, &chunk.bytes);
                    }
                }
                Next::Segment(segment) => {
                    cursor.hole_until = None;
                    return Some(segment);
                }
                Next::Hole { until } => {
                    let deadline = *cursor.hole_until.get_or_insert_with(|| Instant::now() + HOLE_WAIT);
                    if !is_in_vain && Instant::now() < deadline {
                        return None;
                    }
                    cursor.hole_until = None;
                    let from = std::mem::replace(&mut cursor.offset, until);
                    self.gap(lease, from, Some(until), GapReason::NotKept);
                }
                Next::Nothing => return None,
            }
        }
    }

    async fn open(&mut self, at: Index, lease: Lease, segment: &LogSegment) {
        self.unseen.insert(at);
        match StoredPart::open(&self.orchestrator.blobs, segment.clone()).await {
            Ok(part) => self.reading = Some(Reading { lease, part }),
            Err(error) => {
                warn!(attempt = %lease.attempt, error = chain(&error), "stored output cannot be read");
                self.skip(&lease, segment.end(), GapReason::DepotUnavailable);
            }
        }
    }

    async fn read(&mut self, mut reading: Reading) {
        let offset = self.cursors.get(&reading.lease).map_or(0, |cursor| cursor.offset);
        match reading.part.next(offset).await {
            Ok(Some((mark, bytes))) => {
                self.give(&reading.lease, &mark, &bytes);
                self.reading = Some(reading);
            }
            Ok(None) => self.skip(&reading.lease, reading.part.end(), GapReason::NotKept),
            Err(error) => {
                warn!(attempt = %reading.lease.attempt, error = chain(&error), "stored output cannot be read");
                self.skip(&reading.lease, reading.part.end(), GapReason::DepotUnavailable);
            }
        }
    }

    /// What lies before `to` and was not given is missing.
    fn skip(&mut self, lease: &Lease, to: u64, reason: GapReason) {
        let cursor = self.cursors.entry(lease.clone()).or_default();
        let from = cursor.offset;
        if from < to {
            cursor.offset = to;
            self.gap(lease, from, Some(to), reason);
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
