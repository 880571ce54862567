//! What stages wait for, and what came of it, as people say it: of events and of views alike.

use std::time::Duration;

use apispec::{AnswerView, QuestionView, RetryReasonView};
use model::{Digest, event::run::CancelReason, plan::RetryReason};

use super::text;

/// Characters of a digest by which people tell deliveries apart.
const DIGEST_CHARACTERS: usize = 12;

/// The beginning of a digest.
pub(super) fn digest(digest: &Digest) -> String {
    digest.hex().chars().take(DIGEST_CHARACTERS).collect()
}

/// That not all warnings stand in a run.
pub(super) fn more_warnings(left_out: usize) -> String {
    format!("and {left_out} more warnings: `otto check` tells all")
}

/// For what is waited, and for whom.
pub(super) fn asked(question: &QuestionView) -> String {
    let of = |by: &[String]| if by.is_empty() { String::new() } else { format!(" of {}", by.join(", ")) };
    match question {
        QuestionView::Confirm { message, by, delivery } => {
            format!("for the approval{} of delivery {}: {message}", of(by), digest(delivery))
        }
        QuestionView::Prompt { message, into: _, options, by } => {
            let options = if options.is_empty() { String::new() } else { format!(" ({})", options.join(", ")) };
            format!("for an answer{}: {message}{options}", of(by))
        }
        QuestionView::Webhook { description } => format!("for a call: {description}"),
        QuestionView::Poll { url, status, every_ms } => {
            format!("for {url} to answer {status}, asked every {}", text::duration(Duration::from_millis(*every_ms)))
        }
        QuestionView::Time => "for time to pass".to_owned(),
        QuestionView::Pause => "for a person to resume it".to_owned(),
    }
}

/// What happened to what was waited for.
pub(super) fn answered(answer: &AnswerView) -> String {
    let by = |by: &Option<String>| by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    match answer {
        AnswerView::Approved { by: who } => format!("approved{}", by(who)),
        AnswerView::Refused { by: who, reason } => {
            format!("refused{}{}", by(who), reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())
        }
        AnswerView::Text { by: who, text } => format!("answered{}: {text}", by(who)),
        AnswerView::CalledBack => "called back".to_owned(),
        AnswerView::Polled => "the address answered".to_owned(),
        AnswerView::Elapsed => "the time has passed".to_owned(),
        AnswerView::Resumed { by: who } => format!("resumed{}", by(who)),
        AnswerView::TimedOut => "nobody answered in time".to_owned(),
    }
}

/// What an attempt is followed by another one after.
pub(super) fn after(reason: RetryReasonView) -> &'static str {
    match reason {
        RetryReasonView::Failed => "it failed",
        RetryReasonView::Lost => "its agent was lost",
    }
}

/// The same, of an event.
pub(super) fn retry_reason(reason: RetryReason) -> RetryReasonView {
    match reason {
        RetryReason::Failed => RetryReasonView::Failed,
        RetryReason::Lost => RetryReasonView::Lost,
    }
}

/// Who or what ends a run.
pub(super) fn cancelled(by: &str, reason: &CancelReason, force: bool) -> String {
    let how = if force { " at once" } else { "" };
    match reason {
        CancelReason::Person => format!("cancelled{how} by {by}"),
        CancelReason::Newer { run } => format!("cancelled{how}, as the newer {run} takes its place"),
        CancelReason::TimedOut => format!("cancelled{how}, as its time is over"),
    }
}

#[cfg(test)]
mod tests {
    use model::event::run::{Answer, Question};

    use super::*;

    #[test]
    fn whom_a_stage_waits_for_is_said() {
        let confirm = Question::Confirm { message: "Ship it?".to_owned(), by: vec!["ops".to_owned()], delivery: Digest::of(b"abc") };
        assert_eq!(asked(&(&confirm).into()), "for the approval of ops of delivery ba7816bf8f01: Ship it?");
        let prompt = Question::Prompt {
            message: "Which?".to_owned(),
            into: "color".to_owned(),
            options: vec!["red".to_owned(), "blue".to_owned()],
            by: Vec::new(),
        };
        assert_eq!(asked(&(&prompt).into()), "for an answer: Which? (red, blue)");
        let poll = Question::Poll { url: "https://x.test/".to_owned(), status: 200, every_ms: 10_000 };
        assert_eq!(asked(&(&poll).into()), "for https://x.test/ to answer 200, asked every 10.0 s");
    }

    #[test]
    fn what_came_of_it_is_said() {
        let told = |given: &Answer, by: Option<&str>| answered(&AnswerView::new(given, by.map(str::to_owned).as_ref()));
        assert_eq!(told(&Answer::Refused { reason: Some("too late".to_owned()) }, Some("ann")), "refused by ann: too late");
        assert_eq!(told(&Answer::Approved { delivery: Digest::of(b"") }, Some("ann")), "approved by ann");
        assert_eq!(told(&Answer::TimedOut, None), "nobody answered in time");
    }
}
