//! The output of running attempts: a bounded buffer for whoever comes late, and word of what is new. All of it lies in the depot, part by part
//! while the attempt runs, and whole afterwards.
//!
//! **Invariant:** who follows is told *that* there is something new, and fetches it: a slow follower costs no memory and holds up nobody.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use eventbus::{Bus, BusError, Pattern, Subscription};
use model::{
    AgentName, RunId,
    event::run::LogSegment,
    protocol::{
        agent::Lease,
        log::{LogChunk, LogHeader, LogMark},
    },
};
use service::metrics::Counter;
use tokio::{sync::broadcast, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, trace, warn};

use crate::{engine::WATERFALL, runs::Runs};

/// Bytes of one attempt's output that are kept for followers, with [`CHUNK_BYTES`] for each chunk. What came before is fetched from the depot.
pub const BUFFER_BYTES_MAX: usize = 1024 * 1024;
/// What a chunk takes beside its bytes, about.
pub const CHUNK_BYTES: usize = 256;
/// Chunks that follow each other on one stream become one up to this size, as output that comes byte by byte would fill memory otherwise.
const MERGED_BYTES_MAX: usize = 4 * 1024;
/// Attempts whose output is buffered at once; the one whose output began first makes room.
pub const BUFFERED_ATTEMPTS_MAX: usize = 256;
/// Parts of one attempt's output that are known before its end; an honest agent has fewer.
const SEGMENTS_MAX: usize = 4 * 1024;
/// Words of what is new that a follower may be behind before it looks at all it follows; each takes a few bytes.
const NEWS_MAX: usize = 2_048;

/// Bytes of one agent's output that wait for the award to be read of which they speak, with [`CHUNK_BYTES`] for each chunk: what a flood is worth.
const EARLY_BYTES_MAX: usize = 256 * 1024;
/// The same of all agents.
const ALL_EARLY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long they wait: longer than a record takes that another orchestrator appended, if what tells of it is lost.
const EARLY_MAX: Duration = Duration::from_secs(10);

/// Output as it comes. Clones share it.
#[derive(Debug, Clone)]
pub struct LogHub {
    buffers: Arc<Mutex<Buffers>>,
    news: broadcast::Sender<Arc<Lease>>,
    /// Bytes that were heard.
    heard: Counter,
}

/// What there is of a running attempt's output from a place on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// These chunks, without a hole between them. The first may begin before the place.
    Chunks(Vec<Arc<LogChunk>>),
    /// Fetch this from the depot.
    Segment(LogSegment),
    /// What is there is not known here, perhaps not yet; but what comes later is.
    Hole {
        /// Where the next begins that is known.
        until: u64,
    },
    /// Nothing.
    Nothing,
}

#[derive(Debug, Default)]
struct Buffers {
    by_lease: BTreeMap<Arc<Lease>, Buffer>,
    oldest_first: VecDeque<Arc<Lease>>,
}

#[derive(Debug, Default)]
struct Buffer {
    /// In the order of their offsets.
    chunks: VecDeque<Arc<LogChunk>>,
    bytes: usize,
    /// Parts that lie in the depot, by their offsets.
    segments: BTreeMap<u64, LogSegment>,
}

impl Default for LogHub {
    fn default() -> Self {
        Self { buffers: Arc::default(), news: broadcast::channel(NEWS_MAX).0, heard: Counter::default() }
    }
}

impl LogHub {
    /// How many bytes of output were heard.
    pub(crate) fn heard(&self) -> &Counter {
        &self.heard
    }

    /// What there is of an attempt from its byte `from` on.
    pub fn next(&self, lease: &Lease, from: u64) -> Next {
        let buffers = self.buffers.lock().expect("no holder of this lock panics");
        buffers.by_lease.get(lease).map_or(Next::Nothing, |buffer| buffer.next(from))
    }

    /// The parts of an attempt that lie in the depot, and the buffered chunks, each in their order.
    pub fn all(&self, lease: &Lease) -> (Vec<LogSegment>, Vec<Arc<LogChunk>>) {
        let buffers = self.buffers.lock().expect("no holder of this lock panics");
        let Some(buffer) = buffers.by_lease.get(lease) else { return Default::default() };
        (buffer.segments.values().cloned().collect(), buffer.chunks.iter().cloned().collect())
    }

    /// Whether there is room for output of a running attempt that is not known here, as after a restart.
    pub fn lacks(&self, lease: &Lease) -> bool {
        let buffers = self.buffers.lock().expect("no holder of this lock panics");
        buffers.by_lease.get(lease).map_or(buffers.by_lease.len() < BUFFERED_ATTEMPTS_MAX, |buffer| !buffer.is_whole())
    }

    /// The attempts of which there is something new, from now on.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Lease>> {
        self.news.subscribe()
    }

    /// Takes chunks from the bus until `token` is cancelled. Only what the holder of the attempt says counts.
    pub async fn collect(self, mut subscription: Subscription, runs: Runs, token: CancellationToken) -> Result<(), BusError> {
        let (mut early, mut appended) = (Early::default(), runs.follow());
        loop {
            let message = tokio::select! {
                () = token.cancelled() => return Ok(()),
                message = subscription.next() => message.ok_or(BusError::Closed)?,
                news = appended.recv() => {
                    match news {
                        Ok(appended) => self.take_early(&mut early, &runs, Some(&appended.run)),
                        Err(broadcast::error::RecvError::Lagged(_)) => self.take_early(&mut early, &runs, None),
                        // It lasts as long as the runs, which are held here.
                        Err(broadcast::error::RecvError::Closed) => return Ok(()),
                    }
                    continue;
                }
            };
            match (LogChunk::decode(&message.payload), message.subject.agent()) {
                (Ok(chunk), Some(agent)) => self.hear(&mut early, &runs, agent, chunk, Instant::now()),
                (Ok(_), None) => debug!(subject = %message.subject, "output of nobody"),
                (Err(error), _) => warn!(subject = %message.subject, %error, "not a chunk of output"),
            }
        }
    }

    fn hear(&self, early: &mut Early, runs: &Runs, agent: AgentName, chunk: LogChunk, now: Instant) {
        match word(runs, &agent, &chunk.header.lease) {
            Word::Counts => self.take(chunk),
            Word::Early => early.keep(agent, chunk, now),
            Word::Anothers => {
                let attempt = &chunk.header.lease.attempt;
                debug!(%agent, %attempt, "output of an attempt that its sender does not hold");
            }
        }
    }

    /// More is known of this run, or of any: what came before that is looked at again.
    fn take_early(&self, early: &mut Early, runs: &Runs, run: Option<&RunId>) {
        for (agent, since, chunk) in early.of(run) {
            self.hear(early, runs, agent, chunk, since);
        }
    }

    /// Listens to the agents' output.
    pub async fn subscribe(bus: &Bus) -> Result<Subscription, BusError> {
        bus.subscribe(Pattern::logs()).await
    }

    pub(crate) fn take(&self, chunk: LogChunk) {
        trace!(target: WATERFALL, point = "output heard", attempt = %chunk.header.lease.attempt, stream = ?chunk.header.mark.stream);
        self.heard.inc_by(chunk.bytes.len() as u64);
        let lease = self.buffers.lock().expect("no holder of this lock panics").take(chunk);
        let _nobody_follows = self.news.send(lease);
    }
}

impl Buffers {
    fn take(&mut self, chunk: LogChunk) -> Arc<Lease> {
        let lease = match self.by_lease.get_key_value(&chunk.header.lease) {
            Some((lease, _)) => lease.clone(),
            None => self.make_room(&chunk.header.lease),
        };
        self.by_lease.entry(lease.clone()).or_default().take(chunk);
        lease
    }

    fn make_room(&mut self, lease: &Lease) -> Arc<Lease> {
        let lease = Arc::new(lease.clone());
        self.oldest_first.push_back(lease.clone());
        if self.oldest_first.len() > BUFFERED_ATTEMPTS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.by_lease.remove(&oldest);
        }
        lease
    }
}

impl Buffer {
    fn take(&mut self, mut chunk: LogChunk) {
        for segment in std::mem::take(&mut chunk.header.segments) {
            if self.segments.len() < SEGMENTS_MAX {
                self.segments.insert(segment.offset, segment);
            }
        }
        // What comes again, or comes late, is known or given from the depot.
        let behind = self.chunks.back().map_or(0, |last| end(last).saturating_sub(chunk.header.mark.offset));
        let known = usize::try_from(behind).unwrap_or(usize::MAX).min(chunk.bytes.len());
        let lines = memchr::memchr_iter(b'\n', &chunk.bytes[..known]).count() as u64;
        chunk.bytes.drain(..known);
        if chunk.bytes.is_empty() {
            return;
        }
        chunk.header.mark.offset += known as u64;
        chunk.header.mark.lines_before += lines;
        chunk.header.mark.length = u32::try_from(chunk.bytes.len()).expect("a chunk's length was a u32");
        let chunk = match self.chunks.back().and_then(|last| merged(last, &chunk)) {
            Some(merged) => {
                self.bytes -= self.chunks.pop_back().map_or(0, |last| last.bytes.len() + CHUNK_BYTES);
                merged
            }
            None => chunk,
        };
        self.bytes += chunk.bytes.len() + CHUNK_BYTES;
        self.chunks.push_back(Arc::new(chunk));
        while self.bytes > BUFFER_BYTES_MAX
            && let Some(dropped) = self.chunks.pop_front()
        {
            self.bytes -= dropped.bytes.len() + CHUNK_BYTES;
        }
    }

    /// Whether there is no hole before the last byte that is known.
    fn is_whole(&self) -> bool {
        let stored = self.segments.values().map(|segment| (segment.offset, segment.offset.saturating_add(segment.length)));
        let buffered = self.chunks.iter().map(|chunk| (chunk.header.mark.offset, end(chunk)));
        let (mut known, mut last) = (0, 0);
        for (from, to) in stored.chain(buffered) {
            if from <= known {
                known = known.max(to);
            }
            last = last.max(to);
        }
        known == last
    }

    fn next(&self, from: u64) -> Next {
        let behind = self.chunks.partition_point(|chunk| end(chunk) <= from);
        let known = self.chunks.get(behind).map(|chunk| chunk.header.mark.offset);
        if known.is_some_and(|offset| offset <= from) {
            let mut chunks: Vec<Arc<LogChunk>> = Vec::new();
            for chunk in self.chunks.range(behind..) {
                if chunks.last().is_some_and(|last| end(last) != chunk.header.mark.offset) {
                    break;
                }
                chunks.push(chunk.clone());
            }
            return Next::Chunks(chunks);
        }
        if let Some(segment) = holder(self.segments.range(..=from).next_back().map(|(_, segment)| segment), from) {
            return Next::Segment(segment.clone());
        }
        let stored = self.segments.range(from..).next().map(|(offset, _)| *offset);
        match known.into_iter().chain(stored).min() {
            Some(until) => Next::Hole { until },
            None => Next::Nothing,
        }
    }
}

/// The segment, if the byte `at` is one of it.
pub(crate) fn holder(segment: Option<&LogSegment>, at: u64) -> Option<&LogSegment> {
    segment.filter(|segment| segment.offset <= at && at - segment.offset < segment.length)
}

fn end(chunk: &LogChunk) -> u64 {
    chunk.header.mark.offset + chunk.bytes.len() as u64
}

/// Both as one, if they are small, of one stream, and there is nothing between them.
fn merged(last: &LogChunk, next: &LogChunk) -> Option<LogChunk> {
    let (a, b) = (&last.header.mark, &next.header.mark);
    let fit = (a.step, a.stream, end(last)) == (b.step, b.stream, b.offset) && last.bytes.len() + next.bytes.len() <= MERGED_BYTES_MAX;
    fit.then(|| {
        let bytes = [last.bytes.as_slice(), &next.bytes].concat();
        let length = u32::try_from(bytes.len()).expect("it is at most MERGED_BYTES_MAX");
        LogChunk { header: LogHeader { mark: LogMark { length, ..a.clone() }, ..last.header.clone() }, bytes }
    })
}

/// What an agent's output of an attempt is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// It holds the attempt, or did.
    Counts,
    /// The award is not known yet: another orchestrator made it just now.
    Early,
    /// The attempt is another's, or nobody's.
    Anothers,
}

fn word(runs: &Runs, agent: &AgentName, lease: &Lease) -> Word {
    let Some(snapshot) = runs.get(&lease.attempt.run) else { return Word::Early };
    match snapshot.run.attempt_of(lease) {
        Some((_, attempt)) if attempt.agent == *agent => Word::Counts,
        // A fence is the sequence of its award.
        None if snapshot.records.last().is_none_or(|last| last.sequence < lease.fence) => Word::Early,
        Some(_) | None => Word::Anothers,
    }
}

/// Output whose award is not known here yet.
///
/// **Invariant:** it is bounded in bytes and in time, for each agent and in all, whatever they say.
#[derive(Debug, Default)]
struct Early {
    /// In the order in which they came.
    by_agent: BTreeMap<AgentName, VecDeque<(Instant, LogChunk)>>,
    bytes: usize,
}

impl Early {
    fn keep(&mut self, agent: AgentName, chunk: LogChunk, since: Instant) {
        self.drop_before(since.checked_sub(EARLY_MAX));
        let size = size_of(&chunk);
        let own: usize = self.by_agent.get(&agent).map_or(0, |kept| kept.iter().map(|(_, chunk)| size_of(chunk)).sum());
        if own + size > EARLY_BYTES_MAX || self.bytes + size > ALL_EARLY_BYTES_MAX {
            debug!(%agent, attempt = %chunk.header.lease.attempt, "too much output of awards that are not known here");
            return;
        }
        self.bytes += size;
        self.by_agent.entry(agent).or_default().push_back((since, chunk));
    }

    fn drop_before(&mut self, time: Option<Instant>) {
        let Some(time) = time else { return };
        let bytes = &mut self.bytes;
        self.by_agent.retain(|_, kept| {
            kept.retain(|(since, chunk)| {
                let stays = *since >= time;
                *bytes -= if stays { 0 } else { size_of(chunk) };
                stays
            });
            !kept.is_empty()
        });
    }

    /// Takes out what is about this run, or all.
    fn of(&mut self, run: Option<&RunId>) -> Vec<(AgentName, Instant, LogChunk)> {
        let mut taken = Vec::new();
        self.by_agent.retain(|agent, kept| {
            for (since, chunk) in std::mem::take(kept) {
                if run.is_none_or(|run| chunk.header.lease.attempt.run == *run) {
                    self.bytes -= size_of(&chunk);
                    taken.push((agent.clone(), since, chunk));
                } else {
                    kept.push_back((since, chunk));
                }
            }
            !kept.is_empty()
        });
        taken
    }
}

/// What a chunk takes in memory, about.
fn size_of(chunk: &LogChunk) -> usize {
    chunk.bytes.len() + CHUNK_BYTES
}

#[cfg(test)]
mod tests {
    use model::{AttemptId, Digest, RunId, StageId, Timestamp, TriggerId, protocol::log::Stream};

    use super::*;

    fn lease() -> Lease {
        Lease { attempt: AttemptId { run: RunId::of(&TriggerId::of("t", "1")), stage: StageId::of("a"), attempt: 1 }, fence: 7 }
    }

    fn chunk(offset: u64, bytes: &[u8], segments: Vec<LogSegment>) -> LogChunk {
        let length = u32::try_from(bytes.len()).unwrap();
        let mark = LogMark { offset, length, step: 0, stream: Stream::Out, at: Timestamp(1), lines_before: 0 };
        LogChunk { header: LogHeader { lease: lease(), mark, segments }, bytes: bytes.to_vec() }
    }

    fn segment(offset: u64, length: u64) -> LogSegment {
        LogSegment { bytes: Digest::of(b"x"), length, offset, lines_before: 0, index: Digest::of(b"y") }
    }

    fn text(next: &Next) -> String {
        match next {
            Next::Chunks(chunks) => {
                let texts: Vec<String> =
                    chunks.iter().map(|chunk| format!("{}:{} ", chunk.header.mark.offset, chunk.bytes.escape_ascii())).collect();
                texts.concat()
            }
            Next::Segment(_) | Next::Hole { .. } | Next::Nothing => format!("{next:?}"),
        }
    }

    #[test]
    fn a_follower_gets_chunks_without_a_hole_then_the_part_that_fills_it() {
        let hub = LogHub::default();
        assert_eq!(hub.next(&lease(), 0), Next::Nothing);
        hub.take(chunk(0, b"ab", vec![]));
        hub.take(chunk(1, b"bc", vec![]));
        assert_eq!(text(&hub.next(&lease(), 2)), "0:abc ", "small chunks become one, and what came twice is known");
        hub.take(chunk(5, b"f", vec![]));
        assert_eq!(text(&hub.next(&lease(), 0)), "0:abc ");
        assert_eq!(hub.next(&lease(), 3), Next::Hole { until: 5 });
        hub.take(chunk(5, b"", vec![segment(0, 5)]));
        assert_eq!(hub.next(&lease(), 3), Next::Segment(segment(0, 5)));
        assert_eq!(text(&hub.next(&lease(), 5)), "5:f ");
        assert_eq!(hub.next(&lease(), 6), Next::Nothing);
    }

    #[test]
    fn output_that_comes_before_its_award_is_kept_within_bounds_for_a_while_and_in_order() {
        let (mut early, now) = (Early::default(), Instant::now());
        let agent = |name: &str| -> AgentName { name.parse().unwrap() };
        let size = 60 * 1024;
        for at in 0..10 {
            early.keep(agent("flood"), chunk(at * size as u64, &vec![b'x'; size], vec![]), now);
        }
        assert!(early.bytes <= EARLY_BYTES_MAX && early.bytes > EARLY_BYTES_MAX / 2, "{}", early.bytes);
        early.keep(agent("honest"), chunk(0, b"a", vec![]), now);
        early.keep(agent("honest"), chunk(1, b"b", vec![]), now);
        assert!(early.of(Some(&RunId::of(&TriggerId::of("t", "another")))).is_empty());
        let taken = early.of(Some(&lease().attempt.run));
        let of_honest: Vec<_> = taken.iter().filter(|(name, ..)| *name == agent("honest")).map(|(.., chunk)| chunk.bytes.clone()).collect();
        assert_eq!(of_honest, [b"a", b"b"]);
        assert_eq!((early.bytes, early.by_agent.len()), (0, 0));

        early.keep(agent("old"), chunk(0, b"a", vec![]), now);
        early.keep(agent("new"), chunk(0, b"a", vec![]), now + EARLY_MAX + Duration::from_millis(1));
        assert_eq!(early.of(None).into_iter().map(|(name, ..)| name).collect::<Vec<_>>(), [agent("new")]);

        for number in 0..100 {
            early.keep(agent(&format!("flood-{number}")), chunk(0, &vec![b'x'; EARLY_BYTES_MAX - CHUNK_BYTES], vec![]), now);
        }
        assert_eq!(early.bytes, ALL_EARLY_BYTES_MAX);
    }

    #[test]
    fn output_is_lacking_while_there_is_a_hole_before_its_end() {
        let hub = LogHub::default();
        assert!(hub.lacks(&lease()), "nothing was heard of it");
        hub.take(chunk(0, b"", vec![]));
        assert!(!hub.lacks(&lease()), "it has said nothing");
        hub.take(chunk(8, b"i", vec![segment(3, 3)]));
        assert!(hub.lacks(&lease()));
        hub.take(chunk(6, b"", vec![segment(0, 3)]));
        assert!(hub.lacks(&lease()), "two bytes before the last are not known");
        hub.take(chunk(9, b"", vec![segment(6, 3)]));
        assert!(!hub.lacks(&lease()));
        hub.take(chunk(9, b"j", vec![]));
        assert!(!hub.lacks(&lease()));
    }

    #[test]
    fn the_buffer_of_an_attempt_is_bounded_whatever_the_size_of_what_comes() {
        for size in [1, 1_000, 60_000] {
            let hub = LogHub::default();
            let bytes = vec![b'x'; size];
            let count = 3 * BUFFER_BYTES_MAX / size.max(64);
            for at in 0..count {
                hub.take(chunk((at * size) as u64, &bytes, vec![]));
            }
            let (_, kept) = hub.all(&lease());
            let held: usize = kept.iter().map(|chunk| chunk.bytes.len() + CHUNK_BYTES).sum();
            assert!(held <= BUFFER_BYTES_MAX && kept.last().is_some_and(|last| end(last) == (count * size) as u64));
        }
    }
}
