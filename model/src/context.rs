//! The trigger context: all that a plan may know of the world besides the files of the commit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A branch was pushed.
    Push,
    /// A tag was pushed.
    Tag,
    /// A pull request was opened or changed.
    PullRequest,
    /// A merge queue asks whether its next state is good.
    MergeQueue,
    /// A time of the pipeline's `cron` has come.
    Cron,
    /// A person or a program asked for the run.
    #[default]
    Manual,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Push, Self::Tag, Self::PullRequest, Self::MergeQueue, Self::Cron, Self::Manual];

    /// The word for it, in pipelines and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Tag => "tag",
            Self::PullRequest => "pull_request",
            Self::MergeQueue => "merge_queue",
            Self::Cron => "cron",
            Self::Manual => "manual",
        }
    }
}

/// The facts of the trigger that a pipeline's conditions may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TriggerContext {
    /// What happened.
    #[serde(default)]
    pub event: EventKind,
    /// The branch, without `refs/heads/`; empty where there is none, and for a pull request. For a merge queue, the branch it merges into.
    #[serde(default)]
    pub branch: String,
    /// The tag, without `refs/tags/`; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tag: String,
    /// The pull request, if the event is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequest>,
    /// The commit's full id, as git prints it; empty for a working tree.
    #[serde(default)]
    pub commit: String,
    /// The commit that changes are compared with: the merge base, else the branch's previous commit; empty if there is neither.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub base: String,
    /// The line of the pipeline's `cron` whose time has come; empty for other events.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cron: String,
    /// Values of the pipeline's parameters, as they were given.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
}

/// Whose caches a run makes. What nobody verified has a scope of its own, so that it leaves nothing to a branch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CacheScope {
    /// A branch's, as the forge verified it.
    Branch(String),
    /// A pull request's.
    PullRequest(u64),
    /// Those of runs that were asked for, for this branch; the empty text where they named none.
    Manual(String),
    /// A tag's.
    Tag(String),
    /// Those of what waits in a merge queue for this branch.
    MergeQueue(String),
}

impl CacheScope {
    /// The scope that a run of this context writes.
    pub fn of(context: &TriggerContext) -> Self {
        match (&context.pull_request, context.event) {
            (Some(pull_request), _) => Self::PullRequest(pull_request.number),
            (None, EventKind::Manual | EventKind::PullRequest) => Self::Manual(context.branch.clone()),
            (None, EventKind::Tag) => Self::Tag(context.tag.clone()),
            (None, EventKind::MergeQueue) => Self::MergeQueue(context.branch.clone()),
            (None, EventKind::Push | EventKind::Cron) => Self::Branch(context.branch.clone()),
        }
    }

    /// Its kind and its name, as parts of a key: no two scopes have the same.
    pub fn parts(&self) -> [String; 2] {
        let (kind, name) = match self {
            Self::Branch(branch) => ("branch", branch.clone()),
            Self::PullRequest(number) => ("pull_request", number.to_string()),
            Self::Manual(branch) => ("manual", branch.clone()),
            Self::Tag(tag) => ("tag", tag.clone()),
            Self::MergeQueue(branch) => ("merge_queue", branch.clone()),
        };
        [kind.to_owned(), name]
    }
}

impl Default for CacheScope {
    /// That of which least is known.
    fn default() -> Self {
        Self::Manual(String::new())
    }
}

/// A pull request, as the forge verified it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PullRequest {
    /// Its number at the forge.
    pub number: u64,
    /// The branch that it would be merged into.
    pub target: String,
    /// The branch that has its commits.
    pub source: String,
    /// Whether its commits are in another repository.
    pub fork: bool,
}
