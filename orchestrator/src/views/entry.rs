//! The rows, as they are derived from a run and its records.

use apispec::{DeliveryView, RunStatus, RunView};
use model::{
    ProjectName, RunId, RunOutcome, StageId, StageOutcome, Timestamp,
    context::EventKind,
    event::run::{Answer, CancelReason, RunEvent},
    plan::StageKind,
};
use serde::{Deserialize, Serialize};

use crate::{
    core::{Run, Status, shape::Index},
    http::view,
    runs::Appended,
};

/// Events of one record: a record is at most a MiB, and an event has at least sixteen bytes.
const PLACES_OF_A_RECORD: u64 = 1 << 16;

/// Where a run stands, as runs are searched by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It has not ended: one of the next three.
    Open,
    /// Stages wait or run.
    Running,
    /// It waits for the end of an older run.
    Held,
    /// Its end was asked for.
    Cancelling,
    /// It is not run upon, as its log is damaged.
    Damaged,
    /// It has ended, whichever way.
    Ended,
    /// It has ended so.
    #[serde(untagged)]
    As(RunOutcome),
}

/// A delivery to an environment: one stage of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Orders deliveries by when something first happened to them.
    pub place: u64,
    /// The project.
    pub project: ProjectName,
    /// Where to.
    pub environment: String,
    /// The run.
    pub run: RunId,
    /// The stage.
    pub stage: StageId,
    /// Its path.
    pub path: String,
    /// Whether it takes a delivery back.
    pub rollback: bool,
    /// The branch; empty if there is none.
    pub branch: String,
    /// The tag; empty if there is none.
    pub tag: String,
    /// The commit; empty if there is none.
    pub commit: String,
    /// Who caused the run, where that is known.
    pub actor: Option<String>,
    /// Who approved it, where somebody did.
    pub approved_by: Vec<String>,
    /// Where it stands.
    pub status: DeliveryStatus,
    /// When its last attempt began.
    pub began_at: Option<Timestamp>,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// As it is shown.
    pub view: DeliveryView,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// For people, a lock, or an agent.
    Waiting,
    /// An agent has it, or what comes after it is asked.
    Running,
    /// Its agent was lost.
    Lost,
    /// It does not happen.
    Skipped,
    /// It has ended so.
    #[serde(untagged)]
    Ended(StageOutcome),
}

/// Something that somebody did to a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Orders entries by when they happened.
    pub place: u64,
    /// When.
    pub at: Timestamp,
    /// The run.
    pub run: RunId,
    /// Its project.
    pub project: ProjectName,
    /// Who, where that is known.
    pub actor: Option<String>,
    /// What.
    pub action: Action,
}

/// What somebody did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Action {
    /// Caused the run.
    Started {
        /// How.
        event: EventKind,
        /// The run that it runs again.
        rerun_of: Option<RunId>,
    },
    /// Asked for its end.
    Cancelled {
        /// Why.
        reason: CancelReason,
        /// Whether at once.
        force: bool,
    },
    /// Answered what a stage waited for.
    Answered {
        /// The stage's path.
        path: String,
        /// What.
        answer: Answer,
    },
}

impl Standing {
    /// The words that stand in the database for it.
    pub(super) fn words(self) -> Vec<&'static str> {
        match self {
            Self::Open => vec!["running", "held", "cancelling"],
            Self::Running => vec!["running"],
            Self::Held => vec!["held"],
            Self::Cancelling => vec!["cancelling"],
            Self::Damaged => vec!["damaged"],
            Self::Ended => vec!["skipped", "success", "unstable", "failure", "aborted", "unknown"],
            Self::As(outcome) => vec![word_of(outcome)],
        }
    }
}

fn word_of(outcome: RunOutcome) -> &'static str {
    match outcome {
        RunOutcome::Skipped => "skipped",
        RunOutcome::Success => "success",
        RunOutcome::Unstable => "unstable",
        RunOutcome::Failure => "failure",
        RunOutcome::Aborted => "aborted",
        RunOutcome::Unknown => "unknown",
    }
}

/// The word for where the run stands.
pub(super) fn word(view: &RunView) -> &'static str {
    match &view.status {
        RunStatus::Running => "running",
        RunStatus::Held { .. } => "held",
        RunStatus::Cancelling { .. } => "cancelling",
        RunStatus::Damaged { .. } => "damaged",
        RunStatus::Ended { outcome, .. } => word_of(*outcome),
    }
}

/// Whether anything that is listed follows from the record.
pub(super) fn matters(run: &Run, appended: &Appended) -> bool {
    appended.record.events.iter().any(|event| match event {
        RunEvent::RunAccepted { .. }
        | RunEvent::RunFinished { .. }
        | RunEvent::CancelRequested { .. }
        | RunEvent::RunHeld { .. }
        | RunEvent::RunReleased
        | RunEvent::WaitAnswered { .. } => true,
        RunEvent::StageReady { stage, .. }
        | RunEvent::StageAwarded { stage, .. }
        | RunEvent::StageDeclined { stage, .. }
        | RunEvent::StageStarted { stage, .. }
        | RunEvent::StageFinished { stage, .. }
        | RunEvent::StageRetried { stage, .. }
        | RunEvent::StageEnded { stage, .. }
        | RunEvent::StageReused { stage, .. }
        | RunEvent::WaitOpened { stage, .. }
        | RunEvent::LockQueued { stage, .. }
        | RunEvent::LockAcquired { stage, .. }
        | RunEvent::StageLost { stage, .. }
        | RunEvent::StageSkipped { stage, .. }
        | RunEvent::StageCancelRequested { stage, .. } => delivery_stage(run, stage).is_some(),
        RunEvent::StageLogStored { .. } => false,
    })
}

fn delivery_stage(run: &Run, stage: &StageId) -> Option<Index> {
    let at = run.shape.find(stage)?;
    run.shape.stage(at).deployment.is_some().then_some(at)
}

/// The run as it is listed, as its log has it.
pub(super) fn run(run: &Run) -> RunView {
    view::sound(run)
}

/// What people did in these records.
pub(super) fn audit<'run>(run: &'run Run, appended: &'run Appended) -> impl Iterator<Item = AuditEntry> + 'run {
    (0..).zip(&appended.record.events).filter_map(move |(index, event)| {
        let (actor, action) = act(run, event)?;
        Some(AuditEntry {
            place: place(appended.sequence, index),
            at: appended.record.at,
            run: run.id.clone(),
            project: run.trigger.project.clone(),
            actor,
            action,
        })
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what no person does is not audited, whatever will be added")]
fn act(run: &Run, event: &RunEvent) -> Option<(Option<String>, Action)> {
    match event {
        RunEvent::RunAccepted { trigger, .. } => {
            let rerun_of = trigger.rerun.as_ref().map(|rerun| rerun.of.clone());
            Some((trigger.claims.actor.clone(), Action::Started { event: trigger.context.event, rerun_of }))
        }
        RunEvent::CancelRequested { by, reason, force } => {
            Some((Some(by.clone()), Action::Cancelled { reason: reason.clone(), force: *force }))
        }
        RunEvent::WaitAnswered { stage, answer, by, .. } => {
            let answers_itself = matches!(answer, Answer::Polled | Answer::Elapsed | Answer::TimedOut);
            let path = run.stage(stage).map(|(planned, _)| planned.path.clone()).filter(|_| !answers_itself)?;
            Some((by.clone(), Action::Answered { path, answer: answer.clone() }))
        }
        _ => None,
    }
}

/// The stages that deliver, of which the record speaks, each with the place of the first word.
pub(super) fn delivering(run: &Run, appended: &Appended) -> Vec<(Index, u64, bool)> {
    let mut found: Vec<(Index, u64, bool)> = Vec::new();
    for (index, event) in (0..).zip(&appended.record.events) {
        let Some(at) = event.stage().and_then(|stage| delivery_stage(run, stage)) else { continue };
        if found.iter().all(|(seen, ..)| *seen != at) {
            let happens = !matches!(event, RunEvent::StageSkipped { .. } | RunEvent::StageReused { .. });
            found.push((at, place(appended.sequence, index), happens));
        }
    }
    found
}

/// The delivery by the stage at `at`, as it stands now.
pub(super) fn delivery(run: &Run, at: Index, place: u64) -> Option<Delivery> {
    let (planned, stage) = (run.shape.stage(at), &run.stages[at]);
    let environment = planned.deployment.as_ref()?.environment.clone();
    let approved = |(answer, by): &(Answer, Option<String>)| match answer {
        Answer::Approved { .. } => by.clone(),
        Answer::Refused { .. }
        | Answer::Text { .. }
        | Answer::CalledBack
        | Answer::Polled
        | Answer::Elapsed
        | Answer::Resumed
        | Answer::TimedOut => None,
    };
    let trigger = &run.trigger;
    let approved_by: Vec<String> = stage.waits.values().filter_map(|wait| wait.answer.as_ref().and_then(approved)).collect();
    let is_rollback = planned.kind == StageKind::Rollback;
    let view = DeliveryView {
        project: trigger.project.clone(),
        run: run.id.clone(),
        event: trigger.context.event,
        branch: trigger.context.branch.clone(),
        commit: trigger.context.commit.clone(),
        accepted_at: run.accepted_at,
        stage: view::reference(run, at),
        is_rollback,
        status: view::own_status(run, at),
        approved_by: approved_by.clone(),
    };
    Some(Delivery {
        place,
        project: trigger.project.clone(),
        environment,
        run: run.id.clone(),
        stage: planned.id.clone(),
        path: planned.path.clone(),
        rollback: is_rollback,
        branch: trigger.context.branch.clone(),
        tag: trigger.context.tag.clone(),
        commit: trigger.context.commit.clone(),
        actor: trigger.claims.actor.clone(),
        approved_by,
        status: match &stage.status {
            Status::Waiting | Status::Gated { .. } | Status::Queued { .. } | Status::Ready { .. } | Status::Pausing { .. } => {
                DeliveryStatus::Waiting
            }
            Status::Awarded | Status::Running | Status::Exiting { .. } => DeliveryStatus::Running,
            Status::Ended(outcome) => DeliveryStatus::Ended(*outcome),
            Status::Lost => DeliveryStatus::Lost,
            Status::Skipped(_) => DeliveryStatus::Skipped,
        },
        began_at: stage.attempts.last().and_then(|attempt| attempt.started_at),
        ended_at: stage.over_at,
        view,
    })
}

/// Where an event stands among those of all runs.
fn place(sequence: u64, index: u64) -> u64 {
    sequence * PLACES_OF_A_RECORD + index.min(PLACES_OF_A_RECORD - 1)
}
