//! What a run's records tell of its spans. Pure: the same records give the same spans, whoever reads them when.
//!
//! ```text
//! run ─┬─ accept      the trigger was stored ─▶ taken up
//!      ├─ plan        taken up ─▶ the run's first record
//!      ├─ wait        what a stage waits for, without an agent
//!      └─ stage       an attempt, from its being ready to its end
//!          ├─ auction   ready ─▶ awarded
//!          └─ step      by the agent's clock
//! ```

use std::{collections::BTreeMap, sync::Arc};

use model::{
    AttemptId, RunId, RunOutcome, StageId, StageOutcome, Timestamp,
    event::run::{Answer, Outputs, Planned, Question, RunEvent, StepTime, WaitKey},
    plan::{Notify, Stage, Step, Value},
    trace::{SpanId, TraceId},
    trigger::Trigger,
};

use super::TakenUp;
use crate::{
    core::{Run, Shape},
    runs::Appended,
};

/// A span that has ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Span {
    pub(super) trace: TraceId,
    pub(super) id: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) name: String,
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    pub(super) attributes: Vec<(&'static str, Attribute)>,
    pub(super) status: Status,
    /// Of the record that ended it.
    pub(super) sequence: u64,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Attribute {
    Text(String),
    Number(u64),
}

/// How what a span is of has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Status {
    /// As good as it could.
    Fine,
    /// Not well, and why.
    Error(String),
}

/// A run, as far as it was told.
#[derive(Debug)]
pub(super) struct Story {
    run: RunId,
    trigger: Arc<Trigger>,
    shape: Arc<Shape>,
    taken_up: Option<TakenUp>,
    began_at: Timestamp,
    attempts: BTreeMap<StageId, Attempt>,
    waits: BTreeMap<(StageId, WaitKey), Wait>,
    /// The last record that was taken up.
    upto: u64,
    ended: bool,
}

/// An attempt that has not ended.
#[derive(Debug)]
struct Attempt {
    id: AttemptId,
    ready_at: Timestamp,
    /// Since when an agent is looked for.
    looked_for: Timestamp,
    agent: Option<String>,
    /// Of its auctions so far.
    auctions: u32,
}

#[derive(Debug)]
struct Wait {
    since: Timestamp,
    what: &'static str,
}

impl Story {
    /// Of a run of which nothing was told.
    pub(super) fn new(run: &Run, taken_up: Option<TakenUp>) -> Self {
        let began_at = taken_up.map_or(run.accepted_at, |taken_up| taken_up.stored_at.unwrap_or(taken_up.at));
        Self {
            run: run.id.clone(),
            trigger: run.trigger.clone(),
            shape: run.shape.clone(),
            taken_up,
            began_at: began_at.min(run.accepted_at),
            attempts: BTreeMap::new(),
            waits: BTreeMap::new(),
            upto: 0,
            ended: false,
        }
    }

    /// Whether the run has ended.
    pub(super) fn is_over(&self) -> bool {
        self.ended
    }

    /// The spans that this record ended; none of one that was taken up before.
    pub(super) fn take(&mut self, appended: &Appended) -> Vec<Span> {
        if appended.sequence <= self.upto {
            return Vec::new();
        }
        self.upto = appended.sequence;
        let mut told = Told { at: appended.record.at, sequence: appended.sequence, spans: Vec::new() };
        for event in &appended.record.events {
            self.event(event, &mut told);
        }
        told.spans
    }

    fn event(&mut self, event: &RunEvent, told: &mut Told) {
        let at = told.at;
        match event {
            RunEvent::RunAccepted { planned, .. } => self.accepted(planned, told),
            RunEvent::StageReady { stage, attempt } => {
                let id = AttemptId { run: self.run.clone(), stage: stage.clone(), attempt: *attempt };
                self.attempts.insert(stage.clone(), Attempt { id, ready_at: at, looked_for: at, agent: None, auctions: 0 });
            }
            RunEvent::StageAwarded { stage, agent, offers, .. } => self.awarded(stage, agent.as_str(), offers.len(), told),
            RunEvent::StageDeclined { stage, .. } => {
                if let Some(attempt) = self.attempts.get_mut(stage) {
                    (attempt.looked_for, attempt.agent) = (at, None);
                }
            }
            RunEvent::StageFinished { stage, outcome, reason, finished_at, outputs, .. } => {
                let status = match outcome {
                    StageOutcome::Success | StageOutcome::Unstable => Status::Fine,
                    StageOutcome::Failure | StageOutcome::Aborted => Status::Error(reason.clone().unwrap_or_default()),
                };
                let name = match outcome {
                    StageOutcome::Success => "success",
                    StageOutcome::Unstable => "unstable",
                    StageOutcome::Failure => "failure",
                    StageOutcome::Aborted => "aborted",
                };
                self.finished(stage, (*finished_at, name, status), outputs, told);
            }
            RunEvent::StageLost { stage, reason, .. } => {
                self.finished(stage, (at, "lost", Status::Error(reason.clone())), &Outputs::default(), told);
            }
            RunEvent::WaitOpened { stage, wait, question, .. } => {
                self.waits.insert((stage.clone(), *wait), Wait { since: at, what: what(question) });
            }
            RunEvent::WaitAnswered { stage, wait, answer, .. } => self.answered(stage, *wait, answer, told),
            RunEvent::RunFinished { outcome } => self.ended(*outcome, told),
            RunEvent::StageStarted { .. }
            | RunEvent::StageRetried { .. }
            | RunEvent::StageEnded { .. }
            | RunEvent::StageReused { .. }
            | RunEvent::LockQueued { .. }
            | RunEvent::LockAcquired { .. }
            | RunEvent::StageSkipped { .. }
            | RunEvent::StageLogStored { .. }
            | RunEvent::StageCancelRequested { .. }
            | RunEvent::RunHeld { .. }
            | RunEvent::RunReleased
            | RunEvent::CancelRequested { .. } => {}
        }
    }

    fn accepted(&self, planned: &Planned, told: &mut Told) {
        let Some(TakenUp { stored_at, at: taken_up_at }) = self.taken_up else { return };
        let root = Some(SpanId::of_run(&self.run));
        if let Some(stored_at) = stored_at {
            told.span(self, SpanId::of(&self.run, "accept"), root, "accept", (stored_at, taken_up_at), Vec::new(), Status::Fine);
        }
        let status = match planned {
            Planned::Plan { .. } | Planned::NotTriggered { .. } => Status::Fine,
            Planned::Refused { diagnostics } => {
                Status::Error(diagnostics.first().map(|diagnostic| diagnostic.message.clone()).unwrap_or_default())
            }
        };
        let stages = vec![("otto.stages", Attribute::Number(self.shape.len() as u64))];
        told.span(self, SpanId::of(&self.run, "plan"), root, "plan", (taken_up_at, told.at), stages, status);
    }

    fn awarded(&mut self, stage: &StageId, agent: &str, offers: usize, told: &mut Told) {
        let Some(attempt) = self.attempts.get_mut(stage) else { return };
        attempt.agent = Some(agent.to_owned());
        attempt.auctions += 1;
        let id = SpanId::of(&self.run, &format!("auction {} {}", attempt.id, attempt.auctions));
        let (parent, from) = (SpanId::of_attempt(&attempt.id), attempt.looked_for);
        let attributes = vec![("cicd.worker.name", Attribute::Text(agent.to_owned())), ("otto.offers", Attribute::Number(offers as u64))];
        let name = format!("auction {}", self.path(stage));
        told.span(self, id, Some(parent), &name, (from, told.at), attributes, Status::Fine);
    }

    fn finished(&mut self, stage: &StageId, (at, result, status): (Timestamp, &str, Status), outputs: &Outputs, told: &mut Told) {
        let Some(attempt) = self.attempts.remove(stage) else { return };
        // An agent whose clock is behind.
        let at = if at < attempt.ready_at { told.at } else { at };
        let id = SpanId::of_attempt(&attempt.id);
        for time in outputs.steps.iter().take(Outputs::STEPS_MAX) {
            self.step(&attempt.id, *time, told);
        }
        let mut attributes = vec![
            ("cicd.pipeline.task.name", Attribute::Text(self.path(stage))),
            ("cicd.pipeline.task.run.id", Attribute::Text(attempt.id.to_string())),
            ("cicd.pipeline.task.run.result", Attribute::Text(result.to_owned())),
            ("otto.attempt", Attribute::Number(attempt.id.attempt.into())),
        ];
        attributes.extend(attempt.agent.map(|agent| ("cicd.worker.name", Attribute::Text(agent))));
        let name = format!("stage {}", self.path(stage));
        told.span(self, id, Some(SpanId::of_run(&self.run)), &name, (attempt.ready_at, at), attributes, status);
    }

    fn step(&self, attempt: &AttemptId, time: StepTime, told: &mut Told) {
        let StepTime { step, started_at, finished_at, failed } = time;
        let symbol = self.shape.find(&attempt.stage).and_then(|at| numbered(self.shape.stage(at), step)).map(|step| step.symbol.clone());
        let name = format!("step {}", symbol.unwrap_or_else(|| (u64::from(step) + 1).to_string()));
        let status = if failed { Status::Error(String::new()) } else { Status::Fine };
        let number = vec![("otto.step", Attribute::Number(u64::from(step) + 1))];
        let (id, parent) = (SpanId::of_step(attempt, step), SpanId::of_attempt(attempt));
        told.span(self, id, Some(parent), &name, (started_at, finished_at), number, status);
    }

    fn answered(&mut self, stage: &StageId, wait: WaitKey, answer: &Answer, told: &mut Told) {
        let Some(Wait { since, what }) = self.waits.remove(&(stage.clone(), wait)) else { return };
        let status = match answer {
            Answer::Refused { reason } => Status::Error(reason.clone().unwrap_or_else(|| "it was refused".to_owned())),
            Answer::TimedOut => Status::Error("nobody answered in time".to_owned()),
            Answer::Approved { .. } | Answer::Text { .. } | Answer::CalledBack | Answer::Polled | Answer::Elapsed | Answer::Resumed => {
                Status::Fine
            }
        };
        let id = SpanId::of(&self.run, &format!("wait {stage} {wait:?}"));
        let name = format!("wait {what} {}", self.path(stage));
        told.span(self, id, Some(SpanId::of_run(&self.run)), &name, (since, told.at), Vec::new(), status);
    }

    fn ended(&mut self, outcome: RunOutcome, told: &mut Told) {
        self.ended = true;
        let left: Vec<StageId> = self.attempts.keys().cloned().collect();
        for stage in left {
            let status = Status::Error("the run ended before it was known how it ended".to_owned());
            self.finished(&stage, (told.at, "unknown", status), &Outputs::default(), told);
        }
        let (result, status) = match outcome {
            RunOutcome::Success => ("success", Status::Fine),
            RunOutcome::Skipped => ("skip", Status::Fine),
            RunOutcome::Unstable => ("unstable", Status::Fine),
            RunOutcome::Failure => ("failure", Status::Error("the run failed".to_owned())),
            RunOutcome::Aborted => ("cancellation", Status::Error("the run was aborted".to_owned())),
            RunOutcome::Unknown => ("unknown", Status::Error("a person must say how a stage ended".to_owned())),
        };
        let trigger = &self.trigger;
        let text = |text: &str| Attribute::Text(text.to_owned());
        let mut attributes = vec![
            ("cicd.pipeline.name", text(trigger.project.as_str())),
            ("cicd.pipeline.run.id", text(self.run.as_str())),
            ("cicd.pipeline.result", text(result)),
            ("otto.event", text(trigger.context.event.as_str())),
        ];
        let facts = [("vcs.ref.head.name", &trigger.context.branch), ("vcs.ref.head.revision", &trigger.context.commit)];
        attributes.extend(facts.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, text(value))));
        let name = format!("run {}", trigger.project);
        told.span(self, SpanId::of_run(&self.run), None, &name, (self.began_at, told.at), attributes, status);
    }

    fn path(&self, stage: &StageId) -> String {
        self.shape.find(stage).map_or_else(|| stage.to_string(), |at| self.shape.stage(at).path.clone())
    }
}

/// What one record ends.
struct Told {
    at: Timestamp,
    sequence: u64,
    spans: Vec<Span>,
}

impl Told {
    #[expect(clippy::too_many_arguments, reason = "they are the parts of a span")]
    fn span(
        &mut self,
        story: &Story,
        id: SpanId,
        parent: Option<SpanId>,
        name: &str,
        (start, end): (Timestamp, Timestamp),
        attributes: Vec<(&'static str, Attribute)>,
        status: Status,
    ) {
        // Clocks of several machines, and of one that was put back.
        let end = end.max(start);
        let trace = TraceId::of(&story.run);
        self.spans.push(Span { trace, id, parent, name: name.to_owned(), start, end, attributes, status, sequence: self.sequence });
    }
}

fn what(question: &Question) -> &'static str {
    match question {
        Question::Confirm { .. } => "confirm",
        Question::Prompt { .. } => "prompt",
        Question::Webhook { .. } => "webhook",
        Question::Poll { .. } => "poll",
        Question::Time => "time",
        Question::Pause => "pause",
    }
}

/// The step of this number, as agents count them.
fn numbered(stage: &Stage, number: u32) -> Option<&Step> {
    let Notify { success, failure, complete } = &stage.notify;
    let mut left = number;
    [&stage.steps, success, failure, complete].into_iter().find_map(|steps| among(steps, &mut left))
}

/// The step before which `left` others are written.
fn among<'a>(steps: &'a [Step], left: &mut u32) -> Option<&'a Step> {
    // The parser bounds how deep steps stand in steps.
    for step in steps {
        if *left == 0 {
            return Some(step);
        }
        *left -= 1;
        if let Some(Value::Steps { steps }) = step.parameters.get("steps")
            && let Some(found) = among(steps, left)
        {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_found_by_the_numbers_that_agents_give_them() {
        let echo = |symbol: &str| Step::new("stdlib", symbol, BTreeMap::new());
        let inner = Value::Steps { steps: vec![echo("b"), echo("c")] };
        let outer = Step::new("stdlib", "dir", [("steps".to_owned(), inner)].into());
        let notify = Notify { success: vec![echo("s")], failure: vec![echo("f")], complete: vec![echo("z")] };
        let stage = Stage { steps: vec![echo("a"), outer, echo("d")], notify, ..Stage::new("Build") };
        let names: Vec<&str> = (0..9).map_while(|number| numbered(&stage, number)).map(|step| step.symbol.as_str()).collect();
        assert_eq!(names, ["a", "dir", "b", "c", "d", "s", "f", "z"]);
    }
}
