//! Plans: what a run would do, or does.

use std::collections::BTreeMap;

use model::{Digest, ProjectName, RunId, context::EventKind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{PlanView, schema};

/// Asks what a run would do. Nothing is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanCreate {
    /// The project that would be delivered.
    #[serde(default = "crate::run::project_default")]
    #[schema(value_type = schema::ProjectName, default = "local", required = false)]
    pub project: ProjectName,
    /// The text of the pipeline file.
    pub pipeline: String,
    /// The pipeline file's path, from the repository's root.
    #[serde(default = "crate::run::pipeline_path_default")]
    #[schema(default = "Ottofile", required = false, max_length = 1024, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub pipeline_path: String,
    /// What would happen: as if a forge vouched for it, but for `manual`.
    #[serde(default)]
    #[schema(value_type = schema::TriggerKind, default = "manual", required = false)]
    pub event: EventKind,
    /// The branch, without `refs/heads/`; empty if there is none.
    #[serde(default)]
    #[schema(max_length = 1024, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub branch: String,
    /// The tag, without `refs/tags/`; empty if there is none.
    #[serde(default)]
    #[schema(max_length = 1024, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub tag: String,
    /// The pull request; with one, the event is `pull_request`.
    #[serde(default)]
    pub pull_request: Option<PullRequestView>,
    /// The commit's full id; empty if there is none.
    #[serde(default)]
    #[schema(max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub commit: String,
    /// The source tree: a tar archive that lies in the depot. Without one, the commit has no files.
    #[serde(default)]
    #[schema(value_type = Option<schema::Digest>)]
    pub source: Option<Digest>,
    /// Values of the pipeline's parameters.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// A run with whose plan it is compared.
    #[serde(default)]
    #[schema(value_type = Option<schema::RunId>)]
    pub compare_with: Option<RunId>,
}

/// A pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PullRequestView {
    /// Its number at the forge.
    #[schema(maximum = 9_007_199_254_740_991_i64)]
    pub number: u64,
    /// The branch that it would be merged into.
    #[schema(max_length = 1024, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub target: String,
    /// The branch that has its commits.
    #[schema(max_length = 1024, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub source: String,
    /// Whether its commits are in another repository.
    #[serde(default)]
    pub fork: bool,
}

/// What a pipeline file gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanDetail {
    /// Whether it is a plan, and which.
    pub plan: PlanView,
    /// The plan, whose canonical JSON (RFC 8785) has the digest; `null` if there is none.
    #[schema(value_type = Option<Object>)]
    pub document: Option<serde_json::Value>,
    /// The plan for people, as `otto explain` prints it; `null` if there is none.
    pub explain: Option<String>,
    /// What is different from the plan that it was compared with, as `otto diff` prints it; `null` where there are not two plans.
    pub diff: Option<String>,
}
