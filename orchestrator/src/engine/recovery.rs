//! Back from the log: all of it at the start, one run's after a conflict or when somebody speaks of a run that has left memory.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use blob::{BlobError, Blobs};
use eventbus::{Bus, BusError, StoredRecord};
use model::{
    AgentName, Digest, RunId,
    event::{archive::ArchivedLog, run::RunEvent},
    protocol::agent::{AgentCommand, AgentReport, LEASE_MS},
};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{
    APPEND_PAUSE, Done, Engine,
    intake::appended,
    log::{self, Decoded, LogError, Tail},
    open::OpenRun,
    parts::{self, Unpacked},
    plans::{PlanningError, Plans, empty_shape},
    snapshots::Snapshots,
};
use crate::{
    core::{
        Context, Decision, Input, Run,
        decide::{Proposals, decide},
    },
    runs::{Appended, Damage},
};

/// How often a log is read whose plan the depot does not have, with pauses that double from [`APPEND_PAUSE`], before it counts as damaged:
/// some seconds, in which a depot that is being brought back has time.
const PLAN_TRIES_MAX: u32 = 5;

/// A run as it was read from its log.
pub(crate) struct Loaded {
    run: Run,
    records: Vec<Arc<Appended>>,
    tail: Tail,
    /// Every end that the log has had.
    links: Vec<Tail>,
}

impl Loaded {
    /// Whether the log has what was its end.
    fn has(&self, last: Tail) -> bool {
        self.links.contains(&last)
    }

    /// The log's end.
    pub(super) fn tail(&self) -> Tail {
        self.tail
    }

    /// The state, and the records that make it.
    pub(crate) fn into_parts(self) -> (Run, Vec<Arc<Appended>>) {
        (self.run, self.records)
    }
}

/// The records of a run as far as they are sound, without its plan: what can be told of it also where that is gone.
pub(crate) async fn records(run: &RunId, bus: &Bus, blobs: &Blobs) -> Result<Vec<Arc<Appended>>, LaterReason> {
    let mut reading = Reading::default();
    for record in &bus.run_log(run).await? {
        reading.take(record);
    }
    match reading.unpack(run, blobs).await {
        Ok(()) | Err(Unpacked::Damaged(_)) => Ok(reading.into_records()),
        Err(Unpacked::Later(error)) => Err(error.into()),
    }
}

/// What reading one run's log came to.
pub(crate) enum Reloaded {
    /// Here it is.
    Run(Box<Loaded>),
    /// There is no such run.
    Missing,
    /// It must not be run upon.
    Damaged(Box<Damaged>),
    /// The bus or the depot is away.
    Later(Box<Later>),
}

/// A log that cannot be read now.
pub(crate) struct Later {
    pub(crate) reason: LaterReason,
    /// Its records, where those could be read.
    records: Vec<Arc<Appended>>,
}

/// A log that must not be run upon.
pub(crate) struct Damaged {
    pub(crate) error: LogError,
    /// What can be shown of it.
    pub(crate) seen: Option<(Run, Vec<Arc<Appended>>)>,
}

impl Damaged {
    /// What readers of the run are told.
    pub(crate) fn damage(&self) -> Damage {
        Damage { why: service::supervisor::chain(&self.error), help: self.error.help().to_owned() }
    }
}

/// Why a log could not be read now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaterReason {
    #[error("the log cannot be read now")]
    Bus(#[from] BusError),
    #[error("the plan cannot be read now")]
    Plan(#[from] PlanningError),
    #[error("the log, which lies in the depot, cannot be read now")]
    Depot(#[from] BlobError),
}

impl LaterReason {
    /// Whether it is likely to be so for ever.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::Bus(_) | Self::Depot(_) => false,
            Self::Plan(error) => error.is_lasting(),
        }
    }
}

/// The records of one run as they come.
///
/// What stands for a log stands for all that is before it: the bus may have read some of that before it was rolled up, and after a crash some
/// of it may be there again. So what is wrong with a log is known when all of it was read.
#[derive(Default)]
pub(crate) struct Reading {
    archived: Option<Archived>,
    records: Vec<Arc<Appended>>,
    tail: Tail,
    links: Vec<Tail>,
    has_ended: bool,
    /// What is wrong with what was read. What comes after it is not read, but for what stands for all of it.
    wrong: Option<LogError>,
}

/// The last message that stands for what is before it.
struct Archived {
    sequence: u64,
    log: ArchivedLog,
    /// Whether all that it stands for was read before it.
    is_read: bool,
    /// Whether something that it stands for was read before it.
    has_remnants: bool,
}

impl Reading {
    /// Whether the run's end was read; where output lies may be told after that.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(crate) fn take(&mut self, stored: &StoredRecord) {
        let decoded = log::decode(stored).and_then(|decoded| match &decoded {
            Decoded::Record(record) if self.wrong.is_none() => log::follows(self.tail, stored, record).map(|()| decoded),
            Decoded::Record(_) | Decoded::Archived(_) => Ok(decoded),
        });
        match decoded {
            Ok(Decoded::Archived(archived)) => {
                let is_read = self.wrong.is_none() && self.tail.digest == Some(archived.previous);
                let has_remnants = self.wrong.is_some() || self.tail.digest.is_some();
                if !is_read {
                    *self = Self::default();
                }
                self.has_ended = true;
                self.archived = Some(Archived { sequence: stored.sequence, log: archived, is_read, has_remnants });
            }
            Ok(Decoded::Record(_)) | Err(_) if self.wrong.is_some() => return,
            Ok(Decoded::Record(record)) => {
                self.has_ended |= record.events.iter().any(|event| matches!(event, RunEvent::RunFinished { .. }));
                self.records.push(appended(&stored.run, stored.sequence, record));
            }
            Err(error) => {
                self.wrong = Some(error);
                return;
            }
        }
        self.tail = Tail { sequence: stored.sequence, digest: Some(Digest::of(&stored.bytes)) };
        self.links.push(self.tail);
    }

    /// What is wrong with the log, as far as it was read.
    pub(crate) fn wrong(&self) -> Option<&LogError> {
        self.wrong.as_ref()
    }

    /// What comes after the end of a log that was read.
    pub(crate) fn after(tail: Tail) -> Self {
        Self { tail, ..Self::default() }
    }

    /// What was read.
    pub(crate) fn into_records(self) -> Vec<Arc<Appended>> {
        self.records
    }

    /// Where the log ends so far.
    pub(crate) fn tail(&self) -> Tail {
        self.tail
    }

    /// The last message that stands for what is before it, and its sequence.
    pub(crate) fn archived(&self) -> Option<(u64, &ArchivedLog)> {
        self.archived.as_ref().map(|Archived { sequence, log, .. }| (*sequence, log))
    }

    /// Whether the beginning of the log lies in the depot, and nowhere else.
    pub(crate) fn is_put_away(&self) -> bool {
        self.archived.as_ref().is_some_and(|archived| !archived.is_read)
    }

    /// Whether some of the beginning is still where it was.
    fn has_remnants(&self) -> bool {
        self.archived.as_ref().is_some_and(|archived| archived.has_remnants)
    }

    /// Reads the beginning, where it lies in the depot alone.
    async fn unpack(&mut self, run: &RunId, blobs: &Blobs) -> Result<(), Unpacked> {
        let Some(Archived { sequence, log: archived, .. }) = self.archived.take_if(|archived| !archived.is_read) else { return Ok(()) };
        let mut before = Self::default();
        for record in parts::read(run, &archived, blobs).await? {
            before.take(&record);
        }
        if let Some(error) = before.wrong {
            return Err(error.into());
        }
        if before.is_put_away() || before.tail.digest != Some(archived.previous) {
            let (named, actual) = (Some(archived.previous), before.tail.digest);
            return Err(LogError::Broken { run: run.clone(), sequence, named, actual }.into());
        }
        before.records.append(&mut self.records);
        before.links.append(&mut self.links);
        (self.records, self.links) = (before.records, before.links);
        Ok(())
    }

    /// What was read, folded.
    pub(crate) async fn finish(self, run: &RunId, plans: &Plans) -> Reloaded {
        self.finish_from(run, plans, &Snapshots::default()).await
    }

    /// The same, from a snapshot where there is one of this log.
    pub(crate) async fn finish_from(mut self, run: &RunId, plans: &Plans, snapshots: &Snapshots) -> Reloaded {
        match self.unpack(run, plans.blobs()).await {
            Ok(()) => {}
            Err(Unpacked::Damaged(error)) => return self.damaged(run, *error, plans).await,
            Err(Unpacked::Later(error)) => return Reloaded::Later(Box::new(Later { reason: error.into(), records: self.records })),
        }
        if let Some(error) = self.wrong.take() {
            return self.damaged(run, error, plans).await;
        }
        let Some(first) = self.records.first() else { return Reloaded::Missing };
        let planned = match log::planned_by(run, &first.record) {
            Ok(planned) => planned,
            Err(error) => return self.damaged(run, error, plans).await,
        };
        let shape = match plans.shape(&planned).await {
            Ok(shape) => shape,
            // It reads no better the next time.
            Err(PlanningError::Plan(error)) => return self.damaged(run, error.into(), plans).await,
            Err(error) => return Reloaded::Later(Box::new(Later { reason: error.into(), records: self.records })),
        };
        let folded = snapshots.read(run, self.records.len()).and_then(|snapshot| {
            let fits = self.links.contains(&snapshot.tail());
            let folded = fits.then(|| log::replay_from(snapshot, shape.clone(), &self.records)).flatten();
            if folded.is_none() {
                warn!(%run, "a snapshot does not fit the log, and is thrown away");
                snapshots.forget(run);
            }
            folded
        });
        match folded.map_or_else(|| log::replay(run, shape, &self.records), Ok) {
            Ok(state) => Reloaded::Run(Box::new(Loaded { run: state, records: self.records, tail: self.tail, links: self.links })),
            Err(error) => self.damaged(run, error, plans).await,
        }
    }

    /// The log must not be run upon: what was read before that was noticed can still be shown.
    async fn damaged(self, run: &RunId, error: LogError, plans: &Plans) -> Reloaded {
        let first = self.records.first();
        let planned = first.and_then(|first| log::planned_by(run, &first.record).ok());
        let shape = match planned {
            Some(planned) => plans.shape(&planned).await.unwrap_or_else(|_| empty_shape()),
            None => empty_shape(),
        };
        let seen = log::glimpse(run, shape, &self.records).map(|state| (state, self.records));
        Reloaded::Damaged(Box::new(Damaged { error, seen }))
    }
}

impl Engine {
    /// Reads every run's log. Runs that have not ended go on; a log that is damaged is named and left alone.
    /// Gives the last record's sequence.
    pub(super) async fn recover(&mut self) -> Result<u64, BusError> {
        self.recovering = true;
        let mut end = 0;
        let mut stored = self.bus.run_logs().await?;
        let mut readings: BTreeMap<RunId, Reading> = BTreeMap::new();
        let mut ended: VecDeque<RunId> = VecDeque::new();
        // Where output lies may be told long after a run's end.
        let mut left_out: BTreeSet<RunId> = BTreeSet::new();
        while let Some(record) = stored.recv().await {
            let record = record?;
            end = record.sequence;
            let run = record.run.clone();
            if left_out.contains(&run) {
                // What was said late is put away, too.
                self.runs.leaving().push(run);
                continue;
            }
            let reading = readings.entry(run.clone()).or_default();
            let had_ended = reading.has_ended;
            reading.take(&record);
            if reading.is_put_away() {
                if reading.has_remnants() {
                    self.runs.leaving().push(run.clone());
                }
                readings.remove(&run);
                left_out.insert(run);
                continue;
            }
            if !had_ended && reading.has_ended {
                ended.push_back(run);
            }
            if ended.len() > self.runs.ended_max()
                && let Some(oldest) = ended.pop_front()
            {
                readings.remove(&oldest);
                self.runs.leaving().push(oldest.clone());
                left_out.insert(oldest);
            }
        }
        let count = readings.len();
        for (run, reading) in readings {
            let outcome = reading.finish_from(&run, &self.plans, &self.snapshots).await;
            self.reloaded(&run, None, outcome);
        }
        self.snapshots.keep(&self.open.keys().chain(&self.unread).cloned().collect());
        self.recovering = false;
        if let Some(beside) = &mut self.beside {
            beside.knows(end);
        }
        self.settle_others();
        info!(runs = count, open = self.open.len(), damaged = self.damaged.len(), "the logs are read");
        Ok(end)
    }

    /// Runs upon this log no more. It is shown as damaged; a lock that it holds is free when its agent has certainly ended what held it.
    pub(super) fn set_aside(&mut self, run: &RunId, damaged: Damaged) {
        let damage = damaged.damage();
        error!(%run, error = damage.why, help = damage.help, "the run's log is damaged, and the run is set aside");
        if let (None, Some((state, records))) = (self.runs.get(run), damaged.seen) {
            for appended in &records {
                self.locks.follow(&state, appended);
            }
            self.runs.load(state, records);
        }
        self.runs.set_damage(run, Some(damage));
        self.damaged.insert(run.clone());
        self.leases.forget(run);
        if let Some(open) = self.open.remove(run) {
            self.leave_series(&open.run);
        }
        self.agenda.set(run, None);
        self.awake.remove(run);
        self.locks.stop_waiting(run);
        let run = run.clone();
        self.work.push(Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(LEASE_MS)).await;
            Done::Unlocked { run }
        }));
    }

    /// Reads one run's log again, once at a time.
    pub(super) fn reload(&mut self, run: RunId, asker: Option<Asker>) {
        if self.reloading.insert(run.clone()) {
            self.read_after(Duration::ZERO, run, asker);
        }
    }

    fn read_after(&self, pause: Duration, run: RunId, asker: Option<Asker>) {
        let (bus, plans) = (self.bus.clone(), self.plans.clone());
        self.work.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            let outcome = read(&run, &bus, &plans).await;
            Done::Reloaded { run, asker, outcome }
        }));
    }

    pub(super) fn reloaded(&mut self, run: &RunId, asker: Option<Asker>, outcome: Reloaded) {
        let outcome = match outcome {
            Reloaded::Later(later) => match self.again_after(run, *later) {
                Ok(pause) => {
                    self.read_after(pause, run.clone(), asker);
                    return;
                }
                Err(damaged) => Reloaded::Damaged(damaged),
            },
            sound @ (Reloaded::Run(_) | Reloaded::Missing | Reloaded::Damaged(_)) => self.checked(run, sound),
        };
        self.tries.remove(run);
        self.reloading.remove(run);
        self.unread.remove(run);
        self.arrived(run);
        match outcome {
            Reloaded::Run(loaded) => {
                let (state, tail) = (loaded.run.clone(), loaded.tail());
                self.put_in(run, *loaded);
                self.catch_up(run, tail);
                let is_over = !self.open.contains_key(run) && self.owns(&state.trigger.project);
                if let (true, Some(Asker { agent, report })) = (is_over, asker) {
                    // Nothing is left to do for the run, so nothing can follow from the report but an answer.
                    self.answer(self.answers_of(&state, agent, report).answers);
                }
            }
            Reloaded::Damaged(damaged) => self.set_aside(run, *damaged),
            Reloaded::Missing | Reloaded::Later(_) => {
                if let Some(Asker { agent, report }) = asker {
                    // No such run: nobody waits for the report, and the agent can forget it.
                    self.command(&agent, AgentCommand::Acknowledge { lease: report.lease, report: report.report.kind() });
                }
            }
        }
        self.settle_others();
        self.begin_placed();
    }

    /// When a log is read again that could not be; what it cannot be read without, and will not come, makes it a damaged one.
    fn again_after(&mut self, run: &RunId, later: Later) -> Result<Duration, Box<Damaged>> {
        let Later { reason, records } = later;
        let lasting = reason.is_lasting();
        let tries = self.tries.entry(run.clone()).or_default();
        *tries += u32::from(lasting);
        let pause = APPEND_PAUSE * 2_u32.pow(tries.saturating_sub(1));
        match reason {
            LaterReason::Plan(source) if *tries >= PLAN_TRIES_MAX => {
                let error = LogError::NoPlan { run: run.clone(), source: Box::new(source) };
                Err(Box::new(Damaged { error, seen: log::glimpse(run, empty_shape(), &records).map(|state| (state, records)) }))
            }
            reason @ (LaterReason::Plan(_) | LaterReason::Bus(_) | LaterReason::Depot(_)) => {
                warn!(%run, error = service::supervisor::chain(&reason), ?pause, "reading the run's log again");
                self.reloading.insert(run.clone());
                if self.recovering {
                    self.unread.insert(run.clone());
                }
                Ok(pause)
            }
        }
    }

    /// Of an open run, what was stored before must be there still, as it was.
    fn checked(&self, run: &RunId, outcome: Reloaded) -> Reloaded {
        let Some(known) = self.open.get(run).map(|open| open.tail) else { return outcome };
        let is_whole = match &outcome {
            Reloaded::Run(loaded) => loaded.has(known),
            Reloaded::Missing => false,
            Reloaded::Damaged(_) | Reloaded::Later(_) => true,
        };
        if is_whole {
            return outcome;
        }
        let error = LogError::Shortened { run: run.clone(), known: known.sequence };
        Reloaded::Damaged(Box::new(Damaged { error, seen: None }))
    }

    fn put_in(&mut self, id: &RunId, loaded: Loaded) {
        let now = Instant::now();
        if self.open.get(id).is_some_and(|open| !open.reloading) {
            return;
        }
        let records = loaded.records.clone();
        self.runs.load(loaded.run.clone(), loaded.records);
        for appended in &records {
            self.took(&loaded.run, appended);
        }
        let is_own = self.owns(&loaded.run.trigger.project);
        if let Some(open) = self.open.get_mut(id) {
            open.run = loaded.run;
            open.tail = loaded.tail;
            open.records = records.len();
            open.busy = false;
            open.reloading = false;
        } else {
            let mut open = OpenRun::new(loaded.run, loaded.tail);
            open.records = records.len();
            if open.is_done(now) {
                return;
            }
            self.open.insert(id.clone(), open);
        }
        if is_own {
            self.own(id);
        } else {
            self.awake.insert(id.clone());
        }
    }

    /// What would follow from a report, if the run were open.
    fn answers_of(&self, run: &Run, agent: AgentName, report: AgentReport) -> Decision {
        let (proposals, secrets) = (Proposals::new(), self.secrets());
        let context = Context { proposals: &proposals, may_have: &|_, _, _| false, callback_secrets: &secrets };
        decide(run, &context, &[Input::Report { agent, report }], run.accepted_at)
    }

    /// An agent speaks of a run that is not open. If its word changes anything, the run is opened, and the agent's next word counts.
    pub(super) fn reopen(&mut self, run: &RunId, agent: &AgentName, report: &AgentReport) {
        let asker = Asker { agent: agent.clone(), report: report.clone() };
        let Some(snapshot) = self.runs.get(run) else {
            // Not in memory: an old run, or none of ours. Its log decides.
            self.reload(run.clone(), Some(asker));
            return;
        };
        if !self.owns(&snapshot.run.trigger.project) {
            return;
        }
        let decision = self.answers_of(&snapshot.run, asker.agent.clone(), asker.report.clone());
        if decision.events.is_empty() {
            self.answer(decision.answers);
        } else {
            self.reload(run.clone(), Some(asker));
        }
    }
}

/// The agent whose report made a log be read.
pub(super) struct Asker {
    agent: AgentName,
    report: AgentReport,
}

/// A run as its log has it; `None` if there is none, or none that can be read.
pub(super) async fn read_run(run: &RunId, bus: &Bus, plans: &Plans) -> Result<Option<Run>, LaterReason> {
    match read(run, bus, plans).await {
        Reloaded::Run(loaded) => Ok(Some(loaded.run)),
        Reloaded::Missing | Reloaded::Damaged(_) => Ok(None),
        Reloaded::Later(later) => Err(later.reason),
    }
}

/// A run as its log has it now.
pub(crate) async fn read(run: &RunId, bus: &Bus, plans: &Plans) -> Reloaded {
    let stored = match bus.run_log(run).await {
        Ok(stored) => stored,
        Err(error) => return Reloaded::Later(Box::new(Later { reason: error.into(), records: Vec::new() })),
    };
    let mut reading = Reading::default();
    for record in &stored {
        reading.take(record);
    }
    reading.finish(run, plans).await
}
