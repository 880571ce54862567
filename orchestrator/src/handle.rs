//! What the HTTP API, and a command in the same process, can ask of the orchestrator.

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use blob::{BlobError, Blobs};
use eventbus::{Bus, BusError, Subject};
use model::{
    AgentName, Digest, RunId, StageId, TriggerId,
    event::run::{Answer, CancelReason, Planned, WaitKey},
    plan::PlanDocument,
    protocol::{
        enrolment::{DrainReply, DrainRequest},
        forge::{ProjectRunReply, ProjectRunRequest},
    },
    trigger::{Claims, Rerun, RerunStages, Trigger},
};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc, oneshot},
    time::{sleep, timeout},
};

use crate::{
    admission::{Admission, Full},
    callbacks::{self, CallbackKey, Called},
    core::{
        Input,
        wait::{self, Unfit},
    },
    engine::{
        Hint, Hints, PlanningError, Protections,
        plans::Plans,
        recovery::{LaterReason, Reloaded, read},
    },
    logs::LogHub,
    runs::{Damage, Runs, Snapshot},
};

/// Commands that wait for the engine. It takes one in microseconds; what finds the queue full waits.
pub(crate) const COMMANDS_MAX: usize = 1_024;
/// How long a caller waits for a command's outcome.
const COMMAND_DEADLINE: Duration = Duration::from_secs(15);
/// How long the eventbus role may take to write down that an agent drains.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// How long the forge may take to look where a branch is, to fetch it, and to store the trigger. Clients wait 30 s.
const SOURCE_DEADLINE: Duration = Duration::from_secs(20);
/// Before a command is given again that nothing came of yet. The same again changes nothing.
const ASK_PAUSE: Duration = Duration::from_secs(1);

/// The orchestrator of this process. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Orchestrator {
    /// The read side.
    pub runs: Runs,
    /// Output of running attempts.
    pub logs: LogHub,
    /// Where plans, sources and stored output lie.
    pub blobs: Blobs,
    pub(crate) bus: Bus,
    pub(crate) plans: Plans,
    /// What protects the projects.
    pub(crate) protections: Protections,
    pub(crate) commands: mpsc::Sender<Command>,
    /// None where nobody is called back.
    pub(crate) callback_key: Option<CallbackKey>,
    pub(crate) hints: Arc<RwLock<Hints>>,
    pub(crate) admission: Admission,
}

/// Why a command had no effect.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no such run.
    #[error("there is no run {0}")]
    UnknownRun(RunId),
    /// The run has ended.
    #[error("the run {0} has ended")]
    Ended(RunId),
    /// The run has not ended.
    #[error("the run {0} has not ended")]
    Open(RunId),
    /// The run has no plan.
    #[error("the run {0} has no plan: there is nothing to run again")]
    NoPlan(RunId),
    /// The depot has the run's plan no more.
    #[error("the depot has the plan {plan} of the run {run} no more")]
    PlanGone {
        /// The run.
        run: RunId,
        /// Its plan.
        plan: Digest,
    },
    /// The run's log must not be run upon.
    #[error("the run {run} is damaged: {}; {}", damage.why, damage.help)]
    Damaged {
        /// The run.
        run: RunId,
        /// What is wrong with it.
        damage: Damage,
    },
    /// There is no room for another run.
    #[error(transparent)]
    Full(#[from] Full),
    /// The depot does not answer.
    #[error("the depot did not do its part")]
    Depot(#[from] BlobError),
    /// The run's plan cannot be had now.
    #[error("the plan of the run cannot be read now")]
    Plan(#[from] PlanningError),
    /// There is no such stage.
    #[error("the run {run} has no stage {stage}")]
    UnknownStage {
        /// The run.
        run: RunId,
        /// The stage.
        stage: StageId,
    },
    /// The answer is not taken.
    #[error("{stage} of {run} does not take this answer")]
    Unfit {
        /// The run.
        run: RunId,
        /// The stage's path.
        stage: String,
        /// Why.
        #[source]
        why: Unfit,
    },
    /// No address has this secret.
    #[error("no address has this secret")]
    UnknownCallback,
    /// Whether it took effect is not known yet.
    #[error("the orchestrator did not answer in time about {0}")]
    Late(RunId),
    /// The bus did not take it.
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl From<LaterReason> for CommandError {
    fn from(reason: LaterReason) -> Self {
        match reason {
            LaterReason::Bus(error) => error.into(),
            LaterReason::Plan(error) => error.into(),
            LaterReason::Depot(error) => error.into(),
        }
    }
}

/// Something that happens to a run, from outside. Whoever sends it is told whether there is such a run, and hears the rest from its log.
pub(crate) struct Command {
    pub(crate) run: RunId,
    pub(crate) input: Input,
    pub(crate) done: oneshot::Sender<Result<(), CommandError>>,
}

impl Orchestrator {
    /// Has an agent take no new work, or take it again: written down by the eventbus role, and so by the time that this returns.
    pub async fn drain(&self, agent: &AgentName, draining: bool) -> Result<DrainReply, BusError> {
        let reply = self.bus.request(&Subject::drain(), &DrainRequest { agent: agent.clone(), draining }, DRAIN_DEADLINE).await?;
        if let DrainReply::Done { enrolled } = &reply {
            // It is told to all of them, and this one answers for it.
            self.runs.agents().set_enrolled(agent, enrolled);
        }
        Ok(reply)
    }

    /// Stores the trigger; when this returns, its run exists or will. The same trigger again is the same run.
    pub async fn create(&self, trigger: &Trigger) -> Result<RunId, CommandError> {
        if self.runs.get(&trigger.run()).is_none() {
            self.admission.admit(self.runs.load_now())?;
        }
        self.bus.store_trigger(trigger).await?;
        Ok(trigger.run())
    }

    /// Has the forge store the trigger of a run of a project's own code. The same request again is the same run.
    pub async fn create_of_project(&self, request: &ProjectRunRequest) -> Result<ProjectRunReply, CommandError> {
        if self.runs.get(&RunId::of(&request.id)).is_none() {
            self.admission.admit(self.runs.load_now())?;
        }
        Ok(self.bus.request(&Subject::project_run(), request, SOURCE_DEADLINE).await?)
    }

    /// What a run of this trigger would do, and of how many stages. Nothing is started.
    pub async fn plan(&self, trigger: &Trigger) -> Result<(Planned, usize), CommandError> {
        let (planned, shape) = self.plans.plan(trigger).await?;
        Ok((planned, shape.len()))
    }

    /// The plan of this digest.
    pub async fn document(&self, plan: &Digest) -> Result<PlanDocument, CommandError> {
        let bytes = self.blobs.get(plan).await?;
        Ok(PlanDocument::read(&bytes).map_err(PlanningError::from)?)
    }

    /// The plan of a run.
    pub async fn document_of(&self, run: &RunId, plan: &Digest) -> Result<PlanDocument, CommandError> {
        match self.document(plan).await {
            Err(CommandError::Depot(BlobError::Missing(_))) => Err(CommandError::PlanGone { run: run.clone(), plan: *plan }),
            found => found,
        }
    }

    /// The run, also one that has left memory: its log is read then.
    pub async fn find(&self, run: &RunId) -> Result<Option<Snapshot>, CommandError> {
        if let Some(snapshot) = self.runs.get(run) {
            return Ok(Some(snapshot));
        }
        self.is_sound(run)?;
        match read(run, &self.bus, &self.plans).await {
            Reloaded::Run(loaded) => {
                let (run, records) = loaded.into_parts();
                Ok(Some(Snapshot { run: Arc::new(run), records: Arc::new(records) }))
            }
            Reloaded::Missing => Ok(None),
            Reloaded::Damaged(damaged) => Err(CommandError::Damaged { run: run.clone(), damage: damaged.damage() }),
            Reloaded::Later(later) => Err(later.reason.into()),
        }
    }

    /// Refuses a run that is not run upon.
    pub(crate) fn is_sound(&self, run: &RunId) -> Result<(), CommandError> {
        self.runs.damage(run).map_or(Ok(()), |damage| Err(CommandError::Damaged { run: run.clone(), damage }))
    }

    /// Runs an ended run again: the same plan on the same source, for `actor`. The same `key` again is the same new run.
    pub async fn rerun(&self, of: &RunId, stages: RerunStages, key: &str, actor: Option<&str>) -> Result<RunId, CommandError> {
        self.is_sound(of)?;
        let old = self.find(of).await?.ok_or_else(|| CommandError::UnknownRun(of.clone()))?.run;
        if old.ended.is_none() {
            return Err(CommandError::Open(of.clone()));
        }
        let Planned::Plan { digest, .. } = &old.planned else { return Err(CommandError::NoPlan(of.clone())) };
        if !self.blobs.has(digest).await? {
            return Err(CommandError::PlanGone { run: of.clone(), plan: *digest });
        }
        if let RerunStages::Stage(stage) = &stages
            && old.shape.find(stage).is_none()
        {
            return Err(CommandError::UnknownStage { run: of.clone(), stage: stage.clone() });
        }
        let rerun = Some(Rerun { of: of.clone(), stages });
        let claims = Claims { actor: actor.map(str::to_owned), ..old.trigger.claims.clone() };
        self.create(&Trigger { id: TriggerId::of("rerun", key), claims, rerun, ..Trigger::clone(&old.trigger) }).await
    }

    /// Asks for the end of a run, at once if `force` says so. The request is in the log when this returns; it has taken effect when the run
    /// has ended.
    pub async fn cancel(&self, run: &RunId, by: &str, force: bool) -> Result<Snapshot, CommandError> {
        let input = Input::Cancel { by: by.to_owned(), reason: CancelReason::Person, force };
        let is_cancelled = |snapshot: &Snapshot| {
            let cancelled = snapshot.run.cancelled.as_ref();
            cancelled.is_some_and(|cancelled| !force || cancelled.forced.is_some())
        };
        // The same request of the same person again, to whom the word that it was taken was lost.
        if let Some(snapshot) = self.runs.get(run)
            && is_cancelled(&snapshot)
            && snapshot.run.cancelled.as_ref().is_some_and(|cancelled| cancelled.by == by)
        {
            self.is_sound(run)?;
            return Ok(snapshot);
        }
        self.give(run, input, is_cancelled).await
    }

    /// Answers something that a stage waits for. The answer is in the log when this returns.
    pub async fn answer(
        &self,
        run: &RunId,
        stage: &StageId,
        wait: WaitKey,
        answer: Answer,
        by: Option<&str>,
    ) -> Result<Snapshot, CommandError> {
        self.is_sound(run)?;
        let snapshot = self.find(run).await?.ok_or_else(|| CommandError::UnknownRun(run.clone()))?;
        let unknown = || CommandError::UnknownStage { run: run.clone(), stage: stage.clone() };
        let at = snapshot.run.shape.find(stage).ok_or_else(unknown)?;
        let unfit = |why| CommandError::Unfit { run: run.clone(), stage: snapshot.run.shape.stage(at).path.clone(), why };
        let given = |snapshot: &Snapshot| snapshot.run.stages[at].waits.get(&wait).and_then(|wait| wait.answer.clone());
        // The same answer of the same person again, to whom the word that it was taken was lost. A callback takes one call.
        if by.is_some() && given(&snapshot).is_some_and(|(taken, by_whom)| taken == answer && by_whom.as_deref() == by) {
            return Ok(snapshot);
        }
        wait::fits(&snapshot.run, at, wait, &answer).map_err(unfit)?;
        let input = Input::Answered { at, wait, answer: answer.clone(), by: by.map(str::to_owned) };
        let after = self.give(run, input, |snapshot| given(snapshot).is_some() || snapshot.run.stages[at].is_over()).await?;
        match given(&after) {
            Some((taken, by_whom)) if taken == answer && by_whom.as_deref() == by => Ok(after),
            Some(_) => Err(unfit(Unfit::Answered)),
            None => Err(unfit(Unfit::Late)),
        }
    }

    /// An outside system calls the address with this secret.
    pub async fn call_back(&self, secret: &str) -> Result<(), CommandError> {
        let called = self.callback_key.as_ref().and_then(|key| key.open(secret));
        let Called { run, stage, wait } = called.ok_or(CommandError::UnknownCallback)?;
        match self.answer(&run, &stage, wait, Answer::CalledBack, None).await {
            Ok(_) => Ok(()),
            // Only who made the secret could make it name what there is not.
            Err(CommandError::UnknownRun(_) | CommandError::UnknownStage { .. } | CommandError::Ended(_)) => {
                Err(CommandError::UnknownCallback)
            }
            Err(error) => Err(error),
        }
    }

    /// The path at which a webhook is called, below the base of this process's callbacks; none where nobody is called back.
    pub fn callback_path(&self, run: &RunId, stage: &StageId, wait: WaitKey) -> Option<String> {
        self.callback_key.as_ref().map(|key| format!("{}{}", callbacks::PATH, key.secret(run, stage, wait)))
    }

    /// The caches that runs have left, for the engine that a later process starts.
    pub fn hints(&self) -> Vec<Hint> {
        self.hints.read().expect("no holder of this lock panics").all()
    }

    /// Gives an input to a run, and waits until the log has what was to come of it, or the run has ended. Where another orchestrator works on the run,
    /// it is asked again and again: who that is may change meanwhile.
    async fn give(&self, run: &RunId, input: Input, is_done: impl Fn(&Snapshot) -> bool) -> Result<Snapshot, CommandError> {
        let late = || CommandError::Late(run.clone());
        let given = async {
            self.know(run).await?;
            // Follow first, then ask: the record that says so is not missed.
            let mut appended = self.runs.follow();
            let mut was_taken = false;
            loop {
                let (done, outcome) = oneshot::channel();
                self.commands.send(Command { run: run.clone(), input: input.clone(), done }).await.map_err(|_| late())?;
                match outcome.await.map_err(|_| late())? {
                    Ok(()) => was_taken = true,
                    // Perhaps because of what was asked.
                    Err(CommandError::Ended(_)) if was_taken => {}
                    Err(error) => return Err(error),
                }
                let again = sleep(ASK_PAUSE);
                tokio::pin!(again);
                loop {
                    self.is_sound(run)?;
                    let snapshot = self.runs.get(run).ok_or_else(|| CommandError::UnknownRun(run.clone()))?;
                    if is_done(&snapshot) || snapshot.run.ended.is_some() {
                        return Ok(snapshot);
                    }
                    tokio::select! {
                        () = &mut again => break,
                        heard = appended.recv() => if let Err(RecvError::Closed) = heard {
                            return Err(late());
                        },
                    }
                }
            }
        };
        timeout(COMMAND_DEADLINE, given).await.map_err(|_| late())?
    }

    /// Waits for a run that another orchestrator has begun just now: its log has it, and it is read here next.
    async fn know(&self, run: &RunId) -> Result<(), CommandError> {
        if self.runs.get(run).is_none() && self.find(run).await?.is_some_and(|snapshot| snapshot.run.ended.is_none()) {
            let _it_is_known_then = self.runs.get_soon(run, COMMAND_DEADLINE).await;
        }
        Ok(())
    }
}
