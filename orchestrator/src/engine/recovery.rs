//! Back from the log: all of it at the start, one run's after a conflict or when somebody speaks of a run that has left memory.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use eventbus::{Bus, BusError, StoredRecord};
use model::{
    AgentName, RunId,
    event::run::RunEvent,
    protocol::agent::{AgentCommand, AgentReport},
};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{
    APPEND_PAUSE, Done, Engine,
    intake::appended,
    log::{self, LogError, Tail},
    open::OpenRun,
    plans::{PlanningError, Plans},
};
use crate::{
    core::{
        Context, Decision, Input, Run,
        decide::{Proposals, decide},
    },
    runs::{Appended, ENDED_RUNS_MAX},
};

/// A run as it was read from its log.
pub(crate) struct Loaded {
    run: Run,
    records: Vec<Arc<Appended>>,
    tail: Tail,
}

impl Loaded {
    /// The state, and the records that make it.
    pub(crate) fn into_parts(self) -> (Run, Vec<Arc<Appended>>) {
        (self.run, self.records)
    }
}

/// What reading one run's log came to.
pub(crate) enum Reloaded {
    /// Here it is.
    Run(Box<Loaded>),
    /// There is no such run.
    Missing,
    /// It must not be run upon.
    Damaged(LogError),
    /// The bus or the depot is away.
    Later(LaterReason),
}

/// Why a log could not be read now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaterReason {
    #[error("the log cannot be read now")]
    Bus(#[from] BusError),
    #[error("the plan cannot be read now")]
    Plan(#[from] PlanningError),
}

/// The records of one run as they come.
#[derive(Default)]
pub(crate) struct Reading {
    records: Vec<Arc<Appended>>,
    tail: Tail,
    has_ended: bool,
}

impl Reading {
    pub(crate) fn take(&mut self, stored: &StoredRecord) -> Result<(), LogError> {
        let (record, tail) = log::decode(self.tail, stored)?;
        self.has_ended |= record.events.iter().any(|event| matches!(event, RunEvent::RunFinished { .. }));
        self.records.push(appended(&stored.run, stored.sequence, record));
        self.tail = tail;
        Ok(())
    }

    pub(crate) async fn finish(self, run: &RunId, plans: &Plans) -> Reloaded {
        let Some(first) = self.records.first() else { return Reloaded::Missing };
        let planned = match log::planned_by(run, &first.record) {
            Ok(planned) => planned,
            Err(error) => return Reloaded::Damaged(error),
        };
        let shape = match plans.shape(&planned).await {
            Ok(shape) => shape,
            // It reads no better the next time.
            Err(PlanningError::Plan(error)) => return Reloaded::Damaged(error.into()),
            Err(error) => return Reloaded::Later(error.into()),
        };
        match log::replay(run, shape, &self.records) {
            Ok(state) => Reloaded::Run(Box::new(Loaded { run: state, records: self.records, tail: self.tail })),
            Err(error) => Reloaded::Damaged(error),
        }
    }
}

impl Engine {
    /// Reads every run's log. Runs that have not ended go on; a log that is damaged is named and left alone.
    pub(super) async fn recover(&mut self) -> Result<(), BusError> {
        let mut stored = self.bus.run_logs().await?;
        let mut readings: BTreeMap<RunId, Reading> = BTreeMap::new();
        let mut ended: VecDeque<RunId> = VecDeque::new();
        // Where output lies may be told long after a run's end.
        let mut left_out: BTreeSet<RunId> = BTreeSet::new();
        while let Some(record) = stored.recv().await {
            let record = record?;
            let run = record.run.clone();
            if self.damaged.contains(&run) || left_out.contains(&run) {
                continue;
            }
            let reading = readings.entry(run.clone()).or_default();
            let had_ended = reading.has_ended;
            if let Err(error) = reading.take(&record) {
                self.set_aside(&run, &error);
                readings.remove(&run);
                continue;
            }
            if !had_ended && reading.has_ended {
                ended.push_back(run);
            }
            if ended.len() > ENDED_RUNS_MAX
                && let Some(oldest) = ended.pop_front()
            {
                readings.remove(&oldest);
                left_out.insert(oldest);
            }
        }
        let count = readings.len();
        self.recovering = true;
        for (run, reading) in readings {
            let outcome = reading.finish(&run, &self.plans).await;
            self.reloaded(&run, None, outcome);
        }
        self.recovering = false;
        self.settle_others();
        info!(runs = count, open = self.open.len(), damaged = self.damaged.len(), "the logs are read");
        Ok(())
    }

    fn set_aside(&mut self, run: &RunId, damage: &LogError) {
        error!(%run, error = service::supervisor::chain(damage), "the run's log is damaged, and the run is set aside");
        self.open.remove(run);
        self.forget_among_others(run);
        self.damaged.insert(run.clone());
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
        if let Reloaded::Later(reason) = &outcome {
            warn!(%run, error = service::supervisor::chain(reason), "reading the run's log again");
            self.read_after(APPEND_PAUSE, run.clone(), asker);
            return;
        }
        self.reloading.remove(run);
        match outcome {
            Reloaded::Run(loaded) => {
                let state = loaded.run.clone();
                self.put_in(run, *loaded);
                if let (false, Some(Asker { agent, report })) = (self.open.contains_key(run), asker) {
                    // Nothing is left to do for the run, so nothing can follow from the report but an answer.
                    self.answer(self.answers_of(&state, agent, report).answers);
                }
            }
            Reloaded::Damaged(damage) => self.set_aside(run, &damage),
            Reloaded::Missing | Reloaded::Later(_) => {
                if let Some(Asker { agent, report }) = asker {
                    // No such run: nobody waits for the report, and the agent can forget it.
                    self.command(&agent, AgentCommand::Acknowledge { lease: report.lease, report: report.report.kind() });
                }
            }
        }
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
        self.leases.follow(&loaded.run, now);
        if let Some(open) = self.open.get_mut(id) {
            open.run = loaded.run;
            open.tail = loaded.tail;
            open.busy = false;
            open.reloading = false;
        } else {
            let mut open = OpenRun::new(loaded.run, loaded.tail);
            if open.is_done(now) {
                return;
            }
            self.open.insert(id.clone(), open);
        }
        self.opened(id);
    }

    /// What would follow from a report, if the run were open.
    fn answers_of(&self, run: &Run, agent: AgentName, report: AgentReport) -> Decision {
        let (proposals, secrets) = (Proposals::new(), self.secrets());
        let context = Context { proposals: &proposals, callback_secrets: &secrets };
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
        Reloaded::Later(reason) => Err(reason),
    }
}

async fn read(run: &RunId, bus: &Bus, plans: &Plans) -> Reloaded {
    let stored = match bus.run_log(run).await {
        Ok(stored) => stored,
        Err(error) => return Reloaded::Later(error.into()),
    };
    let mut reading = Reading::default();
    for record in &stored {
        if let Err(error) = reading.take(record) {
            return Reloaded::Damaged(error);
        }
    }
    reading.finish(run, plans).await
}
