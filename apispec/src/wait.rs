//! What a run waits for, of people and of the outside, and how it is answered.

use std::{fmt, str::FromStr};

use model::{
    Digest, ProjectName, RunId, Timestamp,
    event::run::{Answer, Question, WaitKey},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{StageRef, schema};

/// Which of a stage's waits: `itself`, or the place of one of its gates, from 0, as in `enter:0` and `exit:1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^(itself|(enter|exit):[0-9]{1,9})$")]
pub struct WaitName(pub WaitKey);

/// Why a text names no wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidWaitName(String);

impl fmt::Display for InvalidWaitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` names no wait: expected `itself`, `enter:0`, `exit:0` and so on", self.0)
    }
}

impl std::error::Error for InvalidWaitName {}

impl fmt::Display for WaitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            WaitKey::Itself => f.write_str("itself"),
            WaitKey::Enter(place) => write!(f, "enter:{place}"),
            WaitKey::Exit(place) => write!(f, "exit:{place}"),
        }
    }
}

impl FromStr for WaitName {
    type Err = InvalidWaitName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidWaitName(text.to_owned());
        if text == "itself" {
            return Ok(Self(WaitKey::Itself));
        }
        let (gate, place) = text.split_once(':').ok_or_else(invalid)?;
        let place = place.parse().map_err(|_| invalid())?;
        match gate {
            "enter" => Ok(Self(WaitKey::Enter(place))),
            "exit" => Ok(Self(WaitKey::Exit(place))),
            _ => Err(invalid()),
        }
    }
}

impl TryFrom<String> for WaitName {
    type Error = InvalidWaitName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<WaitName> for String {
    fn from(name: WaitName) -> Self {
        name.to_string()
    }
}

/// Something that a stage waits or waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitView {
    /// Which of the stage's waits.
    pub wait: WaitName,
    /// What is waited for.
    pub question: QuestionView,
    /// Since when.
    #[schema(value_type = schema::Timestamp)]
    pub since: Timestamp,
    /// When it is over without an answer; `null` if never.
    #[schema(value_type = Option<schema::Timestamp>)]
    pub due_at: Option<Timestamp>,
    /// What happened; `null` while it is waited for.
    pub answer: Option<AnswerView>,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum QuestionView {
    /// A person approves the delivery, or refuses it.
    Confirm {
        /// What is asked.
        message: String,
        /// Who may answer; empty for all who may approve.
        by: Vec<String>,
        /// What is approved: the approval must name it.
        #[schema(value_type = schema::Digest)]
        delivery: Digest,
    },
    /// A person answers with a text.
    Prompt {
        /// What is asked.
        message: String,
        /// The variable that will hold the answer.
        into: String,
        /// The answers to choose from; empty for any text.
        options: Vec<String>,
        /// Who may answer; empty for all who may approve.
        by: Vec<String>,
    },
    /// An outside system calls.
    Webhook {
        /// What is waited for.
        description: String,
    },
    /// An address is asked until it answers as expected.
    Poll {
        /// The address.
        url: String,
        /// The expected status.
        status: u16,
        /// Between two questions, in milliseconds.
        every_ms: u64,
    },
    /// Time passes.
    Time,
    /// A person resumes the run.
    Pause,
}

impl QuestionView {
    /// Whether a person is waited for.
    pub fn is_for_a_person(&self) -> bool {
        matches!(self, Self::Confirm { .. } | Self::Prompt { .. } | Self::Pause)
    }
}

impl From<&Question> for QuestionView {
    fn from(question: &Question) -> Self {
        match question {
            Question::Confirm { message, by, delivery } => Self::Confirm { message: message.clone(), by: by.clone(), delivery: *delivery },
            Question::Prompt { message, into, options, by } => {
                Self::Prompt { message: message.clone(), into: into.clone(), options: options.clone(), by: by.clone() }
            }
            Question::Webhook { description, secret: _ } => Self::Webhook { description: description.clone() },
            Question::Poll { url, status, every_ms } => Self::Poll { url: url.clone(), status: *status, every_ms: *every_ms },
            Question::Time => Self::Time,
            Question::Pause => Self::Pause,
        }
    }
}

/// What happened to something that was waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum AnswerView {
    /// A person approved.
    Approved {
        /// Who.
        by: Option<String>,
    },
    /// A person refused.
    Refused {
        /// Who.
        by: Option<String>,
        /// Why, if the person said so.
        reason: Option<String>,
    },
    /// A person's text.
    Text {
        /// Who.
        by: Option<String>,
        /// The text.
        text: String,
    },
    /// The outside system called.
    CalledBack,
    /// The address answered as expected.
    Polled,
    /// The time has passed.
    Elapsed,
    /// A person resumed the run.
    Resumed {
        /// Who.
        by: Option<String>,
    },
    /// Nobody answered in time.
    TimedOut,
}

impl AnswerView {
    /// What happened, and by whom if that is known.
    pub fn new(answer: &Answer, by: Option<&String>) -> Self {
        let by = by.cloned();
        match answer {
            Answer::Approved { delivery: _ } => Self::Approved { by },
            Answer::Refused { reason } => Self::Refused { by, reason: reason.clone() },
            Answer::Text { text } => Self::Text { by, text: text.clone() },
            Answer::CalledBack => Self::CalledBack,
            Answer::Polled => Self::Polled,
            Answer::Elapsed => Self::Elapsed,
            Answer::Resumed => Self::Resumed { by },
            Answer::TimedOut => Self::TimedOut,
        }
    }
}

/// Answers something that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerCreate {
    /// The stage's path or id; may be left out where one stage of the run alone waits for such an answer.
    #[serde(default)]
    pub stage: Option<String>,
    /// Which of its waits; may be left out where one alone waits for such an answer.
    #[serde(default)]
    pub wait: Option<WaitName>,
    /// The answer.
    pub answer: AnswerGiven,
}

/// A person's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum AnswerGiven {
    /// Approves a delivery.
    Approve {
        /// Which: the digest that the question shows. An approval of another delivery is refused.
        #[schema(value_type = schema::Digest)]
        delivery: Digest,
    },
    /// Refuses it: the stage fails.
    Refuse {
        /// Why.
        #[serde(default)]
        reason: Option<String>,
    },
    /// Answers a question.
    Text {
        /// The answer.
        text: String,
    },
    /// Resumes a run that pauses.
    Resume,
}

/// Something that waits now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpenWaitView {
    /// The run.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
    /// Its project.
    #[schema(value_type = schema::ProjectName)]
    pub project: ProjectName,
    /// Its branch; empty if there is none.
    pub branch: String,
    /// The stage.
    pub stage: StageRef,
    /// What it waits for.
    #[serde(flatten)]
    pub wait: WaitView,
}

/// What waits for a person now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitList {
    /// Those that wait longest first.
    pub waits: Vec<OpenWaitView>,
    /// Whether there are more.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_reads_back_by_its_name() {
        for (name, key) in [("itself", WaitKey::Itself), ("enter:0", WaitKey::Enter(0)), ("exit:12", WaitKey::Exit(12))] {
            assert_eq!((name.parse(), WaitName(key).to_string()), (Ok(WaitName(key)), name.to_owned()));
        }
        for wrong in ["", "enter", "enter:", "enter:-1", "leave:0"] {
            assert!(wrong.parse::<WaitName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_is_short_to_write() {
        let create: AnswerCreate = serde_json::from_str(r#"{"answer": {"kind": "refuse"}}"#).unwrap();
        assert_eq!(create, AnswerCreate { stage: None, wait: None, answer: AnswerGiven::Refuse { reason: None } });
        assert!(serde_json::from_str::<AnswerCreate>(r#"{"answer": {"kind": "approve"}}"#).is_err(), "it names what it approves");
        assert!(
            serde_json::from_str::<AnswerCreate>(r#"{"answer": {"kind": "refuse", "delivery": "x"}}"#).is_err(),
            "nothing is passed over"
        );
    }
}
