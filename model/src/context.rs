//! The trigger context: all that a plan may know of the world besides the files of the commit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A branch was pushed.
    Push,
    /// A person or a program asked for the run.
    #[default]
    Manual,
}

/// The facts of the trigger that a pipeline's conditions may ask for. `branch` is empty where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriggerContext {
    /// What happened.
    #[serde(default)]
    pub event: EventKind,
    /// The branch, without `refs/heads/`.
    #[serde(default)]
    pub branch: String,
    /// The commit's full id, as git prints it; empty for a working tree.
    #[serde(default)]
    pub commit: String,
    /// Values of the pipeline's parameters.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
}
