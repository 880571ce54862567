//! Waits: what is asked, what fits as an answer, and what follows from one.

use std::time::Duration;

use model::{
    Digest, Timestamp,
    event::run::{Answer, Planned, Question, WaitKey},
    plan,
    protocol::step::VARIABLE_BYTES_MAX,
};
use serde::Serialize;

use super::{
    found::Found,
    resolve::{self, Unset},
    shape::Index,
    stage::planned_wait,
    state::Run,
};

/// The least time between two questions of a poll, in milliseconds: the plan may say anything, and the address may be slow.
const POLL_MS_MIN: u64 = 100;

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The stage goes on.
    Passed,
    /// The stage fails, for this reason.
    Failed(String),
}

/// Why an answer is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The plan has no such wait.
    #[error("the stage has nothing of this kind to wait for")]
    Unknown,
    /// It is not asked yet.
    #[error("the question is not open yet")]
    Early,
    /// The stage is over, or the run is.
    #[error("the question is not open any more")]
    Late,
    /// There is one.
    #[error("the question is answered")]
    Answered,
    /// It is no answer to this question.
    #[error("the question is another one: {0}")]
    Other(&'static str),
}

/// Whether an answer from outside would be taken now.
pub fn fits(run: &Run, at: Index, wait: WaitKey, answer: &Answer) -> Result<(), Unfit> {
    let planned = run.shape.stage(at);
    let stage = &run.stages[at];
    let asked = planned_wait(planned, wait).ok_or(Unfit::Unknown)?;
    if run.ended.is_some() || stage.is_over() {
        return Err(Unfit::Late);
    }
    let state = stage.waits.get(&wait);
    if state.is_some_and(|state| state.answer.is_some()) {
        return Err(Unfit::Answered);
    }
    let Some(opened) = state.and_then(|state| state.opened.as_ref()) else {
        return match (asked, answer) {
            // Whom a step has told the address may be faster than the step.
            (plan::Wait::Webhook { .. }, Answer::CalledBack) => Ok(()),
            _ => Err(Unfit::Early),
        };
    };
    match (&opened.question, answer) {
        (Question::Confirm { delivery, .. }, Answer::Approved { delivery: approved }) if delivery != approved => {
            Err(Unfit::Other("the approval is of another delivery"))
        }
        (Question::Confirm { .. }, Answer::Approved { .. } | Answer::Refused { .. })
        | (Question::Webhook { .. }, Answer::CalledBack)
        | (Question::Poll { .. }, Answer::Polled)
        | (Question::Pause, Answer::Resumed) => Ok(()),
        (Question::Prompt { options, .. }, Answer::Text { text }) => {
            if !options.is_empty() && !options.contains(text) {
                Err(Unfit::Other("the text is none of its options"))
            } else if text.len() > VARIABLE_BYTES_MAX {
                Err(Unfit::Other("the text is too long for a variable"))
            } else {
                Ok(())
            }
        }
        (Question::Confirm { .. }, _) => Err(Unfit::Other("it asks for an approval")),
        (Question::Prompt { .. }, _) => Err(Unfit::Other("it asks for a text")),
        (Question::Webhook { .. }, _) => Err(Unfit::Other("it waits for a call")),
        (Question::Poll { .. }, _) => Err(Unfit::Other("it waits for an address to answer")),
        (Question::Time, _) => Err(Unfit::Other("it waits for time to pass")),
        (Question::Pause, _) => Err(Unfit::Other("it waits for a person to resume the run")),
    }
}

/// What the end of its time means for a question.
pub(super) fn overdue(question: &Question) -> Answer {
    match question {
        Question::Time => Answer::Elapsed,
        Question::Confirm { .. } | Question::Prompt { .. } | Question::Webhook { .. } | Question::Poll { .. } | Question::Pause => {
            Answer::TimedOut
        }
    }
}

/// What an answer means for its stage.
pub(super) fn verdict(question: &Question, answer: &Answer, by: Option<&str>) -> Verdict {
    match answer {
        Answer::Approved { .. } | Answer::Text { .. } | Answer::CalledBack | Answer::Polled | Answer::Elapsed | Answer::Resumed => {
            Verdict::Passed
        }
        Answer::Refused { reason } => {
            let by = by.map_or_else(String::new, |by| format!(" by {by}"));
            let why = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            Verdict::Failed(format!("refused{by}{why}"))
        }
        Answer::TimedOut => Verdict::Failed(match question {
            Question::Confirm { .. } => "nobody approved it in time".to_owned(),
            Question::Prompt { .. } => "nobody answered in time".to_owned(),
            Question::Webhook { .. } => "nobody called back in time".to_owned(),
            Question::Poll { url, status, .. } => format!("{url} did not answer {status} in time"),
            Question::Time | Question::Pause => "its time was over".to_owned(),
        }),
    }
}

/// The question of a wait, with every variable put in, and until when it is open.
pub(super) fn question(
    (run, at, key): (&Run, Index, WaitKey),
    wait: &plan::Wait,
    found: &Found,
    secret: impl FnOnce() -> Digest,
    now: Timestamp,
) -> Result<(Question, Option<Timestamp>), Unset> {
    let text = |value: &plan::Value| resolve::text(value, &found.variables);
    let due = |ms: u64| now + Duration::from_millis(ms);
    Ok(match wait {
        plan::Wait::Confirm { message, by, timeout_ms } => {
            let delivery = delivery(run, at, key);
            (Question::Confirm { message: text(message)?, by: by.clone(), delivery }, timeout_ms.map(due))
        }
        plan::Wait::Prompt { message, into, options, by, timeout_ms } => {
            let (into, options, by) = (into.clone(), options.clone(), by.clone());
            (Question::Prompt { message: text(message)?, into, options, by }, timeout_ms.map(due))
        }
        plan::Wait::Webhook { description, timeout_ms } => {
            (Question::Webhook { description: text(description)?, secret: secret() }, timeout_ms.map(due))
        }
        plan::Wait::Poll { url, status, every_ms, timeout_ms } => {
            let every_ms = (*every_ms).max(POLL_MS_MIN);
            (Question::Poll { url: text(url)?, status: *status, every_ms }, Some(due(*timeout_ms)))
        }
        plan::Wait::Time { ms } => (Question::Time, Some(due(*ms))),
        plan::Wait::Pause => (Question::Pause, None),
    })
}

/// What an approval at a wait approves: this plan, this source, this trigger's context, in this run at this gate.
pub fn delivery(run: &Run, at: Index, wait: WaitKey) -> Digest {
    #[derive(Serialize)]
    struct Delivery<'a> {
        plan: Option<Digest>,
        source: Option<Digest>,
        context: &'a model::context::TriggerContext,
        run: &'a model::RunId,
        stage: &'a model::StageId,
        wait: WaitKey,
    }
    let plan = match &run.planned {
        Planned::Plan { digest, .. } => Some(*digest),
        Planned::Refused { .. } | Planned::NotTriggered { .. } => None,
    };
    let (source, context) = (run.trigger.source, &run.trigger.context);
    let delivery = Delivery { plan, source, context, run: &run.id, stage: &run.shape.stage(at).id, wait };
    Digest::of(&serde_json::to_vec(&delivery).expect("a delivery has text keys only"))
}
