//! Traces of runs (OpenTelemetry), made from what the log says: one for each run, exported by OTLP over HTTP.
//!
//! ```text
//! Runs ─ appended ─▶ Story (one an open run) ─ ended spans ─▶ queue ─▶ OTLP, some at once
//! ```
//!
//! **Invariant:** nothing waits for an endpoint. This task hears of records as any follower does; where it is too slow it reads what is in memory again,
//! and where the endpoint is down or slow, spans are dropped and counted. Without an endpoint there is no task.

mod otlp;
mod story;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use model::{RunId, Timestamp};
use tokio::{
    sync::{
        broadcast::{Receiver, error::RecvError},
        oneshot,
    },
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use self::otlp::{Endpoint, InvalidEndpoint};
use self::{
    otlp::{SendError, Sender},
    story::{Span, Story},
};
use crate::runs::{Appended, Runs};

/// Spans that wait for the endpoint; some hundred bytes each. What comes on top is dropped.
const QUEUE_MAX: usize = 16 * 1024;
/// Spans of one request: some hundred kilobytes.
const BATCH_MAX: usize = 512;
/// How long a span waits for others to go with it.
const BATCH_PAUSE: Duration = Duration::from_secs(1);
/// After a request that failed and may succeed; it doubles each time.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long the end of the process is held up for what is still queued.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Ended runs that are remembered, so that what is told of them late, or again, is no new story.
const OVER_MAX: usize = 16 * 1024;
/// Runs whose beginning is remembered until their first record is stored. What comes on top begins with that record.
const BEGINNINGS_MAX: usize = 1_024;

/// Where traces go.
#[derive(Debug, Clone)]
pub struct TraceOptions {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The file in which it is written down what was exported; without it, what was appended before the start is not exported.
    pub state: Option<PathBuf>,
}

/// When a trigger was stored, and when it was taken up: of that the log says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TakenUp {
    pub(crate) stored_at: Option<Timestamp>,
    pub(crate) at: Timestamp,
}

/// What the engine tells of runs that have not begun. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beginnings(Arc<Mutex<BTreeMap<RunId, TakenUp>>>);

impl Beginnings {
    /// The trigger of this run is being taken up, maybe once more.
    pub(crate) fn note(&self, run: &RunId, taken_up: TakenUp) {
        let mut noted = self.0.lock().expect("no holder of this lock panics");
        if noted.len() < BEGINNINGS_MAX {
            noted.entry(run.clone()).or_insert(taken_up);
        }
    }

    fn remove(&self, run: &RunId) -> Option<TakenUp> {
        self.0.lock().expect("no holder of this lock panics").remove(run)
    }
}

/// Follows the runs, and exports their spans until it is cancelled. Spans are of records of `actor`: what another orchestrator appends, that one exports.
pub(crate) struct Exporter {
    actor: String,
    runs: Runs,
    beginnings: Beginnings,
    stories: BTreeMap<RunId, Story>,
    over: Over,
    queue: VecDeque<Span>,
    /// Records up to this were exported before the start.
    floor: u64,
    /// The newest record that was taken up.
    seen: u64,
    state: Option<PathBuf>,
    sender: Sender,
}

/// Runs that have ended, the last of them.
#[derive(Debug, Default)]
struct Over {
    runs: BTreeSet<RunId>,
    order: VecDeque<RunId>,
}

impl Over {
    fn insert(&mut self, run: &RunId) {
        if self.runs.insert(run.clone()) {
            self.order.push_back(run.clone());
        }
        if self.order.len() > OVER_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.runs.remove(&oldest);
        }
    }
}

/// Spans on their way, which come back with what became of them.
type Sending = oneshot::Receiver<(Vec<Span>, Result<(), SendError>)>;

/// What the exporter does next.
enum Step {
    Appended(Result<Arc<Appended>, RecvError>),
    Due,
    Sent(Vec<Span>, Result<(), SendError>),
    End,
}

impl Exporter {
    /// Of what is appended from now on, and of what is in memory and was not exported yet.
    pub(crate) fn new(options: TraceOptions, actor: String, runs: Runs, beginnings: Beginnings) -> Self {
        let TraceOptions { endpoint, state } = options;
        let known = state.as_ref().and_then(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
        let floor = known.unwrap_or_else(|| newest(&runs));
        let (stories, over, sender) = (BTreeMap::new(), Over::default(), Sender::new(endpoint));
        Self { actor, runs, beginnings, stories, over, queue: VecDeque::new(), floor, seen: floor, state, sender }
    }

    pub(crate) async fn run(mut self, mut appended: Receiver<Arc<Appended>>, token: CancellationToken) {
        info!(endpoint = %self.sender.endpoint(), "spans of runs are exported");
        self.take_all();
        let mut sending: Option<Sending> = None;
        let (mut due, mut pause, mut failing) = (Instant::now() + BATCH_PAUSE, RETRY_PAUSE, false);
        loop {
            let step = tokio::select! {
                biased;
                () = token.cancelled() => Step::End,
                sent = arrived(&mut sending) => {
                    // Whoever sends does not panic; if it does all the same, its spans are gone.
                    let (spans, sent) = sent.unwrap_or((Vec::new(), Ok(())));
                    Step::Sent(spans, sent)
                }
                record = appended.recv() => Step::Appended(record),
                () = sleep_until(due), if sending.is_none() && !self.queue.is_empty() => Step::Due,
            };
            match step {
                Step::End | Step::Appended(Err(RecvError::Closed)) => break,
                Step::Appended(record) => {
                    let was_empty = self.queue.is_empty();
                    match record {
                        Ok(appended) => self.take(&appended),
                        Err(RecvError::Lagged(_) | RecvError::Closed) => self.take_all(),
                    }
                    if !failing && was_empty {
                        due = Instant::now() + BATCH_PAUSE;
                    }
                    if !failing && self.queue.len() >= BATCH_MAX {
                        due = Instant::now();
                    }
                }
                Step::Due => sending = Some(self.send()),
                Step::Sent(spans, sent) => {
                    sending = None;
                    failing = !self.settle(spans, sent);
                    due = Instant::now() + if failing { pause } else { BATCH_PAUSE };
                    pause = if failing { (pause * 2).min(RETRY_PAUSE_MAX) } else { RETRY_PAUSE };
                }
            }
        }
        let _some_are_left = timeout(LAST_WORDS, self.end(appended, sending)).await;
    }

    /// Exports what is left, unless the endpoint is down.
    async fn end(&mut self, mut appended: Receiver<Arc<Appended>>, mut sending: Option<Sending>) {
        while let Ok(record) = appended.try_recv() {
            self.take(&record);
        }
        loop {
            if let Some(sent) = sending.take() {
                let Ok((spans, sent)) = sent.await else { return };
                if !self.settle(spans, sent) {
                    return;
                }
            }
            if self.queue.is_empty() {
                return;
            }
            sending = Some(self.send());
        }
    }

    fn send(&mut self) -> Sending {
        let count = self.queue.len().min(BATCH_MAX);
        let batch = self.queue.drain(..count).collect();
        self.sender.send(batch)
    }

    /// Whether the endpoint takes spans. Those that it may take later are queued again, before the others.
    fn settle(&mut self, mut spans: Vec<Span>, sent: Result<(), SendError>) -> bool {
        let metrics = self.runs.metrics();
        let count = spans.len() as u64;
        match sent {
            Ok(()) => {
                metrics.spans_sent.inc_by(count);
            }
            Err(error @ SendError::Refused { .. }) => {
                warn!(error = service::supervisor::chain(&error), count, "the endpoint does not take these spans, so they are dropped");
                metrics.spans_dropped.inc_by(count);
            }
            Err(error @ (SendError::Unavailable(_) | SendError::Busy { .. } | SendError::NoThread(_))) => {
                debug!(error = service::supervisor::chain(&error), count, "spans are sent again");
                let room = QUEUE_MAX.saturating_sub(self.queue.len());
                let lost = spans.len().saturating_sub(room);
                metrics.spans_dropped.inc_by(lost as u64);
                for span in spans.drain(lost..).rev() {
                    self.queue.push_front(span);
                }
                return false;
            }
        }
        if let Some(path) = &self.state
            && let Err(error) = keep(path, self.upto())
        {
            debug!(%error, "how far spans are exported cannot be written down: some may be sent again after the next start");
        }
        true
    }

    /// The last record before the first of which a span is queued. After a crash, the last batch may be sent again, under the same ids.
    fn upto(&self) -> u64 {
        self.queue.iter().map(|span| span.sequence).min().map_or(self.seen, |first| first.saturating_sub(1))
    }

    /// Takes up a record, and where its run is a new one all that is in memory of it.
    fn take(&mut self, appended: &Arc<Appended>) {
        if self.stories.contains_key(&appended.run) {
            self.tell(&appended.run, std::slice::from_ref(appended));
        } else {
            self.begin(&appended.run);
        }
    }

    /// Takes up all that is in memory, the oldest runs first.
    fn take_all(&mut self) {
        for (_, run) in self.runs.list(None, usize::MAX, |_| true).into_iter().rev() {
            match self.runs.get(&run.id).filter(|_| self.stories.contains_key(&run.id)) {
                Some(snapshot) => self.tell(&run.id, &snapshot.records),
                None => self.begin(&run.id),
            }
        }
    }

    fn begin(&mut self, run: &RunId) {
        let Some(snapshot) = self.runs.get(run).filter(|_| !self.over.runs.contains(run)) else { return };
        let is_told = snapshot.records.last().is_none_or(|last| last.sequence <= self.floor);
        if snapshot.run.ended.is_some() && is_told {
            self.over.insert(run);
            return;
        }
        self.stories.insert(run.clone(), Story::new(&snapshot.run, self.beginnings.remove(run)));
        self.tell(run, &snapshot.records);
    }

    fn tell(&mut self, run: &RunId, records: &[Arc<Appended>]) {
        let Some(story) = self.stories.get_mut(run) else { return };
        for appended in records {
            let spans = story.take(appended);
            self.seen = self.seen.max(appended.sequence);
            if appended.sequence <= self.floor || appended.record.actor != self.actor {
                continue;
            }
            let lost = spans.len().saturating_sub(QUEUE_MAX.saturating_sub(self.queue.len()));
            self.runs.metrics().spans_dropped.inc_by(lost as u64);
            let fit = spans.len() - lost;
            self.queue.extend(spans.into_iter().take(fit));
        }
        if story.is_over() {
            self.stories.remove(run);
            self.over.insert(run);
        }
    }
}

/// What became of spans on their way; never where there are none.
async fn arrived(sending: &mut Option<Sending>) -> Option<(Vec<Span>, Result<(), SendError>)> {
    match sending {
        Some(sent) => sent.await.ok(),
        None => std::future::pending().await,
    }
}

/// Writes down how far it is, whole or not at all. After a loss of power it may be as it was.
fn keep(path: &Path, upto: u64) -> io::Result<()> {
    let aside = path.with_extension("new");
    fs::write(&aside, upto.to_string())?;
    fs::rename(&aside, path)
}

/// The newest record in memory.
fn newest(runs: &Runs) -> u64 {
    let last = |(_, run): (u64, Arc<crate::core::Run>)| Some(runs.get(&run.id)?.records.last()?.sequence);
    runs.list(None, usize::MAX, |_| true).into_iter().filter_map(last).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use model::{
        TriggerId,
        trace::{SpanId, TraceId},
    };

    use super::{story::Status, *};

    fn span(sequence: u64) -> Span {
        let run = RunId::of(&TriggerId::of("test", "1"));
        let (trace, id, at) = (TraceId::of(&run), SpanId::of_run(&run), Timestamp(0));
        Span { trace, id, parent: None, name: String::new(), start: at, end: at, attributes: Vec::new(), status: Status::Fine, sequence }
    }

    #[test]
    fn spans_that_wait_are_bounded_and_those_that_are_dropped_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let options = TraceOptions { endpoint: "http://127.0.0.1:9".parse().unwrap(), state: Some(state.clone()) };
        let mut exporter = Exporter::new(options, "test".to_owned(), Runs::default(), Beginnings::default());
        exporter.queue = (10..).map(span).take(QUEUE_MAX - 2).collect();
        assert!(!exporter.settle((1..=5).map(span).collect(), Err(SendError::Busy { status: 503 })));
        assert_eq!((exporter.queue.len(), exporter.runs.metrics().spans_dropped.get()), (QUEUE_MAX, 3));
        assert_eq!(exporter.queue.iter().map(|span| span.sequence).take(3).collect::<Vec<_>>(), [4, 5, 10], "the oldest are dropped");
        assert!(!state.exists());
        exporter.queue.drain(..2);
        assert!(exporter.settle((4..=5).map(span).collect(), Ok(())));
        assert_eq!((fs::read_to_string(&state).unwrap().as_str(), exporter.runs.metrics().spans_sent.get()), ("9", 2));
    }

    #[test]
    fn what_is_remembered_of_runs_is_bounded() {
        let (mut over, beginnings) = (Over::default(), Beginnings::default());
        let run = |number: usize| RunId::of(&TriggerId::of("test", &number.to_string()));
        for number in 0..OVER_MAX + 3 {
            over.insert(&run(number));
            over.insert(&run(number));
            beginnings.note(&run(number), TakenUp { stored_at: None, at: Timestamp(number as u64) });
        }
        assert_eq!((over.runs.len(), over.order.len(), over.runs.contains(&run(0))), (OVER_MAX, OVER_MAX, false));
        assert_eq!(beginnings.remove(&run(0)).map(|taken_up| taken_up.at), Some(Timestamp(0)));
        assert_eq!(beginnings.remove(&run(BEGINNINGS_MAX)), None);
    }
}
