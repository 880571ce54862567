//! How stages and runs end: what a failure means for others, cancels, what is undone, what is told, and the outcome.

use model::{
    RunOutcome, StageId, StageOutcome,
    event::run::{CancelReason, Planned, RunEvent, SkipReason},
    plan::Effect,
};

use super::{Draft, bounded};
use crate::core::{
    shape::{Index, Phase},
    stage::Status,
    state::Run,
};

/// In whose name a run is cancelled whose time is over.
const CLOCK: &str = "otto";

impl Draft<'_> {
    /// Ends a stage that no agent has.
    pub(super) fn end(&mut self, at: Index, outcome: StageOutcome, reason: Option<&str>) {
        self.push(RunEvent::StageEnded { stage: self.id(at), outcome, reason: reason.map(bounded) });
        self.over(at);
    }

    /// What the final end of a stage means for others that do not need it.
    pub(super) fn over(&mut self, at: Index) {
        if !self.run.failed.contains(&at) {
            return;
        }
        let shape = self.run.shape.clone();
        for block in &shape.stage(at).fanouts {
            if !self.run.broken.contains(block) {
                shape.fanout(block).iter().filter(|other| **other != at).for_each(|other| self.cancel_beside(*other, at));
            }
        }
        if self.run.trigger.stop_at_failure {
            let failed = self.id(at);
            for other in 0..shape.len() {
                if shape.phase(other) == Phase::Work && has_not_started(&self.run.stages[other].status) {
                    self.skip(other, SkipReason::Stopped { failed: failed.clone() });
                }
            }
        }
    }

    /// Another stage of the same `fanout` has failed.
    fn cancel_beside(&mut self, at: Index, failed: Index) {
        if self.run.shape.phase(at) != Phase::Work {
            return;
        }
        let stage = &self.run.stages[at];
        let (failed, asked) = (self.id(failed), stage.cancel_requested.is_some());
        if has_not_started(&stage.status) {
            self.skip(at, SkipReason::Fanout { failed });
        } else if stage.has_started() && !asked {
            let exits = matches!(stage.status, Status::Exiting { .. });
            self.push(RunEvent::StageCancelRequested { stage: self.id(at), failed });
            if exits {
                self.end(at, StageOutcome::Aborted, Some("another stage of its fanout failed"));
            }
        }
    }

    /// The stage after whose failure the one at `at` does not start any more, because the trigger says so.
    pub(super) fn stopped_by(&self, at: Index) -> Option<StageId> {
        let applies = self.run.trigger.stop_at_failure && self.run.shape.phase(at) == Phase::Work;
        let failed = applies.then(|| self.run.failed.iter().find(|failed| **failed != at))??;
        Some(self.id(*failed))
    }

    /// Ends the run, or ends it harder than it was asked to.
    pub(super) fn cancel(&mut self, by: &str, reason: &CancelReason, force: bool) {
        let (newer, timed_out) = (matches!(reason, CancelReason::Newer { .. }), *reason == CancelReason::TimedOut);
        let adds = self.run.cancelled.as_ref().is_none_or(|cancelled| {
            (force && cancelled.forced.is_none()) || (cancelled.spares_once && !newer) || (cancelled.spares_undoing && !timed_out)
        });
        if !adds || self.run.ended.is_some() {
            return;
        }
        self.push(RunEvent::CancelRequested { by: bounded(by), reason: reason.clone(), force });
        for at in 0..self.run.stages.len() {
            let status = &self.run.stages[at].status;
            // What undoes and what tells have their turn at the end, and are looked at then.
            let is_later = *status == Status::Waiting && self.run.shape.phase(at) != Phase::Work;
            if is_later || self.run.ending(at).is_none() {
                continue;
            }
            if has_not_started(status) {
                self.skip(at, SkipReason::Cancelled);
            } else if matches!(status, Status::Exiting { .. }) {
                self.end(at, StageOutcome::Aborted, Some("cancelled before its exit"));
            }
        }
    }

    /// What the run's own time means, and the time that agents have to confirm an end by force.
    pub(super) fn run_time_passed(&mut self) {
        if self.run.times_out_at().is_some_and(|due| due <= self.now) {
            self.cancel(CLOCK, &CancelReason::TimedOut, false);
        }
        if self.run.force_ends_at().is_some_and(|due| due <= self.now) {
            let held: Vec<Index> = self.run.active.iter().copied().collect();
            for at in held {
                self.lost(at, "it was ended by force, and its agent did not confirm that in time");
            }
        }
    }

    /// Does what is due at the end of all work, and ends the run when nothing is left to do.
    pub(super) fn settle(&mut self) {
        self.turns();
        if self.run.ended.is_some() || self.run.held.is_some() || self.run.open_work > 0 || !self.undo() || !self.tell() {
            return;
        }
        let outcome = self.run.outcome();
        self.push(RunEvent::RunFinished { outcome });
    }

    /// Undoes what is to be undone, one after the other, the last of the plan first; whether that is over.
    fn undo(&mut self) -> bool {
        let shape = self.run.shape.clone();
        for &at in shape.rollbacks().iter().rev() {
            if self.run.stages[at].status == Status::Waiting {
                if !self.run.is_to_undo(at) {
                    self.skip(at, SkipReason::NothingToUndo);
                } else if self.run.ending(at).is_some() {
                    self.skip(at, SkipReason::Cancelled);
                } else {
                    self.begin(at);
                }
            }
            if !self.run.stages[at].is_over() {
                return false;
            }
        }
        true
    }

    /// Runs the pipeline's `notify`; whether that is over.
    fn tell(&mut self) -> bool {
        let Some(at) = self.run.shape.notify() else { return true };
        if self.run.stages[at].status == Status::Waiting {
            if self.run.ending(at).is_some() {
                self.skip(at, SkipReason::Cancelled);
            } else {
                self.begin(at);
            }
        }
        self.run.stages[at].is_over()
    }
}

fn has_not_started(status: &Status) -> bool {
    matches!(status, Status::Waiting | Status::Gated { .. } | Status::Queued { .. } | Status::Ready { .. } | Status::Pausing { .. })
}

impl Run {
    /// Whether the run's own time ended it.
    fn has_timed_out(&self) -> bool {
        self.cancelled.as_ref().is_some_and(|cancelled| cancelled.reason == CancelReason::TimedOut)
    }

    /// Whether the stage at `at` has failed, and may not.
    pub(in crate::core) fn has_failed(&self, at: Index) -> bool {
        let planned = self.shape.stage(at);
        if self.shape.phase(at) != Phase::Work {
            return false;
        }
        match &self.stages[at].status {
            Status::Ended(StageOutcome::Failure) => !planned.allow_failure,
            Status::Lost => !planned.allow_failure || planned.effect == Effect::Once,
            Status::Ended(StageOutcome::Aborted) | Status::Skipped(SkipReason::Cancelled) => self.has_timed_out(),
            Status::Ended(StageOutcome::Success | StageOutcome::Unstable)
            | Status::Skipped(_)
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

    /// Whether a stage after the one at `at` has failed, and there is something that it undoes.
    fn is_to_undo(&self, at: Index) -> bool {
        let is_unknown = |failed: Index| self.stages[failed].status == Status::Lost && self.shape.stage(failed).effect == Effect::Once;
        if !self.failed.range(at + 1..).any(|failed| !is_unknown(*failed)) || self.needs[at].unmet > 0 {
            return false;
        }
        let mut before: Vec<Index> = self.shape.needs(at).collect();
        if before.is_empty() {
            return true;
        }
        let mut seen = std::collections::BTreeSet::new();
        while let Some(need) = before.pop() {
            // What was skipped did nothing; what stands before it may have.
            if !matches!(self.stages[need].status, Status::Skipped(_)) {
                return true;
            }
            before.extend(self.shape.needs(need).filter(|need| seen.insert(*need)));
        }
        false
    }

    /// The worst of what happened to the stages; a refused pipeline is a failure.
    pub fn outcome(&self) -> RunOutcome {
        match self.planned {
            Planned::Plan { .. } => {}
            Planned::Refused { .. } => return RunOutcome::Failure,
            Planned::NotTriggered { .. } => return RunOutcome::Skipped,
        }
        (0..self.stages.len()).map(|at| self.outcome_of(at)).max().unwrap_or(RunOutcome::Success)
    }

    /// What the stage at `at` makes of a run that is a success but for it.
    fn outcome_of(&self, at: Index) -> RunOutcome {
        let planned = self.shape.stage(at);
        let stopped = if self.has_timed_out() { RunOutcome::Failure } else { RunOutcome::Aborted };
        // The stage that failed counts, not those that ended for it.
        let beside = self.stages[at].cancel_requested.is_some();
        let outcome = match &self.stages[at].status {
            Status::Lost if planned.effect == Effect::Once => RunOutcome::Unknown,
            Status::Ended(StageOutcome::Aborted) | Status::Lost if beside => RunOutcome::Success,
            Status::Lost if self.cancelled.is_some() => stopped,
            Status::Ended(StageOutcome::Failure) | Status::Lost if planned.allow_failure => RunOutcome::Unstable,
            Status::Ended(StageOutcome::Failure) | Status::Lost => RunOutcome::Failure,
            Status::Ended(StageOutcome::Aborted) | Status::Skipped(SkipReason::Cancelled) => stopped,
            Status::Ended(StageOutcome::Unstable) => RunOutcome::Unstable,
            Status::Ended(StageOutcome::Success)
            | Status::Skipped(_)
            | Status::Waiting
            | Status::Gated { .. }
            | Status::Queued { .. }
            | Status::Ready { .. }
            | Status::Awarded
            | Status::Running
            | Status::Pausing { .. }
            | Status::Exiting { .. } => RunOutcome::Success,
        };
        // That nobody could be told does not make the work fail.
        if self.shape.phase(at) == Phase::Notify { outcome.min(RunOutcome::Unstable) } else { outcome }
    }
}
