//! Runs: what makes one, and how one is shown.

use std::collections::BTreeMap;

use model::{Digest, ProjectName, RunId, RunOutcome, Timestamp, context::EventKind, diagnostic::Diagnostic};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{StageView, schema};

/// The project of a run that names none.
pub const PROJECT_DEFAULT: &str = "local";
/// The path of the pipeline file of a run that names none.
pub const PIPELINE_PATH_DEFAULT: &str = "Ottofile";
/// The longest time that may be asked for a run, in milliseconds: a leap year.
pub const RUN_TIMEOUT_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;

/// Asks for a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunCreate {
    /// The project that is delivered.
    #[serde(default = "project_default")]
    #[schema(value_type = schema::ProjectName, default = "local", required = false)]
    pub project: ProjectName,
    /// The text of the pipeline file.
    pub pipeline: String,
    /// The pipeline file's path, from the repository's root.
    #[serde(default = "pipeline_path_default")]
    #[schema(default = "Ottofile", required = false, max_length = 1024, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub pipeline_path: String,
    /// The branch, without `refs/heads/`; empty if there is none.
    #[serde(default)]
    #[schema(max_length = 1024, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub branch: String,
    /// The commit's full id; empty if there is none.
    #[serde(default)]
    #[schema(max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub commit: String,
    /// The source tree: a tar archive that lies in the depot, brought with `POST /v1/sources`. Without one, stages start in an empty folder.
    #[serde(default)]
    #[schema(value_type = Option<schema::Digest>)]
    pub source: Option<Digest>,
    /// The list of the source's files, where the pipeline asks what there is: the JSON of an object of each path's digest, in the depot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Digest>)]
    pub listing: Option<Digest>,
    /// What changed, where the pipeline asks for it: the JSON of a list of paths, in the depot. Without one, everything may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Digest>)]
    pub changed: Option<Digest>,
    /// Values of the pipeline's parameters.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// The one stage that is wanted, by its path, with all that it needs; the others are skipped. Without it, all are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// How long the whole run may take, in milliseconds; without it, as long as its stages and gates may.
    #[serde(default, deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 31_622_400_000_i64)]
    pub timeout_ms: Option<u64>,
}

/// Asks for a run of a project's own code, as its source has it now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectRunCreate {
    /// Of which commit.
    #[serde(default)]
    pub revision: RevisionCreate,
    /// Values of the pipeline's parameters.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// How long the whole run may take, in milliseconds; without it, as long as its stages and gates may.
    #[serde(default, deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 31_622_400_000_i64)]
    pub timeout_ms: Option<u64>,
}

/// A commit of a project's source, by what leads to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum RevisionCreate {
    /// The default branch: where the repository's `HEAD` leads.
    #[default]
    DefaultBranch,
    /// A branch.
    Branch {
        /// Its name, without `refs/heads/`.
        name: String,
    },
    /// A tag.
    Tag {
        /// Its name, without `refs/tags/`.
        name: String,
    },
}

/// Asks for an ended run to be run again: the same plan, digest for digest, on the same source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RerunCreate {
    /// Which stages start again. The others keep their outcome, and what they have left.
    #[serde(default)]
    pub stages: RerunStages,
}

/// Which stages of an ended run start again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum RerunStages {
    /// All.
    #[default]
    All,
    /// Those that did not succeed, and what waits for them.
    Failed,
    /// This one, and what waits for it.
    Stage {
        /// Its path or its id.
        stage: String,
    },
}

pub(crate) fn project_default() -> ProjectName {
    PROJECT_DEFAULT.parse().expect("the default is a name")
}

pub(crate) fn pipeline_path_default() -> String {
    PIPELINE_PATH_DEFAULT.to_owned()
}

/// The run that was made, or that the same request made before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunCreated {
    /// The run.
    #[schema(value_type = schema::RunId)]
    pub run: RunId,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    /// The run.
    #[schema(value_type = schema::RunId)]
    pub id: RunId,
    /// The project that is delivered.
    #[schema(value_type = schema::ProjectName)]
    pub project: ProjectName,
    /// What made it start.
    #[schema(value_type = schema::TriggerKind)]
    pub event: EventKind,
    /// The branch; empty if there is none.
    pub branch: String,
    /// The commit's full id; empty if there is none.
    pub commit: String,
    /// The pipeline file's path, from the repository's root.
    pub pipeline_path: String,
    /// When it was taken up.
    #[schema(value_type = schema::Timestamp)]
    pub accepted_at: Timestamp,
    /// What the pipeline file gave.
    pub plan: PlanView,
    /// The earlier run that it runs again; `null` for one that was planned.
    #[schema(value_type = Option<schema::RunId>)]
    pub rerun_of: Option<RunId>,
    /// Where it stands.
    pub status: RunStatus,
}

/// What a run's pipeline file gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum PlanView {
    /// A plan.
    Planned {
        /// The digest of its canonical JSON, which lies in the depot.
        #[schema(value_type = schema::Digest)]
        digest: Digest,
        /// How many stages it has.
        stages: usize,
        /// What may not be meant as it is written: the first of it.
        #[serde(default)]
        #[schema(value_type = Vec<schema::Diagnostic>)]
        warnings: Vec<Diagnostic>,
        /// How many more warnings there are.
        #[serde(default)]
        warnings_left_out: usize,
    },
    /// No plan: the file was refused.
    Refused {
        /// Why.
        #[schema(value_type = Vec<schema::Diagnostic>)]
        diagnostics: Vec<Diagnostic>,
    },
    /// No plan: the pipeline's `triggers` do not name what happened.
    NotTriggered {
        /// Which facts do not fit.
        reason: String,
    },
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RunStatus {
    /// Stages wait or run.
    Running,
    /// It waits for the end of an older run of the same branch or pull request.
    Held {
        /// That run.
        #[schema(value_type = schema::RunId)]
        older: RunId,
    },
    /// Its end was asked for; stages that run are being ended.
    Cancelling {
        /// Who asked.
        by: String,
        /// Whether at once, without a word to what runs.
        force: bool,
        /// When.
        #[schema(value_type = schema::Timestamp)]
        since: Timestamp,
    },
    /// Its log or its plan is damaged. It is shown as far as it could be read, and is not run upon: it does not end, and takes no answer.
    Damaged {
        /// What is wrong.
        why: String,
        /// What can be done about it.
        help: String,
    },
    /// Nothing will run any more.
    Ended {
        /// How it ended.
        #[schema(value_type = schema::RunOutcome)]
        outcome: RunOutcome,
        /// When.
        #[schema(value_type = schema::Timestamp)]
        at: Timestamp,
        /// Who had asked for the end; `null` if nobody had.
        cancelled_by: Option<String>,
    },
}

/// The names of [`RunStatus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StatusName {
    /// [`RunStatus::Running`].
    Running,
    /// [`RunStatus::Held`].
    Held,
    /// [`RunStatus::Cancelling`].
    Cancelling,
    /// [`RunStatus::Damaged`].
    Damaged,
    /// [`RunStatus::Ended`].
    Ended,
}

/// A run with its stages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunDetail {
    /// The run.
    #[serde(flatten)]
    pub run: RunView,
    /// Its stages, each after those that it needs.
    pub stages: Vec<StageView>,
}

/// Some runs, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunList {
    /// The runs.
    pub runs: Vec<RunView>,
    /// Ask again with this as `cursor` for older ones; `null` if these were the last.
    #[schema(value_type = Option<schema::Cursor>)]
    pub cursor: Option<String>,
}

/// The process answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
    /// The version of Otto.
    pub version: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_is_all_that_a_run_needs() {
        let create: RunCreate = serde_json::from_str(r#"{"pipeline": "pipeline {}"}"#).unwrap();
        assert_eq!((create.project.as_str(), create.pipeline_path.as_str(), create.source), ("local", "Ottofile", None));
        assert!(serde_json::from_str::<RunCreate>(r#"{"pipeline": "", "pipline_path": "x"}"#).is_err());
        assert!(serde_json::from_str::<RunCreate>(r#"{"pipeline": "", "project": "Not A Name"}"#).is_err());
    }
}
