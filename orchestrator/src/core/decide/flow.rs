//! How a stage begins and goes on without an agent: conditions, enter gates, lock, what it is a wait for, exit gates, and time.

use model::{
    StageOutcome,
    event::run::{Answer, RunEvent, SkipReason, WaitKey},
    plan::StageKind,
};

use super::{Draft, bounded};
use crate::core::{
    condition, resolve,
    shape::Index,
    stage::{Status, keys, planned_wait},
    wait::{self, Verdict},
};

impl Draft<'_> {
    /// Begins every stage whose turn it is, in the plan's order, until the record is full.
    pub(super) fn turns(&mut self) {
        while self.run.held.is_none()
            && !self.is_full()
            && let Some(at) = self.run.turn.first().copied()
        {
            self.begin(at);
        }
    }

    /// Takes a stage on whose needs have come to an end.
    pub(super) fn begin(&mut self, at: Index) {
        let shape = self.run.shape.clone();
        let planned = shape.stage(at);
        if let Some(stage) = self.failed_need(at) {
            self.skip(at, SkipReason::NeedFailed { stage });
            return;
        }
        if let Some(skip) = &planned.skipped {
            let (condition, because) = (skip.condition.clone(), skip.because.clone());
            self.skip(at, SkipReason::Condition { condition, because });
            return;
        }
        if !planned.conditions.is_empty()
            && let Some((condition, because)) = condition::fails(&planned.conditions, &self.run.found(at).variables)
        {
            self.skip(at, SkipReason::Condition { condition: bounded(&condition), because: bounded(&because) });
            return;
        }
        if planned.enter.is_empty() {
            self.entered(at);
        } else {
            self.open(at, &keys(&planned.enter, WaitKey::Enter).collect::<Vec<_>>());
        }
    }

    /// The stage that first failed of those before the one at `at`.
    fn failed_need(&self, at: Index) -> Option<model::StageId> {
        if self.run.needs[at].failed == 0 {
            return None;
        }
        let need = self.run.shape.needs(at).find(|need| self.run.stages[*need].is_over() && !self.run.ended_well(*need))?;
        let Status::Skipped(
            SkipReason::NeedFailed { stage } | SkipReason::Fanout { failed: stage } | SkipReason::Stopped { failed: stage },
        ) = &self.run.stages[need].status
        else {
            return Some(self.id(need));
        };
        // It is passed on which stage was the first one.
        Some(stage.clone())
    }

    /// Asks what is to be waited for, all at once.
    fn open(&mut self, at: Index, keys: &[WaitKey]) {
        let shape = self.run.shape.clone();
        let found = self.run.found(at);
        let questions: Result<Vec<_>, _> = keys
            .iter()
            .filter_map(|key| Some((*key, planned_wait(shape.stage(at), *key)?)))
            .map(|(key, planned)| {
                let secret = || (self.context.callback_secrets)(&self.run.id, &shape.stage(at).id, key);
                wait::question((&self.run, at, key), planned, &found, secret, self.now).map(|question| (key, question))
            })
            .collect();
        match questions {
            Ok(questions) => {
                for (wait, (question, due_at)) in questions {
                    self.push(RunEvent::WaitOpened { stage: self.id(at), wait, question, due_at });
                }
                // Webhooks may have been called before.
                self.advance(at);
            }
            Err(unset) => self.end(at, StageOutcome::Failure, Some(&unset.to_string())),
        }
    }

    /// The enter gates have let the stage through.
    fn entered(&mut self, at: Index) {
        match self.run.shape.stage(at).lock.clone() {
            Some(lock) => self.push(RunEvent::LockQueued { stage: self.id(at), lock }),
            None => self.unlocked(at),
        }
    }

    pub(super) fn lock_granted(&mut self, at: Index) {
        let Some(Status::Queued { lock, .. }) = self.run.stages.get(at).map(|stage| &stage.status) else { return };
        let lock = lock.clone();
        if self.run.holder_of(&lock).is_none() {
            self.push(RunEvent::LockAcquired { stage: self.id(at), lock });
            self.unlocked(at);
        }
    }

    /// Nothing stands before the stage's own work any more.
    fn unlocked(&mut self, at: Index) {
        if let StageKind::Wait(_) = self.run.shape.stage(at).kind {
            self.open(at, &[WaitKey::Itself]);
            return;
        }
        match resolve::sendable(&self.run, at) {
            Ok(stage) if stage.steps.is_empty() && stage.notify.is_empty() => self.exit(at),
            Ok(_) => self.ready(at, 1),
            Err(why) => self.end(at, StageOutcome::Failure, Some(&why.to_string())),
        }
    }

    /// The stage's own work is done, and its agent, if it had one, is released.
    pub(super) fn exit(&mut self, at: Index) {
        let shape = self.run.shape.clone();
        let exit = &shape.stage(at).exit;
        if exit.is_empty() {
            self.end(at, StageOutcome::Success, None);
        } else {
            self.open(at, &keys(exit, WaitKey::Exit).collect::<Vec<_>>());
        }
    }

    /// Takes an answer, if it is the first one, and fits.
    pub(super) fn answered(&mut self, at: Index, key: WaitKey, answer: &Answer, by: Option<&str>) {
        if at >= self.run.stages.len() || wait::fits(&self.run, at, key, answer).is_err() {
            return;
        }
        self.answer(at, key, answer.clone(), by);
    }

    fn answer(&mut self, at: Index, wait: WaitKey, answer: Answer, by: Option<&str>) {
        let answer =
            if let Answer::Refused { reason } = answer { Answer::Refused { reason: reason.as_deref().map(bounded) } } else { answer };
        self.push(RunEvent::WaitAnswered { stage: self.id(at), wait, answer, by: by.map(bounded) });
        self.advance(at);
    }

    /// Goes on if everything that was waited for is answered, and ends with the first refusal.
    fn advance(&mut self, at: Index) {
        let stage = &self.run.stages[at];
        let is_exit = |key: &WaitKey| matches!(key, WaitKey::Exit(_));
        let exiting = if let Status::Exiting { outcome, .. } = &stage.status { Some(*outcome) } else { None };
        if exiting.is_none() && !matches!(stage.status, Status::Gated { .. }) {
            // A webhook that was called early.
            return;
        }
        let asked = stage.waits.iter().filter(|(key, _)| is_exit(key) == exiting.is_some());
        let asked = asked.filter_map(|(_, wait)| Some((wait.opened.as_ref()?, &wait.answer)));
        let mut open = false;
        let mut failed = None;
        for (opened, answer) in asked {
            match answer {
                None => open = true,
                Some((answer, by)) => match wait::verdict(&opened.question, answer, by.as_deref()) {
                    Verdict::Passed => {}
                    Verdict::Failed(why) => failed = failed.or(Some(why)),
                },
            }
        }
        let is_wait = stage.waits.get(&WaitKey::Itself).is_some_and(|wait| wait.opened.is_some());
        match (failed, exiting) {
            (Some(why), _) => self.end(at, StageOutcome::Failure, Some(&why)),
            (None, _) if open => {}
            (None, Some(outcome)) => {
                let reason = stage.reason.clone();
                self.end(at, outcome, reason.as_deref());
            }
            (None, None) if is_wait => self.exit(at),
            (None, None) => self.entered(at),
        }
    }

    /// Everything that was due by now happens, the earliest first, until the record is full.
    pub(super) fn time_passed(&mut self) {
        while !self.is_full()
            && let Some((at, key)) = self.run.due_by(self.now)
        {
            match (key, &self.run.stages[at].status) {
                (None, Status::Pausing { attempt, .. }) => {
                    let attempt = *attempt;
                    self.ready(at, attempt);
                }
                (Some(key), _) => {
                    let opened = self.run.stages[at].waits.get(&key).and_then(|wait| wait.opened.as_ref());
                    let answer = wait::overdue(&opened.expect("only an open wait has a time").question);
                    self.answer(at, key, answer, None);
                }
                (None, status) => unreachable!("only a pause ends by itself, and the stage is {status:?}"),
            }
            self.turns();
        }
        self.run_time_passed();
    }
}
