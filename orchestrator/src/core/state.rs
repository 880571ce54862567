//! The state of a run: what its log says, folded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use model::{
    AttemptId, RunId, RunOutcome, StageId, StageOutcome, Timestamp,
    diagnostic::Diagnostic,
    event::run::{CancelReason, Planned, RunEvent, SkipReason, WaitKey},
    plan::Effect,
    protocol::agent::Lease,
    trigger::Trigger,
};
use serde::{Deserialize, Serialize};

use super::{
    shape::{Index, Phase, Shape},
    stage::{Attempt, Stage, Status},
};

/// How long the orchestrator waits for the word of an agent whose stage is ended by force.
pub const FORCE_CONFIRM: Duration = Duration::from_secs(5);

/// Where an event stands: the sequence and the time of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The record's sequence in the stream of run logs; an award's is its fence.
    pub sequence: u64,
    /// When it was decided.
    pub at: Timestamp,
}

/// An event that cannot follow what the log says so far: the log is damaged, or a decision is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event `{kind}` at sequence {sequence} cannot follow the log of {run}: {why}")]
pub struct Illegal {
    /// The run.
    pub run: RunId,
    /// The record's sequence.
    pub sequence: u64,
    /// The event's kind.
    pub kind: &'static str,
    /// What does not fit.
    pub why: String,
}

/// A run. A clone is cheap: stages are shared until they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The run.
    pub id: RunId,
    /// What caused it.
    pub trigger: Arc<Trigger>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The plan's graph; without stages where the pipeline was refused.
    pub shape: Arc<Shape>,
    /// The digest of the plan, or why there is none.
    pub planned: Planned,
    /// As in [`Shape`].
    pub stages: Vec<Arc<Stage>>,
    /// The older run whose end it waits for.
    pub held: Option<RunId>,
    /// Stages that are ready, awarded or running.
    pub active: BTreeSet<Index>,
    /// Stages that wait for people, the outside, time or a lock, without an agent.
    pub held_up: BTreeSet<Index>,
    /// Stages that have not come to an end.
    pub open: usize,
    /// Who asked for the end of the run, and how.
    pub cancelled: Option<Cancelled>,
    /// How and when it ended.
    pub ended: Option<(RunOutcome, Timestamp)>,
    /// By the stage, how many of its needs have not ended, or not well.
    pub(super) needs: Vec<Needs>,
    /// Stages about whose beginning something is to be decided.
    pub(super) turn: BTreeSet<Index>,
    /// Stages of the first phase that have not come to an end.
    pub(super) open_work: usize,
    /// Who has which lock.
    pub(super) locks: BTreeMap<String, Index>,
    /// Stages of the first phase that have failed, and may not.
    pub(super) failed: BTreeSet<Index>,
    /// The `fanout`s in which a stage has failed.
    pub(super) broken: BTreeSet<String>,
    /// What happens by itself, and when: the end of a pause, or of the time of a wait.
    dues: BTreeSet<(Timestamp, Index, Option<WaitKey>)>,
}

/// What a stage still waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// How many have not ended well so far.
    pub(super) unmet: usize,
    /// How many of those have come to another end.
    pub(super) failed: usize,
}

/// That the run is to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// Who asked first, for people.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// Why, the first time.
    pub reason: CancelReason,
    /// Since when by force, if it is.
    pub forced: Option<Timestamp>,
    /// Nobody but a newer run has asked for it: what has started and must not start twice goes on.
    pub spares_once: bool,
    /// Only its time was over: what undoes goes on.
    pub spares_undoing: bool,
}

/// How a stage stood before an event.
#[derive(Debug, Clone, Copy)]
struct Was {
    over: bool,
    well: bool,
}

/// That an attempt is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Whether at once.
    pub force: bool,
}

impl Run {
    /// The run that its first record begins. `shape` is that of the plan whose digest the record carries; an empty one where it was refused.
    pub fn accepted(id: RunId, trigger: Trigger, planned: Planned, shape: Arc<Shape>, position: Position) -> Self {
        let work = |at: &Index| shape.phase(*at) == Phase::Work;
        let needs: Vec<Needs> = (0..shape.len()).map(|at| Needs { unmet: shape.needs(at).count(), failed: 0 }).collect();
        let (open, open_work) = (shape.len(), (0..shape.len()).filter(work).count());
        Self {
            id,
            trigger: Arc::new(trigger),
            accepted_at: position.at,
            planned,
            stages: vec![Arc::default(); open],
            held: None,
            active: BTreeSet::new(),
            held_up: BTreeSet::new(),
            open,
            cancelled: None,
            ended: None,
            turn: (0..open).filter(work).filter(|at| needs[*at].unmet == 0).collect(),
            needs,
            open_work,
            locks: BTreeMap::new(),
            broken: BTreeSet::new(),
            failed: BTreeSet::new(),
            dues: BTreeSet::new(),
            shape,
        }
    }

    /// Why there is no plan; empty where there is one.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match &self.planned {
            Planned::Plan { .. } | Planned::NotTriggered { .. } => &[],
            Planned::Refused { diagnostics } => diagnostics,
        }
    }

    /// The stage and what its plan says of it.
    pub fn stage(&self, id: &StageId) -> Option<(&model::plan::Stage, &Stage)> {
        let at = self.shape.find(id)?;
        Some((self.shape.stage(at), &self.stages[at]))
    }

    /// How many of the needs of the stage at `at` have not ended well.
    pub fn unmet(&self, at: Index) -> usize {
        self.needs[at].unmet
    }

    /// The stage that has the lock.
    pub fn holder_of(&self, lock: &str) -> Option<Index> {
        self.locks.get(lock).copied()
    }

    /// The lease of an attempt of the stage at `at`.
    pub fn lease(&self, at: Index, attempt: &Attempt) -> Lease {
        let stage = self.shape.stage(at).id.clone();
        Lease { attempt: AttemptId { run: self.id.clone(), stage, attempt: attempt.number }, fence: attempt.fence }
    }

    /// The attempt that a lease is for, however it ended; `None` if there never was such an award.
    pub fn attempt_of(&self, lease: &Lease) -> Option<(Index, &Attempt)> {
        let at = self.shape.find(&lease.attempt.stage)?;
        let attempt = self.stages[at].attempts.iter().find(|attempt| attempt.fence == lease.fence)?;
        (attempt.number == lease.attempt.attempt && self.id == lease.attempt.run).then_some((at, attempt))
    }

    /// Whether the lease is the one that counts for its stage now.
    pub fn holds(&self, lease: &Lease) -> bool {
        self.attempt_of(lease).is_some_and(|(at, attempt)| self.stages[at].holder().is_some_and(|holder| holder.fence == attempt.fence))
    }

    /// Whether the stage at `at` is to end, and how; `None` if it may go on.
    pub fn ending(&self, at: Index) -> Option<Ending> {
        let stage = &self.stages[at];
        let asked = stage.cancel_requested.is_some().then_some(Ending { force: false });
        let Some(cancelled) = &self.cancelled else { return asked };
        if cancelled.forced.is_some() {
            return Some(Ending { force: true });
        }
        let goes_on = match self.shape.phase(at) {
            Phase::Work => cancelled.spares_once && stage.has_started() && self.shape.stage(at).effect == Effect::Once,
            Phase::Undo => cancelled.spares_undoing,
            Phase::Notify => true,
        };
        if goes_on { asked } else { Some(Ending { force: false }) }
    }

    /// Whether the stage at `at` has ended well: what needs it goes on.
    pub fn ended_well(&self, at: Index) -> bool {
        let planned = self.shape.stage(at);
        match &self.stages[at].status {
            Status::Ended(StageOutcome::Success | StageOutcome::Unstable) | Status::Skipped(SkipReason::Condition { .. }) => true,
            Status::Ended(StageOutcome::Failure) => planned.allow_failure,
            Status::Lost => planned.allow_failure && planned.effect == Effect::Safe,
            Status::Ended(StageOutcome::Aborted)
            | Status::Skipped(
                SkipReason::NeedFailed { .. }
                | SkipReason::Cancelled
                | SkipReason::Fanout { .. }
                | SkipReason::NothingToUndo
                | SkipReason::NotWanted
                | SkipReason::Stopped { .. },
            )
            | Status::Waiting
            | Status::Gated { .. }
            | Status::Queued { .. }
            | Status::Ready { .. }
            | Status::Awarded
            | Status::Running
            | Status::Pausing { .. }
            | Status::Exiting { .. } => false,
        }
    }

    /// Whether it could wait for an older run's end: nothing of it is under way, and something could begin.
    pub fn may_be_held(&self) -> bool {
        let goes_on = self.ended.is_none() && self.cancelled.is_none() && self.held.is_none();
        goes_on && self.active.is_empty() && self.held_up.is_empty() && !self.turn.is_empty()
    }

    /// When something happens by itself: at that time the run is to be given [`Input::TimePassed`](super::Input::TimePassed). A time that
    /// has passed means at once.
    pub fn next_due(&self) -> Option<Timestamp> {
        if self.ended.is_some() {
            return None;
        }
        let more = (self.held.is_none() && !self.turn.is_empty()).then_some(Timestamp(0));
        let timer = self.dues.first().map(|(at, ..)| *at);
        [more, timer, self.times_out_at(), self.force_ends_at()].into_iter().flatten().min()
    }

    /// The first of what was due by `now`: a wait of a stage, or the end of its pause.
    pub(super) fn due_by(&self, now: Timestamp) -> Option<(Index, Option<WaitKey>)> {
        self.dues.first().filter(|(due, ..)| *due <= now).map(|(_, at, wait)| (*at, *wait))
    }

    /// When the run's own time is over, while there is work that it could end.
    pub(super) fn times_out_at(&self) -> Option<Timestamp> {
        let timeout_ms = self.trigger.timeout_ms?;
        let bounds = self.open_work > 0 && self.cancelled.as_ref().is_none_or(|cancelled| cancelled.spares_once);
        bounds.then(|| self.accepted_at + Duration::from_millis(timeout_ms))
    }

    /// When the agents of a run that is ended by force have had time enough to confirm it.
    pub(super) fn force_ends_at(&self) -> Option<Timestamp> {
        let forced = self.cancelled.as_ref()?.forced?;
        (!self.active.is_empty()).then(|| forced + FORCE_CONFIRM)
    }

    /// Folds one event into the state. Live and replayed events go through here alike.
    pub fn apply(&mut self, position: Position, event: &RunEvent) -> Result<(), Illegal> {
        self.fold(position, event).map_err(|why| Illegal { run: self.id.clone(), sequence: position.sequence, kind: event.kind(), why })
    }

    fn fold(&mut self, position: Position, event: &RunEvent) -> Result<(), String> {
        if self.ended.is_some() && !matches!(event, RunEvent::StageLogStored { .. }) {
            return Err("the run has ended".to_owned());
        }
        match event {
            RunEvent::RunAccepted { .. } => return Err("the run was accepted before".to_owned()),
            RunEvent::CancelRequested { by, reason, force } => self.cancel(by, reason, force.then_some(position.at), position.at),
            RunEvent::RunFinished { outcome } => {
                if self.open > 0 {
                    return Err(format!("{} stages have not ended", self.open));
                }
                self.ended = Some((*outcome, position.at));
            }
            RunEvent::RunHeld { older } => {
                if !self.active.is_empty() || !self.held_up.is_empty() {
                    return Err("it has begun".to_owned());
                }
                self.held = Some(older.clone());
            }
            RunEvent::RunReleased => {
                self.held.take().ok_or("it is not held")?;
            }
            RunEvent::StageReady { stage, .. }
            | RunEvent::StageRetried { stage, .. }
            | RunEvent::StageEnded { stage, .. }
            | RunEvent::StageReused { stage, .. }
            | RunEvent::WaitOpened { stage, .. }
            | RunEvent::WaitAnswered { stage, .. }
            | RunEvent::LockQueued { stage, .. }
            | RunEvent::LockAcquired { stage, .. }
            | RunEvent::StageCancelRequested { stage, .. }
            | RunEvent::StageAwarded { stage, .. }
            | RunEvent::StageDeclined { stage, .. }
            | RunEvent::StageStarted { stage, .. }
            | RunEvent::StageFinished { stage, .. }
            | RunEvent::StageLost { stage, .. }
            | RunEvent::StageSkipped { stage, .. }
            | RunEvent::StageLogStored { stage, .. } => {
                let at = self.shape.find(stage).ok_or_else(|| format!("the plan has no stage {stage}"))?;
                self.fold_stage(at, position, event)?;
            }
        }
        Ok(())
    }

    fn cancel(&mut self, by: &str, reason: &CancelReason, forced: Option<Timestamp>, since: Timestamp) {
        let (newer, timed_out) = (matches!(reason, CancelReason::Newer { .. }), *reason == CancelReason::TimedOut);
        let cancelled = self.cancelled.get_or_insert_with(|| Cancelled {
            by: by.to_owned(),
            since,
            reason: reason.clone(),
            forced,
            spares_once: newer,
            spares_undoing: timed_out,
        });
        // It does not begin any more, so it waits for no other.
        self.held = None;
        cancelled.spares_once &= newer;
        cancelled.spares_undoing &= timed_out;
        cancelled.forced = cancelled.forced.or(forced);
    }

    fn fold_stage(&mut self, at: Index, position: Position, event: &RunEvent) -> Result<(), String> {
        if let RunEvent::LockAcquired { lock, .. } = event
            && let Some(holder) = self.locks.get(lock)
        {
            return Err(format!("{} holds the lock `{lock}`", self.shape.stage(*holder).path));
        }
        let shape = Arc::clone(&self.shape);
        let may_begin = self.held.is_none() && self.needs[at].unmet == 0;
        let was = Was { over: self.stages[at].is_over(), well: self.ended_well(at) };
        let was_due = due_of(&self.stages[at].status);
        Arc::make_mut(&mut self.stages[at]).fold(shape.stage(at), may_begin, position, event)?;
        self.schedule(at, was_due, event);
        if let RunEvent::StageCancelRequested { failed, .. } | RunEvent::StageSkipped { reason: SkipReason::Fanout { failed }, .. } = event
            && let Some(failed) = shape.find(failed)
        {
            self.broken.extend(shape.stage(failed).fanouts.iter().cloned());
        }
        self.count(at, was);
        Ok(())
    }

    /// Brings the timers up to date after an event about the stage at `at`.
    fn schedule(&mut self, at: Index, was_due: Option<Timestamp>, event: &RunEvent) {
        let stage = &self.stages[at];
        let is_due = due_of(&stage.status);
        if was_due != is_due {
            was_due.map(|due| self.dues.remove(&(due, at, None)));
            is_due.map(|due| self.dues.insert((due, at, None)));
        }
        let due_of = |key: &WaitKey| stage.waits.get(key).and_then(|wait| wait.opened.as_ref()?.due_at);
        if let RunEvent::WaitOpened { wait, due_at: Some(due), .. } = event
            && stage.waits.get(wait).is_some_and(|wait| wait.answer.is_none())
        {
            self.dues.insert((*due, at, Some(*wait)));
        }
        if let RunEvent::WaitAnswered { wait, .. } = event {
            due_of(wait).map(|due| self.dues.remove(&(due, at, Some(*wait))));
        }
        if stage.is_over() {
            for key in stage.waits.keys() {
                due_of(key).map(|due| self.dues.remove(&(due, at, Some(*key))));
            }
        }
    }

    /// Counts anew what is derived from the stages, of which none was counted.
    pub(super) fn recount(&mut self) {
        // What a stage needs stands before it, and so what it finds is known when it is its turn.
        for at in 0..self.stages.len() {
            let stage = &self.stages[at];
            let waits = stage.open_waits().filter_map(|(key, opened)| Some((opened.due_at?, at, Some(key)))).filter(|_| !stage.is_over());
            let pause = due_of(&stage.status).map(|due| (due, at, None));
            let dues: Vec<_> = waits.chain(pause).collect();
            self.dues.extend(dues);
            self.count(at, Was { over: false, well: false });
        }
    }

    /// Brings what is derived from the stages up to date after the stage at `at` changed.
    fn count(&mut self, at: Index, was: Was) {
        let stage = &self.stages[at];
        let is = Was { over: stage.is_over(), well: self.ended_well(at) };
        set(&mut self.active, at, matches!(stage.status, Status::Ready { .. } | Status::Awarded | Status::Running));
        set(&mut self.held_up, at, stage.is_held_up());
        if let Some(lock) = &stage.lock {
            if !is.over {
                self.locks.insert(lock.clone(), at);
            } else if self.locks.get(lock) == Some(&at) {
                self.locks.remove(lock);
            }
        }
        if stage.status != Status::Waiting {
            self.turn.remove(&at);
        }
        if was.over == is.over {
            return;
        }
        let work = usize::from(self.shape.phase(at) == Phase::Work);
        if is.over {
            self.open -= 1;
            self.open_work -= work;
        } else {
            self.open += 1;
            self.open_work += work;
        }
        self.leave(at);
        let has_failed = self.has_failed(at);
        set(&mut self.failed, at, has_failed);
        let shape = Arc::clone(&self.shape);
        for dependent in shape.dependents(at) {
            let needs = &mut self.needs[dependent];
            match (was.well, is.well) {
                (false, true) => needs.unmet -= 1,
                (true, false) => needs.unmet += 1,
                (true, true) | (false, false) => {}
            }
            match (was.over && !was.well, is.over && !is.well) {
                (false, true) => needs.failed += 1,
                (true, false) => needs.failed -= 1,
                (true, true) | (false, false) => {}
            }
            let has_its_turn = needs.unmet == 0 || needs.failed > 0;
            let waits = self.stages[dependent].status == Status::Waiting && shape.phase(dependent) == Phase::Work;
            set(&mut self.turn, dependent, waits && has_its_turn);
        }
    }
}

fn set(of: &mut BTreeSet<Index>, at: Index, is_in: bool) {
    if is_in {
        of.insert(at);
    } else {
        of.remove(&at);
    }
}

/// When a pause ends.
fn due_of(status: &Status) -> Option<Timestamp> {
    match status {
        Status::Pausing { due_at, .. } => Some(*due_at),
        Status::Waiting
        | Status::Gated { .. }
        | Status::Queued { .. }
        | Status::Ready { .. }
        | Status::Awarded
        | Status::Running
        | Status::Exiting { .. }
        | Status::Ended(_)
        | Status::Lost
        | Status::Skipped(_) => None,
    }
}
