//! How stages and runs end.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How one attempt of a stage, and with its last attempt the stage, ended. The order is that of severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StageOutcome {
    /// Every step succeeded.
    Success,
    /// It did its work, and something is not as it should be: a step ended as unstable, or a test failed. What waits for it goes on.
    Unstable,
    /// A step failed, or the stage could not be prepared.
    Failure,
    /// It was cancelled.
    Aborted,
}

/// How a run ended. The order is that of severity: a run ends as the worst of its stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// The pipeline's `triggers` do not name what happened, so nothing was done.
    Skipped,
    /// Every stage succeeded.
    Success,
    /// No stage failed but those that may, and one of those did, or one was unstable.
    Unstable,
    /// A stage failed, or the pipeline file was refused.
    Failure,
    /// It was cancelled.
    Aborted,
    /// A stage that must not start twice was lost: only a person can say how it ended.
    Unknown,
}

macro_rules! display {
    ($type:ident { $($variant:ident => $text:literal),* $(,)? }) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text),* })
            }
        }
    };
}
display!(StageOutcome { Success => "success", Unstable => "unstable", Failure => "failure", Aborted => "aborted" });
display!(RunOutcome { Skipped => "skipped", Success => "success", Unstable => "unstable", Failure => "failure", Aborted => "aborted", Unknown => "unknown" });
