//! The lines that the events of a run become.

use std::io::{self, Write};

use anstyle::AnsiColor;
use apispec::AnswerView;
use model::{
    StageId, Timestamp,
    event::run::{RunEvent, SkipReason},
    planning::Text,
};

use super::{
    super::{
        text::{self, printable},
        words,
    },
    Ended, Follow, colour_of_run,
};

impl<W: Write> Follow<W> {
    /// Prints what an event means to people, if it does; `at` is when it was decided.
    pub fn event(&mut self, event: &RunEvent, at: Timestamp) -> io::Result<()> {
        match event {
            RunEvent::RunAccepted { trigger, planned } => {
                self.accepted_at = Some(at);
                let source = match &trigger.pipeline {
                    Text::Inline(source) => source.as_bytes(),
                    Text::Depot(_) => &[],
                };
                self.accepted(planned, &trigger.pipeline_path, source)
            }
            RunEvent::RunHeld { older } => self.line(&format!("waits for the end of the older {older}"), AnsiColor::BrightBlack),
            RunEvent::RunReleased => self.line("goes on, as no older run is left", AnsiColor::BrightBlack),
            RunEvent::CancelRequested { by, reason, force } => {
                self.line(&printable(&words::cancelled(by, reason, *force), false), AnsiColor::Yellow)
            }
            RunEvent::RunFinished { outcome } => {
                self.outcome = Some(*outcome);
                let took = self.accepted_at.map(|accepted| format!(" in {}", text::duration(at.since(accepted)))).unwrap_or_default();
                self.end_all()?;
                self.line(&format!("run: {outcome}{took}"), colour_of_run(*outcome))
            }
            RunEvent::WaitOpened { stage, question, due_at, .. } => {
                let until = due_at.map(|due| format!(" (at most {})", text::duration(due.since(at)))).unwrap_or_default();
                self.happens(stage, '?', AnsiColor::Cyan, &format!("waits {}{until}", words::asked(&question.into())))
            }
            RunEvent::WaitAnswered { stage, answer, by, .. } => {
                self.happens(stage, '!', AnsiColor::Cyan, &words::answered(&AnswerView::new(answer, by.as_ref())))
            }
            RunEvent::LockQueued { stage, lock } => self.happens(stage, '?', AnsiColor::BrightBlack, &format!("waits for the lock {lock}")),
            RunEvent::LockAcquired { stage, lock } => self.happens(stage, '!', AnsiColor::BrightBlack, &format!("has the lock {lock}")),
            RunEvent::StageRetried { stage, attempt, after, due_at } => {
                let (why, pause) = (words::after(words::retry_reason(*after)), due_at.since(at));
                let when = if pause.is_zero() { String::new() } else { format!(" in {}", text::duration(pause)) };
                self.happens(stage, '↻', AnsiColor::Yellow, &format!("try {attempt} follows{when}, as {why}"))
            }
            RunEvent::StageLogStored { stage, attempt, log } => self.stored(stage, *attempt, log.length),
            RunEvent::StageReady { .. }
            | RunEvent::StageAwarded { .. }
            | RunEvent::StageDeclined { .. }
            | RunEvent::StageStarted { .. }
            | RunEvent::StageFinished { .. }
            | RunEvent::StageEnded { .. }
            | RunEvent::StageReused { .. }
            | RunEvent::StageLost { .. }
            | RunEvent::StageSkipped { .. }
            | RunEvent::StageCancelRequested { .. } => self.stage(event),
        }
    }

    /// What an agent does with a stage, and how it ends.
    fn stage(&mut self, event: &RunEvent) -> io::Result<()> {
        match event {
            RunEvent::StageAwarded { stage, attempt, agent, .. } => {
                self.end(stage)?;
                if let Some(followed) = self.stages.get_mut(stage) {
                    followed.awarded = Some((*attempt, agent.clone()));
                }
                self.release(stage)
            }
            RunEvent::StageStarted { stage, attempt, .. } => self.begin(stage, *attempt),
            RunEvent::StageDeclined { stage, agent, reason, .. } => {
                self.happens(stage, '↺', AnsiColor::Yellow, &format!("{agent} declined: {reason}"))
            }
            RunEvent::StageFinished { stage, attempt, outcome, reason, started_at, finished_at, .. } => {
                self.begin(stage, *attempt)?;
                let ran = started_at.map(|started| (started, *finished_at));
                self.ended(stage, Ended { attempt: *attempt, outcome: *outcome, reason: reason.clone(), ran, then: Vec::new() })
            }
            RunEvent::StageEnded { stage, outcome, reason } => {
                self.end(stage)?;
                self.finished(stage, &Ended { attempt: 0, outcome: *outcome, reason: reason.clone(), ran: None, then: Vec::new() })
            }
            RunEvent::StageReused { stage, of, outcome, .. } => {
                self.happens(stage, '·', AnsiColor::BrightBlack, &format!("{outcome}, as in {of}: not run again"))
            }
            RunEvent::StageLost { stage, reason, .. } => {
                self.close_lines(stage)?;
                self.happens(stage, '✘', AnsiColor::Red, &format!("its agent was lost: {reason}"))
            }
            RunEvent::StageSkipped { stage, reason } => {
                let why = self.skipped(reason);
                self.happens(stage, '–', AnsiColor::BrightBlack, &format!("skipped, {why}"))
            }
            RunEvent::StageCancelRequested { stage, failed } => {
                let failed = self.path(failed);
                self.happens(stage, '■', AnsiColor::Yellow, &format!("is ended, as {failed} failed"))
            }
            RunEvent::RunAccepted { .. }
            | RunEvent::RunHeld { .. }
            | RunEvent::RunReleased
            | RunEvent::CancelRequested { .. }
            | RunEvent::RunFinished { .. }
            | RunEvent::WaitOpened { .. }
            | RunEvent::WaitAnswered { .. }
            | RunEvent::LockQueued { .. }
            | RunEvent::LockAcquired { .. }
            | RunEvent::StageRetried { .. }
            | RunEvent::StageReady { .. }
            | RunEvent::StageLogStored { .. } => Ok(()),
        }
    }

    fn skipped(&self, reason: &SkipReason) -> String {
        let path = |stage: &StageId| self.path(stage);
        match reason {
            SkipReason::NeedFailed { stage: need } => format!("as {} did not succeed", path(need)),
            SkipReason::Cancelled => "as the run was cancelled".to_owned(),
            SkipReason::Condition { condition, because } => format!("as `{condition}` does not hold: {because}"),
            SkipReason::Fanout { failed } => format!("as {} failed", path(failed)),
            SkipReason::NothingToUndo => "as there is nothing to undo".to_owned(),
            SkipReason::NotWanted => "as it was not asked for".to_owned(),
            SkipReason::Stopped { failed } => format!("as {} failed before it started", path(failed)),
        }
    }
}
